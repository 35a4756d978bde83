//! Decisions: one row per record of `fires`, and the run that a request asks for. Not here: what becomes of the
//! run (`runs`). Invariant: a request never overwrites a step of its run, whichever is folded first.

use orloj_domain::fire::{Decision, FireDecision};
use orloj_domain::topic;
use orloj_runtime::log::Record;

use super::{Change, Unreadable, decoded, json_text};

/// One decision, about one fire time or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DecisionRow {
    pub(crate) shard: i32,
    pub(crate) offset: i64,
    pub(crate) job: String,
    pub(crate) version: i64,
    pub(crate) trigger: &'static str,
    pub(crate) fire_time: i64,
    pub(crate) range_end: Option<i64>,
    pub(crate) decision: &'static str,
    pub(crate) reason: Option<&'static str>,
    pub(crate) run_id: Option<String>,
    pub(crate) coalesced_into: Option<i64>,
    pub(crate) decided_at: i64,
    /// A JSON object of offsets; absent if no calendar was asked.
    pub(crate) calendars: Option<String>,
}

/// A run as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunRequest {
    pub(crate) run_id: String,
    pub(crate) job: String,
    pub(crate) version: i64,
    pub(crate) trigger: &'static str,
    pub(crate) fire_time: i64,
    pub(crate) requested_at: i64,
    pub(crate) queue: String,
    pub(crate) command_id: Option<String>,
    pub(crate) actor: Option<String>,
    /// A JSON object.
    pub(crate) params: String,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(decision) = decoded::<FireDecision>(record)? else { return Ok(()) };
    if let Some(offset) = decision.command_offset {
        let (topic, partition) = (topic::COMMANDS, record.partition);
        changes.push(Change::Answered { topic, partition, next: offset + 1 });
    }
    changes.push(Change::Decided(Box::new(DecisionRow {
        shard: record.partition,
        offset: record.offset,
        job: decision.job.to_string(),
        version: decision.version,
        trigger: decision.trigger.as_str(),
        fire_time: decision.fire_time.millis(),
        range_end: decision.range_end.map(|it| it.millis()),
        decision: decision.decision.as_str(),
        reason: decision.reason.map(|reason| reason.as_str()),
        run_id: decision.run_id.map(|run_id| run_id.to_string()),
        coalesced_into: decision.coalesced_into.map(|it| it.millis()),
        decided_at: decision.decided_at.millis(),
        calendars: (!decision.calendars.is_empty()).then(|| json_text(&decision.calendars)),
    })));
    if let (Decision::Requested, Some(run_id), Some(spec)) = (decision.decision, decision.run_id, &decision.spec) {
        changes.push(Change::Requested(Box::new(RunRequest {
            run_id: run_id.to_string(),
            job: decision.job.to_string(),
            version: decision.version,
            trigger: decision.trigger.as_str(),
            fire_time: decision.fire_time.millis(),
            requested_at: decision.decided_at.millis(),
            queue: spec.queue.to_string(),
            command_id: decision.command_id.map(|id| id.to_string()),
            actor: decision.actor,
            params: json_text(&decision.params),
        })));
    }
    Ok(())
}
