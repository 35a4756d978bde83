//! `orloj delete`: jobs, calendars, limits or bounds of queues go, and the answer says where in the log. Invariant: one that does not exist is
//! said so (exit code 3), and the others that were named are still removed.

use std::time::Duration;

use clap::{Args, ValueEnum};
use orloj_domain::id::JobId;

use super::{Context, calendars, job_id, job_path, limits, offer};
use crate::args::Namespace;
use crate::client::Client;
use crate::exit::{Code, Outcome};
use crate::output;

/// What can be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    #[value(alias = "jobs")]
    Job,
    #[value(alias = "calendars")]
    Calendar,
    #[value(alias = "limits")]
    Limit,
    #[value(alias = "queues")]
    Queue,
}

/// Remove jobs, calendars, limits or what bounds a queue; runs that are under way end as they will
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj delete job billing/nightly-invoice
  orloj delete calendar holidays          refused while a job or a calendar names it
  orloj delete limit database             refused while a job names it, or a run needs it
  orloj delete queue default              the queue stays; nothing bounds it any more")]
pub(crate) struct DeleteArguments {
    /// What to delete
    #[arg(value_enum)]
    kind: Kind,
    /// The jobs as NS/NAME, or the names of calendars, limits or queues
    #[arg(required = true, value_name = "NS/NAME|NAME")]
    names: Vec<String>,
    /// How long to wait for the answer
    #[arg(long, default_value = "10s", value_parser = super::duration, value_name = "DURATION")]
    timeout: Duration,
    #[command(flatten)]
    namespace: Namespace,
}

pub(crate) fn run(context: &Context, arguments: DeleteArguments) -> Outcome {
    match arguments.kind {
        Kind::Job => {
            let jobs: Result<Vec<_>, _> =
                arguments.names.iter().map(|text| job_id(text, &arguments.namespace)).collect();
            each(jobs?, context, |client, job| remove(client, &job, arguments.timeout))
        }
        Kind::Calendar => {
            let names: Result<Vec<_>, _> = arguments.names.iter().map(|text| calendars::name(text)).collect();
            each(names?, context, |client, name| calendars::remove(client, &name))
        }
        Kind::Limit => {
            let names: Result<Vec<_>, _> = arguments.names.iter().map(|text| limits::limit(text)).collect();
            each(names?, context, |client, limit| limits::remove(client, &limit))
        }
        Kind::Queue => {
            let names: Result<Vec<_>, _> = arguments.names.iter().map(|text| limits::queue(text)).collect();
            each(names?, context, |client, queue| limits::remove(client, &queue))
        }
    }
}

/// Removes all; the last failure decides how it ends.
fn each<T>(named: Vec<T>, context: &Context, remove: impl Fn(&Client, T) -> Outcome) -> Outcome {
    let client = context.client()?;
    let mut code = Code::Ok;
    for one in named {
        let removed = remove(&client, one)?;
        if removed != Code::Ok {
            code = removed;
        }
    }
    Ok(code)
}

/// Removes one job and says what came of it.
pub(crate) fn remove(client: &Client, job: &JobId, timeout: Duration) -> Outcome {
    let position = match client.delete(&job_path(job)) {
        Ok(written) => written.position,
        Err(failure) if failure.code == Code::NotFound => {
            output::note(&format!("error: {}", failure.message));
            return Ok(Code::NotFound);
        }
        Err(failure) => return Err(failure),
    };
    let answer = match &position {
        Some(position) => offer::answer(client, job, position, timeout)?,
        None => None,
    };
    let Some(event) = answer else {
        output::note(&format!("job {job}: no trigger has answered in time; is one running?"));
        return Ok(Code::TimedOut);
    };
    output::print(&format!("job {job} deleted at {}", output::text(&event, "position")))?;
    Ok(Code::Ok)
}
