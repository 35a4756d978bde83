//! The configuration of a process: flag > environment > `orloj.toml` > default. Not here:
//! what a value does. Invariant: an unknown key of a file or a flag is refused by name and place, and a secret
//! never reaches a log or a terminal.

mod keys;
mod layers;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use orloj_domain::id::{QueueName, RunnerId};
use orloj_domain::shard::ShardCount;

pub use layers::{Layers, Origin};

/// Name of the file that is read when it is there and no other is named.
pub const FILE_DEFAULT: &str = "orloj.toml";
/// Default number of shards of an installation on Kafka.
pub const SHARDS_DEFAULT: i32 = 32;

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON document per line.
    Json,
}

/// One complaint about the configuration, with the place it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// The file and line, the variable or the flag.
    pub origin: Origin,
    /// The key.
    pub key: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.message)
        } else {
            write!(f, "{}: `{}` {}", self.origin, self.key, self.message)
        }
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<Complaint>);

/// A cluster that `kafka` targets may name.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaTargetConfig {
    /// Topics that jobs may write to; `*` at the end of one stands for any ending.
    pub topics: Vec<String>,
    /// librdkafka's properties.
    pub properties: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaTargetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values may be secrets.
        let names: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("KafkaTargetConfig").field("topics", &self.topics).field("properties", &names).finish()
    }
}

/// The configuration of a process, complete.
#[derive(Clone, PartialEq, Eq)]
pub struct Config {
    /// `kafka.*` without that prefix, passed to librdkafka untouched.
    pub kafka: BTreeMap<String, String>,
    /// `topics.prefix`.
    pub topics_prefix: String,
    /// `shards`.
    pub shards: ShardCount,
    /// `listen`.
    pub listen: SocketAddr,
    /// `data.dir`.
    pub data_dir: PathBuf,
    /// `clock.jumpMax`: how far the wall clock may jump forward before nothing is decided any more.
    pub clock_jump_max: Duration,
    /// `runner.queues`, without weights.
    pub runner_queues: Vec<QueueName>,
    /// The weights of those that do not weigh 1; 1000 at most.
    pub runner_queue_weights: BTreeMap<QueueName, u16>,
    /// `runner.slots`.
    pub runner_slots: u16,
    /// `runner.lease`.
    pub runner_lease: Duration,
    /// `runner.id`; absent: made from the host's name and the process id.
    pub runner_id: Option<RunnerId>,
    /// `runner.drainTimeout`: how long attempts may go on after SIGTERM; those that are left are handed back.
    pub runner_drain_timeout: Duration,
    /// `runner.http.allow`: networks, addresses and hosts inside of the runner's own network that jobs may go to.
    pub runner_http_allow: Vec<String>,
    /// `runner.callbackUrl`: where targets reach the API; absent: they are told the path alone.
    pub runner_callback_url: Option<String>,
    /// `runner.secretsDir`: a directory of files that are secrets, each by its name.
    pub runner_secrets_dir: Option<PathBuf>,
    /// `runner.kafka.<cluster>.*`: clusters that jobs may send messages to, by name.
    pub runner_kafka: BTreeMap<String, KafkaTargetConfig>,
    /// `runner.cgroups`: attempts get control groups of their own, where this process may make some.
    pub runner_cgroups: bool,
    /// `runner.user`: whom `exec` and `shell` attempts run as, a name or a number, with or without `:group`.
    pub runner_user: Option<String>,
    /// `runner.labels`: what a runner says about itself, for people.
    pub runner_labels: BTreeMap<String, String>,
    /// `log.format`.
    pub log_format: LogFormat,
    /// Where each value came from, by key, and the value as text; secrets included, so never printed as it is.
    values: BTreeMap<String, (String, Origin)>,
    /// Variables that look like ours and are none, for a note in the log.
    pub unknown_variables: Vec<String>,
}

impl Config {
    /// Puts the layers together.
    ///
    /// # Errors
    /// Every complaint at once.
    pub fn from_layers(layers: &Layers<'_>) -> Result<Self, ConfigError> {
        layers::merge(layers).and_then(keys::read)
    }

    /// The result as `orloj.toml` would say it, each line with its origin, secrets hidden.
    #[must_use]
    pub fn printed(&self) -> String {
        let mut lines = String::new();
        for (key, (value, origin)) in &self.values {
            let shown = if keys::is_secret(key) { "(hidden)" } else { value };
            let name = match (key.strip_prefix("kafka."), keys::target_cluster(key)) {
                (Some(property), _) => format!("kafka.{}", toml::Value::from(property)),
                (None, Some((cluster, property))) => {
                    format!("runner.kafka.{cluster}.{}", toml::Value::from(property))
                }
                (None, None) => key.clone(),
            };
            let text = keys::toml_text(key, shown);
            lines.push_str(&format!("{name} = {text}    # {origin}\n"));
        }
        lines
    }

    /// Where the value of a key came from.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.values.get(key).map(|(_, origin)| origin)
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .values
            .iter()
            .map(|(key, (value, _))| (key, if keys::is_secret(key) { "(hidden)" } else { value.as_str() }));
        f.debug_map().entries(shown).finish()
    }
}
