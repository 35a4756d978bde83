//! `orloj apply`: manifests from files become definitions in force. Not here: reading files (`manifest_file`),
//! waiting for answers (`offer`). Invariant: if any manifest is malformed, none is sent.

use std::time::Duration;

use clap::Args;

use super::{Context, offer};
use crate::args::Namespace;
use crate::exit::{Code, Failure, Outcome};
use crate::{manifest_file, output};

/// Offer job definitions and wait for the answer to each
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj apply -f jobs/                  every *.yaml, *.yml and *.json in a folder
  orloj apply -f nightly.yaml --dry-run only check
  cat nightly.yaml | orloj apply -f -

A manifest:
  apiVersion: orloj/v1
  kind: Job
  metadata: {namespace: billing, name: nightly-invoice}
  spec:
    schedule: {cron: \"30 2 * * MON-FRI\", timeZone: Europe/Berlin}
    run:
      exec: {command: [pg_dump, -Fc, app]}")]
pub(crate) struct ApplyArguments {
    /// File or folder of manifests, or `-` for standard input; may be repeated
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-", num_args = 1..)]
    files: Vec<String>,
    /// Check only; send nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove jobs that no manifest names (not available in this version)
    #[arg(long)]
    prune: bool,
    /// Jobs that --prune looks at (not available in this version)
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR")]
    selector: Option<String>,
    /// How long to wait for the answer to each job
    #[arg(long, default_value = "10s", value_parser = super::duration, value_name = "DURATION")]
    timeout: Duration,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn run(context: &Context, arguments: ApplyArguments) -> Outcome {
    if arguments.prune || arguments.selector.is_some() {
        let message =
            "--prune and --selector are not available in this version; remove jobs with `orloj delete job NS/NAME`";
        return Err(Failure::usage(message));
    }
    let loaded = manifest_file::load(&arguments.files, arguments.namespace.namespace.as_deref())
        .map_err(|complaints| Failure::usage(complaints.join("\n")))?;
    if arguments.dry_run {
        for one in &loaded {
            output::print(&format!("job {} is good ({})", one.definition.job, one.origin))?;
        }
        return Ok(Code::Ok);
    }
    let jobs: Vec<_> = loaded.into_iter().map(|one| (one.definition.job, one.manifest)).collect();
    offer::offer(&context.client()?, &jobs, arguments.timeout, context.global.output)
}
