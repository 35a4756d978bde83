//! May a schema follow another? FULL: what either wrote, the other reads; checked by apache-avro and by rules of
//! ours where it is blind (logical types, names, defaults). Not here: how older values are read (`resolve`).
//! Invariant: every current schema is compatible with every released version of it, not only with the last.

mod rules;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use serde_json::Value;

use super::schemas::{self, SchemaFile};

/// Longest text of the Avro library that is passed on, in characters.
const LIBRARY_CHARS_MAX: usize = 200;

/// One reason why a schema may not follow another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The schema file it is about, for example `RunEvent against version 1`.
    pub subject: String,
    /// Path of what is wrong, for example `orloj.RunEvent.state`; empty: the whole schema.
    pub place: String,
    /// What is wrong and what the rule is.
    pub problem: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.place.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}: {}", self.subject, self.place, self.problem)
    }
}

/// Schemas as texts: the current ones, and each released version by its name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SchemaSet {
    /// Record → text.
    pub current: BTreeMap<String, String>,
    /// Version → record → text.
    pub released: BTreeMap<String, BTreeMap<String, String>>,
}

impl SchemaSet {
    /// The schemas in this binary.
    #[must_use]
    pub fn embedded() -> Self {
        let texts =
            |files: &[SchemaFile]| files.iter().map(|file| (file.record.to_owned(), file.text.to_owned())).collect();
        let released = schemas::RELEASED.iter().map(|release| (release.version.to_string(), texts(release.files)));
        Self { current: texts(schemas::CURRENT), released: released.collect() }
    }

    /// The schemas of a folder: `*.avsc`, and `released/<version>/*.avsc`.
    ///
    /// # Errors
    /// When a file or folder can't be read.
    pub fn read(folder: &Path) -> io::Result<Self> {
        let mut released = BTreeMap::new();
        for entry in fs::read_dir(folder.join("released"))? {
            let path = entry?.path();
            if let (true, Some(version)) = (path.is_dir(), path.file_name()) {
                released.insert(version.to_string_lossy().into_owned(), read_folder(&path)?);
            }
        }
        Ok(Self { current: read_folder(folder)?, released })
    }

    /// Everything that is wrong: a current schema against each released version of it, released records that
    /// are gone, and definitions that differ between files though they have one name.
    #[must_use]
    pub fn check(&self) -> Vec<Finding> {
        let mut findings = rules::check_definitions(&self.current);
        for (version, records) in &self.released {
            for (record, old) in records {
                let subject = format!("{record} against version {version}");
                match self.current.get(record) {
                    Some(new) => findings.extend(check_about(&subject, old, new)),
                    None => findings.push(Finding {
                        subject,
                        place: String::new(),
                        problem: "the schema is gone; values of it may still be in the log".to_owned(),
                    }),
                }
            }
        }
        findings
    }
}

fn read_folder(folder: &Path) -> io::Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "avsc")
            && let Some(record) = path.file_stem()
        {
            texts.insert(record.to_string_lossy().into_owned(), fs::read_to_string(&path)?);
        }
    }
    Ok(texts)
}

/// Checks the schemas of a folder against the released versions in it.
///
/// # Errors
/// When a file or folder can't be read.
pub fn check_released(folder: &Path) -> io::Result<Vec<Finding>> {
    SchemaSet::read(folder).map(|set| set.check())
}

/// Checks whether `new` may follow `old`, both ways.
#[must_use]
pub fn check(old: &str, new: &str) -> Vec<Finding> {
    check_about("the schema", old, new)
}

fn check_about(subject: &str, old: &str, new: &str) -> Vec<Finding> {
    let (old_json, new_json) = match (parse(old), parse(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (Err(error), _) => return vec![whole(subject, format!("the old schema can't be parsed: {error}"))],
        (_, Err(error)) => return vec![whole(subject, format!("the new schema can't be parsed: {error}"))],
    };
    let mut findings = rules::check_pair(subject, &old_json.0, &new_json.0);
    let ways = [
        ("the new schema can't read what the old one wrote", &old_json.1, &new_json.1),
        ("the old schema can't read what the new one wrote", &new_json.1, &old_json.1),
    ];
    for (problem, writer, reader) in ways {
        match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => {}
            Ok(Compatibility::Partial) => findings.push(whole(subject, format!("{problem}: some values would fail"))),
            Err(error) => findings.push(whole(subject, format!("{problem}: {}", shortened(&error)))),
        }
    }
    findings
}

