//! Two attempts of one run, as tables: every order in which they come and end. Every step is also written to a log and
//! restored from it.

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::job::{Delivery, OverlapKind};
use orloj_domain::run::RunState;
use orloj_domain::runner::RunnerMessageType;

use super::tests::Do::{Cancel, Claim, Expire, Finish, Redrive, Request, Tick};
use super::tests::check;
use crate::event::Input;
use crate::testing::{Ask, World, outcome, report, words};

const OK: OutcomeKind = OutcomeKind::Succeeded;
const FAILED: OutcomeKind = OutcomeKind::Failed;
const CANCELLED: OutcomeKind = OutcomeKind::Cancelled;

/// Gets a second attempt after ten seconds.
fn ask() -> Ask {
    Ask { hedge_s: Some(10), max_attempts: 2, ..Ask::of("a/b", 1) }
}

/// What happens until two attempts of it run, from the first second to the twelfth.
const BOTH_RUN: [(u64, super::tests::Do, &[&str]); 4] = [
    (0, Request(0), &["ready a1 t1"]),
    (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
    (11, Tick, &["running a1 t1 by s & a2 t2"]),
    (12, Claim(0, 2, 2, "u"), &["running a1 t1 by s & a2 t2 by u"]),
];

/// The same, and then these.
fn check_both(ask: Ask, steps: Vec<(u64, super::tests::Do, &[&str])>) -> World {
    let steps: Vec<_> = BOTH_RUN.into_iter().chain(steps).collect();
    check(&[ask], &steps)
}

fn told(world: &World) -> Vec<(RunnerMessageType, i64)> {
    world.inbox.iter().map(|message| (message.kind, message.token)).collect()
}

#[test]
fn the_first_success_counts_and_the_other_attempt_is_stopped() {
    for (attempt, token, session, other) in [(1, 1, "s", 2), (2, 2, "u", 1)] {
        let wanted =
            format!("succeeded a{attempt} t{token} -run.state, t{token} succeeded, t{other} cancelled, stop t{other}");
        let other_session = if session == "s" { "u" } else { "s" };
        let world = check_both(
            ask(),
            vec![
                (13, Claim(0, 2, 2, "u"), &["already_claimed"]),
                (13, Claim(0, 2, 2, "v"), &["stop v: other_session"]),
                (13, Finish(0, attempt, token, other_session, OK), &["other_session"]),
                (13, Finish(0, attempt, token, session, OK), &[&wanted]),
                (14, Finish(0, other, i64::from(other), other_session, CANCELLED), &["not_live"]),
            ],
        );
        assert!(world.state.is_empty());
        assert_eq!(told(&world)[1..], [(RunnerMessageType::Cancel, i64::from(other))]);
        assert_eq!(world.inbox[1].reason.as_deref(), Some("another attempt of the run was first"));
        let readies: Vec<_> = world.ready.iter().map(|ready| (ready.attempt, ready.token)).collect();
        assert_eq!(readies, [(1, 1), (2, 2)]);
        let end = world.events.last().expect("an end");
        assert_eq!((end.attempt, end.token, end.state), (attempt, token, RunState::Succeeded));
        let ends: Vec<_> = end.ended_attempts.iter().map(|end| (end.attempt, end.outcome.kind)).collect();
        assert_eq!(ends, [(attempt, OK), (other, CANCELLED)]);
    }
}

#[test]
fn a_second_attempt_that_nobody_claimed_is_left_alone_when_the_first_succeeds() {
    let world = check(
        &[ask()],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (10, Tick, &[]),
            (60, Tick, &["running a1 t1 by s & a2 t2"]),
            (60, Tick, &[]),
            (61, Finish(0, 1, 1, "s", OK), &["succeeded a1 t1 -run.state, t1 succeeded, t2 cancelled"]),
            (62, Claim(0, 2, 2, "u"), &["stop u: not_live"]),
        ],
    );
    assert_eq!(told(&world), [(RunnerMessageType::Cancel, 2)], "only who claimed it too late is told");
    let notes: Vec<_> = world.events.iter().filter_map(|event| event.note.as_deref()).collect();
    assert_eq!(notes, ["it has not ended in time: attempt 2 is put beside it"]);
    let hedge = world.events[2].hedge.as_ref().expect("a hedge");
    assert_eq!((hedge.attempt, hedge.token, &hedge.runner), (2, 2, &None));
}

#[test]
fn the_second_attempt_wins_although_its_claim_was_not_seen() {
    let world = check(
        &[ask()],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (11, Tick, &["running a1 t1 by s & a2 t2"]),
            (12, Finish(0, 2, 2, "u", OK), &["succeeded a2 t2 -run.state, t2 succeeded, t1 cancelled, stop t1"]),
        ],
    );
    assert_eq!(told(&world), [(RunnerMessageType::Cancel, 1)]);
}

