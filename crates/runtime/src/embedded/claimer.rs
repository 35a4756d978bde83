//! A member of a consumer group on the embedded log. Not here: who gets which partition (`claims`).
//! Invariant: a new holder looks up the group's positions only after every claim that its predecessor was
//! allowed to make stands in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::cursors::Cursors;
use super::owners::MemberId;
use super::signal::{Attempt, Signal};
use super::store::PartitionKey;
use super::write::{Body, Guard, Write};
use super::{EmbeddedLog, step_failed};
use crate::log::{
    AppendError, Claimer, ClaimerPoll, ClaimerSpec, Isolation, LogError, NewRecord, Position, TopicPartition, Waker,
};

/// A member of a consumer group.
pub(crate) struct EmbeddedClaimer {
    log: EmbeddedLog,
    spec: ClaimerSpec,
    signal: Arc<Signal>,
    member: MemberId,
    cursors: Cursors,
    /// Whether anything was handed out that a rebalance takes back.
    has_share: bool,
}

impl EmbeddedClaimer {
    /// Joins the group.
    pub(crate) fn join(log: &EmbeddedLog, spec: ClaimerSpec) -> Result<Self, LogError> {
        let signal = Arc::new(Signal::default());
        let cursors = Cursors::new(log, Isolation::Committed, &signal)?;
        let member = enter(log, &spec, &signal);
        Ok(Self { log: log.clone(), spec, signal, member, cursors, has_share: false })
    }

    fn begin(&self) -> Call {
        let now = self.expire();
        let mut broker = self.log.core().broker();
        if let Some(group) = broker.claims.get_mut(&self.spec.group) {
            group.touch(self.member, now, true);
        }
        Call { log: self.log.clone(), group: self.spec.group.clone(), member: self.member }
    }

    /// Removes silent members; gives the time.
    fn expire(&self) -> Duration {
        let core = self.log.core();
        let now = core.monotonic();
        let mut broker = core.broker();
        let group = broker.claims.get_mut(&self.spec.group);
        if group.is_some_and(|group| group.expire(now, core.options.session) > 0) {
            tracing::info!(group = self.spec.group, "a consumer was silent for its session: its partitions move");
            broker.share_claims();
        }
        now
    }

    fn look(&mut self, max: usize) -> Result<Attempt<ClaimerPoll>, LogError> {
        let now = self.expire();
        let core = self.log.core();
        let (is_member, change, next_expiry) = {
            let mut broker = core.broker();
            let group = broker.claims.entry(self.spec.group.clone()).or_default();
            let next_expiry = group.next_expiry(now, core.options.session);
            (group.is_member(self.member), group.take_change(self.member), next_expiry)
        };
        if !is_member {
            self.member = enter(&self.log, &self.spec, &self.signal);
            let mut broker = self.log.core().broker();
            if let Some(group) = broker.claims.get_mut(&self.spec.group) {
                group.touch(self.member, now, true);
            }
            drop(broker);
            self.cursors.remove_all(|_| true);
            self.has_share = false;
            return Ok(Attempt::Done(ClaimerPoll::Rebalanced));
        }
        if let Some(share) = change {
            if let Err(error) = self.take(&share) {
                if let Some(group) = self.log.core().broker().claims.get_mut(&self.spec.group) {
                    group.tell_again(self.member);
                }
                return Err(error);
            }
            if std::mem::replace(&mut self.has_share, !share.is_empty()) {
                return Ok(Attempt::Done(ClaimerPoll::Rebalanced));
            }
        }
        let records = self.cursors.fetch(max)?;
        let look_again = next_expiry.map(|left| left.max(Duration::from_millis(1)));
        Ok(match records.is_empty() {
            true => Attempt::Wait { look_again },
            false => Attempt::Done(ClaimerPoll::Records(records)),
        })
    }

    /// Starts reading our share where the group stands.
    fn take(&mut self, share: &[PartitionKey]) -> Result<(), LogError> {
        // An empty write: once it is through, so is every claim that was allowed before our share changed.
        let body = Body::Append { records: Vec::new() };
        self.log.write(Write { guard: Guard::None, body }).map_err(|error| step_failed(&error))?;
        self.cursors.remove_all(|_| true);
        let starts: Vec<(TopicPartition, i64)> = {
            let broker = self.log.core().broker();
            let names: BTreeMap<i64, &String> = broker.topics.iter().map(|(name, topic)| (topic.id, name)).collect();
            let positions = broker.positions.get(&self.spec.group);
            let start = |key: &PartitionKey| {
                let marks = broker.partitions.get(key)?.marks;
                let position = positions.and_then(|positions| positions.get(key)).copied().unwrap_or(0);
                let at = TopicPartition::new((*names.get(&key.topic)?).clone(), key.partition);
                Some((at, position.clamp(marks.first, marks.end)))
            };
            share.iter().filter_map(start).collect()
        };
        starts.iter().try_for_each(|(at, offset)| self.cursors.set(at, *offset))
    }
}

impl Claimer for EmbeddedClaimer {
    fn poll(&mut self, max: usize, timeout: Duration) -> Result<ClaimerPoll, LogError> {
        let mut call = self.begin();
        let signal = Arc::clone(&self.signal);
        let outcome = signal.until(timeout, || self.look(max))?;
        call.member = self.member;
        Ok(outcome.unwrap_or(ClaimerPoll::Records(Vec::new())))
    }

    fn claim(
        &mut self,
        records: Vec<NewRecord>,
        consumed: &[(TopicPartition, i64)],
    ) -> Result<Vec<Position>, AppendError> {
        let _call = self.begin();
        self.log.core().check_sizes(&records)?;
        let group = self.spec.group.clone();
        self.log.write(Write {
            guard: Guard::Claimer { group: group.clone(), member: self.member },
            body: Body::Claim { group, records, consumed: consumed.to_vec() },
        })
    }

    fn leave(self: Box<Self>) {
        let mut broker = self.log.core().broker();
        if let Some(group) = broker.claims.get_mut(&self.spec.group) {
            group.leave(self.member);
        }
        broker.share_claims();
    }

    fn waker(&self) -> Waker {
        self.signal.waker()
    }
}

/// A call in progress; its end is when the member was last seen.
struct Call {
    log: EmbeddedLog,
    group: String,
    member: MemberId,
}

impl Drop for Call {
    fn drop(&mut self) {
        let now = self.log.core().monotonic();
        if let Some(group) = self.log.core().broker().claims.get_mut(&self.group) {
            group.touch(self.member, now, false);
        }
    }
}

fn enter(log: &EmbeddedLog, spec: &ClaimerSpec, signal: &Arc<Signal>) -> MemberId {
    let now = log.core().monotonic();
    let topics: BTreeSet<String> = spec.topics.iter().cloned().collect();
    let mut broker = log.core().broker();
    let member = broker.number();
    broker.claims.entry(spec.group.clone()).or_default().join(member, topics, now, Arc::clone(signal));
    broker.share_claims();
    member
}
