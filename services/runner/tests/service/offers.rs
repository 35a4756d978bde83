//! Attempts that are offered to this runner alone. Invariant: one is claimed once, under the newest token, by the session that it was
//! offered to, and only while there is a slot for it.

use std::sync::atomic::Ordering;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, OutcomeKind, ReadyAttempt};
use orloj_domain::id::SessionId;
use orloj_domain::runner::{RunnerMessage, RunnerMessageType};
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::NewRecord;

use crate::support::{Bed, SHARDS, ready, record, shell};

fn session(bed: &Bed) -> SessionId {
    bed.wait_for("a heartbeat", || bed.heartbeats().pop().map(|heartbeat| heartbeat.session))
}

/// What the dispatcher says to a session about an attempt.
fn say(bed: &Bed, kind: RunnerMessageType, attempt: &ReadyAttempt, session: &SessionId) {
    let message = RunnerMessage {
        kind,
        session: session.clone(),
        run_id: attempt.run_id,
        attempt: attempt.attempt,
        token: attempt.token,
        reason: None,
        outcome: None,
        ready: (kind == RunnerMessageType::Offer).then(|| attempt.clone()),
    };
    let shards = ShardCount::new(SHARDS).expect("shards");
    let partition = shards.shard_of(&attempt.job).0;
    bed.append(NewRecord::new(topic::RUNNER_INBOX, partition, "r1", Some(codec::encode(&message))));
}

fn offered(name: &str, script: &str) -> ReadyAttempt {
    ReadyAttempt { awaits_start: true, ..ready(name, shell(script)) }
}

fn claims(bed: &Bed, attempt: &ReadyAttempt) -> Vec<i64> {
    let events = bed.events(attempt.run_id).into_iter();
    events.filter(|event| event.kind == AttemptEventType::Claimed).map(|event| event.token).collect()
}

#[test]
fn an_offer_is_claimed_once_and_starts_when_it_is_told_to() {
    let bed = Bed::start(|_| {});
    let (session, other) = (session(&bed), "another".parse().expect("session"));
    let (attempt, foreign) = (offered("offered", "true"), offered("foreign", "true"));
    say(&bed, RunnerMessageType::Offer, &foreign, &other);
    for _ in 0..3 {
        say(&bed, RunnerMessageType::Offer, &attempt, &session);
    }
    let claimed = bed.report(attempt.run_id, AttemptEventType::Claimed);
    assert_eq!((claimed.session, claimed.token), (session.clone(), attempt.token));
    say(&bed, RunnerMessageType::Start, &attempt, &session);
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    say(&bed, RunnerMessageType::Offer, &attempt, &session);
    // The next token is another attempt at it.
    let again = ReadyAttempt { token: attempt.token + 1, ..attempt.clone() };
    say(&bed, RunnerMessageType::Offer, &again, &session);
    bed.wait_for("the second claim", || (claims(&bed, &attempt).len() > 1).then_some(()));
    assert_eq!(claims(&bed, &attempt), [attempt.token, again.token]);
    assert!(bed.events(foreign.run_id).is_empty(), "it is meant for another session");
}

#[test]
fn offers_wait_for_a_slot_and_what_is_withdrawn_is_not_claimed() {
    let bed = Bed::start(|config| config.slots = 1);
    let session = session(&bed);
    let (withdrawn, kept, last) = (offered("one", "true"), offered("two", "true"), offered("three", "true"));
    // Of the same partition, so that its end is asked for after the withdrawal was read.
    let busy = (0..).map(|number| ready(&format!("busy-{number}"), shell("sleep 600")));
    let mut busy = busy.filter(|busy| record(busy).partition == record(&withdrawn).partition);
    let busy = busy.next().expect("one of many names");
    bed.append(record(&busy));
    bed.report(busy.run_id, AttemptEventType::Started);
    for attempt in [&withdrawn, &kept, &last] {
        say(&bed, RunnerMessageType::Offer, attempt, &session);
    }
    say(&bed, RunnerMessageType::Cancel, &withdrawn, &session);
    say(&bed, RunnerMessageType::Cancel, &busy, &session);
    assert_eq!(bed.outcome(busy.run_id).kind, OutcomeKind::Cancelled);
    // They are of different partitions, and which of them is read first is open: a word for each, before either is waited for.
    for attempt in [&kept, &last] {
        say(&bed, RunnerMessageType::Start, attempt, &session);
    }
    for attempt in [&kept, &last] {
        assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    }
    let before_its_end = claims(&bed, &withdrawn);
    assert!(before_its_end.is_empty(), "{before_its_end:?}");
}

#[test]
fn a_claim_that_was_not_taken_is_made_again() {
    let bed = Bed::start(|_| {});
    let session = session(&bed);
    bed.refuses.store(true, Ordering::SeqCst);
    let attempt = offered("refused", "true");
    say(&bed, RunnerMessageType::Offer, &attempt, &session);
    // Another one, of the queue: its claim is none of the plain appends, so that it shows that the thread goes on.
    let other = ready("other", shell("true"));
    bed.append(record(&other));
    bed.report(other.run_id, AttemptEventType::Claimed);
    assert_eq!(claims(&bed, &attempt), Vec::<i64>::new());
    bed.refuses.store(false, Ordering::SeqCst);
    bed.report(attempt.run_id, AttemptEventType::Claimed);
    say(&bed, RunnerMessageType::Start, &attempt, &session);
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
}

/// Neither waits until the other has no more.
#[test]
fn offers_and_the_attempts_of_the_queue_take_turns() {
    const EACH: usize = 20;
    let bed = Bed::start(|config| config.slots = 1);
    let session = session(&bed);
    let busy = ready("busy", shell("sleep 600"));
    bed.append(record(&busy));
    bed.report(busy.run_id, AttemptEventType::Started);
    for number in 0..EACH {
        bed.append(record(&ready(&format!("own-{number}"), shell("true"))));
        let offer = ReadyAttempt { awaits_start: false, ..offered(&format!("offer-{number}"), "true") };
        say(&bed, RunnerMessageType::Offer, &offer, &session);
    }
    say(&bed, RunnerMessageType::Cancel, &busy, &session);
    let mut claimed: Vec<AttemptEvent> = bed.wait_for("all claims", || {
        let mut events: Vec<AttemptEvent> = bed.decoded(topic::ATTEMPT_EVENTS);
        events.retain(|event| event.kind == AttemptEventType::Claimed && event.run_id != busy.run_id);
        (events.len() == 2 * EACH).then_some(events)
    });
    claimed.sort_by_key(|event| event.at);
    let of_offers =
        |events: &[AttemptEvent]| events.iter().filter(|event| event.job.name().starts_with("offer")).count();
    let first_half = of_offers(&claimed[..EACH]);
    assert!((EACH / 2 - 3..=EACH / 2 + 3).contains(&first_half), "{first_half} of the first {EACH} were offered");
}
