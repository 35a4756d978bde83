//! Inputs that all shards of an instance share: from where on they are read, and what waits until they were. Not
//! here: what their records mean (`Service::read_shared`). Invariant: no input of a shard is read before all of
//! the shared state that was there at its takeover, and nothing of a shared input is taken twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orloj_domain::time::Timestamp;

use super::{Driver, Machine, RETRY_WAIT, SHARED_RETRY_WAIT, Service, SharedStart};
use crate::log::{Isolation, LogError, Record, TopicPartition};

/// How far back recent shared inputs are read at first: past the longest lease, so that no session is judged by a
/// shorter one than its own.
const LOOKBACK: Duration = orloj_domain::lease::LEASE_MAX;

/// How far the shared inputs were read by this incarnation.
#[derive(Debug, Default)]
pub(super) struct SharedReading {
    /// The next offset wanted of each.
    pub(super) next: BTreeMap<TopicPartition, i64>,
    /// Shared state of which not all was handed out that was there at the last takeover.
    pub(super) behind: BTreeSet<TopicPartition>,
    /// Inputs of shards, with their offsets, that are read once nothing is behind.
    pub(super) waiting: Vec<(TopicPartition, i64)>,
}

impl<S: Service> Driver<S> {
    /// Starts reading inputs of shards that were just taken over: at once, or after the shared state.
    pub(super) fn read_after_shared(&mut self, inputs: Vec<(TopicPartition, i64)>) -> Result<(), LogError> {
        let shared = self.shared_inputs()?;
        self.shared.behind.extend(self.topics.shared_state().cloned());
        if self.shared.behind.is_empty() {
            return self.owner.read_inputs(&[shared, inputs].concat());
        }
        self.shared.waiting.extend(inputs);
        self.owner.read_inputs(&shared)
    }

    /// Recent ones are read once per incarnation. State is asked for again at each takeover, from where it was read
    /// up to: the answer is what says that all of it is here.
    fn shared_inputs(&mut self) -> Result<Vec<(TopicPartition, i64)>, LogError> {
        let mut inputs = Vec::new();
        for shared in &self.topics.shared {
            let from = match (self.shared.next.get(&shared.at), shared.start) {
                (Some(_), SharedStart::Recent) => continue,
                (Some(next), SharedStart::Beginning) => *next,
                (None, SharedStart::Recent) => {
                    let since = self.parts.clock.now().minus(LOOKBACK);
                    self.parts.log.offset_at(&shared.at, since)?
                }
                (None, SharedStart::Beginning) => self.parts.log.offset_at(&shared.at, Timestamp::MIN)?,
            };
            self.shared.next.insert(shared.at.clone(), from);
            inputs.push((shared.at.clone(), from));
        }
        Ok(inputs)
    }

    /// Once the shared state was read and handled, the inputs that wait for it are read.
    pub(super) fn read_what_waits(&mut self) {
        if self.shared.waiting.is_empty() || !self.shared.behind.is_empty() {
            return;
        }
        self.settle();
        let waiting = std::mem::take(&mut self.shared.waiting);
        if let Err(error) = self.owner.read_inputs(&waiting) {
            let reason = format!("inputs can't be read: {error}");
            self.drop_all(&reason);
            self.owner.abandon(&reason);
        }
    }

    /// Takes a record of a shared input, unless it was taken before.
    pub(super) fn take_shared(&mut self, record: &Record, now: Timestamp) {
        let next = self.shared.next.entry(record.topic_partition()).or_insert(0);
        if record.offset < *next {
            return;
        }
        *next = record.offset + 1;
        let inputs = self.service.read_shared(record, now);
        self.broadcast(&inputs, now);
    }

    /// Shared state is judged only when all of the shared inputs was read: a sign of life that waits in the
    /// log must not be taken for silence.
    pub(super) fn run_shared_due(&mut self, now: Timestamp) {
        let is_due = self.service.shared_deadline().is_some_and(|deadline| deadline <= now);
        if !is_due || self.shards.is_empty() || self.parts.clock.monotonic() < self.shared_retry_at {
            return;
        }
        // Settings say nothing of who lives, and their last offset may be the mark of a transaction, which is never read.
        let recent = self.topics.shared.iter().filter(|shared| shared.start == SharedStart::Recent);
        for (at, next) in recent.filter_map(|shared| self.shared.next.get_key_value(&shared.at)) {
            match self.parts.log.end(at, Isolation::Committed) {
                Ok(end) if *next >= end => {}
                Ok(_) => {
                    self.shared_retry_at = self.parts.clock.monotonic() + SHARED_RETRY_WAIT;
                    return;
                }
                Err(error) => {
                    tracing::warn!(service = S::NAME, %error, "can't see the end of a shared input");
                    self.shared_retry_at = self.parts.clock.monotonic() + RETRY_WAIT;
                    return;
                }
            }
        }
        let inputs = self.service.shared_tick(now);
        self.broadcast(&inputs, now);
    }

    fn broadcast(&mut self, inputs: &[<S::Machine as Machine>::Input], now: Timestamp) {
        let shards: Vec<_> = self.shards.keys().copied().collect();
        for shard in shards {
            for input in inputs {
                self.decide(shard, input, now);
            }
        }
    }
}
