//! `orloj backfill`: runs for fire times that have passed. Not here: which they are, which the server works out, nor
//! when each runs, which the trigger decides. Invariant: nothing is sent by `--dry-run`.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::{Context, actor, job_id, job_path, new_key, offer};
use crate::args::Namespace;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, text};

/// How long the trigger may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Run a job for fire times that have passed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj backfill billing/nightly-invoice --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z --dry-run
  orloj backfill billing/nightly-invoice --from 7d --to 0s --only-missed
  orloj backfill billing/nightly-invoice --from 2d --to 1d --concurrency 4 --param TENANT=7
  orloj backfill billing/nightly-invoice --cancel 0b6f3a52-6c3e-4f0e-9a63-9a1f4a2f5c11

The runs are of the definition in force now, one after the other unless --concurrency says more, and behind live ones.
They don't count against maxFires. `orloj describe job` shows how far a backfill has come; an edit of the job ends it.
--only-missed leaves out what was requested before. Where decisions are no longer kept it refuses to guess.")]
pub(crate) struct BackfillArguments {
    /// The job
    #[arg(value_name = "NS/NAME")]
    job: String,
    /// First fire time, inclusive: RFC 3339, or how long ago
    #[arg(long, value_parser = super::instant, value_name = "INSTANT", required_unless_present = "cancel")]
    from: Option<String>,
    /// End, exclusive: RFC 3339, or how long ago
    #[arg(long, value_parser = super::instant, value_name = "INSTANT", required_unless_present = "cancel")]
    to: Option<String>,
    /// Show which fire times are meant and what became of them; send nothing
    #[arg(long)]
    dry_run: bool,
    /// Only fire times for which no run was ever requested
    #[arg(long)]
    only_missed: bool,
    /// Refuse if more fire times than this are meant [default: 1000]
    #[arg(long, value_name = "N")]
    max: Option<i32>,
    /// Runs at a time [default: 1]
    #[arg(long, value_name = "N")]
    concurrency: Option<i32>,
    /// A parameter of every run; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = super::param)]
    params: Vec<(String, String)>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Request no further runs of this backfill; those under way go on
    #[arg(long, value_name = "ID", conflicts_with_all = ["from", "to", "dry_run", "only_missed", "max", "concurrency", "params"])]
    cancel: Option<String>,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn run(context: &Context, arguments: &BackfillArguments) -> Outcome {
    let job = job_id(&arguments.job, &arguments.namespace)?;
    let client = context.client()?;
    let written = client.post(&format!("{}/backfill", job_path(&job)), &new_key(), &body_of(arguments))?;
    if arguments.dry_run {
        return preview(context, &written.body, job.as_str());
    }
    let position = written.position.ok_or_else(|| Failure::error("the server named no log position"))?;
    let Some(event) = offer::answer(&client, &job, &position, ANSWER)? else {
        let message = format!("the backfill of job {job} was sent as {position}, and no trigger has answered in time");
        return Err(Failure::new(Code::TimedOut, message));
    };
    let kind = text(&event, "type");
    if !output::document(context.global.output, &event, &format!("job/{job}"))? {
        output::print(&format!("job {job} {kind} at {}", text(&event, "position")))?;
        offer::note_errors(&event);
        if kind == "backfillStarted" {
            say_next(&written.body, job.as_str());
        }
    }
    Ok(if kind == "commandRejected" { Code::Error } else { Code::Ok })
}

fn body_of(arguments: &BackfillArguments) -> Value {
    let params: Map<String, Value> =
        arguments.params.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let mut body = json!({
        "from": arguments.from,
        "until": arguments.to,
        "max": arguments.max,
        "concurrency": arguments.concurrency,
        "reason": arguments.reason,
        "cancel": arguments.cancel,
        "actor": actor(),
        "params": params,
        "onlyMissed": arguments.only_missed,
        "dryRun": arguments.dry_run,
    });
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    body
}

fn preview(context: &Context, document: &Value, job: &str) -> Outcome {
    if output::document(context.global.output, document, &format!("job/{job}"))? {
        return Ok(Code::Ok);
    }
    let items = document.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
    let rows = items.iter().map(|item| ["fireTime", "was", "reason"].iter().map(|path| text(item, path)).collect());
    output::print(&output::table(["FIRE TIME", "WAS", "REASON"].into_iter(), rows))?;
    output::note(&format!("{} runs would be requested; nothing was sent", text(document, "count")));
    Ok(Code::Ok)
}

/// How to follow a backfill and how to end it.
fn say_next(document: &Value, job: &str) {
    output::note(&format!(
        "{} runs; follow it by `orloj runs {job}`, end it by `orloj backfill {job} --cancel {}`",
        text(document, "count"),
        text(document, "commandId"),
    ));
}
