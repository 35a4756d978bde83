//! What a workload stands on: a log with its topics, fresh for each, and the broker's process where there is
//! one. Invariant: nothing is shared between two workloads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;

use orloj_dispatcher::DispatcherConfig;
use orloj_domain::id::{QueueName, RunnerId};
use orloj_domain::shard::ShardCount;
use orloj_runner::RunnerConfig;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::driver::CLOCK_JUMP_MAX;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::Log;
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use orloj_runtime::topics;
use orloj_tests::broker::Broker;
use orloj_trigger::TriggerConfig;

use crate::Backend;
use crate::usage::cpu_seconds;

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
    pub(crate) fn new(backend: Backend) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (name, log, shards, broker): (_, Arc<dyn Log>, _, _) = match backend {
            Backend::Embedded | Backend::Both => {
                let log = EmbeddedLog::open(directory.path(), Arc::clone(&clock)).expect("a fresh embedded log");
                ("embedded", Arc::new(log), 8, None)
            }
            Backend::Kafka => {
                let broker = Broker::start();
                let servers = ("bootstrap.servers".to_owned(), broker.bootstrap().to_owned());
                let config = KafkaConfig { properties: BTreeMap::from([servers]), prefix: "orloj.".to_owned() };
                let log = KafkaLog::connect(config).expect("valid settings");
                ("kafka", Arc::new(log), 32, Some(broker))
            }
        };
        for spec in topics::declared(shards, 1, &[QueueName::default()]) {
            log.create_topic(&spec).expect("a new topic");
        }
        let shards = ShardCount::new(shards).expect("a valid count");
        Self { name, log, clock, shards, broker, directory }
    }

    /// CPU seconds so far: of this process, and of the broker.
    pub(crate) fn cpu(&self) -> (f64, f64) {
        let broker = self.broker.as_ref().map_or(0.0, |broker| cpu_seconds(broker.process_id()));
        (cpu_seconds(std::process::id()), broker)
    }

    /// Starts the named services, each on a thread.
    pub(crate) fn start(&self, services: &[&'static str]) -> Services {
        let shutdown = Shutdown::new();
        let health = Health::new();
        let mut threads = Vec::new();
        for service in services {
            let (log, clock, shutdown) = (Arc::clone(&self.log), Arc::clone(&self.clock), shutdown.clone());
            let (health, metrics, shards) = (health.clone(), Metrics::new(), self.shards);
            let work_dir = self.directory.path().join("work");
            let service = *service;
            threads.push(std::thread::spawn(move || match service {
                "trigger" => {
                    let config = TriggerConfig { shards, tzdb: None, clock_jump_max: CLOCK_JUMP_MAX };
                    orloj_trigger::run(config, log, clock, &health, &metrics, &shutdown).expect("a trigger");
                }
                "dispatcher" => {
                    let config = DispatcherConfig {
                        shards,
                        lease: std::time::Duration::from_secs(15),
                        clock_jump_max: CLOCK_JUMP_MAX,
                    };
                    orloj_dispatcher::run(config, log, clock, &health, &metrics, &shutdown).expect("a dispatcher");
                }
                _ => {
                    let runner = RunnerId::new("bench").expect("a valid id");
                    let config = RunnerConfig::new(runner, shards, work_dir);
                    orloj_runner::run(config, log, clock, shutdown).expect("a runner");
                }
            }));
        }
        Services { shutdown, threads }
    }
}

/// Services that run.
pub(crate) struct Services {
    shutdown: Shutdown,
    threads: Vec<JoinHandle<()>>,
}

impl Services {
    pub(crate) fn stop(self) {
        self.shutdown.request();
        for thread in self.threads {
            thread.join().expect("a service ends in order");
        }
    }
}
