//! Bounds that runs of many jobs share: those of a queue (`kind: Queue`) and named ones (`kind: Limit`), with their breakers.
//! How they are written, who goes first, and when the next may go. Not here: who keeps them (the dispatcher of the shard that the
//! limit's key belongs to), and what a run does meanwhile (`run`). Invariant: as long as its rule stands, a limit is never
//! held by more than it allows, and whoever waits for it is served in the end.

mod breaker;
mod gate;
mod host;
mod line;
mod manifest;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::id::{HttpHost, LimitId, QueueName, RunId};

pub use breaker::{Breaker, BreakerRule, Change, Counts, Why};
pub use gate::{Gate, Grant, Next, Turn};
pub use host::host_of_url;
pub(crate) use host::{is_host, port_of};
pub use line::{Line, Waiter};
pub use manifest::{BreakerSpec, LimitManifest, LimitSpec, parse_json, to_rule};
pub use verdict::verdict;

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
/// Most failures that a breaker waits for, inclusive.
pub const FAILURES_MAX: i32 = 10_000;
/// Shortest window of a breaker, and shortest time for which it is open, inclusive.
pub const BREAKER_TIME_MIN: Duration = Duration::from_secs(1);
/// Longest window of a breaker, and longest time for which it is open, inclusive.
pub const BREAKER_TIME_MAX: Duration = Duration::from_secs(86_400);
/// By how long a run that waits comes one level of priority up.
pub const AGING: Duration = Duration::from_secs(60);

/// What a limit allows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitRule {
    /// Most runs that hold it at once, 1 or more; `None` for any number.
    pub max_concurrent: Option<i32>,
    /// How many runs get it per second, on average; `None` for any number.
    pub rate_per_second: Option<f64>,
    /// How many may get it at once under a rate, 1 or more.
    pub burst: i32,
    /// Nobody gets it.
    pub is_paused: bool,
    /// When nobody gets it because too many fail.
    pub breaker: Option<BreakerRule>,
    /// Whose targets are at this host needs it too, without naming it.
    pub host: Option<HttpHost>,
}

impl LimitRule {
    /// True if somebody may have to wait for it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.max_concurrent.is_some() || self.rate_per_second.is_some() || self.is_paused || self.breaker.is_some()
    }
}

/// A run's wish for one attempt: the run, and the fencing token of that attempt.
pub type Claim = (RunId, i64);

/// The rules in force, by limit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LimitRules {
    rules: BTreeMap<LimitId, LimitRule>,
    by_host: BTreeMap<HttpHost, BTreeSet<LimitId>>,
}

impl LimitRules {
    /// The rule of a limit; `None` if there is none.
    #[must_use]
    pub fn get(&self, limit: &LimitId) -> Option<&LimitRule> {
        self.rules.get(limit)
    }

    /// Puts a rule in force. True if that changes anything.
    pub fn put(&mut self, limit: LimitId, rule: LimitRule) -> bool {
        if self.get(&limit) == Some(&rule) {
            return false;
        }
        self.remove(&limit);
        if let Some(host) = &rule.host {
            self.by_host.entry(host.clone()).or_default().insert(limit.clone());
        }
        self.rules.insert(limit, rule);
        true
    }

    /// Takes a rule out of force. True if there was one.
    pub fn remove(&mut self, limit: &LimitId) -> bool {
        let Some(rule) = self.rules.remove(limit) else { return false };
        if let Some(host) = &rule.host
            && let Some(limits) = self.by_host.get_mut(host)
        {
            limits.remove(limit);
            if limits.is_empty() {
                self.by_host.remove(host);
            }
        }
        true
    }

    /// The limit of a queue, if somebody may have to wait for it.
    #[must_use]
    pub fn of_queue(&self, queue: &QueueName) -> Option<LimitId> {
        if self.rules.is_empty() {
            return None;
        }
        let limit = LimitId::of_queue(queue);
        self.get(&limit).is_some_and(LimitRule::is_bound).then_some(limit)
    }

    /// Limits of a host and port, as [`host_of_url`] gives them: those of the host at any port, and at this one.
    pub fn of_host(&self, host: &HttpHost) -> impl Iterator<Item = &LimitId> {
        let at_port = self.by_host.get(host);
        let at_any = if self.by_host.is_empty() { None } else { self.by_host.get(&host.without_port()) };
        // A host without a port is its own.
        let at_any = at_any.filter(|_| host.without_port() != *host);
        at_port.into_iter().chain(at_any).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_the_host_of_a_target() {
        let mut rules = LimitRules::default();
        let limit = |name: &str| -> LimitId { format!("limit/{name}").parse().expect("limit") };
        let rule = |host: &str| LimitRule { host: host.parse().ok(), ..LimitRule::default() };
        assert!(rules.put(limit("any"), rule("api.example.com")));
        assert!(rules.put(limit("same"), rule("api.example.com")));
        assert!(rules.put(limit("tls"), rule("api.example.com:443")));
        assert!(rules.put(limit("other"), rule("example.com")));
        let found = |rules: &LimitRules, url: &str| -> Vec<String> {
            let host = host_of_url(url).expect("a host");
            rules.of_host(&host).map(|limit| limit.name().to_owned()).collect()
        };
        assert_eq!(found(&rules, "https://API.example.com/x"), ["tls", "any", "same"]);
        assert_eq!(found(&rules, "http://api.example.com/x"), ["any", "same"]);
        assert_eq!(found(&rules, "https://example.com"), ["other"]);
        assert_eq!(found(&rules, "https://www.example.com"), Vec::<String>::new());
        assert!(rules.put(limit("any"), rule("example.com")) && !rules.put(limit("any"), rule("example.com")));
        assert!(rules.remove(&limit("tls")) && !rules.remove(&limit("tls")));
        assert_eq!(found(&rules, "https://api.example.com/x"), ["same"]);
        assert_eq!(found(&rules, "https://example.com"), ["any", "other"]);
        for name in ["any", "same", "other"] {
            rules.remove(&limit(name));
        }
        assert_eq!(rules, LimitRules::default());
    }
}
