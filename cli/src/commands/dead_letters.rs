//! `orloj dlq`: runs that used up their attempts and wait for a person: looking at them, sending them back, putting them
//! aside. Invariant: looking changes nothing.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::{Context, actor, job_id, new_key, run_orders};
use crate::args::Namespace;
use crate::exit::{Code, Outcome};
use crate::output::{self, Column, column, text, wide};

/// Show dead letters, runs that used up their attempts, send them back or put them aside
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj dlq ls
  orloj dlq ls --queue default -o json
  orloj dlq show ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09
  orloj dlq redrive ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09 --reason \"the database is back\"
  orloj dlq redrive --job billing/nightly --dry-run           which ones that would be
  orloj dlq redrive --queue default --rate 5                  five in a second, the rest delayed
  orloj dlq park ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09 --reason \"ann looks into it\"
  orloj dlq ls --state parked")]
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
    /// Send dead letters back, each once; of parked ones, those that are named
    Redrive(RedriveArguments),
    /// Put dead letters aside for a person: from then on only who names one sends it back
    Park(OrderArguments),
}

#[derive(Debug, Args)]
struct RedriveArguments {
    #[command(flatten)]
    order: OrderArguments,
    /// How many of them in a second, 0.01 to 10000; the others are delayed, and live runs of their jobs meanwhile
    #[arg(long, value_name = "N")]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
struct OrderArguments {
    /// Ids of the runs, as `orloj dlq ls` shows them, or `dead-letter/ID`
    #[arg(required_unless_present_any = ["job", "queue"], conflicts_with_all = ["job", "queue", "max"], value_name = "RUN")]
    ids: Vec<String>,
    /// All dead letters of this job that are not parked
    #[arg(long, value_name = "NS/NAME")]
    job: Option<String>,
    /// All dead letters of this queue that are not parked
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Most of them, 1 to 500
    #[arg(long, value_name = "N")]
    max: Option<usize>,
    /// Only say which ones are meant
    #[arg(long)]
    dry_run: bool,
    /// Why, for whoever looks at the runs later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    namespace: Namespace,
}

/// Which dead letters are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LetterState {
    /// Those that are not parked
    Dead,
    /// Those that are
    Parked,
    /// Either
    All,
}

impl LetterState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Parked => "parked",
            Self::All => "all",
        }
    }
}

#[derive(Debug, Args)]
struct LsArguments {
    /// Only dead letters of this job
    #[arg(value_name = "NS/NAME")]
    job: Option<String>,
    /// Only dead letters of this queue
    #[arg(long, value_name = "QUEUE")]
    queue: Option<String>,
    /// Whether somebody has put them aside
    #[arg(long, value_enum, default_value_t = LetterState::Dead)]
    state: LetterState,
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
    wide("PARKED", |letter| text(letter, "parkedReason")),
    wide("FIRST FAILURE", |letter| output::instant(letter, "firstFailure")),
    wide("POSITION", |letter| text(letter, "position")),
    column("AGE", |letter| output::age(letter, "at", super::now())),
];

pub(crate) fn run(context: &Context, arguments: &DlqArguments) -> Outcome {
    match &arguments.command {
        DlqCommand::Ls(arguments) => list(context, arguments),
        DlqCommand::Show { id } => show(context, id),
        DlqCommand::Redrive(RedriveArguments { order, rate }) => {
            let is_one_by_one = !order.ids.is_empty() && !order.dry_run && rate.is_none();
            if is_one_by_one {
                redrive(context, &order.ids, order.reason.as_deref())
            } else {
                many(context, order, *rate, "redrive")
            }
        }
        DlqCommand::Park(order) => many(context, order, None, "park"),
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

/// All in one request: those that are named, or those that the server finds.
fn many(context: &Context, order: &OrderArguments, rate: Option<f64>, what: &str) -> Outcome {
    let job = order.job.as_deref().map(|text| job_id(text, &order.namespace)).transpose()?;
    let ids: Vec<&str> = order.ids.iter().map(|id| id.strip_prefix("dead-letter/").unwrap_or(id)).collect();
    let mut body = json!({ "ids": ids, "dryRun": order.dry_run, "reason": order.reason, "actor": actor() });
    for (field, value) in [("job", json!(job)), ("queue", json!(order.queue)), ("max", json!(order.max))] {
        body[field] = value;
    }
    if let Some(rate) = rate {
        body["ratePerSecond"] = json!(rate);
    }
    let answer = context.client()?.post(&format!("/api/v1/dead-letters/{what}"), &new_key(), &body)?.body;
    let done = match (what, order.dry_run) {
        ("park", false) => "is put aside",
        ("park", true) => "would be put aside",
        (_, false) => "is sent back",
        (_, true) => "would be sent back",
    };
    for item in answer["items"].as_array().into_iter().flatten() {
        output::print(&format!("run {} {done}", text(item, "runId")))?;
    }
    if answer["count"] == 0 {
        output::note("no dead letter is meant");
    } else if answer["isMore"] == true {
        output::note("there are more; ask again for the rest");
    }
    Ok(Code::Ok)
}

fn list(context: &Context, arguments: &LsArguments) -> Outcome {
    let job = arguments.job.as_deref().map(|text| job_id(text, &arguments.namespace)).transpose()?;
    let mut query = vec![("state", arguments.state.as_str())];
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
