//! `orloj serve`: services on Kafka. Not here: the services (`services`), everything on one machine (`dev`).
//! Invariant: it waits for a cluster that is away, and refuses to start on one whose topics are not its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use clap::{Args, ValueEnum};
use orloj_query::{Listener, QueryError};
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::config::{self, Config, Layers, Origin};
use orloj_runtime::health::{Component, Health};
use orloj_runtime::kafka::owner::TakeoverPhases;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::{LogError, Waker};
use orloj_runtime::memory;
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use orloj_runtime::telemetry;
use orloj_runtime::topics::{self, REPLICATION_OF_CLUSTER};

use crate::exit::{Code, Failure, Outcome};
use crate::output;
use crate::services::{Http, Parts, Role, Running, attempt_user, patience};
use crate::signals;

/// How long one look for the cluster may take; the promise is a message within 10 s.
pub(crate) const CHECK_TIMEOUT: Duration = Duration::from_secs(8);
/// Pauses between two looks for a cluster that is away: doubled from the first up to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);
/// How long topics may be missing: a broker learns of a new one a little after it was made, or after it has started.
const MISSING_MAX: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Service {
    /// All four in one process
    All,
    /// Decides fire times
    Trigger,
    /// Decides about runs
    Dispatcher,
    /// Executes attempts
    Runner,
    /// Projections and the HTTP API
    Query,
}

/// Where the configuration comes from
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigArguments {
    /// Configuration file [default: orloj.toml, if there is one]
    #[arg(long, env = "ORLOJ_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Set a key, whatever file and environment say; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// Run services on Kafka
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj topics apply --set kafka.bootstrap.servers=kafka:9092
  orloj serve all --set kafka.bootstrap.servers=kafka:9092
  ORLOJ_KAFKA_BOOTSTRAP_SERVERS=kafka:9092 orloj serve trigger
  orloj serve runner --config /etc/orloj.toml --print-config

Each key of the configuration is a variable too: ORLOJ_ and the key with `_` for `.`, in its own spelling or in
capitals: runner.slots is ORLOJ_runner_slots or ORLOJ_RUNNER_SLOTS.")]
pub(crate) struct ServeArguments {
    /// What to run
    #[arg(value_enum)]
    service: Service,
    #[command(flatten)]
    config: ConfigArguments,
    /// Address of the API
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Listen where other machines can reach it, although nothing asks who is calling
    #[arg(long)]
    insecure: bool,
    /// Show the configuration and where each value comes from, secrets hidden, and end
    #[arg(long)]
    print_config: bool,
}

impl ConfigArguments {
    /// Puts flags, environment, file and defaults together.
    pub(crate) fn load(&self, defaults: Vec<(&str, String)>) -> Result<Config, Failure> {
        self.load_with(defaults, Vec::new())
    }

    /// The same, with flags of the command's own, as (flag, key, value).
    pub(crate) fn load_with(
        &self,
        defaults: Vec<(&str, String)>,
        own: Vec<(&str, &str, String)>,
    ) -> Result<Config, Failure> {
        let name = self.config.clone().unwrap_or_else(|| PathBuf::from(config::FILE_DEFAULT));
        let text = match std::fs::read_to_string(&name) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.config.is_none() => None,
            Err(error) => return Err(Failure::usage(format!("{}: can't be read: {error}", name.display()))),
        };
        let mut flags: Vec<(String, String, String)> =
            own.into_iter().map(|(flag, key, value)| (flag.to_owned(), key.to_owned(), value)).collect();
        for set in &self.set {
            let (key, value) =
                set.split_once('=').ok_or_else(|| Failure::usage(format!("--set is `{set}`; write KEY=VALUE")))?;
            flags.push((format!("--set {key}"), key.to_owned(), value.to_owned()));
        }
        let name = name.display().to_string();
        let layers = Layers {
            defaults,
            file: text.as_deref().map(|text| (name.as_str(), text)),
            environment: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            flags,
        };
        Config::from_layers(&layers).map_err(|error| Failure::usage(error.to_string()))
    }
}

pub(crate) fn run(arguments: &ServeArguments) -> Outcome {
    let listen = arguments.listen.iter().map(|listen| ("--listen", "listen", listen.clone())).collect();
    let config = arguments.config.load_with(Vec::new(), listen)?;
    if arguments.print_config {
        output::print(&config.printed())?;
        return Ok(Code::Ok);
    }
    telemetry::init(config.log_format, "info");
    memory::tend();
    note_unknown_variables(&config);
    let roles = roles(arguments.service);
    if roles.contains(&Role::Runner) {
        // Before anything is waited for: it is as wrong when the cluster is there.
        attempt_user(&config)?;
    }
    let http = listener(arguments, &config)?;
    let shutdown = Shutdown::new();
    signals::listen(shutdown.clone(), patience(&roles, &config)).map_err(|error| Failure::error(error.to_string()))?;

    let kafka = KafkaConfig { properties: config.kafka.clone(), prefix: config.topics_prefix.clone() };
    let log = KafkaLog::connect(kafka).map_err(|error| Failure::usage(error.to_string()))?;
    // Nobody who has not said where gets files for them.
    let is_given = config.origin("data.dir").is_some_and(|origin| *origin != Origin::Default);
    let snapshots = is_given.then(|| config.data_dir.join("snapshots"));
    let parts = Parts {
        snapshots,
        config,
        log: Arc::new(log.clone()),
        clock: Arc::new(SystemClock::new()),
        health: Health::new(),
        metrics: Metrics::new(),
        shutdown: shutdown.clone(),
    };
    parts.metrics.with(|registry| TakeoverPhases::of_process().register(registry));
    let mut running = Running::new(shutdown.clone());
    let cluster = parts.health.component("kafka");
    // HTTP first: it says 503 on /readyz, and why, while the cluster is away.
    if let Some((http, listener)) = http {
        running.start_http(http, listener, &parts).map_err(no_thread)?;
    }
    if let Err(failure) = wait_for_cluster(&log, &parts.config, &cluster, &shutdown) {
        tracing::error!("{failure}");
        shutdown.request();
        running.wait();
        return Ok(failure.code);
    }
    if !shutdown.is_requested() {
        running.start(&roles, &parts).map_err(no_thread)?;
    }
    Ok(if running.wait() { Code::Ok } else { Code::Error })
}

