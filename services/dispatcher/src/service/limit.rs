//! Limits as records: what shards say to each other about them (topic `limits`), what `run.state` keeps of those that belong
//! to a shard, and their rules (topic `settings`). Not here: who gets one (`machine`). Invariant: each key in `run.state` is of
//! one claim, or of one rate, and its last record is what is so.

use std::sync::Arc;

use orloj_domain::id::{IdError, LimitId};
use orloj_domain::limit::{Claim, LimitRules, Waiter};
use orloj_domain::setting::{LimitEvent, LimitEventType, Verdict};
use orloj_domain::shard::{Shard, ShardCount};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::driver::Undecodable;
use orloj_runtime::log::{NewRecord, Record};

use super::breaker;
use super::read::decode;
use crate::event::{GivenBack, Input};
use crate::machine::DispatcherMachine;
use crate::request::Request;
use crate::run::{Run, Step};

/// What keys of `run.state` begin with that are about limits: no run id does.
pub(super) const KEY_PREFIX: &str = "limit:";

/// What a run says of the limit that it waits for.
pub(super) fn awaited(limit: &LimitId) -> String {
    let what = if limit.is_of_queue() { "queue" } else { "limit" };
    format!("it waits for its turn at {what} {}", limit.name())
}

/// What a run that waits for a limit says to its shard.
pub(super) fn asked(shards: ShardCount, run: &Run) -> Option<NewRecord> {
    let (limit, Step::Asking { asked_at, .. }) = (run.asks_for()?, &run.step) else { return None };
    let request = &run.request;
    let waiter = Waiter { claim: run.claim(), job: request.job.clone(), priority: request.priority, since: run.since };
    Some(message(
        shards.shard_of_key(limit.as_str().as_bytes()),
        &event(LimitEventType::Acquire, limit, &waiter, *asked_at),
    ))
}

/// What a run says to the shards of limits that it gives back.
pub(super) fn given_back<'a>(
    shards: ShardCount,
    request: &'a Request,
    gives_back: &'a GivenBack,
    at: Timestamp,
) -> impl Iterator<Item = NewRecord> + 'a {
    gives_back.iter().flat_map(move |(limits, claim)| {
        let waiter = Waiter { claim: *claim, job: request.job.clone(), priority: request.priority, since: at };
        limits.iter().map(move |(limit, verdict)| release(shards, limit, &waiter, at, *verdict))
    })
}

/// What is said when a limit came that nobody waits for.
pub(super) fn declined(shards: ShardCount, limit: &LimitId, waiter: &Waiter) -> NewRecord {
    release(shards, limit, waiter, waiter.since, Verdict::Nothing)
}

/// What is kept of one that waits for a limit of the shard.
pub(super) fn joined(shard: Shard, limit: &LimitId, waiter: &Waiter) -> NewRecord {
    kept(shard, limit, waiter.claim, Some(&event(LimitEventType::Acquire, limit, waiter, waiter.since)))
}

/// What is kept of one that has got a limit of the shard, and what its shard is told; under a rate, how far that is used up.
pub(super) fn held(
    shard: Shard,
    shards: ShardCount,
    limit: &LimitId,
    waiter: &Waiter,
    at: Timestamp,
    used_until_nanos: i64,
) -> Vec<NewRecord> {
    let granted = LimitEvent { used_until_nanos, ..event(LimitEventType::Grant, limit, waiter, at) };
    let mut records = Vec::with_capacity(3);
    records.push(kept(shard, limit, waiter.claim, Some(&granted)));
    if used_until_nanos != 0 {
        let key = format!("{KEY_PREFIX}{limit}");
        records.push(NewRecord::new(topic::RUN_STATE, shard.0, key, Some(codec::encode(&granted))));
    }
    records.push(message(shards.shard_of_key(waiter.job.as_str().as_bytes()), &granted));
    records
}

/// Nothing is kept any more of one that waited for a limit of the shard or held it.
pub(super) fn free(shard: Shard, limit: &LimitId, claim: Claim) -> NewRecord {
    kept(shard, limit, claim, None)
}

fn release(shards: ShardCount, limit: &LimitId, waiter: &Waiter, at: Timestamp, verdict: Verdict) -> NewRecord {
    let said = LimitEvent { verdict, ..event(LimitEventType::Release, limit, waiter, at) };
    message(shards.shard_of_key(limit.as_str().as_bytes()), &said)
}

fn message(to: Shard, event: &LimitEvent) -> NewRecord {
    NewRecord::new(topic::LIMITS, to.0, event.limit.as_str(), Some(codec::encode(event)))
}

