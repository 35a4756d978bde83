//! Runs that wait for others of their job. Not here: whether a new run has to (`orloj_domain::overlap`). Invariant: as soon
//! as the log says that there is room, it says who takes it: in one batch.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::id::{JobId, RunId};
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::Event;

impl DispatcherMachine {
    /// Adds the steps of the runs that the ends among `events` make room for, in the order in which they wait.
    pub(super) fn make_room(&self, events: &mut Vec<Event>, now: Timestamp) {
        let mut ended: BTreeMap<JobId, BTreeSet<RunId>> = BTreeMap::new();
        for event in &*events {
            if let Event::Ended(end) = event
                && self.runs.contains(end.request.run_id)
            {
                ended.entry(end.request.job.clone()).or_default().insert(end.request.run_id);
            }
        }
        for (job, ended) in ended {
            let Some(of_job) = self.index.of_job(&job) else { continue };
            let ended_waiting = of_job.waiting().filter(|id| ended.contains(id)).count();
            let active = of_job.others().active - (ended.len() - ended_waiting);
            let waiting = of_job.waiting().filter(|id| !ended.contains(id));
            let waiting = waiting.filter_map(|id| self.runs.get(id));
            let first = (active..).zip(waiting).take_while(|(active, run)| *active < run.request.room());
            events.extend(first.map(|(_, run)| self.step(&run, self.begin(&run, now))));
        }
    }
}
