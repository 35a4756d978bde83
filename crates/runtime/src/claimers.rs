//! Who claims from queues, learned from what runners say of themselves. Not here: claiming (`log::Claimer`). Invariant: a
//! runner has said so before it claims, and is found for as long as the log keeps its last word.

use std::collections::BTreeSet;
use std::time::Duration;

use orloj_domain::id::QueueName;
use orloj_domain::runner::RunnerHeartbeat;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;

use crate::codec;
use crate::log::{ClaimerName, Isolation, Log, LogError, TopicPartition};

/// Records taken at once.
const RECORDS_MAX: usize = 5000;
/// Longest wait for more of what is known to be there.
const READ_WAIT: Duration = Duration::from_secs(5);

/// The group of those who claim from a queue.
#[must_use]
pub fn group(queue: &QueueName) -> String {
    format!("runner.{queue}")
}

/// Every runner that gave a sign of life that is still kept, once for each of its queues.
///
/// # Errors
/// [`LogError`] when the heartbeats can't be read up to their present end.
pub fn of_heartbeats(log: &dyn Log) -> Result<Vec<ClaimerName>, LogError> {
    let at = TopicPartition::new(topic::RUNNER_HEARTBEATS, 0);
    let end = log.end(&at, Isolation::Committed)?;
    let mut next = log.offset_at(&at, Timestamp::from_millis(0))?;
    let mut reader = log.reader(Isolation::Committed)?;
    reader.read_from(&[(at, next)])?;
    let mut found = BTreeSet::new();
    while next < end {
        let records = reader.poll(RECORDS_MAX, READ_WAIT)?;
        let Some(last) = records.last() else {
            // The last heartbeat is never compacted away, and none is in a transaction.
            return Err(LogError::Unavailable(format!("{}: read up to {next} of {end}", topic::RUNNER_HEARTBEATS)));
        };
        next = last.offset + 1;
        for heartbeat in
            records.iter().filter_map(|record| codec::decode::<RunnerHeartbeat>(record.value.as_deref()?).ok())
        {
            let member = RunnerHeartbeat::claimer(&heartbeat.runner, &heartbeat.host);
            let names =
                heartbeat.queues.iter().map(|queue| ClaimerName { group: group(queue), member: member.clone() });
            found.extend(names);
        }
    }
    Ok(found.into_iter().collect())
}
