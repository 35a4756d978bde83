//! The four services as threads of one process, over whichever log. Not here: the log (`serve`, `dev`), signals.
//! Invariant: if one service ends that nobody asked to, all are asked to drain, and the process says which and why.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use orloj_dispatcher::DispatcherConfig;
use orloj_domain::id::RunnerId;
use orloj_query::{Listener, QueryConfig, VersionInfo};
use orloj_runner::{AttemptUser, RunnerConfig};
use orloj_runtime::clock::Clock;
use orloj_runtime::config::Config;
use orloj_runtime::health::Health;
use orloj_runtime::host;
use orloj_runtime::log::Log;
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use orloj_trigger::TriggerConfig;

use crate::commands::version::tzdb_version;
use crate::exit::Failure;

/// How long a service other than the runner may take to drain.
const DRAIN: Duration = Duration::from_secs(5);

/// One of the services; the query service, which listens, is started apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Trigger,
    Dispatcher,
    Runner,
}

impl Role {
    pub(crate) const ALL: [Self; 3] = [Self::Trigger, Self::Dispatcher, Self::Runner];

    fn name(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Dispatcher => "dispatcher",
            Self::Runner => "runner",
        }
    }
}

/// What is served over HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Http {
    /// The query service: the API, and operations.
    Api,
    /// Only `/livez /readyz /version /metrics`.
    Operations,
}

/// What all services of a process share.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) shutdown: Shutdown,
    /// Folder of snapshots; none where the log itself is on this machine.
    pub(crate) snapshots: Option<PathBuf>,
}

/// How a service ended: well, or with what a person must know.
type End = (&'static str, Result<(), String>);

/// Services under way.
pub(crate) struct Running {
    ends: Receiver<End>,
    sender: Sender<End>,
    started: usize,
    shutdown: Shutdown,
}

impl Running {
    pub(crate) fn new(shutdown: Shutdown) -> Self {
        let (sender, ends) = channel();
        Self { ends, sender, started: 0, shutdown }
    }

    /// Starts services, each on a thread of its own.
    pub(crate) fn start(&mut self, roles: &[Role], parts: &Parts) -> io::Result<()> {
        for role in roles {
            let (role, parts) = (*role, parts.clone());
            self.spawn(role.name(), move || run(role, &parts))?;
        }
        Ok(())
    }

    /// Starts to serve HTTP on a thread of its own.
    pub(crate) fn start_http(&mut self, http: Http, listener: Listener, parts: &Parts) -> io::Result<()> {
        let parts = parts.clone();
        self.spawn("query", move || serve_http(http, listener, &parts))
    }

    fn spawn(
        &mut self,
        name: &'static str,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> io::Result<()> {
        let sender = self.sender.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let end = ended.unwrap_or_else(|_| Err("a defect: it panicked, see the lines above".to_owned()));
            // The receiver lives as long as the process cares.
            let _ = sender.send((name, end));
        })?;
        self.started += 1;
        Ok(())
    }

    /// Waits until all have ended; true if all ended well.
    pub(crate) fn wait(self) -> bool {
        drop(self.sender);
        let mut is_good = true;
        for (name, end) in self.ends.iter().take(self.started) {
            match end {
                Ok(()) if self.shutdown.is_requested() => tracing::info!(service = name, "ended"),
                Ok(()) => {
                    tracing::error!(service = name, "ended though nobody asked");
                    is_good = false;
                }
                Err(reason) => {
                    tracing::error!(service = name, reason, "ended");
                    is_good = false;
                }
            }
            self.shutdown.request();
        }
        is_good
    }
}

/// How long the process may take to drain.
pub(crate) fn patience(roles: &[Role], config: &Config) -> Duration {
    // Attempts that outlast the drain timeout are ended, TERM then KILL, and reported.
    const ENDING: Duration = Duration::from_secs(30);
    if roles.contains(&Role::Runner) { DRAIN + config.runner_drain_timeout + ENDING } else { DRAIN }
}

