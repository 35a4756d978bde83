//! A run from request to end: what the dispatcher keeps of it while it lives (`schemas/LiveRun.avsc`, topics
//! `run.state`, `run.delay`, `run.retry`) and tells the world (`schemas/RunEvent.avsc`, topic `run.events`).
//! Invariant: a live run is in exactly one of the three topics, and exactly one terminal event ends it.

pub mod lifecycle;

use serde::{Deserialize, Serialize};

use crate::attempt::Outcome;
use crate::fire::TriggerKind;
use crate::id::{CommandId, JobId, LimitId, QueueName, RunId, RunnerId, SessionId};
use crate::job::words;
use crate::time::Timestamp;
use crate::topic;

words! {
    /// Where a run is in its life.
    RunState {
        /// Until its start delay is over (`run.delay`).
        Delayed = "delayed",
        /// Until other runs of its job make room (`run.state`).
        Waiting = "waiting",
        /// On its queue, for a runner to claim (`run.state`).
        Ready = "ready",
        /// Claimed by a runner (`run.state`).
        Running = "running",
        /// Until its backoff is over (`run.retry`).
        Retrying = "retrying",
        /// Ended: an attempt succeeded.
        Succeeded = "succeeded",
        /// Ended: it failed and is not kept as a dead letter.
        Failed = "failed",
        /// Ended: attempts used up; parked as a dead letter, and kept until it is sent back or too old (`run.state`).
        Dead = "dead",
        /// Ended: stopped on request, or forbidden by the overlap policy.
        Cancelled = "cancelled",
        /// Ended: its deadline passed.
        Expired = "expired",
        /// A state that a newer version wrote.
        Unknown = "unknown",
    }
}

impl RunState {
    /// True for states that a run never leaves.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Succeeded | Self::Failed | Self::Dead | Self::Cancelled | Self::Expired => true,
            Self::Delayed | Self::Waiting | Self::Ready | Self::Running | Self::Retrying | Self::Unknown => false,
        }
    }

    /// The topic that holds a run in this state; none for states of which nothing is kept.
    #[must_use]
    pub fn topic(self) -> Option<&'static str> {
        match self {
            Self::Delayed => Some(topic::RUN_DELAY),
            Self::Waiting | Self::Ready | Self::Running | Self::Dead => Some(topic::RUN_STATE),
            Self::Retrying => Some(topic::RUN_RETRY),
            Self::Succeeded | Self::Failed | Self::Cancelled | Self::Expired | Self::Unknown => None,
        }
    }
}

/// What the last event of a dead run notes that is kept no longer.
pub const NOT_KEPT: &str = "no longer kept to be sent back; trigger the job to run it again";

/// A header of the request, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "RecordHeader", rename_all = "camelCase")]
pub struct RecordHeader {
    /// Its name.
    pub key: String,
    /// Its value; any bytes.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
}

/// What the dispatcher keeps of a live run; key = run id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "LiveRun", rename_all = "camelCase")]
pub struct LiveRun {
    /// The run.
    pub run_id: RunId,
    /// The job.
    pub job: JobId,
    /// Where it is: delayed, waiting, ready, running, retrying or dead.
    pub state: RunState,
    /// The attempt it is at or waits for, numbered from 1.
    pub attempt: i32,
    /// The newest fencing token handed out; 0 before the first.
    pub token: i64,
    /// When it was requested, by the trigger's decision.
    pub requested_at: Timestamp,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Delayed, retrying, and waiting for a handler: the absolute instant at which it goes on.
    pub due_at: Option<Timestamp>,
    /// Running: the runner that claimed it. Ready: the one that it is offered to, if it is not for any.
    pub runner: Option<RunnerId>,
    /// Running: the session that holds the lease. Ready: the one that it is offered to.
    pub session: Option<SessionId>,
    /// When the first of its attempts failed.
    pub first_failure: Option<Timestamp>,
    /// How the last attempt ended.
    pub last_outcome: Option<Outcome>,
    /// How often it was sent back from the dead letters.
    pub redrives: i32,
    /// Commands about it that were carried out, oldest first.
    pub recent_commands: Vec<CommandId>,
    /// Offset of the request in `fires`.
    pub request_offset: i64,
    /// Headers of the request, byte for byte.
    pub request_headers: Vec<RecordHeader>,
    /// The value of the request in `fires`, byte for byte.
    #[serde(with = "serde_bytes")]
    pub request: Vec<u8>,
    /// Running: why its end was asked for.
    pub cancel_reason: Option<String>,
    /// When it was sent back from the dead letters last.
    pub redriven_at: Option<Timestamp>,
    /// Attempts that it had used when it was sent back last; the policy counts from there.
    pub attempts_before: i32,
    /// Dead: why it is a dead letter (`attemptsExhausted`, `notRetryable`, `leaseLost`, `parked`).
    pub disposition: Option<String>,
    /// Limits that its attempt asks for, one after the other, or holds.
    pub limits: Vec<LimitId>,
    /// Waiting: how many of `limits` it holds already.
    pub limits_held: i32,
    /// Waiting for a limit: when it asked last.
    pub asked_at: Option<Timestamp>,
    /// How often a runner took it that has not got its handler.
    pub unserved: i32,
    /// Running: how the attempt ended, as the callback of its target said.
    pub completion: Option<Outcome>,
    /// Running: the attempt that was put beside this one last.
    pub hedge: Option<LiveHedge>,
    /// Waiting: for a runner that has the labels which the job asks for, and a free slot.
    pub awaits_runner: bool,
    /// Waiting for a runner: its attempt was offered to one before.
    pub was_offered: bool,
    /// Ready, and offered to one runner: when that was said last.
    pub offered_at: Option<Timestamp>,
}