#[test]
fn one_failure_leaves_the_run_to_the_other_attempt_and_two_are_the_end() {
    // The first fails first.
    let world = check_both(
        ask(),
        vec![
            (13, Finish(0, 1, 1, "s", FAILED), &["running a2 t2 by u, t1 failed"]),
            (14, Finish(0, 1, 1, "s", OK), &["stale"]),
            (40, Tick, &[]),
            (41, Finish(0, 2, 2, "u", FAILED), &["dead a2 t2 failed attemptsExhausted"]),
        ],
    );
    let note = world.events[world.events.len() - 2].note.as_deref();
    assert_eq!(note, Some("attempt 1 of two ended as failed: failed"));
    assert!(world.inbox.is_empty());
    assert_eq!(
        world.machine.dead_run(ask().run_id()).expect("dead").first_failure,
        crate::testing::START.plus(std::time::Duration::from_secs(13))
    );
    // The second does, and so there is no other one.
    let world = check_both(
        ask(),
        vec![
            (13, Finish(0, 2, 2, "u", FAILED), &["running a1 t1 by s, t2 failed"]),
            (14, Finish(0, 2, 2, "u", OK), &["stale"]),
            (14, Claim(0, 2, 2, "u"), &["stop u: stale"]),
            (60, Tick, &[]),
            (61, Finish(0, 1, 1, "s", FAILED), &["dead a2 t2 failed attemptsExhausted, t1 failed"]),
            // It goes on with numbers that were not given before.
            (62, Redrive(0, "c"), &["ready a3 t3"]),
        ],
    );
    assert_eq!(world.dead.len(), 1);
}

#[test]
fn a_retry_comes_after_both_with_a_new_number() {
    let ask = || Ask { max_attempts: 4, ..ask() };
    check_both(
        ask(),
        vec![
            (13, Finish(0, 2, 2, "u", FAILED), &["running a1 t1 by s, t2 failed"]),
            (15, Finish(0, 1, 1, "s", FAILED), &["retrying a3 t2 due 17 -run.state, t1 failed"]),
            (17, Tick, &["ready a3 t3 -run.retry"]),
            (18, Claim(0, 3, 3, "s"), &["running a3 t3 by s"]),
            // The fourth is the last, as a second one too.
            (28, Tick, &["running a3 t3 by s & a4 t4"]),
            (29, Finish(0, 3, 3, "s", FAILED), &["ready a4 t4, t3 failed"]),
            (30, Claim(0, 4, 4, "u"), &["running a4 t4 by u"]),
            (60, Tick, &[]),
            (61, Finish(0, 4, 4, "u", FAILED), &["dead a4 t4 failed attemptsExhausted"]),
        ],
    );
}

#[test]
fn after_a_second_attempt_that_failed_another_comes_as_late() {
    let world = check_both(
        Ask { max_attempts: 4, ..ask() },
        vec![
            (13, Finish(0, 2, 2, "u", FAILED), &["running a1 t1 by s, t2 failed"]),
            (22, Tick, &[]),
            (23, Tick, &["running a1 t1 by s & a3 t3"]),
            (24, Claim(0, 3, 3, "u"), &["running a1 t1 by s & a3 t3 by u"]),
            // The run is at the third now, which was claimed at 24 s.
            (25, Finish(0, 1, 1, "s", FAILED), &["running a3 t3 by u, t1 failed"]),
            (33, Tick, &[]),
            (34, Tick, &["running a3 t3 by u & a4 t4"]),
            (35, Finish(0, 4, 4, "s", OK), &["succeeded a4 t4 -run.state, t4 succeeded, t3 cancelled, stop t3"]),
        ],
    );
    let numbers: Vec<_> = world.ready.iter().map(|ready| ready.attempt).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
}

#[test]
fn an_end_that_no_attempt_can_better_stops_the_other() {
    let mut world = check_both(ask(), Vec::new());
    let exit = Outcome { exit_code: Some(2), ..outcome(FAILED) };
    let events = world.decide(&Input::Finished(report(&ask(), 1, 1, "s"), exit));
    assert_eq!(
        events.iter().map(words).collect::<Vec<_>>(),
        ["dead a2 t2 failed notRetryable, t1 failed, t2 cancelled, stop t2"]
    );
    world.check_restore();
    check_both(
        Ask { deadline_s: Some(100), ..ask() },
        vec![(
            100,
            Finish(0, 2, 2, "u", OutcomeKind::Expired),
            &["expired a2 t2 expired -run.state, t2 expired, t1 cancelled, stop t1"],
        )],
    );
}

