//! A claim whose end was lost keeps the group's positions from whoever is given its partitions next: the group waits for a
//! marker that Kafka never writes (ADR 0019), and so does every member that asks. Here it is found out and ended. Not here:
//! claiming (`claimer`), what is hidden in the topics that claims are written to (`owner/hanging`). Invariant: where the
//! group stands afterwards on our partitions is what the log says was claimed, whatever became of the claim; only their
//! present member may set it, and it claims nothing of them meanwhile.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::{Offset, TopicPartitionList};

use super::claim_ids::{self, Opener};
use super::client::{Aside, Complaints, Deadline};
use super::config::KafkaConfig;
use super::ends::{ANSWER_TIMEOUT, Ends};
use super::fault;
use super::keeper::Kept;
use super::reader::KafkaReader;
use crate::clock::{Clock, SystemClock};
use crate::log::{AppendError, Isolation, LogError, Peers, Reader, Record, TopicPartition};

/// How long the group may take to say where it stands. It answers at once, or it waits for a marker.
const STAND_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time for reading what may have been claimed of a partition.
const READ_MAX: Duration = Duration::from_secs(20);
/// More than anybody claims before an older claim has ended one way or the other.
const RECORDS_MAX: usize = 10_000;

/// What is needed to find out and to mend.
#[derive(Clone)]
pub(super) struct Kit {
    pub(super) config: Arc<KafkaConfig>,
    pub(super) ends: Arc<Ends>,
    /// Without prefix.
    pub(super) group: String,
    pub(super) opener: Opener,
    pub(super) peers: Arc<dyn Peers>,
}

/// Asks some time after every change of our share, on a thread of its own.
pub(super) struct Rescue {
    kit: Option<Kit>,
    clock: SystemClock,
    /// Longer than a claim may stay open.
    patience: Duration,
    due: Option<Duration>,
    underway: Option<(Receiver<Found>, Vec<TopicPartition>)>,
}

/// What came of a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// The group can say where it stands.
    Stands,
    /// It could not, and ids were opened.
    Mended,
    /// Nobody answered, or our share has changed.
    Unknown,
}

impl Rescue {
    /// Never asks without a kit.
    pub(super) fn new(kit: Option<Kit>, patience: Duration) -> Self {
        Self { kit, clock: SystemClock::new(), patience, due: None, underway: None }
    }

    /// Our share has changed: whether its positions can be had is not known.
    pub(super) fn begin_anew(&mut self) {
        self.due = self.kit.as_ref().map(|_| self.clock.monotonic() + self.patience);
    }

    /// Starts what is due. True once ids were opened, ours among them: they must be opened again.
    pub(super) fn tend(
        &mut self,
        share: impl FnOnce() -> Vec<TopicPartition>,
        membership: Option<Arc<ConsumerGroupMetadata>>,
    ) -> bool {
        if let Some((answer, _)) = &self.underway {
            let found = match answer.try_recv() {
                Ok(found) => found,
                Err(TryRecvError::Empty) => return false,
                Err(TryRecvError::Disconnected) => Found::Unknown,
            };
            self.underway = None;
            if found != Found::Stands {
                self.begin_anew();
            }
            return found == Found::Mended;
        }
        let now = self.clock.monotonic();
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        let (Some(kit), Some(membership)) = (self.kit.clone(), membership) else { return false };
        let share = share();
        self.due = None;
        if share.is_empty() {
            return false;
        }
        let (sender, answer) = bounded(1);
        let asked = share.clone();
        let work = move || {
            let found = kit.look(&asked, &membership).unwrap_or_else(|error| {
                tracing::warn!(group = kit.group, %error, "where the group stands can't be told or mended");
                Found::Unknown
            });
            // Nobody listens any more if the claimer has left.
            let _ = sender.send(found);
        };
        match std::thread::Builder::new().name("claim-rescue".to_owned()).spawn(work) {
            Ok(_) => self.underway = Some((answer, share)),
            Err(error) => tracing::warn!(%error, "no thread to find out where the group stands"),
        }
        false
    }

    /// True while the position of this partition may be about to be set: nothing must be claimed of it then.
    pub(super) fn looks_at(&self, at: &TopicPartition) -> bool {
        self.underway.as_ref().is_some_and(|(_, share)| share.contains(at))
    }
}

