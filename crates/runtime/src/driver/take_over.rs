//! Taking shards over: machines from snapshots where there are any, the rest from the log, then their inputs. Not
//! here: who owns a shard (`log::Owner`). Invariant: a machine is what all committed records below the barrier make
//! of it; a snapshot only spares reading the older ones, and one that the log does not bear out is not used.

use std::collections::BTreeMap;
use std::time::Duration;

use orloj_domain::shard::{Shard, ShardCount};

use super::shard_run::{Phase, ShardRun};
use super::snapshots::INTERVAL;
use super::{CHECKPOINT_INTERVAL, Driver, Service, replay};
use crate::log::{LogError, RestoreRange, TakenShard, TopicPartition};

type Runs<S> = BTreeMap<Shard, ShardRun<<S as Service>::Machine>>;

impl<S: Service> Driver<S> {
    /// Restores the shards, then starts reading their inputs.
    pub(super) fn take_over(&mut self, taken: &[TakenShard]) -> Result<(), LogError> {
        let runs = self.restored(taken)?;
        let now = self.parts.clock.now();
        let mut inputs = Vec::new();
        for (shard, mut run) in runs {
            self.service.restored(&run.machine, now);
            for topic in &self.topics.inputs {
                let next = run.positions.get(topic).copied().unwrap_or(0);
                inputs.push((TopicPartition::new(topic.clone(), shard.0), next));
            }
            run.phase = Phase::CatchingUp(self.topics.inputs.iter().cloned().collect());
            // Shards that were taken over together take turns with what is large.
            run.snapshot_due = self.parts.clock.monotonic() + share_of(INTERVAL, shard, self.parts.shards);
            run.checkpoint_due = now.plus(share_of(CHECKPOINT_INTERVAL, shard, self.parts.shards));
            self.backlog.retain(|record| record.partition != shard.0 || self.topics.is_shared(&record.topic));
            self.shards.insert(shard, run);
            for input in self.service.shared_state() {
                self.decide(shard, &input, now);
            }
        }
        self.read_after_shared(inputs)
    }

    fn restored(&mut self, taken: &[TakenShard]) -> Result<Runs<S>, LogError> {
        let mut runs = self.fresh(taken);
        let resting = self.snapshots.as_ref().map_or(0, |snapshots| snapshots.load(&self.service, taken, &mut runs));
        if resting == 0 {
            self.restore_from_log(taken, &mut runs)?;
            return Ok(runs);
        }
        match self.restore_from_log(taken, &mut runs) {
            Ok(()) => {}
            // A proof that retention or another hand has removed; what was read of the others is read again.
            Err(LogError::OutOfRange { at, .. }) => {
                tracing::info!(service = S::NAME, %at, "snapshots reach back behind the log: restoring without them");
                let mut runs = self.fresh(taken);
                self.restore_from_log(taken, &mut runs)?;
                return Ok(runs);
            }
            Err(error) => return Err(error),
        }
        let is_doubtful = |shard: Shard| runs.get(&shard).is_some_and(ShardRun::is_doubtful);
        let doubtful: Vec<TakenShard> = taken.iter().filter(|taken| is_doubtful(taken.shard)).cloned().collect();
        self.parts.metrics.snapshots_used.inc_by((resting - doubtful.len()) as u64);
        if !doubtful.is_empty() {
            let shards = doubtful.len();
            tracing::info!(service = S::NAME, shards, "snapshots are of another log: restoring these without them");
            let mut again = self.fresh(&doubtful);
            self.restore_from_log(&doubtful, &mut again)?;
            runs.extend(again);
        }
        Ok(runs)
    }

    fn fresh(&self, taken: &[TakenShard]) -> Runs<S> {
        taken.iter().map(|taken| (taken.shard, ShardRun::new(self.service.machine(taken.shard)))).collect()
    }

    fn restore_from_log(&mut self, taken: &[TakenShard], runs: &mut Runs<S>) -> Result<(), LogError> {
        let states = ranges(taken, &self.topics.state, |shard, topic| {
            runs.get(&shard).and_then(|run| run.trial_start(topic)).unwrap_or(0)
        });
        let owner = &mut self.owner;
        replay::replay_all(&self.service, runs, &states, &mut |fold| owner.restore(&states, fold))?;
        self.start_after_saved(runs);
        // Decisions that the saved state covers need not be read again.
        let decisions = ranges(taken, &self.topics.decisions, |shard, topic| {
            let saved = |run: &ShardRun<S::Machine>| run.positions.get(topic).copied();
            runs.get(&shard).and_then(|run| run.trial_start(topic).or_else(|| saved(run))).unwrap_or(0)
        });
        let owner = &mut self.owner;
        replay::replay_all(&self.service, runs, &decisions, &mut |fold| owner.restore(&decisions, fold))?;
        for range in decisions {
            if let Some(run) = runs.get_mut(&Shard(range.at.partition)) {
                run.decided_next = run.decided_next.max(range.until);
            }
        }
        Ok(())
    }

    fn start_after_saved(&self, runs: &mut Runs<S>) {
        let Some(decisions) = self.topics.decisions.first() else { return };
        for run in runs.values_mut() {
            run.decided_next = run.positions.get(decisions).copied().unwrap_or(0);
        }
    }
}

/// The part of an interval after which it is this shard's turn, so that each has a moment of its own.
fn share_of(interval: Duration, shard: Shard, shards: ShardCount) -> Duration {
    let turn = u32::try_from(shard.0 + 1).unwrap_or(1);
    interval * turn / u32::try_from(shards.get()).unwrap_or(1)
}

fn ranges(taken: &[TakenShard], topics: &[String], from: impl Fn(Shard, &str) -> i64) -> Vec<RestoreRange> {
    let mut ranges = Vec::new();
    for shard in taken {
        for (topic, until) in &shard.restore_until {
            let from = from(shard.shard, topic);
            if topics.contains(topic) && from < *until {
                let at = TopicPartition::new(topic.clone(), shard.shard.0);
                ranges.push(RestoreRange { at, from, until: *until });
            }
        }
    }
    ranges
}
