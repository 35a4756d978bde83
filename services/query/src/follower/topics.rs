//! Which partitions are followed, and whether the log has what an installation needs. Not here: reading them.
//! Invariant: a topic with another number of partitions than there are shards stops the service, by name.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::log::{TopicPartition, TopicSpec};

use super::Fault;
use crate::projections::{SHARDED_TOPICS, TOPICS};

/// The partitions to follow.
pub(super) fn partitions(found: &[TopicSpec], shards: ShardCount) -> Result<BTreeSet<TopicPartition>, Fault> {
    let counts: BTreeMap<&str, i32> = found.iter().map(|spec| (spec.name.as_str(), spec.partitions)).collect();
    let missing: Vec<&str> = TOPICS.into_iter().filter(|name| !counts.contains_key(name)).collect();
    if !missing.is_empty() {
        let names = missing.join(", ");
        return Err(Fault::Retriable(format!("the log has no topic {names}: run `orloj topics apply`")));
    }
    for name in SHARDED_TOPICS {
        let Some(count) = counts.get(name).filter(|count| **count != shards.get()) else { continue };
        let wanted = shards.get();
        return Err(Fault::Fatal(format!(
            "topic `{name}` has {count} partitions and the configuration says `shards = {wanted}`: they must be equal"
        )));
    }
    let is_followed = |name: &str| TOPICS.contains(&name) || name.starts_with(topic::DLQ_PREFIX);
    let all = counts.iter().filter(|(name, _)| is_followed(name));
    Ok(all.flat_map(|(name, count)| (0..*count).map(|partition| TopicPartition::new(*name, partition))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, partitions: i32) -> TopicSpec {
        TopicSpec { name: name.to_owned(), partitions, replication: 1, settings: BTreeMap::new() }
    }

    fn all(count: i32) -> Vec<TopicSpec> {
        TOPICS.into_iter().map(|name| spec(name, count)).collect()
    }

    #[test]
    fn what_is_missing_or_of_another_size_is_said_by_name() {
        let shards = ShardCount::new(2).expect("a count");
        let fault = partitions(&[], shards).expect_err("nothing there");
        assert!(matches!(fault, Fault::Retriable(text) if text.contains("no topic jobs, job.events")));
        let fault = partitions(&all(3), shards).expect_err("too many");
        assert!(
            matches!(fault, Fault::Fatal(text) if text.contains("`jobs` has 3 partitions") && text.contains("shards = 2"))
        );
    }

    #[test]
    fn dead_letters_of_every_queue_are_followed() {
        let mut found = all(2);
        found.extend([spec("dlq.default", 1), spec("run.ready.default", 2), spec("settings", 1)]);
        let followed = partitions(&found, ShardCount::new(2).expect("a count")).expect("complete");
        // Of two partitions each, but the settings.
        assert_eq!(followed.len(), TOPICS.len() * 2);
        assert!(followed.contains(&TopicPartition::new("dlq.default", 0)));
    }
}
