//! Decisions as tables, as in `tests`: runs that wait for others of their job, take their place, are cancelled, meet their
//! deadline, or are sent back.

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::job::OverlapKind;
use orloj_domain::runner::RunnerMessageType;

use super::tests::Do::{Cancel, Claim, Expire, Finish, Park, Redrive, RedriveAll, Request, Tick};
use super::tests::check;
use crate::event::{Input, Order};
use crate::testing::{Ask, World, order, outcome, report, words};

const OK: OutcomeKind = OutcomeKind::Succeeded;
const FAILED: OutcomeKind = OutcomeKind::Failed;

fn under(overlap: OverlapKind, number: i64) -> Ask {
    Ask { overlap, max_attempts: 2, ..Ask::of("a/b", number) }
}

#[test]
fn a_queue_goes_on_in_the_order_of_fire_times() {
    let ask = |number| under(OverlapKind::Queue, number);
    check(
        &[ask(1), ask(5), ask(3), ask(4)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Request(1), &["waiting a1 t0"]),
            (0, Request(1), &["already_live"]),
            (0, Request(2), &["waiting a1 t0"]),
            (0, Request(3), &["cancelled a0 t0 overlap"]),
            (1, Claim(1, 1, 0, "s"), &["stop s: stale"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            // A run between two attempts is live: nobody overtakes it.
            (2, Finish(0, 1, 1, "s", FAILED), &["retrying a2 t1 due 3 -run.state"]),
            (3, Tick, &["ready a2 t2 -run.retry"]),
            (4, Finish(0, 2, 2, "s", OK), &["succeeded a2 t2 -run.state", "ready a1 t1"]),
            (5, Finish(2, 1, 1, "s", OK), &["succeeded a1 t1 -run.state", "ready a1 t1"]),
            (5, Finish(1, 1, 1, "s", OK), &["succeeded a1 t1 -run.state"]),
        ],
    );
}

#[test]
fn lanes_hold_as_many_as_they_may() {
    let ask = |number| Ask { concurrency: Some(2), waiting_max: 9, max_attempts: 1, ..Ask::of("a/b", number) };
    let delayed = Ask { delay_s: 60, ..ask(5) };
    check(
        &[ask(1), ask(2), ask(3), ask(4), delayed],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Request(1), &["ready a1 t1"]),
            (0, Request(2), &["waiting a1 t0"]),
            (0, Request(3), &["waiting a1 t0"]),
            (0, Request(4), &["waiting a1 t0"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (1, Claim(1, 1, 1, "s"), &["running a1 t1 by s"]),
            // Both end at once, and make room for two.
            (
                20,
                Expire("s"),
                &[
                    "dead a1 t1 leaseLost attemptsExhausted",
                    "dead a1 t1 leaseLost attemptsExhausted",
                    "ready a1 t1",
                    "ready a1 t1",
                ],
            ),
            // The delay counts from the request.
            (21, Cancel(2, "c"), &["cancelled a1 t1 cancelled -run.state", "delayed a1 t0 due 60 -run.state"]),
        ],
    );
}

#[test]
fn a_replacement_waits_for_the_attempt_that_it_ends() {
    let ask = |number| under(OverlapKind::Replace, number);
    let world = check(
        &[ask(1), ask(2), ask(3), ask(4)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (1, Request(1), &["cancelled a1 t1 cancelled -run.state", "ready a1 t1"]),
            // Whoever took the one that was replaced is told to let it be.
            (1, Claim(0, 1, 1, "s"), &["stop s: not_live"]),
            (1, Claim(1, 1, 1, "s"), &["running a1 t1 by s"]),
            (2, Request(2), &["running a1 t1 by s until it ends", "waiting a1 t0"]),
            (3, Request(3), &["cancelled a0 t0 cancelled -run.state", "waiting a1 t0"]),
            (4, Finish(1, 1, 1, "s", OutcomeKind::Cancelled), &["cancelled a1 t1 cancelled -run.state", "ready a1 t1"]),
        ],
    );
    let told: Vec<_> = world.inbox.iter().map(|message| (message.kind, message.run_id)).collect();
    let [first, second] = [ask(1).run_id(), ask(2).run_id()];
    let (cancel, start) = (RunnerMessageType::Cancel, RunnerMessageType::Start);
    assert_eq!(told, [(cancel, first), (start, second), (cancel, second)]);
    assert!(world.ready.iter().all(|ready| ready.awaits_start));
}

#[test]
fn a_cancelled_run_ends_at_once_or_with_its_attempt() {
    let ask = |number| Ask { max_attempts: 3, ..Ask::of("a/b", number) };
    let delayed = Ask { delay_s: 60, ..ask(1) };
    let world = check(
        &[delayed, ask(2), ask(3), ask(4), ask(5)],
        &[
            (0, Request(0), &["delayed a1 t0 due 60"]),
            (0, Cancel(0, "c"), &["cancelled a0 t0 cancelled -run.delay"]),
            (0, Cancel(0, "c"), &["cancel kept"]),
            (0, Request(1), &["ready a1 t1"]),
            (0, Finish(1, 1, 1, "s", FAILED), &["retrying a2 t1 due 1 -run.state"]),
            (0, Cancel(1, "c"), &["cancelled a1 t1 cancelled -run.retry"]),
            (0, Request(2), &["ready a1 t1"]),
            (0, Claim(2, 1, 1, "s"), &["running a1 t1 by s"]),
            (0, Cancel(2, "c"), &["running a1 t1 by s until it ends"]),
            (0, Cancel(2, "d"), &["stop s: already_cancelled"]),
            // However it failed, there is no other attempt.
            (1, Finish(2, 1, 1, "s", FAILED), &["cancelled a1 t1 cancelled -run.state"]),
            (1, Request(3), &["ready a1 t1"]),
            (1, Claim(3, 1, 1, "s"), &["running a1 t1 by s"]),
            (1, Cancel(3, "c"), &["running a1 t1 by s until it ends"]),
            // It was quicker than the word to its runner.
            (1, Finish(3, 1, 1, "s", OK), &["succeeded a1 t1 -run.state"]),
            (1, Request(4), &["ready a1 t1"]),
            (1, Claim(4, 1, 1, "s"), &["running a1 t1 by s"]),
            (1, Cancel(4, "c"), &["running a1 t1 by s until it ends"]),
            (20, Expire("s"), &["cancelled a1 t1 cancelled -run.state"]),
        ],
    );
    assert!(world.dead.is_empty());
    assert_eq!(world.inbox.len(), 4, "the second time it is said again");
    let why = world.events.iter().find_map(|event| event.note.as_deref()).expect("a reason");
    assert_eq!(why, "cancelled on request by ann");
}

#[test]
fn nothing_starts_after_a_deadline() {
    let ask = |number, deadline_s| Ask { max_attempts: 9, deadline_s: Some(deadline_s), ..Ask::of("a/b", number) };
    let delayed = Ask { delay_s: 60, ..ask(1, 10) };
    check(
        &[delayed, ask(2, 10), ask(3, 10), ask(4, 10), ask(5, 3), ask(6, 1)],
        &[
            (0, Request(0), &["delayed a1 t0 due 60"]),
            (0, Request(1), &["ready a1 t1"]),
            (0, Request(2), &["ready a1 t1"]),
            (0, Claim(2, 1, 1, "s"), &["running a1 t1 by s"]),
            (0, Request(3), &["ready a1 t1"]),
            (0, Claim(3, 1, 1, "s"), &["running a1 t1 by s"]),
            (0, Request(4), &["ready a1 t1"]),
            // The second wait would be over at 4 s, behind the deadline.
            (1, Finish(4, 1, 1, "s", FAILED), &["retrying a2 t1 due 2 -run.state"]),
            (2, Tick, &["ready a2 t2 -run.retry"]),
            (2, Finish(4, 2, 2, "s", FAILED), &["expired a2 t2 expired -run.state"]),
            (3, Request(5), &["expired a0 t0 expired"]),
            (9, Tick, &[]),
            (11, Tick, &["expired a0 t0 expired -run.delay", "expired a1 t1 expired -run.state"]),
            // Their runner ends them; one that fails by itself has no other attempt.
            (11, Finish(2, 1, 1, "s", OutcomeKind::Expired), &["expired a1 t1 expired -run.state"]),
            (12, Finish(3, 1, 1, "s", FAILED), &["expired a1 t1 expired -run.state"]),
        ],
    );
}

#[test]
fn a_dead_run_is_sent_back_once_for_each_command() {
    let ask = Ask { max_attempts: 2, deadline_s: Some(60), ..Ask::of("a/b", 1) };
    let world = check(
        &[ask, Ask::of("a/b", 2)],
        &[
            (0, Redrive(0, "c1"), &["not_dead"]),
            (0, Request(0), &["ready a1 t1"]),
            (0, Redrive(0, "c1"), &["not_dead"]),
            (1, Finish(0, 1, 1, "s", FAILED), &["retrying a2 t1 due 2 -run.state"]),
            (2, Tick, &["ready a2 t2 -run.retry"]),
            (2, Finish(0, 2, 2, "s", FAILED), &["dead a2 t2 failed attemptsExhausted"]),
            (2, Redrive(1, "c1"), &["not_dead"]),
            // Its deadline counts from here, and so do its attempts.
            (900, Redrive(0, "c1"), &["ready a3 t3"]),
            (900, Redrive(0, "c1"), &["repeated"]),
            (901, Finish(0, 3, 3, "s", FAILED), &["retrying a4 t3 due 902 -run.state"]),
            (902, Tick, &["ready a4 t4 -run.retry"]),
            (903, Finish(0, 4, 4, "s", FAILED), &["dead a4 t4 failed attemptsExhausted"]),
            (903, Redrive(0, "c1"), &["repeated"]),
            (904, Redrive(0, "c2"), &["ready a5 t5"]),
            (905, Finish(0, 5, 5, "s", OK), &["succeeded a5 t5 -run.state"]),
            (905, Redrive(0, "c3"), &["not_dead"]),
        ],
    );
    assert!(world.state.is_empty());
    let counts: Vec<_> =
        world.dead.iter().map(|letter| letter.headers.last().and_then(|header| header.value.clone())).collect();
    assert_eq!(counts, [Some(b"0".to_vec()), Some(b"1".to_vec())]);
}

#[test]
fn a_parked_run_goes_back_only_by_its_name() {
    let ask = |number| Ask::of("a/b", number);
    let world = check(
        &[ask(1), ask(2)],
        &[
            (0, Park(0, "p1"), &["not_dead"]),
            (0, Request(0), &["ready a1 t1"]),
            (0, Park(0, "p1"), &["not_dead"]),
            (1, Finish(0, 1, 1, "s", FAILED), &["dead a1 t1 failed attemptsExhausted"]),
            (2, Park(0, "p1"), &["parked: put aside on request by ann"]),
            (2, Park(0, "p1"), &["repeated"]),
            (2, Park(0, "p2"), &["already_parked"]),
            (3, RedriveAll(0, "all"), &["already_parked"]),
            (4, Redrive(0, "r1"), &["ready a2 t2"]),
            (4, Redrive(0, "r1"), &["repeated"]),
            (5, Park(0, "p3"), &["not_dead"]),
            // Whatever it was before, this is another end.
            (5, Finish(0, 2, 2, "s", FAILED), &["dead a2 t2 failed attemptsExhausted"]),
            (6, RedriveAll(0, "all"), &["ready a3 t3"]),
            (7, Request(1), &["ready a1 t1"]),
            (7, Park(1, "p1"), &["not_dead"]),
        ],
    );
    let [letter] = world.parked.as_slice() else { panic!("{:?}", world.parked) };
    let first = &world.dead[0];
    assert_eq!((&letter.key, &letter.value), (&first.key, &first.value));
    let added = |name: &str| {
        let header = letter.headers.iter().find(|header| header.key == name)?;
        header.value.as_deref().map(String::from_utf8_lossy)
    };
    assert_eq!(added("orloj-disposition").as_deref(), Some("parked"));
    assert_eq!(added("orloj-error-class").as_deref(), Some("failed"));
    assert_eq!(added("orloj-parked-reason").as_deref(), Some("parked: put aside on request by ann"));
    let event = world.events.iter().find(|event| event.note.is_some()).expect("a note");
    assert_eq!(event.disposition.as_deref(), Some("parked"));
    assert_eq!(event.note.as_deref(), Some("parked: put aside on request by ann"));
}

#[test]
fn a_dead_run_obeys_the_overlap_policy() {
    let forbid = |number| Ask { max_attempts: 1, ..under(OverlapKind::Forbid, number) };
    let refused = "not sent back: another run of the job is live, and it forbids overlap";
    check(
        &[forbid(1), forbid(2)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Finish(0, 1, 1, "s", FAILED), &["dead a1 t1 failed attemptsExhausted"]),
            (0, Request(1), &["ready a1 t1"]),
            (1, Redrive(0, "c1"), &[refused]),
            (1, Redrive(0, "c1"), &["repeated"]),
            (2, Finish(1, 1, 1, "s", OK), &["succeeded a1 t1 -run.state"]),
            (3, Redrive(0, "c2"), &["ready a2 t2"]),
        ],
    );
}

