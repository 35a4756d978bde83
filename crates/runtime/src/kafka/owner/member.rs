//! Membership in the group that shares a service's shards: what was assigned, what is asked back, and under which
//! membership. Not here: what ownership takes beyond that (`takeover`). Invariants: the group metadata is captured
//! in the callback of an assignment and nowhere else; the consumer never reads a record.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orloj_domain::shard::Shard;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaRespErr;

use crate::kafka::client::{Complaints, drop_aside, leave_within, lock, poll_at_hand};
use crate::kafka::config::KafkaConfig;
use crate::kafka::keeper::Kept;
use crate::kafka::{fault, ffi};
use crate::log::LogError;

/// A membership as it was in the callback of an assignment: what claims are checked against.
pub(super) struct Membership {
    /// For the check by the broker.
    pub(super) metadata: ConsumerGroupMetadata,
    /// Generation of the group.
    pub(super) generation: i32,
    /// Our member id.
    pub(super) member: String,
}

/// What happened to our share.
pub(super) enum Change {
    /// A rebalance ended and brought these shards, often none. The membership is `None` if it was void: nothing
    /// may be claimed before the next one.
    Assigned {
        /// Shards that are new to us, as the group sees it.
        shards: Vec<Shard>,
        /// The membership of this moment.
        membership: Option<Arc<Membership>>,
    },
    /// These shards are asked back: release them, then call [`Member::give_up`].
    Revoked(Vec<Shard>),
    /// The group has taken these shards already; there is nothing to answer.
    Lost(Vec<Shard>),
}

/// Our membership. Serve it by [`Member::poll`] at least every few seconds.
pub(super) struct Member {
    consumer: Option<Kept<BaseConsumer<Context>>>,
    topic: String,
}

impl Member {
    /// Joins the group. `on_event` is called, from any thread, when [`Member::poll`] may have something.
    pub(super) fn join(
        config: &KafkaConfig,
        group: &str,
        topic: &str,
        on_event: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, LogError> {
        let topic = config.full_name(topic);
        let fault = |error: &KafkaError| fault::of_read(&topic, error);
        let context = Context { complaints: Complaints::new("member"), captured: Mutex::default() };
        let consumer = config.for_member(group).create_with_context(context);
        let mut consumer: BaseConsumer<Context> = consumer.map_err(|error| fault(&error))?;
        consumer.set_nonempty_callback(on_event);
        consumer.subscribe(&[&topic]).map_err(|error| fault(&error))?;
        Ok(Self { consumer: Some(config.kept(consumer)), topic })
    }

    /// Serves the membership without waiting; what changed, in order.
    pub(super) fn poll(&mut self) -> Result<Vec<Change>, LogError> {
        let Some(consumer) = &self.consumer else { return Ok(Vec::new()) };
        let mut changes = Vec::new();
        let mut failure = None;
        loop {
            let polled = poll_at_hand(consumer, || !lock(&consumer.context().captured).is_empty());
            let captured = lock(&consumer.context().captured).pop_front();
            let is_idle = polled.is_none() && captured.is_none();
            // Records are never wanted here; one that slipped in between assigning and pausing is dropped.
            if let Some(Err(error)) = polled
                && !fault::is_passing(&error)
            {
                failure = Some(fault::of_read(&self.topic, &error));
            }
            if let Some(captured) = captured {
                changes.push(answer(consumer, captured));
            }
            if is_idle {
                break;
            }
        }
        // What changed must be known whatever else happened; an error that stays comes again.
        match failure {
            Some(error) if changes.is_empty() => Err(error),
            _ => Ok(changes),
        }
    }

    /// Hands shards back to the group after a [`Change::Revoked`].
    pub(super) fn give_up(&self, shards: &[Shard]) {
        let Some(consumer) = &self.consumer else { return };
        if let Err(error) = consumer.incremental_unassign(&self.list(shards)) {
            tracing::debug!(%error, "the group has taken these shards already");
        }
    }

    /// Asks to leave; [`Member::poll`] brings the last [`Change::Revoked`].
    pub(super) fn unsubscribe(&self) {
        if let Some(consumer) = &self.consumer {
            consumer.unsubscribe();
        }
    }

    /// Says good-bye to the group, after [`Member::unsubscribe`], so that our share moves on at once; waits for that at most `timeout`.
    pub(super) fn close(&mut self, timeout: Duration) {
        if let Some(consumer) = self.consumer.take() {
            leave_within(consumer, timeout);
        }
    }

    fn list(&self, shards: &[Shard]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(shards.len());
        for shard in shards {
            list.add_partition(&self.topic, shard.0);
        }
        list
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            drop_aside(consumer);
        }
    }
}

