//! Records as trigger, dispatcher and runners write them. Not here: the log. Invariant: each goes to the shard of
//! its job.

use std::collections::BTreeMap;
use std::sync::Arc;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, Outcome, OutcomeKind};
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{JobId, RunId};
use orloj_domain::job::JobDefinition;
use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::manifest;
use orloj_domain::owner::{OwnerRecord, POSITIONS_KEY, ShardPositions};
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::runner::{AttemptOutput, OutputChunk, OutputStream, RunnerHeartbeat};
use orloj_domain::setting::{BreakerEvent, BreakerState};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_domain::trigger_state::{Pause, TriggerState};
use orloj_runtime::codec::{self, WireRecord};
use orloj_runtime::log::{Header, NewRecord, Position};

use super::shard;

pub(crate) const NOON: i64 = 1_796_126_400_000;

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(NOON + seconds * 1000)
}

pub(crate) fn job(text: &str) -> JobId {
    text.parse().expect("a job")
}

pub(crate) fn run_of(job: &JobId, seconds: i64) -> RunId {
    RunId::of_fire_time(job, 1, at(seconds))
}

/// A manifest with a schedule, as JSON.
pub(crate) fn manifest(job: &JobId, schedule: &str) -> String {
    format!(
        r#"{{"apiVersion": "orloj/v1", "kind": "Job",
            "metadata": {{"namespace": "{}", "name": "{}", "labels": {{"team": "{}"}}}},
            "spec": {{"schedule": {schedule}, "run": {{"exec": {{"command": ["true"]}}}}}}}}"#,
        job.namespace(),
        job.name(),
        job.namespace(),
    )
}

