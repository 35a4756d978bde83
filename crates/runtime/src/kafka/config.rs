//! Settings of the Kafka clients: ours, then whatever the user gave under `kafka.`, then what no user may
//! change because a promise rests on it. Not here: settings of topics (`admin`).
//! Invariant: secrets never show in `Debug`.

use std::collections::BTreeMap;
use std::fmt;

use orloj_domain::topic;
use rdkafka::ClientConfig;
#[cfg(test)]
use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};

use super::keeper::{Kept, Reached};
use crate::log::Isolation;

/// Where Kafka is and how to talk to it.
#[derive(Clone, Default)]
pub struct KafkaConfig {
    /// Settings of librdkafka by its own names, handed on untouched: the `kafka.*` keys without `kafka.`.
    pub properties: BTreeMap<String, String>,
    /// Put before every topic, group and producer id of this installation, for example `orloj.`.
    pub prefix: String,
}

/// Used when `kafka.bootstrap.servers` is not set.
const BOOTSTRAP_DEFAULT: &str = "localhost:9092";
/// Largest record that librdkafka takes unless the user says otherwise (`message.max.bytes`).
const RECORD_BYTES_MAX_DEFAULT: usize = 1_000_000;

/// For every client. Reconnects must be quick: a broker that comes back is waited for by everyone.
const COMMON: [(&str, &str); 9] = [
    ("client.id", "orloj"),
    ("socket.nagle.disable", "true"),
    ("socket.keepalive.enable", "true"),
    ("socket.connection.setup.timeout.ms", "5000"),
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("topic.metadata.refresh.fast.interval.ms", "50"),
    ("log.connection.close", "false"),
];

/// For every consumer. The default pre-fetch of 64 MiB and its pause of a second once that is full are meant
/// for one consumer in a process, not for several that tail quiet topics. A partition with `queued.min.messages` at hand is left
/// out of requests for a few milliseconds: each of them names all partitions, and under load many small answers cost the broker
/// more than few large ones. It must stay well above one: what is left out of a request is not seen before that is answered,
/// which takes up to `fetch.wait.max.ms` where nothing else comes.
const CONSUMER: [(&str, &str); 6] = [
    ("queued.max.messages.kbytes", "8192"),
    ("queued.min.messages", "64"),
    ("fetch.queue.backoff.ms", "10"),
    ("fetch.error.backoff.ms", "50"),
    (FETCH_WAIT, "250"),
    ("check.crcs", "true"),
];

/// The property that says how long a fetch may wait for records.
const FETCH_WAIT: &str = "fetch.wait.max.ms";

/// For members of a group, on top of [`CONSUMER`]: the times that decide how fast a dead member is replaced.
const MEMBER: [(&str, &str); 3] =
    [("heartbeat.interval.ms", "300"), ("session.timeout.ms", "6000"), ("max.poll.interval.ms", "15000")];

/// Where another broker takes over what a dead one coordinated. That takes the session of the dead one with the controller
/// (9 s unless set otherwise) and the reading of its part: whoever gives up before loses what it need not lose.
const SEVERAL_BROKERS: [(&str, &str); 2] = [("session.timeout.ms", "12000"), ("transaction.timeout.ms", "20000")];

/// For every producer.
const PRODUCER: [(&str, &str); 3] = [("linger.ms", "0"), ("compression.type", "none"), ("message.timeout.ms", "10000")];

impl KafkaConfig {
    /// The address as the user gave it.
    #[must_use]
    pub fn bootstrap_servers(&self) -> &str {
        let given = self.properties.get("bootstrap.servers").or_else(|| self.properties.get("metadata.broker.list"));
        given.map_or(BOOTSTRAP_DEFAULT, String::as_str)
    }

