//! `POST /dead-letters/redrive` and `/park`: one command for each dead letter that is named or found. Not here: what comes of
//! them, which the dispatcher decides. Invariant: a parked dead letter is sent back only by its name, and a request that
//! means none in particular is refused.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::{JobId, QueueName, RunId};
use orloj_domain::job_event::FieldError;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::NewRecord;
use serde::Deserialize;
use serde_json::{Value, json};

use super::commands::{actor, asked, command_id};
use super::job_writes::{accepted, invalid};
use super::params::Params;
use super::{Api, Problem, document};
use crate::appends::AppendFailure;
use crate::views::{self, DeadLetterFilter, LetterState};

/// Most dead letters of one request.
const LETTERS_MAX: usize = 500;
/// Lowest rate at which they are sent back, per second, inclusive: as many as one request means take less than a day.
const RATE_MIN: f64 = 0.01;
/// Highest such rate, inclusive.
const RATE_MAX: f64 = 10_000.0;

/// Which dead letters are meant, and what is said about them.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
struct Request {
    /// Ids of runs.
    ids: Vec<String>,
    job: Option<String>,
    queue: Option<String>,
    max: Option<usize>,
    /// Redrive: how many of them are sent back in a second.
    rate_per_second: Option<f64>,
    dry_run: bool,
    reason: Option<String>,
    /// Who asks, as the client names itself.
    actor: Option<String>,
}

pub(super) async fn redrive(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    ask(&api, CommandType::Redrive, &headers, params, body).await
}

pub(super) async fn park(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    ask(&api, CommandType::Park, &headers, params, body).await
}

async fn ask(
    api: &Arc<Api>,
    kind: CommandType,
    headers: &HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let request: Request = asked(headers, params, body).await?;
    let (max, filter) = meant(&request).map_err(invalid)?;
    let pace = pace(&request, kind).map_err(invalid)?;
    let command = Command {
        at: Some(api.clock.now()),
        actor: actor(request.actor)?,
        reason: request.reason,
        spares_parked: request.ids.is_empty(),
        ..Command::new(kind, command_id(headers)?)
    };
    let (mut letters, is_named) = match filter {
        Some(filter) => (found(api, filter, max + 1).await?, false),
        None => (named(api, request.ids).await?, true),
    };
    let is_more = letters.len() > max;
    letters.truncate(max);
    let items = letters.iter().map(|(run_id, job)| json!({"runId": run_id, "job": job}));
    let answer = json!({
        "commandId": command.command_id, "count": letters.len(), "isMore": is_more && !is_named,
        "dryRun": request.dry_run, "items": items.collect::<Vec<_>>(),
    });
    if request.dry_run || letters.is_empty() {
        return Ok(document(&answer));
    }
    let now = api.clock.now();
    let record = |(index, (run_id, job)): (usize, &Letter)| {
        let not_before = pace.map(|pace| now.plus(pace * u32::try_from(index).unwrap_or(u32::MAX)));
        let value = codec::encode(&Command { run_id: Some(*run_id), not_before, ..command.clone() });
        NewRecord::new(topic::COMMANDS, api.shards.shard_of(job).0, job.as_str(), Some(value))
    };
    let written = api.appends.append_all(letters.iter().enumerate().map(record)).await;
    let positions = written.map_err(|failure| if is_named { failure.into() } else { in_part(failure) })?;
    let Some(last) = positions.last() else { return Ok(document(&answer)) };
    Ok(accepted(last, answer))
}

/// How long after one letter the next one is sent back; `None` if all are at once.
fn pace(request: &Request, kind: CommandType) -> Result<Option<Duration>, Vec<FieldError>> {
    let Some(rate) = request.rate_per_second else { return Ok(None) };
    let complaint = if kind != CommandType::Redrive {
        "has a meaning only where runs are sent back; remove it".to_owned()
    // Written so that NaN is refused too.
    } else if !(RATE_MIN..=RATE_MAX).contains(&rate) {
        format!("must be {RATE_MIN} to {RATE_MAX}")
    } else {
        return Ok(Some(Duration::from_secs_f64(1.0 / rate)));
    };
    Err(vec![FieldError::new("ratePerSecond", rate, complaint)])
}

