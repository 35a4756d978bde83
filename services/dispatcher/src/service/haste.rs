//! Which decisions may wait for others on their way to the log. Not here: how long that is (the driver). Invariant: whatever
//! a runner, a limit or another service waits for goes at once.

use orloj_runtime::driver::Haste;

use crate::event::{About, Event};
use crate::run::{Run, Step};

/// How soon an event must be appended, and the run that it is about.
pub(super) fn of(event: &Event) -> (Haste, Option<u128>) {
    match event {
        Event::Stepped { run, about, leaves, .. } => {
            // A tombstone of an older copy must not be left out: no later event writes it.
            if *about == About::HedgePutOff {
                // It says nothing of the claim before it.
                return (Haste::Later, None);
            }
            let is_passing = *about == About::Run && leaves.is_empty() && is_claim(run) && !run.awaits_start();
            (if is_passing { Haste::Passing } else { Haste::Now }, Some(run.request.run_id.as_u128()))
        }
        // Nobody but readers of results waits for an end that makes no room: what takes the room is an event of its own.
        Event::Ended(ended) => {
            let is_awaited = ended.request.reports_end || ended.gives_back.is_some() || ended.stops.is_some();
            (if is_awaited { Haste::Now } else { Haste::Later }, Some(ended.request.run_id.as_u128()))
        }
        // The run that it is about is not there.
        Event::CancelKept(..) | Event::CancelDropped(_) => (Haste::Later, None),
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

#[cfg(test)]
mod tests {
    use orloj_domain::attempt::OutcomeKind;
    use orloj_domain::job::OverlapKind;
    use orloj_domain::topic;

    use super::*;
    use crate::event::Input;
    use crate::testing::{Ask, World, order, outcome, report};

    fn hastes(events: &[Event]) -> Vec<Haste> {
        events.iter().map(|event| of(event).0).collect()
    }

    #[test]
    fn claims_pass_and_plain_ends_wait_but_nothing_that_somebody_waits_for() {
        let mut world = World::new();
        let ask = Ask { max_attempts: 2, ..Ask::of("a/b", 1) };
        assert_eq!(hastes(&world.ask(&ask)), [Haste::Now]);
        assert_eq!(hastes(&world.decide(&Input::Claimed(report(&ask, 1, 1, "s")))), [Haste::Passing]);
        let failed = Input::Finished(report(&ask, 1, 1, "s"), outcome(OutcomeKind::Failed));
        assert_eq!(hastes(&world.decide(&failed)), [Haste::Now], "a retry has a time");
        world.advance_to(10);
        assert_eq!(hastes(&world.decide(&Input::Tick)), [Haste::Now]);
        assert_eq!(hastes(&world.decide(&Input::Claimed(report(&ask, 2, 2, "s")))), [Haste::Passing]);
        assert_eq!(hastes(&world.decide(&Input::Cancel(order(&ask, "c")))), [Haste::Now], "its runner is told");
        let succeeded = Input::Finished(report(&ask, 2, 2, "s"), outcome(OutcomeKind::Succeeded));
        assert_eq!(hastes(&world.decide(&succeeded)), [Haste::Later]);

        // A claim that waits for its word, and an end that makes room.
        let ask = |number| Ask { overlap: OverlapKind::Queue, waiting_max: 2, ..Ask::of("a/c", number) };
        world.ask(&ask(1));
        world.ask(&ask(2));
        assert_eq!(hastes(&world.decide(&Input::Claimed(report(&ask(1), 1, 1, "s")))), [Haste::Now]);
        let succeeded = Input::Finished(report(&ask(1), 1, 1, "s"), outcome(OutcomeKind::Succeeded));
        assert_eq!(hastes(&world.decide(&succeeded)), [Haste::Later, Haste::Now]);
    }

    /// A tombstone that the fault of a log has kept back is written by the next step, and by none after it.
    #[test]
    fn a_claim_that_ends_an_older_copy_is_not_left_out() {
        let mut world = World::new();
        let ask = Ask { max_attempts: 2, ..Ask::of("a/b", 1) };
        world.ask(&ask);
        world.decide(&Input::Finished(report(&ask, 1, 1, "s"), outcome(OutcomeKind::Failed)));
        let retrying = world.state.clone();
        world.advance_to(10);
        world.decide(&Input::Tick);
        world.state.extend(retrying);
        world.machine = world.restored();
        let claimed = world.decide(&Input::Claimed(report(&ask, 2, 2, "s")));
        assert_eq!(hastes(&claimed), [Haste::Now]);
        assert!(world.state.keys().all(|(name, _)| name == topic::RUN_STATE), "{:?}", world.state.keys());
    }
}
