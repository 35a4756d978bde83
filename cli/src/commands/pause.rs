//! `orloj pause` and `orloj resume`. Invariant: a pause always has a reason, for whoever finds the job paused.

use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Context, job_id, job_path, new_key, offer};
use crate::args::Namespace;
use crate::exit::{Code, Failure, Outcome};
use crate::output;

/// How long the trigger may take to answer.
const ANSWER: Duration = Duration::from_secs(10);

/// Request no further runs of a job until it is resumed
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orloj pause billing/nightly-invoice --reason \"database move, back on Monday\"")]
pub(crate) struct PauseArguments {
    /// The job
    #[arg(value_name = "NS/NAME")]
    job: String,
    /// Why, for whoever finds it paused
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    namespace: Namespace,
}

/// Request runs of a paused job again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orloj resume billing/nightly-invoice --reason \"database moved\"")]
pub(crate) struct ResumeArguments {
    /// The job
    #[arg(value_name = "NS/NAME")]
    job: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn pause(context: &Context, arguments: &PauseArguments) -> Outcome {
    ask(context, &arguments.job, &arguments.namespace, "pause", Some(&arguments.reason))
}

pub(crate) fn resume(context: &Context, arguments: &ResumeArguments) -> Outcome {
    ask(context, &arguments.job, &arguments.namespace, "resume", arguments.reason.as_deref())
}

fn ask(context: &Context, job: &str, namespace: &Namespace, verb: &str, reason: Option<&str>) -> Outcome {
    let job = job_id(job, namespace)?;
    let body = match reason {
        Some(reason) => json!({ "reason": reason }),
        None => json!({}),
    };
    let client = context.client()?;
    let written = client.post(&format!("{}/{verb}", job_path(&job)), &new_key(), &body)?;
    let position = written.position.ok_or_else(|| Failure::error("the server named no log position"))?;
    let Some(event) = offer::answer(&client, &job, &position, ANSWER)? else {
        let message = format!("{verb} of job {job} was sent as {position}, and no trigger has answered in time");
        return Err(Failure::new(Code::TimedOut, message));
    };
    if !output::document(context.global.output, &event, &format!("job/{job}"))? {
        output::print(&format!("job {job} {} at {}", output::text(&event, "type"), output::text(&event, "position")))?;
        offer::note_errors(&event);
    }
    Ok(if output::text(&event, "type") == "commandRejected" { Code::Error } else { Code::Ok })
}
