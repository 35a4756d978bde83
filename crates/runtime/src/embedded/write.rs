//! The one way to change the embedded log: writes are checked against the broker, applied by the store as one
//! group, and only then made known. Not here: who waits for whom (`committer`). Invariant: whether a writer may
//! write is decided here, in the order of the writes, so nothing of a former owner lands after its successor.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;

use super::broker::Broker;
use super::owners::MemberId;
use super::store::{BatchId, Change, Marks, NO_BATCH, PartitionKey, StoreError, StoredRecord};
use crate::log::{AppendError, NewRecord, Position, TopicPartition, TopicSpec};

/// Answer to a write: where its records are.
pub(crate) type Reply = Result<Vec<Position>, AppendError>;

/// Under which condition a write is allowed.
#[derive(Debug)]
pub(crate) enum Guard {
    /// Always.
    None,
    /// While the member owns these shards of the service.
    Owner { service: String, member: MemberId, shards: Vec<Shard> },
    /// While the member's share of the group is what it was last told.
    Claimer { group: String, member: MemberId },
    /// While nobody has opened the batch writer's id again.
    Writer { id: String, epoch: u64 },
}

/// What to change.
#[derive(Debug)]
pub(crate) enum Body {
    /// Append records that are visible at once.
    Append { records: Vec<NewRecord> },
    /// Append records to a batch that is decided later.
    Stage { batch: BatchId, records: Vec<NewRecord> },
    /// Append records and move the group's positions.
    Claim { group: String, records: Vec<NewRecord>, consumed: Vec<(TopicPartition, i64)> },
    /// Decide a batch.
    Decide { batch: BatchId, is_committed: bool },
    /// Create a topic unless there is one of that name.
    CreateTopic(TopicSpec),
    /// Remove records of a partition and set its marks.
    Clean { key: PartitionKey, remove: Removal, first: i64, cleaned: i64 },
    /// Forget aborted batches of which no record is left.
    Forget(Vec<BatchId>),
}

/// Which records upkeep removes.
#[derive(Debug)]
pub(crate) enum Removal {
    /// These.
    Offsets(Vec<i64>),
    /// All below the first offset kept.
    Below,
}

/// A change with its condition.
#[derive(Debug)]
pub(crate) struct Write {
    /// Under which condition.
    pub(crate) guard: Guard,
    /// What.
    pub(crate) body: Body,
}

/// What becomes true in memory once the store has committed.
#[derive(Debug)]
enum Effect {
    End(PartitionKey, i64),
    Staged(BatchId, PartitionKey, i64),
    Decided(BatchId, bool),
    Consumed(String, PartitionKey, i64),
    Topic(i64, TopicSpec),
    Marks(PartitionKey, i64, i64),
    Forgotten(Vec<BatchId>),
}

/// A group of writes on its way.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// For the store.
    pub(crate) changes: Vec<Change>,
    effects: Vec<Effect>,
    ends: BTreeMap<PartitionKey, i64>,
    opened: BTreeSet<BatchId>,
    decided: BTreeSet<BatchId>,
    topics: BTreeSet<String>,
}

impl Plan {
    /// Adds a write, or refuses it and leaves the plan as it was.
    pub(crate) fn add(&mut self, broker: &Broker, now: Timestamp, write: Write) -> Reply {
        check(broker, &write.guard)?;
        match write.body {
            Body::Append { records } => self.put(broker, now, NO_BATCH, records),
            Body::Stage { batch, records } => {
                let positions = self.put(broker, now, batch, records)?;
                if !broker.open.contains(&batch) && self.opened.insert(batch) {
                    self.changes.push(Change::OpenBatch(batch));
                }
                Ok(positions)
            }
            Body::Claim { group, records, consumed } => {
                let consumed = consumed
                    .into_iter()
                    .map(|(at, offset)| Ok((find(broker, &at.topic, at.partition)?, offset)))
                    .collect::<Result<Vec<_>, AppendError>>()?;
                check_held(broker, &write.guard, &consumed)?;
                let positions = self.put(broker, now, NO_BATCH, records)?;
                for (key, offset) in consumed {
                    self.changes.push(Change::SetPosition(group.clone(), key, offset));
                    self.effects.push(Effect::Consumed(group.clone(), key, offset));
                }
                Ok(positions)
            }
            Body::Decide { batch, is_committed } => {
                let is_open = broker.open.contains(&batch) || self.opened.contains(&batch);
                if is_open && self.decided.insert(batch) {
                    if is_committed {
                        self.changes.push(Change::CloseBatch(batch));
                    }
                    self.effects.push(Effect::Decided(batch, is_committed));
                }
                Ok(Vec::new())
            }
            Body::CreateTopic(spec) => {
                if !broker.topics.contains_key(&spec.name) && self.topics.insert(spec.name.clone()) {
                    let known = broker.topics.values().map(|topic| topic.id).max().unwrap_or(0);
                    let id = known + i64::try_from(self.topics.len()).unwrap_or(i64::MAX);
                    self.changes.push(Change::CreateTopic { id, spec: spec.clone() });
                    self.effects.push(Effect::Topic(id, spec));
                }
                Ok(Vec::new())
            }
            Body::Clean { key, remove, first, cleaned } => {
                self.clean(broker, key, remove, first, cleaned);
                Ok(Vec::new())
            }
            Body::Forget(batches) => {
                self.changes.extend(batches.iter().map(|batch| Change::CloseBatch(*batch)));
                self.effects.push(Effect::Forgotten(batches));
                Ok(Vec::new())
            }
        }
    }

