//! Crontabs as jobs: what `orloj import crontab` makes of a file's text. Pure: files, the server and the machine's
//! time zone are the command's business. Invariant: every line is made, refused with its number and reason, or
//! says nothing to cron either; a job's name depends on its own line alone, so edits elsewhere rename nothing.

mod command;
mod line;
mod name;
#[cfg(test)]
mod tests;
pub(crate) mod zone;

use std::collections::BTreeMap;

use orloj_domain::job::{MissedKind, OverlapKind};
use orloj_domain::manifest::{
    API_VERSION, KIND, Manifest, Metadata, Missed, Overlap, Rule, Run, Schedule, ShellRun, Spec, to_definition,
};

use line::{Entry, Line};

/// Annotation with the user that cron would run the command as.
pub(crate) const ANNOTATION_USER: &str = "orloj/cron-user";
/// Annotation with the address that cron would mail the output to.
pub(crate) const ANNOTATION_MAILTO: &str = "orloj/cron-mailto";
/// cron bounds no command, and an attempt is never unbounded: a day lets all but the endless ones end.
const TIMEOUT: &str = "24h";

/// How a text is to be read.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Namespace of the jobs.
    pub(crate) namespace: String,
    /// The sixth field is a user, as in `/etc/crontab` and `/etc/cron.d/*`.
    pub(crate) has_user_column: bool,
    /// Time zone of lines that no `CRON_TZ` or `TZ` precedes.
    pub(crate) time_zone: String,
}

/// A job made from a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Made {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// The job.
    pub(crate) manifest: Manifest,
}

/// A line that no job could be made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// The line, counted from 1.
    pub(crate) line: usize,
    /// Why, and what to do.
    pub(crate) reason: String,
}

/// All that became of a text.
#[derive(Debug, Default)]
pub(crate) struct Import {
    /// In the order of the lines.
    pub(crate) made: Vec<Made>,
    /// In the order of the lines.
    pub(crate) refused: Vec<Refused>,
    /// What differs from cron, for the person who imports; each once.
    pub(crate) notes: Vec<String>,
}

/// Reads a crontab.
pub(crate) fn read(text: &str, options: &Options) -> Import {
    let mut reading =
        Reading { options, variables: BTreeMap::new(), names: BTreeMap::new(), import: Import::default() };
    if text.contains('\r') {
        reading.note("lines end in CR LF; the CR was left out, which cron would have passed to the command");
    }
    for (index, text) in text.lines().enumerate() {
        let number = index + 1;
        match line::read(text, options.has_user_column) {
            Ok(Line::Nothing) => {}
            Ok(Line::Variable { .. } | Line::Entry(_)) if text.contains(char::REPLACEMENT_CHARACTER) => {
                let reason =
                    "has bytes that are not UTF-8; convert the file, for example with `iconv -f latin1 -t utf-8`";
                reading.import.refused.push(Refused { line: number, reason: reason.to_owned() });
            }
            Ok(Line::Variable { name, value }) => reading.assign(number, name, value),
            Ok(Line::Entry(entry)) => {
                if let Err(reason) = reading.make(number, &entry) {
                    reading.import.refused.push(Refused { line: number, reason });
                }
            }
            Err(reason) => reading.import.refused.push(Refused { line: number, reason }),
        }
    }
    reading.finish()
}

struct Reading<'a> {
    options: &'a Options,
    /// Assignments hold for the lines below them.
    variables: BTreeMap<String, String>,
    /// Line and time zone of each name made so far.
    names: BTreeMap<String, (usize, String)>,
    import: Import,
}

