//! Ways to find live runs without going through all of them: by due time, by job, by session. Not here: the
//! runs. Invariant: every entry is of a live run, and empty entries are removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use orloj_domain::id::{JobId, RunId, SessionId};
use orloj_domain::time::Timestamp;

use crate::run::Run;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    due: BTreeSet<(Timestamp, RunId)>,
    live_by_job: HashMap<JobId, usize>,
    running_by_session: BTreeMap<SessionId, BTreeSet<RunId>>,
}

impl Index {
    pub(super) fn insert(&mut self, run: &Run) {
        let id = run.request.run_id;
        if let Some(due_at) = run.due_at() {
            self.due.insert((due_at, id));
        }
        if let Some(session) = run.session() {
            self.running_by_session.entry(session.clone()).or_default().insert(id);
        }
        match self.live_by_job.get_mut(&run.request.job) {
            Some(live) => *live += 1,
            None => {
                self.live_by_job.insert(run.request.job.clone(), 1);
            }
        }
    }

    pub(super) fn remove(&mut self, run: &Run) {
        let id = run.request.run_id;
        if let Some(due_at) = run.due_at() {
            self.due.remove(&(due_at, id));
        }
        if let Some(session) = run.session()
            && let Some(running) = self.running_by_session.get_mut(session)
        {
            running.remove(&id);
            if running.is_empty() {
                self.running_by_session.remove(session);
            }
        }
        if let Some(live) = self.live_by_job.get_mut(&run.request.job) {
            *live -= 1;
            if *live == 0 {
                self.live_by_job.remove(&run.request.job);
            }
        }
    }

    pub(super) fn first_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due_at, _)| *due_at)
    }

    /// Runs that are due at `now`, the longest due first.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = RunId> {
        self.due.iter().take_while(move |(due_at, _)| *due_at <= now).map(|(_, run)| *run)
    }

    /// How many runs of a job are live.
    pub(super) fn live_of(&self, job: &JobId) -> usize {
        self.live_by_job.get(job).copied().unwrap_or(0)
    }

    /// Runs whose lease a session holds, in order.
    pub(super) fn running_of(&self, session: &SessionId) -> impl Iterator<Item = RunId> {
        self.running_by_session.get(session).into_iter().flatten().copied()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.running_by_session.keys()
    }
}
