//! What the embedded log knows about itself in memory: topics, ends, open and aborted batches, positions,
//! memberships, and who waits for what. Not here: the records (`store`), the way to change (`write`).
//! Invariant: ends, batches and positions here describe only what the store has committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::claims::ClaimGroup;
use super::owners::OwnerGroup;
use super::signal::Signal;
use super::store::{BatchId, Loaded, Marks, NO_BATCH, PartitionKey};
use crate::log::{Isolation, LogError, TopicPartition, TopicSpec};

/// A topic and its number in the store.
#[derive(Debug)]
pub(crate) struct TopicState {
    /// Its number.
    pub(crate) id: i64,
    /// What it is.
    pub(crate) spec: TopicSpec,
}

/// A partition.
#[derive(Debug)]
pub(crate) struct PartitionState {
    /// First offset kept, end and how far compaction has been.
    pub(crate) marks: Marks,
    /// Open batches with the first offset of each.
    pub(crate) open: BTreeMap<BatchId, i64>,
    /// Records that the last compaction left; tells when the next one pays.
    pub(crate) kept: i64,
}

impl PartitionState {
    fn new(marks: Marks) -> Self {
        Self { marks, open: BTreeMap::new(), kept: 0 }
    }

    /// End of what a reader of this isolation may see.
    pub(crate) fn end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::Uncommitted => self.marks.end,
            Isolation::Committed => self.open.values().min().copied().unwrap_or(self.marks.end),
        }
    }
}

/// The life of a batch writer's id.
#[derive(Debug, Default)]
pub(crate) struct WriterState {
    /// Grows each time the id is opened; only the newest may write.
    pub(crate) epoch: u64,
    /// The batch that is open, if any.
    pub(crate) batch: Option<BatchId>,
}

/// A reader, owner or claimer, and what it reads.
#[derive(Debug)]
struct Watcher {
    signal: Arc<Signal>,
    partitions: BTreeSet<PartitionKey>,
}

/// Everything in memory; behind one mutex.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    /// Topics by name.
    pub(crate) topics: BTreeMap<String, TopicState>,
    /// Partitions of all topics.
    pub(crate) partitions: BTreeMap<PartitionKey, PartitionState>,
    /// Batches whose records nobody may see. Shared, so that a reader keeps the set that fits its range.
    pub(crate) aborted: Arc<BTreeSet<BatchId>>,
    /// Batches that are neither committed nor aborted.
    pub(crate) open: BTreeSet<BatchId>,
    /// Number of the next batch.
    pub(crate) next_batch: BatchId,
    /// Batch writers by id.
    pub(crate) writers: BTreeMap<String, WriterState>,
    /// Positions of consumer groups.
    pub(crate) positions: BTreeMap<String, BTreeMap<PartitionKey, i64>>,
    /// Owners by service.
    pub(crate) owners: BTreeMap<String, OwnerGroup>,
    /// Consumer groups by name.
    pub(crate) claims: BTreeMap<String, ClaimGroup>,
    /// Numbers given out: members, incarnations, watchers.
    numbers: u64,
    watchers: BTreeMap<u64, Watcher>,
}

impl Broker {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self { next_batch: NO_BATCH + 1, ..Self::default() }
    }

    /// Takes over what a store holds.
    pub(crate) fn load(loaded: Loaded) -> Self {
        let mut broker = Self { next_batch: loaded.next_batch, ..Self::default() };
        for (id, spec) in loaded.topics {
            broker.add_topic(id, spec);
        }
        for partition in loaded.partitions {
            broker.partitions.insert(partition.key, PartitionState::new(partition.marks));
        }
        broker.aborted = Arc::new(loaded.aborted.into_iter().collect());
        for (group, key, offset) in loaded.positions {
            broker.positions.entry(group).or_default().insert(key, offset);
        }
        broker
    }

    /// Adds a topic with empty partitions.
    pub(crate) fn add_topic(&mut self, id: i64, spec: TopicSpec) {
        for partition in 0..spec.partitions {
            let marks = Marks { first: 0, end: 0, cleaned: 0 };
            self.partitions.insert(PartitionKey { topic: id, partition }, PartitionState::new(marks));
        }
        self.topics.insert(spec.name.clone(), TopicState { id, spec });
    }

    /// A number that was not given out before.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// The partition of that name.
    pub(crate) fn key(&self, at: &TopicPartition) -> Result<PartitionKey, LogError> {
        self.find(&at.topic, at.partition).ok_or_else(|| LogError::NoSuchTopic(at.to_string()))
    }

    /// The partition of that name, if there is one.
    pub(crate) fn find(&self, topic: &str, partition: i32) -> Option<PartitionKey> {
        let topic = self.topics.get(topic)?;
        (0..topic.spec.partitions).contains(&partition).then_some(PartitionKey { topic: topic.id, partition })
    }

    /// State of a partition.
    pub(crate) fn partition(&self, at: &TopicPartition) -> Result<&PartitionState, LogError> {
        let key = self.key(at)?;
        self.partitions.get(&key).ok_or_else(|| LogError::NoSuchTopic(at.to_string()))
    }

    /// Starts telling `signal` about changes; gives the number to stop it with.
    pub(crate) fn watch(&mut self, signal: Arc<Signal>) -> u64 {
        let number = self.number();
        self.watchers.insert(number, Watcher { signal, partitions: BTreeSet::new() });
        number
    }

    /// Changes what a watcher reads.
    pub(crate) fn watch_partition(&mut self, watcher: u64, key: PartitionKey, is_read: bool) {
        if let Some(watcher) = self.watchers.get_mut(&watcher) {
            if is_read {
                watcher.partitions.insert(key);
            } else {
                watcher.partitions.remove(&key);
            }
        }
    }

    /// Stops telling a watcher.
    pub(crate) fn unwatch(&mut self, watcher: u64) {
        self.watchers.remove(&watcher);
    }

    /// Tells those who read one of `touched`.
    pub(crate) fn tell(&self, touched: &BTreeSet<PartitionKey>) {
        for watcher in self.watchers.values() {
            if !watcher.partitions.is_disjoint(touched) {
                watcher.signal.notify();
            }
        }
    }

    /// Decides a batch: its records are visible from now on, or never.
    pub(crate) fn close_batch(&mut self, batch: BatchId, is_committed: bool, touched: &mut BTreeSet<PartitionKey>) {
        self.open.remove(&batch);
        for (key, partition) in &mut self.partitions {
            if partition.open.remove(&batch).is_some() {
                touched.insert(*key);
            }
        }
        if !is_committed {
            Arc::make_mut(&mut self.aborted).insert(batch);
        }
    }
}
