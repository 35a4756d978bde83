//! Fixed records for the golden vectors: every record type, every target and kind of rule, each optional field
//! once present and once absent. Not here: what is done with them. Invariant: a sample never changes once its
//! vector is released; a new case is a new sample.

#![allow(dead_code, unused_imports, reason = "each test file uses some of the samples")]

mod attempts;

use std::collections::BTreeMap;
use std::sync::Arc;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::command::{Command, CommandType, PauseMissed};
use orloj_domain::fire::{Decision, FireDecision, Reason, TriggerKind};
use orloj_domain::id::{JobId, LimitId, QueueName, RunId};
use orloj_domain::job::{
    AfterFinishRule, AtRule, CronRule, Delivery, Dialect, DstFold, DstGap, EveryRule, ExecTarget, HandlerTarget,
    HeaderValue, HttpCompletion, HttpTarget, JobDefinition, KafkaTarget, MissedKind, MissedPolicy, OverlapKind,
    OverlapPolicy, ProcessLimits, RetryPolicy, RunSpec, ScheduleRule, ShellTarget, Target,
};
use orloj_domain::job_event::{FieldError, JobEvent, JobEventType};
use orloj_domain::owner::{Barrier, OwnerRecord, ShardPositions};
use orloj_domain::run::{EndedAttempt, LiveHedge, LiveRun, RecordHeader, RunEvent, RunHedge, RunState};
use orloj_domain::setting::{
    BreakerCount, BreakerEvent, BreakerState, LimitEvent, LimitEventType, Setting, SettingKind, Verdict,
};
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::{AfterFinish, Backfill, Pause, TriggerState};

pub(crate) use attempts::{attempt_event, heartbeat, message, output, ready};

/// Parses an id that is known to be valid.
pub(crate) fn id<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().expect("a valid id")
}

/// Noon of a day of January 2026 and some milliseconds.
pub(crate) fn at(day: i64, millis: i64) -> Timestamp {
    Timestamp::from_millis(1_767_225_600_000 + (day - 1) * 86_400_000 + 43_200_000 + millis)
}

