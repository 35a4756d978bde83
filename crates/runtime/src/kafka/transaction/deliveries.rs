//! What comes back while a transaction goes on: delivery reports and signs of a lost connection. Not here: what
//! follows from them (`transaction`). Invariant: the first answer to a record counts.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use rdkafka::Timestamp;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;

use crate::kafka::client::lock;

/// Answers of the broker to the records of one transaction, by order of enqueueing.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) answers: Vec<Option<Result<i64, RDKafkaErrorCode>>>,
    pub(super) answered: usize,
    /// Earliest and latest time that brokers stamped on the records, in milliseconds.
    pub(super) stamped_ms: Option<(i64, i64)>,
}

impl Answers {
    pub(super) fn clear(&mut self) {
        self.answers.clear();
        self.answered = 0;
        self.stamped_ms = None;
    }

    /// Makes room for the answers to the first `count` records.
    pub(super) fn expect(&mut self, count: usize) {
        if self.answers.len() < count {
            self.answers.resize(count, None);
        }
    }
}

/// Collects delivery reports and counts disconnects; logs nothing, for the caller learns all of it.
#[derive(Default)]
pub(super) struct Deliveries {
    answers: Mutex<Answers>,
    disconnects: AtomicU64,
}

impl Deliveries {
    pub(super) fn answers(&self) -> MutexGuard<'_, Answers> {
        lock(&self.answers)
    }

    pub(super) fn disconnects(&self) -> u64 {
        self.disconnects.load(Ordering::Relaxed)
    }
}

impl ClientContext for Deliveries {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "kafka client");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if is_disconnect(&error) {
            self.disconnects.fetch_add(1, Ordering::Relaxed);
        }
        // During an outage these come ten times a second.
        tracing::debug!(%error, reason, "kafka client");
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let mut answers = lock(&self.answers);
        answers.expect(index + 1);
        let is_new = answers.answers.get(index).is_some_and(Option::is_none);
        let answer = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        if let Ok(message) = result
            && let Timestamp::LogAppendTime(at) = message.timestamp()
        {
            let (first, last) = answers.stamped_ms.unwrap_or((at, at));
            answers.stamped_ms = Some((first.min(at), last.max(at)));
        }
        if is_new {
            answers.answered += 1;
            answers.answers[index] = Some(answer);
        }
    }
}

/// True if a request may have been sent again because of it.
fn is_disconnect(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
                | RDKafkaErrorCode::AllBrokersDown
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::OperationTimedOut
                | RDKafkaErrorCode::RequestTimedOut
        )
    )
}
