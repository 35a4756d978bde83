//! A member of a consumer group that takes records by claims: one transaction holds the records that say so and
//! the offsets that make it so. Not here: the producers (`claim_ids`), what the group says (`claim_membership`).
//! Invariant: a record handed out and not claimed is handed out again, here or by another member, after `Rebalanced`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};

use super::KafkaLog;
use super::claim_ids::{ClaimIds, Opener};
use super::claim_membership::Membership;
use super::client::{Aside, Bell, Deadline, Ring, leave_within, lock, poll_at_hand};
use super::config::KafkaConfig;
use super::ends::ANSWER_TIMEOUT;
use super::fault;
use super::keeper::Kept;
use super::reader::record_of;
use super::rescue::{Kit, Rescue};
use super::transaction::TransactionLimits;
use crate::log::{
    AppendError, Claimer, ClaimerName, ClaimerPoll, ClaimerSpec, LogError, NewRecord, Position, Record, TopicPartition,
    Waker,
};

/// Longest wait for the client to move its positions back.
const SEEK_TIMEOUT: Duration = Duration::from_secs(1);
/// Longest wait for the group to hear that we leave.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Beyond the longest claim: what keeps positions back for longer is not ended by anybody.
const RESCUE_MARGIN: Duration = Duration::from_secs(2);
/// Most records of a partition that are kept for a poll that wants some. Whoever wants none for hours still polls.
const STASH_MAX: usize = 32;

/// A member that claims.
pub(crate) struct KafkaClaimer {
    consumer: Aside<Kept<BaseConsumer<Membership>>>,
    config: Arc<KafkaConfig>,
    ids: ClaimIds,
    bell: Bell,
    /// Partitions of which something was handed out since they were assigned.
    progress: BTreeMap<TopicPartition, Progress>,
    /// Partitions that must be moved back before anything more of them is handed out.
    unsought: BTreeSet<TopicPartition>,
    /// Set when what was handed out is void although no partition moved.
    must_rewind: bool,
    /// Set when a claim may or may not have been made: only the group knows the positions.
    is_doubtful: bool,
    /// What came while nobody wanted anything; handed out first. Counts as handed out, so that it is void when that is.
    stash: VecDeque<Record>,
    /// Told at the next poll: there were records to hand out first.
    postponed: Option<LogError>,
    claims: u64,
    /// Marks our claims in the group's offsets, to tell afterwards whether one was made.
    mark: String,
    rescue: Rescue,
}

/// How far a partition was handed out and claimed.
#[derive(Debug, Clone, Copy)]
struct Progress {
    /// First offset that is not claimed.
    unclaimed: i64,
    /// First offset not handed out.
    next: i64,
}

