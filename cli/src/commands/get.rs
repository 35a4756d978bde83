//! `orloj get`: lists of what there is, or one of them. Not here: runs with filters (`runs`), one in depth
//! (`describe`). Invariant: `-o yaml` of a job is a manifest that `apply` takes back.

use clap::{Args, ValueEnum};
use orloj_domain::manifest::Manifest;
use serde_json::Value;

use super::{Context, calendars, job_id, job_path, limits, runs};
use crate::args::Namespace;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Column, Format, column, text, wide};

/// Most items that are listed; more are for the API.
const ITEMS_MAX: usize = 100_000;

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "job")]
    Jobs,
    #[value(alias = "run")]
    Runs,
    #[value(alias = "runner")]
    Runners,
    #[value(alias = "queue")]
    Queues,
    #[value(alias = "shard")]
    Shards,
    #[value(alias = "calendar")]
    Calendars,
    #[value(alias = "limit")]
    Limits,
}

/// List jobs, runs, runners, queues, shards, calendars or limits
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj get jobs
  orloj get jobs billing/nightly-invoice -o yaml    as a manifest
  orloj get jobs -n billing -l team=billing -o wide
  orloj get runners
  orloj get calendars holidays -o yaml
  orloj get limits                                  who holds them, who waits, and which breakers are open
  orloj get queues default -o yaml                  as a manifest, where something bounds it")]
pub(crate) struct GetArguments {
    /// What to list
    #[arg(value_enum)]
    kind: Kind,
    /// One of them: a job as NS/NAME, a run by its id, a calendar, a queue or a limit by its name
    #[arg(value_name = "NS/NAME|ID|NAME")]
    name: Option<String>,
    /// Only jobs with this label
    #[arg(short = 'l', long = "label", value_name = "NAME=VALUE")]
    label: Option<String>,
    #[command(flatten)]
    namespace: Namespace,
}

const JOB_COLUMNS: &[Column] = &[
    column("JOB", |job| text(job, "job")),
    column("STATE", |job| text(job, "state")),
    column("VERSION", |job| text(job, "version")),
    column("SCHEDULE", schedule),
    wide("QUEUE", |job| text(job, "queue")),
    wide("LAST RUN", |job| text(job, "status.lastRun.state")),
    column("NEXT", |job| output::instant(job, "nextFireTime")),
];

const RUNNER_COLUMNS: &[Column] = &[
    column("RUNNER", |runner| text(runner, "runner")),
    column("STATE", |runner| text(runner, "state")),
    column("QUEUES", queues_text),
    column("BUSY", |runner| text(runner, "busy")),
    column("SLOTS", |runner| text(runner, "slots")),
    wide("LABELS", |runner| pairs_text(&runner["labels"])),
    wide("HOST", |runner| text(runner, "host")),
    wide("SESSION", |runner| text(runner, "session")),
    column("SEEN", |runner| output::age(runner, "at", super::now())),
];

const SHARD_COLUMNS: &[Column] = &[
    column("SHARD", |shard| text(shard, "shard")),
    column("JOBS", |shard| text(shard, "jobs")),
    column("TRIGGER", |shard| short_incarnation(shard, "trigger")),
    column("DISPATCHER", |shard| short_incarnation(shard, "dispatcher")),
    column("LAG", |shard| text(shard, "lag")),
    column("LAST DECISION", |shard| output::instant(shard, "lastDecision.decidedAt")),
    wide("POSITION", |shard| format!("{} {}", text(shard, "position.jobs"), text(shard, "position.commands"))),
    wide("TRIGGER INCARNATION", |shard| text(shard, "trigger")),
    wide("DISPATCHER INCARNATION", |shard| text(shard, "dispatcher")),
];

pub(crate) fn run(context: &Context, arguments: &GetArguments) -> Outcome {
    match (arguments.kind, &arguments.name) {
        (Kind::Jobs, Some(name)) => one_job(context, name, &arguments.namespace),
        (Kind::Jobs, None) => jobs(context, arguments),
        (Kind::Runs, Some(id)) => runs::one(context, id),
        (Kind::Runs, None) => runs::list(context, &[]),
        (Kind::Runners, None) => plain(context, "/api/v1/runners", RUNNER_COLUMNS, |item| text(item, "runner")),
        (Kind::Queues, None) => limits::list(context, "/api/v1/queues", ITEMS_MAX),
        (Kind::Queues, Some(name)) => limits::one(context, &limits::queue(name)?),
        (Kind::Limits, None) => limits::list(context, "/api/v1/limits", ITEMS_MAX),
        (Kind::Limits, Some(name)) => limits::one(context, &limits::limit(name)?),
        (Kind::Shards, None) => plain(context, "/api/v1/shards", SHARD_COLUMNS, |item| text(item, "shard")),
        (Kind::Calendars, None) => {
            let items = context.client()?.items("/api/v1/calendars", &[], ITEMS_MAX)?;
            calendars::show(context, &items)
        }
        (Kind::Calendars, Some(name)) => one_calendar(context, name),
        (Kind::Runners | Kind::Shards, Some(_)) => {
            Err(Failure::usage("runners and shards are listed as a whole; leave the name out"))
        }
    }
}