#[test]
fn a_dead_run_is_sent_back_ten_times_and_kept_for_ninety_days() {
    let mut world = World::new();
    let ask = Ask::of("a/b", 1);
    world.ask(&ask);
    let fail = |world: &mut World| {
        let run = world.machine.run(ask.run_id()).expect("live");
        let report = crate::testing::report(&ask, run.attempt, run.token, "s");
        world.decide(&Input::Finished(report, crate::testing::outcome(FAILED)));
    };
    fail(&mut world);
    for round in 0..10 {
        world.decide(&Input::Redrive(crate::testing::order(&ask, &format!("c{round}"))));
        fail(&mut world);
    }
    let events = world.decide(&Input::Redrive(crate::testing::order(&ask, "once-more")));
    let found: Vec<_> = events.iter().map(words).collect();
    let too_often = "it was sent back 10 times already, which is the most";
    assert_eq!(found, [format!("parked: {too_often}")]);
    world.check_restore();
    let events = world.decide(&Input::Redrive(crate::testing::order(&ask, "and-again")));
    assert_eq!(events.iter().map(words).collect::<Vec<_>>(), [format!("not sent back: {too_often}")]);
    world.check_restore();
    world.advance_to(90 * 86_400 - 1);
    assert!(world.decide(&Input::Tick).is_empty());
    world.advance_to(90 * 86_400);
    assert_eq!(world.decide(&Input::Tick).iter().map(words).collect::<Vec<_>>(), ["forgotten"]);
    assert!(world.state.is_empty());
    world.check_restore();
}

