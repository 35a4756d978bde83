//! What people and programs want of a run: that it ends, or that a dead one is tried again or put aside. Not here: commands about jobs
//! (trigger). Invariant: a command is carried out once; what a runner holds ends when the runner says so or its lease is over.

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::retry::Disposition;
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use super::hedge::held;
use crate::event::{End, Event, Ignored, Order};
use crate::hedge::Which;
use crate::run::{DeadRun, Run, Step};

/// Most times that one run is sent back: after that, whatever is wrong with it is not mended by another try, and it is parked.
const REDRIVES_MAX: i32 = 10;

impl DispatcherMachine {
    pub(super) fn decide_cancel(&self, order: &Order, now: Timestamp) -> Vec<Event> {
        let Some(run) = self.runs.get(order.run_id).filter(|run| run.request.job == order.job) else {
            return vec![self.keep_cancel(order, now)];
        };
        let Some(cancelled) = self.cancel(&run, &said("cancelled", order), now) else {
            return told_again(&run);
        };
        let mut events = vec![cancelled];
        self.make_room(&mut events, now);
        events
    }

    /// Ends a run at once, or asks the runner that holds it to; `None` if that was asked before, or its callback has said that it
    /// ended.
    pub(super) fn cancel(&self, run: &Run, reason: &str, now: Timestamp) -> Option<Event> {
        match &run.step {
            Step::Running { .. } if run.cancel_reason.is_some() || run.completion.is_some() => None,
            Step::Running { .. } => Some(self.cancelling(run, reason, now)),
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Asking { .. }
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Ready
            | Step::Offered { .. }
            | Step::Retrying { .. } => {
                Some(self.end(run, End::Cancelled(Outcome::new(OutcomeKind::Cancelled, reason)), now))
            }
        }
    }

    pub(super) fn decide_redrive(&self, order: &Order, now: Timestamp) -> Vec<Event> {
        let dead = match self.ordered(order) {
            Ok(dead) => dead,
            Err(ignored) => return vec![Event::Ignored(ignored)],
        };
        let is_parked = dead.disposition == Disposition::Parked;
        if is_parked && order.spares_parked {
            return vec![Event::Ignored(Ignored::AlreadyParked)];
        }
        let too_often = || format!("it was sent back {REDRIVES_MAX} times already, which is the most");
        if dead.redrives >= REDRIVES_MAX && !is_parked {
            let dead = Box::new(dead.parked(&order.command));
            return vec![Event::Parked { dead, why: too_often(), at: now }];
        }
        let admitted = if dead.redrives >= REDRIVES_MAX {
            Err(too_often())
        } else {
            self.admit(dead.redriven(&order.command, order.not_before, now), now)
        };
        admitted.unwrap_or_else(|why| {
            vec![Event::NotRedriven { dead: Box::new(dead.having_answered(&order.command)), why, at: now }]
        })
    }

    pub(super) fn decide_park(&self, order: &Order, now: Timestamp) -> Event {
        match self.ordered(order) {
            Ok(dead) if dead.disposition == Disposition::Parked => Event::Ignored(Ignored::AlreadyParked),
            Ok(dead) => {
                let dead = Box::new(dead.parked(&order.command));
                Event::Parked { dead, why: said("put aside", order), at: now }
            }
            Err(ignored) => Event::Ignored(ignored),
        }
    }

    /// The dead run that an order is about, if the order was not carried out before.
    fn ordered(&self, order: &Order) -> Result<&DeadRun, Ignored> {
        let Some(dead) = self.dead.get(order.run_id).filter(|dead| dead.request.job == order.job) else {
            let is_repeated =
                self.runs.get(order.run_id).is_some_and(|run| run.recent_commands.contains(&order.command));
            return Err(if is_repeated { Ignored::Repeated } else { Ignored::NotDead });
        };
        if dead.recent_commands.contains(&order.command) { Err(Ignored::Repeated) } else { Ok(dead) }
    }
}

/// The word to the runner once more, in case the first was lost, and to that of a second attempt; none if its callback was
/// first.
fn told_again(run: &Run) -> Vec<Event> {
    if run.completion.is_some() {
        return vec![Event::Ignored(Ignored::AlreadyCompleted)];
    }
    let told = [Which::Own, Which::Hedge].into_iter().filter_map(|which| held(run, which));
    told.map(|report| Event::Disowned(report, Ignored::AlreadyCancelled)).collect()
}

/// What was done, who wanted it, and why.
pub(super) fn said(what: &str, order: &Order) -> String {
    let by = order.actor.as_deref().map_or_else(String::new, |actor| format!(" by {actor}"));
    let why = order.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
    format!("{what} on request{by}{why}")
}
