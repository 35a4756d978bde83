//! Readers, appenders and batch writers of the embedded log. Not here: owners and claimers.
//! Invariant: a batch writer that is dropped, or whose id was opened again, leaves nothing visible.

use std::sync::Arc;
use std::time::Duration;

use super::EmbeddedLog;
use super::cursors::Cursors;
use super::signal::{Attempt, Signal};
use super::store::BatchId;
use super::write::{Body, Guard, Write};
use crate::log::{
    AppendError, Appender, BatchWriter, Isolation, LogError, NewRecord, Position, Reader, Record, TopicPartition, Waker,
};

/// Reads the embedded log.
pub(crate) struct EmbeddedReader {
    cursors: Cursors,
    signal: Arc<Signal>,
}

impl EmbeddedReader {
    /// A reader of nothing yet.
    pub(crate) fn new(log: &EmbeddedLog, isolation: Isolation) -> Result<Self, LogError> {
        let signal = Arc::new(Signal::default());
        Ok(Self { cursors: Cursors::new(log, isolation, &signal)?, signal })
    }
}

impl Reader for EmbeddedReader {
    fn read_from(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        positions.iter().try_for_each(|(at, offset)| self.cursors.set(at, *offset))
    }

    fn stop(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            self.cursors.remove(at);
        }
    }

    fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<Record>, LogError> {
        let cursors = &mut self.cursors;
        let found = self.signal.until(timeout, || {
            let records = cursors.fetch(max)?;
            Ok::<_, LogError>(match records.is_empty() {
                true => Attempt::Wait { look_again: None },
                false => Attempt::Done(records),
            })
        })?;
        Ok(found.unwrap_or_default())
    }

    fn waker(&self) -> Waker {
        self.signal.waker()
    }
}

/// Appends to the embedded log.
pub(crate) struct EmbeddedAppender {
    log: EmbeddedLog,
}

impl EmbeddedAppender {
    /// An appender.
    pub(crate) fn new(log: &EmbeddedLog) -> Self {
        Self { log: log.clone() }
    }
}

impl Appender for EmbeddedAppender {
    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, AppendError> {
        self.log.append(Guard::None, records)
    }
}

/// Writes atomic batches to the embedded log.
pub(crate) struct EmbeddedBatchWriter {
    log: EmbeddedLog,
    id: String,
    epoch: u64,
    batch: Option<BatchId>,
}

impl EmbeddedBatchWriter {
    /// Opens the id; whoever had it before can write no more, and what they left open is aborted.
    pub(crate) fn open(log: &EmbeddedLog, id: &str) -> Result<Self, LogError> {
        let (epoch, left_open) = {
            let mut broker = log.core().broker();
            let writer = broker.writers.entry(id.to_owned()).or_default();
            writer.epoch += 1;
            (writer.epoch, writer.batch.take())
        };
        if let Some(batch) = left_open {
            let body = Body::Decide { batch, is_committed: false };
            log.write(Write { guard: Guard::None, body }).map_err(|error| LogError::Unavailable(error.to_string()))?;
        }
        Ok(Self { log: log.clone(), id: id.to_owned(), epoch, batch: None })
    }

    fn guard(&self) -> Guard {
        Guard::Writer { id: self.id.clone(), epoch: self.epoch }
    }

    /// The open batch; a new one, made known under our id before any record of it exists.
    fn open_batch(&mut self) -> Result<BatchId, AppendError> {
        if let Some(batch) = self.batch {
            return Ok(batch);
        }
        let mut broker = self.log.core().broker();
        let batch = broker.next_batch;
        let writer = broker.writers.get_mut(&self.id).filter(|writer| writer.epoch == self.epoch);
        let Some(writer) = writer else {
            return Err(AppendError::Refused(format!("the writer id {} was opened again", self.id)));
        };
        writer.batch = Some(batch);
        broker.next_batch += 1;
        self.batch = Some(batch);
        Ok(batch)
    }

    fn decide(&mut self, is_committed: bool) -> Result<(), AppendError> {
        let Some(batch) = self.batch else { return Ok(()) };
        let body = Body::Decide { batch, is_committed };
        let outcome = self.log.write(Write { guard: self.guard(), body });
        // After a commit that could not be written the batch is still open and may be tried again.
        if !matches!(outcome, Err(AppendError::Full(_) | AppendError::Retriable(_))) {
            self.batch = None;
            let mut broker = self.log.core().broker();
            if let Some(writer) = broker.writers.get_mut(&self.id).filter(|writer| writer.epoch == self.epoch) {
                writer.batch = None;
            }
        }
        outcome.map(drop)
    }
}

impl BatchWriter for EmbeddedBatchWriter {
    fn stage(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, AppendError> {
        self.log.core().check_sizes(&records)?;
        let batch = self.open_batch()?;
        self.log.write(Write { guard: self.guard(), body: Body::Stage { batch, records } })
    }

    fn commit(&mut self) -> Result<(), AppendError> {
        self.decide(true)
    }

    fn abort(&mut self) -> Result<(), AppendError> {
        self.decide(false)
    }
}

impl Drop for EmbeddedBatchWriter {
    fn drop(&mut self) {
        if let Err(error) = self.decide(false) {
            tracing::debug!(%error, id = self.id, "an open batch was left to its successor");
        }
    }
}
