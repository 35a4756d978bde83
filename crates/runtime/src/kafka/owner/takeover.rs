//! Taking shards over: claim, scan, fence, barrier (design of ownership, steps 1 to 4). Not here: restoring and
//! reading inputs, which the service drives. Invariants: a claim is checked against the membership of the last
//! assignment after its records are in the log; whoever claimed before us and has not released is shut out before
//! the barrier; only they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::RecvTimeoutError;
use orloj_domain::id::Incarnation;
use orloj_domain::owner::{BARRIER_KEY, Barrier, OwnerRecord};
use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::history::History;
use super::member::Membership;
use super::phases::Phase;
use super::ring::{RING_SIZE, Ring, id_prefix};
use super::{KafkaOwner, SERVE_INTERVAL};
use crate::clock::Clock;
use crate::codec;
use crate::kafka::client::Deadline;
use crate::kafka::config::KafkaConfig;
use crate::kafka::transaction::TransactionalProducer;
use crate::log::{AppendError, LogError, NewRecord, TakenShard, TopicPartition};
use crate::pause;

/// Most ids fenced side by side.
const FENCES_MAX: usize = 16;
/// Longest time for opening producers, for reading owner records, and for fencing a batch of ids.
pub(super) const STEP_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a re-claim that runs before a takeover or a release.
pub(super) const RECLAIM_WAIT_MAX: Duration = Duration::from_secs(3);

/// Why a takeover ended early.
pub(super) enum Setback {
    /// Nothing is left to take over, or everything was lost meanwhile; both are dealt with already.
    Overtaken,
    /// Our membership is stale: nobody was touched; wait for the next assignment.
    Stale(String),
    /// Something failed: the incarnation can't be sure of itself.
    Doubt(String),
    /// The log does not answer; nothing was claimed yet.
    NotYet(LogError),
}

/// What a claim says, shard by shard the same.
#[derive(Clone)]
pub(super) struct Claim {
    pub(super) owners_topic: String,
    pub(super) incarnation: Incarnation,
    pub(super) producer_ids: Vec<String>,
    pub(super) host: String,
    pub(super) since: Timestamp,
}

/// Writes owner records, waits until they are in the log, has the broker check the membership, and commits. The
/// caller aborts after an error.
pub(super) fn claim(
    producer: &mut TransactionalProducer,
    config: &KafkaConfig,
    claim: &Claim,
    shards: &BTreeSet<Shard>,
    membership: &Membership,
) -> Result<BTreeMap<Shard, i64>, AppendError> {
    let record = OwnerRecord {
        incarnation: claim.incarnation.clone(),
        producer_ids: claim.producer_ids.clone(),
        generation: membership.generation,
        member: membership.member.clone(),
        host: claim.host.clone(),
        since: claim.since,
    };
    let value = codec::encode(&record);
    let records: Vec<NewRecord> = shards
        .iter()
        .map(|shard| NewRecord::new(&claim.owners_topic, shard.0, claim.incarnation.as_str(), Some(value.clone())))
        .collect();
    producer.begin()?;
    producer.enqueue(&records)?;
    pause::point("after-claim-produce");
    let positions = producer.acknowledged()?;
    pause::point("after-claim-acks");
    // Only now: a claim that passes the check is in the log before any claim of a later generation.
    let mut offsets = TopicPartitionList::with_capacity(shards.len());
    let topic = config.full_name(&claim.owners_topic);
    for position in &positions {
        offsets
            .add_partition_offset(&topic, position.partition, Offset::Offset(position.offset + 1))
            .map_err(|error| AppendError::Retriable(error.to_string()))?;
    }
    producer.send_offsets(&offsets, &membership.metadata)?;
    producer.commit()?;
    pause::point("after-claim-commit");
    Ok(positions.into_iter().map(|position| (Shard(position.partition), position.offset)).collect())
}

impl KafkaOwner {
    /// Takes over everything that was assigned and is not held.
    pub(super) fn take_over(&mut self) -> Result<Vec<TakenShard>, Setback> {
        self.open_ring()?;
        let Some(membership) = self.membership.clone() else { return Err(Setback::Overtaken) };
        self.claiming = std::mem::take(&mut self.pending);
        self.must_have_claims()?;
        let waited = self.clock.monotonic().saturating_sub(self.assigned_at);
        self.observe(Phase::Wait, &self.claiming, waited);
        pause::point("before-claim");

        let offsets = self.phase(Phase::Claim, |owner| owner.claim_shards(&membership))?;
        let history = self.phase(Phase::Scan, |owner| owner.scan(&offsets))?;
        pause::point("after-scan");
        let fenced = self.phase(Phase::Fence, |owner| owner.fence_unreleased(&history))?;
        pause::point("after-fence");
        let taken = self.phase(Phase::Barrier, |owner| owner.raise_barrier(&fenced))?;
        pause::point("after-barrier");

        self.history = history;
        self.end_hidden()?;
        let claimed = std::mem::take(&mut self.claiming);
        self.held.extend(claimed);
        Ok(taken)
    }

