//! `orloj cancel` and `orloj retry`: what a person wants of one run. Not here: waiting for ends (`trigger`). Invariant: one
//! invocation asks once, however often the request has to be sent, since it carries a key.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{Context, actor, new_key, trigger};
use crate::client::Client;
use crate::exit::{Code, Outcome};
use crate::output;

/// How long the dispatcher may take to send a run back.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Which run is meant, and what both orders may say.
#[derive(Debug, Args)]
struct Order {
    /// Id of the run
    #[arg(value_name = "RUN")]
    run: String,
    /// Why, for whoever looks at the run later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Wait until the run has ended
    #[arg(long)]
    wait: bool,
}

/// End a run: at once if no runner holds it, else as soon as its processes have ended
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj cancel ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09
  orloj cancel ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09 --reason \"wrong month\" --wait")]
pub(crate) struct CancelArguments {
    #[command(flatten)]
    order: Order,
}

/// Send a dead run back, with all attempts of its policy before it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj retry ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09
  orloj retry ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09 --wait     exit code 1 unless it succeeds
  orloj dlq ls                                                which runs are dead")]
pub(crate) struct RetryArguments {
    #[command(flatten)]
    order: Order,
}

pub(crate) fn cancel(context: &Context, arguments: &CancelArguments) -> Outcome {
    let Order { run, reason, wait } = &arguments.order;
    let client = context.client()?;
    let position = ask(&client, run, "cancel", reason.as_deref())?;
    if !wait {
        output::print(&format!("run {run} is asked to end"))?;
        return Ok(Code::Ok);
    }
    trigger::end_of(context, &client, run, position.as_deref(), "cancelled", &trigger::is_terminal)
}

pub(crate) fn retry(context: &Context, arguments: &RetryArguments) -> Outcome {
    let Order { run, reason, wait } = &arguments.order;
    let client = context.client()?;
    let before = client.get(&format!("/api/v1/runs/{run}"), &[])?;
    let position = ask(&client, run, "retry", reason.as_deref())?;
    if !wait {
        output::print(&format!("run {run} is sent back"))?;
        return Ok(Code::Ok);
    }
    // It is dead until the dispatcher has sent it back, or has said why not.
    let asked_at = trigger::started_now();
    let is_answered = |run: &Value| run["finishedAt"] != before["finishedAt"] || asked_at.elapsed() > ANSWER_MAX;
    let is_end = |run: &Value| trigger::is_terminal(run) && is_answered(run);
    trigger::end_of(context, &client, run, position.as_deref(), "succeeded", &is_end)
}

/// Asks; answers the position of the command.
pub(super) fn ask(
    client: &Client,
    run: &str,
    what: &str,
    reason: Option<&str>,
) -> Result<Option<String>, crate::exit::Failure> {
    let path = format!("/api/v1/runs/{run}/{what}");
    let written = client.post(&path, &new_key(), &json!({ "reason": reason, "actor": actor() }))?;
    Ok(written.position)
}
