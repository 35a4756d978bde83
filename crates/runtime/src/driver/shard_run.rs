//! One owned shard in the driver: its machine, how far its inputs were consumed, and what waits to be
//! appended. Invariant: `pending` holds what the machine has applied and nobody has been asked to
//! append; what is under way is with the owner.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orloj_domain::owner::{BARRIER_KEY, POSITIONS_KEY, ShardPositions};
use orloj_domain::time::Timestamp;

use super::pending::Pending;
use super::service::{Machine, Service};
use super::tails::{Tails, Trial};
use crate::codec;
use crate::log::{NewRecord, Record};

/// How far a shard has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Inputs from before the takeover are still being read: nothing is due yet.
    CatchingUp(BTreeSet<String>),
    /// Everything is in force.
    Live,
}

/// How much waits to be appended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Size {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, more: Self) {
        self.records += more.records;
        self.bytes += more.bytes;
    }
}

pub(super) struct ShardRun<M> {
    pub(super) machine: M,
    pub(super) phase: Phase,
    /// Topic → first offset not covered: of inputs as consumed, of the decision topic as saved.
    pub(super) positions: BTreeMap<String, i64>,
    pub(super) has_new_positions: bool,
    /// The positions are due to be saved even if nothing else is.
    pub(super) must_save_positions: bool,
    /// What is pending does not say by itself which inputs it came from: the positions must go with it.
    pub(super) rests_on_positions: bool,
    pub(super) pending: Pending,
    /// First offset of the decision topic after our last decision.
    pub(super) decided_next: i64,
    /// While a round of saving goes on: the decision offset it will cover.
    pub(super) save_mark: Option<i64>,
    pub(super) checkpoint_due: Timestamp,
    /// Up to where the machine covers the topics of a restore.
    pub(super) tails: Tails,
    /// The snapshot that the machine began with, while the log has not proved it.
    pub(super) trial: Option<Trial>,
    /// Something was committed or consumed since the last snapshot.
    pub(super) has_changed: bool,
    /// On the monotonic clock: no snapshot before this.
    pub(super) snapshot_due: Duration,
    /// On the monotonic clock: left out of batches until then, because its partitions do not answer.
    pub(super) stalled_until: Option<Duration>,
}

impl<M: Machine> ShardRun<M> {
    pub(super) fn new(machine: M) -> Self {
        Self {
            machine,
            phase: Phase::CatchingUp(BTreeSet::new()),
            positions: BTreeMap::new(),
            has_new_positions: false,
            must_save_positions: false,
            rests_on_positions: false,
            pending: Pending::default(),
            decided_next: 0,
            save_mark: None,
            checkpoint_due: Timestamp::MAX,
            tails: Tails::default(),
            trial: None,
            has_changed: true,
            snapshot_due: Duration::MAX,
            stalled_until: None,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    pub(super) fn caught_up(&mut self, topic: &str) {
        if let Phase::CatchingUp(left) = &mut self.phase {
            left.remove(topic);
        }
    }

    /// Goes live once every input was caught up with and handled.
    pub(super) fn go_live_if_caught_up(&mut self) {
        if matches!(&self.phase, Phase::CatchingUp(left) if left.is_empty()) {
            self.phase = Phase::Live;
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        if self.is_live() && self.stalled_until.is_none() { self.machine.next_deadline() } else { None }
    }

    /// When lazily written state is to be saved, if there is any.
    pub(super) fn next_save<S: Service<Machine = M>>(&self, service: &S) -> Option<Timestamp> {
        let is_wanted = self.has_new_positions || self.save_mark.is_some() || service.has_unsaved(&self.machine);
        (self.is_live() && is_wanted).then_some(self.checkpoint_due)
    }

    /// Takes one record of a state or decision topic while restoring.
    pub(super) fn replay<S: Service<Machine = M>>(&mut self, service: &S, record: &Record) {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        if let Some(trial) = &mut self.trial
            && !trial.is_behind(&record.topic, record.offset, key, value)
        {
            return;
        }
        match record.key_text() {
            // The last record of each restore is our own barrier.
            Some(BARRIER_KEY) => self.tails.extend(&record.topic, record.offset, key, value),
            Some(POSITIONS_KEY) => self.replay_positions(record),
            Some(_) | None => {
                if let Err(error) = service.replay(&mut self.machine, record) {
                    tracing::error!(position = %record.position(), %error, "a state record can't be used and is left out");
                }
            }
        }
    }

    /// Where a restore must begin to read a topic if the machine came from a snapshot.
    pub(super) fn trial_start(&self, topic: &str) -> Option<i64> {
        self.trial.as_ref().and_then(|trial| trial.start_of(topic))
    }

    /// True if the machine began with a snapshot that the log has not borne out.
    pub(super) fn is_doubtful(&self) -> bool {
        self.trial.as_ref().is_some_and(|trial| !trial.has_held())
    }

    fn replay_positions(&mut self, record: &Record) {
        match codec::decode::<ShardPositions>(record.value.as_deref().unwrap_or_default()) {
            Ok(saved) => self.positions = saved.positions,
            Err(error) => {
                tracing::error!(position = %record.position(), %error, "positions can't be read: starting from the beginning");
            }
        }
    }

    /// True if the record was consumed before; marks it as consumed otherwise.
    pub(super) fn is_repeat(&mut self, record: &Record) -> bool {
        match self.positions.get_mut(record.topic.as_str()) {
            Some(next) if record.offset < *next => return true,
            Some(next) => *next = record.offset + 1,
            None => drop(self.positions.insert(record.topic.to_string(), record.offset + 1)),
        }
        self.has_new_positions = true;
        self.has_changed = true;
        false
    }

    /// True if it has something to append.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty() || (self.must_save_positions && self.has_new_positions)
    }

    /// True if what it has to append has waited for `patience` at `now` on the monotonic clock, or must not wait.
    pub(super) fn is_ripe(&self, patience: Duration, now: Duration) -> bool {
        let has_waited = self.pending.waits_since().is_some_and(|since| since + patience <= now);
        self.pending.is_urgent() || has_waited || (self.must_save_positions && self.has_new_positions)
    }

    /// The record that says how far inputs were consumed.
    pub(super) fn positions_record(&self, state_topic: &str, partition: i32) -> NewRecord {
        let positions = ShardPositions { positions: self.positions.clone() };
        NewRecord::new(state_topic, partition, POSITIONS_KEY, Some(codec::encode(&positions)))
    }
}
