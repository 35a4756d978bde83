//! Where the log is, for runners and producers. Not here: what they do there. Invariant: the number of shards is read
//! from the log and never assumed, so that a record can't land in a wrong partition.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runner::RunnerError;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog, check_shards};
use orloj_runtime::log::{Log, LogError};

/// What topics begin with unless the installation says otherwise (`topics.prefix`).
const PREFIX_DEFAULT: &str = "orloj.";

/// Where the log of an installation is.
#[derive(Clone)]
pub struct Connection {
    properties: BTreeMap<String, String>,
    prefix: String,
    log: Option<Arc<dyn Log>>,
}

/// Why a runner or a producer can't work.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// What it was given contradicts itself or breaks a rule; the text names the call.
    #[error("{0}")]
    Settings(String),
    /// The log can't be used as it is.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The runner ended though nobody asked.
    #[error(transparent)]
    Runner(#[from] RunnerError),
}

impl Connection {
    /// Kafka, or what speaks its protocol, at `bootstrap`: `host:port`, several with commas between them.
    #[must_use]
    pub fn kafka(bootstrap: &str) -> Self {
        let properties = BTreeMap::from([("bootstrap.servers".to_owned(), bootstrap.to_owned())]);
        Self { properties, prefix: PREFIX_DEFAULT.to_owned(), log: None }
    }

    /// A log that is open already: one in this process, in a test or beside services of this process.
    #[must_use]
    pub fn log(log: Arc<dyn Log>) -> Self {
        Self { log: Some(log), ..Self::kafka("") }
    }

    /// A setting of librdkafka by its own name, for example `security.protocol`. Handed on untouched.
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.properties.insert(key.to_owned(), value.to_owned());
        self
    }

    /// What the topics of the installation begin with (`topics.prefix`); `orloj.` unless it is set here.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        prefix.clone_into(&mut self.prefix);
        self
    }

    /// Opens the log. Kafka need not be there yet.
    ///
    /// # Errors
    /// [`LogError::Misconfigured`] that names the setting librdkafka refuses.
    pub(crate) fn open(&self) -> Result<Arc<dyn Log>, LogError> {
        match &self.log {
            Some(log) => Ok(Arc::clone(log)),
            None => {
                let config = KafkaConfig { properties: self.properties.clone(), prefix: self.prefix.clone() };
                Ok(Arc::new(KafkaLog::connect(config)?))
            }
        }
    }

    /// How many shards the installation has, by its topic of jobs; the other topics named must have as many.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] while the log does not answer, [`LogError::Misconfigured`] if its topics are not an
    /// installation's.
    pub(crate) fn shards(&self, log: &dyn Log, others: &[&str]) -> Result<ShardCount, LogError> {
        let topics = log.topics()?;
        let jobs = topics.iter().find(|spec| spec.name == topic::JOBS);
        let count = jobs.map_or(0, |spec| spec.partitions);
        let Some(shards) = ShardCount::new(count) else {
            return Err(LogError::Misconfigured(format!(
                "there is no topic `{}{}`: make the topics with `orloj topics apply`, or name the installation's own \
                 prefix with `.prefix(…)`",
                self.prefix,
                topic::JOBS
            )));
        };
        let others: Vec<String> = others.iter().map(|name| (*name).to_owned()).collect();
        check_shards(log, shards.get(), &others)?;
        Ok(shards)
    }
}

/// Without the values of settings, some of which are secrets.
impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<&String> = self.properties.keys().collect();
        f.debug_struct("Connection").field("prefix", &self.prefix).field("settings", &keys).finish_non_exhaustive()
    }
}
