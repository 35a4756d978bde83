//! Records to inputs: requests of runs from `fires`, reports of runners from `attempt.events`, what people want of runs from
//! `commands`. Not here: state topics (`live_run`), heartbeats (`service`). Invariant: a record that can't be used is refused whole, with a
//! reason; nothing of it reaches the machine.

use std::sync::Arc;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, OutcomeKind};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::fire::{Decision, FireDecision};
use orloj_domain::id::JobId;
use orloj_domain::run::RecordHeader;
use orloj_domain::shard::ShardCount;
use orloj_runtime::codec;
use orloj_runtime::driver::{Undecodable, check_partition};
use orloj_runtime::log::{Header, Record};

use crate::event::{Completion, Input, Order, Report};
use crate::request::Request;
use crate::shares::Shares;

/// Reads a decision; `None` if it asks for no run.
pub(super) fn fire(record: &Record, shards: ShardCount, shares: &Shares) -> Result<Option<Input>, Undecodable> {
    check_partition(record, shards)?;
    // Compaction of `fires` may be helped by a tombstone; it decides nothing.
    let Some(value) = record.value.as_deref() else { return Ok(None) };
    let decision: FireDecision = decode(value)?;
    check_key(record, &decision.job)?;
    match decision.decision {
        Decision::Requested => {}
        Decision::Skipped | Decision::Coalesced | Decision::Unknown => return Ok(None),
    }
    let headers: Vec<_> = record.headers.iter().map(header).collect();
    let request = Request::of(&decision, record.offset, &headers, value, shares);
    let complaint = || Undecodable::new("decision", "requested", "a requested decision needs `runId` and `spec`");
    request.map(|request| Some(Input::Requested(Arc::new(request)))).ok_or_else(complaint)
}

/// Reads a runner's report.
pub(super) fn report(record: &Record, shards: ShardCount) -> Result<AttemptEvent, Undecodable> {
    check_partition(record, shards)?;
    let report: AttemptEvent = decode(record.value.as_deref().unwrap_or_default())?;
    check_key(record, &report.job)?;
    if report.kind == AttemptEventType::Finished && report.outcome.is_none() {
        return Err(Undecodable::new("outcome", "", "a finished attempt needs an outcome"));
    }
    Ok(report)
}

/// What a report claims: the attempt, whoever claims it.
pub(super) fn claim_of(record: &Record) -> Option<Vec<u8>> {
    let report: AttemptEvent = codec::decode(record.value.as_deref()?).ok()?;
    (report.kind == AttemptEventType::Claimed).then(|| format!("{}/{}", report.run_id, report.token).into_bytes())
}

/// What a report asks of the machine; `None` if it is only for the record.
pub(super) fn input_of(report: AttemptEvent) -> Option<Input> {
    let outcome = report.outcome;
    let about = Report {
        run_id: report.run_id,
        job: report.job,
        attempt: report.attempt,
        token: report.token,
        runner: report.runner,
        session: report.session,
    };
    match report.kind {
        AttemptEventType::Claimed => Some(Input::Claimed(about)),
        AttemptEventType::Finished => outcome.map(|outcome| Input::Finished(about, outcome)),
        AttemptEventType::Started | AttemptEventType::Progress | AttemptEventType::Unknown => None,
    }
}

/// Reads a command; `None` if it is about a job, which is the trigger's. So is whatever can't be read of it: the trigger
/// reads all of them, and a record must not be complained about twice.
pub(super) fn command(record: &Record, shards: ShardCount) -> Option<Input> {
    check_partition(record, shards).ok()?;
    let command = codec::input::decode_command(record.value.as_deref()?).ok()?;
    let job: JobId = record.key_text()?.parse().ok()?;
    let order = |run_id| Order {
        run_id,
        job: job.clone(),
        command: command.command_id.clone(),
        actor: command.actor.clone(),
        reason: command.reason.clone(),
        spares_parked: command.spares_parked,
        not_before: command.not_before,
    };
    match command.kind {
        CommandType::Cancel if command.backfill_id.is_none() => command.run_id.map(order).map(Input::Cancel),
        CommandType::Redrive => command.run_id.map(order).map(Input::Redrive),
        CommandType::Park => command.run_id.map(order).map(Input::Park),
        CommandType::Complete => completion(job, command).map(Input::Complete),
        CommandType::Cancel
        | CommandType::RunNow
        | CommandType::Backfill
        | CommandType::Pause
        | CommandType::Resume
        | CommandType::RunEnded
        | CommandType::Unknown => None,
    }
}

/// What the API says of an attempt; `None` if it lacks something or says what no callback may.
fn completion(job: JobId, command: Command) -> Option<Completion> {
    let outcome = command.outcome?;
    let is_callbacks = matches!(outcome.kind, OutcomeKind::Succeeded | OutcomeKind::Failed);
    is_callbacks.then_some(())?;
    Some(Completion { run_id: command.run_id?, job, attempt: command.attempt?, token: command.token?, outcome })
}

pub(super) fn decode<T: codec::WireRecord>(value: &[u8]) -> Result<T, Undecodable> {
    codec::decode(value).map_err(|error| Undecodable::new("value", "", error.to_string()))
}

fn check_key(record: &Record, job: &JobId) -> Result<(), Undecodable> {
    let key = record.key_text().unwrap_or_default();
    if key == job.as_str() {
        return Ok(());
    }
    Err(Undecodable::new("key", key, format!("the record is about {job}: its key must be the job")))
}

fn header(header: &Header) -> RecordHeader {
    RecordHeader { key: header.key.clone(), value: header.value.clone().unwrap_or_default() }
}
