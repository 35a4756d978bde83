//! `orloj trigger`: a run right now, and with `--wait` how it ends. Invariant: one invocation asks for one run,
//! however often the request has to be sent, since it carries a key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::{Context, actor, job_id, job_path, new_key};
use crate::args::Namespace;
use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::output;

/// Pause between two looks at a run.
const POLL: Duration = Duration::from_millis(200);
/// How long the run itself may take to appear before something is said to be amiss.
const APPEARS_WITHIN: Duration = Duration::from_secs(30);

/// Run a job now
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj trigger billing/nightly-invoice
  orloj trigger billing/nightly-invoice --param MONTH=2026-11 --wait   exit code 1 unless it succeeds")]
pub(crate) struct TriggerArguments {
    /// The job
    #[arg(value_name = "NS/NAME")]
    job: String,
    /// A parameter of the run; may be repeated
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = super::param)]
    params: Vec<(String, String)>,
    /// Wait until the run has ended
    #[arg(long)]
    wait: bool,
    /// With --wait: give up waiting after this time; the run goes on
    #[arg(long, value_parser = super::duration, value_name = "DURATION", requires = "wait")]
    timeout: Option<Duration>,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn run(context: &Context, arguments: TriggerArguments) -> Outcome {
    let job = job_id(&arguments.job, &arguments.namespace)?;
    let client = context.client()?;
    let params: BTreeMap<String, String> = arguments.params.into_iter().collect();
    let written = client.post(
        &format!("{}/trigger", job_path(&job)),
        &new_key(),
        &json!({ "params": params, "actor": actor() }),
    )?;
    let run_id = output::text(&written.body, "runId");
    if !arguments.wait {
        if !output::document(context.global.output, &written.body, &format!("run/{run_id}"))? {
            output::print(&format!("run {run_id} of {job} requested"))?;
        }
        return Ok(Code::Ok);
    }
    output::note(&format!("run {run_id} of {job} requested; waiting for its end"));
    let ended = wait_for_end(&client, &run_id, written.position.as_deref(), arguments.timeout, &is_terminal)?;
    show_end(context, &ended, "succeeded")
}

/// Waits for the end of a run that was asked for by the command at `position`, and shows it; exit code 0 if it ended as
/// `wanted`.
pub(super) fn end_of(
    context: &Context,
    client: &Client,
    run_id: &str,
    position: Option<&str>,
    wanted: &str,
    is_end: &dyn Fn(&Value) -> bool,
) -> Outcome {
    output::note(&format!("waiting for the end of run {run_id}"));
    let ended = wait_for_end(client, run_id, position, None, is_end)?;
    show_end(context, &ended, wanted)
}

fn show_end(context: &Context, ended: &Value, wanted: &str) -> Outcome {
    let (run_id, job, state) = (output::text(ended, "id"), output::text(ended, "job"), output::text(ended, "state"));
    if !output::document(context.global.output, ended, &format!("run/{run_id}"))? {
        output::print(&format!("run {run_id} of {job} {state}{}", detail(ended)))?;
    }
    Ok(if state == wanted { Code::Ok } else { Code::Error })
}

/// What is worth knowing about an end beside its state.
fn detail(run: &Value) -> String {
    let mut parts = Vec::new();
    for (path, label) in [("attempt", "attempt "), ("outcome.exitCode", "exit code "), ("outcome.message", "")] {
        let text = output::text(run, path);
        let part = format!("{label}{text}");
        if text != "-" && !parts.contains(&part) {
            parts.push(part);
        }
    }
    if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
}

pub(super) fn is_terminal(run: &Value) -> bool {
    matches!(output::text(run, "state").as_str(), "succeeded" | "failed" | "dead" | "cancelled" | "expired")
}

fn wait_for_end(
    client: &Client,
    run_id: &str,
    position: Option<&str>,
    timeout: Option<Duration>,
    is_end: &dyn Fn(&Value) -> bool,
) -> Result<Value, Failure> {
    let path = format!("/api/v1/runs/{run_id}");
    let started = started_now();
    // The first look waits until the projection has the command; a run that it knows stays known.
    let mut query: Vec<(&str, &str)> = position.map(|position| ("wait", position)).into_iter().collect();
    if !query.is_empty() {
        query.push(("timeout", "5s"));
    }
    let mut is_known = false;
    loop {
        match client.get(&path, &query) {
            Ok(run) if is_end(&run) => return Ok(run),
            Ok(_) => is_known = true,
            Err(failure) if matches!(failure.code, Code::NotFound | Code::TimedOut) && !is_known => {}
            Err(failure) => return Err(failure),
        }
        query.clear();
        if !is_known && started.elapsed() > APPEARS_WITHIN {
            let message = format!("run {run_id} has not appeared; are a trigger and a dispatcher running?");
            return Err(Failure::new(Code::TimedOut, message));
        }
        if timeout.is_some_and(|timeout| started.elapsed() > timeout) {
            return Err(Failure::new(Code::TimedOut, format!("run {run_id} has not ended yet; it goes on")));
        }
        // The end of a run is on another machine: it can only be asked for again.
        std::thread::park_timeout(POLL);
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a person waits is measured where the person is")]
pub(super) fn started_now() -> Instant {
    Instant::now()
}