#[test]
fn only_so_many_dead_runs_are_kept() {
    let mut world = World::new();
    let count = i64::try_from(super::graveyard::DEAD_MAX).expect("small") + 3;
    for number in 0..count {
        world.advance_to(number.unsigned_abs());
        let ask = Ask::of("a/b", number);
        world.ask(&ask);
        let report = crate::testing::report(&ask, 1, 1, "s");
        world.decide(&Input::Finished(report, crate::testing::outcome(FAILED)));
    }
    assert_eq!(world.machine.dead(), super::graveyard::DEAD_MAX);
    assert_eq!(world.state.len(), world.machine.dead());
    assert!(world.machine.dead_run(Ask::of("a/b", 2).run_id()).is_none(), "the oldest are gone");
    assert!(world.machine.dead_run(Ask::of("a/b", 3).run_id()).is_some());
    assert_eq!(world.dead.len(), super::graveyard::DEAD_MAX + 3, "every dead letter stays");
    world.check_restore();
}

#[test]
fn one_of_many_that_are_sent_back_at_a_rate_is_delayed_and_its_deadline_with_it() {
    let ask = Ask { max_attempts: 1, deadline_s: Some(30), ..Ask::of("a/b", 1) };
    let mut world = World::new();
    world.ask(&ask);
    world.decide(&Input::Finished(report(&ask, 1, 1, "s"), outcome(FAILED)));
    let not_before = Some(world.now().plus(std::time::Duration::from_secs(60)));
    let redriven = world.decide(&Input::Redrive(Order { not_before, ..order(&ask, "c") }));
    assert_eq!(redriven.iter().map(words).collect::<Vec<_>>(), ["delayed a2 t1 due 60 -run.state"]);
    world.check_restore();
    world.advance_to(60);
    assert_eq!(world.decide(&Input::Tick).iter().map(words).collect::<Vec<_>>(), ["ready a2 t2 -run.delay"]);
    world.advance_to(89);
    assert_eq!(world.decide(&Input::Tick).len(), 0, "its deadline counts from when it may go");
    world.advance_to(90);
    assert_eq!(world.decide(&Input::Tick).iter().map(words).collect::<Vec<_>>(), ["expired a2 t2 expired -run.state"]);
}

