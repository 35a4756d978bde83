//! Services as threads of this process, for the embedded log and for the path of a whole run. Not here: the
//! trigger as a process of its own (`trigger`). Invariant: none outlives [`Services::stop`].

use std::sync::Arc;
use std::thread::JoinHandle;

use orloj_dispatcher::DispatcherConfig;
use orloj_domain::id::RunnerId;
use orloj_runner::RunnerConfig;
use orloj_runtime::driver::CLOCK_JUMP_MAX;
use orloj_runtime::health::Health;
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use orloj_trigger::TriggerConfig;

use crate::bed::Bed;
use crate::usage::own_user;

/// Services that run.
pub(crate) struct Services {
    shutdown: Shutdown,
    threads: Vec<JoinHandle<()>>,
}

impl Services {
    /// Starts the named services, each on a thread.
    pub(crate) fn start(bed: &Bed, services: &[&'static str]) -> Self {
        let shutdown = Shutdown::new();
        let health = Health::new();
        let mut threads = Vec::new();
        for service in services {
            let (log, clock, shutdown) = (Arc::clone(&bed.log), Arc::clone(&bed.clock), shutdown.clone());
            let (health, metrics, shards) = (health.clone(), Metrics::new(), bed.shards);
            let work_dir = bed.directory().join("work");
            let service = *service;
            threads.push(std::thread::spawn(move || match service {
                "trigger" => {
                    let config = TriggerConfig { shards, tzdb: None, clock_jump_max: CLOCK_JUMP_MAX, snapshots: None };
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
                    let mut config = RunnerConfig::new(runner, shards, work_dir);
                    config.user = Some(own_user());
                    orloj_runner::run(config, log, clock, shutdown).expect("a runner");
                }
            }));
        }
        Self { shutdown, threads }
    }

    /// Asks all to end, and waits for it.
    pub(crate) fn stop(&mut self) {
        self.shutdown.request();
        for thread in self.threads.drain(..) {
            thread.join().expect("a service ends in order");
        }
    }
}
