//! `orloj pause` and `orloj resume`. Invariant: a pause always has a reason, for whoever finds the job paused.

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Context, actor, job_id, job_path, new_key, offer};
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

/// What becomes of fire times that passed during a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Missed {
    /// they are skipped
    #[default]
    Drop,
    /// the job's misfire policy judges them, as after an outage
    Accumulate,
}

/// Request runs of a paused job again
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  orloj resume billing/nightly-invoice --reason \"database moved\"\n  \
              orloj resume billing/nightly-invoice --missed accumulate    catch up by the misfire policy")]
pub(crate) struct ResumeArguments {
    /// The job
    #[arg(value_name = "NS/NAME")]
    job: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// What becomes of the fire times that passed meanwhile
    #[arg(long, value_enum, default_value_t)]
    missed: Missed,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn pause(context: &Context, arguments: &PauseArguments) -> Outcome {
    ask(context, &arguments.job, &arguments.namespace, "pause", json!({ "reason": arguments.reason, "actor": actor() }))
}

pub(crate) fn resume(context: &Context, arguments: &ResumeArguments) -> Outcome {
    let missed = match arguments.missed {
        Missed::Drop => "drop",
        Missed::Accumulate => "accumulate",
    };
    let body = json!({ "reason": arguments.reason, "missed": missed, "actor": actor() });
    ask(context, &arguments.job, &arguments.namespace, "resume", body)
}

fn ask(context: &Context, job: &str, namespace: &Namespace, verb: &str, body: Value) -> Outcome {
    let job = job_id(job, namespace)?;
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
