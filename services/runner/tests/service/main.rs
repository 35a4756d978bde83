//! The runner as a service on a log in memory: claim, execute, report, keep the lease, drain. Real processes,
//! the real claim protocol.

mod callbacks;
mod handlers;
mod http;
mod offers;
mod paused;
mod progress;
mod support;
mod weights;
mod words;

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use orloj_domain::attempt::{AttemptEventType, OutcomeKind};
use orloj_domain::id::QueueName;
use orloj_domain::job::{Delivery, Target};
use orloj_domain::runner::OutputStream;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::ManualClock;
use orloj_runtime::log::{Header, NewRecord};
use support::{Bed, ready, ready_by, record, shell, text_of};

fn is_alive(pid: &str) -> bool {
    std::path::Path::new("/proc").join(pid.trim()).exists()
}

#[test]
fn an_attempt_is_claimed_started_told_of_and_finished() {
    let mut bed = Bed::start(|_| {});
    let attempt = ready("hello", shell("echo one; echo two >&2; echo $ORLOJ_FENCING_TOKEN $ORLOJ_JOB; exit 3"));
    bed.append(record(&attempt));
    let outcome = bed.outcome(attempt.run_id);
    assert_eq!((outcome.kind, outcome.exit_code), (OutcomeKind::Failed, Some(3)));
    let events = bed.events(attempt.run_id);
    // One that takes longer than others are waited for has a record of its start, too.
    let kinds: Vec<_> = events.iter().map(|event| event.kind).filter(|kind| *kind != Started).collect();
    use AttemptEventType::{Claimed, Finished, Started};
    assert_eq!(kinds, [Claimed, Finished]);
    let finished = &events[events.len() - 1];
    assert!(finished.started_at.is_some_and(|at| (events[0].at..=finished.at).contains(&at)), "{finished:?}");
    let session = &bed.heartbeats()[0].session;
    for event in &events {
        assert_eq!((event.token, event.attempt, &event.session, event.runner.as_str()), (5, 1, session, "r1"));
    }
    assert_eq!(events[0].lease_ms, Some(15_000));
    assert_eq!(finished.isolation.as_deref(), Some("session"), "no groups without `uses_cgroups`");
    let outputs = bed.outputs(attempt.run_id);
    assert_eq!(text_of(&outputs, OutputStream::Stdout), "one\n5 test/hello\n");
    assert_eq!(text_of(&outputs, OutputStream::Stderr), "two\n");
    assert!(outputs.last().is_some_and(|output| output.is_last && output.token == 5));
    assert_eq!(bed.report(attempt.run_id, AttemptEventType::Finished).has_output, Some(true));
    bed.shutdown.request();
    bed.end().expect("a clean end");
    assert!(std::fs::read_dir(bed.folder.path().join("work")).expect("folder").next().is_none(), "nothing is left");
}

/// Whether this machine lets the tests make groups is for the runner to find out; what it reports must be what is so.
#[test]
fn the_isolation_that_is_told_is_what_the_process_has() {
    let bed = Bed::start(|config| config.uses_cgroups = true);
    let attempt = ready("group", shell("grep ^0:: /proc/self/cgroup"));
    bed.append(record(&attempt));
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    let is_in_group = text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout).contains("/orloj-");
    let expected = if is_in_group { "cgroup" } else { "session" };
    let finished = bed.report(attempt.run_id, AttemptEventType::Finished);
    assert_eq!(finished.isolation.as_deref(), Some(expected));
}

#[test]
fn output_is_there_while_the_attempt_runs() {
    let bed = Bed::start(|_| {});
    let go = bed.folder.path().join("go");
    let script = format!("echo early; while [ ! -e {} ]; do sleep 0.01; done; echo late", go.display());
    let attempt = ready("live", shell(&script));
    bed.append(record(&attempt));
    bed.wait_for("early output", || {
        (text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout) == "early\n").then_some(())
    });
    assert!(bed.events(attempt.run_id).iter().all(|event| event.kind != AttemptEventType::Finished));
    std::fs::write(go, "").expect("file");
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    assert_eq!(text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout), "early\nlate\n");
}

