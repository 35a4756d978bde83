//! What the group tells a claimer, written down in the callbacks of its client. Not here: what is done about it (`claimer`).
//! Invariant: the membership that a claim rests on is captured in the callback of an assignment and nowhere else.

use std::sync::{Arc, Mutex};

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, TopicPartitionList};

use super::client::{Complaints, lock};
use super::ffi::generation_and_member;

/// What the callbacks write down.
pub(super) struct Membership {
    complaints: Complaints,
    pub(super) changes: Mutex<Changes>,
}

/// What changed since somebody looked.
#[derive(Default)]
pub(super) struct Changes {
    /// As of the last assignment; none before the first, and none once it was refused or was void.
    pub(super) membership: Option<Arc<ConsumerGroupMetadata>>,
    /// There was a rebalance that the claimer has not acted on.
    pub(super) has_changed: bool,
    /// Topics (full names) and partitions taken from us.
    revoked: Vec<(String, i32)>,
}

impl Changes {
    /// What was taken from us; the change is acted on.
    pub(super) fn take(&mut self) -> Vec<(String, i32)> {
        self.has_changed = false;
        std::mem::take(&mut self.revoked)
    }

    /// Forgets a membership that the group has refused.
    pub(super) fn discard(&mut self, refused: &Arc<ConsumerGroupMetadata>) {
        if self.membership.as_ref().is_some_and(|current| Arc::ptr_eq(current, refused)) {
            self.membership = None;
        }
    }
}

impl Membership {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { complaints: Complaints::new("claimer"), changes: Mutex::new(Changes::default()) }
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.complaints.log(level, facility, message);
    }

    fn stats(&self, _statistics: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaints.error(error, reason);
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let is_assignment = code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        let answered = if is_assignment {
            let membership = capture(consumer);
            lock(&self.changes).membership = membership.map(Arc::new);
            consumer.incremental_assign(list)
        } else {
            let elements = list.elements();
            let revoked = elements.iter().map(|element| (element.topic().to_owned(), element.partition()));
            lock(&self.changes).revoked.extend(revoked);
            consumer.incremental_unassign(list)
        };
        lock(&self.changes).has_changed = true;
        let partitions = list.count();
        match answered {
            Ok(()) => tracing::debug!(is_assignment, partitions, "rebalance"),
            Err(error) => tracing::warn!(%error, is_assignment, partitions, "rebalance not answered"),
        }
    }
}

/// The membership of this moment, or none if it is void: without a generation and a member id the broker would
/// check nothing. Asked for on both sides of the capture, so that it can't have become void in between.
fn capture(consumer: &BaseConsumer<Membership>) -> Option<ConsumerGroupMetadata> {
    let before = generation_and_member(consumer)?;
    let metadata = consumer.group_metadata()?;
    let after = generation_and_member(consumer)?;
    let (generation, member) = &after;
    (before == after && *generation >= 0 && !member.is_empty()).then_some(metadata)
}
