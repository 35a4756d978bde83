//! What must hold of the breakers of a finished simulation, read from what the shards keep, in the order of the log: nobody
//! gets a limit whose breaker is open, one at a time gets one that is half-open, and turns follow each other as they may. Not
//! here: the rest (`check`).

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::setting::{BREAKER_KEY_PREFIX, BreakerEvent, BreakerState, LimitEvent, LimitEventType};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::Record;

use crate::world::World;

/// What has to happen somewhere.
pub(crate) const MOMENTS: [&str; 5] = [
    "the breaker of a queue opens",
    "the breaker of a limit opens",
    "a breaker opens again because the one that tried has failed",
    "a breaker closes because the one that tried has succeeded",
    "a breaker closes because its rule is gone",
];

/// A breaker, and who holds its limit, as the records so far say.
struct Seen {
    state: BreakerState,
    held: BTreeSet<String>,
    /// Half-open: the claim that tries.
    probe: Option<String>,
}

impl Default for Seen {
    fn default() -> Self {
        Self { state: BreakerState::Closed, held: BTreeSet::new(), probe: None }
    }
}

impl Seen {
    fn granted(&mut self, claim: &str) -> Option<String> {
        // Who holds already is told so again.
        if !self.held.insert(claim.to_owned()) {
            return None;
        }
        let is_alone = self.probe.as_ref().is_none_or(|probe| !self.held.contains(probe));
        match self.state {
            BreakerState::Closed | BreakerState::Unknown => None,
            BreakerState::HalfOpen if is_alone => {
                self.probe = Some(claim.to_owned());
                None
            }
            BreakerState::HalfOpen => Some(format!("{claim} is let through beside {:?}, which tries", self.probe)),
            BreakerState::Open => Some(format!("{claim} is let through although it is open")),
        }
    }

    fn turned(&mut self, event: &BreakerEvent) -> Option<String> {
        use BreakerState::{Closed, HalfOpen, Open};
        let (from, to) = (std::mem::replace(&mut self.state, event.state), event.state);
        if from != to {
            self.probe = None;
        }
        let is_legal = match (from, to) {
            // It counts, or lets one through to try; one that is open does nothing but wait.
            (Closed, Closed | Open) | (Open, HalfOpen | Closed) | (HalfOpen, HalfOpen | Open | Closed) => true,
            (Closed | Open | HalfOpen, _) | (BreakerState::Unknown, _) => false,
        };
        (!is_legal).then(|| format!("it turns from {from} to {to}"))
    }
}

/// Adds everything that is wrong.
pub(crate) fn check(world: &World, findings: &mut Vec<String>) {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut turns: BTreeMap<String, Vec<BreakerState>> = BTreeMap::new();
    for record in world.read(topic::RUN_STATE) {
        let key = record.key_text().unwrap_or_default();
        let wrong = if let Some(limit) = key.strip_prefix(BREAKER_KEY_PREFIX) {
            let limit_seen = seen.entry(limit.to_owned()).or_default();
            let before = limit_seen.state;
            let wrong = match breaker_of(&record) {
                Some(event) => limit_seen.turned(&event),
                None => {
                    *limit_seen = Seen { held: std::mem::take(&mut limit_seen.held), ..Seen::default() };
                    None
                }
            };
            if limit_seen.state != before {
                turns.entry(limit.to_owned()).or_default().push(limit_seen.state);
            }
            wrong.map(|wrong| format!("{limit}: {wrong}"))
        } else if let Some((limit, claim)) = key.strip_prefix("limit:").and_then(|key| key.split_once(':')) {
            let limit_seen = seen.entry(limit.to_owned()).or_default();
            let event: Option<LimitEvent> =
                record.value.as_deref().map(|value| codec::decode(value).expect("our own records decode"));
            match event.map(|event| event.kind) {
                Some(LimitEventType::Grant) => limit_seen.granted(claim).map(|wrong| format!("{limit}: {wrong}")),
                Some(LimitEventType::Acquire | LimitEventType::Release | LimitEventType::Unknown) => None,
                None => {
                    limit_seen.held.remove(claim);
                    None
                }
            }
        } else {
            None
        };
        findings.extend(wrong);
    }
    let told = told(world);
    for (limit, turns) in turns {
        let told: Vec<BreakerState> =
            told.iter().filter(|event| event.limit.as_str() == limit).map(|it| it.state).collect();
        if told != turns {
            findings.push(format!("{limit}: it did {turns:?} and told {told:?}"));
        }
    }
}

/// Turns as everybody is told of them.
fn told(world: &World) -> Vec<BreakerEvent> {
    world.read(topic::LIMITS).iter().filter_map(breaker_of).collect()
}

fn breaker_of(record: &Record) -> Option<BreakerEvent> {
    record.key_text().filter(|key| key.starts_with(BREAKER_KEY_PREFIX))?;
    Some(codec::decode(record.value.as_deref()?).expect("our own records decode"))
}

/// Which of [`MOMENTS`] are in this world.
pub(crate) fn moments(world: &World) -> BTreeSet<&'static str> {
    let moment = |event: BreakerEvent| match (event.state, event.run_id.is_some()) {
        (BreakerState::Open, _) if event.failures == 0 => Some(MOMENTS[2]),
        (BreakerState::Open, _) if event.limit.is_of_queue() => Some(MOMENTS[0]),
        (BreakerState::Open, _) => Some(MOMENTS[1]),
        (BreakerState::Closed, true) => Some(MOMENTS[3]),
        (BreakerState::Closed, false) => Some(MOMENTS[4]),
        (BreakerState::HalfOpen | BreakerState::Unknown, _) => None,
    };
    told(world).into_iter().filter_map(moment).collect()
}
