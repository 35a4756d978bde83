//! What a change of our share means for what we hold, and how shards are given back. Not here: how the group
//! tells (`member`), how shards are taken (`takeover`). Invariant: an incarnation that was kicked, or that can't
//! be sure of a release, ends with everything it held; it never claims again what it did not release.

use std::collections::BTreeSet;
use std::time::Duration;

use orloj_domain::shard::Shard;

use super::member::Change;
use super::takeover::RECLAIM_WAIT_MAX;
use super::{KafkaOwner, new_incarnation};
use crate::clock::Clock;
use crate::kafka::transaction::TransactionalProducer;
use crate::log::{AppendError, LogError, NewRecord, OwnerEvent, Position};
use crate::pause;

/// How long the service may take to answer [`OwnerEvent::Revoking`]; after that the successor shuts us out.
const REVOKE_MAX: Duration = Duration::from_secs(3);
/// Pauses between takeovers that fail: the first, doubled each time, and the longest.
const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(3);

/// A request of the group that waits for the service's machines.
pub(super) struct Revoking {
    /// All shards asked for, held or not.
    shards: Vec<Shard>,
    /// Those that the service has yet to release.
    waiting: BTreeSet<Shard>,
    since: Duration,
}

impl KafkaOwner {
    /// Takes in what the group says.
    pub(super) fn serve_member(&mut self) -> Result<(), LogError> {
        for change in self.member.poll()? {
            match change {
                Change::Assigned { shards, membership } => {
                    pause::point("after-assign");
                    if membership.is_none() {
                        tracing::info!(service = self.spec.service, "a void membership; waiting for the next");
                    }
                    self.membership = membership;
                    self.is_stale = false;
                    self.assigned_at = self.clock.monotonic();
                    let kicked = shards.iter().any(|shard| self.held.contains(shard) || self.claiming.contains(shard));
                    self.assigned.extend(&shards);
                    self.pending.extend(&shards);
                    if kicked {
                        self.lose("assigned again what was not released: the group had given it away");
                    }
                    tracing::debug!(service = self.spec.service, ?shards, all = self.assigned.len(), "assigned");
                }
                Change::Lost(shards) => {
                    self.unassign(&shards);
                    if shards.iter().any(|shard| self.held.contains(shard) || self.claiming.contains(shard)) {
                        self.lose("the group has given our shards away");
                    }
                }
                Change::Revoked(shards) => self.revoke(shards),
            }
        }
        if let Some(revoking) = &self.revoking
            && self.clock.monotonic().saturating_sub(revoking.since) > REVOKE_MAX
        {
            self.lose("shards that were asked back were not released in time");
        }
        Ok(())
    }

    fn unassign(&mut self, shards: &[Shard]) {
        for shard in shards {
            self.assigned.remove(shard);
            self.pending.remove(shard);
        }
    }

    fn revoke(&mut self, shards: Vec<Shard>) {
        self.unassign(&shards);
        let asked: BTreeSet<Shard> = shards.iter().copied().collect();
        let claimed: BTreeSet<Shard> = self.claiming.intersection(&asked).copied().collect();
        if !claimed.is_empty() {
            // No machine knows of them yet.
            self.claiming.retain(|shard| !claimed.contains(shard));
            if let Err(error) = self.write_tombstones(&claimed) {
                self.lose(&format!("a claim could not be taken back: {error}"));
            }
        }
        let waiting: BTreeSet<Shard> = self.held.intersection(&asked).copied().collect();
        if waiting.is_empty() {
            self.member.give_up(&shards);
            return;
        }
        self.events.push_back(OwnerEvent::Revoking(waiting.iter().copied().collect()));
        self.revoking = Some(Revoking { shards, waiting, since: self.clock.monotonic() });
    }

    /// True if the group has asked for one of these and still waits.
    pub(super) fn is_revoking(&self, shard: Shard) -> bool {
        self.revoking.as_ref().is_some_and(|revoking| revoking.waiting.contains(&shard))
    }

