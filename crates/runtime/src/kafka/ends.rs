//! Questions to the cluster that read no record: is it there, which partitions exist, where do they end, what
//! was at a time. Not here: administration (`admin`). Invariant: the two ends of a partition are asked by two
//! clients, because librdkafka answers by the isolation level of the client that asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::{Offset, TopicPartitionList};

use super::client::{Aside, Complaints, Deadline, lock};
use super::config::KafkaConfig;
use super::fault;
use super::keeper::Kept;
use crate::log::{AppendError, Isolation, LogError, NewRecord, TopicPartition};

/// Longest wait for one answer.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one try of [`Ends::check`] takes; between two of them the client's complaints are collected.
const CHECK_SLICE: Duration = Duration::from_millis(250);
/// Pause before a question that met a change of leaders is asked again.
const RETRY_INTERVAL: Duration = Duration::from_millis(20);
/// Most events served after a question; more of them wait for the next one.
const EVENTS_MAX: usize = 64;

/// A client that asks; cheap to clone, thread-safe.
#[derive(Clone)]
struct Asker {
    consumer: Arc<Aside<Kept<BaseConsumer<Complaints>>>>,
    complaints: Complaints,
}

/// All questions of one installation to its cluster.
pub(crate) struct Ends {
    config: Arc<KafkaConfig>,
    uncommitted: Asker,
    /// Made when first used: few processes ask for a last stable offset.
    committed: Mutex<Option<Asker>>,
    /// Topics known to exist, with their partitions: topics neither vanish nor shrink in a healthy installation,
    /// and where one did, librdkafka's own answer says so.
    known: Mutex<BTreeMap<String, i32>>,
}

impl Ends {
    /// Contacts nobody yet.
    ///
    /// # Errors
    /// [`LogError::Misconfigured`] when librdkafka does not take the settings.
    pub(crate) fn new(config: Arc<KafkaConfig>) -> Result<Self, LogError> {
        let uncommitted = Asker::new(&config, Isolation::Uncommitted)?;
        Ok(Self { config, uncommitted, committed: Mutex::new(None), known: Mutex::new(BTreeMap::new()) })
    }

    /// First offset that no record has yet, or the last stable offset.
    pub(crate) fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<i64, LogError> {
        self.watermarks(at, isolation).map(|(_, end)| end)
    }

    /// As [`Ends::end`], of many partitions in one question; those that nobody answers for are left out.
    pub(crate) fn of_all(
        &self,
        partitions: &[TopicPartition],
        isolation: Isolation,
    ) -> Result<BTreeMap<TopicPartition, i64>, LogError> {
        let asker = self.asker(isolation)?;
        asker.ask("ends", |consumer, left| ends_of(consumer, &self.config, partitions, left))
    }

    /// First offset kept, and the end.
    pub(crate) fn watermarks(&self, at: &TopicPartition, isolation: Isolation) -> Result<(i64, i64), LogError> {
        self.require(at)?;
        let asker = self.asker(isolation)?;
        let topic = self.config.full_name(&at.topic);
        asker.ask(&at.to_string(), |consumer, left| consumer.fetch_watermarks(&topic, at.partition, left))
    }

