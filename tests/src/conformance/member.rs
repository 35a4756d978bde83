//! A member of a service's owners as the cases see it: it polls, obeys, and remembers what it was told.
//! Not here: what must come of it. Invariant: it releases what is asked back before it polls again.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::id::Incarnation;
use orloj_domain::shard::Shard;
use orloj_runtime::log::{
    AppendError, Log, Owner, OwnerEvent, OwnerSpec, Position, Record, RestoreRange, TakenShard, TopicPartition,
};

use super::{Backend, MAX, POLL, create, record, text};
use crate::wait;

/// How many shards the cases share.
pub const SHARDS: i32 = 4;
/// The topic that holds the state of the cases' service.
pub const STATE: &str = "state";
/// The topic that the cases' service reads.
pub const INPUT: &str = "input";
/// The topic that every member reads whole; its one partition is no shard.
pub const SHARED: &str = "shared";
/// The topic of owner records.
pub const OWNERS: &str = "owners";

/// A share in the shards.
pub struct Member {
    /// The share.
    pub owner: Box<dyn Owner>,
    /// The incarnation under which shards were taken last.
    pub incarnation: Incarnation,
    /// What is ours, with what we were told when we took it.
    pub held: BTreeMap<Shard, TakenShard>,
    /// What a case remembers of each shard; gone with the shard.
    pub memory: BTreeMap<Shard, usize>,
    /// Incarnations that were lost.
    pub lost: Vec<Incarnation>,
    /// Records of inputs.
    pub records: Vec<Record>,
    /// Inputs that were said to be caught up.
    pub caught_up: Vec<TopicPartition>,
}

/// Creates the topics of the cases' service.
#[track_caller]
pub fn create_topics(log: &dyn Log) {
    for topic in [STATE, INPUT, OWNERS] {
        create(log, topic, SHARDS, &[("cleanup.policy", if topic == OWNERS { "compact" } else { "delete" })]);
    }
    create(log, SHARED, 1, &[("cleanup.policy", "compact")]);
}

impl Member {
    /// Joins.
    #[track_caller]
    pub fn join(log: &dyn Log) -> Self {
        let spec = OwnerSpec {
            service: "trigger".to_owned(),
            membership_topic: INPUT.to_owned(),
            owners_topic: OWNERS.to_owned(),
            restore_topics: vec![STATE.to_owned()],
            input_topics: vec![INPUT.to_owned()],
            shared_topics: vec![SHARED.to_owned()],
            outputs: Vec::new(),
            claimed: None,
            shards: SHARDS,
        };
        let owner = log.own(spec).expect("a share");
        let incarnation = owner.incarnation();
        Self {
            owner,
            incarnation,
            held: BTreeMap::new(),
            memory: BTreeMap::new(),
            lost: Vec::new(),
            records: Vec::new(),
            caught_up: Vec::new(),
        }
    }

    /// Polls once and does as told.
    #[track_caller]
    pub fn poll(&mut self) {
        for event in self.owner.poll(MAX, POLL).expect("a poll") {
            match event {
                OwnerEvent::Taken(taken) => {
                    self.incarnation = self.owner.incarnation();
                    for taken in taken {
                        let twice = self.held.insert(taken.shard, taken);
                        assert!(twice.is_none(), "taken twice: {twice:?}");
                    }
                }
                OwnerEvent::Revoking(shards) => {
                    self.held.retain(|shard, _| !shards.contains(shard));
                    self.memory.retain(|shard, _| !shards.contains(shard));
                    self.owner.release(&shards).expect("released");
                }
                OwnerEvent::Lost { reason } => {
                    assert!(!reason.is_empty(), "a reason is given");
                    assert_ne!(self.owner.incarnation(), self.incarnation, "an incarnation never comes back");
                    self.held.clear();
                    self.memory.clear();
                    self.lost.push(self.incarnation.clone());
                }
                OwnerEvent::Records(records) => self.records.extend(records),
                OwnerEvent::CaughtUp(at) => self.caught_up.push(at),
            }
        }
    }

    /// Shards held.
    #[must_use]
    pub fn shards(&self) -> BTreeSet<Shard> {
        self.held.keys().copied().collect()
    }

    /// Reads the state of a shard, as at takeover.
    #[track_caller]
    pub fn restore(&mut self, shard: Shard) -> Vec<String> {
        let taken = self.held.get(&shard).expect("a shard of ours").clone();
        let ranges: Vec<RestoreRange> = taken
            .restore_until
            .iter()
            .map(|(topic, until)| RestoreRange {
                at: TopicPartition::new(topic.clone(), shard.0),
                from: 0,
                until: *until,
            })
            .collect();
        let mut values = Vec::new();
        let mut fold = |record: Record| {
            // Where the back end marks the point of takeover, that record is there too.
            if record.key_text() == Some("decision") {
                values.push(text(&record));
            }
        };
        self.owner.restore(&ranges, &mut fold).expect("restored");
        values
    }

    /// Appends a decision of a shard.
    pub fn decide(&mut self, shard: Shard, value: &str) -> Result<Vec<Position>, AppendError> {
        self.owner.append(&[shard], &[record(STATE, shard.0, "decision", value)])
    }
}

/// All shards.
#[must_use]
pub fn all_shards() -> BTreeSet<Shard> {
    (0..SHARDS).map(Shard).collect()
}

/// Polls all members until the condition holds; no shard may be held twice at any time.
#[track_caller]
pub fn until(backend: &impl Backend, what: &str, members: &mut [&mut Member], done: impl Fn(&[&mut Member]) -> bool) {
    wait::until(what, backend.patience(), || {
        for index in 0..members.len() {
            members[index].poll();
            let all: Vec<Shard> = members.iter().flat_map(|member| member.shards()).collect();
            let distinct: BTreeSet<Shard> = all.iter().copied().collect();
            assert_eq!(all.len(), distinct.len(), "a shard has two owners: {all:?}");
        }
        done(members).then_some(())
    });
}

/// Polls all members until they hold all shards in even shares.
#[track_caller]
pub fn until_shared(backend: &impl Backend, members: &mut [&mut Member]) {
    until(backend, "the shards to be shared evenly", members, |members| {
        let loads: Vec<usize> = members.iter().map(|member| member.held.len()).collect();
        let all: BTreeSet<Shard> = members.iter().flat_map(|member| member.shards()).collect();
        let (least, most) = (loads.iter().min(), loads.iter().max());
        all == all_shards() && most.zip(least).is_some_and(|(most, least)| most - least <= 1)
    });
}
