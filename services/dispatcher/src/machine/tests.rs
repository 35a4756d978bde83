//! Decisions as tables: inputs at their second, and the events expected, in words. Every step is also written
//! to a log and restored from it.

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::job::{Delivery, OverlapKind};
use orloj_domain::topic;

use crate::event::{About, Event, Input, Order};
use crate::testing::{Ask, World, completion, order, outcome, report, words};

/// What happens to the runs of a table.
pub(super) enum Do {
    /// The n-th run is asked for.
    Request(usize),
    /// (run, attempt, token, session)
    Claim(usize, i32, i64, &'static str),
    Finish(usize, i32, i64, &'static str, OutcomeKind),
    Expire(&'static str),
    /// (run, command)
    Cancel(usize, &'static str),
    Redrive(usize, &'static str),
    /// As one of many.
    RedriveAll(usize, &'static str),
    Park(usize, &'static str),
    /// (run, attempt, token)
    Complete(usize, i32, i64, OutcomeKind),
    Tick,
}
use Do::{Cancel, Claim, Complete, Expire, Finish, Park, Redrive, RedriveAll, Request, Tick};

/// Applies these inputs, each at its second, and expects these events.
pub(super) fn check(asks: &[Ask], steps: &[(u64, Do, &[&str])]) -> World {
    let mut world = World::new();
    for (index, (second, step, wanted)) in steps.iter().enumerate() {
        world.advance_to(*second);
        let events = match step {
            Request(run) => world.ask(&asks[*run]),
            Claim(run, attempt, token, session) => {
                world.decide(&Input::Claimed(report(&asks[*run], *attempt, *token, session)))
            }
            Finish(run, attempt, token, session, kind) => {
                world.decide(&Input::Finished(report(&asks[*run], *attempt, *token, session), outcome(*kind)))
            }
            Expire(session) => world.decide(&Input::SessionExpired(session.parse().expect("session"))),
            Cancel(run, command) => world.decide(&Input::Cancel(order(&asks[*run], command))),
            Redrive(run, command) => world.decide(&Input::Redrive(order(&asks[*run], command))),
            Complete(run, attempt, token, kind) => {
                world.decide(&Input::Complete(completion(&asks[*run], *attempt, *token, *kind)))
            }
            RedriveAll(run, command) => {
                world.decide(&Input::Redrive(Order { spares_parked: true, ..order(&asks[*run], command) }))
            }
            Park(run, command) => world.decide(&Input::Park(order(&asks[*run], command))),
            Tick => world.decide(&Input::Tick),
        };
        assert_eq!(events.iter().map(words).collect::<Vec<_>>(), *wanted, "step {index}");
        world.check_restore();
    }
    world
}

const OK: OutcomeKind = OutcomeKind::Succeeded;
const FAILED: OutcomeKind = OutcomeKind::Failed;

#[test]
fn a_run_is_requested_claimed_and_succeeds() {
    let world = check(
        &[Ask::of("a/b", 1)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Request(0), &["already_live"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (1, Claim(0, 1, 1, "s"), &["already_claimed"]),
            (1, Request(0), &["already_live"]),
            (2, Finish(0, 1, 1, "s", OK), &["succeeded a1 t1 -run.state"]),
            (2, Finish(0, 1, 1, "s", FAILED), &["not_live"]),
            (3, Claim(0, 1, 1, "s"), &["stop s: not_live"]),
        ],
    );
    assert!(world.state.is_empty() && world.dead.is_empty());
    assert_eq!(world.ready.len(), 1);
    assert_eq!(world.events.len(), 3);
}

#[test]
fn a_start_delay_counts_from_the_request() {
    let ask = Ask { delay_s: 10, ..Ask::of("a/b", 1) };
    check(
        &[ask],
        &[
            (0, Request(0), &["delayed a1 t0 due 10"]),
            (5, Request(0), &["already_live"]),
            (9, Tick, &[]),
            (9, Claim(0, 1, 0, "s"), &["stop s: stale"]),
            (9, Finish(0, 1, 0, "s", OK), &["stale"]),
            (10, Tick, &["ready a1 t1 -run.delay"]),
            (10, Tick, &[]),
            (11, Finish(0, 1, 1, "s", OK), &["succeeded a1 t1 -run.state"]),
        ],
    );
}

#[test]
fn a_request_read_after_its_delay_is_ready_at_once() {
    let ask = Ask { delay_s: 10, ..Ask::of("a/b", 1) };
    let mut world = World::new();
    let record = ask.record(world.now());
    world.advance_to(60);
    let events = world.read(&record);
    assert_eq!(events.iter().map(words).collect::<Vec<_>>(), ["ready a1 t1"]);
}

#[test]
fn failures_are_tried_again_until_attempts_are_used_up() {
    let ask = Ask { max_attempts: 3, ..Ask::of("a/b", 1) };
    let world = check(
        &[ask],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (1, Finish(0, 1, 1, "s", FAILED), &["retrying a2 t1 due 2 -run.state"]),
            (1, Finish(0, 1, 1, "s", OK), &["stale"]),
            (1, Finish(0, 2, 1, "s", OK), &["stale"]),
            (1, Claim(0, 2, 1, "s"), &["stop s: stale"]),
            (2, Tick, &["ready a2 t2 -run.retry"]),
            (2, Claim(0, 1, 1, "s"), &["stop s: stale"]),
            (2, Claim(0, 2, 2, "s"), &["running a2 t2 by s"]),
            (3, Finish(0, 2, 2, "s", OutcomeKind::NotStarted), &["retrying a3 t2 due 5 -run.state"]),
            (9, Tick, &["ready a3 t3 -run.retry"]),
            (9, Finish(0, 3, 3, "s", OutcomeKind::TimedOut), &["dead a3 t3 timedOut attemptsExhausted"]),
            (9, Tick, &[]),
        ],
    );
    assert_eq!(world.dead.len(), 1);
    assert_eq!(world.ready.len(), 3);
}

#[test]
fn forbid_ends_a_run_beside_a_live_one() {
    let forbid = |number| Ask { overlap: OverlapKind::Forbid, max_attempts: 2, ..Ask::of("a/b", number) };
    let delayed = Ask { delay_s: 60, ..forbid(5) };
    check(
        &[
            forbid(1),
            forbid(2),
            Ask::of("a/b", 3),
            Ask { overlap: OverlapKind::Forbid, ..Ask::of("a/c", 4) },
            delayed,
            forbid(6),
        ],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Request(1), &["cancelled a0 t0 overlap"]),
            (0, Request(3), &["ready a1 t1"]),
            (1, Finish(0, 1, 1, "s", FAILED), &["retrying a2 t1 due 2 -run.state"]),
            (1, Request(1), &["cancelled a0 t0 overlap"]),
            (2, Tick, &["ready a2 t2 -run.retry"]),
            (2, Claim(0, 2, 2, "s"), &["running a2 t2 by s"]),
            (2, Request(1), &["cancelled a0 t0 overlap"]),
            (2, Request(2), &["ready a1 t1"]),
            (3, Finish(0, 2, 2, "s", OK), &["succeeded a2 t2 -run.state"]),
            (3, Request(1), &["cancelled a0 t0 overlap"]),
            (3, Finish(2, 1, 1, "s", OK), &["succeeded a1 t1 -run.state"]),
            (3, Request(4), &["delayed a1 t0 due 63"]),
            (4, Request(5), &["cancelled a0 t0 overlap"]),
        ],
    );
}

#[test]
fn a_lost_session_loses_its_attempts_only() {
    let ask = |job, number| Ask { max_attempts: 2, ..Ask::of(job, number) };
    check(
        &[ask("a/b", 1), ask("a/b", 2), ask("a/c", 3)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Request(1), &["ready a1 t1"]),
            (0, Request(2), &["ready a1 t1"]),
            (0, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (0, Claim(1, 1, 1, "other"), &["running a1 t1 by other"]),
            (20, Expire("s"), &["retrying a2 t1 due 21 -run.state"]),
            (20, Expire("s"), &[]),
            (20, Finish(0, 1, 1, "s", OK), &["stale"]),
            // Its claim is read only after it expired: it has a whole lease from here.
            (20, Claim(2, 1, 1, "s"), &["running a1 t1 by s"]),
            (21, Tick, &["ready a2 t2 -run.retry"]),
            (21, Claim(0, 1, 1, "s"), &["stop s: stale"]),
            (21, Claim(0, 2, 2, "other"), &["running a2 t2 by other"]),
            (22, Finish(0, 2, 2, "s", OK), &["other_session"]),
            (22, Claim(0, 2, 2, "s"), &["stop s: other_session"]),
            (40, Expire("s"), &["retrying a2 t1 due 41 -run.state"]),
            (50, Finish(1, 1, 1, "other", OK), &["succeeded a1 t1 -run.state"]),
            (60, Expire("other"), &["dead a2 t2 leaseLost attemptsExhausted"]),
        ],
    );
}

#[test]
fn at_most_once_never_executes_again() {
    let ask = |number| Ask { max_attempts: 5, delivery: Delivery::AtMostOnce, ..Ask::of("a/b", number) };
    check(
        &[ask(1), ask(2), ask(3), ask(4)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (20, Expire("s"), &["dead a1 t1 leaseLost leaseLost"]),
            (21, Request(1), &["ready a1 t1"]),
            (21, Finish(1, 1, 1, "s", OutcomeKind::Aborted), &["dead a1 t1 aborted leaseLost"]),
            (21, Request(2), &["ready a1 t1"]),
            (21, Finish(2, 1, 1, "s", FAILED), &["dead a1 t1 failed notRetryable"]),
            (21, Request(3), &["ready a1 t1"]),
            (21, Finish(3, 1, 1, "s", OutcomeKind::NotStarted), &["retrying a2 t1 due 22 -run.state"]),
        ],
    );
}

#[test]
fn other_outcomes_end_or_retry() {
    let ask = |number| Ask { max_attempts: 2, ..Ask::of("a/b", number) };
    check(
        &[ask(1), ask(2), ask(3)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Finish(0, 1, 1, "s", OutcomeKind::Aborted), &["retrying a2 t1 due 1 -run.state"]),
            (0, Request(1), &["ready a1 t1"]),
            (0, Finish(1, 1, 1, "s", OutcomeKind::Cancelled), &["cancelled a1 t1 cancelled -run.state"]),
            (0, Request(2), &["ready a1 t1"]),
            (0, Finish(2, 1, 1, "s", OutcomeKind::Unknown), &["retrying a2 t1 due 1 -run.state"]),
        ],
    );
}

/// By a runner that had to end: the only attempt that the policy allows is still to come.
#[test]
fn what_was_handed_back_uses_up_no_attempt() {
    const BACK: OutcomeKind = OutcomeKind::HandedBack;
    let ask = |number| Ask { max_attempts: 1, ..Ask::of("a/b", number) };
    let once = Ask { max_attempts: 1, delivery: Delivery::AtMostOnce, ..Ask::of("a/b", 2) };
    check(
        &[ask(1), once],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (5, Finish(0, 1, 1, "s", BACK), &["retrying a2 t1 due 5 -run.state"]),
            (5, Tick, &["ready a2 t2 -run.retry"]),
            (6, Finish(0, 2, 2, "s", BACK), &["retrying a3 t2 due 6 -run.state"]),
            (6, Tick, &["ready a3 t3 -run.retry"]),
            (7, Finish(0, 3, 3, "s", FAILED), &["dead a3 t3 failed attemptsExhausted"]),
            (8, Request(1), &["ready a1 t1"]),
            (8, Finish(1, 1, 1, "s", BACK), &["retrying a2 t1 due 8 -run.state"]),
        ],
    );
}

#[test]
fn what_runs_have_in_common_is_held_once_and_goes_with_the_last() {
    let mut world = World::new();
    let asks: Vec<_> =
        (0..3000).map(|number| Ask { version: number / 1500, max_attempts: 2, ..Ask::of("a/b", number) }).collect();
    for ask in &asks {
        world.ask(ask);
        world.decide(&Input::Finished(report(ask, 1, 1, "s"), outcome(FAILED)));
    }
    assert_eq!(world.shared(), (2, 1));
    world.check_restore();
    for ask in &asks[..1500] {
        world.decide(&Input::Cancel(order(ask, "c")));
    }
    assert_eq!(world.shared(), (1, 1), "nobody is left of the first version");
    for ask in &asks[1500..] {
        world.decide(&Input::Cancel(order(ask, "c")));
    }
    assert_eq!(world.shared(), (0, 0));
}

#[test]
fn ticks_are_bounded_and_the_rest_stays_due() {
    let mut world = World::new();
    for number in 0..2500 {
        world.ask(&Ask { delay_s: 10, ..Ask::of("a/b", number) });
    }
    world.advance_to(11);
    let mut counts = Vec::new();
    while orloj_runtime::driver::Machine::next_deadline(&world.machine).is_some() {
        counts.push(world.decide(&Input::Tick).len());
    }
    assert_eq!(counts, [1000, 1000, 500]);
    world.check_restore();
}

#[test]
fn a_run_torn_over_two_topics_is_mended_by_its_next_step() {
    let ask = Ask { max_attempts: 3, ..Ask::of("a/b", 1) };
    let steps: [(u64, Do, &[&str]); 3] = [
        (0, Request(0), &["ready a1 t1"]),
        (1, Finish(0, 1, 1, "s", FAILED), &["retrying a2 t1 due 2 -run.state"]),
        (2, Tick, &["ready a2 t2 -run.retry"]),
    ];
    let mut state = Vec::new();
    for count in 1..=3 {
        state.push(check(&[ask], &steps[..count]).state);
    }
    let key = ask.run_id().to_string().into_bytes();
    // (what stands in `run.state`, whether `run.retry` still holds the run) → what the next failure leaves
    for (ready, wanted) in [(0, "retrying"), (2, "ready a2 t2")] {
        let mut world = World::new();
        world.state.clone_from(&state[ready]);
        world.state.extend(state[1].clone());
        assert_eq!(world.state.len(), 2);
        world.machine = world.restored();
        world.advance_to(10);
        let run = world.machine.run(ask.run_id()).expect("live");
        let found = words(&Event::Stepped {
            run: run.clone(),
            leaves: Vec::new(),
            gives_back: None,
            about: About::Run,
            ended: Vec::new(),
        });
        assert!(found.starts_with(wanted), "{found}");
        let events = match wanted {
            "retrying" => world.decide(&Input::Tick),
            _ => world.decide(&Input::Finished(report(&ask, 2, 2, "s"), outcome(OK))),
        };
        assert_eq!(events.len(), 1);
        let left: Vec<_> = world.state.keys().map(|(topic, _)| topic.as_str()).collect();
        let expected: &[&str] = if wanted == "retrying" { &[topic::RUN_STATE] } else { &[] };
        assert_eq!(left, expected);
        world.check_restore();
        assert!(world.state.keys().all(|(_, found)| *found == key));
    }
}
