//! What a service is to the driver: a pure machine per shard, and the edges that turn records into inputs and
//! events into records. Two real ones: the trigger and the dispatcher. Invariant: only `apply` changes a
//! machine, live and on replay.

use orloj_domain::id::Incarnation;
use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;

use super::inbound::Undecodable;
#[cfg(doc)]
use crate::log::OwnerSpec;
use crate::log::{ClaimedInputs, NewRecord, Record, TopicPartition};

/// A pure state machine over one shard.
pub trait Machine: Send + 'static {
    /// What it is asked to decide on.
    type Input;
    /// What it decides.
    type Event;

    /// The input that says that time has passed.
    fn tick() -> Self::Input;

    /// Decides. Bounded: a tick answers with at most some thousand events, and if more is due the deadline
    /// stays in the past.
    fn decide(&self, input: &Self::Input, now: Timestamp) -> Vec<Self::Event>;

    /// Takes an event into the state.
    fn apply(&mut self, event: &Self::Event);

    /// When a tick is wanted next; in the past if one is due.
    fn next_deadline(&self) -> Option<Timestamp>;
}

/// The topics of a service.
#[derive(Debug, Clone, Default)]
pub struct ServiceTopics {
    /// The topic whose partitions are shared among instances.
    pub membership: String,
    /// Topic of owner records.
    pub owners: String,
    /// Compacted state, restored from the start; the first one holds the positions record.
    pub state: Vec<String>,
    /// Decisions, restored from the saved position; at most one topic.
    pub decisions: Vec<String>,
    /// Inputs of the shard, read from the saved positions.
    pub inputs: Vec<String>,
    /// Inputs with partitions of their own that every instance reads whole.
    pub shared: Vec<SharedInput>,
    /// Topics of the shards that it writes and never reads, see [`OwnerSpec::outputs`].
    pub outputs: Vec<String>,
    /// Inputs that are written by claims.
    pub claimed: Option<ClaimedInputs>,
}

/// An input that is no shard's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedInput {
    /// The partition.
    pub at: TopicPartition,
    /// From where on it is read.
    pub start: SharedStart,
}

/// From where on a shared input is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedStart {
    /// From a little back: what is older says nothing any more.
    Recent,
    /// From its start: it is state. A shard's own inputs are read once all of it up to the takeover was.
    Beginning,
}

impl ServiceTopics {
    pub(super) fn is_shared(&self, topic: &str) -> bool {
        self.shared.iter().any(|shared| shared.at.topic == topic)
    }

    /// Shared inputs that are state.
    pub(super) fn shared_state(&self) -> impl Iterator<Item = &TopicPartition> {
        self.shared.iter().filter(|shared| shared.start == SharedStart::Beginning).map(|shared| &shared.at)
    }
}

/// What an event is written with.
#[derive(Debug)]
pub struct WriteContext<'a> {
    /// The shard of the machine.
    pub shard: Shard,
    /// The incarnation that writes.
    pub incarnation: &'a Incarnation,
}

/// What a record asks of the machine.
#[derive(Debug)]
pub enum Inbound<I> {
    /// An input for the machine of the record's shard.
    Input(I),
    /// Nothing for this service.
    Nothing,
    /// It can't be used: it goes to quarantine, and the machine may have something to say about it.
    Bad(Undecodable, Option<I>),
}

/// Whether the records of an event may wait for others before they are appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// Somebody waits for them.
    Now,
    /// They may wait a moment.
    Later,
    /// As `Later`; and if another event about the same subject comes before they are appended, they are left out: that one
    /// says all that matters.
    Passing,
}

/// A service over machines. Shared between the threads that fold a restore into machines, each of its own shards.
pub trait Service: Send + Sync + 'static {
    /// Its machine.
    type Machine: Machine;

    /// Its name: `trigger` or `dispatcher`.
    const NAME: &'static str;

    /// Its topics.
    fn topics(&self) -> ServiceTopics;

    /// A machine that knows nothing yet.
    fn machine(&self, shard: Shard) -> Self::Machine;

    /// Folds one record of a state or decision topic into a machine that is being restored. Barrier and
    /// positions records never come here.
    ///
    /// # Errors
    /// [`Undecodable`] when the record can't be used; it is reported and skipped.
    fn replay(&self, machine: &mut Self::Machine, record: &Record) -> Result<(), Undecodable>;

    /// Turns an input record of a shard into an input.
    fn read(&mut self, record: &Record, now: Timestamp) -> Inbound<<Self::Machine as Machine>::Input>;

    /// Turns an event, which was applied, into the records that say it, behind those in `out`.
    fn write(&self, context: &WriteContext<'_>, event: <Self::Machine as Machine>::Event, out: &mut Vec<NewRecord>);

    /// True if the event's own record says which input it came from, and reading that input again after a restore
    /// would decide nothing new. A batch of such events leaves the positions to the next lazy save.
    fn names_its_input(&self, _event: &<Self::Machine as Machine>::Event) -> bool {
        false
    }

    /// How soon an event must be appended, and what it is about, if others may be about the same. Asked of each event in
    /// order, before it is written.
    fn haste(&self, _event: &<Self::Machine as Machine>::Event) -> (Haste, Option<u128>) {
        (Haste::Now, None)
    }

    /// A shard was restored; its inputs are not read yet.
    fn restored(&mut self, _machine: &Self::Machine, _now: Timestamp) {}

    /// Takes a record of a shared input; answers inputs for every machine.
    fn read_shared(&mut self, _record: &Record, _now: Timestamp) -> Vec<<Self::Machine as Machine>::Input> {
        Vec::new()
    }

    /// What a machine that has just been restored must be told of the shared state as it is.
    fn shared_state(&self) -> Vec<<Self::Machine as Machine>::Input> {
        Vec::new()
    }

    /// When the shared state wants a tick.
    fn shared_deadline(&self) -> Option<Timestamp> {
        None
    }

    /// Time has passed for the shared state, and all of the shared inputs was read; answers inputs for every
    /// machine.
    fn shared_tick(&mut self, _now: Timestamp) -> Vec<<Self::Machine as Machine>::Input> {
        Vec::new()
    }

    /// All shards are gone: shared state starts afresh.
    fn forget_shared(&mut self) {}

    /// True if the machine holds state that only decisions explain so far.
    fn has_unsaved(&self, _machine: &Self::Machine) -> bool {
        false
    }

    /// Records that save such state, at most `max`, and whether that was all of it. What changed since the
    /// first call of a round waits for the next round.
    fn save(&self, _machine: &mut Self::Machine, _shard: Shard, _max: usize) -> (Vec<NewRecord>, bool) {
        (Vec::new(), true)
    }

    /// The machine as bytes that [`Service::restore_snapshot`] of this very build reads back; `None` if this service
    /// has no use for snapshots. What `save` still has to write must be in it too.
    fn snapshot(&self, _machine: &Self::Machine) -> Option<Vec<u8>> {
        None
    }

    /// Takes a snapshot into a machine that knows nothing yet; `None` if it can't be read.
    fn restore_snapshot(&self, _machine: &mut Self::Machine, _bytes: &[u8]) -> Option<()> {
        None
    }

    /// Looks at all machines once per turn, for metrics; must be cheap.
    fn observe(&self, _machines: &mut dyn Iterator<Item = &Self::Machine>) {}
}
