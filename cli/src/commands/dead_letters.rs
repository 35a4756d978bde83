//! `orloj dlq`: runs that used up their attempts and wait for a person: looking at them, and sending them back. Invariant:
//! looking changes nothing.

use clap::{Args, Subcommand};

use super::{Context, job_id, run_orders};
use crate::args::Namespace;
use crate::exit::{Code, Outcome};
use crate::output::{self, Column, column, text, wide};

/// Show dead letters, runs that used up their attempts, or send them back
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj dlq ls
  orloj dlq ls --queue default -o json
  orloj dlq show ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09
  orloj dlq redrive ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09 --reason \"the database is back\"
  orloj dlq ls -o name | xargs orloj dlq redrive")]
pub(crate) struct DlqArguments {
    #[command(subcommand)]
    command: DlqCommand,
}

#[derive(Debug, Subcommand)]
enum DlqCommand {
    /// List dead letters, newest first
    #[command(visible_alias = "list")]
    Ls(LsArguments),
    /// Show one dead letter
    Show {
        /// Id of the run, or of the dead letter
        id: String,
    },
    /// Send dead letters back, each once
    Redrive {
        /// Ids of the runs, as `orloj dlq ls` shows them, or `dead-letter/ID`
        #[arg(required = true, value_name = "RUN")]
        ids: Vec<String>,
        /// Why, for whoever looks at the runs later
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
struct LsArguments {
    /// Only dead letters of this job
    #[arg(value_name = "NS/NAME")]
    job: Option<String>,
    /// Only dead letters of this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Most dead letters to show
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    namespace: Namespace,
}

const COLUMNS: &[Column] = &[
    column("RUN", |letter| text(letter, "runId")),
    column("JOB", |letter| text(letter, "job")),
    column("ATTEMPTS", |letter| text(letter, "attempt")),
    wide("QUEUE", |letter| text(letter, "queue")),
    wide("DISPOSITION", |letter| text(letter, "disposition")),
    wide("CLASS", |letter| text(letter, "errorClass")),
    wide("MESSAGE", |letter| text(letter, "message")),
    wide("FIRST FAILURE", |letter| output::instant(letter, "firstFailure")),
    wide("POSITION", |letter| text(letter, "position")),
    column("AGE", |letter| output::age(letter, "at", super::now())),
];

pub(crate) fn run(context: &Context, arguments: &DlqArguments) -> Outcome {
    match &arguments.command {
        DlqCommand::Ls(arguments) => list(context, arguments),
        DlqCommand::Show { id } => show(context, id),
        DlqCommand::Redrive { ids, reason } => redrive(context, ids, reason.as_deref()),
    }
}

/// One after the other; what is refused keeps none of the others.
fn redrive(context: &Context, ids: &[String], reason: Option<&str>) -> Outcome {
    let client = context.client()?;
    let mut is_any_refused = false;
    for id in ids {
        let id = id.strip_prefix("dead-letter/").unwrap_or(id);
        match run_orders::ask(&client, id, "retry", reason) {
            Ok(_) => output::print(&format!("run {id} is sent back"))?,
            Err(failure) => {
                is_any_refused = true;
                output::note(&format!("run {id} is not sent back: {failure}"));
            }
        }
    }
    Ok(if is_any_refused { Code::Error } else { Code::Ok })
}

fn list(context: &Context, arguments: &LsArguments) -> Outcome {
    let job = arguments.job.as_deref().map(|text| job_id(text, &arguments.namespace)).transpose()?;
    let mut query = Vec::new();
    if let Some(job) = &job {
        query.push(("job", job.as_str()));
    }
    if let Some(queue) = &arguments.queue {
        query.push(("queue", queue.as_str()));
    }
    let items = context.client()?.items("/api/v1/dead-letters", &query, arguments.limit)?;
    output::list(context.global.output, &items, COLUMNS, |letter| format!("dead-letter/{}", text(letter, "runId")))?;
    Ok(Code::Ok)
}

fn show(context: &Context, id: &str) -> Outcome {
    let letter = context.client()?.get(&format!("/api/v1/dead-letters/{id}"), &[])?;
    if !output::document(context.global.output, &letter, &format!("dead-letter/{id}"))? {
        output::print(&output::yaml(&[letter])?)?;
    }
    Ok(Code::Ok)
}
