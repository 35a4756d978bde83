//! The decision about one fire time (`schemas/FireDecision.avsc`, topic `fires`): the record that promise 1
//! rests on. Not here: how it is reached (`misfire`, the trigger's machine). Invariant: one record per
//! (job, version, fire time); the last one of a job is its cursor.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{CalendarName, CommandId, Incarnation, JobId, RunId};
use crate::job::{MissedPolicy, RunSpec, words};
use crate::time::Timestamp;

words! {
    /// What caused a run.
    TriggerKind {
        /// A fire time of the job's schedule.
        Schedule = "schedule",
        /// A person or program asked.
        Manual = "manual",
        /// A past fire time was asked for.
        Backfill = "backfill",
        /// An upstream job ended.
        Dependency = "dependency",
        /// A dead letter was sent back.
        Redrive = "redrive",
        /// A cause that a newer version wrote.
        Unknown = "unknown",
    }
}
words! {
    /// What was decided about a fire time.
    Decision {
        /// A run is asked for.
        Requested = "requested",
        /// No run, for the reason given.
        Skipped = "skipped",
        /// Taken together with a later fire time.
        Coalesced = "coalesced",
        /// A decision that a newer version wrote.
        Unknown = "unknown",
    }
}
words! {
    /// Why a fire time was not requested, or was requested late.
    Reason {
        /// It was noticed too late for the job's misfire policy.
        Misfire = "misfire",
        /// The job was paused or suspended.
        Paused = "paused",
        /// The job's `maxFires` was used up.
        MaxFires = "maxFires",
        /// An edit, pause or delete came before its jitter had passed.
        Superseded = "superseded",
        /// A calendar excludes it, or one that it asks for does not exist.
        Calendar = "calendar",
        /// A reason that a newer version wrote.
        Unknown = "unknown",
    }
}

/// Stands in for the offset of a calendar that did not exist.
pub const NO_CALENDAR: i64 = -1;

/// What was decided about one fire time, or about a range of fire times that share one reason.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "FireDecision", rename_all = "camelCase")]
pub struct FireDecision {
    /// The job.
    pub job: JobId,
    /// The definition version in force.
    pub version: i64,
    /// What caused it.
    pub trigger: TriggerKind,
    /// The nominal instant; of a manual run, the instant the command was decided.
    pub fire_time: Timestamp,
    /// Only for a range: the decision holds for all fire times in [`fire_time`, `range_end`).
    pub range_end: Option<Timestamp>,
    /// The decision.
    pub decision: Decision,
    /// Why, when not simply due.
    pub reason: Option<Reason>,
    /// Requested: its run. Coalesced: the run it became part of.
    pub run_id: Option<RunId>,
    /// Coalesced: the fire time it became part of.
    pub coalesced_into: Option<Timestamp>,
    /// The clock reading the decision rests on.
    pub decided_at: Timestamp,
    /// Offset in `jobs` of the definition in force.
    pub definition_offset: i64,
    /// Offset in `commands` of the command that caused it.
    pub command_offset: Option<i64>,
    /// Id of the command that caused it.
    pub command_id: Option<CommandId>,
    /// Who asked, for commands.
    pub actor: Option<String>,
    /// Fire times requested by this version so far, this one included.
    pub fires: i64,
    /// Version of the time zone database in use.
    pub tzdb: Option<String>,
    /// Calendars that were asked, those they include too, with their offsets in `settings`; [`NO_CALENDAR`] for one
    /// that did not exist.
    pub calendars: BTreeMap<CalendarName, i64>,
    /// The trigger that decided; empty until the shell writes it.
    pub incarnation: Option<Incarnation>,
    /// Parameters of the run.
    pub params: BTreeMap<String, String>,
    /// The misfire policy that it rests on; absent where none was asked.
    pub missed: Option<MissedPolicy>,
    /// Requested: the trigger waits for a `RunEnded` command once the run has ended.
    pub reports_end: bool,
    /// Requested: all that the run needs.
    pub spec: Option<Arc<RunSpec>>,
}

impl FireDecision {
    /// The instant up to which this decision settles the job's schedule, inclusive.
    #[must_use]
    pub fn settled_until(&self) -> Timestamp {
        self.range_end.map_or(self.fire_time, |end| Timestamp::from_millis(end.millis() - 1))
    }
}
