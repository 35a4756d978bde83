//! What the dispatcher says to a runner: stop, start, and until when. A log in memory and real processes.

use std::time::Duration;

use crate::support::{Bed, ready, ready_by, record, shell};
use orloj_domain::attempt::{AttemptEventType, OutcomeKind, ReadyAttempt};
use orloj_domain::job::Delivery;
use orloj_domain::runner::{RunnerMessage, RunnerMessageType};
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::codec;
use orloj_runtime::log::NewRecord;

/// What the dispatcher writes to the inbox of a runner about an attempt that it has seen claimed.
pub(crate) fn word(bed: &Bed, attempt: &ReadyAttempt, kind: RunnerMessageType, token: i64, runner: &str) -> NewRecord {
    let claimed = bed.report(attempt.run_id, AttemptEventType::Claimed);
    let message = RunnerMessage {
        kind,
        session: claimed.session,
        run_id: attempt.run_id,
        attempt: attempt.attempt,
        token,
        reason: Some("for a test".to_owned()),
        outcome: None,
        ready: None,
    };
    NewRecord::new(topic::RUNNER_INBOX, 1, runner, Some(codec::encode(&message)))
}

#[test]
fn a_cancelled_attempt_is_stopped_and_told_of() {
    let bed = Bed::start(|_| {});
    let attempt = ready("cancelled", shell("sleep 600 & sleep 600"));
    bed.append(record(&attempt));
    bed.report(attempt.run_id, AttemptEventType::Started);
    // Neither is for this attempt.
    bed.append(word(&bed, &attempt, RunnerMessageType::Cancel, attempt.token, "r2"));
    bed.append(word(&bed, &attempt, RunnerMessageType::Cancel, attempt.token - 1, "r1"));
    bed.append(word(&bed, &attempt, RunnerMessageType::Cancel, attempt.token, "r1"));
    let outcome = bed.outcome(attempt.run_id);
    assert_eq!(outcome.kind, OutcomeKind::Cancelled);
    assert!(outcome.message.expect("a message").contains("for a test"));
}

#[test]
fn an_attempt_that_waits_starts_when_it_is_told_to() {
    let bed = Bed::start(|_| {});
    let waiting = |name: &str| ReadyAttempt { awaits_start: true, ..ready(name, shell("true")) };
    let (first, second) = (waiting("first"), waiting("second"));
    bed.append(record(&first));
    bed.append(record(&second));
    bed.append(word(&bed, &second, RunnerMessageType::Cancel, second.token, "r1"));
    let outcome = bed.outcome(second.run_id);
    assert_eq!((outcome.kind, outcome.message.as_deref()), (OutcomeKind::Cancelled, Some("not started: for a test")));
    assert!(bed.events(first.run_id).iter().all(|event| event.kind == AttemptEventType::Claimed));
    bed.append(word(&bed, &first, RunnerMessageType::Start, first.token, "r1"));
    assert_eq!(bed.outcome(first.run_id).kind, OutcomeKind::Succeeded);
    assert!(bed.has_started(first.run_id) && !bed.has_started(second.run_id));
}

#[test]
fn a_word_that_never_comes_is_not_waited_for_for_ever() {
    let bed = Bed::start(|config| config.lease = Duration::from_millis(300));
    // Neither has begun, so that both may be given to another runner.
    for (name, delivery) in [("unheard", Delivery::AtLeastOnce), ("unheard-once", Delivery::AtMostOnce)] {
        let attempt = ReadyAttempt { awaits_start: true, ..ready_by(name, shell("true"), delivery) };
        bed.append(record(&attempt));
        let outcome = bed.outcome(attempt.run_id);
        assert_eq!(outcome.kind, OutcomeKind::HandedBack);
        assert!(outcome.message.expect("a message").contains("no word from the dispatcher"));
    }
}

#[test]
fn nothing_starts_or_goes_on_after_the_deadline() {
    let bed = Bed::start(|_| {});
    let now = SystemClock::new().now();
    let until = |name: &str, deadline| ReadyAttempt { deadline: Some(deadline), ..ready(name, shell("sleep 600")) };
    let late = until("late", now.minus(Duration::from_secs(1)));
    let short = until("short", now.plus(Duration::from_secs(2)));
    let unheard = ReadyAttempt { awaits_start: true, ..until("unheard", now.plus(Duration::from_secs(2))) };
    for attempt in [&late, &short, &unheard] {
        bed.append(record(attempt));
    }
    for (attempt, is_started) in [(&late, false), (&short, true), (&unheard, false)] {
        assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Expired);
        assert_eq!(bed.has_started(attempt.run_id), is_started, "{}", attempt.job);
    }
}
