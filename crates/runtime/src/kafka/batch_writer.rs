//! Atomic batches step by step under one id, over [`TransactionalProducer`]. Not here: ownership (`owner`).
//! Invariant: after an error the open batch is aborted or left to the broker's time-out, never half committed.

use std::sync::Arc;

use super::client::Aside;
use super::config::KafkaConfig;
use super::ends::Ends;
use super::transaction::{TransactionLimits, TransactionalProducer};
use crate::log::{AppendError, BatchWriter, LogError, NewRecord, Position};

/// A writer with an id of its own.
pub(crate) struct KafkaBatchWriter {
    producer: Aside<TransactionalProducer>,
}

impl KafkaBatchWriter {
    /// Opens `id` and shuts out whoever held it.
    pub(crate) fn open(config: &Arc<KafkaConfig>, ends: &Ends, id: &str) -> Result<Self, LogError> {
        let warm_topic = ends.any_topic()?;
        let base = config.for_transactions();
        let limits = TransactionLimits::default();
        let producer =
            TransactionalProducer::open(&base, &config.prefix, &config.full_name(id), &warm_topic, limits);
        let producer = producer.map_err(|error| LogError::Unavailable(error.to_string()))?;
        Ok(Self { producer: Aside::new(producer) })
    }

    fn try_stage(&mut self, records: &[NewRecord]) -> Result<Vec<Position>, AppendError> {
        if !self.producer.is_open() {
            self.producer.begin()?;
        }
        self.producer.enqueue(records)?;
        self.producer.acknowledged()
    }
}

impl BatchWriter for KafkaBatchWriter {
    fn stage(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, AppendError> {
        let outcome = self.try_stage(&records);
        self.producer.abort_after(&outcome);
        outcome
    }

    fn commit(&mut self) -> Result<(), AppendError> {
        if !self.producer.is_open() {
            return Ok(());
        }
        let outcome = self.producer.commit();
        self.producer.abort_after(&outcome);
        outcome
    }

    fn abort(&mut self) -> Result<(), AppendError> {
        self.producer.abort()
    }
}
