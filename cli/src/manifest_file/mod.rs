//! Manifests from files: YAML of one or more documents, or JSON, from FILE, DIR or standard input. Not here: what
//! a manifest means (`orloj_domain::manifest`). Invariant: one complaint anywhere and nothing is returned, so
//! nothing is sent; each complaint names file, line, column, field and what was expected.

mod document;
mod locate;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use orloj_domain::calendar::{self, Calendar, CalendarManifest};
use orloj_domain::id::LimitId;
use orloj_domain::job::JobDefinition;
use orloj_domain::job_event::FieldError;
use orloj_domain::limit::{self, LIMIT_KIND, LimitManifest, QUEUE_KIND};
use orloj_domain::manifest::{KIND, Manifest, to_definition};
use serde_saphyr::Spanned;

use document::Document;
use locate::{Node, Place};

/// A manifest that passed every check, and where it came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// `FILE:LINE`.
    pub(crate) origin: String,
    /// As it is sent.
    pub(crate) manifest: Manifest,
    /// As it will be.
    pub(crate) definition: JobDefinition,
}

/// A calendar that passed every check, and where it came from.
#[derive(Debug)]
pub(crate) struct LoadedCalendar {
    /// `FILE:LINE`.
    pub(crate) origin: String,
    /// As it is sent.
    pub(crate) manifest: CalendarManifest,
    /// As it will be.
    pub(crate) calendar: Calendar,
}

/// A limit or what bounds a queue, that passed every check, and where it came from.
#[derive(Debug)]
pub(crate) struct LoadedLimit {
    /// `FILE:LINE`.
    pub(crate) origin: String,
    /// As it is sent.
    pub(crate) manifest: LimitManifest,
    /// Which it is.
    pub(crate) limit: LimitId,
}

/// All that files hold, in their order.
#[derive(Debug, Default)]
pub(crate) struct Manifests {
    pub(crate) jobs: Vec<Loaded>,
    pub(crate) calendars: Vec<LoadedCalendar>,
    pub(crate) limits: Vec<LoadedLimit>,
}

/// Most documents of one file; one crontab of a large host makes some hundreds.
const DOCUMENTS_MAX: usize = 100_000;
/// Most nodes of one file.
const NODES_MAX: usize = 5_000_000;

/// Reads all manifests of files, folders (`*.yaml`, `*.yml` and `*.json` in order of name) and `-`.
///
/// # Errors
/// Every complaint, one per line of the list.
pub(crate) fn load(paths: &[String], namespace: Option<&str>) -> Result<Manifests, Vec<String>> {
    let mut loaded = Manifests::default();
    let mut complaints = Vec::new();
    for path in paths {
        for source in sources(path, &mut complaints) {
            match read(&source) {
                Ok(text) => parse(&source.display().to_string(), &text, namespace, &mut loaded, &mut complaints),
                Err(complaint) => complaints.push(complaint),
            }
        }
    }
    refuse_repeats(&loaded, &mut complaints);
    if complaints.is_empty() { Ok(loaded) } else { Err(complaints) }
}

fn sources(path: &str, complaints: &mut Vec<String>) -> Vec<PathBuf> {
    let folder = Path::new(path);
    if path == "-" || !folder.is_dir() {
        return vec![folder.to_owned()];
    }
    let is_manifest = |file: &PathBuf| {
        file.is_file() && file.extension().is_some_and(|it| it == "yaml" || it == "yml" || it == "json")
    };
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).filter(is_manifest).collect(),
        Err(error) => {
            complaints.push(format!("{path}: can't be read: {error}"));
            return Vec::new();
        }
    };
    files.sort();
    if files.is_empty() {
        complaints.push(format!("{path}: has no *.yaml, *.yml or *.json file"));
    }
    files
}

fn read(source: &Path) -> Result<String, String> {
    let bytes = if source == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        std::fs::read(source)
    };
    let bytes = bytes.map_err(|error| format!("{}: can't be read: {error}", source.display()))?;
    String::from_utf8(bytes).map_err(|error| {
        let line =
            error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("{}:{line}: is not UTF-8", source.display())
    })
}