#[test]
fn a_lost_lease_takes_the_attempts_of_its_session_alone() {
    check_both(
        ask(),
        vec![
            (40, Expire("s"), &["running a2 t2 by u, t1 leaseLost"]),
            (41, Claim(0, 1, 1, "s"), &["stop s: stale"]),
            (41, Expire("s"), &[]),
            (42, Finish(0, 2, 2, "u", OK), &["succeeded a2 t2 -run.state"]),
        ],
    );
    check_both(
        ask(),
        vec![
            (40, Expire("u"), &["running a1 t1 by s, t2 leaseLost"]),
            (41, Finish(0, 2, 2, "u", OK), &["stale"]),
            (42, Finish(0, 1, 1, "s", OK), &["succeeded a1 t1 -run.state, t1 succeeded"]),
        ],
    );
    let one_holds_both: [(u64, super::tests::Do, &[&str]); 6] = [
        (0, Request(0), &["ready a1 t1"]),
        (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
        (11, Tick, &["running a1 t1 by s & a2 t2"]),
        (12, Claim(0, 2, 2, "s"), &["running a1 t1 by s & a2 t2 by s"]),
        (40, Expire("s"), &["retrying a3 t2 due 42 -run.state, t1 leaseLost, t2 leaseLost"]),
        (40, Expire("s"), &[]),
    ];
    check(&[Ask { max_attempts: 3, ..ask() }], &one_holds_both);
    let mut dead = one_holds_both;
    dead[4].2 = &["dead a2 t2 leaseLost attemptsExhausted, t1 leaseLost, t2 leaseLost"];
    check(&[ask()], &dead);
}

#[test]
fn a_cancel_reaches_both_and_the_run_ends_once() {
    let world = check_both(
        ask(),
        vec![
            (13, Cancel(0, "c"), &["running a1 t1 by s until it ends & a2 t2 by u"]),
            (13, Cancel(0, "d"), &["stop s: already_cancelled", "stop u: already_cancelled"]),
            (14, Finish(0, 1, 1, "s", CANCELLED), &["running a2 t2 by u until it ends, t1 cancelled"]),
            (15, Finish(0, 2, 2, "u", CANCELLED), &["cancelled a2 t2 cancelled -run.state"]),
        ],
    );
    assert_eq!(told(&world), [1, 2, 1, 2].map(|token| (RunnerMessageType::Cancel, token)));
    check_both(
        ask(),
        vec![
            (13, Cancel(0, "c"), &["running a1 t1 by s until it ends & a2 t2 by u"]),
            (14, Finish(0, 2, 2, "u", FAILED), &["running a1 t1 by s until it ends, t2 failed"]),
            // It was quicker than the word to its runner.
            (15, Finish(0, 1, 1, "s", OK), &["succeeded a1 t1 -run.state, t1 succeeded"]),
        ],
    );
    // One that nobody has claimed is no more from there on.
    let world = check(
        &[ask()],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (11, Tick, &["running a1 t1 by s & a2 t2"]),
            (12, Cancel(0, "c"), &["running a1 t1 by s until it ends, t2 cancelled"]),
            (12, Claim(0, 2, 2, "u"), &["stop u: stale"]),
            (60, Tick, &[]),
            (61, Expire("s"), &["cancelled a2 t2 cancelled -run.state, t1 cancelled"]),
        ],
    );
    assert_eq!(told(&world), [(RunnerMessageType::Cancel, 1), (RunnerMessageType::Cancel, 2)]);
}