/// Answers the group where nothing has to happen first. librdkafka waits for this call as long as the poll
/// interval allows, inside the callback or after it.
fn answer(consumer: &BaseConsumer<Context>, captured: Captured) -> Change {
    let Captured { shards, mut list, kind } = captured;
    match kind {
        Kind::Assigned(membership) => {
            // From the end on and paused: with a position given nothing asks for committed offsets, and nothing
            // is ever fetched. That a pause outlives the assignment is welcome here.
            let set = list.set_all_offsets(Offset::End).and_then(|()| consumer.incremental_assign(&list));
            if let Err(error) = set {
                tracing::warn!(%error, "the group has changed its mind about an assignment");
            }
            if let Err(error) = consumer.pause(&list) {
                tracing::debug!(%error, "not paused; records will be dropped instead");
            }
            Change::Assigned { shards, membership }
        }
        Kind::Revoked => Change::Revoked(shards),
        Kind::Lost => {
            if let Err(error) = consumer.incremental_unassign(&list) {
                tracing::debug!(%error, "lost shards were taken off already");
            }
            Change::Lost(shards)
        }
    }
}

struct Captured {
    shards: Vec<Shard>,
    list: TopicPartitionList,
    kind: Kind,
}

enum Kind {
    Assigned(Option<Arc<Membership>>),
    Revoked,
    Lost,
}

struct Context {
    complaints: Complaints,
    captured: Mutex<VecDeque<Captured>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.complaints.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl ConsumerContext for Context {
    /// Only writes down what is true at this moment; the answer to the group follows when the poll has returned.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let kind = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            Kind::Assigned(capture(consumer))
        } else if consumer.assignment_lost() {
            // Only `true` says something: the answer may turn true right after it was asked for.
            Kind::Lost
        } else {
            Kind::Revoked
        };
        let shards = list.elements().iter().map(|element| Shard(element.partition())).collect();
        lock(&self.captured).push_back(Captured { shards, list: list.clone(), kind });
    }
}

/// The membership, or `None` if it is void: without a generation or a member id the broker would check nothing.
/// Asked for twice around the metadata, so that all three are of the same moment.
fn capture(consumer: &BaseConsumer<Context>) -> Option<Arc<Membership>> {
    let before = ffi::generation_and_member(consumer)?;
    let metadata = consumer.group_metadata()?;
    let after = ffi::generation_and_member(consumer)?;
    let (generation, member) = after.clone();
    let is_void = before != after || generation < 0 || member.is_empty();
    (!is_void).then(|| Arc::new(Membership { metadata, generation, member }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outside of a group librdkafka hands out metadata all the same, and a broker would not check it.
    #[test]
    fn a_membership_outside_of_a_group_is_void() {
        let properties = [("bootstrap.servers".to_owned(), "127.0.0.1:1".to_owned())];
        let config = KafkaConfig { properties: properties.into_iter().collect(), prefix: "x.".to_owned() };
        let context = Context { complaints: Complaints::new("member"), captured: Mutex::default() };
        let consumer: BaseConsumer<Context> =
            config.for_member("group").create_with_context(context).expect("a consumer");
        assert_eq!(ffi::generation_and_member(&consumer), Some((-1, String::new())));
        assert!(consumer.group_metadata().is_some());
        assert!(capture(&consumer).is_none());
        drop_aside(consumer);
    }
}
