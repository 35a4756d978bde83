//! What the embedded log asks of the place that keeps its records: apply changes all or none, read ranges.
//! Two of them: `sqlite` (a file) and `memory`. Not here: offsets, visibility, ownership (the broker above).
//! Invariant: `commit` returned `Ok` means that all its changes survive whatever `kill -9` leaves.

pub(crate) mod headers;
pub(crate) mod memory;
pub(crate) mod sqlite;

use orloj_domain::time::Timestamp;

use crate::log::{Header, LogError, TopicSpec};

/// Number of a batch; [`NO_BATCH`] for a record that was appended whole.
pub(crate) type BatchId = i64;
/// What stands in place of a batch when there is none.
pub(crate) const NO_BATCH: BatchId = 0;

/// A partition by the number of its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PartitionKey {
    /// Number of the topic.
    pub(crate) topic: i64,
    /// Partition, 0-based.
    pub(crate) partition: i32,
}

/// A record as the store keeps it.
#[derive(Debug, Clone)]
pub(crate) struct StoredRecord {
    /// Its offset.
    pub(crate) offset: i64,
    /// When it was appended.
    pub(crate) at: Timestamp,
    /// The batch it came with.
    pub(crate) batch: BatchId,
    /// Key.
    pub(crate) key: Option<Vec<u8>>,
    /// Value.
    pub(crate) value: Option<Vec<u8>>,
    /// Headers in order.
    pub(crate) headers: Vec<Header>,
}

/// What upkeep needs to know of a record.
#[derive(Debug, Clone)]
pub(crate) struct Outline {
    /// Its offset.
    pub(crate) offset: i64,
    /// When it was appended.
    pub(crate) at: Timestamp,
    /// The batch it came with.
    pub(crate) batch: BatchId,
    /// Key.
    pub(crate) key: Option<Vec<u8>>,
    /// Whether it has no value.
    pub(crate) is_tombstone: bool,
}

/// Marks of a partition that its records alone do not tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// First offset that retention has kept.
    pub(crate) first: i64,
    /// An offset that the end is never below, though the records there may be gone.
    pub(crate) end: i64,
    /// Offset up to which compaction has been.
    pub(crate) cleaned: i64,
}

/// One change; a commit applies many or none.
#[derive(Debug)]
pub(crate) enum Change {
    /// A new topic.
    CreateTopic {
        /// Its number.
        id: i64,
        /// What it is.
        spec: TopicSpec,
    },
    /// A new record.
    Put(PartitionKey, StoredRecord),
    /// A batch exists and is not committed. Found at the next start, it counts as aborted.
    OpenBatch(BatchId),
    /// A batch is committed, or no record of it is left.
    CloseBatch(BatchId),
    /// A group has consumed a partition up to an offset.
    SetPosition(String, PartitionKey, i64),
    /// These records go.
    Remove(PartitionKey, Vec<i64>),
    /// All records below this offset go.
    RemoveBelow(PartitionKey, i64),
    /// The marks of a partition.
    Mark(PartitionKey, Marks),
}

/// A partition as found at start.
#[derive(Debug)]
pub(crate) struct LoadedPartition {
    /// Which.
    pub(crate) key: PartitionKey,
    /// Its marks; `end` is the end.
    pub(crate) marks: Marks,
}

/// What a store holds at start, records apart.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Topics with their numbers.
    pub(crate) topics: Vec<(i64, TopicSpec)>,
    /// Partitions that have or had records.
    pub(crate) partitions: Vec<LoadedPartition>,
    /// Batches that were never committed.
    pub(crate) aborted: Vec<BatchId>,
    /// A number that every batch so far is below.
    pub(crate) next_batch: BatchId,
    /// Positions of groups.
    pub(crate) positions: Vec<(String, PartitionKey, i64)>,
}

/// Why a store could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// Nothing was changed: there is no space.
    #[error("{0}")]
    Full(String),
    /// Nothing was changed.
    #[error("{0}")]
    Failed(String),
    /// Nobody knows whether it was changed.
    #[error("{0}")]
    Unknown(String),
}

impl From<StoreError> for LogError {
    fn from(error: StoreError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// How much of a partition to read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    /// The partition.
    pub(crate) key: PartitionKey,
    /// First offset, inclusive.
    pub(crate) from: i64,
    /// End, exclusive.
    pub(crate) until: i64,
    /// Most records to read.
    pub(crate) records_max: usize,
    /// Stop after the record that reaches this many bytes.
    pub(crate) bytes_max: usize,
}

/// What was read of a range.
#[derive(Debug)]
pub(crate) struct Slice<T> {
    /// The records, in order.
    pub(crate) rows: Vec<T>,
    /// Offset at which to read on.
    pub(crate) next: i64,
}

/// Keeps records.
pub(crate) trait Store: Send + Sync {
    /// Reads what is there; called once, at start.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Applies all changes or none, durably.
    fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError>;

    /// A reader for one thread.
    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError>;
}

/// Reads committed changes.
pub(crate) trait StoreReader: Send {
    /// Reads records.
    fn read(&mut self, range: Range) -> Result<Slice<StoredRecord>, StoreError>;

    /// Reads outlines; `bytes_max` is not looked at.
    fn outline(&mut self, range: Range) -> Result<Slice<Outline>, StoreError>;

    /// First offset whose record is not older than `time`.
    fn offset_at(&mut self, key: PartitionKey, time: Timestamp) -> Result<Option<i64>, StoreError>;

    /// Whether any record of the batch is left.
    fn has_records_of(&mut self, batch: BatchId) -> Result<bool, StoreError>;
}
