//! Folds as tables: a record in, changes out. Not here: rows (`store`), HTTP (`tests/`). Invariant: what can't be
//! read changes nothing.

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::fire::TriggerKind;
use orloj_domain::id::{JobId, RunId};
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::shard::ShardCount;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Header, Record};

use super::{Change, fold};

fn shards() -> ShardCount {
    ShardCount::new(4).expect("a count")
}

fn job() -> JobId {
    "a/b".parse().expect("a job")
}

fn record(topic: &str, key: &[u8], value: Option<Vec<u8>>) -> Record {
    Record {
        topic: topic.into(),
        partition: shards().shard_of_key(key).0,
        offset: 17,
        timestamp: Timestamp::from_millis(1000),
        key: Some(key.to_vec()),
        value,
        headers: Vec::new(),
    }
}

fn folded(record: &Record) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    fold(record, shards(), &mut changes).map_err(|reason| reason.0)?;
    Ok(changes)
}

#[test]
fn what_can_not_be_read_changes_nothing_and_says_why() {
    for (topic, key, part) in [
        (topic::JOBS, &b"no job"[..], "job id"),
        (topic::FIRES, b"a/b", "no FireDecision"),
        (topic::JOB_EVENTS, b"a/b", "no JobEvent"),
        (topic::TRIGGER_STATE, b"a/b", "no TriggerState"),
        (topic::RUN_EVENTS, b"a/b", "no RunEvent"),
        (topic::ATTEMPT_EVENTS, b"a/b", "no AttemptEvent"),
        (topic::ATTEMPT_OUTPUT, b"x", "no AttemptOutput"),
        (topic::RUNNER_HEARTBEATS, b"x", "no RunnerHeartbeat"),
        (topic::TRIGGER_OWNERS, b"x", "no OwnerRecord"),
        ("dlq.default", b"x", "names no run"),
    ] {
        let reason = folded(&record(topic, key, Some(b"junk".to_vec()))).expect_err(topic);
        assert!(reason.contains(part), "{topic}: {reason}");
    }
    let mut stray = record(topic::JOBS, b"a/b", None);
    stray.partition = (stray.partition + 1) % 4;
    assert!(folded(&stray).expect_err("stray").contains("partition"));
}

#[test]
fn marks_and_tombstones_of_state_are_nobodys_business() {
    for (topic, key) in [
        (topic::FIRES, &b"__barrier"[..]),
        (topic::TRIGGER_STATE, b"__barrier"),
        (topic::RUN_STATE, b"__positions"),
        (topic::DISPATCHER_OWNERS, b"__barrier"),
        (topic::JOBS, b"__anything"),
    ] {
        assert_eq!(folded(&record(topic, key, Some(b"junk".to_vec()))), Ok(Vec::new()), "{topic}");
    }
    assert_eq!(folded(&record(topic::FIRES, b"a/b", None)), Ok(Vec::new()));
    assert_eq!(folded(&record(topic::RUN_STATE, b"a/b", Some(b"not ours".to_vec()))), Ok(Vec::new()));
}

#[test]
fn tombstones_that_mean_something_are_changes() {
    let gone = folded(&record(topic::RUNNER_HEARTBEATS, b"r-1", None)).expect("readable");
    assert_eq!(gone, [Change::RunnerGone("r-1".to_owned())]);
    let run = RunId::of_fire_time(&job(), 1, Timestamp::from_millis(0)).to_string();
    let unparked = folded(&record("dlq.default", run.as_bytes(), None)).expect("readable");
    assert_eq!(unparked, [Change::Unparked(run)]);
    let deleted = folded(&record(topic::JOBS, b"a/b", None)).expect("readable");
    assert!(matches!(&deleted[..], [Change::Offered(offer)] if offer.is_delete && offer.offset == 17));
    let released = folded(&record(topic::TRIGGER_OWNERS, b"i-1", None)).expect("readable");
    assert!(matches!(&released[..], [Change::Released { incarnation, .. }] if incarnation == "i-1"));
}

#[test]
fn a_step_ends_the_attempt_that_it_follows() {
    // State, attempt and token of the step → the attempt that it ends.
    for (state, attempt, token, ended) in [
        (RunState::Delayed, 1, 0, None),
        (RunState::Ready, 1, 1, None),
        (RunState::Running, 1, 1, None),
        (RunState::Retrying, 2, 1, Some(1)),
        (RunState::Ready, 2, 2, None),
        (RunState::Succeeded, 2, 2, Some(2)),
        (RunState::Dead, 3, 5, Some(3)),
        (RunState::Cancelled, 0, 0, None),
        (RunState::Cancelled, 1, 0, None),
    ] {
        let event = RunEvent {
            state,
            run_id: RunId::of_fire_time(&job(), 1, Timestamp::from_millis(0)),
            job: job(),
            version: 1,
            trigger: TriggerKind::Schedule,
            fire_time: Timestamp::from_millis(0),
            requested_at: Timestamp::from_millis(1),
            at: Timestamp::from_millis(2),
            queue: "default".parse().expect("a queue"),
            attempt,
            token,
            due_at: None,
            runner: None,
            outcome: Some(Outcome::new(OutcomeKind::Failed, "")),
            disposition: None,
            note: None,
            redrives: 0,
            limits: Vec::new(),
            missing_handler: None,
            hedge: None,
            ended_attempts: Vec::new(),
            missing_runner: None,
        };
        let changes = folded(&record(topic::RUN_EVENTS, b"a/b", Some(codec::encode(&event)))).expect("readable");
        let found: Vec<(i32, i64)> = changes
            .iter()
            .filter_map(
                |change| if let Change::AttemptEnded(end) = change { Some((end.attempt, end.token)) } else { None },
            )
            .collect();
        assert_eq!(found, ended.map(|attempt| (attempt, token)).into_iter().collect::<Vec<_>>(), "{state} {attempt}");
        let finished: Vec<bool> = changes
            .iter()
            .filter_map(
                |change| if let Change::Stepped(step) = change { Some(step.finished_at.is_some()) } else { None },
            )
            .collect();
        assert_eq!(finished, [state.is_terminal()], "{state}");
    }
}

#[test]
fn quarantine_keeps_whatever_it_is() {
    let mut bad = record(topic::QUARANTINE, b"\xff", Some(b"\xfe".to_vec()));
    bad.headers = vec![Header { key: "x".to_owned(), value: None }, Header::text("orloj-quarantine-offset", "nine")];
    let changes = folded(&bad).expect("always");
    let [Change::Quarantined(row)] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!((row.value.as_deref(), row.source_offset), (Some(&b"\xfe"[..]), None));
    assert_eq!(row.headers, r#"[{"key":"x","value":null}]"#);
    let keyless = Record { key: None, ..bad };
    assert_eq!(folded(&keyless).map(|changes| changes.len()), Ok(1));
}
