//! `orloj apply`: manifests from files become definitions in force. Not here: reading files (`manifest_file`),
//! waiting for answers (`offer`). Invariant: if any manifest is malformed, none is sent.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use orloj_domain::id::JobId;
use serde_json::{Value, json};

use super::{Context, calendars, delete, limits, offer};
use crate::args::Namespace;
use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::manifest_file::{self, Manifests};
use crate::output::{self, Format};

/// Offer jobs, calendars, limits and bounds of queues, and wait for the answer to each
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj apply -f jobs/                  every *.yaml, *.yml and *.json in a folder
  orloj apply -f nightly.yaml --dry-run only check
  cat nightly.yaml | orloj apply -f -
  orloj apply -f jobs/ --prune -l team=billing   and remove that team's jobs that no file names

A manifest:
  apiVersion: orloj/v1
  kind: Job
  metadata: {namespace: billing, name: nightly-invoice}
  spec:
    schedule: {cron: \"30 2 * * MON-FRI\", timeZone: Europe/Berlin}
    run:
      exec: {command: [pg_dump, -Fc, app]}

A calendar, which a schedule names by `exclude: [holidays]` or `only: [holidays]`; calendars are sent before jobs:
  apiVersion: orloj/v1
  kind: Calendar
  metadata: {name: holidays}
  spec: {yearly: [12-25, 01-01], dates: [2027-05-17], ranges: [{from: 2026-12-28, to: 2026-12-31}]}

A limit, which jobs share that name it by `limits: [database]`, and what bounds a queue; they are sent before jobs:
  apiVersion: orloj/v1
  kind: Limit
  metadata: {name: database}
  spec: {maxConcurrent: 5, ratePerSecond: 10, burst: 20}      # or one of the two
  ---
  apiVersion: orloj/v1
  kind: Queue
  metadata: {name: default}
  spec:
    maxConcurrent: 100
    paused: false                                             # while true, nobody gets it
    breaker: {failures: 20, window: 1m, openFor: 30s}         # so many dead letters within a minute: nobody for a while")]
pub(crate) struct ApplyArguments {
    /// File or folder of manifests, or `-` for standard input; may be repeated
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-", num_args = 1..)]
    files: Vec<String>,
    /// Check only; send nothing
    #[arg(long)]
    dry_run: bool,
    /// Remove the jobs with the labels of --selector that no manifest names
    #[arg(long, requires = "selector")]
    prune: bool,
    /// Labels of the jobs that --prune may remove, for example `team=billing,tier=batch`
    #[arg(short = 'l', long = "selector", value_name = "SELECTOR", requires = "prune")]
    selector: Option<String>,
    /// How long to wait for the answer to each job
    #[arg(long, default_value = "10s", value_parser = super::duration, value_name = "DURATION")]
    timeout: Duration,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn run(context: &Context, arguments: ApplyArguments) -> Outcome {
    let loaded = manifest_file::load(&arguments.files, arguments.namespace.namespace.as_deref())
        .map_err(|complaints| Failure::usage(complaints.join("\n")))?;
    let named: BTreeSet<JobId> = loaded.jobs.iter().map(|one| one.definition.job.clone()).collect();
    if arguments.dry_run {
        return check(context, &arguments, &loaded, &named);
    }
    let client = context.client()?;
    let code = send(&client, loaded, arguments.timeout, context.global.output)?;
    if code != Code::Ok {
        // What is removed because a file no longer names it should not go before what the file does name is in force.
        return Ok(code);
    }
    let mut code = Code::Ok;
    for job in unnamed(&client, &arguments, &named)? {
        let removed = delete::remove(&client, &job, arguments.timeout)?;
        if removed != Code::Ok && removed != Code::NotFound {
            code = removed;
        }
    }
    Ok(code)
}

/// Sends calendars and limits, then jobs, which may name them.
pub(crate) fn send(client: &Client, loaded: Manifests, timeout: Duration, format: Format) -> Outcome {
    let mut written = calendars::send(client, &loaded.calendars, timeout, format)?;
    written.extend(limits::send(client, &loaded.limits, timeout, format)?);
    let jobs: Vec<_> = loaded.jobs.into_iter().map(|one| (one.definition.job, one.manifest)).collect();
    offer::offer(client, &jobs, written, timeout, format)
}

/// Says what would be sent and removed.
fn check(context: &Context, arguments: &ApplyArguments, loaded: &Manifests, named: &BTreeSet<JobId>) -> Outcome {
    let removed = if arguments.prune { unnamed(&context.client()?, arguments, named)? } else { Vec::new() };
    let calendars = loaded.calendars.iter();
    let calendars = calendars.map(|one| json!({"calendar": one.calendar.name(), "type": "good", "origin": one.origin}));
    let limits = loaded.limits.iter().map(|one| limits::named(&one.limit, "good", &one.origin));
    let jobs = loaded.jobs.iter().map(|one| json!({"job": one.definition.job, "type": "good", "origin": one.origin}));
    let items: Vec<Value> = calendars
        .chain(limits)
        .chain(jobs)
        .chain(removed.iter().map(|job| json!({"job": job, "type": "unnamed"})))
        .collect();
    if output::document(context.global.output, &json!({"items": items}), "dry-run")? {
        return Ok(Code::Ok);
    }
    for one in &loaded.calendars {
        output::print(&format!("calendar {} is good ({})", one.calendar.name(), one.origin))?;
    }
    for one in &loaded.limits {
        output::print(&format!("{} is good ({})", limits::words(&one.limit), one.origin))?;
    }
    for one in &loaded.jobs {
        output::print(&format!("job {} is good ({})", one.definition.job, one.origin))?;
    }
    for job in removed {
        output::print(&format!("job {job} would be deleted"))?;
    }
    Ok(Code::Ok)
}

/// Jobs with the labels of the selector that no manifest names, in order; none without `--prune`.
fn unnamed(client: &Client, arguments: &ApplyArguments, named: &BTreeSet<JobId>) -> Result<Vec<JobId>, Failure> {
    let Some(selector) = arguments.selector.as_deref() else { return Ok(Vec::new()) };
    let mut query = vec![("label", selector)];
    query.extend(arguments.namespace.namespace.as_deref().map(|namespace| ("namespace", namespace)));
    let found = client.items("/api/v1/jobs", &query, usize::MAX)?;
    let jobs = found.iter().filter_map(|job| output::text(job, "job").parse::<JobId>().ok());
    Ok(jobs.filter(|job| !named.contains(job)).collect())
}
