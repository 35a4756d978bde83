//! Records into the log as fast as it takes them, as a producer outside Orloj would: idempotent, acknowledged by
//! all. Not here: what they say (`definitions`). Invariant: on return every record is durable.

use std::time::Duration;

use orloj_runtime::log::NewRecord;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, Message};

use crate::bed::{Bed, PREFIX};

/// Records of one append where there is no broker.
const CHUNK: usize = 2000;

/// A producer of plain records.
pub(crate) enum Bulk {
    Kafka(ThreadedProducer<Reports>),
    Embedded(Box<dyn orloj_runtime::log::Appender>, Vec<NewRecord>),
}

/// Nothing may get lost unseen: a failed delivery ends the bench.
pub(crate) struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, message)) = result {
            eprintln!("{}: not delivered: {error}", message.topic());
            std::process::abort();
        }
    }
}

impl Bulk {
    pub(crate) fn new(bed: &Bed) -> Self {
        let Some(broker) = &bed.broker else {
            return Self::Embedded(bed.log.appender().expect("an appender"), Vec::new());
        };
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", broker.bootstrap()).set("enable.idempotence", "true").set("acks", "all");
        config.set("linger.ms", "5").set("queue.buffering.max.messages", "200000");
        Self::Kafka(config.create_with_context(Reports).expect("valid settings"))
    }

    /// Takes a record; waits while too many are on their way.
    pub(crate) fn send(&mut self, record: NewRecord) {
        match self {
            Self::Kafka(producer) => {
                let topic = format!("{PREFIX}{}", record.topic);
                let mut message: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&topic).partition(record.partition);
                message.key = record.key.as_deref();
                message.payload = record.value.as_deref();
                while let Err((error, returned)) = producer.send(message) {
                    let is_full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                    assert!(is_full, "not sent: {error}");
                    message = returned;
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            Self::Embedded(_, waiting) => {
                waiting.push(record);
                if waiting.len() >= CHUNK {
                    self.flush();
                }
            }
        }
    }

    /// Waits until all are durable.
    pub(crate) fn flush(&mut self) {
        match self {
            Self::Kafka(producer) => producer.flush(Duration::from_secs(600)).expect("a broker that answers"),
            Self::Embedded(appender, waiting) => {
                appender.append(std::mem::take(waiting)).expect("an append");
            }
        }
    }
}
