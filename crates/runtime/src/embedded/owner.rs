//! A share in the shards of a service on the embedded log. Not here: who gets which shard (`owners`).
//! Invariant: a shard is handed to the service only after our claim is in its owners partition, behind all that
//! the former owner could write; being inside a call keeps the membership alive, being silent ends it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::id::Incarnation;
use orloj_domain::owner::OwnerRecord;
use orloj_domain::shard::Shard;

use super::core::Underway;
use super::cursors::Cursors;
use super::owners::{MemberId, OwnerGroup};
use super::signal::{Attempt, Signal};
use super::write::Guard;
use super::{EmbeddedLog, step_failed};
use crate::log::{
    AppendError, Appended, Isolation, LogError, NewRecord, Owner, OwnerEvent, OwnerSpec, Position, RestoreRange,
    TakenShard, TopicPartition, Waker,
};

/// Records read at once while restoring.
const RESTORE_SLICE: usize = 1000;

/// A member of a service's owners.
pub(crate) struct EmbeddedOwner {
    log: EmbeddedLog,
    spec: OwnerSpec,
    signal: Arc<Signal>,
    member: MemberId,
    incarnation: Incarnation,
    inputs: Cursors,
    /// Why we gave everything up, until that was told.
    abandoned: Option<String>,
    /// Inputs that have yet to hand out what was committed when reading began, with that end.
    behind: BTreeMap<TopicPartition, i64>,
    /// The append that was started and not yet waited for.
    underway: Option<(Vec<NewRecord>, Underway)>,
}

impl EmbeddedOwner {
    /// Joins the owners.
    pub(crate) fn join(log: &EmbeddedLog, spec: OwnerSpec) -> Result<Self, LogError> {
        check_spec(log, &spec)?;
        let signal = Arc::new(Signal::default());
        let inputs = Cursors::new(log, Isolation::Committed, &signal)?;
        let (member, incarnation) = enter(log, &spec, &signal)?;
        Ok(Self {
            log: log.clone(),
            spec,
            signal,
            member,
            incarnation,
            inputs,
            abandoned: None,
            behind: BTreeMap::new(),
            underway: None,
        })
    }

    fn with_group<T>(&self, ask: impl FnOnce(&mut OwnerGroup) -> T) -> T {
        let mut broker = self.log.core().broker();
        let shards = self.spec.shards;
        ask(broker.owners.entry(self.spec.service.clone()).or_insert_with(|| OwnerGroup::new(shards)))
    }

    /// Begins a call: those who were silent too long are out, which may be us.
    fn begin(&self) -> Call {
        let core = self.log.core();
        let (now, session) = (core.monotonic(), core.options.session);
        self.with_group(|group| {
            expire(group, &self.spec.service, now, session);
            group.touch(self.member, now, true);
        });
        Call { log: self.log.clone(), service: self.spec.service.clone(), member: self.member }
    }

    fn guard(&self, shards: &[Shard]) -> Guard {
        Guard::Owner { service: self.spec.service.clone(), member: self.member, shards: shards.to_vec() }
    }

    /// Rebalance steps first, then records; nothing if there is neither.
    fn look(&mut self, max: usize) -> Result<Attempt<Vec<OwnerEvent>>, LogError> {
        let core = self.log.core();
        let (now, session) = (core.monotonic(), core.options.session);
        let (is_member, wanted, given, next_expiry) = self.with_group(|group| {
            expire(group, &self.spec.service, now, session);
            let wanted = group.take_wanted(self.member);
            let given = group.take_given(self.member);
            (group.is_member(self.member), wanted, given, group.next_expiry(now, session))
        });
        if !is_member {
            let session = core.options.session;
            let silent = || format!("{} made no call for {session:?}, its session", self.incarnation);
            let reason = self.abandoned.take().unwrap_or_else(silent);
            self.rejoin()?;
            return Ok(Attempt::Done(vec![OwnerEvent::Lost { reason }]));
        }
        let mut events = Vec::new();
        if !wanted.is_empty() {
            self.drop_inputs(Some(&wanted));
            events.push(OwnerEvent::Revoking(wanted));
        }
        if !given.is_empty() {
            match self.take(&given) {
                Ok(taken) => events.push(OwnerEvent::Taken(taken)),
                Err(error) => {
                    self.with_group(|group| group.give_again(self.member, &given));
                    if events.is_empty() {
                        return Err(error);
                    }
                }
            }
        }
        if events.is_empty() {
            let records = self.inputs.fetch(max)?;
            if !records.is_empty() {
                events.push(OwnerEvent::Records(records));
            }
            events.extend(self.caught_up().into_iter().map(OwnerEvent::CaughtUp));
        }
        let look_again = next_expiry.map(|left| left.max(Duration::from_millis(1)));
        Ok(if events.is_empty() { Attempt::Wait { look_again } } else { Attempt::Done(events) })
    }

