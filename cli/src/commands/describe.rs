//! `orloj describe`: one job, run, calendar, queue or limit in depth, in sections. Invariant: what is shown was asked for in the same
//! moment from the same projection; what is not known is left out, never made up.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use orloj_domain::id::LimitId;
use serde_json::{Value, json};

use super::{Context, calendars, get, job_id, job_path, limits};
use crate::args::Namespace;
use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, instant};

/// What can be described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "jobs")]
    Job,
    #[value(alias = "runs")]
    Run,
    #[value(alias = "calendars")]
    Calendar,
    #[value(alias = "queues")]
    Queue,
    #[value(alias = "limits")]
    Limit,
}

/// Show a job, a run, a calendar, a queue or a limit in depth
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj describe job billing/nightly-invoice
  orloj describe calendar holidays
  orloj describe limit database
  orloj describe queue default
  orloj describe run ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09")]
pub(crate) struct DescribeArguments {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// A job as NS/NAME, a run by its id, a calendar, a queue or a limit by its name
    #[arg(value_name = "NS/NAME|ID|NAME")]
    name: String,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn run(context: &Context, arguments: &DescribeArguments) -> Outcome {
    match arguments.kind {
        Kind::Job => job(context, arguments),
        Kind::Run => run_in_depth(context, &arguments.name),
        Kind::Calendar => calendar(context, &arguments.name),
        Kind::Queue => queue(context, &arguments.name),
        Kind::Limit => limit(context, &arguments.name),
    }
}

fn job(context: &Context, arguments: &DescribeArguments) -> Outcome {
    let id = job_id(&arguments.name, &arguments.namespace)?;
    let client = context.client()?;
    let path = job_path(&id);
    let job = client.get(&path, &[])?;
    if output::document(context.global.output, &job, &format!("job/{id}"))? {
        return Ok(Code::Ok);
    }
    let mut shown = String::new();
    section(
        &mut shown,
        &job,
        &[("Job", "job"), ("State", "state"), ("Version", "version"), ("Next fire time", "nextFireTime")],
    );
    section(
        &mut shown,
        &job,
        &[("Paused since", "pause.at"), ("Paused because", "pause.reason"), ("Paused by", "pause.actor")],
    );
    section(
        &mut shown,
        &job,
        &[
            ("Backfill", "backfill.id"),
            ("Backfill at", "backfill.next"),
            ("Backfill until", "backfill.until"),
            ("Backfill runs", "backfill.requested"),
        ],
    );
    if job.pointer("/manifest/spec").is_some() {
        lines(&mut shown, "Manifest", &output::yaml(&[get::manifest(&job)?])?);
    }
    let fires = client.items(&format!("{path}/fires"), &[], 5)?;
    rows(&mut shown, "Last decisions", &fires, &["fireTime", "decision", "reason", "runId"]);
    let runs = client.items("/api/v1/runs", &[("job", id.as_str())], 5)?;
    rows(&mut shown, "Last runs", &runs, &["id", "state", "attempt", "requestedAt"]);
    let history = client.items(&format!("{path}/history"), &[], 5)?;
    rows(&mut shown, "History", &history, &["at", "type", "version", "actor", "reason"]);
    output::print(&shown)?;
    Ok(Code::Ok)
}

const SETTING_LINES: &[(&str, &str)] =
    &[("Position", "status.position"), ("Updated", "status.updatedAt"), ("Updated by", "status.actor")];

fn calendar(context: &Context, name: &str) -> Outcome {
    let name = calendars::name(name)?;
    let calendar = context.client()?.get(&calendars::path(&name), &[])?;
    if output::document(context.global.output, &calendar, &format!("calendar/{name}"))? {
        return Ok(Code::Ok);
    }
    let mut shown = String::new();
    section(&mut shown, &calendar, &[("Calendar", "calendar")]);
    section(&mut shown, &calendar, SETTING_LINES);
    lines(&mut shown, "Manifest", &output::yaml(&[calendars::manifest(&calendar)?])?);
    name_list(&mut shown, "Named by jobs", &names_of(&calendar, "/status/jobs"));
    name_list(&mut shown, "Included by calendars", &names_of(&calendar, "/status/calendars"));
    output::print(&shown)?;
    Ok(Code::Ok)
}

/// Most turns of a breaker that are shown.
const TURNS_SHOWN: usize = 5;
/// Most of those who wait that are shown.
const WAITING_SHOWN: usize = 10;
/// Most waiting runs that are looked through for those.
const WAITING_LOOKED_AT: usize = 500;

fn limit(context: &Context, name: &str) -> Outcome {
    let (client, id) = (context.client()?, limits::limit(name)?);
    let limit = client.get(&limits::path(&id), &[])?;
    if output::document(context.global.output, &limit, id.as_str())? {
        return Ok(Code::Ok);
    }
    let mut shown = String::new();
    section(&mut shown, &limit, &[("Limit", "limit"), ("Held by runs", "held"), ("Waiting runs", "waiting")]);
    section(&mut shown, &limit, SETTING_LINES);
    breaker(&mut shown, &limit);
    lines(&mut shown, "Manifest", &output::yaml(&[limits::manifest(&limit)?])?);
    name_list(&mut shown, "Named by jobs", &names_of(&limit, "/status/jobs"));
    name_list(&mut shown, "Needed by jobs with its host", &names_of(&limit, "/status/jobsOfHost"));
    waiting_for(&mut shown, &client, &id, &[])?;
    output::print(&shown)?;
    Ok(Code::Ok)
}

fn queue(context: &Context, name: &str) -> Outcome {
    let (client, id) = (context.client()?, limits::queue(name)?);
    let queue = client.get(&limits::path(&id), &[])?;
    if output::document(context.global.output, &queue, id.as_str())? {
        return Ok(Code::Ok);
    }
    let mut shown = String::new();
    section(
        &mut shown,
        &queue,
        &[
            ("Queue", "queue"),
            ("Jobs", "jobs"),
            ("Runners", "runners"),
            ("Delayed", "delayed"),
            ("Waiting", "waiting"),
            ("Ready", "ready"),
            ("Running", "running"),
            ("Retrying", "retrying"),
            ("Dead", "dead"),
        ],
    );
    let missing = limits::missing_handlers(&queue);
    if missing != "-" {
        let _ = writeln!(shown, "Runs wait for a runner with the handler {missing}.");
    }
    let missing = limits::missing_runners(&queue);
    if missing != "-" {
        let _ = writeln!(shown, "Runs wait for a runner with the labels {missing}.");
    }
    if queue["manifest"].is_null() {
        shown.push_str("Nothing bounds it.\n");
    } else {
        section(&mut shown, &queue, &[("Held by runs", "held"), ("Wait for it", "waitingForLimit")]);
        section(&mut shown, &queue, SETTING_LINES);
        breaker(&mut shown, &queue);
        lines(&mut shown, "Manifest", &output::yaml(&[limits::manifest(&queue)?])?);
        waiting_for(&mut shown, &client, &id, &[("queue", id.name())])?;
    }
    output::print(&shown)?;
    Ok(Code::Ok)
}

/// How the breaker of a queue or a limit stands, and what it did last.
fn breaker(shown: &mut String, item: &Value) {
    if item["breaker"].is_null() {
        return;
    }
    section(
        shown,
        item,
        &[
            ("Breaker", "breaker.state"),
            ("Since", "breaker.since"),
            ("Until", "breaker.until"),
            ("Because", "breaker.reason"),
        ],
    );
    let turns = item.pointer("/breaker/turns").and_then(Value::as_array).cloned().unwrap_or_default();
    let last = &turns[..turns.len().min(TURNS_SHOWN)];
    rows(shown, "Last turns", last, &["since", "state", "reason", "runId"]);
}

/// The first runs that wait for a limit, among the newest that wait for anything.
fn waiting_for(shown: &mut String, client: &Client, id: &LimitId, filter: &[(&str, &str)]) -> Result<(), Failure> {
    let query = [&[("state", "waiting")][..], filter].concat();
    let waiting = client.items("/api/v1/runs", &query, WAITING_LOOKED_AT)?;
    let waits = |run: &Value| run["limits"].as_array().and_then(|limits| limits.last()) == Some(&json!(id));
    let waiting: Vec<Value> = waiting.into_iter().filter(waits).take(WAITING_SHOWN).collect();
    rows(shown, "Waiting", &waiting, &["id", "job", "requestedAt"]);
    Ok(())
}

fn run_in_depth(context: &Context, id: &str) -> Outcome {
    let run = context.client()?.get(&format!("/api/v1/runs/{id}"), &[])?;
    if output::document(context.global.output, &run, &format!("run/{id}"))? {
        return Ok(Code::Ok);
    }
    let mut shown = String::new();
    section(
        &mut shown,
        &run,
        &[
            ("Run", "id"),
            ("Job", "job"),
            ("Version", "version"),
            ("State", "state"),
            ("Trigger", "trigger"),
            ("Queue", "queue"),
            ("Fire time", "fireTime"),
            ("Requested", "requestedAt"),
            ("Started", "startedAt"),
            ("Finished", "finishedAt"),
            ("Due", "dueAt"),
            ("Note", "note"),
            ("Outcome", "outcome.kind"),
            ("Exit code", "outcome.exitCode"),
            ("Message", "outcome.message"),
        ],
    );
    // Of one that waits, the last is the one that it waits for.
    let mut held = names_of(&run, "/limits");
    let awaited = if run["state"] == "waiting" { held.pop() } else { None };
    name_list(&mut shown, "Waits for", awaited.as_slice());
    name_list(&mut shown, "Holds", &held);
    let attempts = run.get("attempts").and_then(Value::as_array).cloned().unwrap_or_default();
    attempt_rows(&mut shown, &attempts);
    if let Some(attempt) = attempts.iter().find(|attempt| attempt["awaitsCallback"] == true) {
        heading(&mut shown, "Waits");
        // Writing to a String can't fail.
        let _ = writeln!(shown, "  for the callback of attempt {}, or its answer", attempt["attempt"]);
    }
    output::print(&shown)?;
    output::note(&format!("output: orloj logs {id}"));
    Ok(Code::Ok)
}

/// Which of them were put beside another one is told where there are such.
fn attempt_rows(shown: &mut String, attempts: &[Value]) {
    let mut paths =
        vec!["attempt", "runner", "startedAt", "finishedAt", "outcome.kind", "outcome.exitCode", "lateResult.kind"];
    let is_hedge = |attempt: &&Value| attempt["hedge"] == true;
    if attempts.iter().any(|attempt| is_hedge(&attempt)) {
        paths.insert(1, "hedge");
    }
    let mut attempts = attempts.to_vec();
    for attempt in &mut attempts {
        attempt["hedge"] = if is_hedge(&&*attempt) { json!("yes") } else { Value::Null };
    }
    rows(shown, "Attempts", &attempts, &paths);
}

fn heading(shown: &mut String, title: &str) {
    if !shown.is_empty() {
        shown.push('\n');
    }
    shown.push_str(title);
    shown.push_str(":\n");
}

/// A heading, and the lines of a text below it.
fn lines(shown: &mut String, title: &str, text: &str) {
    heading(shown, title);
    shown.extend(text.lines().flat_map(|line| ["  ", line, "\n"]));
}

fn names_of<'a>(item: &'a Value, path: &str) -> Vec<&'a str> {
    let names = item.pointer(path).and_then(Value::as_array).into_iter().flatten();
    names.filter_map(Value::as_str).collect()
}

