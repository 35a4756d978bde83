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
}