fn plain(context: &Context, path: &str, columns: &[Column], name: fn(&Value) -> String) -> Outcome {
    let items = context.client()?.items(path, &[], ITEMS_MAX)?;
    output::list(context.global.output, &items, columns, name)?;
    Ok(Code::Ok)
}

fn jobs(context: &Context, arguments: &GetArguments) -> Outcome {
    let mut query = Vec::new();
    if let Some(namespace) = &arguments.namespace.namespace {
        query.push(("namespace", namespace.as_str()));
    }
    if let Some(label) = &arguments.label {
        query.push(("label", label.as_str()));
    }
    let items = context.client()?.items("/api/v1/jobs", &query, ITEMS_MAX)?;
    show_jobs(context, &items)
}

fn one_job(context: &Context, name: &str, namespace: &Namespace) -> Outcome {
    let job = context.client()?.get(&job_path(&job_id(name, namespace)?), &[])?;
    if context.global.output == Format::Json {
        output::print(&output::pretty(&job))?;
        return Ok(Code::Ok);
    }
    show_jobs(context, &[job])
}

fn one_calendar(context: &Context, name: &str) -> Outcome {
    let calendar = context.client()?.get(&calendars::path(&calendars::name(name)?), &[])?;
    if context.global.output == Format::Json {
        output::print(&output::pretty(&calendar))?;
        return Ok(Code::Ok);
    }
    calendars::show(context, &[calendar])
}

fn show_jobs(context: &Context, items: &[Value]) -> Outcome {
    if context.global.output == Format::Yaml {
        let manifests: Result<Vec<Manifest>, Failure> = items.iter().map(manifest).collect();
        output::print(&output::yaml(&manifests?)?)?;
    } else {
        output::list(context.global.output, items, JOB_COLUMNS, |job| format!("job/{}", text(job, "job")))?;
    }
    Ok(Code::Ok)
}

/// The manifest of a job's document, its fields in the usual order.
pub(crate) fn manifest(job: &Value) -> Result<Manifest, Failure> {
    let found = job.get("manifest").cloned().unwrap_or(Value::Null);
    serde_json::from_value(found)
        .map_err(|error| Failure::error(format!("job {} has no readable manifest: {error}", text(job, "job"))))
}

/// The schedule in short: its rule, or how many there are.
fn schedule(job: &Value) -> String {
    let rule_text = |rule: &Value| {
        ["cron", "every", "at", "afterFinish"]
            .iter()
            .find_map(|kind| rule.get(kind).and_then(Value::as_str).map(|value| short(kind, value)))
    };
    match job.get("manifest").and_then(|manifest| manifest.pointer("/spec/schedule")) {
        None | Some(Value::Null) => "manual".to_owned(),
        Some(Value::Array(rules)) => match rules.as_slice() {
            [one] => rule_text(one).unwrap_or_else(|| "-".to_owned()),
            many => format!("{} rules", many.len()),
        },
        Some(rule) => rule_text(rule).unwrap_or_else(|| "-".to_owned()),
    }
}

fn short(kind: &str, value: &str) -> String {
    if kind == "cron" { value.to_owned() } else { format!("{kind} {value}") }
}

/// Enough of an incarnation to tell it from others.
fn short_incarnation(shard: &Value, service: &str) -> String {
    let incarnation = text(shard, service);
    let own = incarnation.strip_prefix(service).and_then(|rest| rest.strip_prefix('-')).unwrap_or(&incarnation);
    match own.split_once('-') {
        Some((life, count)) => format!("{}-{count}", life.get(..8).unwrap_or(life)),
        None => own.get(..12).unwrap_or(own).to_owned(),
    }
}

/// The queues of a runner, each with its weight unless that is 1.
fn queues_text(runner: &Value) -> String {
    let names = runner["queues"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let shown = names.map(|name| match runner["queueWeights"][name].as_i64() {
        Some(weight) => format!("{name}={weight}"),
        None => name.to_owned(),
    });
    dash_or(shown.collect())
}

fn pairs_text(pairs: &Value) -> String {
    let pairs = pairs.as_object().into_iter().flatten();
    dash_or(pairs.map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or_default())).collect())
}

fn dash_or(items: Vec<String>) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}
