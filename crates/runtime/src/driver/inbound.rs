//! Records that can't be used: what is wrong with them, and how they are kept. Not here: decoding (`codec`).
//! Invariant: a quarantined record keeps key, value and headers byte for byte; headers are added, never changed.

use orloj_domain::job_event::FieldError;
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;

pub use crate::codec::input::Undecodable;
use crate::log::{Header, NewRecord, Record};

impl Undecodable {
    /// One complaint.
    #[must_use]
    pub fn new(field: &str, value: &str, message: impl Into<String>) -> Self {
        Self { errors: vec![FieldError::new(field, value, message)] }
    }
}

/// Checks that a job-keyed record is in the partition its key belongs to.
///
/// # Errors
/// [`Undecodable`] that names both partitions and the producer setting to change.
pub fn check_partition(record: &Record, shards: ShardCount) -> Result<(), Undecodable> {
    let key = record.key.as_deref().unwrap_or_default();
    let wanted = shards.shard_of_key(key);
    if wanted.0 == record.partition {
        return Ok(());
    }
    Err(Undecodable::new(
        "partition",
        &record.partition.to_string(),
        format!(
            "the key belongs to partition {wanted}: partition by murmur2 of the key (the Java client's default; \
             with librdkafka set `partitioner=murmur2_random`)"
        ),
    ))
}

/// The record as it is kept in quarantine.
#[must_use]
pub fn quarantined(record: &Record, reason: &Undecodable) -> NewRecord {
    let mut headers = record.headers.clone();
    headers.push(Header::text("orloj-quarantine-topic", &record.topic));
    headers.push(Header::text("orloj-quarantine-partition", record.partition));
    headers.push(Header::text("orloj-quarantine-offset", record.offset));
    headers.push(Header::text("orloj-quarantine-error", reason));
    NewRecord {
        topic: topic::QUARANTINE.into(),
        partition: record.partition,
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
    }
}
