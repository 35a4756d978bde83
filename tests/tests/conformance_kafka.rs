//! The conformance suite on real Apache Kafka brokers, with processes that are really killed, and what only the
//! Kafka log has: a broker that is away, offsets that are gone.
//! Invariant: a case has its broker for itself, so that it may restart it; the next case finds it running.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog, check_shards};
use orloj_runtime::log::{Isolation, Log, LogError, TopicPartition};
use orloj_tests::broker::{Broker, Kafka, kafka_mode};
use orloj_tests::conformance::{Backend, append, create, holder, read_count, reader_at, record, texts};
use orloj_tests::wait;

/// After so long without a call a member is shut out; shorter, and a busy machine would shut out the others too.
const SESSION: Duration = Duration::from_secs(6);
/// Key of records that the suite leaves out when it reads.
const FILLER_KEY: &str = "__end";

/// Brokers that no case uses just now.
static IDLE: Mutex<Vec<Broker>> = Mutex::new(Vec::new());

struct OnKafka {
    broker: Option<Broker>,
    prefix: String,
    log: KafkaLog,
}

fn connect(bootstrap: &str, prefix: &str) -> KafkaLog {
    let session = SESSION.as_millis().to_string();
    let properties = [
        ("bootstrap.servers", bootstrap.to_owned()),
        ("session.timeout.ms", session.clone()),
        ("max.poll.interval.ms", session),
    ];
    let properties: BTreeMap<String, String> =
        properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    KafkaLog::connect(KafkaConfig { properties, prefix: prefix.to_owned() }).expect("settings that librdkafka takes")
}

impl OnKafka {
    fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("the broker is ours until the case ends")
    }

    /// True if reading from `offset` on finds nothing at `offset` itself any more.
    fn is_cleaned(&self, at: &TopicPartition, offset: i64) -> bool {
        let mut reader = reader_at(&self.log, at, offset, Isolation::Uncommitted);
        let first = wait::until("a record", self.patience(), || {
            reader.poll(1, Duration::from_millis(20)).expect("a poll").pop()
        });
        first.offset > offset
    }

    fn fill(&self, at: &TopicPartition) -> i64 {
        append(&self.log, vec![record(&at.topic, at.partition, FILLER_KEY, "")])[0]
    }
}

impl Drop for OnKafka {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take()
            && !std::thread::panicking()
        {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(broker);
        }
    }
}

impl Backend for OnKafka {
    fn is_switched_off() -> bool {
        kafka_mode() == Kafka::Off
    }

    fn fresh() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let broker = idle.unwrap_or_else(Broker::start);
        let prefix = format!("{}.", uuid::Uuid::new_v4().simple());
        let log = connect(broker.bootstrap(), &prefix);
        Self { broker: Some(broker), prefix, log }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    fn other(&self) -> Arc<dyn Log> {
        Arc::new(connect(self.broker().bootstrap(), &self.prefix))
    }

    fn reopen(&mut self) {
        let broker = self.broker.as_mut().expect("the broker is ours until the case ends");
        broker.restart();
        self.log = connect(broker.bootstrap(), &self.prefix);
        self.log.check(self.patience()).expect("the broker is back");
    }

    fn kill_a_holder(&mut self) {
        let mut process = Command::new(env!("CARGO_BIN_EXE_batch_holder"))
            .args(["kafka", self.broker().bootstrap(), &self.prefix])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), holder::READY);
        let id = i32::try_from(process.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGKILL).expect("killed");
        process.wait().expect("it ended");
    }

    /// The broker cleans by itself, but only what is behind the newest segment: newer records make it roll.
    fn compact(&self, partitions: &[TopicPartition]) {
        for at in partitions {
            let first = self.fill(at);
            let is_held_up = self.log.end(at, Isolation::Committed).expect("an end") <= first;
            let cleaned = |deadline| {
                wait::within(deadline, || {
                    self.fill(at);
                    self.is_cleaned(at, first).then_some(())
                })
            };
            if is_held_up {
                // Nothing behind an open batch is ever cleaned; what is before it gets its chance.
                assert_eq!(cleaned(Duration::from_secs(2)), None, "cleaned behind an open batch");
            } else {
                cleaned(self.patience()).expect("the broker to compact");
            }
        }
    }

    fn outlast_session(&self, alive: &mut dyn FnMut()) {
        let _ = wait::within(SESSION + SESSION / 4, || {
            alive();
            None::<()>
        });
    }

    fn tick(&self) {
        wait::while_it_lasts(Duration::from_millis(2));
    }
}

