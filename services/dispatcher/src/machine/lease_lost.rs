//! A session was silent for longer than its lease: each attempt it holds is lost, and what it was offered goes to others. Not
//! here: when that is (`orloj_domain::lease`). Invariant: the next attempt of such a run is never ready before the lease ended.

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::id::SessionId;
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::Event;
use crate::run::{Run, Step};

impl DispatcherMachine {
    /// All attempts of a session at once; a runner's slots bound how many there are.
    pub(super) fn decide_lease_lost(&self, session: &SessionId, now: Timestamp) -> Vec<Event> {
        let lost = self.index.running_of(session).filter_map(|id| self.runs.get(id));
        let mut events: Vec<Event> = lost.map(|run| self.end_attempt(&run, outcome(&run), now)).collect();
        events.extend(self.take_back(session, now));
        self.make_room(&mut events, now);
        events
    }
}

fn outcome(run: &Run) -> Outcome {
    let message = match &run.step {
        Step::Running { runner, .. } => format!("nothing was heard of runner {runner} for longer than its lease"),
        Step::Delayed { .. }
        | Step::Waiting
        | Step::Asking { .. }
        | Step::Unserved { .. }
        | Step::Unplaced { .. }
        | Step::Ready
        | Step::Offered { .. }
        | Step::Retrying { .. } => String::new(),
    };
    Outcome::new(OutcomeKind::LeaseLost, message)
}