/// What became of an order about letters that were looked for: who sends it again does not mean the same ones.
fn in_part(failure: AppendFailure) -> Problem {
    let AppendFailure::Unknown(text) = failure else { return failure.into() };
    let detail =
        format!("it may have been done in part: {text}; see what is left by GET /dead-letters, and ask for that");
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "doneInPart", detail)
}

/// A dead letter that is meant.
type Letter = (RunId, JobId);

/// Most that are meant, and the filter; no filter if they are named.
fn meant(request: &Request) -> Result<(usize, Option<DeadLetterFilter>), Vec<FieldError>> {
    let mut errors = Vec::new();
    let max = request.max.unwrap_or(LETTERS_MAX);
    if !(1..=LETTERS_MAX).contains(&max) {
        errors.push(FieldError::new("max", max, format!("must be from 1 to {LETTERS_MAX}")));
    }
    let has_filter = request.job.is_some() || request.queue.is_some();
    if request.ids.is_empty() && !has_filter {
        errors.push(FieldError::new("ids", "", "name the runs, or give `job` or `queue`: none in particular is meant"));
    }
    if !request.ids.is_empty() && (has_filter || request.max.is_some()) {
        errors.push(FieldError::new(
            "ids",
            request.ids.len(),
            "leave out `job`, `queue` and `max` where runs are named",
        ));
    }
    if request.ids.len() > LETTERS_MAX {
        errors.push(FieldError::new("ids", request.ids.len(), format!("must be at most {LETTERS_MAX}")));
    }
    if let Some(job) = request.job.as_ref().filter(|job| job.parse::<JobId>().is_err()) {
        errors.push(FieldError::new("job", job, "write `namespace/name`"));
    }
    if let Some(queue) = request.queue.as_ref().filter(|queue| queue.parse::<QueueName>().is_err()) {
        errors.push(FieldError::new("queue", queue, "is no name of a queue"));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let (job, queue) = (request.job.clone(), request.queue.clone());
    Ok((max, has_filter.then_some(DeadLetterFilter { job, queue, state: LetterState::Dead })))
}

/// Those that the filter finds and that are not parked, newest first.
async fn found(api: &Arc<Api>, filter: DeadLetterFilter, max: usize) -> Result<Vec<Letter>, Problem> {
    let items = api.read(move |connection| views::dead_letters(connection, &filter, None, max)).await?;
    Ok(items.iter().filter_map(|(_, letter)| letter_of(letter)).collect())
}

/// Those that are named; refused as a whole if one of them is none.
async fn named(api: &Arc<Api>, ids: Vec<String>) -> Result<Vec<Letter>, Problem> {
    let read = move |connection: &rusqlite::Connection| {
        let one = |id: &String| views::dead_letter(connection, id).map(|letter| (id.clone(), letter));
        ids.iter().map(one).collect::<rusqlite::Result<Vec<_>>>()
    };
    let mut errors = Vec::new();
    let mut letters = Vec::new();
    for (index, (id, letter)) in api.read(read).await?.into_iter().enumerate() {
        match letter.as_ref().and_then(letter_of) {
            Some(letter) => letters.push(letter),
            None => {
                let message = "is no dead letter; `orloj dlq ls --state all` shows which there are";
                errors.push(FieldError::new(format!("ids[{index}]"), id, message));
            }
        }
    }
    if errors.is_empty() { Ok(letters) } else { Err(invalid(errors)) }
}

/// Run and job of a dead letter; `None` for one that names no job.
fn letter_of(letter: &Value) -> Option<Letter> {
    Some((letter["runId"].as_str()?.parse().ok()?, letter["job"].as_str()?.parse().ok()?))
}
