//! What became of a definition or of a pause (`schemas/JobEvent.avsc`, topic `job.events`): the answer that
//! `orloj apply` and producers wait for. Invariant: one event per record of `jobs`, and per command that
//! changes the job; each names the position of what it answers.

use serde::{Deserialize, Serialize};

use crate::id::{CommandId, Incarnation, JobId};
use crate::job::words;
use crate::time::Timestamp;

words! {
    /// What happened to the job.
    JobEventType {
        /// The definition is in force from here.
        Accepted = "accepted",
        /// The definition equals the one in force: nothing changed.
        Unchanged = "unchanged",
        /// The definition was refused; the one before stays in force.
        Rejected = "rejected",
        /// No further fire times are requested.
        Paused = "paused",
        /// Fire times are requested again.
        Resumed = "resumed",
        /// The job is gone.
        Deleted = "deleted",
        /// Runs of past fire times are requested from here on.
        BackfillStarted = "backfillStarted",
        /// All of a backfill's runs have ended.
        BackfillFinished = "backfillFinished",
        /// A backfill requests no further runs; those under way go on.
        BackfillCancelled = "backfillCancelled",
        /// A command was refused.
        CommandRejected = "commandRejected",
        /// An event that a newer version wrote.
        Unknown = "unknown",
    }
}

/// One complaint about one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "FieldError", rename_all = "camelCase")]
pub struct FieldError {
    /// Path of the field, for example `spec.schedule.cron`.
    pub field: String,
    /// The value found, shortened to 200 characters.
    pub value: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl std::fmt::Display for FieldError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (found `{}`)", self.field, self.message, self.value)
    }
}

impl FieldError {
    /// Builds a complaint; `value` is shortened to 200 characters.
    #[must_use]
    pub fn new(field: impl Into<String>, value: impl std::fmt::Display, message: impl Into<String>) -> Self {
        let value = value.to_string().chars().take(200).collect();
        Self { field: field.into(), value, message: message.into() }
    }
}

/// One event about one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "JobEvent", rename_all = "camelCase")]
pub struct JobEvent {
    /// What happened.
    #[serde(rename = "type")]
    pub kind: JobEventType,
    /// The job.
    pub job: JobId,
    /// The version in force after the event; 0 when there is none.
    pub version: i64,
    /// When it was decided.
    pub at: Timestamp,
    /// Offset in `jobs` of the record it answers.
    pub definition_offset: Option<i64>,
    /// Offset in `commands` of the command it answers.
    pub command_offset: Option<i64>,
    /// Id of the command it answers.
    pub command_id: Option<CommandId>,
    /// Who asked.
    pub actor: Option<String>,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
    /// Rejected: every complaint.
    pub errors: Vec<FieldError>,
    /// The trigger that decided; filled in by the shell.
    pub incarnation: Option<Incarnation>,
}
