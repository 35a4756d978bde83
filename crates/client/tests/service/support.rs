//! An installation in this process: a log in memory, the trigger and the dispatcher as threads. Every wait is for a
//! condition, with a deadline.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use orloj_client::{ClientError, Connection, Log, Producer, RunId, RunnerBuilder, StopHandle};
use orloj_dispatcher::DispatcherConfig;
use orloj_domain::attempt::AttemptEvent;
use orloj_domain::id::QueueName;
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::runner::{AttemptOutput, OutputStream};
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::codec::{self, WireRecord};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::log::{Isolation, TopicPartition};
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use orloj_runtime::topics;
use orloj_trigger::TriggerConfig;

/// How long the trigger may take to answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(30);
const DEADLINE: Duration = Duration::from_secs(30);
const SHARDS: i32 = 4;

pub(crate) fn empty_log() -> EmbeddedLog {
    EmbeddedLog::in_memory(Arc::new(SystemClock::new()))
}

/// A manifest in JSON of a job without a schedule.
pub(crate) fn manifest(name: &str, handler: &str, retry: &str) -> String {
    format!(
        r#"{{"apiVersion": "orloj/v1", "kind": "Job", "metadata": {{"namespace": "billing", "name": "{name}"}},
            "spec": {{"run": {{"handler": {handler}}}, "retry": {retry}, "overlap": {{"policy": "allow"}}}}}}"#
    )
}

pub(crate) struct Installation {
    log: EmbeddedLog,
    clock: Arc<SystemClock>,
    shutdown: Shutdown,
    services: Vec<JoinHandle<()>>,
}

/// A runner on a thread of its own.
pub(crate) struct Running {
    stop: StopHandle,
    thread: JoinHandle<Result<(), ClientError>>,
}

impl Running {
    /// Stops it and waits for its end.
    pub(crate) fn end(self) -> Result<(), ClientError> {
        self.stop.stop();
        self.thread.join().expect("no panic")
    }
}

impl Installation {
    pub(crate) fn without_services() -> Self {
        let clock = Arc::new(SystemClock::new());
        let log = EmbeddedLog::in_memory(clock.clone());
        for spec in topics::declared(SHARDS, 1, &[QueueName::default()]) {
            log.create_topic(&spec).expect("a topic");
        }
        Self { log, clock, shutdown: Shutdown::new(), services: Vec::new() }
    }

    pub(crate) fn start() -> Self {
        let mut this = Self::without_services();
        let shards = ShardCount::new(SHARDS).expect("shards");
        let clock_jump_max = Duration::from_secs(3600);
        let (log, clock, shutdown) = (this.log(), this.clock.clone(), this.shutdown.clone());
        this.services.push(std::thread::spawn(move || {
            let config = TriggerConfig { shards, tzdb: None, clock_jump_max, snapshots: None };
            orloj_trigger::run(config, log, clock, &Health::new(), &Metrics::new(), &shutdown).expect("a trigger");
        }));
        let (log, clock, shutdown) = (this.log(), this.clock.clone(), this.shutdown.clone());
        this.services.push(std::thread::spawn(move || {
            let config = DispatcherConfig { shards, lease: Duration::from_secs(15), clock_jump_max };
            orloj_dispatcher::run(config, log, clock, &Health::new(), &Metrics::new(), &shutdown)
                .expect("a dispatcher");
        }));
        this
    }

    pub(crate) fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    pub(crate) fn producer(&self) -> Producer {
        Producer::connect(Connection::log(self.log())).expect("a producer")
    }

    pub(crate) fn run(&self, builder: RunnerBuilder) -> Running {
        let runner = builder.log(self.log()).build().expect("a runner");
        let stop = runner.stop_handle();
        Running { stop, thread: std::thread::spawn(move || runner.run()) }
    }

    /// The state in which a run ends.
    pub(crate) fn end_of(&self, run: RunId) -> RunState {
        self.wait_for("the end of a run", || {
            let events = self.decoded::<RunEvent>(topic::RUN_EVENTS);
            events.into_iter().find(|event| event.run_id == run && event.state.is_terminal()).map(|event| event.state)
        })
    }

    pub(crate) fn attempts(&self, run: RunId) -> Vec<AttemptEvent> {
        let events = self.decoded::<AttemptEvent>(topic::ATTEMPT_EVENTS);
        events.into_iter().filter(|event| event.run_id == run).collect()
    }

    /// What the attempts of a run have printed so far.
    pub(crate) fn output(&self, run: RunId) -> String {
        let records = self.decoded::<AttemptOutput>(topic::ATTEMPT_OUTPUT);
        let chunks = records.into_iter().filter(|record| record.run_id == run).flat_map(|record| record.chunks);
        let bytes: Vec<u8> =
            chunks.filter(|chunk| chunk.stream == OutputStream::Stdout).flat_map(|chunk| chunk.bytes).collect();
        String::from_utf8(bytes).expect("text")
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

    /// All committed records of a topic with a partition for each shard.
    fn decoded<T: WireRecord>(&self, name: &str) -> Vec<T> {
        let mut found = Vec::new();
        for at in (0..SHARDS).map(|partition| TopicPartition::new(name, partition)) {
            let end = self.log.end(&at, Isolation::Committed).expect("an end");
            let mut reader = self.log.reader(Isolation::Committed).expect("a reader");
            reader.read_from(&[(at, 0)]).expect("a position");
            let mut next = 0;
            while next < end {
                let records = reader.poll(1000, Duration::from_secs(1)).expect("records");
                next = records.last().map_or(end, |record| record.offset + 1);
                let values = records.iter().filter_map(|record| record.value.as_deref());
                // Marks of owners are among them.
                found.extend(values.filter_map(|value| codec::decode::<T>(value).ok()));
            }
        }
        found
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        self.shutdown.request();
        for service in self.services.drain(..) {
            let ended = service.join();
            assert!(ended.is_ok() || std::thread::panicking(), "a service panicked");
        }
    }
}
