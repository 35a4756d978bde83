//! History: what became of each definition, pause and command of a job. Not here: the state it led to (`jobs`).
//! Invariant: one row per record of `job.events`, named by its position.

use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::topic;
use orloj_runtime::log::Record;

use super::{Change, Unreadable, decoded, json_text};

/// One event of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HistoryRow {
    pub(crate) shard: i32,
    pub(crate) offset: i64,
    pub(crate) job: String,
    pub(crate) kind: &'static str,
    pub(crate) version: i64,
    pub(crate) at: i64,
    pub(crate) definition_offset: Option<i64>,
    pub(crate) command_offset: Option<i64>,
    pub(crate) command_id: Option<String>,
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    /// A JSON list.
    pub(crate) errors: String,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(event) = decoded::<JobEvent>(record)? else { return Ok(()) };
    let shard = record.partition;
    let answered =
        |topic, offset: Option<i64>| offset.map(|it| Change::Answered { topic, partition: shard, next: it + 1 });
    match event.kind {
        // These come with a state that the answer must not overtake.
        JobEventType::Accepted
        | JobEventType::Deleted
        | JobEventType::Paused
        | JobEventType::Resumed
        | JobEventType::BackfillStarted
        | JobEventType::BackfillFinished
        | JobEventType::BackfillCancelled => {}
        JobEventType::Unchanged | JobEventType::Rejected | JobEventType::CommandRejected | JobEventType::Unknown => {
            changes.extend(answered(topic::JOBS, event.definition_offset));
            changes.extend(answered(topic::COMMANDS, event.command_offset));
        }
    }
    changes.push(Change::Told(Box::new(HistoryRow {
        shard,
        offset: record.offset,
        job: event.job.to_string(),
        kind: event.kind.as_str(),
        version: event.version,
        at: event.at.millis(),
        definition_offset: event.definition_offset,
        command_offset: event.command_offset,
        command_id: event.command_id.map(|id| id.to_string()),
        actor: event.actor,
        reason: event.reason,
        errors: json_text(&event.errors),
    })));
    Ok(())
}