/// A heading, and names below it, if there are any.
fn name_list(shown: &mut String, title: &str, names: &[&str]) {
    if !names.is_empty() {
        lines(shown, title, &names.join("\n"));
    }
}

/// Lines of `label: value` for what is known.
fn section(shown: &mut String, item: &Value, lines: &[(&str, &str)]) {
    for (label, path) in lines {
        let value = instant(item, path);
        if value != "-" {
            // Writing to a String can't fail.
            let _ = writeln!(shown, "{:<16}{value}", format!("{label}:"));
        }
    }
}

fn rows(shown: &mut String, title: &str, items: &[Value], paths: &[&str]) {
    if items.is_empty() {
        return;
    }
    heading(shown, title);
    let headings: Vec<String> = paths.iter().map(|path| heading_of(path)).collect();
    let cells = items.iter().map(|item| paths.iter().map(|path| instant(item, path)).collect());
    let table = output::table(headings.iter().map(String::as_str), cells);
    shown.extend(table.lines().flat_map(|line| ["  ", line, "\n"]));
}

/// `outcome.exitCode` as `EXIT CODE`.
fn heading_of(path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or(path);
    let mut heading = String::new();
    for character in last.chars() {
        if character.is_ascii_uppercase() {
            heading.push(' ');
        }
        heading.push(character.to_ascii_uppercase());
    }
    heading
}