    fn caught_up(&mut self) -> Vec<TopicPartition> {
        let is_done = |(at, end): &(&TopicPartition, &i64)| self.inputs.next(at).is_none_or(|next| next >= **end);
        let done: Vec<TopicPartition> = self.behind.iter().filter(is_done).map(|(at, _)| at.clone()).collect();
        self.behind.retain(|at, _| !done.contains(at));
        done
    }

    /// Claims shards in the log and says up to where they must be restored.
    fn take(&self, shards: &[Shard]) -> Result<Vec<TakenShard>, LogError> {
        let core = self.log.core();
        let generation = self.with_group(|group| group.generation());
        let record = OwnerRecord {
            incarnation: self.incarnation.clone(),
            producer_ids: vec![self.incarnation.to_string()],
            generation,
            member: self.member.to_string(),
            host: core.host.clone(),
            since: core.clock.now(),
        };
        let value = crate::codec::encode(&record);
        let mut records = Vec::new();
        for shard in shards {
            for former in self.unreleased(*shard)? {
                records.push(NewRecord::new(self.spec.owners_topic.clone(), shard.0, former, None));
            }
            let key = self.incarnation.as_str();
            records.push(NewRecord::new(self.spec.owners_topic.clone(), shard.0, key, Some(value.clone())));
        }
        // All that a former owner was allowed to write stands before this, or was refused.
        self.log.append(self.guard(shards), records).map_err(|error| step_failed(&error))?;
        let broker = core.broker();
        let end = |topic: &String, shard: Shard| {
            let at = TopicPartition::new(topic.clone(), shard.0);
            broker.partition(&at).map(|partition| (topic.clone(), partition.end(Isolation::Committed)))
        };
        shards
            .iter()
            .map(|shard| {
                let until = self.spec.restore_topics.iter().map(|topic| end(topic, *shard));
                Ok(TakenShard { shard: *shard, restore_until: until.collect::<Result<_, LogError>>()? })
            })
            .collect()
    }

    /// Incarnations whose claim on the shard was never released: they died or were silent.
    fn unreleased(&self, shard: Shard) -> Result<BTreeSet<Vec<u8>>, LogError> {
        let at = TopicPartition::new(self.spec.owners_topic.clone(), shard.0);
        let first = self.log.core().broker().partition(&at)?.marks.first;
        let signal = Arc::new(Signal::default());
        let mut cursors = Cursors::new(&self.log, Isolation::Committed, &signal)?;
        cursors.set(&at, first)?;
        let mut unreleased = BTreeSet::new();
        loop {
            let records = cursors.fetch(RESTORE_SLICE)?;
            if records.is_empty() {
                return Ok(unreleased);
            }
            for record in records {
                let key = record.key.unwrap_or_default();
                if record.value.is_some() && key != self.incarnation.as_str().as_bytes() {
                    unreleased.insert(key);
                } else {
                    unreleased.remove(&key);
                }
            }
        }
    }

    fn rejoin(&mut self) -> Result<(), LogError> {
        self.drop_inputs(None);
        (self.member, self.incarnation) = enter(&self.log, &self.spec, &self.signal)?;
        let now = self.log.core().monotonic();
        self.with_group(|group| group.touch(self.member, now, true));
        Ok(())
    }

    /// Stops reading the inputs of some shards, or all that is read.
    fn drop_inputs(&mut self, shards: Option<&[Shard]>) {
        // What is shared has partitions of its own, which are no shards: it goes only with everything.
        let shared = &self.spec.shared_topics;
        let is_gone = |at: &TopicPartition| {
            shards.is_none_or(|shards| {
                !shared.iter().any(|topic| *topic == at.topic) && shards.contains(&Shard(at.partition))
            })
        };
        self.inputs.remove_all(is_gone);
        self.behind.retain(|at, _| !is_gone(at));
    }

