//! Keeps clients in touch with their cluster. A broker that is being fenced, or counts itself in again, may name topics
//! and no broker at all; librdkafka (2.12, issue 5301) then lets go of all of its brokers, those of
//! `bootstrap.servers` included, and a client that is unlucky never comes back. Here one thread of the process asks every client
//! that lives long for metadata, and tells one that gets no answer the addresses anew. Not here: what a client does
//! while it is cut off. Invariant: nobody waits for this thread, and it ends no client on the way.

use std::ops::Deref;
use std::sync::{Arc, LazyLock, Mutex, Weak};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

use super::client::lock;
use super::ffi;
use crate::clock::{Clock, SystemClock};

/// Between two rounds; one that is cut off hears of its cluster after this and [`ANSWER_MAX`] for each that is too.
const INTERVAL: Duration = Duration::from_secs(5);
/// Longest wait for an answer. Being told for nothing costs a client a connection that it closes again.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// Between two looks whether a question to a client that is to end has ended.
const QUESTION_END: Duration = Duration::from_millis(2);
/// Longest time until a client is told again, while the cluster is away.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// A client of librdkafka, whatever its kind.
pub(crate) trait Reached: Send + Sync + 'static {
    /// Asks for a topic's metadata; true if any answer comes in time.
    fn answers(&self, topic: &str, timeout: Duration) -> bool;

    /// Tells it these addresses.
    fn tell(&self, servers: &str);
}

impl<C: ConsumerContext + 'static> Reached for BaseConsumer<C> {
    fn answers(&self, topic: &str, timeout: Duration) -> bool {
        answers(self.client(), topic, timeout)
    }

    fn tell(&self, servers: &str) {
        ffi::add_brokers(self.client(), servers);
    }
}

impl<C: ProducerContext + 'static> Reached for BaseProducer<C> {
    fn answers(&self, topic: &str, timeout: Duration) -> bool {
        answers(self.client(), topic, timeout)
    }

    fn tell(&self, servers: &str) {
        ffi::add_brokers(self.client(), servers);
    }
}

fn answers<C: ClientContext>(client: &Client<C>, topic: &str, timeout: Duration) -> bool {
    client.fetch_metadata(Some(topic), timeout).is_ok()
}

/// A client that is looked after.
struct Charge {
    client: Weak<dyn Reached>,
    servers: String,
    topic: String,
    told_at: Duration,
    backoff: Duration,
}

static CHARGES: LazyLock<Mutex<Vec<Charge>>> = LazyLock::new(|| {
    let keep = std::thread::Builder::new().name("kafka-keeper".to_owned()).spawn(keep);
    if let Err(error) = keep {
        tracing::warn!(%error, "no thread to look after Kafka clients: one that loses its cluster may not come back");
    }
    Mutex::new(Vec::new())
});

/// A client that is looked after until it is dropped.
pub(crate) struct Kept<K: Reached>(Option<Arc<K>>);

impl<K: Reached> Kept<K> {
    /// `servers` is the client's `bootstrap.servers`; `topic`, by its full name, should exist, because a producer's
    /// question may make it where the cluster allows that.
    pub(crate) fn new(client: K, servers: &str, topic: String) -> Self {
        let client = Arc::new(client);
        let seen: Arc<dyn Reached> = client.clone();
        let charge = Charge {
            client: Arc::downgrade(&seen),
            servers: servers.to_owned(),
            topic,
            told_at: Duration::ZERO,
            backoff: Duration::ZERO,
        };
        lock(&CHARGES).push(charge);
        Self(Some(client))
    }
}

impl<K: Reached> Deref for Kept<K> {
    type Target = K;

    fn deref(&self) -> &K {
        self.0.as_ref().expect("taken only by the drop")
    }
}

impl<K: Reached> Drop for Kept<K> {
    /// Ends the client here, and not in the middle of a question: whoever waits for its good-bye waits for this.
    fn drop(&mut self) {
        let mut shared = self.0.take();
        while let Some(client) = shared {
            shared = Arc::try_unwrap(client).err();
            if shared.is_some() {
                std::thread::park_timeout(QUESTION_END);
            }
        }
    }
}

fn keep() {
    let clock = SystemClock::new();
    loop {
        // Nobody unparks this thread; were it woken early, a round more would do no harm.
        std::thread::park_timeout(INTERVAL);
        // The list is free while clients are asked: others come and go meanwhile.
        let mut round = std::mem::take(&mut *lock(&CHARGES));
        round.retain_mut(|charge| charge.attend(clock.monotonic()));
        lock(&CHARGES).append(&mut round);
    }
}

impl Charge {
    /// Asks, and tells if need be; false once the client is gone.
    fn attend(&mut self, now: Duration) -> bool {
        let Some(client) = self.client.upgrade() else { return false };
        if client.answers(&self.topic, ANSWER_MAX) {
            self.backoff = Duration::ZERO;
        } else if now.saturating_sub(self.told_at) >= self.backoff {
            client.tell(&self.servers);
            tracing::debug!(servers = self.servers, "told a Kafka client the addresses again");
            self.told_at = now;
            self.backoff = (self.backoff * 2).clamp(INTERVAL, BACKOFF_MAX);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::consumer::DefaultConsumerContext;
    use rdkafka::mocking::MockCluster;

    use super::*;

    /// Nobody listens there: what such a client knows is as good as nothing.
    const NOWHERE: &str = "127.0.0.1:1";

    #[test]
    fn a_client_that_knows_no_broker_is_told_of_one() {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        let consumer: BaseConsumer<DefaultConsumerContext> =
            ClientConfig::new().set("bootstrap.servers", NOWHERE).create().expect("valid settings");
        let consumer = Kept::new(consumer, &cluster.bootstrap_servers(), "t".to_owned());
        assert!(consumer.answers("t", INTERVAL + Duration::from_secs(30)), "never told");
    }

    #[test]
    fn a_client_ends_with_its_owner() {
        let consumer: BaseConsumer<DefaultConsumerContext> =
            ClientConfig::new().set("bootstrap.servers", NOWHERE).create().expect("valid settings");
        let consumer = Kept::new(consumer, NOWHERE, "t".to_owned());
        let seen = Arc::downgrade(consumer.0.as_ref().expect("kept"));
        // Somebody asks it something at this moment.
        let question = seen.upgrade().expect("alive");
        let asked = std::thread::spawn(move || question.answers("t", ANSWER_MAX));
        drop(consumer);
        assert!(seen.upgrade().is_none(), "it lives on after its owner's drop has returned");
        assert!(!asked.join().expect("the question ends"));
    }
}
