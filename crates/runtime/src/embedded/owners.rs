//! Who owns which shard of one service: the coordinator's memory. Not here: threads, records, waiting (`owner`).
//! Invariant: a shard has at most one holder; it changes hands only after its holder released it, left, or was
//! silent for a whole session. Shares stay even, and a join moves no more shards than it must.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::id::Incarnation;
use orloj_domain::shard::Shard;

use super::signal::Signal;

/// A member of a group, in order of joining.
pub(crate) type MemberId = u64;

/// When a member was last heard of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Presence {
    /// End of its last call.
    pub(crate) seen: Duration,
    /// Whether it is inside a call now; then it is not silent, however long that call takes.
    pub(crate) is_calling: bool,
}

impl Presence {
    /// Heard of now.
    pub(crate) fn at(now: Duration) -> Self {
        Self { seen: now, is_calling: false }
    }

    /// Time until the session ends; `None` while in a call.
    pub(crate) fn left(self, now: Duration, session: Duration) -> Option<Duration> {
        (!self.is_calling).then(|| (self.seen + session).saturating_sub(now))
    }
}

/// How far a shard's handover has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Given, and the holder does not know yet.
    Given,
    /// The holder knows.
    Taken,
    /// To be asked back.
    Wanted,
    /// The holder knows that it must release.
    Revoking,
}

#[derive(Debug, Clone, Copy)]
struct Holding {
    member: MemberId,
    stage: Stage,
}

#[derive(Debug)]
struct Member {
    incarnation: Incarnation,
    presence: Presence,
    signal: Arc<Signal>,
}

/// The owners of one service.
#[derive(Debug)]
pub(crate) struct OwnerGroup {
    shards: i32,
    generation: i32,
    members: BTreeMap<MemberId, Member>,
    holdings: BTreeMap<i32, Holding>,
}

impl OwnerGroup {
    /// A group without members.
    pub(crate) fn new(shards: i32) -> Self {
        Self { shards, generation: 0, members: BTreeMap::new(), holdings: BTreeMap::new() }
    }

    /// How many shards are shared.
    pub(crate) fn shards(&self) -> i32 {
        self.shards
    }

    /// Grows with each change of the membership.
    pub(crate) fn generation(&self) -> i32 {
        self.generation
    }

    /// Whether the member is known.
    pub(crate) fn is_member(&self, member: MemberId) -> bool {
        self.members.contains_key(&member)
    }

    /// Whether the member holds the shard, asked back or not.
    pub(crate) fn is_held(&self, member: MemberId, shard: Shard) -> bool {
        self.holdings.get(&shard.0).is_some_and(|holding| holding.member == member)
    }

    /// Whether the member holds the shard and may go on with it.
    pub(crate) fn is_kept(&self, member: MemberId, shard: Shard) -> bool {
        self.holdings.get(&shard.0).is_some_and(|holding| holding.member == member && holding.stage != Stage::Revoking)
    }

    /// Adds a member and shares anew.
    pub(crate) fn join(&mut self, member: MemberId, incarnation: Incarnation, now: Duration, signal: Arc<Signal>) {
        self.members.insert(member, Member { incarnation, presence: Presence::at(now), signal });
        self.share();
    }

    /// Removes a member with all it holds and shares anew; says whether there was one.
    pub(crate) fn leave(&mut self, member: MemberId) -> bool {
        let was_member = self.members.remove(&member).is_some();
        if was_member {
            self.holdings.retain(|_, holding| holding.member != member);
            self.share();
        }
        was_member
    }

