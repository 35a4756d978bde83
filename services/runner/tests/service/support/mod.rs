//! A runner on a log in memory, and the other side of that log: ready records in, reports out. Every wait is
//! for a condition, with a deadline.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, Outcome, ReadyAttempt};
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{JobId, QueueName, RunId};
use orloj_domain::job::{Delivery, OverlapKind, OverlapPolicy, RetryPolicy, RunSpec, ShellTarget, Target};
use orloj_domain::runner::{AttemptOutput, OutputStream, RunnerHeartbeat};
use orloj_domain::shard::ShardCount;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runner::{RunnerConfig, RunnerError, run};
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::codec::{self, WireRecord};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::log::{
    AppendError, Appender, BatchWriter, Claimer, ClaimerSpec, Isolation, Log, LogError, NewRecord, Owner, OwnerSpec,
    Position, Reader, Record, TopicPartition, TopicSpec,
};
use orloj_runtime::shutdown::Shutdown;

pub(crate) const SHARDS: i32 = 4;
const DEADLINE: Duration = Duration::from_secs(30);

/// A log whose plain appends can be made to fail.
pub(crate) struct FaultyLog {
    pub(crate) inner: EmbeddedLog,
    pub(crate) refuses: Arc<AtomicBool>,
}

struct FaultyAppender {
    inner: Box<dyn Appender>,
    refuses: Arc<AtomicBool>,
}

impl Appender for FaultyAppender {
    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, AppendError> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(AppendError::Retriable("the test says so".to_owned()));
        }
        self.inner.append(records)
    }
}

impl Log for FaultyLog {
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.inner.topics()
    }
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.inner.create_topic(spec)
    }
    fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<i64, LogError> {
        self.inner.end(at, isolation)
    }
    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<i64, LogError> {
        self.inner.offset_at(at, time)
    }
    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError> {
        self.inner.reader(isolation)
    }
    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(FaultyAppender { inner: self.inner.appender()?, refuses: Arc::clone(&self.refuses) }))
    }
    fn batch_writer(&self, id: &str) -> Result<Box<dyn BatchWriter>, LogError> {
        self.inner.batch_writer(id)
    }
    fn own(&self, spec: OwnerSpec) -> Result<Box<dyn Owner>, LogError> {
        self.inner.own(spec)
    }
    fn claim(&self, spec: ClaimerSpec) -> Result<Box<dyn Claimer>, LogError> {
        self.inner.claim(spec)
    }
}

/// A runner, its log, and what can be done to both.
pub(crate) struct Bed {
    pub(crate) log: EmbeddedLog,
    pub(crate) refuses: Arc<AtomicBool>,
    pub(crate) shutdown: Shutdown,
    pub(crate) folder: tempfile::TempDir,
    clock: SystemClock,
    runner: Option<JoinHandle<Result<(), RunnerError>>>,
}

impl Bed {
    pub(crate) fn start(change: impl FnOnce(&mut RunnerConfig)) -> Self {
        Self::start_with(Arc::new(SystemClock::new()), change)
    }

    /// With a clock of its own for runner and log.
    pub(crate) fn start_with(clock: Arc<dyn Clock>, change: impl FnOnce(&mut RunnerConfig)) -> Self {
        Self::start_on(clock, |_| {}, change)
    }

    /// As [`Bed::start_with`]; `prepare` is called with the log before the runner starts.
    pub(crate) fn start_on(
        clock: Arc<dyn Clock>,
        prepare: impl FnOnce(&EmbeddedLog),
        change: impl FnOnce(&mut RunnerConfig),
    ) -> Self {
        let log = EmbeddedLog::in_memory(Arc::clone(&clock));
        let ready = topic::run_ready(&QueueName::default());
        for (name, partitions) in [
            (ready.as_str(), SHARDS),
            (topic::ATTEMPT_EVENTS, SHARDS),
            (topic::ATTEMPT_OUTPUT, SHARDS),
            (topic::QUARANTINE, 2),
            (topic::RUNNER_HEARTBEATS, 1),
            (topic::RUNNER_INBOX, SHARDS),
            (topic::SETTINGS, 1),
        ] {
            let settings = BTreeMap::new();
            let spec = TopicSpec { name: name.to_owned(), partitions, replication: 1, settings };
            log.create_topic(&spec).expect("topic");
        }
        prepare(&log);
        let folder = tempfile::tempdir().expect("folder");
        let shards = ShardCount::new(SHARDS).expect("shards");
        let mut config = RunnerConfig::new("r1".parse().expect("runner id"), shards, folder.path().join("work"));
        // Whoever runs the tests; what runs as another user is tested on the whole.
        config.user = std::fs::metadata("/proc/self").ok().map(|own| own.uid().to_string());
        change(&mut config);
        let (shutdown, refuses) = (Shutdown::new(), Arc::new(AtomicBool::new(false)));
        let faulty = Arc::new(FaultyLog { inner: log.clone(), refuses: Arc::clone(&refuses) });
        let asked = shutdown.clone();
        let runner = std::thread::spawn(move || run(config, faulty, clock, asked));
        Self { log, refuses, shutdown, folder, clock: SystemClock::new(), runner: Some(runner) }
    }

    /// All committed records of a topic, partition by partition.
    pub(crate) fn records(&self, name: &str) -> Vec<Record> {
        let topics = self.log.topics().expect("topics");
        let partitions = topics.iter().find(|spec| spec.name == name).map_or(0, |spec| spec.partitions);
        let mut records = Vec::new();
        for at in (0..partitions).map(|partition| TopicPartition::new(name, partition)) {
            let end = self.log.end(&at, Isolation::Committed).expect("end");
            let mut reader = self.log.reader(Isolation::Committed).expect("reader");
            reader.read_from(&[(at, 0)]).expect("read");
            let mut next = 0;
            while next < end {
                let got = reader.poll(1000, Duration::from_secs(1)).expect("poll");
                next = got.last().map_or(end, |record| record.offset + 1);
                records.extend(got);
            }
        }
        records
    }

