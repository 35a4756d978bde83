//! Offers: the newest record of each job in `jobs`, so that a job which no trigger has answered yet is known to
//! exist. Not here: whether it is in force (`jobs`). Invariant: a record in the wrong partition is not an offer.

use orloj_domain::id::JobId;
use orloj_domain::shard::ShardCount;
use orloj_runtime::driver::check_partition;
use orloj_runtime::log::Record;

use super::{Change, Unreadable};

/// The newest offer of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) job: JobId,
    pub(crate) offset: i64,
    pub(crate) is_delete: bool,
}

pub(super) fn fold(record: &Record, shards: ShardCount, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let job: JobId = record
        .key_text()
        .unwrap_or_default()
        .parse()
        .map_err(|error: orloj_domain::id::IdError| Unreadable(error.to_string()))?;
    check_partition(record, shards).map_err(|error| Unreadable(error.to_string()))?;
    changes.push(Change::Offered(Offer { job, offset: record.offset, is_delete: record.value.is_none() }));
    Ok(())
}