#[test]
fn no_more_is_taken_than_there_are_slots() {
    let bed = Bed::start(|config| config.slots = 2);
    let go = bed.folder.path().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let attempts: Vec<_> = (0..6).map(|index| ready(&format!("slot-{index}"), shell(&script))).collect();
    for attempt in &attempts {
        bed.append(record(attempt));
    }
    let started = || {
        let events = bed.decoded::<orloj_domain::attempt::AttemptEvent>(topic::ATTEMPT_EVENTS);
        let count = |kind| events.iter().filter(|event| event.kind == kind).count();
        (count(AttemptEventType::Claimed), count(AttemptEventType::Started))
    };
    bed.wait_for("two started", || (started().1 == 2).then_some(()));
    assert_eq!(started(), (2, 2));
    std::fs::write(go, "").expect("file");
    for attempt in &attempts {
        assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    }
}

#[test]
fn what_cannot_be_read_is_kept_and_the_next_is_taken() {
    let bed = Bed::start(|_| {});
    let name = topic::run_ready(&QueueName::default());
    let mut broken = NewRecord::new(name.as_str(), 3, "any key", Some(b"\xc3\x01 no attempt".to_vec()));
    broken.headers = vec![Header::text("traceparent", "00-1-2-3")];
    bed.append(broken.clone());
    let mut hollow = ready("hollow", shell("true"));
    hollow.request = b"no request".to_vec();
    bed.append(record(&hollow));
    let good = ready("good", shell("true"));
    bed.append(record(&good));
    assert_eq!(bed.outcome(good.run_id).kind, OutcomeKind::Succeeded);
    let outcome = bed.outcome(hollow.run_id);
    assert_eq!(outcome.kind, OutcomeKind::NotStarted);
    assert!(outcome.message.is_some_and(|text| text.contains("request")));
    let kept = bed.wait_for("quarantine", || Some(bed.records(topic::QUARANTINE)).filter(|kept| kept.len() == 2));
    let kept = kept.into_iter().find(|record| record.key == broken.key).expect("the broken one");
    assert_eq!((&kept.value, &kept.headers[0]), (&broken.value, &broken.headers[0]));
    let names: Vec<_> = kept.headers.iter().skip(1).map(|header| header.key.as_str()).collect();
    assert_eq!(names, ["topic", "partition", "offset", "error"].map(|word| format!("orloj-quarantine-{word}")));
}

#[test]
fn a_target_without_an_executor_ends_with_its_field() {
    let bed = Bed::start(|_| {});
    let message = orloj_domain::job::KafkaTarget {
        cluster: "default".to_owned(),
        topic: "invoices.due".to_owned(),
        key: String::new(),
        value: String::new(),
        headers: std::collections::BTreeMap::new(),
    };
    let attempt = ready("message", Target::KafkaTarget(message));
    bed.append(record(&attempt));
    let outcome = bed.outcome(attempt.run_id);
    assert_eq!(outcome.kind, OutcomeKind::NotStarted);
    assert!(outcome.message.is_some_and(|text| text.contains("spec.run.kafka")));
    // It has written nothing, and its end says that there is nothing to wait for.
    assert_eq!(bed.outputs(attempt.run_id), []);
    assert_eq!(bed.report(attempt.run_id, AttemptEventType::Finished).has_output, Some(false));
}

#[test]
fn a_drain_waits_for_what_runs_and_takes_no_more() {
    let mut bed = Bed::start(|_| {});
    let go = bed.folder.path().join("go");
    let script = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let attempt = ready("first", shell(&script));
    bed.append(record(&attempt));
    bed.report(attempt.run_id, AttemptEventType::Started);
    bed.shutdown.request();
    bed.wait_for("a draining heartbeat", || bed.heartbeats().iter().any(|beat| beat.is_draining).then_some(()));
    let late = ready("late", shell("true"));
    bed.append(record(&late));
    std::fs::write(go, "").expect("file");
    bed.end().expect("a clean end");
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    assert!(bed.events(late.run_id).is_empty(), "claimed while draining");
}