    /// The shard of a partition, if its topic is one of those that are split into shards.
    fn shard_of(&self, at: &TopicPartition) -> Option<Shard> {
        let mut topics = self.spec.restore_topics.iter().chain(&self.spec.input_topics);
        topics.any(|topic| *topic == at.topic).then_some(Shard(at.partition))
    }

    /// Fails unless all these partitions are of shards that we may go on with.
    fn check_kept<'a>(&self, mut partitions: impl Iterator<Item = &'a TopicPartition>) -> Result<(), LogError> {
        self.with_group(|group| {
            let is_kept = |at: &TopicPartition| {
                group.is_member(self.member) && self.shard_of(at).is_none_or(|shard| group.is_kept(self.member, shard))
            };
            match partitions.find(|at| !is_kept(at)) {
                Some(at) => Err(LogError::Lost(format!("{at} is no longer ours to read"))),
                None => Ok(()),
            }
        })
    }

    fn restore_one(&self, range: &RestoreRange, fold: &mut dyn FnMut(crate::log::Record)) -> Result<(), LogError> {
        let signal = Arc::new(Signal::default());
        let mut cursors = Cursors::new(&self.log, Isolation::Committed, &signal)?;
        let until = range.until.min(self.log.core().broker().partition(&range.at)?.marks.end);
        if range.from >= until {
            return Ok(());
        }
        let first = self.log.core().broker().partition(&range.at)?.marks.first;
        cursors.set(&range.at, range.from.max(first))?;
        while cursors.next(&range.at).is_some_and(|next| next < until) {
            self.check_kept(std::iter::once(&range.at))?;
            // An open batch below the end may make us wait; a look at the membership is due meanwhile.
            let records = signal.until(self.log.core().options.session, || {
                let records = cursors.fetch(RESTORE_SLICE)?;
                let is_done = !records.is_empty() || cursors.next(&range.at).is_none_or(|next| next >= until);
                Ok::<_, LogError>(if is_done { Attempt::Done(records) } else { Attempt::Wait { look_again: None } })
            })?;
            for record in records.into_iter().flatten().filter(|record| record.offset < until) {
                fold(record);
            }
        }
        Ok(())
    }

    fn give_back(&mut self, shards: &[Shard]) {
        let held: Vec<Shard> = self
            .with_group(|group| shards.iter().copied().filter(|shard| group.is_held(self.member, *shard)).collect());
        let tombstone =
            |shard: &Shard| NewRecord::new(self.spec.owners_topic.clone(), shard.0, self.incarnation.as_str(), None);
        if !held.is_empty()
            && let Err(error) = self.log.append(self.guard(&held), held.iter().map(tombstone).collect())
        {
            // The successor clears our record away; the shards move all the same.
            tracing::warn!(%error, incarnation = %self.incarnation, "the release was not written");
        }
        self.with_group(|group| group.release(self.member, &held));
        self.drop_inputs(Some(shards));
    }
}

impl Owner for EmbeddedOwner {
    fn incarnation(&self) -> Incarnation {
        self.incarnation.clone()
    }

    fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<OwnerEvent>, LogError> {
        let mut call = self.begin();
        let signal = Arc::clone(&self.signal);
        let events = signal.until(timeout, || self.look(max))?;
        call.member = self.member;
        Ok(events.unwrap_or_default())
    }

    fn restore(&mut self, ranges: &[RestoreRange], fold: &mut dyn FnMut(crate::log::Record)) -> Result<(), LogError> {
        let _call = self.begin();
        self.check_kept(ranges.iter().map(|range| &range.at))?;
        for range in ranges {
            self.restore_one(range, fold)?;
        }
        self.check_kept(ranges.iter().map(|range| &range.at))
    }

    fn read_inputs(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        let _call = self.begin();
        self.check_kept(positions.iter().map(|(at, _)| at))?;
        for (at, offset) in positions {
            self.inputs.set(at, *offset)?;
            let end = self.log.core().broker().partition(at)?.end(Isolation::Committed);
            self.behind.insert(at.clone(), end);
        }
        self.signal.notify();
        Ok(())
    }

