//! `trait Log`: what Orloj asks of a log, in its own words. Two back ends: `kafka` and `embedded`; one
//! conformance suite (`tests/tests/conformance_*.rs`) runs against both. Not here: how ownership is proved.
//! Invariant: what `append` acknowledged survives `kill -9`; what it refused is visible to nobody.

mod error;
mod record;

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::id::Incarnation;
use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;

pub use error::{AppendError, LogError};
pub use record::{Header, NewRecord, Position, Record, TopicName, TopicPartition};

/// Which records a reader is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Only what was committed, in order, up to the first batch that is still open.
    Committed,
    /// Everything, batches that are open or were aborted included.
    Uncommitted,
}

/// What a topic is declared as or found to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Name without the installation's prefix.
    pub name: String,
    /// Number of partitions.
    pub partitions: i32,
    /// Copies; ignored by the embedded log.
    pub replication: i16,
    /// Topic settings by Kafka's names, for example `cleanup.policy`.
    pub settings: std::collections::BTreeMap<String, String>,
}

/// A log: topics of partitions of records. All calls block and may be made from any plain thread;
/// never call them on an async executor.
pub trait Log: Send + Sync + 'static {
    /// All topics of this installation, prefix taken off, in order of name.
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError>;

    /// Creates a topic. A topic that exists already is no error; it is left as it is.
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError>;

    /// First offset that no record has yet (`Uncommitted`), or the last stable offset (`Committed`).
    fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<i64, LogError>;

    /// First offset whose record was appended at or after `time`; the end if there is none.
    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<i64, LogError>;

    /// A reader of nothing yet.
    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError>;

    /// A plain appender, for records that need no atomicity over partitions.
    fn appender(&self) -> Result<Box<dyn Appender>, LogError>;

    /// A writer of atomic batches under an id of its own. Opening the same id again shuts out the one before.
    fn batch_writer(&self, id: &str) -> Result<Box<dyn BatchWriter>, LogError>;

    /// Joins the owners of a service's shards.
    fn own(&self, spec: OwnerSpec) -> Result<Box<dyn Owner>, LogError>;

    /// Joins the consumers of queues.
    fn claim(&self, spec: ClaimerSpec) -> Result<Box<dyn Claimer>, LogError>;
}

/// Reads partitions from positions on, and waits for what comes.
pub trait Reader: Send {
    /// Starts reading `at` from `offset` on, inclusive; a partition that is read already is moved there.
    fn read_from(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError>;

    /// Stops reading; records not yet handed out are dropped.
    fn stop(&mut self, partitions: &[TopicPartition]);

    /// Hands out at most `max` records, in order within each partition; waits up to `timeout` for the first
    /// one. An empty answer means that the time was up or that the waker was used.
    fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<Record>, LogError>;

    /// Wakes a `poll` that waits, from another thread.
    fn waker(&self) -> Waker;
}

/// Appends records one by one: each is durable by itself once acknowledged.
pub trait Appender: Send {
    /// Appends and waits for the acknowledgements; positions in the order given.
    fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, AppendError>;
}

/// Writes atomic batches step by step. What a service uses is [`Owner::append`]; this is what it stands on.
pub trait BatchWriter: Send {
    /// Adds records to the open batch, opening one if none is; on return they are in the log but undecided.
    fn stage(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, AppendError>;

    /// Makes all of the open batch visible at once.
    fn commit(&mut self) -> Result<(), AppendError>;

    /// Makes all of the open batch invisible for ever.
    fn abort(&mut self) -> Result<(), AppendError>;
}

/// How a service joins the owners of its shards.
#[derive(Debug, Clone)]
pub struct OwnerSpec {
    /// `trigger` or `dispatcher`; names the group, the owners topic and the producer ids.
    pub service: String,
    /// The topic whose partitions are shared among the owners.
    pub membership_topic: String,
    /// Topic of owner records.
    pub owners_topic: String,
    /// Topics that restore reads; each gets a barrier record at takeover.
    pub restore_topics: Vec<String>,
    /// Topics of the shard that are read once the shard is restored.
    pub input_topics: Vec<String>,
    /// Topics with partitions of their own, not shards, that every owner may read as inputs.
    pub shared_topics: Vec<String>,
    /// Topics with a partition for each shard that only owners of this service write and that restore does not read: a name,
    /// or what the names of several begin with, if it ends in a dot.
    pub outputs: Vec<String>,
    /// Inputs that are written by claims, and by whom.
    pub claimed: Option<ClaimedInputs>,
    /// How many shards there are.
    pub shards: i32,
}

/// Inputs of an owner that claimers write, see [`Claimer::claim`]. What a claimer leaves half done there its owner ends.
#[derive(Debug, Clone)]
pub struct ClaimedInputs {
    /// Topics with a partition for each shard.
    pub topics: Vec<String>,
    /// Who claims or has claimed lately.
    pub claimers: fn(&dyn Log) -> Result<Vec<ClaimerName>, LogError>,
    /// What a record claims; none if it is no claim. A claim that was refused is made again with the same.
    pub claim_of: fn(&Record) -> Option<Vec<u8>>,
}

/// A member of a group of claimers, as [`ClaimerSpec`] names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimerName {
    /// Name of the consumer group, without prefix.
    pub group: String,
    /// The member.
    pub member: String,
}

/// A shard that was taken over: whatever owner came before is shut out for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenShard {
    /// The shard.
    pub shard: Shard,
    /// For each restore topic, the offset up to which restore must read, exclusive.
    pub restore_until: Vec<(String, i64)>,
}

