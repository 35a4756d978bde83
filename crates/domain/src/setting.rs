//! Installation-wide settings (`schemas/Setting.avsc`, topic `settings`) and the ledger of shared limits
//! (`schemas/LimitEvent.avsc`, topic `limits`). Not here: who grants. Invariant: a setting is read by all
//! services, from one partition, so that all see the same order.

use serde::{Deserialize, Serialize};

use crate::id::{JobId, LimitId, RunId};
use crate::job::words;
use crate::time::Timestamp;

words! {
    /// What a setting is about.
    SettingKind {
        /// Named sets of dates.
        Calendar = "calendar",
        /// A queue's limits.
        Queue = "queue",
        /// A shared limit.
        Limit = "limit",
        /// An API token's digest.
        Token = "token",
        /// A kind that a newer version wrote.
        Unknown = "unknown",
    }
}

/// One named setting; key = `kind/name`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Setting", rename_all = "camelCase")]
pub struct Setting {
    /// What it is about.
    pub kind: SettingKind,
    /// Its name within the kind.
    pub name: String,
    /// When it was written, by the writer's clock.
    pub at: Timestamp,
    /// Who wrote it.
    pub actor: Option<String>,
    /// The setting itself as a JSON document.
    pub document: String,
}

words! {
    /// A step of a shared limit.
    LimitEventType {
        /// A run asks.
        Acquire = "acquire",
        /// It may go on.
        Grant = "grant",
        /// It gives back.
        Release = "release",
        /// A step that a newer version wrote.
        Unknown = "unknown",
    }
}

/// One step of a shared limit; key = limit. The shard of the run says acquire and release to the shard of the limit, which
/// says grant to the shard of the run. What is asked for or held stands in `run.state` as the step that it came to last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "LimitEvent", rename_all = "camelCase")]
pub struct LimitEvent {
    /// Which step.
    #[serde(rename = "type")]
    pub kind: LimitEventType,
    /// The limit.
    pub limit: LimitId,
    /// The run that asks or gives back.
    pub run_id: RunId,
    /// Units asked for; 1.
    pub units: i64,
    /// When it was decided.
    pub at: Timestamp,
    /// The job of the run.
    pub job: JobId,
    /// The fencing token of the attempt that it is for.
    pub token: i64,
    /// 0 lowest ..= 9 highest.
    pub priority: i32,
    /// Since when it waits.
    pub since: Timestamp,
    /// Grant under a rate: up to when the rate is used up, in nanoseconds since the Unix epoch; else 0.
    pub used_until_nanos: i64,
    /// Release: what the attempt says of what the limit guards.
    pub verdict: Verdict,
}

words! {
    /// What the end of an attempt says of what a limit guards.
    Verdict {
        /// Nothing.
        Nothing = "nothing",
        /// That it works.
        Succeeded = "succeeded",
        /// That it does not: of a queue, that a run ended as a dead letter.
        Failed = "failed",
        /// Of a queue: the attempt failed, and its run is no dead letter by that.
        Retried = "retried",
        /// What a newer version says.
        Unknown = "unknown",
    }
}

words! {
    /// Whether a breaker lets runs through.
    BreakerState {
        /// All of them.
        Closed = "closed",
        /// None of them.
        Open = "open",
        /// One at a time, to try.
        HalfOpen = "halfOpen",
        /// A state that a newer version wrote.
        Unknown = "unknown",
    }
}

/// What keys of `limits` and `run.state` begin with that are about breakers; the limit follows.
pub const BREAKER_KEY_PREFIX: &str = "breaker:";

/// What ended in a part of a breaker's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "BreakerCount", rename_all = "camelCase")]
pub struct BreakerCount {
    /// When the part begins.
    pub since: Timestamp,
    /// How many ended, as far as that is counted.
    pub ended: i32,
    /// How many of them count as failures.
    pub failed: i32,
}

/// How the breaker of a queue or a shared limit stands; key = `breaker:` and the limit. In `limits` after each turn; in
/// `run.state` whenever what must be known of it changes, with a null value for one that is closed and has counted nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "BreakerEvent", rename_all = "camelCase")]
pub struct BreakerEvent {
    /// The queue or the limit.
    pub limit: LimitId,
    /// Its state from here on.
    pub state: BreakerState,
    /// When this was decided.
    pub at: Timestamp,
    /// Open: nobody is let through before.
    pub until: Option<Timestamp>,
    /// Open and half-open: how long it is open, or was last, in milliseconds.
    pub open_for_ms: i64,
    /// Opened: how many failures it has counted.
    pub failures: i32,
    /// Opened: of how many that ended, where that is counted too; else 0.
    pub ended: i32,
    /// Opened: within how many milliseconds.
    pub window_ms: i64,
    /// The run whose end turned it.
    pub run_id: Option<RunId>,
    /// The job of that run.
    pub job: Option<JobId>,
    /// Why it turned, for people.
    pub reason: Option<String>,
    /// Half-open: the run that was let through last.
    pub probe_run_id: Option<RunId>,
    /// Half-open: the fencing token of the attempt that it was let through for; else 0.
    pub probe_token: i64,
    /// Closed: what was counted.
    pub counts: Vec<BreakerCount>,
}