fn whole(subject: &str, problem: String) -> Finding {
    Finding { subject: subject.to_owned(), place: String::new(), problem }
}

fn parse(text: &str) -> Result<(Value, Schema), String> {
    let json: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let schema = Schema::parse(&json).map_err(|error| shortened(&error))?;
    Ok((json, schema))
}

/// The library's texts may print whole schemas.
fn shortened(error: &impl fmt::Display) -> String {
    error.to_string().chars().take(LIBRARY_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"{"type": "record", "name": "A", "namespace": "n", "fields": [
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["x", "y"], "default": "x"}},
        {"name": "note", "type": ["null", "string"], "default": null}
    ]}"#;

    /// Edits the old schema and compares the problems found, by how they begin.
    fn check_edit(from: &str, to: &str, expected: &[&str]) {
        assert!(OLD.contains(from), "{from}");
        let found = check(OLD, &OLD.replace(from, to));
        let texts: Vec<String> =
            found.iter().map(|finding| format!("{}: {}", finding.place, finding.problem)).collect();
        assert_eq!(texts.is_empty(), expected.is_empty(), "{texts:#?}");
        for part in expected {
            assert!(texts.iter().any(|text| text.contains(part)), "`{part}` is not in {texts:#?}");
        }
    }

    #[test]
    fn what_may_follow() {
        check_edit("\"at\"", "\"at\"", &[]);
        let note = "{\"name\": \"note\"";
        check_edit(note, &format!("{{\"name\": \"more\", \"type\": \"int\", \"default\": 0}}, {note}"), &[]);
        check_edit(",\n        {\"name\": \"note\", \"type\": [\"null\", \"string\"], \"default\": null}", "", &[]);
        check_edit("[\"x\", \"y\"]", "[\"x\", \"y\", \"z\"]", &[]);
    }

    #[test]
    fn what_may_not_follow() {
        check_edit("timestamp-millis", "timestamp-micros", &["n.A.at: logicalType"]);
        check_edit("\"namespace\": \"n\"", "\"namespace\": \"m\"", &["name"]);
        check_edit("\"K\"", "\"L\"", &["n.A.kind: the name was `n.K`"]);
        check_edit(", \"default\": \"x\"}", "}", &["n.K: the enum has no default"]);
        check_edit("[\"x\", \"y\"]", "[\"x\"]", &["n.K: the symbol `y` is gone"]);
        let note = "{\"name\": \"note\"";
        check_edit(
            note,
            &format!("{{\"name\": \"more\", \"type\": \"int\"}}, {note}"),
            &["n.A.more: a new field must have a default"],
        );
        check_edit(
            "{\"name\": \"at\", \"type\": {\"type\": \"long\", \"logicalType\": \"timestamp-millis\"}},",
            "",
            &["n.A.at: the field is gone and had no default"],
        );
        check_edit("\"string\"", "\"int\"", &["can't read"]);
        check_edit("[\"null\", \"string\"]", "[\"null\", \"string\", \"int\"]", &["the old schema can't read"]);
        check_edit("\"default\": null", "\"default\": ", &["can't be parsed"]);
    }

    #[test]
    fn the_embedded_schemas_may_follow_every_released_version() {
        assert_eq!(SchemaSet::embedded().check(), []);
    }

    #[test]
    fn the_embedded_schemas_are_those_of_the_source_tree() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
        assert_eq!(SchemaSet::embedded(), SchemaSet::read(&folder).expect("schemas"));
        assert_eq!(check_released(&folder).expect("schemas"), []);
    }
}
