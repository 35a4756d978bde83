//! Where a reader stands in each partition, and taking what comes next. Not here: waiting (`signal`), who may
//! read what. Invariant: with `Committed` nothing at or past the first open batch is looked at, and which
//! batches were aborted is asked at the same moment as that limit, so both fit together.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::EmbeddedLog;
use super::signal::Signal;
use super::store::{PartitionKey, Range, StoreReader, StoredRecord};
use crate::log::{Isolation, LogError, Record, TopicPartition};

/// Most bytes handed out at once.
const FETCH_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(Debug, Clone, Copy)]
struct Cursor {
    key: PartitionKey,
    next: i64,
}

/// A position in each of some partitions.
pub(crate) struct Cursors {
    log: EmbeddedLog,
    isolation: Isolation,
    store: Box<dyn StoreReader>,
    cursors: BTreeMap<TopicPartition, Cursor>,
    served_last: Option<TopicPartition>,
    watcher: u64,
}

struct Work {
    at: TopicPartition,
    cursor: Cursor,
    until: i64,
}

impl Cursors {
    /// No partitions yet; `signal` is told when there is more to read.
    pub(crate) fn new(log: &EmbeddedLog, isolation: Isolation, signal: &Arc<Signal>) -> Result<Self, LogError> {
        let store = log.core().store.reader()?;
        let watcher = log.core().broker().watch(Arc::clone(signal));
        Ok(Self { log: log.clone(), isolation, store, cursors: BTreeMap::new(), served_last: None, watcher })
    }

    /// Reads `at` from `offset` on.
    pub(crate) fn set(&mut self, at: &TopicPartition, offset: i64) -> Result<(), LogError> {
        let mut broker = self.log.core().broker();
        let key = broker.key(at)?;
        let marks = broker.partition(at)?.marks;
        if offset < marks.first || offset > marks.end {
            return Err(LogError::OutOfRange { at: at.clone(), wanted: offset, first: marks.first });
        }
        broker.watch_partition(self.watcher, key, true);
        drop(broker);
        self.cursors.insert(at.clone(), Cursor { key, next: offset });
        Ok(())
    }

    /// Reads `at` no more.
    pub(crate) fn remove(&mut self, at: &TopicPartition) {
        if let Some(cursor) = self.cursors.remove(at) {
            self.log.core().broker().watch_partition(self.watcher, cursor.key, false);
        }
    }

    /// Reads none of those that `is_gone` names.
    pub(crate) fn remove_all(&mut self, is_gone: impl Fn(&TopicPartition) -> bool) {
        let gone: Vec<TopicPartition> = self.cursors.keys().filter(|at| is_gone(at)).cloned().collect();
        for at in gone {
            self.remove(&at);
        }
    }

    /// Next offset to look at.
    pub(crate) fn next(&self, at: &TopicPartition) -> Option<i64> {
        self.cursors.get(at).map(|cursor| cursor.next)
    }

    /// Takes at most `max` records that are there now.
    pub(crate) fn fetch(&mut self, max: usize) -> Result<Vec<Record>, LogError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while records.is_empty() && max > 0 {
            let (work, aborted) = self.work()?;
            if work.is_empty() {
                break;
            }
            for Work { at, cursor, until } in work {
                if records.len() >= max || bytes >= FETCH_BYTES_MAX {
                    break;
                }
                let range = Range {
                    key: cursor.key,
                    from: cursor.next,
                    until,
                    records_max: max - records.len(),
                    bytes_max: FETCH_BYTES_MAX - bytes,
                };
                let slice = match self.store.read(range) {
                    Ok(slice) => slice,
                    Err(error) if records.is_empty() => return Err(error.into()),
                    // What was read already must be handed out first: its cursors have moved.
                    Err(_) => return Ok(records),
                };
                if let Some(cursor) = self.cursors.get_mut(&at) {
                    cursor.next = slice.next;
                }
                let is_visible =
                    |row: &StoredRecord| self.isolation == Isolation::Uncommitted || !aborted.contains(&row.batch);
                for row in slice.rows.into_iter().filter(is_visible) {
                    bytes += row.key.as_ref().map_or(0, Vec::len) + row.value.as_ref().map_or(0, Vec::len);
                    records.push(to_record(&at, row));
                }
                self.served_last = Some(at);
            }
        }
        Ok(records)
    }

    /// Partitions with something to look at, the one after the last served first, so that none starves.
    fn work(&self) -> Result<(Vec<Work>, Arc<std::collections::BTreeSet<i64>>), LogError> {
        let broker = self.log.core().broker();
        let mut work = Vec::new();
        for (at, cursor) in &self.cursors {
            let partition = broker.partitions.get(&cursor.key).ok_or_else(|| LogError::NoSuchTopic(at.to_string()))?;
            if cursor.next < partition.marks.first {
                let (wanted, first) = (cursor.next, partition.marks.first);
                return Err(LogError::OutOfRange { at: at.clone(), wanted, first });
            }
            let until = partition.end(self.isolation);
            if cursor.next < until {
                work.push(Work { at: at.clone(), cursor: *cursor, until });
            }
        }
        if let Some(last) = &self.served_last {
            let start = work.iter().position(|work| work.at > *last).unwrap_or(0);
            work.rotate_left(start);
        }
        Ok((work, Arc::clone(&broker.aborted)))
    }
}

impl Drop for Cursors {
    fn drop(&mut self) {
        self.log.core().broker().unwatch(self.watcher);
    }
}

fn to_record(at: &TopicPartition, row: StoredRecord) -> Record {
    Record {
        topic: at.topic.clone(),
        partition: at.partition,
        offset: row.offset,
        timestamp: row.at,
        key: row.key,
        value: row.value,
        headers: row.headers,
    }
}