/// The user that attempts of a runner with this configuration run as.
pub(crate) fn attempt_user(config: &Config) -> Result<AttemptUser, Failure> {
    AttemptUser::of(config.runner_user.as_deref()).map_err(|problem| match config.origin("runner.user") {
        Some(origin) => Failure::usage(format!("{origin}: {problem}")),
        None => Failure::error(problem),
    })
}

fn run(role: Role, parts: &Parts) -> Result<(), String> {
    let Parts { config, log, clock, health, metrics, shutdown, snapshots } = parts;
    let (log, clock) = (Arc::clone(log), Arc::clone(clock));
    match role {
        Role::Trigger => {
            let told = TriggerConfig {
                shards: config.shards,
                tzdb: tzdb_version(),
                clock_jump_max: config.clock_jump_max,
                snapshots: snapshots.clone(),
            };
            orloj_trigger::run(told, log, clock, health, metrics, shutdown).map_err(|error| error.to_string())
        }
        Role::Dispatcher => {
            let told = DispatcherConfig {
                shards: config.shards,
                lease: config.runner_lease,
                clock_jump_max: config.clock_jump_max,
            };
            orloj_dispatcher::run(told, log, clock, health, metrics, shutdown).map_err(|error| error.to_string())
        }
        Role::Runner => {
            let told = runner_config(parts)?;
            orloj_runner::run(told, log, clock, shutdown.clone()).map_err(|error| error.to_string())
        }
    }
}

fn serve_http(http: Http, listener: Listener, parts: &Parts) -> Result<(), String> {
    let Parts { config, log, clock, health, metrics, shutdown, .. } = parts;
    let version = VersionInfo { version: env!("CARGO_PKG_VERSION").to_owned(), commit: None, tzdb: tzdb_version() };
    let ended = match http {
        Http::Operations => orloj_query::serve_operations_on(listener, health, metrics, version, shutdown),
        Http::Api => {
            let told = QueryConfig {
                shards: config.shards,
                queues: config.runner_queues.clone(),
                data_dir: config.data_dir.clone(),
                listen: listener.address(),
                is_insecure_allowed: true,
                version,
            };
            orloj_query::run_on(listener, told, Arc::clone(log), Arc::clone(clock), health, metrics, shutdown)
        }
    };
    ended.map_err(|error| error.to_string())
}

fn runner_config(parts: &Parts) -> Result<RunnerConfig, String> {
    let config = &parts.config;
    let runner = match &config.runner_id {
        Some(runner) => runner.clone(),
        None => {
            RunnerId::new(&format!("{}-{}", host::name(), std::process::id())).map_err(|error| error.to_string())?
        }
    };
    Ok(RunnerConfig {
        runner,
        queues: config.runner_queues.clone(),
        weights: config.runner_queue_weights.clone(),
        labels: config.runner_labels.clone(),
        slots: usize::from(config.runner_slots),
        lease: config.runner_lease,
        drain_timeout: config.runner_drain_timeout,
        shards: config.shards,
        work_dir: config.data_dir.join("work"),
        adopts_orphans: true,
        uses_cgroups: config.runner_cgroups,
        user: config.runner_user.clone(),
        // The program that runs, whatever an update has put in its place.
        launcher: Some(["/proc/self/exe", "launch"].map(PathBuf::from).to_vec()),
        guard: std::env::current_exe().ok().map(|program| vec![program, "guard".into()]),
        http_allow: config.runner_http_allow.clone(),
        callback_url: config.runner_callback_url.clone(),
        secrets_dir: config.runner_secrets_dir.clone(),
        kafka: config.runner_kafka.clone(),
        topics_prefix: config.topics_prefix.clone(),
        handlers: orloj_runner::Handlers::default(),
        is_handlers_only: false,
        metrics: parts.metrics.clone(),
        health: Some(parts.health.component("runner")),
    })
}