    /// First offset whose record has this time or a later one; the end if there is none.
    pub(crate) fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<i64, LogError> {
        self.require(at)?;
        let topic = self.config.full_name(&at.topic);
        let found = self.uncommitted.ask(&at.to_string(), |consumer, left| {
            let mut wanted = TopicPartitionList::new();
            // Negative times have meanings of their own for the broker: the first offset, the end.
            wanted.add_partition_offset(&topic, at.partition, Offset::Offset(time.millis().max(0)))?;
            let found = consumer.offsets_for_times(wanted, left)?;
            let elements = found.elements();
            let Some(element) = elements.first() else {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset));
            };
            element.error().map(|()| element.offset())
        })?;
        match found {
            Offset::Offset(offset) => Ok(offset),
            Offset::Beginning | Offset::End | Offset::Stored | Offset::Invalid | Offset::OffsetTail(_) => {
                self.end(at, Isolation::Uncommitted)
            }
        }
    }

    /// How many partitions a topic has.
    ///
    /// # Errors
    /// [`LogError::NoSuchTopic`] when there is none of this name.
    pub(crate) fn partitions(&self, topic: &str) -> Result<i32, LogError> {
        let full_name = self.config.full_name(topic);
        let metadata = self.metadata(Some(&full_name))?;
        let count = partition_count(&metadata, &full_name).ok_or_else(|| LogError::NoSuchTopic(topic.to_owned()))?;
        lock(&self.known).insert(topic.to_owned(), count);
        Ok(count)
    }

    /// Makes sure that the partitions of all records exist: a producer would wait half a minute for a topic that
    /// does not.
    pub(crate) fn require_all(&self, records: &[NewRecord]) -> Result<(), AppendError> {
        let mut unseen = BTreeSet::new();
        {
            let known = lock(&self.known);
            for record in records {
                if !known.get(record.topic.as_str()).is_some_and(|count| (0..*count).contains(&record.partition)) {
                    unseen.insert((&record.topic, record.partition));
                }
            }
        }
        for (topic, partition) in unseen {
            self.require(&TopicPartition::new(topic.clone(), partition)).map_err(|error| match error {
                LogError::NoSuchTopic(_) => AppendError::NoSuchTopic(topic.to_string()),
                LogError::Misconfigured(why) => AppendError::Refused(why),
                error @ (LogError::Unavailable(_)
                | LogError::Busy(_)
                | LogError::Lost(_)
                | LogError::OutOfRange { .. }) => AppendError::Retriable(error.to_string()),
            })?;
        }
        Ok(())
    }

    /// Makes sure that a partition exists; asks only for what was not seen before.
    pub(crate) fn require(&self, at: &TopicPartition) -> Result<(), LogError> {
        let is_within = |count: i32| (0..count).contains(&at.partition);
        if lock(&self.known).get(at.topic.as_str()).copied().is_some_and(is_within) {
            return Ok(());
        }
        if is_within(self.partitions(&at.topic)?) { Ok(()) } else { Err(LogError::NoSuchTopic(at.to_string())) }
    }

    /// Some topic of this installation that exists, for clients that want one to warm up with.
    pub(crate) fn any_topic(&self) -> Result<String, LogError> {
        if let Some(topic) = lock(&self.known).keys().next() {
            return Ok(topic.clone());
        }
        let metadata = self.metadata(None)?;
        let mut names = metadata.topics().iter().filter_map(|topic| self.config.short_name(topic.name()));
        names.next().map(str::to_owned).ok_or_else(|| {
            LogError::Misconfigured(format!("no topic starts with `{}`: run `orloj topics apply`", self.config.prefix))
        })
    }

    /// Topics that exist, of these names; what ends in a dot stands for all whose names begin with it.
    pub(crate) fn named(&self, names: &[String]) -> Result<BTreeSet<String>, LogError> {
        let metadata = self.metadata(None)?;
        let found = metadata.topics().iter().filter_map(|topic| self.config.short_name(topic.name()));
        let is_named = |topic: &&str| {
            names.iter().any(|name| if name.ends_with('.') { topic.starts_with(name) } else { topic == name })
        };
        Ok(found.filter(is_named).map(str::to_owned).collect())
    }

    /// How many brokers the cluster has at the moment.
    pub(crate) fn brokers(&self) -> Result<usize, LogError> {
        self.metadata(Some(&self.config.full_name(topic::JOBS))).map(|metadata| metadata.brokers().len())
    }

    /// What the cluster says about one topic (by its full name) or about all.
    pub(crate) fn metadata(&self, full_name: Option<&str>) -> Result<Metadata, LogError> {
        let about = full_name.unwrap_or("topics");
        self.uncommitted.ask(about, |consumer, left| consumer.fetch_metadata(full_name, left))
    }

    /// Waits until the cluster answers, `timeout` at most.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] that names the address, the setting and the cause.
    pub(crate) fn check(&self, timeout: Duration) -> Result<(), LogError> {
        let deadline = Deadline::after(timeout);
        let mut cause = None;
        loop {
            let slice = CHECK_SLICE.min(deadline.left());
            let answer = self.uncommitted.consumer.fetch_metadata(None, slice);
            self.uncommitted.serve();
            // The code of the failed call only says that there was no answer; the client's complaint says why.
            cause = self.uncommitted.complaints.last().or(cause);
            match answer {
                Ok(_) => return Ok(()),
                Err(error) if deadline.has_passed() => {
                    let address = self.config.bootstrap_servers();
                    let cause = cause.unwrap_or_else(|| error.to_string());
                    return Err(LogError::Unavailable(format!(
                        "Kafka at {address} (setting kafka.bootstrap.servers) can't be reached: {cause}"
                    )));
                }
                // The call may fail at once; waiting in the client's queue keeps this from spinning.
                Err(_) => drop(self.uncommitted.consumer.poll(slice.min(CHECK_SLICE / 5))),
            }
        }
    }

    fn asker(&self, isolation: Isolation) -> Result<Asker, LogError> {
        match isolation {
            Isolation::Uncommitted => Ok(self.uncommitted.clone()),
            Isolation::Committed => {
                let mut committed = lock(&self.committed);
                if let Some(asker) = committed.as_ref() {
                    return Ok(asker.clone());
                }
                let asker = Asker::new(&self.config, Isolation::Committed)?;
                *committed = Some(asker.clone());
                Ok(asker)
            }
        }
    }
}

