//! Reads partitions that it was told, from positions that it was told; joins no group and commits nothing.
//! Traps met here: a topic must be known to the client before it is assigned (else it waits a second for it), a
//! partition is never paused, and "gone" is reported without saying which partition.
//! Invariant: the offsets handed out of a partition only grow until it is moved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::time::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Aside, Bell, Complaints, Deadline, Ring, poll_at_hand};
use super::config::KafkaConfig;
use super::ends::{ANSWER_TIMEOUT, Ends, partition_count};
use super::fault;
use super::keeper::Kept;
use crate::log::{Header, Isolation, LogError, Reader, Record, TopicPartition, Waker};

/// How long a request may wait for something to answer with: nothing is later for it, and an idle reader costs less.
const FETCH_WAIT_MS: &str = "500";

/// A reader of assigned partitions.
pub(crate) struct KafkaReader {
    consumer: Aside<Kept<BaseConsumer<Complaints>>>,
    config: Arc<KafkaConfig>,
    ends: Arc<Ends>,
    bell: Bell,
    /// For each partition read, the first offset not handed out yet.
    next: BTreeMap<TopicPartition, i64>,
    /// Topics that this client knows, with their partitions.
    known: BTreeMap<String, i32>,
    /// A partition stands still and nobody was told yet, or nobody has moved it since.
    is_stuck: bool,
}

impl KafkaReader {
    /// Reads nothing yet.
    pub(crate) fn new(config: Arc<KafkaConfig>, ends: Arc<Ends>, isolation: Isolation) -> Result<Self, LogError> {
        // Readers are told their partitions once: none has to wait for the answer to a request that left it out.
        let client = config.for_reader(isolation, FETCH_WAIT_MS);
        let client: Result<BaseConsumer<Complaints>, KafkaError> =
            client.create_with_context(Complaints::new("reader"));
        let mut consumer = client.map_err(|error| fault::of_read("", &error))?;
        let bell = Bell::default();
        let rung = bell.clone();
        consumer.set_nonempty_callback(move || rung.ring_nonempty());
        Ok(Self {
            consumer: Aside::new(config.kept(consumer)),
            config,
            ends,
            bell,
            next: BTreeMap::new(),
            known: BTreeMap::new(),
            is_stuck: false,
        })
    }

    fn require(&mut self, at: &TopicPartition) -> Result<(), LogError> {
        let is_within = |count: i32| (0..count).contains(&at.partition);
        if self.known.get(at.topic.as_str()).copied().is_some_and(is_within) {
            return Ok(());
        }
        let full_name = self.config.full_name(&at.topic);
        let answer = self.consumer.fetch_metadata(Some(&full_name), ANSWER_TIMEOUT);
        let metadata = answer.map_err(|error| fault::of_read(&at.to_string(), &error))?;
        let count = partition_count(&metadata, &full_name).unwrap_or(0);
        self.known.insert(at.topic.to_string(), count);
        if is_within(count) { Ok(()) } else { Err(LogError::NoSuchTopic(at.to_string())) }
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) {
        let mut list = TopicPartitionList::new();
        for at in partitions {
            if self.next.remove(at).is_some() {
                list.add_partition(&self.config.full_name(&at.topic), at.partition);
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(&list)
        {
            // Its records would be dropped on arrival; nothing worse can come of it.
            tracing::warn!(%error, "could not stop reading partitions");
        }
    }

    /// Hands out what has arrived already.
    fn drain(&mut self, max: usize) -> Result<Vec<Record>, LogError> {
        if self.is_stuck {
            self.recover()?;
        }
        let mut records = Vec::new();
        while records.len() < max {
            match poll_at_hand(&self.consumer, || false) {
                None => break,
                Some(Ok(message)) => {
                    let Some(record) = record_of(&self.config, &message) else { continue };
                    // What was on its way when its partition was stopped or moved is not wanted any more.
                    if let Some(next) = self.next.get_mut(&record.topic_partition())
                        && record.offset >= *next
                    {
                        *next = record.offset + 1;
                        records.push(record);
                    }
                }
                Some(Err(error)) if fault::is_passing(&error) => {}
                Some(Err(error)) => {
                    tracing::debug!(%error, "a partition stands still");
                    self.is_stuck = true;
                    // Records taken so far go to the caller first: they are not read again.
                    if records.is_empty() {
                        self.recover()?;
                    } else {
                        break;
                    }
                }
            }
        }
        Ok(records)
    }

    /// Finds out which partition stands still, for librdkafka names none, and starts them again if none should.
    fn recover(&mut self) -> Result<(), LogError> {
        for (at, wanted) in self.positions() {
            let (first, end) = self.ends.watermarks(&at, Isolation::Uncommitted)?;
            if wanted < first || wanted > end {
                return Err(LogError::OutOfRange { at, wanted, first });
            }
        }
        self.read_from(&self.positions())?;
        self.is_stuck = false;
        Ok(())
    }

    fn positions(&self) -> Vec<(TopicPartition, i64)> {
        self.next.iter().map(|(at, next)| (at.clone(), *next)).collect()
    }
}

impl Reader for KafkaReader {
    fn read_from(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        for (at, _) in positions {
            self.require(at)?;
        }
        // The last position wins if one is given twice.
        let positions: BTreeMap<&TopicPartition, i64> = positions.iter().map(|(at, offset)| (at, *offset)).collect();
        let moved: Vec<TopicPartition> =
            positions.keys().filter(|at| self.next.contains_key(**at)).map(|at| (*at).clone()).collect();
        // Stopped and started anew, not sought: that also revives a partition that stands still after an error.
        self.unassign(&moved);
        let mut list = TopicPartitionList::new();
        for (at, offset) in &positions {
            let added = list.add_partition_offset(
                &self.config.full_name(&at.topic),
                at.partition,
                Offset::Offset((*offset).max(0)),
            );
            added.map_err(|error| fault::of_read(&at.to_string(), &error))?;
        }
        if list.count() > 0 {
            self.consumer.incremental_assign(&list).map_err(|error| fault::of_read("assignment", &error))?;
        }
        self.next.extend(positions.into_iter().map(|(at, offset)| (at.clone(), offset.max(0))));
        Ok(())
    }

    fn stop(&mut self, partitions: &[TopicPartition]) {
        let partitions: BTreeSet<&TopicPartition> = partitions.iter().collect();
        let partitions: Vec<TopicPartition> = partitions.into_iter().cloned().collect();
        self.unassign(&partitions);
    }

    fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<Record>, LogError> {
        let deadline = Deadline::after(timeout);
        loop {
            let records = self.drain(max)?;
            if !records.is_empty() || deadline.has_passed() {
                return Ok(records);
            }
            if self.bell.wait(deadline.left()) == Ring::Woken {
                return self.drain(max);
            }
        }
    }

    fn waker(&self) -> Waker {
        self.bell.waker()
    }
}

/// The record of a message; `None` if its topic is not of this installation.
pub(crate) fn record_of(config: &KafkaConfig, message: &BorrowedMessage<'_>) -> Option<Record> {
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let header = |header: rdkafka::message::Header<'_, &[u8]>| Header {
            key: header.key.to_owned(),
            value: header.value.map(<[u8]>::to_vec),
        };
        headers.iter().map(header).collect()
    });
    Some(Record {
        topic: config.short_name(message.topic())?.into(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    })
}
