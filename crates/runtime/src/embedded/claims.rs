//! Who consumes which partition in one consumer group: the coordinator's memory. Not here: positions, reading
//! (`claimer`). Invariant: a partition has at most one holder, and a member whose share has changed may claim
//! nothing until it was told so.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::broker::Broker;
use super::owners::{MemberId, Presence};
use super::signal::Signal;
use super::store::PartitionKey;

#[derive(Debug)]
struct Member {
    topics: BTreeSet<String>,
    presence: Presence,
    signal: Arc<Signal>,
    has_changed: bool,
}

/// The members of one consumer group.
#[derive(Debug, Default)]
pub(crate) struct ClaimGroup {
    members: BTreeMap<MemberId, Member>,
    holders: BTreeMap<PartitionKey, MemberId>,
}

impl ClaimGroup {
    /// Adds a member; [`Broker::share_claims`] gives it its share.
    pub(crate) fn join(&mut self, member: MemberId, topics: BTreeSet<String>, now: Duration, signal: Arc<Signal>) {
        self.members.insert(member, Member { topics, presence: Presence::at(now), signal, has_changed: true });
    }

    /// Removes a member with all it holds.
    pub(crate) fn leave(&mut self, member: MemberId) {
        self.members.remove(&member);
    }

    /// Removes who was silent for a session; says how many.
    pub(crate) fn expire(&mut self, now: Duration, session: Duration) -> usize {
        let before = self.members.len();
        self.members.retain(|_, member| member.presence.left(now, session).is_none_or(|left| !left.is_zero()));
        before - self.members.len()
    }

    /// Time until the next member's session may end.
    pub(crate) fn next_expiry(&self, now: Duration, session: Duration) -> Option<Duration> {
        self.members.values().filter_map(|member| member.presence.left(now, session)).min()
    }

    /// Marks the begin or the end of a member's call.
    pub(crate) fn touch(&mut self, member: MemberId, now: Duration, is_calling: bool) {
        if let Some(member) = self.members.get_mut(&member) {
            member.presence = Presence { seen: now, is_calling };
        }
    }

    /// Whether the member is known.
    pub(crate) fn is_member(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    /// Whether the member knows its share.
    pub(crate) fn is_current(&self, member: MemberId) -> bool {
        self.members.get(&member).is_some_and(|member| !member.has_changed)
    }

    /// Whether the member holds the partition.
    pub(crate) fn holds(&self, member: MemberId, key: PartitionKey) -> bool {
        self.holders.get(&key) == Some(&member)
    }

    /// The member's share, if it has changed since it was last told.
    pub(crate) fn take_change(&mut self, member: MemberId) -> Option<Vec<PartitionKey>> {
        let state = self.members.get_mut(&member)?;
        if !std::mem::take(&mut state.has_changed) {
            return None;
        }
        Some(self.holders.iter().filter(|(_, holder)| **holder == member).map(|(key, _)| *key).collect())
    }

    /// Says that the member must be told its share again.
    pub(crate) fn tell_again(&mut self, member: MemberId) {
        if let Some(member) = self.members.get_mut(&member) {
            member.has_changed = true;
        }
    }

    /// Shares the partitions of all topics asked for, evenly, moving as few as possible.
    fn share(&mut self, partitions: &BTreeMap<PartitionKey, String>) {
        let before = self.holders.clone();
        let takes = |members: &BTreeMap<MemberId, Member>, member: &MemberId, topic: &String| {
            members.get(member).is_some_and(|member| member.topics.contains(topic))
        };
        self.holders.retain(|key, holder| partitions.get(key).is_some_and(|topic| takes(&self.members, holder, topic)));
        let mut loads: BTreeMap<MemberId, usize> = self.members.keys().map(|member| (*member, 0)).collect();
        for holder in self.holders.values() {
            *loads.entry(*holder).or_default() += 1;
        }
        let mut is_even = false;
        while !is_even {
            is_even = true;
            for (key, topic) in partitions {
                let takers = self.members.keys().filter(|member| takes(&self.members, member, topic));
                let Some(least) = takers.min_by_key(|member| (loads.get(member), **member)).copied() else { continue };
                let low = loads.get(&least).copied().unwrap_or(0);
                let holder = self.holders.get(key).copied();
                let is_better = holder.is_none_or(|holder| loads.get(&holder).copied().unwrap_or(0) > low + 1);
                if is_better {
                    self.holders.insert(*key, least);
                    *loads.entry(least).or_default() += 1;
                    if let Some(holder) = holder {
                        *loads.entry(holder).or_default() -= 1;
                    }
                    is_even = false;
                }
            }
        }
        self.tell_changes(&before);
    }

    fn tell_changes(&mut self, before: &BTreeMap<PartitionKey, MemberId>) {
        let mut changed = BTreeSet::new();
        for key in before.keys().chain(self.holders.keys()) {
            let (old, new) = (before.get(key), self.holders.get(key));
            if old != new {
                changed.extend(old.into_iter().chain(new));
            }
        }
        for member in changed {
            if let Some(member) = self.members.get_mut(member) {
                member.has_changed = true;
                member.signal.notify();
            }
        }
    }
}

impl Broker {
    /// Shares the partitions of every consumer group anew; called when members or topics have changed.
    pub(crate) fn share_claims(&mut self) {
        for group in self.claims.values_mut() {
            let wanted: BTreeSet<&String> = group.members.values().flat_map(|member| &member.topics).collect();
            let mut partitions = BTreeMap::new();
            for topic in wanted.into_iter().filter_map(|name| self.topics.get(name)) {
                for partition in 0..topic.spec.partitions {
                    partitions.insert(PartitionKey { topic: topic.id, partition }, topic.spec.name.clone());
                }
            }
            group.share(&partitions);
        }
    }
}
