//! What the trigger keeps of one job (`schemas/TriggerState.avsc`, compacted topic `trigger.state`): the
//! accepted definition and its cursor. Invariant: definition and pause are written with the decision that
//! changes them; the cursor lags by at most the decisions behind the saved `fires` position.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{CommandId, JobId};
use crate::job::JobDefinition;
use crate::time::Timestamp;

/// Why and by whom a job was paused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Pause", rename_all = "camelCase")]
pub struct Pause {
    /// Since when.
    pub at: Timestamp,
    /// In the words of who asked.
    pub reason: String,
    /// Who asked.
    pub actor: Option<String>,
}

/// Where a job with an `afterFinish` rule stands. Its next fire time is `since` and the delay, unless it waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "AfterFinish", rename_all = "camelCase")]
pub struct AfterFinish {
    /// The instant that the delay counts from: the end of the last run, or what stands for it: when the version took
    /// effect, when a fire time was skipped, when a pause ended.
    pub since: Timestamp,
    /// Fire time of the run whose end is waited for.
    pub awaits: Option<Timestamp>,
}

/// A backfill under way: fire times of the past that are requested one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Backfill", rename_all = "camelCase")]
pub struct Backfill {
    /// The command that asked for it.
    pub command_id: CommandId,
    /// Its offset in `commands`.
    pub command_offset: i64,
    /// Who asked.
    pub actor: Option<String>,
    /// When it was taken up.
    pub since: Timestamp,
    /// Fire times before this are dealt with.
    pub next: Timestamp,
    /// The end, exclusive.
    pub until: Timestamp,
    /// Exactly these fire times, in order; empty: all up to the end.
    pub fire_times: Vec<Timestamp>,
    /// Most runs at a time, 1 or more.
    pub concurrency: i32,
    /// Runs requested so far.
    pub requested: i64,
    /// Fire times of the runs whose end is waited for.
    pub awaits: Vec<Timestamp>,
    /// Parameters of every run.
    pub params: BTreeMap<String, String>,
}

/// The trigger's memory of one job. A deleted job keeps its entry without a definition, so that its
/// version numbers never come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "TriggerState", rename_all = "camelCase")]
pub struct TriggerState {
    /// The job.
    pub job: JobId,
    /// The version in force, counted from 1; after a delete, the last one that was.
    pub version: i64,
    /// The definition in force; absent when deleted.
    pub definition: Option<Arc<JobDefinition>>,
    /// Offset in `jobs` of the definition in force.
    pub definition_offset: i64,
    /// First offset of `jobs` that was not yet applied to this job.
    pub jobs_next: i64,
    /// First offset of `commands` that was not yet applied to this job.
    pub commands_next: i64,
    /// When the version took effect: its fire times are later than this.
    pub effective_from: Timestamp,
    /// Every fire time up to this instant, inclusive, is decided.
    pub cursor: Timestamp,
    /// Fire times requested by this version.
    pub fires: i64,
    /// Present while paused by command.
    pub pause: Option<Pause>,
    /// The newest command ids that were carried out, oldest first; a repeat is a no-op.
    pub recent_commands: Vec<CommandId>,
    /// Present if a rule of the definition is `afterFinish`.
    pub after_finish: Option<AfterFinish>,
    /// The backfill under way.
    pub backfill: Option<Backfill>,
    /// Runs that failed in a row, where the job is to be paused after some.
    pub failures: i32,
}