impl Reading<'_> {
    fn note(&mut self, text: &str) {
        if !self.import.notes.iter().any(|note| note == text) {
            self.import.notes.push(text.to_owned());
        }
    }

    fn assign(&mut self, line: usize, name: String, value: String) {
        match name.as_str() {
            "MAILTO" => self.note("nothing is mailed: MAILTO is kept as an annotation, and output is in `orloj logs`"),
            "TZ" => self.note("TZ is taken as the time zone of the schedule too, as if it were CRON_TZ"),
            "RANDOM_DELAY" if value.parse::<u32>().is_err() => {
                let reason = format!("RANDOM_DELAY is `{value}`; write a number of minutes");
                self.import.refused.push(Refused { line, reason });
                return;
            }
            _ => {}
        }
        self.variables.insert(name, value);
    }

    fn make(&mut self, line: usize, entry: &Entry) -> Result<(), String> {
        let (script, stdin) = command::split_input(&entry.command);
        if script.trim().is_empty() {
            return Err("has no command before the `%`".to_owned());
        }
        let zone = self.time_zone();
        let name = self.unused_name(entry, &zone)?;
        let manifest = Manifest {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            metadata: Metadata {
                namespace: Some(self.options.namespace.clone()),
                name: name.clone(),
                labels: BTreeMap::new(),
                annotations: self.annotations(entry),
            },
            spec: Spec {
                schedule: Some(Schedule::One(Box::new(rule(entry, &zone)))),
                missed: Some(Missed { policy: Some(MissedKind::Skip), ..Missed::default() }),
                overlap: Some(Overlap { policy: Some(OverlapKind::Allow), ..Overlap::default() }),
                jitter: self
                    .variables
                    .get("RANDOM_DELAY")
                    .filter(|minutes| *minutes != "0")
                    .map(|minutes| format!("{minutes}m")),
                timeout: Some(TIMEOUT.to_owned()),
                run: Run { shell: Some(self.shell(script, stdin)), ..Run::default() },
                ..Spec::default()
            },
        };
        to_definition(manifest.clone()).map_err(|errors| reasons(&errors))?;
        if entry.is_quiet {
            self.note("the `-` before a minute, which keeps a line out of the system's log, means nothing here");
        }
        if entry.user.is_some() {
            self.note("commands run as the runner's own user; the user column is kept as an annotation");
        }
        if !self.variables.contains_key("HOME") {
            self.note(
                "commands start in an empty directory, not in the user's home; set HOME= above the lines that need it",
            );
        }
        self.names.insert(name, (line, zone));
        self.import.made.push(Made { line, manifest });
        Ok(())
    }

    fn time_zone(&self) -> String {
        let zone = self.variables.get("CRON_TZ").or_else(|| self.variables.get("TZ"));
        zone.map_or(self.options.time_zone.as_str(), |zone| zone.trim_start_matches(':')).to_owned()
    }

    fn unused_name(&self, entry: &Entry, zone: &str) -> Result<String, String> {
        let user = entry.user.as_deref();
        let mut name = name::of(&entry.schedule, user, &entry.command);
        if self.names.get(&name).is_some_and(|(_, of_twin)| of_twin != zone) {
            name = name::of_zone(&entry.schedule, user, &entry.command, zone);
        }
        match self.names.get(&name) {
            None => Ok(name),
            Some((first, _)) => {
                Err(format!("repeats line {first}, the same time and command; change one of them if both are meant"))
            }
        }
    }

    fn annotations(&self, entry: &Entry) -> BTreeMap<String, String> {
        let user = entry.user.clone().map(|user| (ANNOTATION_USER.to_owned(), user));
        let mailto = self.variables.get("MAILTO").map(|address| (ANNOTATION_MAILTO.to_owned(), address.clone()));
        user.into_iter().chain(mailto).collect()
    }

    fn shell(&self, script: String, stdin: String) -> ShellRun {
        let is_for_cron = |name: &str| matches!(name, "MAILTO" | "MAILFROM" | "CRON_TZ" | "RANDOM_DELAY");
        let env: BTreeMap<String, String> = self
            .variables
            .iter()
            .filter(|(name, _)| !is_for_cron(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        ShellRun {
            script,
            working_dir: env.get("HOME").cloned(),
            shell: env.get("SHELL").filter(|shell| *shell != "/bin/sh").cloned(),
            env,
            stdin,
            limits: None,
        }
    }

    fn finish(mut self) -> Import {
        let is_root_first = |made: &Made| {
            made.manifest
                .spec
                .run
                .shell
                .as_ref()
                .is_some_and(|shell| shell.script.split_whitespace().next() == Some("root"))
        };
        if !self.options.has_user_column && !self.import.made.is_empty() && self.import.made.iter().all(is_root_first) {
            self.note("every command starts with `root`: if this is a system crontab, import it with --user-column");
        }
        self.import
    }
}

fn rule(entry: &Entry, zone: &str) -> Rule {
    Rule { cron: Some(entry.schedule.clone()), time_zone: Some(zone.to_owned()), ..Rule::default() }
}

fn reasons(errors: &[orloj_domain::job_event::FieldError]) -> String {
    let texts: Vec<String> = errors
        .iter()
        .map(|error| {
            if error.field == "spec.schedule.cron" {
                error.message.clone()
            } else {
                format!("`{}` {}", error.value, error.message)
            }
        })
        .collect();
    texts.join("; ")
}