/// What an owner is told.
#[derive(Debug)]
pub enum OwnerEvent {
    /// These shards are ours: restore them, then read their inputs.
    Taken(Vec<TakenShard>),
    /// These shards go to another: stop their machines, then call [`Owner::release`].
    Revoking(Vec<Shard>),
    /// All shards are gone, released or not: drop every machine. New shards may come under a new incarnation.
    Lost {
        /// Why, for the log.
        reason: String,
    },
    /// Records of inputs, in order within each partition.
    Records(Vec<Record>),
    /// All that was committed to this input before the shard was taken over has been handed out.
    /// Said once after each [`Owner::read_inputs`].
    CaughtUp(TopicPartition),
}

/// What became of an append, and what was to be appended.
#[derive(Debug)]
pub struct Appended {
    /// The records, as they were given.
    pub records: Vec<NewRecord>,
    /// Their positions in order, or why there are none.
    pub outcome: Result<Vec<Position>, AppendError>,
}

/// A share in a service's shards, and the only way to write for them.
pub trait Owner: Send {
    /// The incarnation in force; changes after [`OwnerEvent::Lost`].
    fn incarnation(&self) -> Incarnation;

    /// What has happened, rebalance steps before records; at most `max` records. Waits up to `timeout` for
    /// the first of them. An empty answer means that the time was up or that the waker was used.
    fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<OwnerEvent>, LogError>;

    /// Reads `from` (inclusive) up to `until` (exclusive) of each partition, committed records only, and hands
    /// each to `fold`. Returns when every visible record below `until` was handed over. Keeps the membership
    /// alive meanwhile.
    ///
    /// # Errors
    /// [`LogError::Lost`] when a shard concerned was taken away meanwhile: poll next.
    fn restore(&mut self, ranges: &[RestoreRange], fold: &mut dyn FnMut(Record)) -> Result<(), LogError>;