fn parse(name: &str, text: &str, namespace: Option<&str>, loaded: &mut Manifests, complaints: &mut Vec<String>) {
    let name = if name == "-" { "<stdin>" } else { name };
    let is_json = Path::new(name).extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    // YAML takes more than JSON does; a file that says it is JSON should be.
    if is_json && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let (line, column, said) = (error.line(), error.column(), error.to_string());
        let said = said.split(" at line ").next().unwrap_or_default();
        return complaints.push(format!("{name}:{line}:{column}: is not JSON: {said}"));
    }
    let documents: Vec<Spanned<Node>> = match serde_saphyr::from_multiple_with_options(text, options()) {
        Ok(documents) => documents,
        Err(error) => return complaints.push(not_readable(name, &error, &[])),
    };
    let manifests: Vec<Document> = match serde_saphyr::from_multiple_with_options(text, options()) {
        Ok(manifests) => manifests,
        Err(error) => return complaints.push(not_readable(name, &error, &documents)),
    };
    if manifests.is_empty() {
        complaints.push(format!("{name}: has no manifest; `orloj apply --help` shows one"));
    }
    for (manifest, document) in manifests.into_iter().zip(&documents) {
        let origin = format!("{name}:{}", Place::from(document.referenced).line);
        let taken = match manifest {
            Document::Job(manifest) => job(*manifest, namespace, origin).map(|job| loaded.jobs.push(job)),
            Document::Calendar(manifest) => calendar::to_calendar(&manifest)
                .map(|calendar| loaded.calendars.push(LoadedCalendar { origin, manifest: *manifest, calendar })),
            Document::Limit(manifest) => limit::to_rule(&manifest)
                .map(|(limit, _)| loaded.limits.push(LoadedLimit { origin, manifest: *manifest, limit })),
            Document::Other(kind) => {
                let message = format!("must be `{KIND}`, `{}`, `{QUEUE_KIND}` or `{LIMIT_KIND}`", calendar::KIND);
                Err(vec![FieldError::new("kind", kind, message)])
            }
        };
        if let Err(errors) = taken {
            complaints.extend(errors.iter().map(|error| located(name, document, error)));
        }
    }
}

fn job(mut manifest: Manifest, namespace: Option<&str>, origin: String) -> Result<Loaded, Vec<FieldError>> {
    if manifest.metadata.namespace.is_none() {
        manifest.metadata.namespace = namespace.map(str::to_owned);
    }
    let definition = to_definition(manifest.clone())?;
    Ok(Loaded { origin, manifest, definition })
}

fn options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_documents: DOCUMENTS_MAX,
        max_nodes: NODES_MAX,
        max_events: 4 * NODES_MAX,
    };
    serde_saphyr::options! { budget: budget, with_snippet: false }
}

fn located(name: &str, document: &Spanned<Node>, error: &FieldError) -> String {
    let place = locate::place_of(document, &error.field);
    format!("{name}:{}:{}: {error}", place.line, place.column)
}

/// Says what the YAML reader says, with the field it stumbled over and without its own account of the place.
fn not_readable(name: &str, error: &serde_saphyr::Error, documents: &[Spanned<Node>]) -> String {
    let text = error.without_snippet().to_string();
    let Some(place) = error.location().map(Place::from) else { return format!("{name}: {text}") };
    let text = text.replace(&format!(" at line {}, column {}", place.line, place.column), "");
    let text = in_plain_words(&text);
    let field = documents.iter().find_map(|document| locate::path_at(document, place));
    match field {
        Some(field) => format!("{name}:{}:{}: {field}: {text}", place.line, place.column),
        None => format!("{name}:{}:{}: {text}", place.line, place.column),
    }
}

fn in_plain_words(text: &str) -> String {
    match text {
        "invalid i32" | "invalid i64" => "expected a whole number".to_owned(),
        "invalid f64" => "expected a number".to_owned(),
        "invalid boolean" => "expected true or false".to_owned(),
        "expected mapping start" => "expected fields such as `name: value`".to_owned(),
        "expected string scalar" => "expected a text".to_owned(),
        "expected sequence start" => "expected a list such as `[a, b]`".to_owned(),
        other => other.replace(", set DuplicateKeyPolicy in Options if acceptable", "; remove one of them"),
    }
}

fn refuse_repeats(loaded: &Manifests, complaints: &mut Vec<String>) {
    let jobs = loaded.jobs.iter().map(|one| (format!("job {}", one.definition.job), &one.origin));
    let calendars = loaded.calendars.iter().map(|one| (format!("calendar {}", one.calendar.name()), &one.origin));
    let limits = loaded.limits.iter().map(|one| (one.limit.as_str().replacen('/', " ", 1), &one.origin));
    let mut first_of = BTreeMap::new();
    for (what, origin) in jobs.chain(calendars).chain(limits) {
        let said = format!("{origin}: metadata.name: {what} is also at");
        if let Some(first) = first_of.insert(what, origin) {
            complaints.push(format!("{said} {first}"));
        }
    }
}