    fn put(&mut self, broker: &Broker, now: Timestamp, batch: BatchId, records: Vec<NewRecord>) -> Reply {
        let mut keys = Vec::with_capacity(records.len());
        for record in &records {
            keys.push(find(broker, &record.topic, record.partition)?);
        }
        let mut positions = Vec::with_capacity(records.len());
        for (record, key) in records.into_iter().zip(keys) {
            let end = self.ends.entry(key).or_insert_with(|| known_end(broker, key));
            let offset = *end;
            *end += 1;
            self.effects.push(Effect::End(key, offset + 1));
            if batch != NO_BATCH {
                self.effects.push(Effect::Staged(batch, key, offset));
            }
            let NewRecord { topic, partition, key: record_key, value, headers } = record;
            let stored = StoredRecord { offset, at: now, batch, key: record_key, value, headers };
            self.changes.push(Change::Put(key, stored));
            positions.push(Position { topic, partition, offset });
        }
        Ok(positions)
    }

    fn clean(&mut self, broker: &Broker, key: PartitionKey, remove: Removal, first: i64, cleaned: i64) {
        self.changes.push(match remove {
            Removal::Offsets(offsets) => Change::Remove(key, offsets),
            Removal::Below => Change::RemoveBelow(key, first),
        });
        // The end is written down because the records that told it may be the ones that go.
        let end = self.ends.get(&key).copied().unwrap_or_else(|| known_end(broker, key));
        self.changes.push(Change::Mark(key, Marks { first, end, cleaned }));
        self.effects.push(Effect::Marks(key, first, cleaned));
    }

    /// After the store could not commit: what is true all the same.
    pub(crate) fn keep_aborts(&mut self) {
        self.changes.clear();
        // A batch that the store does not know to be committed counts as aborted there already.
        self.effects.retain(|effect| matches!(effect, Effect::Decided(_, false)));
    }

    /// Makes the plan known and tells those who wait.
    pub(crate) fn publish(self, broker: &mut Broker) {
        let mut touched = BTreeSet::new();
        for effect in self.effects {
            match effect {
                Effect::End(key, end) => {
                    if let Some(partition) = broker.partitions.get_mut(&key) {
                        partition.marks.end = end;
                        touched.insert(key);
                    }
                }
                Effect::Staged(batch, key, offset) => {
                    broker.open.insert(batch);
                    if let Some(partition) = broker.partitions.get_mut(&key) {
                        partition.open.entry(batch).or_insert(offset);
                    }
                }
                Effect::Decided(batch, is_committed) => broker.close_batch(batch, is_committed, &mut touched),
                Effect::Consumed(group, key, offset) => {
                    broker.positions.entry(group).or_default().insert(key, offset);
                }
                Effect::Topic(id, spec) => {
                    broker.add_topic(id, spec);
                    broker.share_claims();
                }
                Effect::Marks(key, first, cleaned) => {
                    if let Some(partition) = broker.partitions.get_mut(&key) {
                        partition.marks.first = first;
                        partition.marks.cleaned = cleaned;
                    }
                }
                Effect::Forgotten(batches) => {
                    let aborted = std::sync::Arc::make_mut(&mut broker.aborted);
                    for batch in batches {
                        aborted.remove(&batch);
                    }
                }
            }
        }
        broker.tell(&touched);
    }
}

fn known_end(broker: &Broker, key: PartitionKey) -> i64 {
    broker.partitions.get(&key).map_or(0, |partition| partition.marks.end)
}

fn find(broker: &Broker, topic: &str, partition: i32) -> Result<PartitionKey, AppendError> {
    broker.find(topic, partition).ok_or_else(|| AppendError::NoSuchTopic(topic.to_owned()))
}

fn check(broker: &Broker, guard: &Guard) -> Result<(), AppendError> {
    let refusal = match guard {
        Guard::None => None,
        Guard::Owner { service, member, shards } => {
            let group = broker.owners.get(service);
            let is_held = |shard: &Shard| group.is_some_and(|group| group.is_held(*member, *shard));
            match shards.iter().find(|shard| !is_held(shard)) {
                Some(shard) => Some(format!("shard {shard} of the {service} is not ours any more")),
                None if !group.is_some_and(|group| group.is_member(*member)) => {
                    Some(format!("we are no longer an owner in the {service}"))
                }
                None => None,
            }
        }
        Guard::Claimer { group, member } => {
            let is_current = broker.claims.get(group).is_some_and(|group| group.is_current(*member));
            (!is_current).then(|| format!("our share of the group {group} has changed"))
        }
        Guard::Writer { id, epoch } => {
            let is_newest = broker.writers.get(id).is_some_and(|writer| writer.epoch == *epoch);
            (!is_newest).then(|| format!("the writer id {id} was opened again"))
        }
    };
    refusal.map_or(Ok(()), |refusal| Err(AppendError::Refused(refusal)))
}

fn check_held(broker: &Broker, guard: &Guard, consumed: &[(PartitionKey, i64)]) -> Result<(), AppendError> {
    let Guard::Claimer { group, member } = guard else { return Ok(()) };
    let holds = |key: PartitionKey| broker.claims.get(group).is_some_and(|group| group.holds(*member, key));
    if consumed.iter().all(|(key, _)| holds(*key)) {
        Ok(())
    } else {
        Err(AppendError::Refused(format!("a partition consumed is not ours in the group {group}")))
    }
}

impl From<StoreError> for AppendError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full(text) => Self::Full(text),
            StoreError::Failed(text) => Self::Retriable(text),
            StoreError::Unknown(text) => Self::Unknown(text),
        }
    }
}
