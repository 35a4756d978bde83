//! The test broker itself: it starts, keeps what it acknowledged over every kind of end, and leaves nothing behind.

use orloj_tests::broker::{Broker, Kafka, kafka_mode};
use orloj_tests::wait;
use rdkafka::ClientConfig;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const TOPIC: &str = "smoke";
const PATIENCE: Duration = Duration::from_secs(20);
const CHILD_SWITCH: &str = "ORLOJ_TEST_BROKER_CHILD";

#[test]
fn keeps_records_over_stop_kill_and_freeze() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let mut broker = Broker::start();
    let address = broker.bootstrap().to_owned();
    create_topic(&address);
    produce(&address, "first");
    assert_eq!(read_all(&address, 1), ["first"]);

    broker.restart();
    assert_eq!(read_all(&address, 1), ["first"]);
    produce(&address, "second");

    broker.kill();
    broker.restart();
    assert_eq!(broker.bootstrap(), address);
    assert_eq!(read_all(&address, 2), ["first", "second"]);

    broker.pause();
    let consumer = consumer(&address);
    assert!(consumer.fetch_metadata(None, Duration::from_millis(200)).is_err(), "a frozen broker answered");
    broker.resume();
    produce(&address, "third");
    assert_eq!(read_all(&address, 3), ["first", "second", "third"]);

    broker.stop();
    broker.stop();
}

#[test]
fn two_brokers_live_side_by_side() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let (one, other) = (Broker::start(), Broker::shared());
    assert_ne!(one.bootstrap(), other.bootstrap());
    create_topic(other.bootstrap());
    produce(other.bootstrap(), "here");
    // A client without a group: one with a group asks for its coordinator, which makes the broker create `__consumer_offsets`.
    let observer: BaseConsumer = client(one.bootstrap()).create().expect("consumer");
    let metadata = observer.fetch_metadata(None, PATIENCE).expect("metadata");
    let names: Vec<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    assert!(names.is_empty(), "topics of the other broker show here: {names:?}");
}

/// Kills a test process that has a frozen broker; the child is this same binary, running the test below it.
#[test]
fn leaves_nothing_behind_when_the_test_process_is_killed() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let mut child = Command::new(std::env::current_exe().expect("own path"))
        .args(["--exact", "start_and_hang", "--nocapture"])
        .env(CHILD_SWITCH, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this binary runs");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let found = output.lines().map_while(Result::ok).find_map(|line| {
        let (_, rest) = line.split_once("broker at ")?;
        let (pid, directory) = rest.split_once(' ')?;
        Some((pid.to_owned(), directory.to_owned()))
    });
    child.kill().expect("our own child");
    child.wait().expect("our own child");
    let (pid, directory) = found.expect("the child said where its broker is");
    wait::until("broker and directory are gone", PATIENCE, || {
        let is_running = Path::new("/proc").join(&pid).join("exe").exists();
        (!is_running && !Path::new(&directory).exists()).then_some(())
    });
}

/// The other half of the test above; on its own it does nothing.
#[test]
fn start_and_hang() {
    if std::env::var_os(CHILD_SWITCH).is_none() {
        return;
    }
    let broker = Broker::start();
    broker.pause();
    println!("\nbroker at {} {}", broker.process_id(), broker.directory().display());
    wait::until::<()>("the parent kills this process", Duration::from_secs(120), || None);
}

fn create_topic(address: &str) {
    let admin: AdminClient<DefaultClientContext> = client(address).create().expect("admin client");
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(1));
    let options = AdminOptions::new();
    let results = wait::future("the topic is made", PATIENCE, admin.create_topics([&topic], &options))
        .expect("the broker took the request");
    assert!(results.iter().all(Result::is_ok), "{results:?}");
}

fn produce(address: &str, payload: &str) {
    let producer: BaseProducer = client(address).create().expect("producer");
    producer.send(BaseRecord::<str, str>::to(TOPIC).payload(payload)).expect("room in the queue");
    producer.flush(PATIENCE).expect("acknowledged");
}

fn read_all(address: &str, count: usize) -> Vec<String> {
    let consumer = consumer(address);
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(TOPIC, 0, Offset::Beginning).expect("a valid offset");
    consumer.assign(&start).expect("assigned");
    let mut payloads = Vec::new();
    wait::until("all records are read", PATIENCE, || {
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
            payloads.push(String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned());
        }
        (payloads.len() == count).then_some(())
    });
    payloads
}

fn consumer(address: &str) -> BaseConsumer {
    client(address).set("group.id", "smoke").create().expect("consumer")
}

fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", address);
    config
}
