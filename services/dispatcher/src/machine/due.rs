//! A time has come: a start delay or a backoff is over, a deadline has passed, a dead run is too old to be sent back.
//! Not here: how long they are (`retry`, the request). Invariant: a run never waits on once its time has come, however late
//! that is noticed, and nothing starts after its deadline.

use std::time::Duration;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use super::place::Rooms;
use crate::event::{End, Event};
use crate::run::{Run, Step};

/// Most runs decided on by one tick; if more are due, the deadline stays in the past.
const DUE_RUNS_MAX: usize = 1000;
/// How long a dead run is kept: as long as its dead letter (`dlq.<queue>` in `topics.yaml`).
pub(super) const DEAD_KEPT: Duration = Duration::from_secs(90 * 86_400);

impl DispatcherMachine {
    pub(super) fn decide_due(&self, now: Timestamp) -> Vec<Event> {
        let due = self.index.due(now).take(DUE_RUNS_MAX).map(|handle| self.runs.at(handle));
        let mut rooms = self.rooms_if_asked();
        let mut events: Vec<Event> = due.map(|run| self.due(&run, &mut rooms, now)).collect();
        events.extend(
            self.dead.too_old(now).take(DUE_RUNS_MAX).map(|dead| Event::Forgotten(Box::new(dead.clone()), now)),
        );
        self.make_room(&mut events, now);
        events.extend(self.decide_places(rooms, now));
        events.extend(self.decide_limits(now));
        events.extend(self.decide_cancels(now));
        events
    }

    fn due(&self, run: &Run, rooms: &mut Rooms<'_>, now: Timestamp) -> Event {
        if matches!(run.step, Step::Running { .. }) {
            return self.hedge(run, now);
        }
        if run.deadline().is_some_and(|deadline| deadline <= now) {
            return self.end(run, End::Expired(expired(run)), now);
        }
        match run.step {
            Step::Delayed { .. } | Step::Unserved { .. } | Step::Retrying { .. } => self.step(run, self.go(run, now)),
            Step::Asking { held, .. } => self.step(run, self.ask_again(run, held, now)),
            Step::Offered { .. } => self.step(run, self.offer_again(run, rooms, now)),
            // These wake for their deadline only; the one that runs is dealt with above.
            Step::Waiting | Step::Unplaced { .. } | Step::Ready | Step::Running { .. } => {
                self.end(run, End::Expired(expired(run)), now)
            }
        }
    }
}

/// What is said of a run whose deadline passed while no attempt of it ran.
pub(super) fn expired(run: &Run) -> Outcome {
    let state = run.step.state();
    let before = match &run.last_outcome {
        Some(outcome) => format!("; the attempt before ended as {}", outcome.kind),
        None => String::new(),
    };
    Outcome::new(OutcomeKind::Expired, format!("its deadline passed while it was {state}{before}"))
}