#[test]
fn a_first_attempt_that_fails_leaves_the_run_to_one_on_its_queue() {
    let steps: [(u64, super::tests::Do, &[&str]); 5] = [
        (0, Request(0), &["ready a1 t1"]),
        (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
        (11, Tick, &["running a1 t1 by s & a2 t2"]),
        (12, Finish(0, 1, 1, "s", FAILED), &["ready a2 t2, t1 failed"]),
        (13, Claim(0, 2, 2, "u"), &["running a2 t2 by u"]),
    ];
    let world = check(&[ask()], &steps);
    assert_eq!(world.ready.len(), 2, "it is on the queue already");
    let [before @ .., _] = steps;
    let expired = Ask { deadline_s: Some(20), ..ask() };
    let mut world = check(&[expired], &before);
    world.advance_to(21);
    let events = world.decide(&Input::Tick);
    assert_eq!(events.iter().map(words).collect::<Vec<_>>(), ["expired a2 t2 expired -run.state"]);
}

#[test]
fn no_second_attempt_comes_too_late_or_where_it_may_not() {
    let running: [(u64, super::tests::Do, &[&str]); 2] =
        [(0, Request(0), &["ready a1 t1"]), (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"])];
    for refused in [
        Ask { hedge_s: None, ..ask() },
        Ask { max_attempts: 1, ..ask() },
        Ask { overlap: OverlapKind::Forbid, ..ask() },
        Ask { concurrency: Some(3), ..ask() },
        Ask { delivery: Delivery::AtMostOnce, ..ask() },
        Ask { has_callback: true, ..ask() },
        Ask { deadline_s: Some(10), ..ask() },
    ] {
        let world = check(&[refused], &running);
        assert_eq!(world.machine.next_deadline_of_runs(), None, "{refused:?}");
    }
    // Noticed too late, it is put off to an instant after the deadline, that is, to never.
    let world = check(
        &[Ask { deadline_s: Some(20), ..ask() }],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (21, Tick, &["running a1 t1 by s, put off"]),
            (90, Tick, &[]),
            (90, Finish(0, 1, 1, "s", OK), &["succeeded a1 t1 -run.state, t1 succeeded"]),
        ],
    );
    assert_eq!(world.events.len(), 3, "that nothing was done is news to nobody");
}

#[test]
fn no_second_attempt_comes_while_its_queue_is_bounded() {
    let mut world = World::new();
    let ask = ask();
    world.ask(&ask);
    world.decide(&Input::Claimed(report(&ask, 1, 1, "s")));
    world.rule("queue/default", Some(serde_json::json!({"maxConcurrent": 5})));
    world.advance_to(10);
    assert_eq!(world.decide(&Input::Tick).iter().map(words).collect::<Vec<_>>(), ["running a1 t1 by s, put off"]);
    world.check_restore();
    world.rule("queue/default", None);
    world.advance_to(19);
    assert!(world.decide(&Input::Tick).is_empty());
    world.advance_to(20);
    assert_eq!(world.decide(&Input::Tick).iter().map(words).collect::<Vec<_>>(), ["running a1 t1 by s & a2 t2"]);
    world.check_restore();
    // A short time is no reason to write that down often.
    let mut world = World::new();
    let hasty = Ask { hedge_s: Some(1), ..ask };
    world.ask(&hasty);
    world.decide(&Input::Claimed(report(&hasty, 1, 1, "s")));
    world.rule("queue/default", Some(serde_json::json!({"maxConcurrent": 5})));
    let looked_at = (1..=22).filter(|second| {
        world.advance_to(*second);
        !world.decide(&Input::Tick).is_empty()
    });
    assert_eq!(looked_at.collect::<Vec<_>>(), [1, 11, 21]);
    world.check_restore();
    // One that holds the queue's limit is not looked at at all.
    let mut world = World::new();
    world.rule("queue/default", Some(serde_json::json!({"maxConcurrent": 5})));
    world.ask(&ask);
    world.settle();
    world.decide(&Input::Claimed(report(&ask, 1, 1, "s")));
    assert_eq!(world.machine.run(ask.run_id()).expect("live").step.state(), RunState::Running);
    assert_eq!(world.machine.next_deadline_of_runs(), None);
}

#[test]
fn a_runner_without_the_handler_uses_up_no_attempt_of_the_second_either() {
    let no_handler = OutcomeKind::NoHandler;
    check_both(
        ask(),
        vec![
            (13, Finish(0, 2, 2, "u", no_handler), &["running a1 t1 by s, t2 noHandler"]),
            (23, Tick, &["running a1 t1 by s & a2 t3"]),
            (24, Claim(0, 2, 3, "v"), &["running a1 t1 by s & a2 t3 by v"]),
            (25, Finish(0, 2, 2, "u", OK), &["stale"]),
            (25, Finish(0, 1, 1, "s", no_handler), &["running a2 t3 by v, t1 noHandler"]),
            (26, Finish(0, 2, 3, "v", no_handler), &["waiting a2 t3 due 27"]),
            (27, Tick, &["ready a2 t4"]),
        ],
    );
}

#[test]
fn both_attempts_of_a_request_wait_for_the_word() {
    let mut world = World::new();
    let ask = Ask { hedge_s: Some(10), max_attempts: 2, is_request: true, ..Ask::of("a/b", 1) };
    world.ask(&ask);
    world.decide(&Input::Claimed(report(&ask, 1, 1, "s")));
    world.advance_to(10);
    world.decide(&Input::Tick);
    world.decide(&Input::Claimed(report(&ask, 2, 2, "u")));
    assert!(world.ready.iter().all(|ready| ready.awaits_start) && world.ready.len() == 2);
    assert_eq!(told(&world), [(RunnerMessageType::Start, 1), (RunnerMessageType::Start, 2)], "once each");
    world.check_restore();
}
