//! Lost leases on a whole driver, beside settings whose last offset is the mark of a transaction, which no reader is ever
//! shown. Not here: what a lost lease means for a run (`machine`). Invariant: silence ends in a decision whatever else is
//! on the log.

use std::sync::Arc;
use std::time::Duration;

use orloj_dispatcher::DispatcherConfig;
use orloj_domain::attempt::{AttemptEvent, AttemptEventType};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{JobId, QueueName, RunId};
use orloj_domain::manifest;
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::shard::ShardCount;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, ManualClock};
use orloj_runtime::codec;
use orloj_runtime::driver::{BATCH_RECORDS_MAX, CLOCK_JUMP_MAX, DriverParts};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::log::{
    Appender, BatchWriter, Claimer, ClaimerSpec, Isolation, Log, LogError, NewRecord, Owner, OwnerSpec, Reader,
    TopicPartition, TopicSpec,
};
use orloj_runtime::metrics::{DriverMetrics, Metrics};
use orloj_runtime::topics;

const LEASE: Duration = Duration::from_secs(6);

/// A log whose settings end with a mark that is never read.
struct MarkedLog(EmbeddedLog);

impl Log for MarkedLog {
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.0.topics()
    }
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.0.create_topic(spec)
    }
    fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<i64, LogError> {
        self.0.end(at, isolation).map(|end| end + i64::from(at.topic == topic::SETTINGS))
    }
    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<i64, LogError> {
        self.0.offset_at(at, time)
    }
    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError> {
        self.0.reader(isolation)
    }
    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        self.0.appender()
    }
    fn batch_writer(&self, id: &str) -> Result<Box<dyn BatchWriter>, LogError> {
        self.0.batch_writer(id)
    }
    fn own(&self, spec: OwnerSpec) -> Result<Box<dyn Owner>, LogError> {
        self.0.own(spec)
    }
    fn claim(&self, spec: ClaimerSpec) -> Result<Box<dyn Claimer>, LogError> {
        self.0.claim(spec)
    }
}

fn request(job: &JobId, now: Timestamp) -> FireDecision {
    let text = format!(
        r#"{{"apiVersion": "orloj/v1", "kind": "Job", "metadata": {{"namespace": "{}", "name": "{}"}},
            "spec": {{"retry": {{"maxAttempts": 2}}, "run": {{"exec": {{"command": ["true"]}}}}}}}}"#,
        job.namespace(),
        job.name()
    );
    let spec = manifest::parse_json(&text).expect("a manifest").spec;
    FireDecision {
        job: job.clone(),
        version: 1,
        trigger: TriggerKind::Manual,
        fire_time: now,
        range_end: None,
        decision: Decision::Requested,
        reason: None,
        run_id: Some(RunId::of_fire_time(job, 1, now)),
        coalesced_into: None,
        decided_at: now,
        definition_offset: 0,
        command_offset: None,
        command_id: None,
        actor: None,
        fires: 1,
        tzdb: None,
        incarnation: None,
        params: Command::new(CommandType::RunNow, "c".parse().expect("an id")).params,
        calendars: std::collections::BTreeMap::new(),
        missed: None,
        reports_end: false,
        spec: Some(spec),
    }
}

fn claim(request: &FireDecision, now: Timestamp) -> AttemptEvent {
    AttemptEvent {
        kind: AttemptEventType::Claimed,
        run_id: request.run_id.expect("a run"),
        job: request.job.clone(),
        attempt: 1,
        token: 1,
        runner: "r".parse().expect("a runner"),
        session: "s".parse().expect("a session"),
        at: now,
        lease_ms: i64::try_from(LEASE.as_millis()).ok(),
        isolation: None,
        percent: None,
        outcome: None,
        callback_digest: None,
        started_at: None,
        has_output: None,
    }
}

#[test]
fn a_lease_ends_whatever_the_last_offset_of_the_settings_is() {
    let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
    let log = EmbeddedLog::in_memory(Arc::new(clock.clone()));
    for spec in topics::declared(1, 1, &[QueueName::default()]) {
        log.create_topic(&spec).expect("in memory");
    }
    let shards = ShardCount::new(1).expect("a count");
    let parts = DriverParts {
        log: Arc::new(MarkedLog(log.clone())),
        clock: Arc::new(clock.clone()),
        clock_jump_max: CLOCK_JUMP_MAX,
        batch_records_max: BATCH_RECORDS_MAX,
        shards,
        health: Health::new().component("dispatcher"),
        metrics: DriverMetrics::register(&Metrics::new(), "dispatcher"),
        snapshots: None,
    };
    let config = DispatcherConfig { shards, lease: LEASE, clock_jump_max: CLOCK_JUMP_MAX };
    let mut driver = orloj_dispatcher::driver(config, parts).expect("in memory");
    let job: JobId = "a/b".parse().expect("a job");
    let request = request(&job, clock.now());
    let append = |name: &str, value: Vec<u8>| {
        let record = NewRecord::new(name, 0, job.as_str(), Some(value));
        log.appender().expect("in memory").append(vec![record]).expect("in memory");
    };
    let states = || {
        let mut reader = log.reader(Isolation::Committed).expect("in memory");
        reader.read_from(&[(TopicPartition::new(topic::RUN_EVENTS, 0), 0)]).expect("in memory");
        let records = reader.poll(100, Duration::ZERO).expect("in memory");
        let values = records.iter().filter_map(|record| record.value.as_deref());
        values.filter_map(|value| codec::decode::<RunEvent>(value).ok()).map(|event| event.state).collect::<Vec<_>>()
    };
    append(topic::FIRES, codec::encode(&request));
    (0..20).for_each(|_| driver.turn(Duration::ZERO).expect("nothing needs a person"));
    append(topic::ATTEMPT_EVENTS, codec::encode(&claim(&request, clock.now())));
    (0..20).for_each(|_| driver.turn(Duration::ZERO).expect("nothing needs a person"));
    assert_eq!(states(), [RunState::Running]);
    // In steps, or the owner would be taken for dead.
    for _ in 0..2 * LEASE.as_secs() {
        clock.advance(Duration::from_secs(1));
        (0..20).for_each(|_| driver.turn(Duration::ZERO).expect("nothing needs a person"));
    }
    assert_eq!(states()[..2], [RunState::Running, RunState::Retrying]);
}