orloj_tests::conformance!(OnKafka);

/// A broker that is away is named with its address, the setting and the cause, and making a log is no error.
#[test]
fn an_unreachable_broker_is_named() {
    // Nobody listens on port 1.
    let log = connect("127.0.0.1:1", "away.");
    let error = log.check(Duration::from_secs(2)).expect_err("nobody is there").to_string();
    for part in ["Kafka at 127.0.0.1:1 (setting kafka.bootstrap.servers) can't be reached: ", "refused"] {
        assert!(error.contains(part), "{error}");
    }
}

/// A setting that librdkafka does not know is named as the user wrote it.
#[test]
fn a_wrong_setting_is_named() {
    let properties = BTreeMap::from([("no.such.thing".to_owned(), "1".to_owned())]);
    let outcome = KafkaLog::connect(KafkaConfig { properties, prefix: String::new() });
    let Err(LogError::Misconfigured(error)) = outcome.map(|_| ()) else {
        panic!("taken");
    };
    assert!(error.contains("kafka.no.such.thing"), "{error}");
}

/// Offsets that are not there are told with the first one that is; other partitions go on.
#[test]
fn offsets_that_are_gone_are_told() {
    if OnKafka::is_switched_off() {
        return;
    }
    let backend = OnKafka::fresh();
    create(&backend.log, "events", 2, &[]);
    let [gone, there] = [0, 1].map(|partition| TopicPartition::new("events", partition));
    append(&backend.log, (0..4).map(|index| record("events", index % 2, "key", &index.to_string())).collect());
    let mut reader = backend.log.reader(Isolation::Committed).expect("a reader");
    reader.read_from(&[(gone.clone(), 100), (there, 0)]).expect("positions");
    let mut seen = Vec::new();
    let told =
        wait::until("the loss to be told", backend.patience(), || match reader.poll(10, Duration::from_millis(20)) {
            Ok(records) => {
                seen.extend(texts(&records));
                None
            }
            Err(error) => Some(error),
        });
    assert!(matches!(&told, LogError::OutOfRange { at, wanted: 100, first: 0 } if *at == gone), "{told:?}");
    reader.read_from(&[(gone, 1)]).expect("moved");
    let rest = read_count(&backend, &mut *reader, 3 - seen.len());
    seen.extend(texts(&rest));
    seen.sort();
    assert_eq!(seen, ["1", "2", "3"]);
}

/// A number of partitions that is not the number of shards is named with the topic and both numbers.
#[test]
fn other_shard_counts_are_named() {
    if OnKafka::is_switched_off() {
        return;
    }
    let backend = OnKafka::fresh();
    create(&backend.log, "jobs", 4, &[]);
    create(&backend.log, "fires", 3, &[]);
    let keyed = ["jobs".to_owned(), "fires".to_owned()];
    let error = check_shards(&backend.log, 4, &keyed).expect_err("fires differs").to_string();
    for part in ["`fires`", "3 partitions", "`shards` is 4"] {
        assert!(error.contains(part), "{error}");
    }
    check_shards(&backend.log, 4, &keyed[..1]).expect("jobs is as it should be");
    let error = check_shards(&backend.log, 4, &["commands".to_owned()]).expect_err("missing").to_string();
    assert!(error.contains("`commands`"), "{error}");
}