    /// Gives shards back whose machines have stopped.
    pub(super) fn release_shards(&mut self, shards: &[Shard]) -> Result<(), LogError> {
        let released: BTreeSet<Shard> = shards.iter().copied().filter(|shard| self.held.remove(shard)).collect();
        // From here on nothing is written for them, whatever becomes of the release.
        let is_sole = self.spec.shards == 1;
        let topics = &self.per_shard_topics;
        self.inputs
            .stop(|at| !is_sole && topics.contains(at.topic.as_str()) && released.contains(&Shard(at.partition)));
        let outcome = if released.is_empty() { Ok(()) } else { self.write_tombstones(&released) };
        if let Err(error) = outcome {
            let reason = format!("release: {error}");
            self.lose(&reason);
            return Err(LogError::Lost(reason));
        }
        // Released without being asked: it is still ours to take, as a new takeover.
        self.pending.extend(released.intersection(&self.assigned));
        let is_done = self.revoking.as_mut().is_some_and(|revoking| {
            revoking.waiting.retain(|shard| !released.contains(shard));
            revoking.waiting.is_empty()
        });
        if is_done && let Some(revoking) = self.revoking.take() {
            self.member.give_up(&revoking.shards);
        }
        Ok(())
    }

    /// Says in the log that these shards are nobody's.
    pub(super) fn write_tombstones(&mut self, shards: &BTreeSet<Shard>) -> Result<(), AppendError> {
        // A re-claim that ended after the tombstones would undo them.
        self.settle_reclaim(RECLAIM_WAIT_MAX);
        let incarnation = self.incarnation.as_str();
        let tombstone = |shard: &Shard| NewRecord::new(&self.spec.owners_topic, shard.0, incarnation, None);
        let records: Vec<NewRecord> = shards.iter().map(tombstone).collect();
        self.with_producer(|producer| {
            producer.begin()?;
            producer.enqueue(&records)?;
            producer.acknowledged()?;
            pause::point("before-release-commit");
            producer.commit()
        })
    }

    /// One transaction of the protocol's own records.
    pub(super) fn write(&mut self, records: &[NewRecord]) -> Result<Vec<Position>, AppendError> {
        self.with_producer(|producer| producer.append_batch(records, None))
    }

    /// Runs one transaction with the producer whose turn it is; aborts it after an error.
    pub(super) fn with_producer<T>(
        &mut self,
        run: impl FnOnce(&mut TransactionalProducer) -> Result<T, AppendError>,
    ) -> Result<T, AppendError> {
        let Some(mut producer) = self.take_producer() else {
            return Err(AppendError::Refused("no producer is left".to_owned()));
        };
        let outcome = run(&mut producer);
        producer.abort_after(&outcome);
        self.give_back_producer(producer);
        outcome
    }

    pub(super) fn take_producer(&mut self) -> Option<TransactionalProducer> {
        self.ring.as_mut()?.take()
    }

    pub(super) fn give_back_producer(&mut self, producer: TransactionalProducer) {
        match &mut self.ring {
            Some(ring) => ring.give_back(producer),
            None => producer.retire(),
        }
    }

    /// Ends the incarnation with everything it held. What is still assigned comes again under a new one.
    pub(super) fn lose(&mut self, reason: &str) {
        if self.ring.is_none() && self.held.is_empty() && self.claiming.is_empty() && self.revoking.is_none() {
            return;
        }
        let held = self.held.len();
        tracing::warn!(service = self.spec.service, incarnation = %self.incarnation, held, reason, "lost all shards");
        self.forget_incarnation();
        self.inputs.stop(|_| true);
        self.events.clear();
        self.events.push_back(OwnerEvent::Lost { reason: reason.to_owned() });
        if let Some(revoking) = self.revoking.take() {
            self.member.give_up(&revoking.shards);
        }
    }

    /// Drops the writer and every claim; the next takeover is by a new incarnation.
    pub(super) fn forget_incarnation(&mut self) {
        self.ring = None;
        self.reclaim.forget();
        self.vigil.begin_anew();
        self.held.clear();
        self.claiming.clear();
        self.pending = self.assigned.clone();
        self.incarnation = new_incarnation();
    }

    /// Waits before the next takeover, longer after each that failed.
    pub(super) fn back_off(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let wait = RETRY_MIN.saturating_mul(1 << self.failures.min(5)).min(RETRY_MAX);
        self.retry_at = self.clock.monotonic() + wait;
    }

    /// Takes in the outcome of a re-claim; what has not ended by `timeout` is given up.
    pub(super) fn settle_reclaim(&mut self, timeout: Duration) {
        if let Some(ring) = &mut self.ring {
            self.reclaim.settle(ring, timeout, true);
        }
    }
}