    fn phase<T>(&mut self, phase: Phase, run: impl FnOnce(&mut Self) -> Result<T, Setback>) -> Result<T, Setback> {
        let started = self.clock.monotonic();
        let outcome = run(self)?;
        self.observe(phase, &self.claiming, self.clock.monotonic().saturating_sub(started));
        Ok(outcome)
    }

    fn must_have_claims(&self) -> Result<(), Setback> {
        if self.claiming.is_empty() { Err(Setback::Overtaken) } else { Ok(()) }
    }

    /// Opens the producers of a new incarnation, if there are none yet.
    fn open_ring(&mut self) -> Result<(), Setback> {
        if self.ring.is_some() {
            return Ok(());
        }
        let outcome = self.try_open_ring();
        if outcome.is_err() {
            // An id is initialised once: those that were opened in vain never come back.
            self.forget_incarnation();
        }
        outcome
    }

    fn try_open_ring(&mut self) -> Result<(), Setback> {
        let prefix = id_prefix(&self.recipe.config, &self.spec.service);
        let mut ring = Ring::new(prefix, self.incarnation.clone());
        let ids = ring.new_ids();
        let answers = self.recipe.open(&ids);
        let deadline = Deadline::after(STEP_MAX);
        let mut failure = "no answer".to_owned();
        let mut answered = 0;
        while answered < RING_SIZE && !deadline.has_passed() {
            match answers.recv_timeout(SERVE_INTERVAL) {
                Ok(Ok(producer)) => {
                    ring.add(producer);
                    answered += 1;
                }
                Ok(Err(error)) => {
                    failure = error.to_string();
                    answered += 1;
                }
                Err(RecvTimeoutError::Timeout) => self.serve_within_takeover()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if ring.len() < RING_SIZE {
            return Err(Setback::NotYet(LogError::Unavailable(format!("producers: {failure}"))));
        }
        // The membership may have moved on meanwhile, and so may our share.
        self.serve_within_takeover()?;
        self.ring = Some(ring);
        Ok(())
    }

    fn claim_shards(&mut self, membership: &Arc<Membership>) -> Result<BTreeMap<Shard, i64>, Setback> {
        self.settle_reclaim(RECLAIM_WAIT_MAX);
        let claim_record = self.claim_record();
        let shards = self.claiming.clone();
        let Some(mut producer) = self.take_producer() else {
            return Err(Setback::Doubt("no producer is left".to_owned()));
        };
        let outcome = claim(&mut producer, &self.recipe.config, &claim_record, &shards, membership);
        producer.abort_after(&outcome);
        let is_alive = !producer.is_dead();
        self.give_back_producer(producer);
        match outcome {
            Ok(offsets) => Ok(offsets),
            // The refused claim stays readable for whoever reads what is undecided, and the next owner does: take
            // it back, or a healthy instance would be shut out.
            Err(AppendError::Refused(reason)) if is_alive => {
                let claimed = std::mem::take(&mut self.claiming);
                self.write_tombstones(&claimed).map_err(|error| Setback::Doubt(error.to_string()))?;
                self.pending.extend(claimed.intersection(&self.assigned));
                Err(Setback::Stale(reason))
            }
            Err(error) => Err(Setback::Doubt(format!("claim: {error}"))),
        }
    }

    /// What this incarnation claims with.
    pub(super) fn claim_record(&self) -> Claim {
        Claim {
            owners_topic: self.spec.owners_topic.clone(),
            incarnation: self.incarnation.clone(),
            producer_ids: self.ring.as_ref().map_or_else(Vec::new, |ring| ring.ids().to_vec()),
            host: self.host.clone(),
            since: self.clock.now(),
        }
    }

    /// Reads the owner records of the shards, decided or not, up to our own claims.
    fn scan(&mut self, claims: &BTreeMap<Shard, i64>) -> Result<History, Setback> {
        let mut left = claims.clone();
        let from: Vec<_> =
            left.keys().map(|shard| (TopicPartition::new(&self.spec.owners_topic, shard.0), 0)).collect();
        let prefix = id_prefix(&self.recipe.config, &self.spec.service);
        let ours = self.incarnation.clone();
        let mut history = History::default();
        self.scanner.start(&from).map_err(Setback::NotYet).map_err(doubt)?;
        let deadline = Deadline::after(STEP_MAX);
        let mut serve_at = SERVE_INTERVAL;
        let started = self.clock.monotonic();
        while !left.is_empty() {
            let next = self.scanner.next(SERVE_INTERVAL).map_err(Setback::NotYet).map_err(doubt)?;
            if let Some(record) = next {
                let shard = Shard(record.partition);
                let Some(claim) = left.get(&shard).copied() else { continue };
                if record.offset < claim {
                    history.read(&record, ours.as_str(), &prefix);
                } else {
                    left.remove(&shard);
                }
            }
            let elapsed = self.clock.monotonic().saturating_sub(started);
            if elapsed >= serve_at {
                serve_at = elapsed + SERVE_INTERVAL;
                self.serve_within_takeover()?;
            }
            if deadline.has_passed() {
                return Err(Setback::Doubt("owner records can't be read".to_owned()));
            }
        }
        self.scanner.stop();
        Ok(history)
    }

    /// Shuts out every incarnation that has not released one of the shards; they with their shards.
    fn fence_unreleased(&mut self, history: &History) -> Result<BTreeMap<String, BTreeSet<Shard>>, Setback> {
        self.serve_within_takeover()?;
        let unreleased = history.unreleased(&self.claiming);
        let ids: BTreeSet<String> = unreleased.keys().flat_map(|incarnation| history.ids_of(incarnation)).collect();
        if !unreleased.is_empty() {
            let incarnations = unreleased.keys().cloned().collect::<Vec<_>>().join(",");
            tracing::info!(service = self.spec.service, incarnations, ids = ids.len(), "shutting earlier owners out");
        }
        self.fence(ids)?;
        Ok(unreleased)
    }

    /// Initialises each id once: what it left open is completed or aborted, and its owner can write no more.
    pub(super) fn fence(&mut self, ids: BTreeSet<String>) -> Result<(), Setback> {
        let ids: Vec<String> = ids.into_iter().filter(|id| !self.fenced_ids.contains(id)).collect();
        self.with_opened(&ids, |owner, producer| {
            owner.fenced_ids.insert(producer.id().to_owned());
            producer.retire();
        })
    }

    /// Opens ids that are not ours, which shuts their owners out, and hands each to `each`.
    pub(super) fn with_opened(
        &mut self,
        ids: &[String],
        mut each: impl FnMut(&mut Self, TransactionalProducer),
    ) -> Result<(), Setback> {
        for batch in ids.chunks(FENCES_MAX) {
            // Whoever slept must not shut out the rightful owner of today.
            self.serve_within_takeover()?;
            let answers = self.recipe.open(batch);
            let deadline = Deadline::after(STEP_MAX);
            let mut left = batch.len();
            while left > 0 {
                match answers.recv_timeout(SERVE_INTERVAL) {
                    Ok(Ok(producer)) => {
                        each(self, producer);
                        left -= 1;
                    }
                    Ok(Err(error)) => return Err(Setback::Doubt(format!("fence: {error}"))),
                    Err(RecvTimeoutError::Timeout) if !deadline.has_passed() => self.serve_within_takeover()?,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                        return Err(Setback::Doubt("an earlier owner could not be shut out".to_owned()));
                    }
                }
            }
        }
        Ok(())
    }

    /// Marks the end of what came before us in every topic that restore reads, and buries the fenced.
    fn raise_barrier(&mut self, fenced: &BTreeMap<String, BTreeSet<Shard>>) -> Result<Vec<TakenShard>, Setback> {
        self.serve_within_takeover()?;
        let barrier = codec::encode(&Barrier { incarnation: self.incarnation.clone(), at: self.clock.now() });
        let mut records = Vec::new();
        for shard in &self.claiming {
            for topic in &self.spec.restore_topics {
                records.push(NewRecord::new(topic, shard.0, BARRIER_KEY, Some(barrier.clone())));
            }
        }
        let barriers = records.len();
        for (incarnation, shards) in fenced {
            for shard in shards.intersection(&self.claiming) {
                records.push(NewRecord::new(&self.spec.owners_topic, shard.0, incarnation.as_str(), None));
            }
        }
        let positions = self.write(&records).map_err(|error| Setback::Doubt(format!("barrier: {error}")))?;
        let mut until: BTreeMap<Shard, Vec<(String, i64)>> =
            self.claiming.iter().map(|shard| (*shard, Vec::new())).collect();
        for position in positions.into_iter().take(barriers) {
            let of_shard = until.entry(Shard(position.partition)).or_default();
            of_shard.push((position.topic.to_string(), position.offset + 1));
        }
        Ok(until.into_iter().map(|(shard, restore_until)| TakenShard { shard, restore_until }).collect())
    }

    /// Serves the membership in the middle of a takeover; an error when nothing is left to take over.
    pub(super) fn serve_within_takeover(&mut self) -> Result<(), Setback> {
        let before = self.incarnation.clone();
        let was_claiming = !self.claiming.is_empty();
        self.serve_member().map_err(Setback::NotYet).map_err(doubt)?;
        let is_overtaken = self.incarnation != before || (was_claiming && self.claiming.is_empty());
        if is_overtaken { Err(Setback::Overtaken) } else { Ok(()) }
    }
}

/// Once something was claimed, not being answered is no longer harmless.
pub(super) fn doubt(setback: Setback) -> Setback {
    if let Setback::NotYet(error) = setback { Setback::Doubt(error.to_string()) } else { setback }
}