    /// The same with the times that suit a cluster of so many brokers, where the user gave none.
    pub(crate) fn for_brokers(&self, count: usize) -> Self {
        let mut config = self.clone();
        if count > 1 {
            for (key, value) in SEVERAL_BROKERS {
                config.properties.entry(key.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        config
    }

    /// A client that lives long, from now on looked after (`keeper`).
    pub(crate) fn kept<K: Reached>(&self, client: K) -> Kept<K> {
        Kept::new(client, self.bootstrap_servers(), self.full_name(topic::JOBS))
    }

    /// The name that a topic, group or producer id has on the cluster.
    #[must_use]
    pub fn full_name(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The name without the prefix; `None` if it is not of this installation.
    #[must_use]
    pub fn short_name<'a>(&self, full_name: &'a str) -> Option<&'a str> {
        full_name.strip_prefix(self.prefix.as_str())
    }

    /// Largest key and value together that a producer takes.
    pub(crate) fn record_bytes_max(&self) -> usize {
        let given = self.properties.get("message.max.bytes").and_then(|text| text.parse().ok());
        given.unwrap_or(RECORD_BYTES_MAX_DEFAULT)
    }

    /// For clients that only ask: metadata, ends, administration. They join no group and fetch no record.
    pub(crate) fn for_questions(&self, isolation: Isolation) -> ClientConfig {
        let mut config = self.with_defaults(&CONSUMER);
        config.remove("group.id");
        config.set("isolation.level", isolation_level(isolation));
        config.set("allow.auto.create.topics", "false");
        config
    }

    /// For a consumer that is told its partitions. librdkafka wants a group id for that too, but never joins it. A request that
    /// finds nothing waits for so many milliseconds, unless the user says otherwise.
    pub(crate) fn for_reader(&self, isolation: Isolation, fetch_wait_ms: &str) -> ClientConfig {
        let mut config = self.with_defaults(&[&CONSUMER[..], &[(FETCH_WAIT, fetch_wait_ms)]].concat());
        config.set("group.id", self.full_name("reader"));
        pin_consumer(&mut config, isolation);
        config
    }

    /// For a member of a group, whose name is given without prefix.
    pub(crate) fn for_member(&self, group: &str) -> ClientConfig {
        let mut config = self.with_defaults(&[&CONSUMER[..], &MEMBER[..]].concat());
        config.set("group.id", self.full_name(group));
        config.set("group.protocol", "classic");
        config.set("partition.assignment.strategy", "cooperative-sticky");
        // A static member would not leave when it stops, and its partitions would wait for the session.
        config.remove("group.instance.id");
        pin_consumer(&mut config, Isolation::Committed);
        // A member that has no committed offset, or one that is gone, begins with the first record kept.
        config.set("auto.offset.reset", "earliest");
        config
    }

    /// For asking a group, whose name is given without prefix, where it stands, without joining it.
    pub(crate) fn for_group_questions(&self, group: &str, isolation: Isolation) -> ClientConfig {
        let mut config = self.for_questions(isolation);
        config.set("group.id", self.full_name(group));
        config.set("enable.auto.commit", "false");
        config
    }

    /// For a producer whose records are each durable by themselves.
    pub(crate) fn for_producer(&self) -> ClientConfig {
        let mut config = self.with_defaults(&PRODUCER);
        config.remove("transactional.id");
        // librdkafka warns of settings that mean nothing to a client.
        config.remove("session.timeout.ms");
        config.set("enable.idempotence", "true");
        config.set("acks", "all");
        config
    }

    /// For a producer of transactions, which sets its id and its times by itself.
    pub(crate) fn for_transactions(&self) -> ClientConfig {
        let mut config = self.for_producer();
        config.remove("message.timeout.ms");
        config
    }

    fn with_defaults(&self, defaults: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", BOOTSTRAP_DEFAULT);
        for (key, value) in COMMON.iter().chain(defaults) {
            config.set(*key, *value);
        }
        for (key, value) in &self.properties {
            config.set(main_name(key), value);
        }
        // Set by whoever makes a producer of transactions; other clients warn of it.
        config.remove("transaction.timeout.ms");
        config
    }
}

#[cfg(test)]
impl KafkaConfig {
    /// A cluster of one broker within the process, with a topic `t` of so many partitions, and how it is reached.
    pub(crate) fn of_mock(partitions: i32) -> (MockCluster<'static, DefaultProducerContext>, Self) {
        let cluster = MockCluster::new(1).expect("a mock cluster");
        cluster.create_topic("o.t", partitions, 1).expect("a topic");
        let servers = ("bootstrap.servers".to_owned(), cluster.bootstrap_servers());
        let config = Self { properties: BTreeMap::from([servers]), prefix: "o.".to_owned() };
        (cluster, config)
    }
}

/// librdkafka has two names for some settings and takes whichever it meets last; one name makes the user's win.
fn main_name(key: &str) -> &str {
    match key {
        "metadata.broker.list" => "bootstrap.servers",
        "queue.buffering.max.ms" => "linger.ms",
        "compression.codec" => "compression.type",
        "delivery.timeout.ms" => "message.timeout.ms",
        "request.required.acks" => "acks",
        other => other,
    }
}

/// What a reader relies on: we keep the positions, and a position that is gone is told, not mended.
fn pin_consumer(config: &mut ClientConfig, isolation: Isolation) {
    config.set("isolation.level", isolation_level(isolation));
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    config.set("enable.partition.eof", "false");
    config.set("allow.auto.create.topics", "false");
    config.set("auto.offset.reset", "error");
}

fn isolation_level(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::Committed => "read_committed",
        Isolation::Uncommitted => "read_uncommitted",
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: BTreeMap<&str, &str> = self
            .properties
            .iter()
            .map(|(key, value)| (key.as_str(), if is_secret(key) { "[hidden]" } else { value.as_str() }))
            .collect();
        f.debug_struct("KafkaConfig").field("prefix", &self.prefix).field("properties", &shown).finish()
    }
}

/// True if the value of this setting must not be shown.
#[must_use]
pub fn is_secret(key: &str) -> bool {
    const PARTS: [&str; 7] = ["password", "secret", "token", "credential", "key.pem", "jaas", "oauthbearer.config"];
    PARTS.iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> KafkaConfig {
        let properties = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        KafkaConfig { properties, prefix: "orloj.".to_owned() }
    }

    #[test]
    fn the_user_wins_over_defaults_and_promises_win_over_the_user() {
        let config = config(&[
            ("bootstrap.servers", "kafka:9092"),
            ("session.timeout.ms", "12000"),
            ("enable.auto.commit", "true"),
            ("group.instance.id", "x"),
            ("fetch.wait.max.ms", "70"),
            ("acks", "1"),
        ]);
        let member = config.for_member("runners.default");
        for (key, value) in [
            ("bootstrap.servers", Some("kafka:9092")),
            ("session.timeout.ms", Some("12000")),
            ("heartbeat.interval.ms", Some("300")),
            ("enable.auto.commit", Some("false")),
            ("group.id", Some("orloj.runners.default")),
            ("group.instance.id", None),
        ] {
            assert_eq!(member.get(key), value, "{key}");
        }
        assert_eq!(config.for_reader(Isolation::Committed, "500").get("fetch.wait.max.ms"), Some("70"));
        assert_eq!(config.for_producer().get("acks"), Some("all"));
        assert_eq!(config.for_questions(Isolation::Committed).get("group.id"), None);
    }

    #[test]
    fn where_brokers_stand_in_for_each_other_sessions_outlive_one() {
        for (given, brokers, session) in [(None, 1, "6000"), (None, 3, "12000"), (Some("7000"), 3, "7000")] {
            let pairs: Vec<_> = given.map(|value| ("session.timeout.ms", value)).into_iter().collect();
            let member = config(&pairs).for_brokers(brokers).for_member("trigger");
            assert_eq!(member.get("session.timeout.ms"), Some(session), "{given:?}, {brokers} brokers");
        }
    }

    #[test]
    fn secrets_do_not_show() {
        let config = config(&[
            ("sasl.password", "hush"),
            ("ssl.key.password", "hush"),
            ("ssl.key.pem", "hush"),
            ("sasl.oauthbearer.client.secret", "hush"),
            ("sasl.oauthbearer.config", "hush"),
            ("sasl.username", "loud"),
        ]);
        let shown = format!("{config:?}");
        assert!(!shown.contains("hush"), "{shown}");
        assert!(shown.contains("loud"), "{shown}");
    }

    #[test]
    fn names_of_other_installations_are_not_ours() {
        let config = config(&[]);
        assert_eq!(config.full_name("jobs"), "orloj.jobs");
        assert_eq!(config.short_name("orloj.jobs"), Some("jobs"));
        assert_eq!(config.short_name("billing.jobs"), None);
    }
}
