//! Breakers as records: what `run.state` keeps of those of limits that belong to a shard, and what `limits` tells everybody of
//! each turn. Not here: when one turns (`orloj_domain::limit`). Invariant: what is kept reads back as the same breaker.

use std::time::Duration;

use orloj_domain::id::{IdError, LimitId};
use orloj_domain::limit::{Breaker, Turn, Why};
use orloj_domain::setting::{BREAKER_KEY_PREFIX, BreakerEvent, BreakerState};
use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::driver::Undecodable;
use orloj_runtime::log::{NewRecord, Record};

use super::read::decode;
use crate::machine::DispatcherMachine;

/// True if a record of `limits` or `run.state` is about a breaker.
pub(super) fn is_about(record: &Record) -> bool {
    record.key_text().is_some_and(|key| key.starts_with(BREAKER_KEY_PREFIX))
}

/// What is kept of a breaker, and what everybody is told if it turned.
pub(super) fn turned(shard: Shard, limit: &LimitId, turn: &Turn, at: Timestamp) -> Vec<NewRecord> {
    let key = format!("{}{limit}", BREAKER_KEY_PREFIX);
    let event = to_wire(limit, turn, at);
    let kept = (!turn.breaker.is_at_rest()).then(|| codec::encode(&event));
    let told = turn.why.map(|_| NewRecord::new(topic::LIMITS, shard.0, key.as_str(), Some(codec::encode(&event))));
    std::iter::once(NewRecord::new(topic::RUN_STATE, shard.0, key.as_str(), kept)).chain(told).collect()
}

fn to_wire(limit: &LimitId, turn: &Turn, at: Timestamp) -> BreakerEvent {
    let (failures, ended, window_ms) = match turn.why {
        Some(Why::Failures { failed, ended, window }) => (failed, ended.unwrap_or(0), millis(window)),
        Some(Why::ProbeFailed | Why::Waited | Why::ProbeSucceeded | Why::Removed) | None => (0, 0, 0),
    };
    let (run_id, job) = turn.run.clone().unzip();
    let event = BreakerEvent {
        limit: limit.clone(),
        state: turn.breaker.state(),
        at,
        until: None,
        open_for_ms: 0,
        failures,
        ended,
        window_ms,
        run_id,
        job,
        reason: turn.why.map(|why| why.words(limit.is_of_queue())),
        probe_run_id: None,
        probe_token: 0,
        counts: Vec::new(),
    };
    match &turn.breaker {
        Breaker::Closed(counts) => BreakerEvent { counts: counts.clone(), ..event },
        Breaker::Open { since, until, open_for } => {
            BreakerEvent { at: *since, until: Some(*until), open_for_ms: millis(*open_for), ..event }
        }
        Breaker::HalfOpen { open_for, probe } => BreakerEvent {
            open_for_ms: millis(*open_for),
            probe_run_id: probe.map(|(run, _)| run),
            probe_token: probe.map_or(0, |(_, token)| token),
            ..event
        },
    }
}

/// Folds a record of `run.state` about a breaker into a machine that is being restored.
pub(super) fn replay(machine: &mut DispatcherMachine, record: &Record) -> Result<(), Undecodable> {
    let key = record.key_text().unwrap_or_default();
    let limit = key.strip_prefix(BREAKER_KEY_PREFIX).unwrap_or_default();
    let limit: LimitId =
        limit.parse().map_err(|error: IdError| Undecodable::new("key", key, format!("no breaker: {}", error.rule)))?;
    let breaker = match record.value.as_deref() {
        None => Breaker::default(),
        Some(value) => of_wire(decode(value)?)?,
    };
    machine.restore_breaker(&limit, &breaker);
    Ok(())
}

fn of_wire(event: BreakerEvent) -> Result<Breaker, Undecodable> {
    let open_for = Duration::from_millis(u64::try_from(event.open_for_ms).unwrap_or(0));
    match event.state {
        BreakerState::Closed => Ok(Breaker::Closed(event.counts)),
        BreakerState::Open => Ok(Breaker::Open { since: event.at, until: event.until.unwrap_or(event.at), open_for }),
        BreakerState::HalfOpen => {
            Ok(Breaker::HalfOpen { open_for, probe: event.probe_run_id.map(|run| (run, event.probe_token)) })
        }
        BreakerState::Unknown => {
            Err(Undecodable::new("state", event.state.as_str(), "nothing of this version is kept so"))
        }
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
