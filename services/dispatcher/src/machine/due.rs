//! A start delay or a backoff is over: the run is ready. Not here: how long they are (`retry`, the request).
//! Invariant: a run never waits on once its time has come, however late that is noticed.

use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::Event;

/// Most runs made ready by one tick; if more are due, the deadline stays in the past.
const DUE_RUNS_MAX: usize = 1000;

impl DispatcherMachine {
    pub(super) fn decide_due(&self, now: Timestamp) -> Vec<Event> {
        let due = self.index.due(now).take(DUE_RUNS_MAX);
        due.filter_map(|id| self.runs.get(&id)).map(|run| self.step(run, run.made_ready(now))).collect()
    }
}
