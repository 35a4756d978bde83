//! A session was silent for longer than its lease: each attempt it holds is lost, and what it was offered goes to others. Not
//! here: when that is (`orloj_domain::lease`). Invariant: the next attempt of such a run is never ready before the lease ended.

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::id::SessionId;
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::Event;
use crate::hedge::Which;
use crate::run::Run;

impl DispatcherMachine {
    /// All attempts of a session at once; a runner's slots bound how many there are.
    pub(super) fn decide_lease_lost(&self, session: &SessionId, now: Timestamp) -> Vec<Event> {
        let lost = self.index.running_of(session).filter_map(|id| self.runs.get(id));
        let mut events: Vec<Event> = lost.map(|run| self.lose(&run, session, now)).collect();
        events.extend(self.take_back(session, now));
        self.make_room(&mut events, now);
        events
    }

    fn lose(&self, run: &Run, session: &SessionId, now: Timestamp) -> Event {
        let is_lost = |which| run.holder(which).is_some_and(|(_, holder)| holder == session);
        match (is_lost(Which::Own), is_lost(Which::Hedge)) {
            (true, true) => self.lose_both(run, &outcome(run, Which::Own), now),
            (false, true) => self.end_attempt(run, Which::Hedge, outcome(run, Which::Hedge), now),
            (true | false, false) => self.end_attempt(run, Which::Own, outcome(run, Which::Own), now),
        }
    }
}

fn outcome(run: &Run, which: Which) -> Outcome {
    let message = match run.holder(which) {
        Some((runner, _)) => format!("nothing was heard of runner {runner} for longer than its lease"),
        None => String::new(),
    };
    Outcome::new(OutcomeKind::LeaseLost, message)
}
