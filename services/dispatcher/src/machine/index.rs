//! Ways to find live runs without going through all of them: by due time, by job, by session. Not here: the
//! runs. Invariant: every entry is of a live run, and empty entries are removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use orloj_domain::id::{JobId, RunId, SessionId};
use orloj_domain::overlap::Others;
use orloj_domain::time::Timestamp;

use super::runs::Handle;
use crate::run::{Run, Step};

/// The place of a run among those that wait: by fire time, then by when it was asked for.
type Place = (Timestamp, Timestamp, RunId);

/// The live runs of one job.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct OfJob {
    active: BTreeSet<Handle>,
    waiting: BTreeSet<Place>,
}

impl OfJob {
    pub(super) fn others(&self) -> Others {
        Others { active: self.active.len(), waiting: self.waiting.len() }
    }

    pub(super) fn active(&self) -> &BTreeSet<Handle> {
        &self.active
    }

    /// Those that wait, the first to go first.
    pub(super) fn waiting(&self) -> impl Iterator<Item = RunId> {
        self.waiting.iter().map(|(_, _, run)| *run)
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    due: BTreeSet<(Timestamp, Handle)>,
    by_job: HashMap<JobId, OfJob>,
    running_by_session: BTreeMap<SessionId, BTreeSet<RunId>>,
}

impl Index {
    /// Takes in a run that is kept under a handle.
    pub(super) fn insert(&mut self, run: &Run, handle: Handle) {
        let id = run.request.run_id;
        if let Some(wakes_at) = run.wakes_at() {
            self.due.insert((wakes_at, handle));
        }
        for session in run.sessions() {
            self.running_by_session.entry(session.clone()).or_default().insert(id);
        }
        let of_job = match self.by_job.get_mut(&run.request.job) {
            Some(of_job) => of_job,
            None => self.by_job.entry(run.request.job.clone()).or_default(),
        };
        match run.step {
            Step::Waiting => of_job.waiting.insert(place(run)),
            Step::Delayed { .. }
            | Step::Asking { .. }
            | Step::Unserved { .. }
            | Step::Ready
            | Step::Running { .. }
            | Step::Retrying { .. } => of_job.active.insert(handle),
        };
    }

    pub(super) fn remove(&mut self, run: &Run, handle: Handle) {
        let id = run.request.run_id;
        if let Some(wakes_at) = run.wakes_at() {
            self.due.remove(&(wakes_at, handle));
        }
        for session in run.sessions() {
            let Some(running) = self.running_by_session.get_mut(session) else { continue };
            running.remove(&id);
            if running.is_empty() {
                self.running_by_session.remove(session);
            }
        }
        if let Some(of_job) = self.by_job.get_mut(&run.request.job) {
            of_job.active.remove(&handle);
            of_job.waiting.remove(&place(run));
            if of_job.active.is_empty() && of_job.waiting.is_empty() {
                self.by_job.remove(&run.request.job);
            }
        }
    }

    pub(super) fn first_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(due_at, _)| *due_at)
    }

    /// Runs that are due at `now`, the longest due first.
    pub(super) fn due(&self, now: Timestamp) -> impl Iterator<Item = Handle> {
        self.due.iter().take_while(move |(due_at, _)| *due_at <= now).map(|(_, run)| *run)
    }

    /// The live runs of a job; `None` if there are none.
    pub(super) fn of_job(&self, job: &JobId) -> Option<&OfJob> {
        self.by_job.get(job)
    }

    /// Runs of which a session holds an attempt, or two, in order.
    pub(super) fn running_of(&self, session: &SessionId) -> impl Iterator<Item = RunId> {
        self.running_by_session.get(session).into_iter().flatten().copied()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.running_by_session.keys()
    }
}

fn place(run: &Run) -> Place {
    let request = &run.request;
    (request.fire_time, request.requested_at, request.run_id)
}