impl Kit {
    /// Asks the group where it stands; mends it if it can't say.
    fn look(&self, share: &[TopicPartition], membership: &ConsumerGroupMetadata) -> Result<Found, LogError> {
        let is_told = || self.stands(share, Isolation::Committed, STAND_TIMEOUT).is_ok();
        if is_told() {
            return Ok(Found::Stands);
        }
        // If this is answered, and that still is not, then it is no cluster that was away: the group waits for the end of a
        // claim.
        let stands = self.stands(share, Isolation::Uncommitted, ANSWER_TIMEOUT)?;
        if is_told() {
            return Ok(Found::Stands);
        }
        let mut positions = TopicPartitionList::new();
        for at in share {
            let topic = self.config.full_name(&at.topic);
            let known = stands.find_partition(&topic, at.partition).map(|element| element.offset());
            if let Some(claimed) = self.claimed(at, known)? {
                let added = positions.add_partition_offset(&topic, at.partition, Offset::Offset(claimed));
                added.map_err(|error| fault::of_read(&at.to_string(), &error))?;
            }
        }
        if positions.count() == 0 {
            // Nothing is kept from us that is known of: what comes next will tell.
            return Ok(Found::Unknown);
        }
        tracing::warn!(group = self.group, ?share, "a claim that nobody ends keeps the group's positions back");
        for claimer in self.peers.claimers()?.iter().filter(|claimer| claimer.group == self.group) {
            for id in claim_ids::names(&self.config, claimer) {
                if let Err(error) = self.set(&id, &positions, membership) {
                    tracing::warn!(id, %error, "could not end what may be left of a claim");
                    if let AppendError::Refused(reason) = error {
                        return Err(LogError::Lost(reason));
                    }
                }
            }
        }
        Ok(Found::Mended)
    }

    /// What the group has as its positions: with the claims that are under way (then it may wait for them), or without.
    fn stands(
        &self,
        share: &[TopicPartition],
        isolation: Isolation,
        timeout: Duration,
    ) -> Result<TopicPartitionList, LogError> {
        let client = self.config.for_group_questions(&self.group, isolation);
        let client: Result<BaseConsumer<Complaints>, _> = client.create_with_context(Complaints::new("group"));
        let consumer: Aside<Kept<BaseConsumer<Complaints>>> =
            Aside::new(self.config.kept(client.map_err(|error| fault::of_read(&self.group, &error))?));
        let mut asked = TopicPartitionList::new();
        for at in share {
            asked.add_partition(&self.config.full_name(&at.topic), at.partition);
        }
        let answer = consumer.committed_offsets(asked, timeout).map_err(|error| fault::of_read(&self.group, &error))?;
        for element in answer.elements() {
            element.error().map_err(|error| fault::of_read(&self.group, &error))?;
        }
        Ok(answer)
    }

    /// The first offset of a partition that nobody has claimed; `None` unless an attempt waits there.
    fn claimed(&self, at: &TopicPartition, known: Option<Offset>) -> Result<Option<i64>, LogError> {
        let (first, end) = self.ends.watermarks(at, Isolation::Committed)?;
        let from = match known {
            Some(Offset::Offset(offset)) => offset.max(first),
            _ => first,
        };
        let mut reader = KafkaReader::new(self.config.clone(), self.ends.clone(), Isolation::Committed)?;
        reader.read_from(&[(at.clone(), from)])?;
        let deadline = Deadline::after(READ_MAX);
        let mut records: Vec<Record> = Vec::new();
        while records.len() < RECORDS_MAX && records.last().map_or(from, |last| last.offset + 1) < end {
            let more = reader.poll(RECORDS_MAX - records.len(), ANSWER_TIMEOUT)?;
            if more.is_empty() || deadline.has_passed() {
                // Maybe only marks of transactions are left, maybe not: the one that waits must be among those at hand.
                break;
            }
            records.extend(more);
        }
        let count = self.peers.claimed(&records)?;
        // Claims are in order: whatever was read before one that waits is all that was claimed.
        let is_one_waiting = count < records.len();
        let last = count.checked_sub(1).and_then(|last| records.get(last));
        Ok(is_one_waiting.then(|| last.map_or(from, |last| last.offset + 1)))
    }

    /// Sets the positions under an id; what the group still waited for under it is over with that.
    fn set(
        &self,
        id: &str,
        positions: &TopicPartitionList,
        membership: &ConsumerGroupMetadata,
    ) -> Result<(), AppendError> {
        let mut producer = self.opener.open(id)?;
        let outcome = producer
            .begin()
            .and_then(|()| producer.send_offsets(positions, membership))
            .and_then(|()| producer.commit());
        producer.abort_after(&outcome);
        producer.retire();
        outcome
    }
}
