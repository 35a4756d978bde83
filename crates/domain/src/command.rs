//! What people and programs ask of a job or a run (`schemas/Command.avsc`, topic `commands`).
//! Not here: what comes of it, which the trigger or the dispatcher decides. Invariant: a command id names
//! one command; sending it twice asks once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attempt::Outcome;
use crate::id::{CommandId, RunId};
use crate::job::words;
use crate::run::RunState;
use crate::time::Timestamp;

words! {
    /// What is asked.
    CommandType {
        /// Request a run at once → trigger.
        RunNow = "RunNow",
        /// Request runs for past fire times → trigger.
        Backfill = "Backfill",
        /// End a run → dispatcher; end a backfill → trigger.
        Cancel = "Cancel",
        /// Send a dead letter back → dispatcher.
        Redrive = "Redrive",
        /// Put a dead letter aside for a person → dispatcher.
        Park = "Park",
        /// Request no further fire times → trigger.
        Pause = "Pause",
        /// Request fire times again → trigger.
        Resume = "Resume",
        /// The run of a job that waits for its end has ended; sent by the dispatcher → trigger.
        RunEnded = "RunEnded",
        /// An attempt has ended, says the callback of its target; sent by the API, which has checked the token → dispatcher.
        Complete = "Complete",
        /// A type that a newer version wrote.
        Unknown = "Unknown",
    }
}

words! {
    /// What becomes of the fire times of a pause once it ends.
    PauseMissed {
        /// They are skipped.
        Drop = "drop",
        /// They are judged by the misfire policy, as after an outage.
        Accumulate = "accumulate",
        /// A word that a newer version wrote; taken as `drop`.
        Unknown = "unknown",
    }
}

/// One command about the job that is the record's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Command", rename_all = "camelCase")]
pub struct Command {
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: CommandType,
    /// Chosen by the sender; the same id twice is the same command.
    pub command_id: CommandId,
    /// When it was sent, by the sender's clock; absent in hand-written JSON.
    #[serde(default)]
    pub at: Option<Timestamp>,
    /// Who sent it.
    #[serde(default)]
    pub actor: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// Parameters of the run (`RunNow`).
    #[serde(default)]
    pub params: BTreeMap<String, String>,
    /// The run that is meant (`Cancel`, `Redrive`, `Park`, `RunEnded`, `Complete`).
    #[serde(default)]
    pub run_id: Option<RunId>,
    /// First fire time that is meant, inclusive (`Backfill`).
    #[serde(default)]
    pub from: Option<Timestamp>,
    /// Last fire time that is meant, exclusive (`Backfill`).
    #[serde(default)]
    pub until: Option<Timestamp>,
    /// Exactly these fire times; empty: all between `from` and `until` (`Backfill`).
    #[serde(default)]
    pub fire_times: Vec<Timestamp>,
    /// Most runs; more fire times than that are refused, not cut off (`Backfill`).
    #[serde(default)]
    pub max: Option<i32>,
    /// Most runs at a time (`Backfill`).
    #[serde(default)]
    pub concurrency: Option<i32>,
    /// Command id of the backfill that is meant (`Cancel`).
    #[serde(default)]
    pub backfill_id: Option<CommandId>,
    /// What becomes of the fire times of the pause; absent: `drop` (`Resume`).
    #[serde(default)]
    pub missed: Option<PauseMissed>,
    /// How the run ended (`RunEnded`).
    #[serde(default)]
    pub run_state: Option<RunState>,
    /// The attempt that is meant, numbered from 1 (`Complete`).
    #[serde(default)]
    pub attempt: Option<i32>,
    /// Its fencing token (`Complete`).
    #[serde(default)]
    pub token: Option<i64>,
    /// How the attempt ended, succeeded or failed (`Complete`).
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// Not if the run is parked: it was one of many, and nobody has named it (`Redrive`).
    #[serde(default)]
    pub spares_parked: bool,
    /// The run is delayed until then: it was one of many that are sent back at a rate (`Redrive`).
    #[serde(default)]
    pub not_before: Option<Timestamp>,
}

impl Command {
    /// A command that says nothing but what is asked and its id.
    #[must_use]
    pub fn new(kind: CommandType, command_id: CommandId) -> Self {
        Self {
            kind,
            command_id,
            at: None,
            actor: None,
            reason: None,
            params: BTreeMap::new(),
            run_id: None,
            from: None,
            until: None,
            fire_times: Vec::new(),
            max: None,
            concurrency: None,
            backfill_id: None,
            missed: None,
            run_state: None,
            attempt: None,
            token: None,
            outcome: None,
            spares_parked: false,
            not_before: None,
        }
    }
}