    fn append(&mut self, shards: &[Shard], records: &[NewRecord]) -> Result<Vec<Position>, AppendError> {
        let _call = self.begin();
        self.log.append(self.guard(shards), records.to_vec())
    }

    fn start_append(&mut self, shards: &[Shard], records: Vec<NewRecord>) -> Option<Appended> {
        let _call = self.begin();
        let write = self.log.start_append(self.guard(shards), records.clone());
        self.underway = Some((records, write));
        None
    }

    fn finish_append(&mut self) -> Appended {
        let _call = self.begin();
        match self.underway.take() {
            Some((records, write)) => Appended { records, outcome: self.log.finish_append(write) },
            None => {
                let outcome = Err(AppendError::Refused("no append was started".to_owned()));
                Appended { records: Vec::new(), outcome }
            }
        }
    }

    fn release(&mut self, shards: &[Shard]) -> Result<(), LogError> {
        let _call = self.begin();
        self.give_back(shards);
        Ok(())
    }

    fn abandon(&mut self, reason: &str) {
        if self.with_group(|group| group.leave(self.member)) {
            self.abandoned = Some(reason.to_owned());
            self.drop_inputs(None);
        }
    }

    fn leave(mut self: Box<Self>) {
        let call = self.begin();
        let held = self.with_group(|group| group.held(self.member));
        self.give_back(&held);
        drop(call);
        let _ = self.with_group(|group| group.leave(self.member));
    }

    fn waker(&self) -> Waker {
        self.signal.waker()
    }
}

/// A call in progress; its end is when the member was last seen.
struct Call {
    log: EmbeddedLog,
    service: String,
    member: MemberId,
}

impl Drop for Call {
    fn drop(&mut self) {
        let now = self.log.core().monotonic();
        if let Some(group) = self.log.core().broker().owners.get_mut(&self.service) {
            group.touch(self.member, now, false);
        }
    }
}

fn expire(group: &mut OwnerGroup, service: &str, now: Duration, session: Duration) {
    for incarnation in group.expire(now, session) {
        tracing::info!(service, %incarnation, "an owner was silent for its session: its shards move");
    }
}

/// Enters the group as a new incarnation.
fn enter(log: &EmbeddedLog, spec: &OwnerSpec, signal: &Arc<Signal>) -> Result<(MemberId, Incarnation), LogError> {
    let core = log.core();
    let (now, session) = (core.monotonic(), core.options.session);
    let mut broker = core.broker();
    let member = broker.number();
    let name = match core.life.as_str() {
        "" => format!("{}-{member}", spec.service),
        life => format!("{}-{life}-{member}", spec.service),
    };
    let incarnation = Incarnation::new(&name).map_err(|error| LogError::Misconfigured(error.to_string()))?;
    let group = broker.owners.entry(spec.service.clone()).or_insert_with(|| OwnerGroup::new(spec.shards));
    expire(group, &spec.service, now, session);
    group.join(member, incarnation.clone(), now, Arc::clone(signal));
    Ok((member, incarnation))
}

/// All topics that are split into shards must have as many partitions as there are shards.
fn check_spec(log: &EmbeddedLog, spec: &OwnerSpec) -> Result<(), LogError> {
    let broker = log.core().broker();
    let named = [&spec.membership_topic, &spec.owners_topic];
    for name in named.into_iter().chain(&spec.restore_topics).chain(&spec.input_topics) {
        let topic = broker.topics.get(name).ok_or_else(|| LogError::NoSuchTopic(name.clone()))?;
        if topic.spec.partitions != spec.shards {
            return Err(LogError::Misconfigured(format!(
                "the topic `{name}` has {} partitions, but the installation has {} shards",
                topic.spec.partitions, spec.shards
            )));
        }
    }
    match broker.owners.get(&spec.service) {
        Some(group) if group.shards() != spec.shards => Err(LogError::Misconfigured(format!(
            "the owners of the {} share {} shards, not {}",
            spec.service,
            group.shards(),
            spec.shards
        ))),
        Some(_) | None => Ok(()),
    }
}
