//! What every back end of `trait Log` must do, as named cases over a small harness. Not here: what only one
//! back end has (its own tests), how a broker is started. Invariant: a case names no back end, waits for
//! conditions only, and takes every length of time from the harness.

pub mod append;
pub mod batch;
mod cases;
pub mod claims;
pub mod compaction;
pub mod durability;
pub mod holder;
pub mod member;
pub mod ownership;
pub mod reading;
pub mod takeover;

use std::sync::Arc;
use std::time::Duration;

use orloj_runtime::log::{Isolation, Log, NewRecord, Reader, Record, TopicPartition, TopicSpec};

use crate::wait;

/// How long a single poll of a case waits.
pub const POLL: Duration = Duration::from_millis(20);
/// Most records a poll of a case asks for.
pub const MAX: usize = 1000;

/// A back end under test.
pub trait Backend {
    /// True if the cases are to be skipped; whoever says so has said so to the user.
    fn is_switched_off() -> bool {
        false
    }

    /// An empty log that no other test sees.
    fn fresh() -> Self;

    /// The log as this process has it.
    fn log(&self) -> Arc<dyn Log>;

    /// The log as another process would have it.
    fn other(&self) -> Arc<dyn Log>;

    /// Restarts what keeps the records. A case drops everything it got from the log before, and asks for it again.
    fn reopen(&mut self);

    /// Runs [`holder::hold`] in a process of its own, or as near to one as there is, and kills it.
    fn kill_a_holder(&mut self);

    /// Has these partitions compacted now, as far as they may be.
    fn compact(&self, partitions: &[TopicPartition]);

    /// Lets so much time pass that a member which makes no call is shut out; calls `alive` again and again.
    fn outlast_session(&self, alive: &mut dyn FnMut());

    /// Lets the clock that stamps records move on.
    fn tick(&self);

    /// How long a case waits at most for what must happen.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }
}

/// Creates a topic with settings by Kafka's names.
#[track_caller]
pub fn create(log: &dyn Log, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { name: name.to_owned(), partitions, replication: 1, settings };
    log.create_topic(&spec).expect("a topic is created");
}

/// A record with text as key and value.
#[must_use]
pub fn record(topic: &str, partition: i32, key: &str, value: &str) -> NewRecord {
    NewRecord::new(topic, partition, key, Some(value.as_bytes().to_vec()))
}

/// Appends records one by one, whole.
#[track_caller]
pub fn append(log: &dyn Log, records: Vec<NewRecord>) -> Vec<i64> {
    let mut appender = log.appender().expect("an appender");
    let positions = appender.append(records).expect("records are appended");
    positions.iter().map(|position| position.offset).collect()
}

/// The value as text.
#[must_use]
pub fn text(record: &Record) -> String {
    record.value.as_deref().map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
}

/// Values as text.
#[must_use]
pub fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(text).collect()
}

/// A reader of one partition.
#[track_caller]
pub fn reader_at(log: &dyn Log, at: &TopicPartition, from: i64, isolation: Isolation) -> Box<dyn Reader> {
    let mut reader = log.reader(isolation).expect("a reader");
    reader.read_from(&[(at.clone(), from)]).expect("a position to read from");
    reader
}

/// Reads until `count` records came.
#[track_caller]
pub fn read_count(backend: &impl Backend, reader: &mut dyn Reader, count: usize) -> Vec<Record> {
    let mut records = Vec::new();
    wait::until(&format!("{count} records"), backend.patience(), || {
        records.extend(reader.poll(MAX, POLL).expect("a poll"));
        (records.len() >= count).then_some(())
    });
    assert_eq!(records.len(), count, "{:?}", texts(&records));
    records
}

/// Fails if the reader is given anything for a while.
#[track_caller]
pub fn read_nothing(reader: &mut dyn Reader) {
    let surplus = wait::within(Duration::from_millis(300), || {
        let records = reader.poll(MAX, POLL).expect("a poll");
        (!records.is_empty()).then_some(records)
    });
    assert_eq!(surplus.map(|records| texts(&records)), None);
}

const END_KEY: &str = "__end";

/// Reads a partition from `from` to its end. It appends a marker to know the end by, so no batch may be open.
#[track_caller]
pub fn read_to_end(backend: &impl Backend, at: &TopicPartition, from: i64, isolation: Isolation) -> Vec<Record> {
    let log = backend.log();
    let mut reader = reader_at(&*log, at, from, isolation);
    let marker = append(&*log, vec![record(&at.topic, at.partition, END_KEY, "")]);
    let mut records = Vec::new();
    wait::until("the end of the partition", backend.patience(), || {
        records.extend(reader.poll(MAX, POLL).expect("a poll"));
        records.iter().any(|record: &Record| marker.contains(&record.offset)).then_some(())
    });
    records.retain(|record| record.key_text() != Some(END_KEY));
    records
}
