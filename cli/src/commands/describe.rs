//! `orloj describe`: one job, run or calendar in depth, in sections. Invariant: what is shown was asked for in the same
//! moment from the same projection; what is not known is left out, never made up.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Context, calendars, get, job_id, job_path};
use crate::args::Namespace;
use crate::exit::{Code, Outcome};
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
}

/// Show a job, a run or a calendar in depth
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj describe job billing/nightly-invoice
  orloj describe calendar holidays
  orloj describe run ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09")]
pub(crate) struct DescribeArguments {
    /// What it is
    #[arg(value_enum)]
    kind: Kind,
    /// A job as NS/NAME, a run by its id, a calendar by its name
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
        let yaml = output::yaml(&[get::manifest(&job)?])?;
        heading(&mut shown, "Manifest");
        shown.extend(yaml.lines().flat_map(|line| ["  ", line, "\n"]));
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

fn calendar(context: &Context, name: &str) -> Outcome {
    let name = calendars::name(name)?;
    let calendar = context.client()?.get(&calendars::path(&name), &[])?;
    if output::document(context.global.output, &calendar, &format!("calendar/{name}"))? {
        return Ok(Code::Ok);
    }
    let mut shown = String::new();
    section(
        &mut shown,
        &calendar,
        &[("Calendar", "calendar"), ("Position", "status.position"), ("Updated", "status.updatedAt")],
    );
    section(&mut shown, &calendar, &[("Updated by", "status.actor")]);
    heading(&mut shown, "Manifest");
    let yaml = output::yaml(&[calendars::manifest(&calendar)?])?;
    shown.extend(yaml.lines().flat_map(|line| ["  ", line, "\n"]));
    for (title, field) in [("Named by jobs", "jobs"), ("Included by calendars", "calendars")] {
        let names = calendar.pointer(&format!("/status/{field}")).and_then(Value::as_array).into_iter().flatten();
        let names: Vec<&str> = names.filter_map(Value::as_str).collect();
        if !names.is_empty() {
            heading(&mut shown, title);
            shown.extend(names.into_iter().flat_map(|name| ["  ", name, "\n"]));
        }
    }
    output::print(&shown)?;
    Ok(Code::Ok)
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
            ("Outcome", "outcome.kind"),
            ("Exit code", "outcome.exitCode"),
            ("Message", "outcome.message"),
        ],
    );
    let attempts = run.get("attempts").and_then(Value::as_array).cloned().unwrap_or_default();
    rows(
        &mut shown,
        "Attempts",
        &attempts,
        &["attempt", "runner", "startedAt", "finishedAt", "outcome.kind", "outcome.exitCode", "lateResult.kind"],
    );
    if let Some(attempt) = attempts.iter().find(|attempt| attempt["awaitsCallback"] == true) {
        heading(&mut shown, "Waits");
        // Writing to a String can't fail.
        let _ = writeln!(shown, "  for the callback of attempt {}, or its answer", attempt["attempt"]);
    }
    output::print(&shown)?;
    output::note(&format!("output: orloj logs {id}"));
    Ok(Code::Ok)
}

fn heading(shown: &mut String, title: &str) {
    if !shown.is_empty() {
        shown.push('\n');
    }
    shown.push_str(title);
    shown.push_str(":\n");
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
