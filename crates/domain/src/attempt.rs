//! One try of one run: what a runner is handed (`schemas/ReadyAttempt.avsc`, topics `run.ready.<queue>`) and
//! what it reports (`schemas/AttemptEvent.avsc`, topic `attempt.events`). Invariant: every report carries the
//! fencing token of the ready record it answers; the dispatcher ignores an older one.

use serde::{Deserialize, Serialize};

use crate::id::{JobId, RunId, RunnerId, SessionId};
use crate::job::words;
use crate::time::Timestamp;

/// An attempt that any runner of its queue may claim, or the one that it is offered to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "ReadyAttempt", rename_all = "camelCase")]
pub struct ReadyAttempt {
    /// The run.
    pub run_id: RunId,
    /// The job.
    pub job: JobId,
    /// The attempt, numbered from 1.
    pub attempt: i32,
    /// Grows with every ready record of the run; handed to the target.
    pub token: i64,
    /// When it became ready.
    pub ready_at: Timestamp,
    /// The value of the request in `fires`, byte for byte.
    #[serde(with = "serde_bytes")]
    pub request: Vec<u8>,
    /// When the run must have ended; an attempt does not start or go on after that.
    pub deadline: Option<Timestamp>,
    /// The runner must not start it before the dispatcher has seen its claim and said so (`runner.inbox`): the job bounds
    /// how many of its runs are live, and this one may have been cancelled while it was on its queue.
    pub awaits_start: bool,
}

words! {
    /// What a runner reports.
    AttemptEventType {
        /// The runner has taken the attempt; its lease holds from here.
        Claimed = "claimed",
        /// The process runs.
        Started = "started",
        /// How far it is.
        Progress = "progress",
        /// It ended, with an outcome.
        Finished = "finished",
        /// A report that a newer version wrote.
        Unknown = "unknown",
    }
}
words! {
    /// How an attempt or a run ended.
    OutcomeKind {
        /// Exit code 0.
        Succeeded = "succeeded",
        /// Another exit code, or a signal that was not ours.
        Failed = "failed",
        /// Stopped because its time was up.
        TimedOut = "timedOut",
        /// It could not be started: program, directory or permission.
        NotStarted = "notStarted",
        /// It was not started: the runner has no handler of that name, and another one may have it.
        NoHandler = "noHandler",
        /// Its runner was lost.
        LeaseLost = "leaseLost",
        /// Stopped because the runner could not confirm its lease.
        Aborted = "aborted",
        /// Given back by a runner that was asked to end, or got no word to start it; uses up no attempt. Under at most once it
        /// certainly never started.
        HandedBack = "handedBack",
        /// Stopped on request.
        Cancelled = "cancelled",
        /// The previous run of the job was live and the job forbids overlap.
        Overlap = "overlap",
        /// The run's deadline passed.
        Expired = "expired",
        /// An outcome that a newer version wrote.
        Unknown = "unknown",
    }
}

/// How an attempt or a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "Outcome", rename_all = "camelCase")]
pub struct Outcome {
    /// Its class.
    pub kind: OutcomeKind,
    /// Of a process that exited.
    pub exit_code: Option<i32>,
    /// Of a process that a signal ended.
    pub signal: Option<i32>,
    /// For people; at most 1000 characters.
    pub message: Option<String>,
    /// Of an HTTP request that was answered.
    pub http_status: Option<i32>,
    /// The target asks for no other attempt within so many milliseconds.
    pub retry_after_ms: Option<i64>,
    /// No other attempt can end otherwise.
    pub is_final: bool,
}

impl Outcome {
    /// An outcome of a class, with a message cut to 1000 characters.
    #[must_use]
    pub fn new(kind: OutcomeKind, message: impl Into<String>) -> Self {
        let message: String = message.into().chars().take(1000).collect();
        let message = Some(message).filter(|text| !text.is_empty());
        Self { kind, exit_code: None, signal: None, message, http_status: None, retry_after_ms: None, is_final: false }
    }
}

/// One report about one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "AttemptEvent", rename_all = "camelCase")]
pub struct AttemptEvent {
    /// What is reported.
    #[serde(rename = "type")]
    pub kind: AttemptEventType,
    /// The run.
    pub run_id: RunId,
    /// The job.
    pub job: JobId,
    /// The attempt, numbered from 1.
    pub attempt: i32,
    /// Fencing token of the ready record it answers.
    pub token: i64,
    /// The runner.
    pub runner: RunnerId,
    /// Its session, which holds the lease.
    pub session: SessionId,
    /// When, by the runner's clock.
    pub at: Timestamp,
    /// Claimed: how long the lease holds without a heartbeat, in milliseconds.
    pub lease_ms: Option<i64>,
    /// Started, and finished: how the process tree is held together (`cgroup`, `session`).
    pub isolation: Option<String>,
    /// Progress: 0..=100.
    pub percent: Option<i32>,
    /// Finished: how it ended.
    pub outcome: Option<Outcome>,
    /// Started: SHA-256 of the token that completes the attempt by a callback, in hexadecimal.
    pub callback_digest: Option<String>,
    /// Finished: when the target had started, by the runner's clock; absent if it never did. Of a short attempt nothing else
    /// says so: its start and its end are one record.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// Finished: false if there is no record of its output, so that nobody waits for the last one; absent from a runner that
    /// always wrote one.
    #[serde(default)]
    pub has_output: Option<bool>,
}