impl KafkaClaimer {
    /// Joins the group; partitions come with later polls.
    pub(crate) fn join(log: &KafkaLog, spec: &ClaimerSpec) -> Result<Self, LogError> {
        let (ends, config) = (&log.ends, Arc::new(log.config.for_brokers(log.ends.brokers()?)));
        // A topic that is missing when subscribing would give an empty share for minutes, without an error.
        for topic in &spec.topics {
            ends.partitions(topic)?;
        }
        let warm_topic = spec.topics.first().cloned().unwrap_or_default();
        let opener = Opener { config: config.clone(), warm_topic };
        let name = ClaimerName { group: spec.group.clone(), member: spec.member.clone() };
        let ids = ClaimIds::open(opener.clone(), &name).map_err(|error| LogError::Unavailable(error.to_string()))?;
        let kit = spec.peers.clone().map(|peers| Kit {
            config: config.clone(),
            ends: ends.clone(),
            group: spec.group.clone(),
            opener,
            peers,
        });
        let patience = TransactionLimits::of(&config).transaction + RESCUE_MARGIN;
        let context = Membership::new();
        let client: Result<BaseConsumer<Membership>, KafkaError> =
            config.for_member(&spec.group).create_with_context(context);
        let mut consumer = client.map_err(|error| fault::of_read(&spec.group, &error))?;
        let bell = Bell::default();
        let rung = bell.clone();
        consumer.set_nonempty_callback(move || rung.ring_nonempty());
        let topics: Vec<String> = spec.topics.iter().map(|topic| config.full_name(topic)).collect();
        let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).map_err(|error| fault::of_read(&spec.group, &error))?;
        Ok(Self {
            consumer: Aside::new(config.kept(consumer)),
            config,
            ids,
            bell,
            progress: BTreeMap::new(),
            unsought: BTreeSet::new(),
            must_rewind: false,
            is_doubtful: false,
            stash: VecDeque::new(),
            postponed: None,
            claims: 0,
            mark: format!("{}/{}", spec.member, life()),
            rescue: Rescue::new(kit, patience),
        })
    }

    /// What has arrived already; `None` if partitions moved, and then everything is forgotten that was not claimed.
    /// The client is polled at least once, whatever `max` is and the stash holds: only that shows the group that we live,
    /// and lets a rebalance go on.
    fn drain(&mut self, max: usize) -> Result<Option<Vec<Record>>, LogError> {
        if self.must_rewind || self.has_changed() {
            self.rewind()?;
            return Ok(None);
        }
        if let Some(fault) = self.postponed.take() {
            return Err(fault);
        }
        self.tend_rescue();
        self.seek_back();
        let mut records: Vec<Record> = self.stash.drain(..max.min(self.stash.len())).collect();
        let mut is_first = true;
        while std::mem::take(&mut is_first) || records.len() < max {
            // A rebalance is served by this very call, so the question comes after it and before its record counts.
            let polled = poll_at_hand(&self.consumer, || self.has_changed())
                .map(|polled| polled.map(|message| record_of(&self.config, &message)));
            if self.has_changed() {
                self.rewind()?;
                return Ok(None);
            }
            match polled {
                None => break,
                Some(Ok(Some(record))) => {
                    if self.take(&record) {
                        // Behind what is in the stash already: that is empty, or nothing more is wanted.
                        if records.len() < max { records.push(record) } else { self.stash.push_back(record) }
                    }
                }
                Some(Ok(None)) => {}
                Some(Err(error)) if fault::is_passing(&error) || is_kicked(&error) => {}
                Some(Err(error)) => {
                    self.postponed = Some(fault::of_read("queues", &error));
                    break;
                }
            }
        }
        match self.postponed.take() {
            Some(fault) if records.is_empty() => Err(fault),
            postponed => {
                self.postponed = postponed;
                Ok(Some(records))
            }
        }
    }

    /// Counts a record as handed out; false if it is one from before its partition was moved back, or comes again later.
    fn take(&mut self, record: &Record) -> bool {
        let at = record.topic_partition();
        if self.unsought.contains(&at) {
            return false;
        }
        let start = Progress { unclaimed: record.offset, next: record.offset };
        let is_claimable = lock(&self.consumer.context().changes).membership.is_some();
        let progress = self.progress.entry(at.clone()).or_insert(start);
        let is_stash_full = self.stash.iter().filter(|kept| kept.topic_partition() == at).count() >= STASH_MAX;
        if !is_claimable || (is_stash_full && record.offset >= progress.next) {
            // It could only be refused, and comes again under the next membership. Or nobody wants it now: the partition goes
            // back to what is not claimed, and while that passes by once more the client can be polled without keeping any.
            self.unsought.insert(at);
            return false;
        }
        let is_new = record.offset >= progress.next;
        if is_new {
            progress.next = record.offset + 1;
        }
        is_new
    }

    fn has_changed(&self) -> bool {
        lock(&self.consumer.context().changes).has_changed
    }

    /// Has it looked after that the group can say where it stands.
    fn tend_rescue(&mut self) {
        let membership = lock(&self.consumer.context().changes).membership.clone();
        let (consumer, config) = (&self.consumer, &self.config);
        let share = || {
            let assigned = consumer.assignment().unwrap_or_default();
            let ours = assigned.elements();
            let ours = ours.iter().filter_map(|element| {
                Some(TopicPartition::new(config.short_name(element.topic())?, element.partition()))
            });
            // Of what was handed out the position is known.
            ours.filter(|at| !self.progress.contains_key(at)).collect()
        };
        if self.rescue.tend(share, membership) {
            self.ids.drop_all();
        }
    }

    /// Forgets what was handed out and not claimed, so that it comes again to whoever has the partition now.
    fn rewind(&mut self) -> Result<(), LogError> {
        self.stash.clear();
        let revoked = lock(&self.consumer.context().changes).take();
        self.rescue.begin_anew();
        for at in revoked
            .iter()
            .filter_map(|(topic, partition)| Some(TopicPartition::new(self.config.short_name(topic)?, *partition)))
        {
            self.progress.remove(&at);
            self.unsought.remove(&at);
        }
        if self.is_doubtful {
            self.must_rewind = true;
            self.ask_positions()?;
            self.is_doubtful = false;
        }
        self.must_rewind = false;
        for (at, progress) in &mut self.progress {
            if progress.next > progress.unclaimed {
                progress.next = progress.unclaimed;
                self.unsought.insert(at.clone());
            }
        }
        self.seek_back();
        Ok(())
    }

    /// Takes the group's committed offsets for ours, after a claim of which nobody knows whether it was made.
    fn ask_positions(&mut self) -> Result<(), LogError> {
        // Ends the doubtful transaction; until then the group would not tell.
        self.ids.revive().map_err(|error| LogError::Unavailable(error.to_string()))?;
        let asked = self.consumer.committed_offsets(self.list(self.progress.keys()), ANSWER_TIMEOUT);
        let committed = asked.map_err(|error| fault::of_read("committed offsets", &error))?;
        for (at, progress) in &mut self.progress {
            let element = committed.find_partition(&self.config.full_name(&at.topic), at.partition);
            if let Some(Offset::Offset(offset)) = element.map(|element| element.offset()) {
                progress.unclaimed = offset;
                progress.next = progress.next.max(offset);
            }
        }
        Ok(())
    }

    /// Moves partitions back; those that can't be moved just now are tried at the next poll.
    fn seek_back(&mut self) {
        let is_claimable = lock(&self.consumer.context().changes).membership.is_some();
        if self.unsought.is_empty() || !is_claimable {
            return;
        }
        let mut list = TopicPartitionList::new();
        for at in &self.unsought {
            if let Some(progress) = self.progress.get(at) {
                let topic = self.config.full_name(&at.topic);
                let offset = Offset::Offset(progress.unclaimed);
                if let Err(error) = list.add_partition_offset(&topic, at.partition, offset) {
                    tracing::warn!(%error, topic, partition = at.partition, "no position to go back to");
                }
            }
        }
        match self.consumer.seek_partitions(list, SEEK_TIMEOUT) {
            Ok(sought) => {
                let is_done = |at: &TopicPartition| {
                    let element = sought.find_partition(&self.config.full_name(&at.topic), at.partition);
                    element.is_none_or(|element| element.error().is_ok())
                };
                self.unsought.retain(|at| !is_done(at));
            }
            Err(error) => tracing::debug!(%error, "could not go back yet"),
        }
    }

    fn list<'a>(&self, partitions: impl Iterator<Item = &'a TopicPartition>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for at in partitions {
            list.add_partition(&self.config.full_name(&at.topic), at.partition);
        }
        list
    }

    /// What a claim commits, each offset marked as set by this very claim.
    fn offsets(&self, consumed: &[(TopicPartition, i64)], mark: &str) -> Result<TopicPartitionList, AppendError> {
        let mut list = TopicPartitionList::new();
        for (at, offset) in consumed {
            if !self.progress.contains_key(at) {
                return Err(AppendError::Refused(format!("{at} is not ours: nothing of it was handed out")));
            }
            let mut element = list.add_partition(&self.config.full_name(&at.topic), at.partition);
            element.set_metadata(mark);
            let set = element.set_offset(Offset::Offset(*offset));
            set.map_err(|error| AppendError::Refused(format!("{at}@{offset}: {error}")))?;
        }
        Ok(list)
    }

    /// Tells by the marks whether a claim in doubt was made.
    fn resolve(&mut self, offsets: &TopicPartitionList, mark: &str) -> Option<bool> {
        self.ids.revive().ok()?;
        let mut asked = TopicPartitionList::new();
        for element in offsets.elements() {
            asked.add_partition(element.topic(), element.partition());
        }
        let committed = self.consumer.committed_offsets(asked, ANSWER_TIMEOUT).ok()?;
        let elements = offsets.elements();
        let wanted = elements.first()?;
        let found = committed.find_partition(wanted.topic(), wanted.partition())?;
        if found.metadata() == mark {
            return Some(true);
        }
        let Offset::Offset(end) = wanted.offset() else { return None };
        match found.offset() {
            // Offsets only grow, so ours was never there.
            Offset::Offset(offset) if offset < end => Some(false),
            Offset::Invalid => Some(false),
            // Somebody has claimed further: over ours or instead of ours.
            Offset::Offset(_) | Offset::Beginning | Offset::End | Offset::Stored | Offset::OffsetTail(_) => None,
        }
    }
}

