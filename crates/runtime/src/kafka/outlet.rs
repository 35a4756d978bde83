//! Sends messages to topics of whichever cluster jobs may write to. Not here: our own topics (`appender`, `transaction`),
//! which messages may go where (the runner). Invariant: every message that is taken is answered once, and one that was
//! answered as sent is held by all in-sync copies.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, ProducerContext};
use rdkafka::statistics::Statistics;

use super::client::{Aside, Complaints};
use super::config::KafkaConfig;
use super::fault;
use super::keeper::Kept;
use super::polled::Polled;
use crate::log::LogError;

/// How long the thread that serves answers waits at most before it looks whether anybody still sends.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for a message to be taken by the cluster, unless `message.timeout.ms` is set.
const SEND_MAX: Duration = Duration::from_secs(30);

/// What the cluster is asked about to see that it answers; whether it is there does not matter.
const SOME_TOPIC: &str = "__consumer_offsets";

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OutletMessage {
    /// The topic, by its whole name.
    pub topic: String,
    /// Chooses the partition, as Java's clients do; empty: any.
    pub key: String,
    /// The value, empty if it is empty; never a tombstone.
    pub value: String,
    /// Headers in order.
    pub headers: Vec<(String, String)>,
}

/// Where a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentTo {
    /// The partition.
    pub partition: i32,
    /// Its offset there.
    pub offset: i64,
}

/// Why a message may not be there. Unless it is final it may be all the same: the answer may be what was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotSent {
    /// As a sentence.
    pub reason: String,
    /// The same message can never be sent there.
    pub is_final: bool,
}

/// Called with what became of a message, on a thread of the client's: it must not wait.
pub type OnSent = Box<dyn FnOnce(Result<SentTo, NotSent>) + Send + Sync>;

/// A producer for one cluster; idempotent, for all copies. Ends with its last clone.
#[derive(Clone)]
pub struct Outlet {
    producer: Arc<Aside<Polled<Sent>>>,
}

impl Outlet {
    /// Contacts nobody yet. `properties` are librdkafka's.
    ///
    /// # Errors
    /// [`LogError::Misconfigured`] that names the property librdkafka refuses, [`LogError::Unavailable`] without a thread.
    pub fn connect(properties: &BTreeMap<String, String>) -> Result<Self, LogError> {
        let config = KafkaConfig { properties: properties.clone(), prefix: String::new() };
        let mut client = config.for_producer();
        if !properties.contains_key("message.timeout.ms") {
            client.set("message.timeout.ms", SEND_MAX.as_millis().to_string());
        }
        if !properties.contains_key("partitioner") {
            client.set("partitioner", "murmur2_random");
        }
        let producer: BaseProducer<Sent> =
            client.create_with_context(Sent(Complaints::new("outlet"))).map_err(|error| fault::of_read("", &error))?;
        let servers = client.get("bootstrap.servers").unwrap_or_default();
        let kept = Kept::new(producer, servers, SOME_TOPIC.to_owned());
        let producer = Arc::new(Aside::new(Polled::new(kept)));
        let served = Arc::downgrade(&producer);
        let serving = std::thread::Builder::new().name("kafka-outlet".to_owned()).spawn(move || serve(&served));
        serving.map_err(|error| LogError::Unavailable(format!("no thread: {error}")))?;
        Ok(Self { producer })
    }

    /// Hands a message over; `on_sent` is told what became of it, at the latest when the time for it is up.
    pub fn send(&self, message: &OutletMessage, on_sent: OnSent) {
        let mut record = BaseRecord::<str, str, Box<OnSent>>::with_opaque_to(&message.topic, Box::new(on_sent));
        record = record.payload(&message.value);
        if !message.key.is_empty() {
            record = record.key(&message.key);
        }
        let mut headers = OwnedHeaders::new_with_capacity(message.headers.len());
        for (key, value) in &message.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        if let Err((error, refused)) = self.producer.send(record.headers(headers)) {
            (*refused.delivery_opaque)(Err(not_sent(&error)));
        }
    }
}

fn serve(producer: &Weak<Aside<Polled<Sent>>>) {
    while let Some(producer) = producer.upgrade() {
        producer.wait_and_serve(LOOK_INTERVAL);
    }
}

fn not_sent(error: &KafkaError) -> NotSent {
    let (hint, is_final) = match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            ("; send less, or raise `message.max.bytes` of topic and producer", true)
        }
        Some(RDKafkaErrorCode::TopicAuthorizationFailed) => ("; let the runner's user write to the topic", true),
        Some(RDKafkaErrorCode::InvalidTopic) => ("; it is no name of a topic", true),
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownPartition,
        ) => ("; create the topic", false),
        Some(RDKafkaErrorCode::MessageTimedOut) => {
            ("; the cluster did not answer in time, and may have it or not", false)
        }
        _ => ("", false),
    };
    NotSent { reason: format!("{error}{hint}"), is_final }
}

/// Hands each answer to whoever waits for it.
struct Sent(Complaints);

impl ClientContext for Sent {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn stats(&self, _statistics: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Sent {
    type DeliveryOpaque = Box<OnSent>;

    fn delivery(&self, result: &DeliveryResult<'_>, on_sent: Box<OnSent>) {
        let told = match result {
            Ok(message) => Ok(SentTo { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(not_sent(error)),
        };
        (*on_sent)(told);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use rdkafka::mocking::MockCluster;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn sent(outlet: &Outlet, topic: &str) -> Result<SentTo, NotSent> {
        let message = OutletMessage {
            topic: topic.to_owned(),
            key: "k".to_owned(),
            value: "v".to_owned(),
            headers: vec![("h".to_owned(), "1".to_owned())],
        };
        let (answer, answers) = mpsc::channel();
        outlet.send(&message, Box::new(move |told| drop(answer.send(told))));
        answers.recv_timeout(PATIENCE).expect("an answer")
    }

    #[test]
    fn every_message_is_answered() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("orders", 1, 1).expect("a topic");
        let properties = [
            ("bootstrap.servers", cluster.bootstrap_servers()),
            ("message.timeout.ms", "2000".to_owned()),
            ("message.max.bytes", "1000".to_owned()),
        ];
        let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let outlet = Outlet::connect(&properties).expect("an outlet");
        assert_eq!(sent(&outlet, "orders"), Ok(SentTo { partition: 0, offset: 0 }));
        assert_eq!(sent(&outlet, "orders"), Ok(SentTo { partition: 0, offset: 1 }));
        let (answer, answers) = mpsc::channel();
        let huge = OutletMessage { topic: "orders".to_owned(), value: "x".repeat(2000), ..OutletMessage::default() };
        outlet.send(&huge, Box::new(move |told| drop(answer.send(told))));
        let refused = answers.recv_timeout(PATIENCE).expect("an answer").expect_err("too large");
        assert!(refused.is_final && refused.reason.contains("message.max.bytes"), "{refused:?}");
        drop(cluster);
        let lost = sent(&outlet, "orders").expect_err("nobody is there");
        assert!(!lost.is_final, "{lost:?}");
    }

    #[test]
    fn a_wrong_property_is_named() {
        let properties = BTreeMap::from([("no.such.property".to_owned(), "1".to_owned())]);
        let refused = Outlet::connect(&properties).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("no.such.property"), "{refused}");
    }
}
