//! Claims whose end Kafka has lost (KAFKA-20734): the group waits for it, and so would everybody who is given the partitions
//! next. Not here: what is hidden in the topics that claims are written to (`ownership_kafka`), claims in general
//! (`conformance`). Invariant: the lost end is made, not hoped for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::{
    Claimer, ClaimerName, ClaimerPoll, ClaimerSpec, Isolation, Log, LogError, NewRecord, Peers, Record, TopicPartition,
    TopicSpec,
};
use orloj_tests::broker::{Cluster, Kafka, kafka_mode};
use orloj_tests::wait::until;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);
const GROUP: &str = "runners";
const READY: &str = "ready";
const CLAIMED: &str = "claimed";
const PREFIX: &str = "claims.";
const GONE: &str = "gone";

/// Knows a claimer that is gone, and what the log says was claimed.
#[derive(Clone)]
struct Others(KafkaLog);

impl std::fmt::Debug for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Others")
    }
}

impl Peers for Others {
    fn claimers(&self) -> Result<Vec<ClaimerName>, LogError> {
        let name = |member: &str| ClaimerName { group: GROUP.to_owned(), member: member.to_owned() };
        Ok([GONE, "next"].map(name).to_vec())
    }

    fn claimed(&self, records: &[Record]) -> Result<usize, LogError> {
        let claimed = values(&self.0, CLAIMED);
        Ok(records.iter().rposition(|record| claimed.contains(&value(record))).map_or(0, |last| last + 1))
    }
}

fn value(record: &Record) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default()).expect("text")
}

fn values(log: &KafkaLog, topic: &str) -> Vec<String> {
    let at = TopicPartition::new(topic, 0);
    let mut reader = log.reader(Isolation::Committed).expect("a reader");
    reader.read_from(&[(at, 0)]).expect("reading");
    let mut found = Vec::new();
    loop {
        let records = reader.poll(100, Duration::from_secs(1)).expect("a poll");
        if records.is_empty() {
            return found;
        }
        found.extend(records.iter().map(value));
    }
}

/// A claim of the first `count` records that is not ended yet.
struct OpenClaim(BaseProducer);

impl OpenClaim {
    fn begin(cluster: &Cluster, log: &KafkaLog, count: usize) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", cluster.bootstrap());
        config.set("transactional.id", format!("{PREFIX}{GROUP}.{GONE}.0"));
        // It is to be ended by others, not by its time-out.
        config.set("transaction.timeout.ms", PATIENCE.as_millis().to_string());
        let producer: BaseProducer = config.create().expect("a producer");
        producer.init_transactions(PATIENCE).expect("initialised");
        producer.begin_transaction().expect("begun");
        for taken in values(log, READY).iter().take(count) {
            let topic = format!("{PREFIX}{CLAIMED}");
            producer.send(BaseRecord::<str, str>::to(&topic).partition(0).payload(taken)).expect("room in the queue");
        }
        let mut offsets = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(count).expect("few"));
        offsets.add_partition_offset(&format!("{PREFIX}{READY}"), 0, offset).expect("an offset");
        // A consumer that has not joined: the group is empty, and nothing is checked.
        let consumer: BaseConsumer =
            config.clone().set("group.id", format!("{PREFIX}{GROUP}")).create().expect("a consumer");
        let outsider = consumer.group_metadata().expect("metadata");
        producer.send_offsets_to_transaction(&offsets, &outsider, PATIENCE).expect("offsets");
        Self(producer)
    }
}

fn handed_out(claimer: &mut dyn Claimer) -> Vec<String> {
    until("records of the next member", PATIENCE, || match claimer.poll(100, POLL).expect("a poll") {
        ClaimerPoll::Records(records) if !records.is_empty() => Some(records.iter().map(value).collect()),
        ClaimerPoll::Records(_) | ClaimerPoll::Rebalanced => None,
    })
}

/// The claim was committed, and the group was never told: whoever comes next is kept waiting until it is ended, and then begins
/// behind what was claimed.
#[test]
fn positions_that_lost_their_marker_are_found() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    // One copy of the groups' positions, so that a broker's death leaves them without a leader.
    let mut cluster = Cluster::start_with("offsets.topic.replication.factor=1\n");
    let properties = [("bootstrap.servers", cluster.bootstrap()), ("transaction.timeout.ms", "3000")];
    let properties: BTreeMap<String, String> =
        properties.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let log = KafkaLog::connect(KafkaConfig { properties, prefix: PREFIX.to_owned() }).expect("a log");
    for topic in [READY, CLAIMED] {
        let spec = TopicSpec { name: topic.to_owned(), partitions: 1, replication: 3, settings: BTreeMap::new() };
        log.create_topic(&spec).expect("a topic");
    }
    let names = ["a", "b", "c", "d", "e"];
    let records = names.map(|name| NewRecord::new(READY, 0, name, Some(name.into())));
    log.appender().expect("an appender").append(records.to_vec()).expect("appended");

    let open = OpenClaim::begin(&cluster, &log, 2);
    let positions = ["__consumer_offsets".to_owned()];
    let partition = partition_of_group(&format!("{PREFIX}{GROUP}"));
    let node = (0..Cluster::NODES).find(|node| cluster.led_by(*node, &positions).contains(&partition));
    let node = node.expect("the group has a coordinator");
    cluster.node(node).kill();
    cluster.wait_for_its_partitions(node, &positions);
    open.0.commit_transaction(PATIENCE).expect("its coordinator is another broker");
    cluster.node(node).restart();

    let spec = ClaimerSpec {
        group: GROUP.to_owned(),
        topics: vec![READY.to_owned()],
        member: "next".to_owned(),
        peers: Some(Arc::new(Others(log.clone()))),
    };
    let mut next = until("a membership", PATIENCE, || log.claim(spec.clone()).ok());
    assert_eq!(handed_out(&mut *next), ["c", "d", "e"]);
    next.leave();
    assert_eq!(values(&log, CLAIMED), ["a", "b"]);
}

/// Kafka's choice: the hash of the name, without its sign, by the number of partitions, which is 4 on test brokers.
fn partition_of_group(name: &str) -> i32 {
    let hash = name.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash & i32::MAX) % 4
}
