//! Does the log have the shards that the settings say? Works over any log. Not here: making or changing topics.
//! Invariant: a topic with another number of partitions is never used, for its jobs would change their shard.

use crate::log::{Log, LogError};

/// Compares the partition counts of the job-keyed topics with the number of shards.
///
/// # Errors
/// [`LogError::Misconfigured`] that names each topic which is missing or differs, and what to do about it;
/// other errors when the topics can't be listed.
pub fn check_shards(log: &dyn Log, shards: i32, job_keyed_topics: &[String]) -> Result<(), LogError> {
    let found = log.topics()?;
    let mut differing = Vec::new();
    let mut missing = Vec::new();
    for name in job_keyed_topics {
        match found.iter().find(|topic| topic.name == *name) {
            None => missing.push(format!("`{name}`")),
            Some(topic) if topic.partitions != shards => {
                differing.push(format!("topic `{name}` has {} partitions", topic.partitions));
            }
            Some(_) => {}
        }
    }
    if !differing.is_empty() {
        return Err(LogError::Misconfigured(format!(
            "{}, but `shards` is {shards}: set `shards` to what the topics were made with, or use another \
             `topics.prefix` for new topics; the number can't change once jobs exist",
            differing.join(", ")
        )));
    }
    if !missing.is_empty() {
        return Err(LogError::Misconfigured(format!(
            "missing topics: {}; `orloj topics apply` makes them with {shards} partitions",
            missing.join(", ")
        )));
    }
    Ok(())
}