pub(crate) fn definition(job: &JobId) -> JobDefinition {
    manifest::parse_json(&manifest(job, r#"{"cron": "30 2 * * *", "timeZone": "UTC"}"#)).expect("a good manifest")
}

pub(crate) fn about<T: WireRecord>(topic: &str, job: &JobId, value: &T) -> NewRecord {
    NewRecord::new(topic, shard(job), job.as_str(), Some(codec::encode(value)))
}

pub(crate) fn state(job: &JobId, version: i64, definition: Option<JobDefinition>, offset: i64) -> TriggerState {
    TriggerState {
        job: job.clone(),
        version,
        definition: definition.map(Arc::new),
        definition_offset: offset,
        jobs_next: offset + 1,
        commands_next: 0,
        effective_from: at(0),
        cursor: at(0),
        fires: 0,
        pause: None,
        recent_commands: Vec::new(),
        after_finish: None,
        backfill: None,
        failures: 0,
    }
}

pub(crate) fn event(job: &JobId, kind: JobEventType, version: i64, offset: Option<i64>) -> JobEvent {
    JobEvent {
        kind,
        job: job.clone(),
        version,
        at: at(0),
        definition_offset: offset,
        command_offset: None,
        command_id: None,
        actor: None,
        reason: None,
        errors: Vec::new(),
        incarnation: None,
    }
}

/// What a trigger answers to the definition at a position.
pub(crate) fn accepted(job: &JobId, version: i64, position: &Position) -> Vec<NewRecord> {
    let state = state(job, version, Some(definition(job)), position.offset);
    let event = event(job, JobEventType::Accepted, version, Some(position.offset));
    vec![about(topic::TRIGGER_STATE, job, &state), about(topic::JOB_EVENTS, job, &event)]
}

pub(crate) fn paused(job: &JobId) -> NewRecord {
    let pause = Some(Pause { at: at(5), reason: "lunch".to_owned(), actor: None });
    about(topic::TRIGGER_STATE, job, &TriggerState { pause, ..state(job, 1, Some(definition(job)), 0) })
}

pub(crate) fn decision(job: &JobId, seconds: i64, decision: Decision) -> FireDecision {
    let is_requested = decision == Decision::Requested;
    FireDecision {
        job: job.clone(),
        version: 1,
        trigger: TriggerKind::Schedule,
        fire_time: at(seconds),
        range_end: None,
        decision,
        reason: None,
        run_id: is_requested.then(|| run_of(job, seconds)),
        coalesced_into: None,
        decided_at: at(seconds),
        definition_offset: 0,
        command_offset: None,
        command_id: None,
        actor: None,
        fires: 1,
        calendars: BTreeMap::new(),
        missed: None,
        reports_end: false,
        tzdb: None,
        incarnation: None,
        params: BTreeMap::new(),
        spec: is_requested.then(|| definition(job).spec),
    }
}

pub(crate) fn requested(job: &JobId, seconds: i64) -> NewRecord {
    about(topic::FIRES, job, &decision(job, seconds, Decision::Requested))
}

pub(crate) fn step(job: &JobId, seconds: i64, state: RunState, attempt: i32, token: i64) -> RunEvent {
    RunEvent {
        state,
        run_id: run_of(job, seconds),
        job: job.clone(),
        version: 1,
        trigger: TriggerKind::Schedule,
        fire_time: at(seconds),
        requested_at: at(seconds),
        at: at(seconds + i64::from(attempt) * 10),
        queue: "default".parse().expect("a queue"),
        attempt,
        token,
        due_at: None,
        runner: None,
        outcome: None,
        disposition: None,
        note: None,
        redrives: 0,
        limits: Vec::new(),
        missing_handler: None,
        hedge: None,
        ended_attempts: Vec::new(),
        missing_runner: None,
    }
}

pub(crate) fn ended(job: &JobId, seconds: i64, state: RunState, attempt: i32, kind: OutcomeKind) -> NewRecord {
    let mut event = step(job, seconds, state, attempt, i64::from(attempt));
    event.outcome =
        Some(Outcome { exit_code: Some(i32::from(kind != OutcomeKind::Succeeded)), ..Outcome::new(kind, "") });
    about(topic::RUN_EVENTS, job, &event)
}

pub(crate) fn report(job: &JobId, seconds: i64, kind: AttemptEventType, token: i64, session: &str) -> NewRecord {
    let event = AttemptEvent {
        kind,
        run_id: run_of(job, seconds),
        job: job.clone(),
        attempt: i32::try_from(token).expect("small"),
        token,
        runner: "runner-1".parse().expect("a runner"),
        session: session.parse().expect("a session"),
        at: at(seconds + token),
        lease_ms: None,
        isolation: None,
        percent: None,
        outcome: (kind == AttemptEventType::Finished).then(|| Outcome::new(OutcomeKind::Failed, "its own view")),
        callback_digest: None,
        started_at: (kind == AttemptEventType::Finished).then(|| at(seconds)),
        has_output: None,
    };
    about(topic::ATTEMPT_EVENTS, job, &event)
}

pub(crate) fn output(
    job: &JobId,
    seconds: i64,
    token: i64,
    sequence: i64,
    chunks: &[&[u8]],
    is_last: bool,
) -> NewRecord {
    let chunk = |bytes: &&[u8]| OutputChunk { stream: OutputStream::Stdout, at: at(seconds), bytes: bytes.to_vec() };
    let output = AttemptOutput {
        run_id: run_of(job, seconds),
        attempt: i32::try_from(token).expect("small"),
        token,
        sequence,
        chunks: chunks.iter().map(chunk).collect(),
        dropped_bytes: 0,
        is_last,
    };
    let run_id = output.run_id.to_string();
    NewRecord::new(topic::ATTEMPT_OUTPUT, shard(job), run_id, Some(codec::encode(&output)))
}

pub(crate) fn dead_letter(job: &JobId, seconds: i64, queue: &str) -> NewRecord {
    let request = decision(job, seconds, Decision::Requested);
    let run_id = run_of(job, seconds).to_string();
    let mut record = NewRecord::new(format!("dlq.{queue}"), shard(job), run_id.clone(), Some(codec::encode(&request)));
    record.headers = vec![
        Header::text("__dlq.errors.topic", "fires"),
        Header::text("__dlq.errors.partition", shard(job)),
        Header::text("__dlq.errors.offset", 7),
        Header::text("__dlq.errors.message", "exit code 3"),
        Header::text("orloj-run-id", run_id),
        Header::text("orloj-job", job),
        Header::text("orloj-attempt", 2),
        Header::text("orloj-error-class", "failed"),
        Header::text("orloj-disposition", "attemptsExhausted"),
        Header::text("orloj-first-failure", at(1)),
        Header::text("orloj-redrive-count", 0),
    ];
    record
}

pub(crate) fn heartbeat(runner: &str, now: Timestamp, lease_ms: i64) -> NewRecord {
    let heartbeat = RunnerHeartbeat {
        runner: runner.parse().expect("a runner"),
        session: "s-1".parse().expect("a session"),
        sequence: 1,
        at: now,
        since: now,
        lease_ms,
        queues: vec!["default".parse().expect("a queue")],
        slots: 4,
        busy: 1,
        is_draining: false,
        host: "host:1".to_owned(),
        queue_weights: BTreeMap::from([("default".to_owned(), 3)]),
        labels: BTreeMap::from([("zone".to_owned(), "eu".to_owned())]),
    };
    NewRecord::new(topic::RUNNER_HEARTBEATS, 0, runner, Some(codec::encode(&heartbeat)))
}

pub(crate) fn owner(topic: &str, shard: i32, incarnation: &str) -> NewRecord {
    let owner = OwnerRecord {
        incarnation: incarnation.parse().expect("an incarnation"),
        producer_ids: Vec::new(),
        generation: 1,
        member: "m".to_owned(),
        host: "host:1".to_owned(),
        since: at(0),
    };
    NewRecord::new(topic, shard, incarnation, Some(codec::encode(&owner)))
}

/// How far the trigger has come with `jobs`.
pub(crate) fn positions(partition: i32, next: i64) -> NewRecord {
    let saved = ShardPositions { positions: BTreeMap::from([(topic::JOBS.to_owned(), next)]) };
    NewRecord::new(topic::TRIGGER_STATE, partition, POSITIONS_KEY, Some(codec::encode(&saved)))
}

/// A dispatcher tells of a turn of a breaker.
pub(crate) fn turn(limit: &str, state: BreakerState, seconds: i64, until: Option<i64>) -> NewRecord {
    let has_opened = state == BreakerState::Open;
    let event = BreakerEvent {
        limit: limit.parse().expect("a limit"),
        state,
        at: at(seconds),
        until: until.map(at),
        open_for_ms: 30_000,
        failures: if has_opened { 20 } else { 0 },
        ended: 0,
        window_ms: 60_000,
        run_id: has_opened.then(|| run_of(&job("a/b"), 1)),
        job: has_opened.then(|| job("a/b")),
        reason: Some(format!("{state} because")),
        probe_run_id: None,
        probe_token: 0,
        counts: Vec::new(),
    };
    NewRecord::new(topic::LIMITS, 0, format!("breaker:{limit}"), Some(codec::encode(&event)))
}
