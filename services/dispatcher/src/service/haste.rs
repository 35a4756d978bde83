//! Which decisions may wait for others on their way to the log. Not here: how long that is (the driver). Invariant: whatever
//! a runner, a limit or another service waits for goes at once.

use orloj_runtime::driver::Haste;

use crate::event::{About, Event};
use crate::run::{Run, Step};

/// How soon an event must be appended, and the run that it is about.
pub(super) fn of(event: &Event) -> (Haste, Option<u128>) {
    match event {
        Event::Stepped { run, about, .. } => {
            let is_passing = *about == About::Run && is_claim(run) && !run.awaits_start();
            (if is_passing { Haste::Passing } else { Haste::Now }, Some(run.request.run_id.as_u128()))
        }
        // Nobody but readers of results waits for an end that makes no room: what takes the room is an event of its own.
        Event::Ended(ended) => {
            let is_awaited = ended.request.reports_end || ended.gives_back.is_some() || ended.stops.is_some();
            (if is_awaited { Haste::Now } else { Haste::Later }, Some(ended.request.run_id.as_u128()))
        }
        Event::Disowned(..)
        | Event::NotRedriven { .. }
        | Event::Parked { .. }
        | Event::Forgotten(..)
        | Event::LimitJoined(..)
        | Event::LimitHeld { .. }
        | Event::LimitFree(..)
        | Event::LimitTurned { .. }
        | Event::FleetTaken(_)
        | Event::Withdrawn(_)
        | Event::LimitDeclined(..)
        | Event::LimitRulesTaken(_)
        | Event::Ignored(_) => (Haste::Now, None),
    }
}

/// That a runner has claimed it, and nothing else.
fn is_claim(run: &Run) -> bool {
    let is_plain = run.cancel_reason.is_none() && run.completion.is_none() && run.hedge.is_none();
    matches!(run.step, Step::Running { .. }) && is_plain
}