fn kept(shard: Shard, limit: &LimitId, (run, token): Claim, event: Option<&LimitEvent>) -> NewRecord {
    let key = format!("{KEY_PREFIX}{limit}:{run}:{token}");
    NewRecord::new(topic::RUN_STATE, shard.0, key, event.map(codec::encode))
}

fn event(kind: LimitEventType, limit: &LimitId, waiter: &Waiter, at: Timestamp) -> LimitEvent {
    let (run_id, token) = waiter.claim;
    LimitEvent {
        kind,
        limit: limit.clone(),
        run_id,
        units: 1,
        at,
        job: waiter.job.clone(),
        token,
        priority: waiter.priority,
        since: waiter.since,
        used_until_nanos: 0,
        verdict: Verdict::Nothing,
    }
}

fn waiter_of(event: LimitEvent) -> (LimitId, Waiter) {
    let claim = (event.run_id, event.token);
    (event.limit, Waiter { claim, job: event.job, priority: event.priority, since: event.since })
}

/// Reads what a shard says to another; `None` for what a newer version says, and for what the shard's own breakers did.
pub(super) fn read(record: &Record) -> Result<Option<Input>, Undecodable> {
    if breaker::is_about(record) {
        return Ok(None);
    }
    let event: LimitEvent = decode(record.value.as_deref().unwrap_or_default())?;
    let (kind, verdict) = (event.kind, event.verdict);
    let (limit, waiter) = waiter_of(event);
    Ok(match kind {
        LimitEventType::Acquire => Some(Input::LimitAsked(limit, waiter)),
        LimitEventType::Grant => Some(Input::LimitGranted(limit, waiter)),
        LimitEventType::Release => Some(Input::LimitGivenBack(limit, waiter.claim, verdict)),
        LimitEventType::Unknown => None,
    })
}

/// Folds a record of `run.state` about a limit into a machine that is being restored; `key` is without its prefix.
pub(super) fn replay(machine: &mut DispatcherMachine, key: &str, record: &Record) -> Result<(), Undecodable> {
    let bad = |error: &str| Undecodable::new("key", key, format!("is no key of a limit: {error}"));
    let mut parts = key.split(':');
    let limit = parts.next().unwrap_or_default();
    let limit: LimitId = limit.parse().map_err(|error: IdError| bad(error.rule))?;
    let claim = match (parts.next(), parts.next()) {
        (Some(run), Some(token)) => Some((
            run.parse().map_err(|error: IdError| bad(error.rule))?,
            token.parse().map_err(|_| bad("the token is no number"))?,
        )),
        (None, _) | (_, None) => None,
    };
    let event: Option<LimitEvent> = record.value.as_deref().map(decode).transpose()?;
    match (claim, event) {
        (None, Some(event)) => machine.restore_rate(&limit, event.used_until_nanos, event.at),
        (None, None) => {}
        (Some(claim), None) => machine.restore_given_back(&limit, claim),
        (Some(_), Some(event)) => {
            let (kind, at) = (event.kind, event.at);
            let (limit, waiter) = waiter_of(event);
            match kind {
                LimitEventType::Acquire => machine.restore_waiter(&limit, &waiter),
                LimitEventType::Grant => machine.restore_holder(&limit, &waiter, at),
                LimitEventType::Release | LimitEventType::Unknown => {
                    return Err(Undecodable::new("type", kind.as_str(), "nothing of this version is kept so"));
                }
            }
        }
    }
    Ok(())
}

/// Takes a record of `settings`; true if it changed a rule. Every dispatcher reads it, so that one that can't be used is not
/// put into quarantine, once by each: the warning says where it is, and the rule before it stays.
pub(super) fn take_setting(rules: &mut Arc<LimitRules>, record: &Record) -> bool {
    let limit = match codec::input::limit_of_key(record.key.as_deref()) {
        Ok(Some(limit)) => limit,
        Ok(None) => return false,
        Err(reason) => {
            tracing::warn!(position = %record.position(), %reason, "a limit's key can't be used");
            return false;
        }
    };
    let Some(value) = record.value.as_deref() else { return Arc::make_mut(rules).remove(&limit) };
    match codec::input::decode_limit(&limit, value) {
        Ok(setting) => Arc::make_mut(rules).put(limit, setting.rule),
        Err(reason) => {
            let position = record.position();
            tracing::warn!(%position, %limit, %reason, "a limit can't be used: the rule before it stays in force");
            false
        }
    }
}