fn roles(service: Service) -> Vec<Role> {
    match service {
        Service::All => Role::ALL.to_vec(),
        Service::Trigger => vec![Role::Trigger],
        Service::Dispatcher => vec![Role::Dispatcher],
        Service::Runner => vec![Role::Runner],
        Service::Query => Vec::new(),
    }
}

/// What is served, and where. Runners never listen; trigger and dispatcher do if an address was given, so that
/// several of them can be on one machine.
fn listener(arguments: &ServeArguments, config: &Config) -> Result<Option<(Http, Listener)>, Failure> {
    let is_given = config.origin("listen").is_some_and(|origin| *origin != Origin::Default);
    let http = match arguments.service {
        Service::All | Service::Query => Http::Api,
        Service::Trigger | Service::Dispatcher if is_given => Http::Operations,
        Service::Trigger | Service::Dispatcher | Service::Runner => return Ok(None),
    };
    let listener = bind(config, arguments.insecure)?;
    Ok(Some((http, listener)))
}

pub(crate) fn bind(config: &Config, is_insecure_allowed: bool) -> Result<Listener, Failure> {
    orloj_query::bind(config.listen, is_insecure_allowed).map_err(|error| match error {
        QueryError::Exposed(_) => Failure::new(Code::Refused, error.to_string()),
        QueryError::Listen { .. } => Failure::new(Code::Conflict, error.to_string()),
        QueryError::Projection(_) | QueryError::Io(_) => Failure::error(error.to_string()),
    })
}

pub(crate) fn no_thread(error: std::io::Error) -> Failure {
    Failure::error(format!("the machine gives no thread: {error}"))
}

pub(crate) fn note_unknown_variables(config: &Config) {
    for name in &config.unknown_variables {
        tracing::warn!(variable = name, "looks like a key of the configuration and is none");
    }
}

/// What is wrong with the topics of the cluster.
enum TopicsProblem {
    /// They are not this installation's, and never will be.
    Wrong(String),
    /// Some are not there, or not known to the broker that was asked.
    Missing(String),
}

/// Returns when the cluster answers and has the topics, or when a shutdown was asked.
fn wait_for_cluster(
    log: &KafkaLog,
    config: &Config,
    component: &Component,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let (wake, woken) = channel::<()>();
    shutdown.on_request(Waker::new(move || {
        // Nobody waits any more once the cluster was found.
        let _ = wake.send(());
    }));
    let clock = SystemClock::new();
    let mut missing_since = None;
    let mut pause = RETRY_FIRST;
    while !shutdown.is_requested() {
        let found = log.check(CHECK_TIMEOUT).and_then(|()| topics_problem(log, config));
        match found {
            Ok(None) => {
                component.ready();
                return Ok(());
            }
            Ok(Some(TopicsProblem::Wrong(problem))) | Err(LogError::Misconfigured(problem)) => {
                return Err(Failure::new(Code::Conflict, problem));
            }
            Ok(Some(TopicsProblem::Missing(problem))) => {
                let now = clock.monotonic();
                if now.saturating_sub(*missing_since.get_or_insert(now)) >= MISSING_MAX {
                    return Err(Failure::new(Code::Conflict, problem));
                }
                component.not_ready(&problem);
                pause = RETRY_FIRST;
                tracing::warn!(again_in = ?pause, "{problem}");
            }
            Err(error) => {
                missing_since = None;
                let error = error.to_string();
                component.not_ready(&error);
                tracing::warn!(again_in = ?pause, "{error}");
            }
        }
        match woken.recv_timeout(pause) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(RETRY_LAST),
        }
    }
    Ok(())
}

/// Why the topics of the cluster can't be used, if so.
fn topics_problem(log: &KafkaLog, config: &Config) -> Result<Option<TopicsProblem>, LogError> {
    let shards = config.shards.get();
    let plan = topics::plan(log, &topics::declared(shards, REPLICATION_OF_CLUSTER, &config.runner_queues))?;
    let wrong: Vec<String> = plan.wrong_partitions().map(ToString::to_string).collect();
    if !wrong.is_empty() {
        return Ok(Some(TopicsProblem::Wrong(format!(
            "the topics were made for another number of shards than `shards` = {shards}: {}; set `shards` to theirs, or choose another `topics.prefix`",
            wrong.join("; ")
        ))));
    }
    if !plan.create.is_empty() {
        let names: Vec<String> =
            plan.create.iter().map(|spec| format!("{}{}", config.topics_prefix, spec.name)).collect();
        let problem = format!("missing topics: {}; make them with `orloj topics apply`", names.join(", "));
        return Ok(Some(TopicsProblem::Missing(problem)));
    }
    for difference in &plan.differs {
        tracing::warn!(topic = difference.topic, "{difference}; see `orloj topics check`");
    }
    Ok(None)
}
