//! Ways to find live runs without going through all of them: by due time, by job, by session. Not here: the
//! runs. Invariant: every entry is of a live run, and empty entries are removed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use orloj_domain::id::{JobId, QueueName, RunId, SessionId};
use orloj_domain::overlap::Others;
use orloj_domain::time::Timestamp;

use super::runs::Handle;
use crate::run::{Run, Step};

/// The place of a run among those that wait: by fire time, then by when it was asked for.
type Place = (Timestamp, Timestamp, RunId);

/// The place of a run among those that wait for a runner: a level of priority is worth a minute of waiting.
pub(super) type UnplacedPlace = (Timestamp, Timestamp, RunId);
/// A minute.
const LEVEL: Duration = Duration::from_secs(60);

/// Labels that a runner must have.
pub(super) type Labels = BTreeMap<String, String>;

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
    offered_by_session: BTreeMap<SessionId, BTreeSet<RunId>>,
    unplaced: BTreeMap<QueueName, BTreeMap<Labels, BTreeSet<UnplacedPlace>>>,
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
        if let Some(session) = run.addressee() {
            self.offered_by_session.entry(session.clone()).or_default().insert(id);
        }
        if matches!(run.step, Step::Unplaced { .. }) {
            let of_queue = self.unplaced.entry(run.request.queue.clone()).or_default();
            of_queue.entry(run.request.runner_labels.clone()).or_default().insert(unplaced_place(run));
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
            | Step::Unplaced { .. }
            | Step::Ready
            | Step::Offered { .. }
            | Step::Running { .. }
            | Step::Retrying { .. } => of_job.active.insert(handle),
        };
    }

    pub(super) fn remove(&mut self, run: &Run, handle: Handle) {
        let id = run.request.run_id;
        if let Some(wakes_at) = run.wakes_at() {
            self.due.remove(&(wakes_at, handle));
        }
        let running = run.sessions().map(|session| (session, true));
        for (session, is_running) in running.chain(run.addressee().map(|session| (session, false))) {
            let by_session = if is_running { &mut self.running_by_session } else { &mut self.offered_by_session };
            let Some(runs) = by_session.get_mut(session) else { continue };
            runs.remove(&id);
            if runs.is_empty() {
                by_session.remove(session);
            }
        }
        if matches!(run.step, Step::Unplaced { .. }) {
            self.remove_unplaced(run);
        }
        if let Some(of_job) = self.by_job.get_mut(&run.request.job) {
            of_job.active.remove(&handle);
            of_job.waiting.remove(&place(run));
            if of_job.active.is_empty() && of_job.waiting.is_empty() {
                self.by_job.remove(&run.request.job);
            }
        }
    }

    fn remove_unplaced(&mut self, run: &Run) {
        let (queue, labels) = (&run.request.queue, &run.request.runner_labels);
        let Some(of_queue) = self.unplaced.get_mut(queue) else { return };
        if let Some(waiting) = of_queue.get_mut(labels) {
            waiting.remove(&unplaced_place(run));
            if waiting.is_empty() {
                of_queue.remove(labels);
            }
        }
        if of_queue.is_empty() {
            self.unplaced.remove(queue);
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

    /// Runs that are offered to a session, in order.
    pub(super) fn offered_to(&self, session: &SessionId) -> impl Iterator<Item = RunId> {
        self.offered_by_session.get(session).into_iter().flatten().copied()
    }

    /// Sessions that are offered a run, in order.
    pub(super) fn addressees(&self) -> impl Iterator<Item = &SessionId> {
        self.offered_by_session.keys()
    }

    /// How many runs a session holds or is offered.
    pub(super) fn load(&self, session: &SessionId) -> usize {
        let count =
            |by_session: &BTreeMap<SessionId, BTreeSet<RunId>>| by_session.get(session).map_or(0, BTreeSet::len);
        count(&self.running_by_session) + count(&self.offered_by_session)
    }

    /// Runs that wait for a runner, by their queues and the labels that they ask for, the first to go first.
    pub(super) fn unplaced(&self) -> impl Iterator<Item = (&QueueName, &Labels, &BTreeSet<UnplacedPlace>)> {
        let of_queue = self.unplaced.iter();
        of_queue.flat_map(|(queue, by_labels)| by_labels.iter().map(move |(labels, runs)| (queue, labels, runs)))
    }

    /// Sessions that hold a run or are offered one.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.running_by_session.keys().chain(self.offered_by_session.keys())
    }
}

fn unplaced_place(run: &Run) -> UnplacedPlace {
    let request = &run.request;
    let ahead = LEVEL * u32::try_from(request.priority).unwrap_or(0);
    (run.since.minus(ahead), request.fire_time, request.run_id)
}

fn place(run: &Run) -> Place {
    let request = &run.request;
    (request.fire_time, request.requested_at, request.run_id)
}