    /// Starts reading inputs of owned shards at these offsets, inclusive; replaces earlier positions.
    fn read_inputs(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError>;

    /// Appends all records or none, if and only if every shard of `shards` is still ours, and waits for the
    /// acknowledgement. Positions in the order of the records.
    fn append(&mut self, shards: &[Shard], records: &[NewRecord]) -> Result<Vec<Position>, AppendError>;

    /// Does as [`Owner::append`], and may return before it is done: with `None`, and then [`Owner::finish_append`] must
    /// be called. Before it only [`Owner::incarnation`] and [`Owner::poll`] may be; and if that answers anything but
    /// records and their ends, or fails, it must be called next.
    fn start_append(&mut self, shards: &[Shard], records: Vec<NewRecord>) -> Option<Appended>;

    /// Waits for the end of the append that was started.
    fn finish_append(&mut self) -> Appended;

    /// How far the clock of the log's servers is ahead of this machine's (behind, if negative) at least, in
    /// milliseconds, as the last append showed; `None` if they have no clock of their own, or nobody knows yet.
    fn broker_offset_ms(&self) -> Option<i64> {
        None
    }

    /// Gives shards back after their machines stopped; answers [`OwnerEvent::Revoking`].
    fn release(&mut self, shards: &[Shard]) -> Result<(), LogError>;

    /// Gives everything up without releasing it, as after a refusal: the next shards come under a new
    /// incarnation. Repeating it before the next `poll` changes nothing.
    fn abandon(&mut self, reason: &str);

    /// Gives all shards back and leaves; takes at most 5 s, then the successor shuts us out.
    fn leave(self: Box<Self>);

    /// Wakes a `poll` that waits, from another thread.
    fn waker(&self) -> Waker;
}

/// A part of a partition to restore from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreRange {
    /// The partition.
    pub at: TopicPartition,
    /// First offset, inclusive.
    pub from: i64,
    /// End, exclusive.
    pub until: i64,
}

/// How a runner joins the consumers of its queues.
#[derive(Debug, Clone)]
pub struct ClaimerSpec {
    /// Name of the consumer group, without prefix.
    pub group: String,
    /// Topics shared among the group's members.
    pub topics: Vec<String>,
    /// Name of this member, and of no other that lives; names its transactional ids.
    pub member: String,
    /// What it can learn about others of the group; without it nothing that they left half done is ended.
    pub peers: Option<Arc<dyn Peers>>,
}

/// What a claimer asks when a claim that another made, and that was never wholly ended, keeps the group's positions from it.
pub trait Peers: std::fmt::Debug + Send + Sync {
    /// Who claims from this group's topics or has claimed lately, the asker included.
    fn claimers(&self) -> Result<Vec<ClaimerName>, LogError>;

    /// How many of these records, which follow each other in one partition, were claimed, from the first on. All of them if
    /// nobody can tell whether what follows was claimed too: then nothing waits there yet.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] while that can't be told.
    fn claimed(&self, records: &[Record]) -> Result<usize, LogError>;
}

/// A member of a consumer group that takes records by an atomic claim.
pub trait Claimer: Send {
    /// Hands out at most `max` records that nobody has claimed, waiting up to `timeout` for the first. Records
    /// handed out and not claimed stay with this member until a rebalance, after which they must be dropped:
    /// `ClaimerPoll::Rebalanced` says so.
    ///
    /// Each call is a sign of life, also with a `max` of 0, which hands out nothing: who has no use for records just now
    /// keeps its partitions by it, and what it was handed can still be claimed. It must come more often than a member
    /// may be silent.
    fn poll(&mut self, max: usize, timeout: Duration) -> Result<ClaimerPoll, LogError>;

    /// Appends `records` and marks everything of `consumed` as taken, all or nothing. `consumed` holds, for
    /// each partition, the first offset that is not yet taken.
    ///
    /// # Errors
    /// [`AppendError::Refused`] when the membership is stale: drop what was handed out and poll again.
    fn claim(
        &mut self,
        records: Vec<NewRecord>,
        consumed: &[(TopicPartition, i64)],
    ) -> Result<Vec<Position>, AppendError>;

    /// Leaves the group at once, so that its partitions move on.
    fn leave(self: Box<Self>);

    /// Wakes a `poll` that waits, from another thread.
    fn waker(&self) -> Waker;
}

/// What a claimer is told.
#[derive(Debug)]
pub enum ClaimerPoll {
    /// Records to claim; may be empty.
    Records(Vec<Record>),
    /// Partitions moved: drop every record handed out so far that was not claimed.
    Rebalanced,
}

/// Wakes a blocked call from another thread. Cheap to clone; waking nobody is no error.
#[derive(Clone)]
pub struct Waker(Arc<dyn Fn() + Send + Sync>);

impl Waker {
    /// A waker that calls `wake`.
    pub fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(wake))
    }

    /// Wakes.
    pub fn wake(&self) {
        (self.0)();
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}