/// One try of a claim. The positions are kept outside, for a commit of which only later it is known that it was made.
fn try_claim(
    ids: &mut ClaimIds,
    records: &[NewRecord],
    offsets: &TopicPartitionList,
    membership: &ConsumerGroupMetadata,
    positions: &mut Vec<Position>,
) -> Result<(), AppendError> {
    let producer = ids.next()?;
    let mut attempt = || {
        producer.begin()?;
        producer.enqueue(records)?;
        *positions = producer.acknowledged()?;
        producer.send_offsets(offsets, membership)?;
        producer.commit()
    };
    let outcome = attempt();
    producer.abort_after(&outcome);
    match outcome {
        // Somebody has opened our id, to end what may have been left of a claim: that says nothing of our membership.
        Err(AppendError::Refused(reason)) if producer.is_dead() => Err(AppendError::Retriable(reason)),
        outcome => outcome,
    }
}

/// A name that no claimer has had.
#[allow(clippy::disallowed_methods, reason = "a mark must be unlike any other there ever was")]
fn life() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

impl Claimer for KafkaClaimer {
    fn poll(&mut self, max: usize, timeout: Duration) -> Result<ClaimerPoll, LogError> {
        let deadline = Deadline::after(timeout);
        loop {
            let Some(records) = self.drain(max)? else {
                return Ok(ClaimerPoll::Rebalanced);
            };
            if !records.is_empty() || deadline.has_passed() {
                return Ok(ClaimerPoll::Records(records));
            }
            if self.bell.wait(deadline.left()) == Ring::Woken {
                let polled = self.drain(max)?;
                return Ok(polled.map_or(ClaimerPoll::Rebalanced, ClaimerPoll::Records));
            }
        }
    }

