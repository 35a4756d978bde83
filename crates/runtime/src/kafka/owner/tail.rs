//! A warm consumer that is told where to read, used over and over for short reads. Not here: up to where
//! (`takeover`, `restore`). Invariant: nothing is paused and nothing sought; a new read is a new assignment, and
//! what is left of an older one is dropped by librdkafka.

use std::collections::BTreeMap;
use std::time::Duration;

use orloj_domain::time::Timestamp;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::kafka::client::{Complaints, drop_aside};
use crate::kafka::config::KafkaConfig;
use crate::kafka::fault;
use crate::kafka::keeper::Kept;
use crate::log::{Header, Isolation, LogError, Record, TopicPartition};

/// Longest wait for first contact; a member that nobody serves meanwhile must not be missed.
const WARM_UP_MAX: Duration = Duration::from_millis(150);
/// Longest wait for an answer about topics or ends.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Longest wait for an end that is asked for a message to people only.
const STANDING_MAX: Duration = Duration::from_millis(250);

/// The consumer. One at a time reads with it.
pub(super) struct Tail {
    consumer: Option<Kept<BaseConsumer<Complaints>>>,
    config: KafkaConfig,
    isolation: Isolation,
    /// Next offset wanted of each partition that is read.
    next: BTreeMap<TopicPartition, i64>,
}

impl Tail {
    /// A consumer of nothing yet.
    pub(super) fn open(config: &KafkaConfig, isolation: Isolation) -> Result<Self, LogError> {
        let consumer = Some(consumer(config, isolation)?);
        Ok(Self { consumer, config: config.clone(), isolation, next: BTreeMap::new() })
    }

    /// Goes on with another client where this one has got to: for a read that stands still though there is more to read.
    pub(super) fn renew(&mut self) -> Result<(), LogError> {
        let fresh = consumer(&self.config, self.isolation)?;
        if let Some(stuck) = self.consumer.replace(fresh) {
            drop_aside(stuck);
        }
        let from: Vec<_> = self.next.iter().map(|(at, next)| (at.clone(), *next)).collect();
        self.start(&from)
    }

    /// How many partitions a topic has.
    pub(super) fn partitions(&mut self, topic: &str) -> Result<i32, LogError> {
        let Some(consumer) = &self.consumer else { return Ok(0) };
        let answer = consumer.fetch_metadata(Some(&self.config.full_name(topic)), ANSWER_MAX);
        let metadata = answer.map_err(|error| fault::of_read(topic, &error))?;
        let found = metadata.topics().first().filter(|found| found.error().is_none());
        let partitions = found.map_or(0, |found| found.partitions().len());
        if partitions == 0 {
            return Err(LogError::NoSuchTopic(topic.to_owned()));
        }
        Ok(i32::try_from(partitions).unwrap_or(i32::MAX))
    }

    /// Makes contact with the brokers that lead the first partitions of these topics, so that the first read need not:
    /// a client that has just been made waits 50 ms before it connects to one. Whether it works out is nobody's
    /// concern: a read does the same.
    pub(super) fn warm_up(&self, topics: &[String]) {
        let Some(consumer) = &self.consumer else { return };
        for topic in topics {
            if let Err(error) = consumer.fetch_watermarks(&self.config.full_name(topic), 0, WARM_UP_MAX) {
                tracing::debug!(topic, %error, "not warmed up");
            }
        }
    }

    /// Reads these partitions and no others, from these offsets on.
    pub(super) fn start(&mut self, from: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.next = from.iter().cloned().collect();
        let Some(consumer) = &self.consumer else { return Ok(()) };
        ask_for_topics(consumer, &self.config, from.iter().map(|(at, _)| at.topic.as_str()))?;
        let list = list_of(&self.config, from)?;
        consumer.assign(&list).map_err(|error| fault::of_read("takeover", &error))
    }

    /// The next offset wanted of a partition, and the end of what can be read of it (its last stable offset), -1 where unknown.
    pub(super) fn standing(&self, at: &TopicPartition) -> (i64, i64) {
        let wanted = self.next.get(at).copied().unwrap_or(-1);
        let Some(consumer) = &self.consumer else { return (wanted, -1) };
        let ends = consumer.fetch_watermarks(&self.config.full_name(&at.topic), at.partition, STANDING_MAX);
        (wanted, ends.map_or(-1, |(_, stable)| stable))
    }

    /// Reads nothing any more.
    pub(super) fn stop(&mut self) {
        self.next.clear();
        if let Some(consumer) = &self.consumer
            && let Err(error) = consumer.assign(&TopicPartitionList::new())
        {
            tracing::debug!(%error, "could not stop reading");
        }
    }

