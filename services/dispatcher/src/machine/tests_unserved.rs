//! Runs whose handler no runner has: they wait for one that has it, and use up no attempt.

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::run::RunState;

use crate::event::{Event, Input};
use crate::testing::{Ask, START, World, order, outcome, report};

#[test]
fn a_run_whose_handler_no_runner_has_waits_for_one_that_has() {
    let mut world = World::new();
    let ask = Ask { max_attempts: 1, deadline_s: Some(100), ..Ask::of("a/b", 0) };
    world.ask(&ask);
    let mut waits = Vec::new();
    for token in 1..=7 {
        let report = report(&ask, 1, token, "s0");
        world.decide(&Input::Claimed(report.clone()));
        let events = world.decide(&Input::Finished(report, outcome(OutcomeKind::NoHandler)));
        let [Event::Stepped { run, .. }] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((run.step.state(), run.attempt), (RunState::Waiting, 1), "it is no failure of the job's");
        let due = run.due_at().expect("an instant");
        waits.push(due.since(world.now()).as_secs());
        world.check_restore();
        if token < 7 {
            world.advance_to(due.since(START).as_secs());
            assert_eq!(world.decide(&Input::Tick).len(), 1);
        }
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    world.advance_to(100);
    let events = world.decide(&Input::Tick);
    assert!(matches!(events.as_slice(), [Event::Ended(end)] if end.end.state() == RunState::Expired), "{events:?}");
}

#[test]
fn a_cancelled_attempt_without_a_handler_is_over() {
    let mut world = World::new();
    let ask = Ask::of("a/b", 0);
    world.ask(&ask);
    let report = report(&ask, 1, 1, "s0");
    world.decide(&Input::Claimed(report.clone()));
    world.decide(&Input::Cancel(order(&ask, "c")));
    let events = world.decide(&Input::Finished(report, outcome(OutcomeKind::NoHandler)));
    assert!(matches!(events.as_slice(), [Event::Ended(end)] if end.end.state() == RunState::Cancelled), "{events:?}");
}
