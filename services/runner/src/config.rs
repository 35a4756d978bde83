//! What a runner is given, and why it can end. Not here: where the values come from. Invariant: nothing of this
//! is read from the environment later, except the variables that jobs inherit.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use orloj_domain::id::{QueueName, RunnerId};
use orloj_domain::shard::ShardCount;
use orloj_runtime::config::KafkaTargetConfig;
use orloj_runtime::health::Component;
use orloj_runtime::log::{AppendError, LogError};
use orloj_runtime::metrics::Metrics;

use crate::handler::Handlers;

/// What a runner is given.
#[derive(Debug, Clone)]
pub struct RunnerConfig {
    /// Its name; two live runners need two names.
    pub runner: RunnerId,
    /// The lanes it takes attempts from; one or more.
    pub queues: Vec<QueueName>,
    /// How much of its slots each queue gets while several have attempts ready, to the sum of theirs; 1 for a queue that is not
    /// named.
    pub weights: BTreeMap<QueueName, u16>,
    /// What it says about itself, for people.
    pub labels: BTreeMap<String, String>,
    /// Attempts it holds at once; 1 or more.
    pub slots: usize,
    /// How long the dispatcher waits for a heartbeat. It fences itself a fifth earlier.
    pub lease: Duration,
    /// How long attempts may go on after a shutdown was asked.
    pub drain_timeout: Duration,
    /// How many shards the installation has.
    pub shards: ShardCount,
    /// Where attempts get directories of their own.
    pub work_dir: PathBuf,
    /// The user that `exec` and `shell` attempts run as: a name or a number, with or without `:group`; see [`crate::AttemptUser`].
    /// Only a runner that is root can name another than its own. `None`: its own, and `nobody` if that is root.
    pub user: Option<String>,
    /// A program with its arguments that calls [`crate::launch()`] with the arguments after those and nothing else: it makes
    /// another user of a process. Without one attempts can run as the runner's own user only.
    pub launcher: Option<Vec<PathBuf>>,
    /// Makes this process the parent of what attempts leave behind, so that it is found and reaped at once.
    /// Switch it off only in a process that has children in sessions of their own from elsewhere.
    pub adopts_orphans: bool,
    /// Gives each attempt a control group (cgroup v2) below this process's own, where it may make some.
    pub uses_cgroups: bool,
    /// A program with its arguments that calls [`crate::guard()`] and nothing else: it ends the attempts of this runner when
    /// that is killed, or frozen beyond its lease. `None`: they go on until they end by themselves.
    pub guard: Option<Vec<PathBuf>>,
    /// Networks and hosts inside of this runner's own network that `http` targets may go to.
    pub http_allow: Vec<String>,
    /// Where targets reach the API, as in `https://orloj.example.com`; for the header that tells them where to call back.
    /// `None`: they are told the path alone.
    pub callback_url: Option<String>,
    /// Directory of files that are secrets, each by its name.
    pub secrets_dir: Option<PathBuf>,
    /// Clusters that `kafka` targets may send to, by name.
    pub kafka: BTreeMap<String, KafkaTargetConfig>,
    /// What the names of our own topics begin with, which no job may write to.
    pub topics_prefix: String,
    /// What `handler` targets may name.
    pub handlers: Handlers,
    /// Executes no other targets: `exec`, `shell`, `http` and `kafka` are refused. For a service that lends its process to its own
    /// handlers and not to everybody's commands.
    pub is_handlers_only: bool,
    /// Where counters are registered.
    pub metrics: Metrics,
    /// Where readiness is reported.
    pub health: Option<Component>,
}

impl RunnerConfig {
    /// A runner of the queue `default` with the default limits.
    #[must_use]
    pub fn new(runner: RunnerId, shards: ShardCount, work_dir: PathBuf) -> Self {
        Self {
            runner,
            queues: vec![QueueName::default()],
            weights: BTreeMap::new(),
            labels: BTreeMap::new(),
            slots: 16,
            lease: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(30),
            shards,
            work_dir,
            user: None,
            launcher: None,
            adopts_orphans: true,
            uses_cgroups: false,
            guard: None,
            http_allow: Vec::new(),
            callback_url: None,
            secrets_dir: None,
            kafka: BTreeMap::new(),
            topics_prefix: String::new(),
            handlers: Handlers::default(),
            is_handlers_only: false,
            metrics: Metrics::new(),
            health: None,
        }
    }
}

impl RunnerConfig {
    pub(crate) fn weight_of(&self, queue: &QueueName) -> u16 {
        self.weights.get(queue).copied().unwrap_or(1)
    }
}

/// Why a runner ended though nobody asked.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The log can't be used as it is; a person must act.
    #[error("the runner can't use the log: {0}")]
    Log(#[from] LogError),
    /// A claim can never succeed as things are; a person must act.
    #[error("the runner can't claim: {0}")]
    Claim(AppendError),
    /// The machine gives no threads or no directory.
    #[error("the runner can't work on this machine: {0}")]
    Machine(#[from] std::io::Error),
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
}
