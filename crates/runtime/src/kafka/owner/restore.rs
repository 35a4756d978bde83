//! Reading state and decisions of shards that were taken over. Not here: what the records mean. Invariants: a
//! range ends only when a record at or behind its last offset was seen, never by silence or by a sign of the end;
//! the membership is kept alive meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orloj_domain::shard::Shard;

use super::phases::Phase;
use super::takeover::Setback;
use super::{KafkaOwner, SERVE_INTERVAL};
use crate::clock::Clock;
use crate::log::{LogError, Record, RestoreRange, TopicPartition};
use crate::pause;

/// What is left to read: each partition up to this offset, exclusive.
type Left = BTreeMap<TopicPartition, i64>;
/// What may help a restore that stands still.
type Aid = fn(&mut KafkaOwner, &Left) -> Result<(), LogError>;

/// What is tried in turn, each after this long without progress.
const AIDS: [(Duration, Aid); 3] = [
    // A transaction of an owner that did release may still be open.
    (Duration::from_secs(3), KafkaOwner::fence_released),
    // What is open was left by nobody who could still end it.
    (Duration::from_secs(5), KafkaOwner::end_what_hangs),
    // It may be the client that reads.
    (Duration::from_secs(10), KafkaOwner::renew_restorer),
];
/// Without progress for this long the restore has failed.
const HOPELESS_AFTER: Duration = Duration::from_secs(60);

impl KafkaOwner {
    /// Hands every committed record of the ranges to `fold`.
    pub(super) fn restore_ranges(
        &mut self,
        ranges: &[RestoreRange],
        fold: &mut dyn FnMut(Record),
    ) -> Result<(), LogError> {
        let started = self.clock.monotonic();
        let wanted = ranges.iter().filter(|range| range.from < range.until);
        let from: Vec<_> = wanted.clone().map(|range| (range.at.clone(), range.from)).collect();
        let left: Left = wanted.map(|range| (range.at.clone(), range.until)).collect();
        let shards: BTreeSet<Shard> = ranges.iter().map(|range| Shard(range.at.partition)).collect();
        self.must_hold(&shards)?;
        if from.is_empty() {
            return Ok(());
        }
        self.restorer.start(&from)?;
        let outcome = self.read_ranges(left, &shards, fold);
        self.restorer.stop();
        outcome?;
        self.observe(Phase::Restore, &shards, self.clock.monotonic().saturating_sub(started));
        Ok(())
    }

    fn read_ranges(
        &mut self,
        mut left: Left,
        shards: &BTreeSet<Shard>,
        fold: &mut dyn FnMut(Record),
    ) -> Result<(), LogError> {
        let mut progress_at = self.clock.monotonic();
        let mut served_at = progress_at;
        let mut aids = AIDS.iter();
        let mut next_aid = aids.next();
        while !left.is_empty() {
            let next = self.restorer.next(SERVE_INTERVAL)?;
            let now = self.clock.monotonic();
            if let Some(record) = next {
                progress_at = now;
                aids = AIDS.iter();
                next_aid = aids.next();
                let at = record.topic_partition();
                // What comes behind the end of a range that is done is not ours to read yet.
                let Some(until) = left.get(&at).copied() else { continue };
                if record.offset >= until - 1 {
                    left.remove(&at);
                }
                if record.offset < until {
                    fold(record);
                    pause::point("during-restore");
                }
            }
            if now.saturating_sub(served_at) >= SERVE_INTERVAL {
                served_at = now;
                self.serve_member()?;
                self.must_hold(shards)?;
            }
            let stuck = now.saturating_sub(progress_at);
            if let Some((after, aid)) = next_aid
                && stuck > *after
            {
                aid(self, &left)?;
                self.must_hold(shards)?;
                next_aid = aids.next();
            }
            if stuck > HOPELESS_AFTER {
                let at = left.keys().next().map_or_else(String::new, ToString::to_string);
                return Err(LogError::Unavailable(format!("{at}: restore does not get on")));
            }
        }
        Ok(())
    }

    /// Says where the read stands: a last stable offset below the end is held by a transaction, a reader below it is our own
    /// concern.
    fn complain_of(&self, left: &Left) {
        for (at, until) in left {
            let (position, stable) = self.restorer.standing(at);
            tracing::warn!(service = self.spec.service, %at, position, until, stable, "restore is stuck");
        }
    }

    /// Those who released may have left a transaction open that hides the records behind it.
    fn fence_released(&mut self, left: &Left) -> Result<(), LogError> {
        self.complain_of(left);
        let ids = self.history.released_ids(&shards_of(left));
        tracing::warn!(
            service = self.spec.service,
            ids = ids.len(),
            "shutting released owners out too: a transaction of theirs may hold the restore up"
        );
        self.fence(ids).map_err(failed)
    }

    fn end_what_hangs(&mut self, left: &Left) -> Result<(), LogError> {
        self.end_hanging(left).map_err(failed)
    }

    fn renew_restorer(&mut self, left: &Left) -> Result<(), LogError> {
        self.complain_of(left);
        self.restorer.renew()
    }

    fn must_hold(&self, shards: &BTreeSet<Shard>) -> Result<(), LogError> {
        match shards.iter().find(|shard| !self.held.contains(shard) || self.is_revoking(**shard)) {
            Some(shard) => Err(LogError::Lost(format!("shard {shard} was taken away during restore"))),
            None => Ok(()),
        }
    }
}

pub(super) fn shards_of(left: &Left) -> BTreeSet<Shard> {
    left.keys().map(|at| Shard(at.partition)).collect()
}

/// What it means for a restore that somebody could not be shut out.
fn failed(setback: Setback) -> LogError {
    match setback {
        Setback::Overtaken => LogError::Lost("shards were taken away during restore".to_owned()),
        Setback::Stale(reason) | Setback::Doubt(reason) => LogError::Unavailable(reason),
        Setback::NotYet(error) => error,
    }
}
