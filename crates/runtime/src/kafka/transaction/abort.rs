//! Ending a transaction that must not be seen. Not here: when (`append_batch`, the callers of `abort`). Invariant: an
//! abort that was begun is gone on with until it is done or the broker does it by itself: until then what was written
//! hides whatever is written behind it.

use rdkafka::producer::{Producer, PurgeConfig};

use super::TransactionalProducer;
use crate::clock::Clock;
use crate::kafka::client::{Deadline, drop_aside};
use crate::log::AppendError;

impl TransactionalProducer {
    /// Makes all of the open transaction invisible for ever; nothing to do if none is open.
    ///
    /// # Errors
    /// The id is dead then. [`TransactionalProducer::retire`] goes on with it, and the broker aborts by itself once the
    /// transaction's time is up.
    pub(crate) fn abort(&mut self) -> Result<(), AppendError> {
        if !self.is_open {
            return Ok(());
        }
        self.is_open = false;
        self.is_aborting = !self.is_dead;
        // The abort call does not serve delivery reports, and waits for them: purge and fetch them first.
        self.producer.purge(PurgeConfig::default().queue().inflight());
        let started = self.clock.monotonic();
        while self.producer.in_flight_count() > 0 {
            self.producer.wait_and_serve(self.limits.abort);
            if self.clock.monotonic().saturating_sub(started) > self.limits.abort {
                self.is_dead = true;
                return Err(AppendError::Retriable(format!("{}: records in flight do not end", self.id)));
            }
        }
        if self.is_dead {
            return Ok(());
        }
        self.producer.abort_transaction(self.limits.abort).map_err(|error| {
            self.is_dead = true;
            self.classify(&error)
        })?;
        self.is_aborting = false;
        self.is_suspect |= self.clock.monotonic().saturating_sub(started) > self.limits.slow_commit;
        Ok(())
    }

    /// Drops a producer that writes no more, on a thread of its own; what is open is aborted before, however long that takes.
    pub(crate) fn retire(mut self) {
        if !self.is_open && !self.is_aborting {
            drop_aside(self);
            return;
        }
        let work = move || {
            if self.abort().is_err() || self.is_aborting {
                self.finish_abort();
            }
        };
        // Without a thread the broker aborts, by its timeout.
        let spawned = std::thread::Builder::new().name("kafka-abort".to_owned()).spawn(work);
        drop(spawned);
    }

    /// The coordinator may be on its way to another broker.
    fn finish_abort(self) {
        let deadline = Deadline::after(self.limits.transaction);
        while !deadline.has_passed() {
            self.producer.wait_and_serve(self.limits.abort);
            // In short steps: the call serves no delivery reports, and may wait for one.
            match self.producer.abort_transaction(self.limits.abort) {
                Ok(()) => {
                    tracing::debug!(producer = self.id, "aborted late");
                    return;
                }
                Err(error) if is_retriable(&error) => {}
                Err(error) => {
                    tracing::debug!(producer = self.id, %error, "can't abort");
                    return;
                }
            }
        }
        tracing::debug!(producer = self.id, "could not abort; the broker will, by its timeout");
    }
}

fn is_retriable(error: &rdkafka::error::KafkaError) -> bool {
    matches!(error, rdkafka::error::KafkaError::Transaction(inner) if inner.is_retriable())
}
