//! Jobs that are messages: what arrives in the topic, and what is refused. Not here: the settings that allow it (the
//! runner's own tests). Invariant: the message is read by a client that knows nothing of Orloj.

use std::time::Duration;

use orloj_domain::run::RunEvent;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Log, TopicSpec};
use orloj_tests::fires::reader;
use orloj_tests::installation::Installation;
use orloj_tests::process::PATIENCE;
use orloj_tests::wait;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

#[test]
fn a_message_is_sent_where_the_runner_may_and_nowhere_else() {
    let Some(installation) = Installation::new("messages") else { return };
    let mine = TopicSpec { name: "due".to_owned(), partitions: 1, replication: 1, settings: Default::default() };
    let outside = Installation::log_of(installation.bootstrap(), "outside.");
    outside.create_topic(&mine).expect("a topic");
    let _trigger = installation.serve("trigger", &[]);
    let _dispatcher = installation.serve("dispatcher", &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let data = format!("data.dir={}", folder.path().display());
    let allowed = "runner.kafka.default.topics=outside.*,messages.*";
    let _runner = installation.serve("runner", &["--set", &data, "--set", allowed]);
    let run = |name: &str, topic: &str| {
        let target = format!(
            r#""retry":{{"maxAttempts":1}},
               "run":{{"kafka":{{"topic":"{topic}","key":"k","value":"of {{{{job}}}}","headers":{{"kind":"due"}}}}}}"#
        );
        let job = installation.offer(name, &target);
        installation.wait_accepted(&job);
        installation.run_now(&job, name)
    };
    let sent = run("sent", "outside.due");
    let message = read_one(installation.bootstrap(), "outside.due");
    let header = |name: &str| {
        let headers = message.headers().expect("headers");
        let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
        found.map(|value| String::from_utf8_lossy(value).into_owned())
    };
    assert_eq!((message.key(), message.payload()), (Some(&b"k"[..]), Some(&b"of test/sent"[..])));
    assert_eq!(header("kind").as_deref(), Some("due"));
    assert_eq!(header("Orloj-Run-Id"), Some(sent.to_string()));
    assert_eq!(header("Idempotency-Key"), Some(format!("{sent}/1")));

    let refused = [run("own", "messages.jobs"), run("other", "elsewhere")];
    let mut events = reader(&installation.log, topic::RUN_EVENTS);
    let mut ends = std::collections::BTreeMap::new();
    wait::until("the ends of all runs", PATIENCE, || {
        for record in events.poll(1000, Duration::from_millis(100)).expect("a readable log") {
            let event: RunEvent = codec::decode(&record.value?).ok()?;
            if event.state.is_terminal() {
                ends.insert(event.run_id, event);
            }
        }
        (ends.len() == 3).then_some(())
    });
    let message_of = |run| ends[&run].outcome.as_ref().and_then(|outcome| outcome.message.clone()).unwrap_or_default();
    assert_eq!(ends[&sent].state.as_str(), "succeeded");
    assert_eq!(message_of(sent), "outside.due/0@0");
    for (run, words) in refused.iter().zip(["Orloj's own", "runner.kafka.default.topics"]) {
        assert_eq!(ends[run].state.as_str(), "dead");
        assert!(message_of(*run).contains(words), "{}", message_of(*run));
    }
}

fn read_one(bootstrap: &str, topic: &str) -> OwnedMessage {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "none").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create().expect("a consumer");
    let mut start = TopicPartitionList::new();
    start.add_partition_offset(topic, 0, Offset::Beginning).expect("a valid offset");
    consumer.assign(&start).expect("assigned");
    wait::until("a message", PATIENCE, || {
        consumer.poll(Duration::from_millis(100))?.ok().map(|message| message.detach())
    })
}