    /// Removes who was silent for a session. Gives the incarnations, for the log.
    pub(crate) fn expire(&mut self, now: Duration, session: Duration) -> Vec<Incarnation> {
        let is_silent = |member: &Member| member.presence.left(now, session).is_some_and(|left| left.is_zero());
        let silent: Vec<MemberId> =
            self.members.iter().filter(|(_, member)| is_silent(member)).map(|(id, _)| *id).collect();
        let gone = silent.iter().filter_map(|id| self.members.remove(id)).map(|member| member.incarnation).collect();
        if !silent.is_empty() {
            self.holdings.retain(|_, holding| !silent.contains(&holding.member));
            self.share();
        }
        gone
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

    /// Shards that the member must be told to give up; they count as told from now on.
    pub(crate) fn take_wanted(&mut self, member: MemberId) -> Vec<Shard> {
        self.advance(member, Stage::Wanted, Stage::Revoking)
    }

    /// Shards that the member was given; they count as told from now on.
    pub(crate) fn take_given(&mut self, member: MemberId) -> Vec<Shard> {
        self.advance(member, Stage::Given, Stage::Taken)
    }

    /// Takes back [`OwnerGroup::take_given`], because the claim could not be written.
    pub(crate) fn give_again(&mut self, member: MemberId, shards: &[Shard]) {
        for shard in shards {
            if let Some(holding) = self.holdings.get_mut(&shard.0).filter(|holding| holding.member == member) {
                holding.stage = Stage::Given;
            }
        }
        self.share();
    }

    fn advance(&mut self, member: MemberId, from: Stage, to: Stage) -> Vec<Shard> {
        let mut shards = Vec::new();
        for (shard, holding) in &mut self.holdings {
            if holding.member == member && holding.stage == from {
                holding.stage = to;
                shards.push(Shard(*shard));
            }
        }
        shards
    }

    /// All that the member holds.
    pub(crate) fn held(&self, member: MemberId) -> Vec<Shard> {
        self.holdings.iter().filter(|(_, holding)| holding.member == member).map(|(shard, _)| Shard(*shard)).collect()
    }

    /// Gives shards back. They go to whoever holds least.
    pub(crate) fn release(&mut self, member: MemberId, shards: &[Shard]) {
        for shard in shards {
            if self.is_held(member, *shard) {
                self.holdings.remove(&shard.0);
            }
        }
        self.share();
    }

    /// Shares free shards out, and asks shards back until the shares are even.
    fn share(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        for holding in self.holdings.values_mut() {
            if holding.stage == Stage::Wanted {
                holding.stage = Stage::Taken;
            }
        }
        for shard in 0..self.shards {
            if !self.holdings.contains_key(&shard)
                && let Some(member) = least(&self.loads())
            {
                self.holdings.insert(shard, Holding { member, stage: Stage::Given });
            }
        }
        let mut loads = self.expected_loads();
        while let (Some(least), Some(most)) = (least(&loads), most(&loads)) {
            let (low, high) = (loads.get(&least).copied(), loads.get(&most).copied());
            if high.unwrap_or(0) <= low.unwrap_or(0) + 1 || !self.move_one(most, least) {
                break;
            }
            *loads.entry(most).or_default() -= 1;
            *loads.entry(least).or_default() += 1;
        }
        for member in self.members.values() {
            member.signal.notify();
        }
    }

    /// Moves a shard that the holder does not know of, or else asks one back.
    fn move_one(&mut self, from: MemberId, to: MemberId) -> bool {
        let mut candidates = self.holdings.values_mut().rev().filter(|holding| holding.member == from);
        if let Some(holding) = candidates.find(|holding| holding.stage == Stage::Given) {
            *holding = Holding { member: to, stage: Stage::Given };
            return true;
        }
        let mut candidates = self.holdings.values_mut().rev().filter(|holding| holding.member == from);
        if let Some(holding) = candidates.find(|holding| holding.stage == Stage::Taken) {
            holding.stage = Stage::Wanted;
            return true;
        }
        false
    }

    fn loads(&self) -> BTreeMap<MemberId, usize> {
        let mut loads: BTreeMap<MemberId, usize> = self.members.keys().map(|member| (*member, 0)).collect();
        for holding in self.holdings.values() {
            if matches!(holding.stage, Stage::Given | Stage::Taken) {
                *loads.entry(holding.member).or_default() += 1;
            }
        }
        loads
    }

    /// Shares as they will be once the shards that are asked back have moved.
    fn expected_loads(&self) -> BTreeMap<MemberId, usize> {
        let mut loads = self.loads();
        let leaving = self.holdings.values().filter(|holding| holding.stage == Stage::Revoking).count();
        for _ in 0..leaving {
            if let Some(member) = least(&loads) {
                *loads.entry(member).or_default() += 1;
            }
        }
        loads
    }
}

fn least(loads: &BTreeMap<MemberId, usize>) -> Option<MemberId> {
    loads.iter().min_by_key(|(member, load)| (**load, **member)).map(|(member, _)| *member)
}

fn most(loads: &BTreeMap<MemberId, usize>) -> Option<MemberId> {
    loads.iter().max_by_key(|(member, load)| (**load, **member)).map(|(member, _)| *member)
}
