//! Records of ownership (`schemas/OwnerRecord.avsc`, `Barrier.avsc`, `ShardPositions.avsc`): who owns a shard,
//! up to where a restore must read, and how far inputs were consumed. Not here: the protocol (runtime).
//! Invariant: their keys hold no `/` and so never meet a job id.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::Incarnation;
use crate::time::Timestamp;

/// Key of the barrier record in each topic that a restore reads, and wherever a transaction that was left half done was ended.
pub const BARRIER_KEY: &str = "__barrier";
/// Key of the positions record in a service's state topic.
pub const POSITIONS_KEY: &str = "__positions";

/// A claim on a shard (topics `trigger.owners`, `dispatcher.owners`; key = incarnation; tombstone = released).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "OwnerRecord", rename_all = "camelCase")]
pub struct OwnerRecord {
    /// Who claims.
    pub incarnation: Incarnation,
    /// Every transactional id that this incarnation may write with, retired ones included.
    pub producer_ids: Vec<String>,
    /// Generation of the group membership that the claim rests on.
    pub generation: i32,
    /// Member id of that membership.
    pub member: String,
    /// Host name and process id, for people.
    pub host: String,
    /// Since when, by the owner's clock.
    pub since: Timestamp,
}

/// Marks the point in a topic up to which a new owner restores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "Barrier", rename_all = "camelCase")]
pub struct Barrier {
    /// Who took the shard over.
    pub incarnation: Incarnation,
    /// When, by its clock.
    pub at: Timestamp,
}

/// How far a service has consumed the topics of one shard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename = "ShardPositions", rename_all = "camelCase")]
pub struct ShardPositions {
    /// Topic without prefix → first offset that is not covered.
    pub positions: BTreeMap<String, i64>,
}
