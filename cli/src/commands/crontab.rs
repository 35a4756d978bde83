//! `orloj import crontab`: a host's crontab becomes jobs. Not here: how lines are read (`crate::crontab`).
//! Invariant: lines that can't be taken are listed and make the exit code 1, and all others are still made.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use orloj_domain::id::JobId;
use orloj_domain::manifest::{Manifest, NAMESPACE_DEFAULT};

use super::{Context, ics, offer};
use crate::args::Namespace;
use crate::crontab::{self, Import, Options};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Format};

/// Make jobs of other schedulers' tables, and calendars of iCalendar files
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crontab -l | orloj import crontab -
  orloj import ics public-holidays.ics --name holidays")]
pub(crate) struct ImportArguments {
    #[command(subcommand)]
    command: ImportCommand,
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    Crontab(CrontabArguments),
    Ics(ics::IcsArguments),
}

/// Make jobs of crontabs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  crontab -l | orloj import crontab -
  orloj import crontab /etc/crontab /etc/cron.d/*
  orloj import crontab mine.crontab -o yaml > jobs.yaml     show the manifests, send nothing

Lines that can't be taken are listed as FILE:LINE: REASON; the others are still made, and the exit code is 1.
Names are made of the command and a hash of the line, so that importing again edits the same jobs.
As with cron, runs may overlap, and what was missed is skipped; a run may take 24 hours.")]
struct CrontabArguments {
    /// Crontabs, or `-` for standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// The sixth field is a user; known by itself of /etc/crontab and /etc/cron.d/*
    #[arg(long)]
    user_column: bool,
    /// Time zone of lines without CRON_TZ [default: this machine's]
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// How long to wait for the answer to each job
    #[arg(long, default_value = "10s", value_parser = super::duration, value_name = "DURATION")]
    timeout: Duration,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn run(context: &Context, arguments: &ImportArguments) -> Outcome {
    let arguments = match &arguments.command {
        ImportCommand::Crontab(arguments) => arguments,
        ImportCommand::Ics(arguments) => return ics::run(context, arguments),
    };
    let mut jobs: Vec<(JobId, Manifest)> = Vec::new();
    let mut refused = 0_usize;
    let mut notes: Vec<String> = Vec::new();
    for file in &arguments.files {
        let import = crontab::read(&text_of(file)?, &options(arguments, file));
        refused += import.refused.len();
        take(file, import, &mut jobs, &mut refused, &mut notes)?;
    }
    for note in &notes {
        output::note(&format!("note: {note}"));
    }
    let code = if context.global.output == Format::Yaml {
        let manifests: Vec<&Manifest> = jobs.iter().map(|(_, manifest)| manifest).collect();
        output::print(&output::yaml(&manifests)?)?;
        Code::Ok
    } else if jobs.is_empty() {
        Code::Ok
    } else {
        offer::offer(&context.client()?, &jobs, Vec::new(), arguments.timeout, context.global.output)?
    };
    output::note(&format!("{} jobs of {} lines", jobs.len(), jobs.len() + refused));
    Ok(if refused > 0 { Code::Error } else { code })
}

/// Adds what one file made; the same line in two files is one job, and the second is said to be one too many.
fn take(
    file: &str,
    import: Import,
    jobs: &mut Vec<(JobId, Manifest)>,
    refused: &mut usize,
    notes: &mut Vec<String>,
) -> Result<(), Failure> {
    for line in &import.refused {
        output::note(&format!("{file}:{}: {}", line.line, line.reason));
    }
    for made in import.made {
        let metadata = &made.manifest.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        let job = JobId::new(namespace, &metadata.name).map_err(|error| Failure::usage(error.to_string()))?;
        if jobs.iter().any(|(other, _)| *other == job) {
            *refused += 1;
            output::note(&format!("{file}:{}: repeats a line of another file, the same time and command", made.line));
        } else {
            jobs.push((job, made.manifest));
        }
    }
    for note in import.notes {
        if !notes.contains(&note) {
            notes.push(note);
        }
    }
    Ok(())
}

fn options(arguments: &CrontabArguments, file: &str) -> Options {
    Options {
        namespace: arguments.namespace.namespace.clone().unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned()),
        has_user_column: arguments.user_column || is_system_table(file),
        time_zone: arguments.zone.clone().unwrap_or_else(|| crontab::zone::of_machine(Path::new("/"))),
    }
}

/// True for `/etc/crontab` and the files of `/etc/cron.d`, also those of an image unpacked elsewhere.
fn is_system_table(file: &str) -> bool {
    let path = Path::new(file);
    path.ends_with("etc/crontab") || path.parent().is_some_and(|folder| folder.ends_with("cron.d"))
}

/// The text of a file, or of standard input for `-`.
pub(super) fn text_of(file: &str) -> Result<String, Failure> {
    let bytes = if file == "-" {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::stdin(), &mut bytes).map(|_| bytes)
    } else {
        std::fs::read(file)
    };
    let bytes = bytes.map_err(|error| Failure::usage(format!("{file}: can't be read: {error}")))?;
    // Old tables have Latin-1 in their comments; a line that needs such a byte is listed, the others are not lost.
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_tables_are_known_by_their_place() {
        for (file, is) in [
            ("/etc/crontab", true),
            ("/etc/cron.d/e2scrub_all", true),
            ("/mnt/image/etc/cron.d/php", true),
            ("crontab", false),
            ("/var/spool/cron/crontabs/root", false),
            ("-", false),
        ] {
            assert_eq!(is_system_table(file), is, "{file}");
        }
    }
}
