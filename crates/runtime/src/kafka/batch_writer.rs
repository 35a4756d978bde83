//! Atomic batches step by step under one id, over [`TransactionalProducer`]. Not here: ownership (`owner`).
//! Invariant: after an error the open batch is aborted or left to the broker's time-out, never half committed.

use std::sync::Arc;

use super::config::KafkaConfig;
use super::ends::Ends;
use super::transaction::{TransactionLimits, TransactionalProducer};
use crate::log::{AppendError, BatchWriter, LogError, NewRecord, Position};

/// A writer with an id of its own.
pub(crate) struct KafkaBatchWriter {
    producer: Option<TransactionalProducer>,
}

impl KafkaBatchWriter {
    /// Opens `id` and shuts out whoever held it.
    pub(crate) fn open(config: &Arc<KafkaConfig>, ends: &Ends, id: &str) -> Result<Self, LogError> {
        let warm_topic = ends.any_topic()?;
        let base = config.for_transactions();
        let limits = TransactionLimits::of(config);
        let producer = TransactionalProducer::open(&base, &config.prefix, &config.full_name(id), &warm_topic, limits);
        let producer = producer.map_err(|error| LogError::Unavailable(error.to_string()))?;
        Ok(Self { producer: Some(producer) })
    }

    fn producer(&mut self) -> &mut TransactionalProducer {
        self.producer.as_mut().expect("there until dropped")
    }
}

impl Drop for KafkaBatchWriter {
    /// Aborts what is open: left alone it would hide later records of its partitions until the broker's time-out.
    fn drop(&mut self) {
        if let Some(producer) = self.producer.take() {
            producer.retire();
        }
    }
}

fn stage(producer: &mut TransactionalProducer, records: &[NewRecord]) -> Result<Vec<Position>, AppendError> {
    if !producer.is_open() {
        producer.begin()?;
    }
    producer.enqueue(records)?;
    producer.acknowledged()
}

impl BatchWriter for KafkaBatchWriter {
    fn stage(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, AppendError> {
        let producer = self.producer();
        let outcome = stage(producer, &records);
        producer.abort_after(&outcome);
        outcome
    }

    fn commit(&mut self) -> Result<(), AppendError> {
        let producer = self.producer();
        if !producer.is_open() {
            return Ok(());
        }
        let outcome = producer.commit();
        producer.abort_after(&outcome);
        outcome
    }

    fn abort(&mut self) -> Result<(), AppendError> {
        self.producer().abort()
    }
}
