//! The edges: what is written and refused byte for byte, and how long sessions live.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, OutcomeKind};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::fire::Decision;
use orloj_domain::runner::RunnerHeartbeat;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::Clock;
use orloj_runtime::codec;
use orloj_runtime::driver::{Inbound, Service};
use orloj_runtime::log::Record;

use crate::event::Input;
use crate::machine::DispatcherMachine;
use crate::testing::{Ask, START, World, outcome, report, service, state_record};

/// A wall clock and a monotonic clock that move apart.
#[derive(Clone, Default)]
struct TwoClocks {
    wall_s: Arc<AtomicI64>,
    monotonic_s: Arc<AtomicI64>,
}

impl Clock for TwoClocks {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_s.load(Ordering::SeqCst) * 1000)
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.monotonic_s.load(Ordering::SeqCst).unsigned_abs())
    }
}

fn heartbeat(session: &str, lease_ms: i64) -> Record {
    let value = codec::encode(&RunnerHeartbeat {
        runner: "r".parse().expect("runner"),
        session: session.parse().expect("session"),
        sequence: 1,
        at: START,
        since: START,
        lease_ms,
        queues: Vec::new(),
        slots: 1,
        busy: 0,
        is_draining: false,
        host: String::new(),
        queue_weights: std::collections::BTreeMap::new(),
        labels: std::collections::BTreeMap::new(),
    });
    Record { topic: topic::RUNNER_HEARTBEATS.into(), ..state_record("", b"r", Some(value)) }
}

fn attempt_event(ask: &Ask, kind: AttemptEventType, outcome_kind: Option<OutcomeKind>) -> AttemptEvent {
    AttemptEvent {
        kind,
        run_id: ask.run_id(),
        job: ask.job_id(),
        attempt: 1,
        token: 1,
        runner: "r".parse().expect("runner"),
        session: "s".parse().expect("session"),
        at: START,
        lease_ms: Some(15_000),
        isolation: None,
        percent: None,
        outcome: outcome_kind.map(outcome),
        callback_digest: None,
        started_at: None,
        has_output: None,
    }
}

fn attempt_record(event: &AttemptEvent) -> Record {
    let key = event.job.as_str().as_bytes();
    Record { topic: topic::ATTEMPT_EVENTS.into(), ..state_record("", key, Some(codec::encode(event))) }
}

/// Lives through: at these monotonic seconds, these sessions expire.
fn check_expiry(clock: &TwoClocks, service: &mut super::DispatcherService, seconds: &[(i64, &[&str])]) {
    for (second, wanted) in seconds {
        clock.monotonic_s.store(*second, Ordering::SeqCst);
        let is_due = service.shared_deadline().is_some_and(|deadline| deadline <= clock.now());
        assert_eq!(is_due, !wanted.is_empty(), "at {second}");
        let inputs = service.shared_tick(clock.now());
        let names: Vec<_> = inputs
            .iter()
            .map(|input| {
                let Input::SessionExpired(session) = input else { panic!("{input:?}") };
                session.to_string()
            })
            .collect();
        assert_eq!(names, *wanted, "at {second}");
    }
}

#[test]
fn heartbeats_and_claims_keep_sessions_alive_and_the_wall_clock_does_not_matter() {
    let clock = TwoClocks::default();
    let mut service = service(Arc::new(clock.clone()));
    assert_eq!(service.shared_deadline(), None);
    service.read_shared(&heartbeat("h", 20_000), START);
    let claim = attempt_event(&Ask::of("a/b", 1), AttemptEventType::Claimed, None);
    assert!(matches!(service.read(&attempt_record(&claim), START), Inbound::Input(Input::Claimed(_))));
    assert_eq!(service.shared_deadline(), Some(Timestamp::from_millis(15_000)));
    clock.wall_s.store(1_000_000_000, Ordering::SeqCst);
    check_expiry(&clock, &mut service, &[(14, &[]), (15, &["s"]), (19, &[]), (20, &["h"]), (99, &[])]);
    service.read_shared(&heartbeat("h", 20_000), START);
    service.forget_shared();
    assert_eq!(service.shared_deadline(), None);
}

#[test]
fn restored_sessions_get_one_fresh_lease() {
    let mut world = World::new();
    let ask = Ask::of("a/b", 1);
    world.ask(&ask);
    world.decide(&Input::Claimed(report(&ask, 1, 1, "s")));
    let clock = TwoClocks::default();
    clock.monotonic_s.store(1000, Ordering::SeqCst);
    let mut service = service(Arc::new(clock.clone()));
    service.restored(&world.restored(), START);
    check_expiry(&clock, &mut service, &[(1014, &[]), (1015, &["s"])]);
    // The longest lease heard of is the one that a silent session may have.
    service.read_shared(&heartbeat("h", 40_000), START);
    service.restored(&world.restored(), START);
    check_expiry(&clock, &mut service, &[(1054, &[]), (1055, &["h", "s"])]);
}

