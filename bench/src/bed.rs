//! What a workload stands on: a log with its topics, fresh for each, and the broker's process where there is
//! one. Invariant: nothing is shared between two workloads.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use orloj_domain::id::QueueName;
use orloj_domain::shard::ShardCount;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::{Isolation, Log, Reader, TopicPartition};
use orloj_runtime::topics;
use orloj_tests::broker::Broker;

use crate::Backend;
use crate::usage::cpu_seconds;

/// Put before every topic of the installation.
pub(crate) const PREFIX: &str = "orloj.";

/// A fresh log.
pub(crate) struct Bed {
    pub(crate) name: &'static str,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shards: ShardCount,
    pub(crate) broker: Option<Broker>,
    directory: tempfile::TempDir,
}

impl Bed {
    /// A fresh log with so many shards, or as many as an installation of its kind has.
    pub(crate) fn new(backend: Backend, shards: Option<i32>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (name, log, usual, broker): (_, Arc<dyn Log>, _, _) = match backend {
            Backend::Embedded | Backend::Both => {
                let log = EmbeddedLog::open(directory.path(), Arc::clone(&clock)).expect("a fresh embedded log");
                ("embedded", Arc::new(log), 8, None)
            }
            Backend::Kafka => {
                let broker = Broker::start_stock();
                let servers = ("bootstrap.servers".to_owned(), broker.bootstrap().to_owned());
                let config = KafkaConfig { properties: BTreeMap::from([servers]), prefix: PREFIX.to_owned() };
                let log = KafkaLog::connect(config).expect("valid settings");
                ("kafka", Arc::new(log), 32, Some(broker))
            }
        };
        let shards = shards.unwrap_or(usual);
        for spec in topics::declared(shards, 1, &[QueueName::default()]) {
            log.create_topic(&spec).expect("a new topic");
        }
        let shards = ShardCount::new(shards).expect("a valid count");
        Self { name, log, clock, shards, broker, directory }
    }

    /// A folder of this bed, gone with it.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// CPU seconds that the broker has used so far.
    pub(crate) fn broker_cpu_seconds(&self) -> f64 {
        self.broker.as_ref().map_or(0.0, |broker| cpu_seconds(broker.process_id()))
    }

    /// A reader of all of a topic from its start, of what was committed.
    pub(crate) fn reader(&self, name: &str) -> Box<dyn Reader> {
        self.reader_from(name, |_| 0)
    }

    /// A reader of what is appended to a topic from now on.
    pub(crate) fn tail(&self, name: &str) -> Box<dyn Reader> {
        self.reader_from(name, |at| self.log.end(at, Isolation::Uncommitted).expect("an existing topic"))
    }

    fn reader_from(&self, name: &str, from: impl Fn(&TopicPartition) -> i64) -> Box<dyn Reader> {
        let mut reader = self.log.reader(Isolation::Committed).expect("a reader");
        let partitions = self.shards.all().map(|shard| TopicPartition::new(name, shard.0));
        let positions: Vec<_> = partitions.map(|at| (at.clone(), from(&at))).collect();
        reader.read_from(&positions).expect("an existing topic");
        reader
    }
}
