//! Members that leave their group, on a real broker: once they say that they have left, the group has no member. Not here: what
//! becomes of their share (`conformance`, `ownership_kafka`). Invariant: the group is asked, no time is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use orloj_domain::shard::Shard;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::{ClaimerPoll, ClaimerSpec, Log, NewRecord, Owner, OwnerEvent, OwnerSpec, TopicSpec};
use orloj_tests::broker::{Broker, Kafka, kafka_mode};
use orloj_tests::wait::until;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// As many as an installation has: the more there are to give back, the longer it takes.
const SHARDS: i32 = 32;
/// A client that is ended too early says no good-bye in every fourth or eighth of them.
const ROUNDS: usize = 16;
const PREFIX: &str = "leaving.";
const STATE: &str = "state";
const INPUT: &str = "input";
const OWNERS: &str = "owners";

fn log_with(broker: &Broker, topics: &[&str]) -> KafkaLog {
    let properties = BTreeMap::from([("bootstrap.servers".to_owned(), broker.bootstrap().to_owned())]);
    let log = KafkaLog::connect(KafkaConfig { properties, prefix: PREFIX.to_owned() }).expect("a log");
    for topic in topics {
        let settings = BTreeMap::new();
        let spec = TopicSpec { name: (*topic).to_owned(), partitions: SHARDS, replication: 1, settings };
        log.create_topic(&spec).expect("a topic");
    }
    log
}

/// How many members the broker knows.
fn members(broker: &Broker, group: &str) -> usize {
    let asker: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", broker.bootstrap()).create().expect("valid settings");
    let groups = asker.fetch_group_list(Some(&format!("{PREFIX}{group}")), PATIENCE).expect("an answer");
    groups.groups().first().map_or(0, |group| group.members().len())
}

/// Owns all shards.
fn settled(log: &KafkaLog) -> Box<dyn Owner> {
    let mut owner = log
        .own(OwnerSpec {
            service: "counter".to_owned(),
            membership_topic: INPUT.to_owned(),
            owners_topic: OWNERS.to_owned(),
            restore_topics: vec![STATE.to_owned()],
            input_topics: vec![INPUT.to_owned()],
            shared_topics: Vec::new(),
            outputs: Vec::new(),
            claimed: None,
            shards: SHARDS,
        })
        .expect("an owner");
    let mut held: Vec<Shard> = Vec::new();
    until("all shards", PATIENCE, || {
        for event in owner.poll(100, POLL).expect("a poll") {
            if let OwnerEvent::Taken(taken) = event {
                held.extend(taken.iter().map(|taken| taken.shard));
            }
        }
        (held.len() == usize::try_from(SHARDS).expect("few")).then_some(())
    });
    owner
}

#[test]
fn an_owner_that_left_is_no_member() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let broker = Broker::shared();
    let log = log_with(broker, &[STATE, INPUT, OWNERS]);
    for round in 0..ROUNDS {
        let owner = settled(&log);
        assert_eq!(members(broker, "counter"), 1, "round {round}");
        owner.leave();
        assert_eq!(members(broker, "counter"), 0, "round {round}");
    }
}

#[test]
fn a_claimer_that_left_is_no_member() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let broker = Broker::shared();
    let log = log_with(broker, &["ready"]);
    let record = NewRecord::new("ready", 0, "a", Some("a".into()));
    log.appender().expect("an appender").append(vec![record]).expect("appended");
    let spec = ClaimerSpec {
        group: "runners".to_owned(),
        topics: vec!["ready".to_owned()],
        member: "one".to_owned(),
        peers: None,
    };
    for round in 0..ROUNDS {
        let mut claimer = log.claim(spec.clone()).expect("a claimer");
        until("the record, which nobody claims", PATIENCE, || match claimer.poll(10, POLL).expect("a poll") {
            ClaimerPoll::Records(records) => (!records.is_empty()).then_some(()),
            ClaimerPoll::Rebalanced => None,
        });
        assert_eq!(members(broker, "runners"), 1, "round {round}");
        claimer.leave();
        assert_eq!(members(broker, "runners"), 0, "round {round}");
    }
}