#[test]
fn a_cancel_that_comes_before_its_run_ends_it_and_is_not_kept_for_ever() {
    let (early, never) = (Ask::of("a/b", 1), Ask::of("a/b", 2));
    let mut world = World::new();
    for (ask, command, wanted) in
        [(&early, "c1", "cancel kept"), (&early, "c2", "not_live"), (&never, "c3", "cancel kept")]
    {
        let events = world.decide(&Input::Cancel(order(ask, command)));
        assert_eq!(events.iter().map(words).collect::<Vec<_>>(), [wanted]);
        world.check_restore();
    }
    let refused = world.ask(&early);
    assert_eq!(refused.iter().map(words).collect::<Vec<_>>(), ["cancelled a0 t0 cancelled", "cancel dropped"]);
    world.check_restore();
    assert_eq!((world.machine.live(), world.state.len()), (0, 1));
    // Another job's run, were there one of this id, is not meant.
    let other = Input::Cancel(Order { job: "a/other".parse().expect("job"), ..order(&early, "c4") });
    assert_eq!(world.decide(&other).iter().map(words).collect::<Vec<_>>(), ["cancel kept"]);
    assert_eq!(world.ask(&early).iter().map(words).collect::<Vec<_>>(), ["ready a1 t1"]);
    world.advance_to(599);
    assert_eq!(world.decide(&Input::Tick).len(), 0);
    world.advance_to(600);
    let dropped = world.decide(&Input::Tick);
    assert_eq!(dropped.iter().map(words).collect::<Vec<_>>(), ["cancel dropped", "cancel dropped"]);
    world.check_restore();
    assert_eq!(world.state.len(), 1, "the run that is ready");
}

#[test]
fn who_waits_for_others_keeps_the_time_at_which_it_may_go_back() {
    let ask = |number| Ask { max_attempts: 1, waiting_max: 5, ..under(OverlapKind::Queue, number) };
    let mut world = World::new();
    for number in [1, 2] {
        world.ask(&ask(number));
        world.decide(&Input::Finished(report(&ask(number), 1, 1, "s"), outcome(FAILED)));
    }
    let said = |events: Vec<crate::Event>| events.iter().map(words).collect::<Vec<_>>();
    let redrive = |world: &mut World, number, seconds| {
        let not_before = Some(crate::testing::START.plus(std::time::Duration::from_secs(seconds)));
        said(world.decide(&Input::Redrive(Order { not_before, ..order(&ask(number), "c") })))
    };
    assert_eq!(redrive(&mut world, 1, 0), ["ready a2 t1"].map(|it| it.replace("t1", "t2")));
    assert_eq!(redrive(&mut world, 2, 60), ["waiting a2 t1"]);
    let ended = world.decide(&Input::Finished(report(&ask(1), 2, 2, "s"), outcome(OK)));
    assert_eq!(said(ended), ["succeeded a2 t2 -run.state", "delayed a2 t1 due 60 -run.state"]);
    world.check_restore();
}
