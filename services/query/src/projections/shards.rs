//! Shards: who claimed each of them and has not released it. Not here: who is alive, which only the log's group
//! membership knows. Invariant: of several claims the one with the highest offset is the owner.

use orloj_domain::owner::{OwnerRecord, ShardPositions};
use orloj_domain::topic;
use orloj_runtime::log::Record;

use super::{Change, Unreadable, decoded};

/// A service whose instances own shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnerService {
    Trigger,
    Dispatcher,
}

impl OwnerService {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Trigger => "trigger",
            Self::Dispatcher => "dispatcher",
        }
    }
}

/// A claim on a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnerRow {
    pub(crate) service: OwnerService,
    pub(crate) shard: i32,
    pub(crate) incarnation: String,
    pub(crate) offset: i64,
    pub(crate) host: String,
    pub(crate) since: i64,
}

pub(super) fn fold(service: OwnerService, record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(owner) = decoded::<OwnerRecord>(record)? else {
        let incarnation =
            record.key_text().ok_or_else(|| Unreadable("a release that names nobody".to_owned()))?.to_owned();
        changes.push(Change::Released { service, shard: record.partition, incarnation });
        return Ok(());
    };
    changes.push(Change::Owned(OwnerRow {
        service,
        shard: record.partition,
        incarnation: owner.incarnation.to_string(),
        offset: record.offset,
        host: owner.host,
        since: owner.since.millis(),
    }));
    Ok(())
}

/// How far the trigger has come with its inputs, as it saves it every few seconds: what lies before is dealt with.
pub(super) fn fold_positions(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(saved) = decoded::<ShardPositions>(record)? else { return Ok(()) };
    for topic in [topic::JOBS, topic::COMMANDS] {
        if let Some(next) = saved.positions.get(topic) {
            changes.push(Change::Answered { topic, partition: record.partition, next: *next });
        }
    }
    Ok(())
}
