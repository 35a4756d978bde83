//! Bounds that runs of many jobs share: those of a queue (`kind: Queue`) and named ones (`kind: Limit`). How they are
//! written, who goes first, and when the next may go. Not here: who keeps them (the dispatcher of the shard that the
//! limit's key belongs to), and what a run does meanwhile (`run`). Invariant: as long as its rule stands, a limit is never
//! held by more than it allows, and whoever waits for it is served in the end.

mod gate;
mod line;
mod manifest;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{LimitId, QueueName, RunId};

pub use gate::{Gate, Next};
pub use line::{Line, Waiter};
pub use manifest::{LimitManifest, LimitSpec, parse_json, to_rule};

/// The `kind` of a queue's manifest.
pub const QUEUE_KIND: &str = "Queue";
/// The `kind` of a shared limit's manifest.
pub const LIMIT_KIND: &str = "Limit";
/// Largest manifest of a queue or a limit in bytes, inclusive.
pub const MANIFEST_BYTES_MAX: usize = 16 * 1024;
/// Most limits that a job names, inclusive.
pub const LIMITS_OF_JOB_MAX: usize = 8;
/// Most runs that hold a limit at once, inclusive.
pub const CONCURRENT_MAX: i32 = 1_000_000;
/// Highest rate, in runs per second, inclusive.
pub const RATE_MAX: f64 = 100_000.0;
/// Lowest rate, in runs per second, inclusive: about one a day.
pub const RATE_MIN: f64 = 0.000_01;
/// By how long a run that waits comes one level of priority up.
pub const AGING: Duration = Duration::from_secs(60);

/// What a limit allows.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct LimitRule {
    /// Most runs that hold it at once, 1 or more; `None` for any number.
    pub max_concurrent: Option<i32>,
    /// How many runs get it per second, on average; `None` for any number.
    pub rate_per_second: Option<f64>,
    /// How many may get it at once under a rate, 1 or more.
    pub burst: i32,
    /// Nobody gets it.
    pub is_paused: bool,
}

impl LimitRule {
    /// True if somebody may have to wait for it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.max_concurrent.is_some() || self.rate_per_second.is_some() || self.is_paused
    }
}

/// A run's wish for one attempt: the run, and the fencing token of that attempt.
pub type Claim = (RunId, i64);

/// The rules in force, by limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitRules(BTreeMap<LimitId, LimitRule>);

impl LimitRules {
    /// The rule of a limit; `None` if there is none.
    #[must_use]
    pub fn get(&self, limit: &LimitId) -> Option<&LimitRule> {
        self.0.get(limit)
    }

    /// Puts a rule in force. True if that changes anything.
    pub fn put(&mut self, limit: LimitId, rule: LimitRule) -> bool {
        self.0.insert(limit, rule) != Some(rule)
    }

    /// Takes a rule out of force. True if there was one.
    pub fn remove(&mut self, limit: &LimitId) -> bool {
        self.0.remove(limit).is_some()
    }

    /// The limit of a queue, if somebody may have to wait for it.
    #[must_use]
    pub fn of_queue(&self, queue: &QueueName) -> Option<LimitId> {
        if self.0.is_empty() {
            return None;
        }
        let limit = LimitId::of_queue(queue);
        self.get(&limit).is_some_and(LimitRule::is_bound).then_some(limit)
    }
}
