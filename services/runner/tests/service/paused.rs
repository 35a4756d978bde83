//! Queues that are paused. Invariant: what is ready on one stays there until it is paused no longer; other queues go on.

use std::sync::Arc;

use orloj_domain::attempt::AttemptEventType;
use orloj_domain::id::QueueName;
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::clock::SystemClock;
use orloj_runtime::codec;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::log::{Log, NewRecord};

use crate::support::{Bed, SHARDS, ready, shell};

fn pause(log: &EmbeddedLog, is_paused: bool) {
    let head = r#""apiVersion":"orloj/v1","kind":"Queue","metadata":{"name":"default"}"#;
    let value = format!("{{{head},\"spec\":{{\"paused\":{is_paused}}}}}").into_bytes();
    let record = NewRecord::new(topic::SETTINGS, 0, "queue/default", Some(value));
    log.appender().expect("appender").append(vec![record]).expect("append");
}

#[test]
fn nothing_is_claimed_from_a_paused_queue() {
    let free: QueueName = "free".parse().expect("a queue");
    let prepare = |log: &EmbeddedLog| pause(log, true);
    let bed = Bed::start_on(Arc::new(SystemClock::new()), prepare, |config| config.queues.push(free.clone()));
    let shards = ShardCount::new(SHARDS).expect("shards");
    let (held, other) = (ready("held", shell("true")), ready("other", shell("true")));
    bed.wait_for("the topic of the other queue", || {
        let topics = bed.log.topics().expect("topics");
        topics.iter().any(|spec| spec.name == topic::run_ready(&free)).then_some(())
    });
    for (queue, attempt) in [(QueueName::default(), &held), (free, &other)] {
        let (topic, partition) = (topic::run_ready(&queue), shards.shard_of(&attempt.job).0);
        let record = NewRecord::new(topic, partition, attempt.run_id.to_string(), Some(codec::encode(attempt)));
        bed.log.appender().expect("appender").append(vec![record]).expect("append");
    }
    let is_over = |run| bed.events(run).iter().any(|event| event.kind == AttemptEventType::Finished);
    bed.wait_for("the end of the attempt on the other queue", || is_over(other.run_id).then_some(()));
    assert!(bed.events(held.run_id).is_empty(), "it came first, and its queue is paused");
    pause(&bed.log, false);
    bed.wait_for("the end of the attempt that was held", || is_over(held.run_id).then_some(()));
}
