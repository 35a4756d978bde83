//! What a handler is given: its payload, what the attempt is, and how to speak. Not here: how the payload was read
//! (`typed`). Invariant: nothing here waits, fails or reaches the log by itself.

use std::collections::BTreeMap;
use std::fmt::Display;

use orloj_domain::id::{JobId, RunId};
use orloj_domain::time::Timestamp;
use orloj_runner::HandlerContext;
use tokio_util::sync::CancellationToken;

/// What a handler is given. `P` is the type of the payload, read from the job's `spec.run.handler.payload`.
#[derive(Debug)]
pub struct Context<P> {
    payload: P,
    inner: HandlerContext,
}

impl<P> Context<P> {
    pub(crate) fn new(payload: P, inner: HandlerContext) -> Self {
        Self { payload, inner }
    }

    /// The payload.
    pub fn payload(&self) -> &P {
        &self.payload
    }

    /// The job.
    pub fn job(&self) -> &JobId {
        &self.inner.facts.job
    }

    /// The run: the same for every attempt at it. What to recognise a repeat by.
    pub fn run_id(&self) -> RunId {
        self.inner.facts.run_id
    }

    /// The attempt, numbered from 1.
    pub fn attempt(&self) -> i32 {
        self.inner.facts.attempt
    }

    /// Grows with every attempt at the run. Written along with an effect, it lets the store refuse an attempt whose
    /// lease was lost and that does not know it yet.
    pub fn fencing_token(&self) -> i64 {
        self.inner.facts.token
    }

    /// The instant that the schedule names, however late the run began.
    pub fn fire_time(&self) -> Timestamp {
        self.inner.facts.fire_time
    }

    /// The parameters of the run, as `orloj trigger --param` gives them.
    pub fn params(&self) -> &BTreeMap<String, String> {
        &self.inner.facts.params
    }

    /// For work that is handed on: cancelled when the handler is to end.
    pub fn cancellation(&self) -> &CancellationToken {
        &self.inner.cancellation
    }

    /// Waits until the handler is to end: its timeout or the run's deadline passed, somebody cancelled the run, the
    /// lease is lost, or the service stops and the drain timeout is over. At most 5 s later the handler is dropped at
    /// its next `await`; how it ended is decided by then, and what it returns counts no more.
    pub async fn cancelled(&self) {
        self.inner.cancellation.cancelled().await;
    }

    /// True once the handler is to end, see [`Context::cancelled`]. For code that does not await.
    pub fn is_cancelled(&self) -> bool {
        self.inner.cancellation.is_cancelled()
    }

    /// Says how far the handler is: `percent` of 100 (more is 100), reported at most once a second and only when it has
    /// changed; and a line of output, unless `text` is empty.
    pub fn progress(&self, percent: u8, text: impl Display) {
        self.inner.progress(percent);
        let text = text.to_string();
        if !text.is_empty() {
            self.inner.print(text);
        }
    }

    /// Adds a line to the attempt's output, which `orloj logs` shows while it runs. Never waits; of an attempt's
    /// output the first and the last 512 KiB are kept.
    pub fn print(&self, line: impl Display) {
        self.inner.print(line);
    }
}
