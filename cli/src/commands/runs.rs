//! `orloj runs`: runs, newest first. Not here: what happened within one (`describe`, `logs`). Invariant: a line
//! fits 80 columns for names of usual length; `-o wide` shows the rest.

use clap::Args;
use serde_json::Value;

use super::{Context, job_id};
use crate::args::Namespace;
use crate::exit::{Code, Outcome};
use crate::output::{self, Column, column, text, wide};

/// Show runs, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj runs billing/nightly-invoice
  orloj runs --state dead --since 24h
  orloj runs -o json --limit 10")]
pub(crate) struct RunsArguments {
    /// Only runs of this job
    #[arg(value_name = "NS/NAME")]
    job: Option<String>,
    /// Only runs in this state: delayed, waiting, ready, running, retrying, succeeded, failed, dead, cancelled, expired
    #[arg(long, value_name = "STATE")]
    state: Option<String>,
    /// Only runs of this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Only runs requested since: an instant, or how long ago
    #[arg(long, value_parser = super::instant, value_name = "INSTANT|DURATION")]
    since: Option<String>,
    /// Only runs requested before: an instant, or how long ago
    #[arg(long, value_parser = super::instant, value_name = "INSTANT|DURATION")]
    until: Option<String>,
    /// Most runs to show
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    namespace: Namespace,
}

const COLUMNS: &[Column] = &[
    column("RUN", |run| text(run, "id")),
    column("JOB", |run| text(run, "job")),
    column("STATE", |run| text(run, "state")),
    wide("ATTEMPT", |run| text(run, "attempt")),
    wide("TRIGGER", |run| text(run, "trigger")),
    wide("QUEUE", |run| text(run, "queue")),
    wide("FIRE TIME", |run| output::instant(run, "fireTime")),
    wide("STARTED", |run| output::instant(run, "startedAt")),
    wide("FINISHED", |run| output::instant(run, "finishedAt")),
    wide("OUTCOME", |run| text(run, "outcome.kind")),
    wide("NOTE", |run| text(run, "note")),
    column("AGE", |run| output::age(run, "requestedAt", super::now())),
];

/// Runs listed without a limit of the caller's own.
const LIMIT: usize = 100;

pub(crate) fn run(context: &Context, arguments: &RunsArguments) -> Outcome {
    let job = arguments.job.as_deref().map(|text| job_id(text, &arguments.namespace)).transpose()?;
    let namespace = arguments.namespace.namespace.as_deref().filter(|_| job.is_none());
    let filters = [
        ("namespace", namespace),
        ("job", job.as_ref().map(orloj_domain::id::JobId::as_str)),
        ("state", arguments.state.as_deref()),
        ("queue", arguments.queue.as_deref()),
        ("since", arguments.since.as_deref()),
        ("until", arguments.until.as_deref()),
    ];
    let query: Vec<(&str, &str)> =
        filters.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect();
    show(context, &query, arguments.limit)
}

/// `orloj get runs`.
pub(crate) fn list(context: &Context, query: &[(&str, &str)]) -> Outcome {
    show(context, query, LIMIT)
}

/// `orloj get runs ID`.
pub(crate) fn one(context: &Context, id: &str) -> Outcome {
    let run = context.client()?.get(&format!("/api/v1/runs/{id}"), &[])?;
    if !output::document(context.global.output, &run, &format!("run/{id}"))? {
        output::list(context.global.output, &[run], COLUMNS, name)?;
    }
    Ok(Code::Ok)
}

fn show(context: &Context, query: &[(&str, &str)], limit: usize) -> Outcome {
    let items = context.client()?.items("/api/v1/runs", query, limit)?;
    output::list(context.global.output, &items, COLUMNS, name)?;
    Ok(Code::Ok)
}

fn name(run: &Value) -> String {
    format!("run/{}", text(run, "id"))
}