#[test]
fn a_dead_letter_is_the_request_byte_for_byte() {
    let mut world = World::new();
    let ask = Ask::of("a/b", 1);
    let request = ask.record(world.now());
    world.ask(&ask);
    world.advance_to(5);
    world.decide(&Input::Finished(report(&ask, 1, 1, "s"), outcome(OutcomeKind::Failed)));
    let [letter] = world.dead.as_slice() else { panic!("{:?}", world.dead) };
    assert_eq!((&letter.key, &letter.value), (&request.key, &request.value));
    assert_eq!(letter.headers[0], request.headers[0]);
    let added: Vec<_> = letter.headers[1..]
        .iter()
        .map(|header| format!("{}={}", header.key, String::from_utf8_lossy(header.value.as_deref().expect("value"))))
        .collect();
    let run_id = format!("orloj-run-id={}", ask.run_id());
    let first_failure = format!("orloj-first-failure={}", world.now());
    assert_eq!(
        added,
        [
            "__dlq.errors.topic=fires",
            "__dlq.errors.partition=0",
            "__dlq.errors.offset=7",
            "__dlq.errors.message=failed",
            run_id.as_str(),
            "orloj-job=a/b",
            "orloj-attempt=1",
            "orloj-error-class=failed",
            "orloj-disposition=attemptsExhausted",
            first_failure.as_str(),
            "orloj-redrive-count=0",
        ]
    );
    assert_eq!(world.ready[0].request, request.value.expect("value"));
}

/// Reads a record, and says what became of it: `input`, `nothing`, or the field that is complained about.
fn read(record: &Record) -> String {
    match service(Arc::new(TwoClocks::default())).read(record, START) {
        Inbound::Input(_) => "input".to_owned(),
        Inbound::Nothing => "nothing".to_owned(),
        Inbound::Bad(reason, _) => reason.errors[0].field.clone(),
    }
}

#[test]
fn records_that_ask_nothing_or_cant_be_used() {
    let ask = Ask::of("a/b", 1);
    let fire = ask.record(START);
    let with = |change: &dyn Fn(&mut orloj_domain::fire::FireDecision)| {
        let mut decision = ask.decision(START);
        change(&mut decision);
        Record { value: Some(codec::encode(&decision)), ..fire.clone() }
    };
    let finished = attempt_event(&ask, AttemptEventType::Finished, Some(OutcomeKind::Failed));
    let attempt = attempt_record(&finished);
    let of_kind = |kind| attempt_record(&attempt_event(&ask, kind, None));
    for (record, wanted) in [
        (fire.clone(), "input"),
        (with(&|decision| decision.decision = Decision::Skipped), "nothing"),
        (with(&|decision| decision.decision = Decision::Coalesced), "nothing"),
        (with(&|decision| decision.decision = Decision::Unknown), "nothing"),
        (with(&|decision| decision.spec = None), "decision"),
        (with(&|decision| decision.run_id = None), "decision"),
        (Record { key: Some(b"a/c".to_vec()), ..fire.clone() }, "key"),
        (Record { partition: 3, ..fire.clone() }, "partition"),
        (Record { value: None, ..fire.clone() }, "nothing"),
        (Record { value: Some(b"junk".to_vec()), ..fire.clone() }, "value"),
        (attempt.clone(), "input"),
        (of_kind(AttemptEventType::Claimed), "input"),
        (of_kind(AttemptEventType::Started), "nothing"),
        (of_kind(AttemptEventType::Progress), "nothing"),
        (of_kind(AttemptEventType::Unknown), "nothing"),
        (of_kind(AttemptEventType::Finished), "outcome"),
        (Record { value: None, ..attempt.clone() }, "value"),
        (Record { key: None, ..attempt.clone() }, "key"),
        (Record { value: fire.value.clone(), ..attempt }, "value"),
    ] {
        assert_eq!(read(&record), wanted, "{record:?}");
    }
}

#[test]
fn a_completion_says_which_attempt_has_ended_and_how() {
    let ask = Ask::of("a/b", 1);
    let whole = Command {
        run_id: Some(ask.run_id()),
        attempt: Some(1),
        token: Some(1),
        outcome: Some(outcome(OutcomeKind::Succeeded)),
        ..Command::new(CommandType::Complete, "c".parse().expect("a command id"))
    };
    let of_kind = |kind| Command { outcome: Some(outcome(kind)), ..whole.clone() };
    for (command, wanted) in [
        (whole.clone(), "input"),
        (of_kind(OutcomeKind::Failed), "input"),
        (of_kind(OutcomeKind::TimedOut), "nothing"),
        (of_kind(OutcomeKind::Unknown), "nothing"),
        (Command { outcome: None, ..whole.clone() }, "nothing"),
        (Command { attempt: None, ..whole.clone() }, "nothing"),
        (Command { token: None, ..whole.clone() }, "nothing"),
        (Command { run_id: None, ..whole.clone() }, "nothing"),
    ] {
        let value = Some(codec::encode(&command));
        let record = Record { topic: topic::COMMANDS.into(), ..state_record("", b"a/b", value) };
        assert_eq!(read(&record), wanted, "{command:?}");
    }
}

#[test]
fn state_records_that_cant_be_used_are_refused() {
    let mut world = World::new();
    let ask = Ask { delay_s: 5, ..Ask::of("a/b", 1) };
    world.ask(&ask);
    let ((topic, key), value) = world.state.pop_first().expect("a delayed run");
    let service = service(Arc::new(TwoClocks::default()));
    let mut machine = DispatcherMachine::default();
    for record in [
        state_record(topic::RUN_RETRY, &key, Some(value.clone())),
        state_record(&topic, &key, Some(b"junk".to_vec())),
        state_record(&topic, b"junk", None),
    ] {
        service.replay(&mut machine, &record).expect_err("refused");
    }
    assert_eq!(machine, DispatcherMachine::default());
    service.replay(&mut machine, &state_record(&topic, &key, Some(value))).expect("usable");
    assert_eq!(machine, world.machine);
    service.replay(&mut machine, &state_record(&topic, &key, None)).expect("usable");
    assert_eq!(machine, DispatcherMachine::default());
}