    pub(crate) fn decoded<T: WireRecord>(&self, name: &str) -> Vec<T> {
        let records = self.records(name);
        records.iter().map(|record| codec::decode(record.value.as_deref().unwrap_or_default()).expect(name)).collect()
    }

    pub(crate) fn wait_for<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = self.clock.monotonic() + DEADLINE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(self.clock.monotonic() < deadline, "timed out: {what}");
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    pub(crate) fn append(&self, record: NewRecord) {
        self.log.appender().expect("appender").append(vec![record]).expect("append");
    }

    pub(crate) fn events(&self, run: RunId) -> Vec<AttemptEvent> {
        self.decoded::<AttemptEvent>(topic::ATTEMPT_EVENTS).into_iter().filter(|event| event.run_id == run).collect()
    }

    /// Waits for a report about a run.
    pub(crate) fn report(&self, run: RunId, kind: AttemptEventType) -> AttemptEvent {
        self.wait_for(kind.as_str(), || self.events(run).into_iter().find(|event| event.kind == kind))
    }

    /// True if an attempt of the run is told to have started, at its start or at its end.
    pub(crate) fn has_started(&self, run: RunId) -> bool {
        self.events(run).iter().any(|event| event.kind == AttemptEventType::Started || event.started_at.is_some())
    }

    pub(crate) fn outcome(&self, run: RunId) -> Outcome {
        self.report(run, AttemptEventType::Finished).outcome.expect("outcome")
    }

    pub(crate) fn outputs(&self, run: RunId) -> Vec<AttemptOutput> {
        let all = self.decoded::<AttemptOutput>(topic::ATTEMPT_OUTPUT);
        all.into_iter().filter(|output| output.run_id == run).collect()
    }

    pub(crate) fn heartbeats(&self) -> Vec<RunnerHeartbeat> {
        self.decoded(topic::RUNNER_HEARTBEATS)
    }

    /// Waits for the runner's end.
    pub(crate) fn end(&mut self) -> Result<(), RunnerError> {
        let runner = self.runner.take().expect("not ended before");
        self.wait_for("the runner's end", || runner.is_finished().then_some(()));
        runner.join().expect("no panic")
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(runner) = self.runner.take() {
            let _ = runner.join();
        }
    }
}

pub(crate) fn shell(script: &str) -> Target {
    Target::ShellTarget(ShellTarget {
        script: script.to_owned(),
        env: BTreeMap::new(),
        working_dir: None,
        stdin: String::new(),
        shell: None,
        limits: None,
    })
}

/// A ready attempt of the job `test/<name>`, as the dispatcher writes it.
pub(crate) fn ready(name: &str, target: Target) -> ReadyAttempt {
    ready_by(name, target, Delivery::AtLeastOnce)
}

/// As [`ready`], with what a lost lease means.
pub(crate) fn ready_by(name: &str, target: Target, delivery: Delivery) -> ReadyAttempt {
    let job = JobId::new("test", name).expect("job");
    let at = Timestamp::from_millis(1_700_000_000_000);
    let run_id = RunId::of_fire_time(&job, 1, at);
    let decision = FireDecision {
        job: job.clone(),
        version: 1,
        trigger: TriggerKind::Schedule,
        fire_time: at,
        range_end: None,
        decision: Decision::Requested,
        reason: None,
        run_id: Some(run_id),
        coalesced_into: None,
        decided_at: at,
        definition_offset: 0,
        command_offset: None,
        command_id: None,
        actor: None,
        fires: 1,
        tzdb: None,
        incarnation: None,
        params: BTreeMap::new(),
        calendars: BTreeMap::new(),
        missed: None,
        reports_end: false,
        spec: Some(RunSpec { delivery, ..spec(target) }.into()),
    };
    ReadyAttempt {
        run_id,
        job,
        attempt: 1,
        token: 5,
        ready_at: at,
        request: codec::encode(&decision),
        deadline: None,
        awaits_start: false,
    }
}

fn spec(target: Target) -> RunSpec {
    RunSpec {
        queue: QueueName::default(),
        priority: 5,
        start_delay_ms: 0,
        timeout_ms: 60_000,
        deadline_ms: None,
        retry: RetryPolicy {
            max_attempts: 1,
            initial_ms: 1000,
            factor: 2.0,
            max_ms: 1000,
            jitter: 0.0,
            non_retryable_exit_codes: Vec::new(),
        },
        delivery: Delivery::AtLeastOnce,
        overlap: OverlapPolicy { policy: OverlapKind::Allow, max: 100 },
        concurrency: None,
        pause_after_failures: 0,
        limits: Vec::new(),
        hedge_after_ms: None,
        runner_labels: BTreeMap::new(),
        target,
    }
}

pub(crate) fn record(ready: &ReadyAttempt) -> NewRecord {
    let partition = ShardCount::new(SHARDS).expect("shards").shard_of(&ready.job).0;
    let name = topic::run_ready(&QueueName::default());
    NewRecord::new(name, partition, ready.run_id.to_string(), Some(codec::encode(ready)))
}

/// The text of one stream, in order of the records.
pub(crate) fn text_of(outputs: &[AttemptOutput], stream: OutputStream) -> String {
    let chunks = outputs.iter().flat_map(|output| &output.chunks).filter(|chunk| chunk.stream == stream);
    String::from_utf8_lossy(&chunks.flat_map(|chunk| chunk.bytes.clone()).collect::<Vec<_>>()).into_owned()
}