fn texts(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn job() -> JobId {
    id("billing/nightly-invoice")
}

fn run() -> RunId {
    RunId::of_fire_time(&job(), 3, at(5, 0))
}

/// A program with everything set.
pub(crate) fn exec() -> Target {
    Target::ExecTarget(ExecTarget {
        command: vec!["pg_dump".to_owned(), "-Fc".to_owned(), "app".to_owned()],
        env: texts(&[("PGHOST", "db"), ("PGUSER", "backup")]),
        working_dir: Some("/srv".to_owned()),
        stdin: String::new(),
        limits: Some(ProcessLimits {
            memory_bytes: Some(256 * 1024 * 1024),
            cpu_seconds: Some(600),
            open_files: Some(1024),
            processes: None,
        }),
    })
}

/// What a run needs, with a target.
pub(crate) fn spec(target: Target) -> RunSpec {
    RunSpec {
        queue: id("reports"),
        priority: 7,
        start_delay_ms: 1500,
        timeout_ms: 600_000,
        deadline_ms: Some(7_200_000),
        retry: RetryPolicy {
            max_attempts: 5,
            initial_ms: 5000,
            factor: 2.0,
            max_ms: 600_000,
            jitter: 0.2,
            non_retryable_exit_codes: vec![2, -1],
        },
        delivery: Delivery::AtMostOnce,
        overlap: OverlapPolicy { policy: OverlapKind::Forbid, max: 100 },
        concurrency: Some(1),
        pause_after_failures: 10,
        limits: vec!["warehouse".parse().expect("limit")],
        hedge_after_ms: Some(30_000),
        runner_labels: texts(&[("gpu", "true"), ("zone", "eu-1")]),
        target,
    }
}

/// A definition with every kind of rule.
pub(crate) fn definition() -> JobDefinition {
    let cron = CronRule {
        expression: "30 2 * * MON-FRI".to_owned(),
        time_zone: "Europe/Berlin".to_owned(),
        dialect: Dialect::Quartz,
        gap: DstGap::Skip,
        fold: DstFold::Both,
        exclude: vec![id("holidays"), id("change-freeze")],
        only: vec![id("business-days")],
    };
    JobDefinition {
        job: job(),
        labels: texts(&[("team", "billing")]),
        annotations: texts(&[("runbook", "https://wiki.internal/faktura-č-ž-☂")]),
        schedule: vec![
            ScheduleRule::CronRule(cron),
            ScheduleRule::EveryRule(EveryRule {
                period_ms: 900_000,
                anchor: at(1, 0),
                exclude: vec![id("holidays")],
                only: Vec::new(),
            }),
            ScheduleRule::AtRule(AtRule { at: at(20, 1), exclude: Vec::new(), only: vec![id("business-days")] }),
            ScheduleRule::AfterFinishRule(AfterFinishRule { delay_ms: 600_000, exclude: Vec::new(), only: Vec::new() }),
        ],
        not_before: Some(at(1, 0)),
        not_after: Some(at(31, 0)),
        max_fires: Some(1000),
        jitter_ms: 30_000,
        missed: MissedPolicy { policy: MissedKind::All, window_ms: 3_600_000, max: 100 },
        suspend: true,
        spec: Arc::new(spec(Target::HttpTarget(HttpTarget {
            method: "POST".to_owned(),
            url: "https://billing.internal/run".to_owned(),
            headers: BTreeMap::from([
                ("Authorization".to_owned(), HeaderValue { value: None, secret_ref: Some("billing-token".to_owned()) }),
                ("X-Trace".to_owned(), HeaderValue { value: Some("on".to_owned()), secret_ref: None }),
            ]),
            body: "{}".to_owned(),
            success: vec!["200-299".to_owned(), "304".to_owned()],
            completion: HttpCompletion::Callback,
        }))),
    }
}

/// A definition in which everything optional is absent.
pub(crate) fn plain_definition(target: Target) -> JobDefinition {
    JobDefinition {
        job: id("a/b"),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        schedule: Vec::new(),
        not_before: None,
        not_after: None,
        max_fires: None,
        jitter_ms: 0,
        missed: MissedPolicy { policy: MissedKind::Skip, window_ms: 3_600_000, max: 100 },
        suspend: false,
        spec: Arc::new(RunSpec {
            deadline_ms: None,
            concurrency: None,
            retry: RetryPolicy { non_retryable_exit_codes: Vec::new(), ..spec(exec()).retry },
            queue: QueueName::default(),
            ..spec(target)
        }),
    }
}

/// A message target.
pub(crate) fn kafka() -> Target {
    Target::KafkaTarget(KafkaTarget {
        cluster: "default".to_owned(),
        topic: "invoices.due".to_owned(),
        key: "7".to_owned(),
        value: "{}".to_owned(),
        headers: texts(&[("tenant", "7")]),
    })
}

/// A handler target.
pub(crate) fn handler() -> Target {
    Target::HandlerTarget(HandlerTarget { name: "send-invoices".to_owned(), payload: "{\"tenant\":7}".to_owned() })
}

/// A script target.
pub(crate) fn shell() -> Target {
    Target::ShellTarget(ShellTarget {
        script: "pg_dump app | gzip > /srv/app.gz".to_owned(),
        env: BTreeMap::new(),
        working_dir: None,
        stdin: "line\n".to_owned(),
        shell: Some("/bin/bash".to_owned()),
        limits: Some(ProcessLimits { processes: Some(20), ..ProcessLimits::default() }),
    })
}

/// A requested run.
pub(crate) fn requested() -> FireDecision {
    FireDecision {
        job: job(),
        version: 3,
        trigger: TriggerKind::Schedule,
        fire_time: at(5, 0),
        range_end: None,
        decision: Decision::Requested,
        reason: None,
        run_id: Some(run()),
        coalesced_into: None,
        decided_at: at(5, 12),
        definition_offset: 4711,
        command_offset: Some(12),
        command_id: Some(id("c-1")),
        actor: Some("ana@example.org".to_owned()),
        fires: 42,
        tzdb: Some("2026a".to_owned()),
        calendars: BTreeMap::from([(id("change-freeze"), -1), (id("holidays"), 7)]),
        incarnation: Some(id("trigger-7f3a9c")),
        missed: None,
        reports_end: true,
        params: texts(&[("tenant", "7")]),
        spec: Some(spec(exec()).into()),
    }
}

/// A skipped range of fire times.
pub(crate) fn skipped() -> FireDecision {
    FireDecision {
        range_end: Some(at(6, 0)),
        decision: Decision::Skipped,
        reason: Some(Reason::Misfire),
        run_id: None,
        coalesced_into: Some(at(6, 0)),
        command_offset: None,
        command_id: None,
        actor: None,
        tzdb: None,
        calendars: BTreeMap::new(),
        incarnation: None,
        missed: Some(MissedPolicy { policy: MissedKind::All, window_ms: 60_000, max: 7 }),
        reports_end: false,
        params: BTreeMap::new(),
        spec: None,
        ..requested()
    }
}

/// A rejected definition.
pub(crate) fn job_event() -> JobEvent {
    JobEvent {
        kind: JobEventType::Rejected,
        job: job(),
        version: 3,
        at: at(5, 1),
        definition_offset: Some(4712),
        command_offset: None,
        command_id: None,
        actor: Some("ana@example.org".to_owned()),
        reason: None,
        errors: vec![FieldError::new("spec.schedule.cron", "61 * * * *", "minute is 0 to 59")],
        incarnation: Some(id("trigger-7f3a9c")),
    }
}

/// A paused job.
pub(crate) fn trigger_state() -> TriggerState {
    TriggerState {
        job: job(),
        version: 3,
        definition: Some(plain_definition(shell()).into()),
        definition_offset: 4711,
        jobs_next: 4713,
        commands_next: 13,
        effective_from: at(4, 0),
        cursor: at(5, 0),
        fires: 42,
        pause: Some(Pause { at: at(5, 2), reason: "migration".to_owned(), actor: None }),
        after_finish: Some(AfterFinish {
            since: Timestamp::from_millis(1_796_000_000_000),
            awaits: Some(Timestamp::from_millis(1_796_000_600_000)),
        }),
        recent_commands: vec![id("c-1"), id("c-2")],
        backfill: Some(Backfill {
            command_id: id("c-2"),
            command_offset: 12,
            actor: Some("ana@example.org".to_owned()),
            since: at(5, 1),
            next: at(2, 1),
            until: at(4, 0),
            fire_times: vec![at(2, 0), at(3, 0)],
            concurrency: 2,
            requested: 1,
            awaits: vec![at(2, 0)],
            params: texts(&[("tenant", "7")]),
        }),
        failures: 2,
    }
}

/// A deleted job.
pub(crate) fn deleted_state() -> TriggerState {
    TriggerState {
        definition: None,
        pause: None,
        after_finish: None,
        backfill: None,
        recent_commands: Vec::new(),
        ..trigger_state()
    }
}

/// A claim.
pub(crate) fn owner() -> OwnerRecord {
    OwnerRecord {
        incarnation: id("trigger-7f3a9c"),
        producer_ids: vec!["orloj.trigger.7f3a9c.0".to_owned(), "orloj.trigger.7f3a9c.1".to_owned()],
        generation: 17,
        member: "rdkafka-4c1e".to_owned(),
        host: "node-1 4242".to_owned(),
        since: at(5, 0),
    }
}

/// A barrier.
pub(crate) fn barrier() -> Barrier {
    Barrier { incarnation: id("trigger-7f3a9c"), at: at(5, 0) }
}

/// Positions.
pub(crate) fn positions() -> ShardPositions {
    ShardPositions { positions: BTreeMap::from([("commands".to_owned(), 13), ("jobs".to_owned(), 4713)]) }
}

/// A backfill.
pub(crate) fn command() -> Command {
    Command {
        kind: CommandType::Backfill,
        command_id: id("c-2"),
        at: Some(at(5, 3)),
        actor: Some("ana@example.org".to_owned()),
        reason: Some("lost a day".to_owned()),
        params: texts(&[("tenant", "7")]),
        run_id: Some(run()),
        from: Some(at(1, 0)),
        until: Some(at(2, 0)),
        fire_times: vec![at(1, 0), at(1, 500)],
        max: Some(31),
        concurrency: Some(2),
        backfill_id: Some(id("c-1")),
        missed: Some(PauseMissed::Accumulate),
        run_state: Some(RunState::Dead),
        attempt: Some(2),
        token: Some(7),
        outcome: Some(failed()),
        spares_parked: true,
        not_before: Some(at(5, 7000)),
    }
}

fn failed() -> Outcome {
    Outcome {
        kind: OutcomeKind::Failed,
        exit_code: Some(3),
        signal: Some(15),
        message: Some("exit code 3".to_owned()),
        http_status: Some(503),
        retry_after_ms: Some(2000),
        is_final: true,
    }
}

/// A run that waits for its backoff.
fn limits() -> Vec<LimitId> {
    ["limit/warehouse", "queue/batch"].map(|text| text.parse().expect("limit")).to_vec()
}

pub(crate) fn live_run() -> LiveRun {
    LiveRun {
        run_id: run(),
        job: job(),
        state: RunState::Retrying,
        attempt: 2,
        token: 1,
        requested_at: at(5, 12),
        since: at(5, 900),
        due_at: Some(at(5, 5900)),
        runner: Some(id("runner-1")),
        session: Some(id("s-9")),
        first_failure: Some(at(5, 899)),
        last_outcome: Some(failed()),
        redrives: 1,
        recent_commands: vec![id("c-1")],
        request_offset: 99,
        request_headers: vec![RecordHeader { key: "traceparent".to_owned(), value: b"00-0af7-b7ad-01".to_vec() }],
        request: vec![0xC3, 0x01, 0x00, 0xFF],
        cancel_reason: Some("asked for by ann".to_owned()),
        redriven_at: Some(at(5, 800)),
        attempts_before: 1,
        disposition: Some("attemptsExhausted".to_owned()),
        limits: limits(),
        limits_held: 1,
        asked_at: Some(at(5, 30)),
        unserved: 2,
        completion: Some(failed()),
        hedge: Some(LiveHedge {
            attempt: 3,
            token: 5,
            since: at(5, 31),
            runner: Some("runner-2".parse().expect("runner")),
            session: Some("session-2".parse().expect("session")),
            is_over: true,
        }),
        awaits_runner: true,
        was_offered: true,
        offered_at: Some(at(5, 40)),
    }
}

/// The end of a run.
pub(crate) fn run_event() -> RunEvent {
    RunEvent {
        state: RunState::Dead,
        run_id: run(),
        job: job(),
        version: 3,
        trigger: TriggerKind::Redrive,
        fire_time: at(5, 0),
        requested_at: at(5, 12),
        at: at(5, 10_000),
        queue: id("reports"),
        attempt: 5,
        token: 5,
        due_at: Some(at(5, 20_000)),
        runner: Some(id("runner-1")),
        outcome: Some(failed()),
        disposition: Some("attemptsExhausted".to_owned()),
        note: Some("another run of the job is live".to_owned()),
        redrives: 2,
        limits: limits(),
        missing_handler: Some("send-invoices".to_owned()),
        hedge: Some(RunHedge { attempt: 3, token: 5, runner: Some("runner-2".parse().expect("runner")) }),
        ended_attempts: vec![EndedAttempt { attempt: 2, token: 4, at: at(5, 31), outcome: failed() }],
        missing_runner: Some("gpu=true,zone=eu-1".to_owned()),
    }
}

/// A setting.
pub(crate) fn setting() -> Setting {
    Setting {
        kind: SettingKind::Calendar,
        name: "holidays".to_owned(),
        at: at(5, 0),
        actor: Some("ana@example.org".to_owned()),
        document: "{\"apiVersion\":\"orloj/v1\",\"kind\":\"Calendar\",\"metadata\":{\"name\":\"holidays\"},\
                   \"spec\":{\"dates\":[\"2026-12-24\"]}}"
            .to_owned(),
    }
}

/// A step of a limit.
pub(crate) fn limit_event() -> LimitEvent {
    LimitEvent {
        kind: LimitEventType::Grant,
        limit: "limit/warehouse".parse().expect("limit"),
        run_id: run(),
        units: 1,
        at: at(5, 0),
        job: job(),
        token: 3,
        priority: 7,
        since: at(4, 0),
        used_until_nanos: 1_798_718_400_000_000_000,
        verdict: Verdict::Failed,
    }
}

/// How a breaker stands, with everything that one ever says.
pub(crate) fn breaker_event() -> BreakerEvent {
    BreakerEvent {
        limit: "queue/reports".parse().expect("limit"),
        state: BreakerState::Open,
        at: at(5, 0),
        until: Some(at(5, 30_000)),
        open_for_ms: 30_000,
        failures: 20,
        ended: 25,
        window_ms: 60_000,
        run_id: Some(run()),
        job: Some(job()),
        reason: Some("20 dead letters of 25 that ended within 1m".to_owned()),
        probe_run_id: Some(run()),
        probe_token: 3,
        counts: vec![BreakerCount { since: at(5, 0), ended: 25, failed: 20 }],
    }
}
