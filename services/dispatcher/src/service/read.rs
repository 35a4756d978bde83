//! Records to inputs: requests of runs from `fires`, reports of runners from `attempt.events`, what people want of runs from
//! `commands`. Not here: state topics (`live_run`), heartbeats (`service`). Invariant: a record that can't be used is refused whole, with a
//! reason; nothing of it reaches the machine.

use std::sync::Arc;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType};
use orloj_domain::command::CommandType;
use orloj_domain::fire::{Decision, FireDecision};
use orloj_domain::id::JobId;
use orloj_domain::run::RecordHeader;
use orloj_domain::shard::ShardCount;
use orloj_runtime::codec;
use orloj_runtime::driver::{Undecodable, check_partition};
use orloj_runtime::log::{Header, Record};

use crate::event::{Input, Order, Report};
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
    let order = |run_id| {
        let job = record.key_text()?.parse().ok()?;
        Some(Order {
            run_id,
            job,
            command: command.command_id.clone(),
            actor: command.actor.clone(),
            reason: command.reason.clone(),
            spares_parked: command.spares_parked,
        })
    };
    match command.kind {
        CommandType::Cancel if command.backfill_id.is_none() => order(command.run_id?).map(Input::Cancel),
        CommandType::Redrive => order(command.run_id?).map(Input::Redrive),
        CommandType::Park => order(command.run_id?).map(Input::Park),
        CommandType::Cancel
        | CommandType::RunNow
        | CommandType::Backfill
        | CommandType::Pause
        | CommandType::Resume
        | CommandType::RunEnded
        | CommandType::Unknown => None,
    }
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
