//! What people and programs want of a run: that it ends, or that a dead one is tried again. Not here: commands about jobs
//! (trigger). Invariant: a command is carried out once; what a runner holds ends when the runner says so or its lease is over.

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::{End, Event, Ignored, Order, Report};
use crate::run::{Run, Step};

/// Most times that one run is sent back: after that, whatever is wrong with it is not mended by another try.
const REDRIVES_MAX: i32 = 10;

impl DispatcherMachine {
    pub(super) fn decide_cancel(&self, order: &Order, now: Timestamp) -> Vec<Event> {
        let Some(run) = self.runs.get(order.run_id).filter(|run| run.request.job == order.job) else {
            return vec![Event::Ignored(Ignored::NotLive)];
        };
        let Some(cancelled) = self.cancel(&run, &reason(order), now) else {
            return vec![told_again(&run)];
        };
        let mut events = vec![cancelled];
        self.make_room(&mut events, now);
        events
    }

    /// Ends a run at once, or asks the runner that holds it to; `None` if that was asked before.
    pub(super) fn cancel(&self, run: &Run, reason: &str, now: Timestamp) -> Option<Event> {
        match &run.step {
            Step::Running { .. } if run.cancel_reason.is_some() => None,
            Step::Running { .. } => Some(self.step(run, run.cancelling(reason))),
            Step::Delayed { .. } | Step::Waiting | Step::Ready | Step::Retrying { .. } => {
                Some(self.end(run, End::Cancelled(Outcome::new(OutcomeKind::Cancelled, reason)), now))
            }
        }
    }

    pub(super) fn decide_redrive(&self, order: &Order, now: Timestamp) -> Vec<Event> {
        let Some(dead) = self.dead.get(order.run_id).filter(|dead| dead.request.job == order.job) else {
            let is_repeated =
                self.runs.get(order.run_id).is_some_and(|run| run.recent_commands.contains(&order.command));
            let why = if is_repeated { Ignored::Repeated } else { Ignored::NotDead };
            return vec![Event::Ignored(why)];
        };
        if dead.recent_commands.contains(&order.command) {
            return vec![Event::Ignored(Ignored::Repeated)];
        }
        let admitted = if dead.redrives >= REDRIVES_MAX {
            Err(format!("it was sent back {REDRIVES_MAX} times already, which is the most"))
        } else {
            self.admit(dead.redriven(&order.command, now), now)
        };
        admitted.unwrap_or_else(|why| {
            vec![Event::NotRedriven { dead: Box::new(dead.having_answered(&order.command)), why, at: now }]
        })
    }
}

/// The word to the runner once more, in case the first was lost.
fn told_again(run: &Run) -> Event {
    let Step::Running { runner, session } = &run.step else { return Event::Ignored(Ignored::AlreadyCancelled) };
    let report = Report {
        run_id: run.request.run_id,
        job: run.request.job.clone(),
        attempt: run.attempt,
        token: run.token,
        runner: runner.clone(),
        session: session.clone(),
    };
    Event::Disowned(report, Ignored::AlreadyCancelled)
}

fn reason(order: &Order) -> String {
    let by = order.actor.as_deref().map_or_else(String::new, |actor| format!(" by {actor}"));
    let why = order.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("cancelled on request{by}{why}")
}