#[test]
fn a_drain_ends_what_takes_too_long() {
    let mut bed = Bed::start(|config| config.drain_timeout = Duration::from_millis(100));
    let attempt = ready("long", shell("echo $$; exec sleep 1000"));
    bed.append(record(&attempt));
    let pid = bed.wait_for("its number", || {
        Some(text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout)).filter(|text| text.ends_with('\n'))
    });
    bed.shutdown.request();
    bed.end().expect("a clean end");
    let outcome = bed.outcome(attempt.run_id);
    assert_eq!((outcome.kind, outcome.signal), (OutcomeKind::HandedBack, Some(15)), "{outcome:?}");
    assert!(!is_alive(&pid));
}

/// What has begun may have done something, and may not be done again.
#[test]
fn a_drain_gives_nothing_back_that_began_under_at_most_once() {
    let mut bed = Bed::start(|config| config.drain_timeout = Duration::from_millis(100));
    let attempt = ready_by("once", shell("exec sleep 1000"), Delivery::AtMostOnce);
    bed.append(record(&attempt));
    bed.wait_for("its start", || {
        bed.events(attempt.run_id).iter().any(|event| event.kind == AttemptEventType::Started).then_some(())
    });
    bed.shutdown.request();
    bed.end().expect("a clean end");
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Aborted);
}

#[test]
fn a_runner_that_cannot_confirm_its_lease_kills_its_attempts_and_begins_anew() {
    let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
    // The waits are real and short; what has passed is only what the test says.
    let bed = Bed::start_with(Arc::new(clock.clone()), |config| config.lease = Duration::from_millis(900));
    let attempt = ready("fenced", shell("trap '' TERM; echo $$; while :; do sleep 1; done"));
    bed.append(record(&attempt));
    let pid = bed.wait_for("its number", || {
        Some(text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout)).filter(|text| text.ends_with('\n'))
    });
    let before = bed.heartbeats()[0].session.clone();
    bed.refuses.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_millis(900));
    bed.wait_for("its death", || (!is_alive(&pid)).then_some(()));
    assert!(bed.events(attempt.run_id).iter().all(|event| event.kind != AttemptEventType::Finished));
    bed.refuses.store(false, Ordering::SeqCst);
    let next = ready("after", shell("true"));
    bed.append(record(&next));
    let finished = bed.wait_for("a new session", || {
        clock.advance(Duration::from_millis(10));
        bed.events(next.run_id).into_iter().find(|event| event.kind == AttemptEventType::Finished)
    });
    assert_ne!(finished.session, before);
    let stale = bed.events(attempt.run_id);
    let told = stale.iter().find_map(|event| event.outcome.as_ref());
    assert!(told.is_none_or(|outcome| outcome.kind == OutcomeKind::Aborted), "{told:?}");
}

#[test]
fn a_runner_that_can_not_run_attempts_as_it_is_told_does_not_start() {
    let mut bed = Bed::start(|config| config.user = Some("no-such-user".to_owned()));
    let refused = bed.end().expect_err("nobody it knows").to_string();
    assert!(refused.contains("`runner.user` is `no-such-user`: this machine has no user"), "{refused}");
    if std::fs::metadata("/proc/self").expect("a process").uid() != 0 {
        eprintln!("skipped: only a runner of root needs a program that changes the user");
        return;
    }
    for user in [None, Some("daemon".to_owned())] {
        let mut bed = Bed::start(|config| config.user = user);
        let refused = bed.end().expect_err("no launcher").to_string();
        assert!(refused.contains("no program that changes the user") && refused.contains("`runner.user`"), "{refused}");
    }
}