    fn claim(
        &mut self,
        records: Vec<NewRecord>,
        consumed: &[(TopicPartition, i64)],
    ) -> Result<Vec<Position>, AppendError> {
        let membership = lock(&self.consumer.context().changes).membership.clone();
        let Some(membership) = membership.filter(|_| !self.has_changed() && !self.must_rewind) else {
            return Err(AppendError::Refused("the membership is stale: poll first".to_owned()));
        };
        if let Some((at, _)) = consumed.iter().find(|(at, _)| self.rescue.looks_at(at)) {
            return Err(AppendError::Retriable(format!("{at}: its position is being looked into")));
        }
        self.claims += 1;
        let mark = format!("{}/{}", self.mark, self.claims);
        let offsets = self.offsets(consumed, &mark)?;
        let mut positions = Vec::new();
        let mut outcome = try_claim(&mut self.ids, &records, &offsets, &membership, &mut positions);
        if let Err(AppendError::Unknown(why)) = &outcome {
            outcome = match self.resolve(&offsets, &mark) {
                Some(true) => Ok(()),
                Some(false) => Err(AppendError::Retriable(why.clone())),
                None => outcome,
            };
        }
        match &outcome {
            Ok(()) => {
                for (at, offset) in consumed {
                    if let Some(progress) = self.progress.get_mut(at) {
                        progress.unclaimed = progress.unclaimed.max(*offset);
                    }
                }
            }
            Err(AppendError::Refused(_)) => {
                // No claim rests on this membership any more; the rebalance that made it stale brings the next.
                // Until then nothing is handed out that could not be claimed anyway.
                lock(&self.consumer.context().changes).discard(&membership);
                self.must_rewind = true;
            }
            Err(AppendError::Unknown(_)) => {
                self.must_rewind = true;
                self.is_doubtful = true;
            }
            Err(
                AppendError::Retriable(_)
                | AppendError::Stalled(_)
                | AppendError::TooLarge { .. }
                | AppendError::Full(_)
                | AppendError::NoSuchTopic(_),
            ) => {}
        }
        outcome.map(|()| positions)
    }

    fn leave(self: Box<Self>) {
        // The producers are dropped meanwhile; only the group has to hear of it.
        if let Some(consumer) = self.consumer.into_inner() {
            consumer.unsubscribe();
            leave_within(consumer, LEAVE_TIMEOUT);
        }
    }

    fn waker(&self) -> Waker {
        self.bell.waker()
    }
}

/// True for what a rebalance will follow that says the rest.
fn is_kicked(error: &KafkaError) -> bool {
    error.rdkafka_error_code() == Some(rdkafka::error::RDKafkaErrorCode::PollExceeded)
}