impl Asker {
    fn new(config: &KafkaConfig, isolation: Isolation) -> Result<Self, LogError> {
        let complaints = Complaints::new("questions");
        let client: Result<BaseConsumer<Complaints>, KafkaError> =
            config.for_questions(isolation).create_with_context(complaints.clone());
        let consumer = client.map_err(|error| fault::of_read("", &error))?;
        Ok(Self { consumer: Arc::new(Aside::new(config.kept(consumer))), complaints })
    }

    /// Asks until there is an answer, [`ANSWER_TIMEOUT`] at most; a partition that changes its leader, or whose
    /// broker is just coming back, is asked for again.
    fn ask<T>(
        &self,
        about: &str,
        question: impl Fn(&BaseConsumer<Complaints>, Duration) -> Result<T, KafkaError>,
    ) -> Result<T, LogError> {
        let deadline = Deadline::after(ANSWER_TIMEOUT);
        loop {
            let answer = question(&self.consumer, deadline.left());
            self.serve();
            match answer {
                Ok(answer) => return Ok(answer),
                Err(error) if fault::is_moving(&error) && !deadline.has_passed() => {
                    // Waits in the client's queue, so that its events do not pile up meanwhile.
                    drop(self.consumer.poll(RETRY_INTERVAL.min(deadline.left())));
                }
                Err(error) => return Err(fault::of_read(about, &error)),
            }
        }
    }

    /// Takes the client's events from its queue, where they would pile up.
    fn serve(&self) {
        for _ in 0..EVENTS_MAX {
            if self.consumer.poll(Duration::ZERO).is_none() {
                return;
            }
        }
    }
}

/// Ends of partitions at this moment, by the isolation level of the client that asks, learnt in one question; those that nobody
/// answers for are left out.
///
/// # Errors
/// When there is no answer at all.
pub(crate) fn ends_of<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    config: &KafkaConfig,
    partitions: &[TopicPartition],
    timeout: Duration,
) -> Result<BTreeMap<TopicPartition, i64>, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for at in partitions {
        // The question is "which offset is it at this time"; the special time "end" is an offset here.
        list.add_partition_offset(&config.full_name(&at.topic), at.partition, Offset::End)?;
    }
    let answers = consumer.offsets_for_times(list, timeout)?;
    let known = answers.elements().into_iter().filter(|answer| answer.error().is_ok());
    Ok(known
        .filter_map(|answer| {
            let Offset::Offset(offset) = answer.offset() else { return None };
            Some((TopicPartition::new(config.short_name(answer.topic())?, answer.partition()), offset))
        })
        .collect())
}

/// How many partitions `metadata` lists for a topic; `None` if it says that there is no such topic.
pub(crate) fn partition_count(metadata: &Metadata, full_name: &str) -> Option<i32> {
    let topic = metadata.topics().iter().find(|topic| topic.name() == full_name)?;
    let count = i32::try_from(topic.partitions().len()).ok()?;
    (topic.error().is_none() && count > 0).then_some(count)
}
