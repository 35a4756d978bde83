//! Appends records that are each durable by themselves: an idempotent producer that waits for all copies.
//! Not here: batches that hold together (`transaction`). Invariant: the records of one partition stand in the
//! order given, and one call's records are all answered before it returns.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header as KafkaHeader, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::statistics::Statistics;

use super::client::{Aside, Complaints, lock};
use super::config::KafkaConfig;
use super::ends::Ends;
use super::fault;
use super::polled::Polled;
use crate::log::{AppendError, Appender, LogError, NewRecord, Position};

/// How long a wait takes at most before it is looked whether anything is left to wait for.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A plain appender.
pub(crate) struct KafkaAppender {
    producer: Aside<Polled<Deliveries>>,
    config: Arc<KafkaConfig>,
    ends: Arc<Ends>,
}

impl KafkaAppender {
    /// Contacts nobody yet.
    pub(crate) fn new(config: Arc<KafkaConfig>, ends: Arc<Ends>) -> Result<Self, LogError> {
        let producer = producer(&config).map_err(|error| fault::of_read("", &error))?;
        Ok(Self { producer, config, ends })
    }

    /// Finds what can be known to fail before anything is sent.
    fn check(&self, records: &[NewRecord]) -> Result<(), AppendError> {
        let record_bytes_max = self.config.record_bytes_max();
        for record in records {
            if record.size_bytes() > record_bytes_max {
                return Err(AppendError::TooLarge { topic: record.topic.to_string(), size_bytes: record.size_bytes() });
            }
        }
        self.ends.require_all(records)
    }

    /// Hands one record to the client. A full queue is waited for here, so that nothing overtakes the record.
    fn enqueue(&self, index: usize, record: &NewRecord) -> Result<(), KafkaError> {
        let topic = self.config.full_name(&record.topic);
        let mut message = BaseRecord::with_opaque_to(&topic, index).partition(record.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.headers = headers_of(record);
        loop {
            match self.producer.send(message) {
                Ok(()) => return Ok(()),
                Err((error, returned)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    // Ends at the latest when the records in the queue time out.
                    message = returned;
                    self.producer.wait_and_serve(LOOK_INTERVAL);
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits for all answers; the client gives each record up after `message.timeout.ms`.
    fn settle(&self) {
        while self.producer.in_flight_count() > 0 {
            self.producer.wait_and_serve(LOOK_INTERVAL);
        }
        self.producer.serve();
    }

    /// A producer that met a fatal error takes no more records.
    fn replace_if_broken(&mut self) {
        if self.producer.client().fatal_error().is_none() {
            return;
        }
        match producer(&self.config) {
            Ok(producer) => self.producer = producer,
            Err(error) => tracing::warn!(%error, "could not replace a broken producer"),
        }
    }
}

impl Appender for KafkaAppender {
    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, AppendError> {
        self.check(&records)?;
        self.replace_if_broken();
        self.producer.context().begin(records.len());
        let mut failure = None;
        for (index, record) in records.iter().enumerate() {
            if let Err(error) = self.enqueue(index, record) {
                failure = Some((index, error));
                break;
            }
        }
        self.settle();
        let answers = self.producer.context().take();
        let acknowledged = answers.iter().filter(|answer| matches!(answer, Some(Ok(_)))).count();
        let mut positions = Vec::with_capacity(records.len());
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Some(Ok(offset)) => positions.push(offset),
                Some(Err(error)) => failure = failure.or(Some((index, error))),
                None => failure = failure.or(Some((index, KafkaError::Canceled))),
            }
        }
        if let Some((index, error)) = failure {
            return Err(fault::of_append(&records[index], &error, acknowledged));
        }
        let position =
            |(record, offset): (NewRecord, i64)| Position { topic: record.topic, partition: record.partition, offset };
        Ok(records.into_iter().zip(positions).map(position).collect())
    }
}

fn producer(config: &KafkaConfig) -> Result<Aside<Polled<Deliveries>>, KafkaError> {
    let context = Deliveries { complaints: Complaints::new("appender"), answers: Mutex::new(Vec::new()) };
    let producer: BaseProducer<Deliveries> = config.for_producer().create_with_context(context)?;
    Ok(Aside::new(Polled::new(config.kept(producer))))
}

fn headers_of(record: &NewRecord) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for header in &record.headers {
        headers = headers.insert(KafkaHeader { key: &header.key, value: header.value.as_ref() });
    }
    Some(headers)
}

/// The broker's answer to each record of the call under way, by its place in the call.
struct Deliveries {
    complaints: Complaints,
    answers: Mutex<Vec<Option<Result<i64, KafkaError>>>>,
}

impl Deliveries {
    fn begin(&self, count: usize) {
        let mut answers = lock(&self.answers);
        answers.clear();
        answers.resize(count, None);
    }

    fn take(&self) -> Vec<Option<Result<i64, KafkaError>>> {
        std::mem::take(&mut *lock(&self.answers))
    }
}

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.complaints.log(level, facility, message);
    }

    fn stats(&self, _statistics: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let answer = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        if let Some(place) = lock(&self.answers).get_mut(index) {
            *place = Some(answer);
        }
    }
}
