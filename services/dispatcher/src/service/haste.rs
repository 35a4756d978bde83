//! Which decisions may wait for others on their way to the log, and which of them need not say how far inputs were read. Not
//! here: how long that is (the driver). Invariant: whatever a runner, a limit or another service waits for goes at once.

use orloj_runtime::driver::Haste;

use crate::event::Event;
use crate::run::{Run, Step};

/// How soon an event must be appended, and the run that it is about.
pub(super) fn of(event: &Event) -> (Haste, Option<u128>) {
    match event {
        Event::Stepped { run, gives_back, .. } => {
            let is_passing = is_claim(run) && !run.awaits_start() && gives_back.is_none();
            (if is_passing { Haste::Passing } else { Haste::Now }, Some(run.request.run_id.as_u128()))
        }
        // Nobody but readers of results waits for an end that makes no room: what takes the room is an event of its own.
        Event::Ended(ended) => {
            let is_awaited = ended.request.reports_end || ended.gives_back.is_some();
            (if is_awaited { Haste::Now } else { Haste::Later }, Some(ended.request.run_id.as_u128()))
        }
        Event::Disowned(..)
        | Event::NotRedriven { .. }
        | Event::Parked { .. }
        | Event::Forgotten(..)
        | Event::LimitJoined(..)
        | Event::LimitHeld { .. }
        | Event::LimitFree(..)
        | Event::LimitDeclined(..)
        | Event::LimitRulesTaken(_)
        | Event::Ignored(_) => (Haste::Now, None),
    }
}

/// True for the first steps of a run, up to its claim: whoever reads the request, the claim or nothing at all again finds the
/// run live and claimed, and decides nothing. An end, and whatever else a runner or a person says, must be covered by positions
/// that go with it: by then the run may be gone.
pub(super) fn names_its_input(event: &Event) -> bool {
    match event {
        Event::Stepped { run, gives_back, .. } => {
            let is_plain = run.limits.is_empty() && gives_back.is_none() && run.redriven_at.is_none();
            let is_first = match run.step {
                Step::Ready | Step::Delayed { .. } => true,
                Step::Running { .. } => is_claim(run),
                Step::Waiting | Step::Asking { .. } | Step::Unserved { .. } | Step::Retrying { .. } => false,
            };
            is_plain && is_first
        }
        Event::Ended(_)
        | Event::Disowned(..)
        | Event::NotRedriven { .. }
        | Event::Parked { .. }
        | Event::Forgotten(..)
        | Event::LimitJoined(..)
        | Event::LimitHeld { .. }
        | Event::LimitFree(..)
        | Event::LimitDeclined(..)
        | Event::LimitRulesTaken(_)
        | Event::Ignored(_) => false,
    }
}

/// That a runner has claimed it, and nothing else.
fn is_claim(run: &Run) -> bool {
    matches!(run.step, Step::Running { .. }) && run.cancel_reason.is_none() && run.completion.is_none()
}
