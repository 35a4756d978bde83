//! Several queues with weights on one runner. Invariant: while all have attempts ready, starts are as the weights are, and
//! a queue that has none leaves its part to the others.

use std::collections::BTreeMap;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType};
use orloj_domain::id::QueueName;
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Log, NewRecord};

use crate::support::{Bed, SHARDS, ready, shell};

fn queue(name: &str) -> QueueName {
    name.parse().expect("a queue")
}

/// Attempts of the jobs `<queue>-<n>`, made ready in one batch.
fn offer(bed: &Bed, name: &str, numbers: std::ops::Range<usize>) {
    let shards = ShardCount::new(SHARDS).expect("shards");
    let record = |number| {
        let ready = ready(&format!("{name}-{number}"), shell("true"));
        let topic = topic::run_ready(&queue(name));
        NewRecord::new(topic, shards.shard_of(&ready.job).0, ready.run_id.to_string(), Some(codec::encode(&ready)))
    };
    bed.log.appender().expect("appender").append(numbers.map(record).collect()).expect("append");
}

/// The queues of the attempts that have been claimed, by when the runner says so.
fn claimed(bed: &Bed) -> Vec<String> {
    let mut events: Vec<_> = bed.decoded::<AttemptEvent>(topic::ATTEMPT_EVENTS);
    events.retain(|event| event.kind == AttemptEventType::Claimed);
    events.sort_by_key(|event| event.at);
    let name = |event: &AttemptEvent| event.job.name().split('-').next().unwrap_or_default().to_owned();
    events.iter().map(name).collect()
}

fn count(of: &[String], name: &str) -> usize {
    of.iter().filter(|found| *found == name).count()
}

#[test]
fn queues_get_slots_by_their_weights() {
    const HEAVY: usize = 120;
    const LIGHT: usize = 120;
    let bed = Bed::start(|config| {
        config.slots = 4;
        config.queues = vec![queue("heavy"), queue("idle"), queue("light")];
        config.weights = BTreeMap::from([(queue("heavy"), 3), (queue("idle"), 1000)]);
        config.labels = BTreeMap::from([("zone".to_owned(), "eu-1".to_owned())]);
    });
    bed.wait_for("the topics of all queues", || {
        let topics = bed.log.topics().expect("topics");
        let is_there = |name: &str| topics.iter().any(|spec| spec.name == topic::run_ready(&queue(name)));
        ["heavy", "idle", "light"].iter().all(|name| is_there(name)).then_some(())
    });
    offer(&bed, "light", 0..LIGHT);
    offer(&bed, "heavy", 0..HEAVY);
    let all = bed.wait_for("all claims", || Some(claimed(&bed)).filter(|all| all.len() == HEAVY + LIGHT));
    // Once both were at hand, and while both still had some: three of four are heavy.
    let first = all.iter().position(|name| name == "heavy").expect("a heavy one");
    assert!(first <= LIGHT / 2, "the other queue waits for nobody's end: {first}");
    let window = &all[first + 8..first + 8 + 80];
    let heavy = count(window, "heavy");
    assert!((55..=65).contains(&heavy), "{heavy} of {}: {all:?}", window.len());
    let last_heavy = all.iter().rposition(|name| name == "heavy").expect("a heavy one");
    assert!(count(&all[last_heavy..], "light") > LIGHT / 4, "the light queue gets the rest: {all:?}");

    let heartbeat = bed.heartbeats().pop().expect("a heartbeat");
    let weights: Vec<_> = heartbeat.queue_weights.iter().map(|(name, weight)| (name.as_str(), *weight)).collect();
    assert_eq!(weights, [("heavy", 3), ("idle", 1000)]);
    assert_eq!(heartbeat.labels["zone"], "eu-1");
}
