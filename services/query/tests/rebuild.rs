//! The projection is disposable: lost, damaged, of another version or of another log, it comes back equal. Not
//! here: what it answers. Invariant: equality is by the digest over every row.

mod world;

use std::path::Path;
use std::sync::Arc;

use orloj_domain::attempt::{AttemptEventType, OutcomeKind};
use orloj_domain::id::JobId;
use orloj_domain::run::RunState;
use orloj_domain::setting::BreakerState;
use orloj_domain::topic;
use orloj_query::projection_digest;
use orloj_runtime::clock::ManualClock;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::log::{Log, NewRecord, TopicSpec};
use world::records::{self, about};
use world::{World, append, eventually, log, log_with, shard};

/// The life of a few jobs, record by record, in an order that no service would keep to.
fn story() -> Vec<NewRecord> {
    let mut story = Vec::new();
    for (number, name) in ["a/one", "a/two", "b/three"].into_iter().enumerate() {
        let job: JobId = name.parse().expect("a job");
        let seconds = i64::try_from(number).expect("small");
        story.push(records::ended(&job, seconds, RunState::Dead, 1, OutcomeKind::Failed));
        story.push(records::output(&job, seconds, 1, 0, &[b"out\n"], true));
        story.push(records::report(&job, seconds, AttemptEventType::Started, 1, "s-1"));
        story.push(records::report(&job, seconds, AttemptEventType::Finished, 1, "s-1"));
        story.push(about(topic::RUN_EVENTS, &job, &records::step(&job, seconds + 100, RunState::Running, 1, 1)));
        let mut waiting = records::step(&job, seconds + 200, RunState::Waiting, 0, 0);
        waiting.limits = vec!["limit/database".parse().expect("a limit")];
        story.push(about(topic::RUN_EVENTS, &job, &waiting));
        story.push(records::requested(&job, seconds + 200));
        story.push(records::requested(&job, seconds));
        story.push(records::requested(&job, seconds + 100));
        story.push(about(topic::TRIGGER_STATE, &job, &records::state(&job, 1, Some(records::definition(&job)), 0)));
        story.push(records::dead_letter(&job, seconds, "default"));
        story.push(NewRecord::new(topic::JOBS, shard(&job), name, Some(b"{}".to_vec())));
        story.push(NewRecord::new(topic::FIRES, shard(&job), name, Some(b"no decision".to_vec())));
        story.push(NewRecord::new(topic::FIRES, shard(&job), "__barrier", Some(b"no decision".to_vec())));
    }
    let limit =
        r#"{"apiVersion": "orloj/v1", "kind": "Limit", "metadata": {"name": "database"}, "spec": {"paused": true}}"#;
    story.push(NewRecord::new(topic::SETTINGS, 0, "limit/database", Some(limit.as_bytes().to_vec())));
    story.push(records::turn("limit/database", BreakerState::Open, 5, Some(35)));
    story.push(records::turn("limit/database", BreakerState::HalfOpen, 35, None));
    // What shards say to each other is not read, whatever it is.
    story.push(NewRecord::new(topic::LIMITS, 1, "limit/database", Some(b"no word".to_vec())));
    story.push(records::heartbeat("r", records::at(0), 1000));
    story.push(records::owner(topic::TRIGGER_OWNERS, 0, "i-1"));
    story
}

fn told(log: &EmbeddedLog, directory: &Path) -> String {
    let world = World::start(log, directory);
    world.stop();
    projection_digest(directory).expect("a projection")
}

/// A projection that folded the story record by record, in the order that `order` gives, live.
fn folded_live(order: impl Fn(&mut Vec<NewRecord>)) -> (EmbeddedLog, tempfile::TempDir, String) {
    // Every log stamps its records alike, so that they differ in nothing.
    let log = log_with(Arc::new(ManualClock::new(records::at(0))));
    let directory = tempfile::tempdir().expect("a directory");
    let world = World::start(&log, directory.path());
    let mut records = story();
    order(&mut records);
    let total = format!("orloj_query_records_total {}\n", records.len());
    for record in records {
        // One by one, so that each is a commit of its own.
        world.append(record);
    }
    eventually("all are folded in", || world.get("/metrics").text.contains(&total));
    world.stop();
    let digest = projection_digest(directory.path()).expect("a projection");
    (log, directory, digest)
}

#[test]
fn a_rebuilt_projection_equals_the_one_folded_live() {
    let (log, directory, live) = folded_live(|_| {});
    let file = directory.path().join("query.sqlite");
    assert_eq!(told(&log, directory.path()), live, "opened again");
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(told(&log, directory.path()), live, "lost");
    std::fs::write(&file, b"SQLite format 3\0 and then nothing").expect("written");
    assert_eq!(told(&log, directory.path()), live, "damaged");
    let connection = rusqlite::Connection::open(&file).expect("a file");
    connection.execute_batch("DELETE FROM runs; PRAGMA user_version = 4711").expect("changed");
    drop(connection);
    assert_eq!(told(&log, directory.path()), live, "of another version");
}

#[test]
fn topics_may_be_folded_in_any_order() {
    let (_, _, mixed) = folded_live(|_| {});
    // The order within a topic is the log's and stays.
    let (_, _, forwards) = folded_live(|records| records.sort_by(|left, right| left.topic.cmp(&right.topic)));
    let (_, _, backwards) = folded_live(|records| records.sort_by(|left, right| right.topic.cmp(&left.topic)));
    assert_eq!(mixed, forwards);
    assert_eq!(forwards, backwards);
}

#[test]
fn a_file_of_another_log_is_built_anew() {
    let (_, directory, of_first) = folded_live(|_| {});
    let other = log();
    append(&other, story().into_iter().take(3).collect());
    let of_other = told(&other, directory.path());
    assert_ne!(of_first, of_other);
    let fresh = tempfile::tempdir().expect("a directory");
    assert_eq!(told(&other, fresh.path()), of_other);
}

#[test]
fn a_queue_that_comes_later_is_found() {
    let (log, directory) = (log(), tempfile::tempdir().expect("a directory"));
    let world = World::start(&log, directory.path());
    let job: JobId = "a/b".parse().expect("a job");
    let mut decision = records::decision(&job, 0, orloj_domain::fire::Decision::Requested);
    if let Some(spec) = &mut decision.spec {
        Arc::make_mut(spec).queue = "slow".parse().expect("a queue");
    }
    let spec = TopicSpec {
        name: "dlq.slow".to_owned(),
        partitions: world::SHARDS,
        replication: 1,
        settings: std::collections::BTreeMap::new(),
    };
    log.create_topic(&spec).expect("a topic");
    world.append(records::dead_letter(&job, 0, "slow"));
    world.fold(about(topic::FIRES, &job, &decision));
    eventually("its letter is there", || !world.get("/api/v1/dead-letters?queue=slow").items().is_empty());
}
