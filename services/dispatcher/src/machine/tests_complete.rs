//! Decisions as tables, as in `tests`: a callback says how an attempt ended, beside a time-out, a cancel, a lost runner, and
//! once too often.

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::job::OverlapKind;
use orloj_domain::runner::RunnerMessageType;

use super::tests::Do::{Cancel, Claim, Complete, Expire, Finish, Redrive, Request, Tick};
use super::tests::check;
use crate::testing::Ask;

const OK: OutcomeKind = OutcomeKind::Succeeded;
const FAILED: OutcomeKind = OutcomeKind::Failed;
const ABORTED: OutcomeKind = OutcomeKind::Aborted;
const TIMED_OUT: OutcomeKind = OutcomeKind::TimedOut;

fn ask(number: i64) -> Ask {
    Ask { has_callback: true, max_attempts: 2, ..Ask::of("a/b", number) }
}

#[test]
fn a_completion_is_passed_to_the_runner_which_ends_the_attempt() {
    let world = check(
        &[ask(1)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Complete(0, 1, 1, OK), &["stale"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (2, Complete(0, 1, 2, OK), &["stale"]),
            (2, Complete(0, 2, 1, OK), &["stale"]),
            (2, Complete(0, 1, 1, OK), &["running a1 t1 by s, called back"]),
            // Neither a repeat nor another word changes anything.
            (3, Complete(0, 1, 1, OK), &["already_completed"]),
            (3, Complete(0, 1, 1, FAILED), &["already_completed"]),
            (4, Finish(0, 1, 1, "s", OK), &["succeeded a1 t1 -run.state"]),
            (5, Complete(0, 1, 1, FAILED), &["not_live"]),
        ],
    );
    let told: Vec<_> = world.inbox.iter().map(|message| (message.kind, message.outcome.clone())).collect();
    let (start, complete) = (RunnerMessageType::Start, RunnerMessageType::Complete);
    let kinds: Vec<_> = told.iter().map(|(kind, outcome)| (*kind, outcome.as_ref().map(|it| it.kind))).collect();
    assert_eq!(kinds, [(start, None), (complete, Some(OK))]);
    let notes: Vec<_> = world.events.iter().filter_map(|event| event.note.as_deref()).collect();
    assert_eq!(notes, ["its callback says: succeeded"]);
    let end = world.events.last().and_then(|event| event.outcome.clone()).expect("an end");
    assert_eq!(end.message.as_deref(), Some("called back"));
}

#[test]
fn a_completion_that_was_taken_outlives_its_runner() {
    for lost in [Finish(0, 1, 1, "s", ABORTED), Finish(0, 1, 1, "s", TIMED_OUT), Expire("s")] {
        check(
            &[ask(1)],
            &[
                (0, Request(0), &["ready a1 t1"]),
                (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
                (2, Complete(0, 1, 1, OK), &["running a1 t1 by s, called back"]),
                (20, lost, &["succeeded a1 t1 -run.state"]),
            ],
        );
    }
    // What it says of the attempt is what a retry goes by, and the next attempt begins without it.
    check(
        &[ask(1)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (2, Complete(0, 1, 1, FAILED), &["running a1 t1 by s, called back"]),
            (3, Finish(0, 1, 1, "s", FAILED), &["retrying a2 t1 due 4 -run.state"]),
            (3, Complete(0, 1, 1, OK), &["stale"]),
            (4, Tick, &["ready a2 t2 -run.retry"]),
            (5, Claim(0, 2, 2, "s"), &["running a2 t2 by s"]),
            (6, Complete(0, 1, 1, OK), &["stale"]),
            (7, Finish(0, 2, 2, "s", TIMED_OUT), &["dead a2 t2 timedOut attemptsExhausted"]),
            (8, Complete(0, 2, 2, OK), &["not_live"]),
            (9, Redrive(0, "c"), &["ready a3 t3"]),
        ],
    );
}

#[test]
fn whichever_comes_first_counts() {
    let world = check(
        &[ask(1), ask(2)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (0, Request(1), &["ready a1 t1"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (1, Claim(1, 1, 1, "s"), &["running a1 t1 by s"]),
            (2, Cancel(0, "c"), &["running a1 t1 by s until it ends"]),
            (3, Complete(0, 1, 1, OK), &["already_cancelled"]),
            (4, Finish(0, 1, 1, "s", OutcomeKind::Cancelled), &["cancelled a1 t1 cancelled -run.state"]),
            (5, Complete(1, 1, 1, OK), &["running a1 t1 by s, called back"]),
            (6, Cancel(1, "c"), &["already_completed"]),
            (7, Finish(1, 1, 1, "s", OK), &["succeeded a1 t1 -run.state"]),
        ],
    );
    let stops = world.inbox.iter().filter(|message| message.kind == RunnerMessageType::Cancel);
    assert_eq!(stops.count(), 1, "the second is not told to stop");
}

#[test]
fn a_run_that_has_called_back_is_not_replaced_any_more() {
    let replace = |number| Ask { overlap: OverlapKind::Replace, ..ask(number) };
    check(
        &[replace(1), replace(2)],
        &[
            (0, Request(0), &["ready a1 t1"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (2, Complete(0, 1, 1, OK), &["running a1 t1 by s, called back"]),
            (3, Request(1), &["waiting a1 t0"]),
            (4, Finish(0, 1, 1, "s", OK), &["succeeded a1 t1 -run.state", "ready a1 t1"]),
        ],
    );
}

#[test]
fn a_target_that_ends_by_its_answer_has_no_callback() {
    check(
        &[Ask::of("a/b", 1)],
        &[
            (0, Complete(0, 1, 1, OK), &["not_live"]),
            (0, Request(0), &["ready a1 t1"]),
            (1, Claim(0, 1, 1, "s"), &["running a1 t1 by s"]),
            (2, Complete(0, 1, 1, OK), &["no_callback"]),
            (3, Finish(0, 1, 1, "s", FAILED), &["dead a1 t1 failed attemptsExhausted"]),
        ],
    );
}
