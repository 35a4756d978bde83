//! The log on Kafka: `trait Log` in terms of librdkafka. Everything that knows Kafka is in this folder; who may
//! write is in `owner`. Every call blocks and every client is polled by the thread that uses it.
//! Invariant: names outside this folder have no prefix, names inside Kafka always do.

mod admin;
mod appender;
mod batch_writer;
mod check;
mod claim_ids;
mod claim_membership;
mod claimer;
pub(crate) mod client;
mod config;
mod ends;
mod fault;
mod ffi;
mod keeper;
pub mod outlet;
pub mod owner;
mod polled;
mod reader;
mod rescue;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::time::Timestamp;

use crate::log::{
    Appender, BatchWriter, Claimer, ClaimerSpec, Isolation, Log, LogError, Owner, OwnerSpec, Reader, TopicPartition,
    TopicSpec,
};

pub use check::check_shards;
pub use config::{KafkaConfig, is_secret};

/// A Kafka cluster as a log. Clones share their connections.
#[derive(Clone)]
pub struct KafkaLog {
    config: Arc<KafkaConfig>,
    ends: Arc<ends::Ends>,
}

impl KafkaLog {
    /// Takes the settings. A cluster that is away is no error here; see [`KafkaLog::check`].
    ///
    /// # Errors
    /// [`LogError::Misconfigured`] that names the setting librdkafka refuses.
    pub fn connect(config: KafkaConfig) -> Result<Self, LogError> {
        let config = Arc::new(config);
        let ends = Arc::new(ends::Ends::new(config.clone())?);
        Ok(Self { config, ends })
    }

    /// Waits until the cluster answers, `timeout` at most.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] that names the address, the setting and the cause.
    pub fn check(&self, timeout: Duration) -> Result<(), LogError> {
        self.ends.check(timeout)
    }
}

impl Log for KafkaLog {
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        admin::topics(&self.config, &self.ends)
    }

    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        admin::create_topic(&self.config, &self.ends, spec)
    }

    fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<i64, LogError> {
        self.ends.end(at, isolation)
    }

    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<i64, LogError> {
        self.ends.offset_at(at, time)
    }

    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(reader::KafkaReader::new(self.config.clone(), self.ends.clone(), isolation)?))
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(appender::KafkaAppender::new(self.config.clone(), self.ends.clone())?))
    }

    fn batch_writer(&self, id: &str) -> Result<Box<dyn BatchWriter>, LogError> {
        Ok(Box::new(batch_writer::KafkaBatchWriter::open(&self.config, &self.ends, id)?))
    }

    fn own(&self, spec: OwnerSpec) -> Result<Box<dyn Owner>, LogError> {
        Ok(Box::new(owner::KafkaOwner::join(self, spec)?))
    }

    fn claim(&self, spec: ClaimerSpec) -> Result<Box<dyn Claimer>, LogError> {
        Ok(Box::new(claimer::KafkaClaimer::join(self, &spec)?))
    }
}