    /// The next record, in order within each partition, waiting for it at most `timeout`.
    pub(super) fn next(&mut self, timeout: Duration) -> Result<Option<Record>, LogError> {
        let Some(consumer) = &self.consumer else { return Ok(None) };
        match consumer.poll(timeout) {
            None => Ok(None),
            Some(Ok(message)) => {
                let record = record_of(&self.config, &message);
                let at = record.topic_partition();
                let Some(next) = self.next.get_mut(&at) else { return Ok(None) };
                *next = record.offset + 1;
                Ok(Some(record))
            }
            Some(Err(error)) if is_gone(&error) => Err(out_of_range(consumer, &self.config, &self.next)),
            Some(Err(error)) if fault::is_passing(&error) => Ok(None),
            Some(Err(error)) => Err(fault::of_read("takeover", &error)),
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            drop_aside(consumer);
        }
    }
}

fn consumer(config: &KafkaConfig, isolation: Isolation) -> Result<Kept<BaseConsumer<Complaints>>, LogError> {
    // A partition that is added while a fetch is under way waits for the end of that fetch.
    let mut client = config.for_reader(isolation, "50");
    client.set("queued.max.messages.kbytes", "32768");
    let consumer = client.create_with_context(Complaints::new("takeover"));
    consumer.map(|consumer| config.kept(consumer)).map_err(|error| fault::of_read("takeover", &error))
}

/// Makes the leaders of these topics known: an assignment of a topic never seen would wait a second for them.
pub(super) fn ask_for_topics<'a>(
    consumer: &BaseConsumer<Complaints>,
    config: &KafkaConfig,
    topics: impl Iterator<Item = &'a str>,
) -> Result<(), LogError> {
    for topic in topics.collect::<std::collections::BTreeSet<_>>() {
        let answer = consumer.fetch_metadata(Some(&config.full_name(topic)), ANSWER_MAX);
        answer.map_err(|error| fault::of_read(topic, &error))?;
    }
    Ok(())
}

/// The list for an assignment.
pub(super) fn list_of(config: &KafkaConfig, from: &[(TopicPartition, i64)]) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::with_capacity(from.len());
    for (at, offset) in from {
        // "From the start" means what is left of it; any other offset must still be there.
        let offset = if *offset <= 0 { Offset::Beginning } else { Offset::Offset(*offset) };
        list.add_partition_offset(&config.full_name(&at.topic), at.partition, offset)
            .map_err(|error| LogError::Unavailable(format!("{at}: {error}")))?;
    }
    Ok(list)
}

/// True if a wanted offset is not in the log; the error does not say which.
pub(super) fn is_gone(error: &KafkaError) -> bool {
    matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}

/// Finds out which of the wanted offsets is gone.
pub(super) fn out_of_range(
    consumer: &BaseConsumer<Complaints>,
    config: &KafkaConfig,
    wanted: &BTreeMap<TopicPartition, i64>,
) -> LogError {
    for (at, wanted) in wanted {
        let ends = consumer.fetch_watermarks(&config.full_name(&at.topic), at.partition, ANSWER_MAX);
        if let Ok((first, end)) = ends
            && (*wanted < first || *wanted > end)
        {
            return LogError::OutOfRange { at: at.clone(), wanted: *wanted, first };
        }
    }
    LogError::Unavailable("a position was not found, and is there now".to_owned())
}

/// Copies a message out of librdkafka's memory.
pub(super) fn record_of(config: &KafkaConfig, message: &BorrowedMessage<'_>) -> Record {
    let headers = message.headers().map(|headers| headers.iter()).into_iter().flatten();
    Record {
        topic: config.short_name(message.topic()).unwrap_or(message.topic()).into(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp: Timestamp::from_millis(message.timestamp().to_millis().unwrap_or(0)),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers
            .map(|header| Header { key: header.key.to_owned(), value: header.value.map(<[u8]>::to_vec) })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

    use super::*;
    use crate::kafka::client::Deadline;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn another_client_goes_on_where_the_first_has_got_to() {
        let (_cluster, config) = KafkaConfig::of_mock(2);
        let producer: BaseProducer = config.for_producer().create().expect("a producer");
        for index in 0..20 {
            let value = index.to_string();
            let record = BaseRecord::<str, str>::to("o.t").partition(index % 2).payload(&value);
            producer.send(record).expect("room in the queue");
        }
        producer.flush(PATIENCE).expect("appended");
        let mut tail = Tail::open(&config, Isolation::Committed).expect("a reader");
        let from = [0, 1].map(|partition| (TopicPartition::new("t", partition), 0));
        tail.start(&from).expect("an existing topic");
        let mut seen: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        let deadline = Deadline::after(PATIENCE);
        let mut count = 0;
        while count < 20 {
            assert!(!deadline.has_passed(), "only {seen:?}");
            let Some(record) = tail.next(Duration::from_millis(50)).expect("a readable log") else { continue };
            seen.entry(record.partition).or_default().push(record.offset);
            count += 1;
            if count % 7 == 0 {
                tail.renew().expect("another client");
            }
        }
        let all: Vec<i64> = (0..10).collect();
        assert_eq!(seen, BTreeMap::from([(0, all.clone()), (1, all)]));
    }
}
