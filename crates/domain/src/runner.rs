//! What runners say about themselves and about what they run: heartbeats, captured output, and what is
//! addressed to one of them (`schemas/RunnerHeartbeat.avsc`, `AttemptOutput.avsc`, `RunnerMessage.avsc`).
//! Invariant: a lease belongs to a session, and a session to one life of one process.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::attempt::{Outcome, ReadyAttempt};
use crate::id::{QueueName, RunId, RunnerId, SessionId};
use crate::job::words;
use crate::time::Timestamp;

/// Longest name or value of a runner's label in bytes, inclusive.
pub const LABEL_BYTES_MAX: usize = 63;
/// Most labels that a job may ask a runner for, inclusive.
pub const SELECTOR_LABELS_MAX: usize = 16;
/// What the names and values of a runner's labels are made of.
pub const LABEL_RULE: &str = "at most 63 letters, digits, `.`, `_`, `-` and `/`";

/// True for what the name or the value of a runner's label may be; a name must not be empty besides.
#[must_use]
pub fn is_label_text(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    text.len() <= LABEL_BYTES_MAX && text.bytes().all(is_allowed)
}

/// Labels as one text, for people: `gpu=true,zone=eu`.
#[must_use]
pub fn labels_text(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(",")
}

/// One sign of life (topic `runner.heartbeats`, key = runner id); extends the lease of all its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "RunnerHeartbeat", rename_all = "camelCase")]
pub struct RunnerHeartbeat {
    /// The runner.
    pub runner: RunnerId,
    /// This life of it.
    pub session: SessionId,
    /// Counts up within a session, from 1.
    pub sequence: i64,
    /// When it was sent, by the runner's clock.
    pub at: Timestamp,
    /// When the session began, by the runner's clock.
    pub since: Timestamp,
    /// How long the dispatcher waits for the next one, in milliseconds.
    pub lease_ms: i64,
    /// What it subscribes to.
    pub queues: Vec<QueueName>,
    /// Attempts it can hold.
    pub slots: i32,
    /// Attempts it holds.
    pub busy: i32,
    /// It claims nothing more and ends when its attempts have ended.
    pub is_draining: bool,
    /// Host name and process id, for people.
    pub host: String,
    /// How much of its slots a queue gets while several have attempts ready, by name; 1 for those that are not named.
    #[serde(default)]
    pub queue_weights: BTreeMap<String, i32>,
    /// What it was told to say about itself: for people, and for jobs that ask for it (`runnerSelector`).
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl RunnerHeartbeat {
    /// Names the process among those that claim from a queue: what it claims with is found by it when it is gone.
    #[must_use]
    pub fn claimer(runner: &RunnerId, host: &str) -> String {
        format!("{runner}.{host}")
    }
}

words! {
    /// Where output came from.
    OutputStream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// A note of the runner's own, for example that output was cut.
        Runner = "runner",
        /// A stream that a newer version wrote.
        Unknown = "unknown",
    }
}

/// A piece of output, as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "OutputChunk", rename_all = "camelCase")]
pub struct OutputChunk {
    /// Where it came from.
    pub stream: OutputStream,
    /// When it was read, by the runner's clock.
    pub at: Timestamp,
    /// The bytes; any bytes.
    #[serde(with = "serde_bytes")]
    pub bytes: Vec<u8>,
}

/// Output of one attempt (topic `attempt.output`, key = run id), in order of `sequence`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "AttemptOutput", rename_all = "camelCase")]
pub struct AttemptOutput {
    /// The run.
    pub run_id: RunId,
    /// The attempt, numbered from 1.
    pub attempt: i32,
    /// Fencing token of the attempt.
    pub token: i64,
    /// Counts up within the attempt, from 0.
    pub sequence: i64,
    /// What was written, in order.
    pub chunks: Vec<OutputChunk>,
    /// Bytes left out between the head and the tail, counted at the end.
    pub dropped_bytes: i64,
    /// Nothing more follows.
    pub is_last: bool,
}

words! {
    /// What is asked of one runner.
    RunnerMessageType {
        /// End the attempt; one that has not started must not.
        Cancel = "cancel",
        /// Start the attempt, which waited for this.
        Start = "start",
        /// The target has said how the attempt ended: end it so.
        Complete = "complete",
        /// An attempt that this runner may claim, and no other.
        Offer = "offer",
        /// A message that a newer version wrote.
        Unknown = "unknown",
    }
}

/// A message to one runner (topic `runner.inbox`, key = runner id).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "RunnerMessage", rename_all = "camelCase")]
pub struct RunnerMessage {
    /// What is asked.
    #[serde(rename = "type")]
    pub kind: RunnerMessageType,
    /// The session it is meant for.
    pub session: SessionId,
    /// The run.
    pub run_id: RunId,
    /// The attempt.
    pub attempt: i32,
    /// Fencing token of the attempt.
    pub token: i64,
    /// Why.
    pub reason: Option<String>,
    /// Complete: how it ended.
    pub outcome: Option<Outcome>,
    /// Offer: the attempt.
    pub ready: Option<ReadyAttempt>,
}