/// The attempt that was put beside that of a running run, or what is to be remembered of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "LiveHedge", rename_all = "camelCase")]
pub struct LiveHedge {
    /// The newest attempt that was used, numbered from 1.
    pub attempt: i32,
    /// The newest fencing token handed out.
    pub token: i64,
    /// Since when it is ready, running or over.
    pub since: Timestamp,
    /// The runner that claimed it.
    pub runner: Option<RunnerId>,
    /// The session that holds its lease.
    pub session: Option<SessionId>,
    /// It is live no more; the next one comes no sooner than the hedge's time after `since`.
    pub is_over: bool,
}

/// A live attempt beside that of a running run, for the world to see.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "RunHedge", rename_all = "camelCase")]
pub struct RunHedge {
    /// The attempt, numbered from 1.
    pub attempt: i32,
    /// Its fencing token.
    pub token: i64,
    /// The runner; absent while it is on its queue.
    pub runner: Option<RunnerId>,
}

/// An attempt that a step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "EndedAttempt", rename_all = "camelCase")]
pub struct EndedAttempt {
    /// The attempt, numbered from 1.
    pub attempt: i32,
    /// Its fencing token.
    pub token: i64,
    /// When that was decided.
    pub at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
}

/// One step of a run, or its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "RunEvent", rename_all = "camelCase")]
pub struct RunEvent {
    /// The state it is in from here.
    pub state: RunState,
    /// The run.
    pub run_id: RunId,
    /// The job.
    pub job: JobId,
    /// The definition version it was requested under.
    pub version: i64,
    /// What caused it.
    pub trigger: TriggerKind,
    /// Its nominal instant.
    pub fire_time: Timestamp,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// When this was decided.
    pub at: Timestamp,
    /// The queue.
    pub queue: QueueName,
    /// The attempt it is at, waits for or ended with; 0 when none was ever ready.
    pub attempt: i32,
    /// The newest fencing token.
    pub token: i64,
    /// Delayed and retrying: when it goes on.
    pub due_at: Option<Timestamp>,
    /// Running: the runner.
    pub runner: Option<RunnerId>,
    /// Retrying: how the attempt ended. Terminal: how the run ended.
    pub outcome: Option<Outcome>,
    /// Dead: why it is a dead letter (`attemptsExhausted`, `notRetryable`, `leaseLost`, `parked`).
    pub disposition: Option<String>,
    /// Running: why its end was asked for, what its callback said, or what became of an attempt beside it. Waiting: what for.
    /// Dead: why it was not sent back, or is parked.
    pub note: Option<String>,
    /// How often it was sent back from the dead letters.
    pub redrives: i32,
    /// Waiting for a limit: that one, last, after those that it holds. Ready and running: limits that it holds.
    pub limits: Vec<LimitId>,
    /// Waiting: the handler that the runner which took it last has not got.
    pub missing_handler: Option<String>,
    /// Running: the live attempt beside this one.
    pub hedge: Option<RunHedge>,
    /// Where two attempts of the run were live: those that this step ended. Where it is empty, the step tells.
    pub ended_attempts: Vec<EndedAttempt>,
    /// Waiting: the labels that a runner must have, as text, none of those that have them having a free slot.
    pub missing_runner: Option<String>,
}
