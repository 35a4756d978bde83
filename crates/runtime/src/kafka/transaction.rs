//! One transactional id and the transactions written with it, step by step: begin, enqueue, acknowledged, offsets,
//! commit or abort. Not here: which id to use when (`owner/ring.rs`) and who may write (`owner/takeover.rs`).
//! Invariant: commit is asked for only after every record was acknowledged; an answer that may hide a commit is
//! `Unknown`, never `Refused`. All calls block: use them from a plain thread.

mod abort;
mod deliveries;

use std::collections::BTreeSet;
use std::sync::MutexGuard;
use std::time::Duration;

use orloj_domain::time::Timestamp as Wall;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as KafkaHeader, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::TopicPartitionList;

use self::deliveries::{Answers, Deliveries};
use crate::clock::{Clock, SystemClock};
use crate::kafka::config::KafkaConfig;
use crate::kafka::keeper::Kept;
use crate::kafka::polled::Polled;
use crate::log::{AppendError, NewRecord, Position, TopicPartition};

/// Time limits of a transactional producer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransactionLimits {
    /// `transaction.timeout.ms`: after this long the broker aborts what was left open.
    pub(crate) transaction: Duration,
    /// Without an acknowledgement for this long, the partitions still waited for count as stalled.
    pub(crate) stall: Duration,
    /// Longest wait for the first contact with the cluster.
    pub(crate) warm_up: Duration,
    /// Longest wait for an abort; what is not done then goes on aside, and the id is given up.
    pub(crate) abort: Duration,
    /// A commit that took longer is suspicious: see [`TransactionalProducer::is_suspect`].
    pub(crate) slow_commit: Duration,
}

impl Default for TransactionLimits {
    fn default() -> Self {
        Self {
            transaction: Duration::from_secs(10),
            stall: Duration::from_secs(2),
            warm_up: Duration::from_secs(10),
            abort: Duration::from_millis(500),
            slow_commit: Duration::from_secs(1),
        }
    }
}

impl TransactionLimits {
    /// The defaults, with `transaction.timeout.ms` as the user wants it.
    pub(crate) fn of(config: &KafkaConfig) -> Self {
        let given = config.properties.get("transaction.timeout.ms").and_then(|text| text.parse().ok());
        let default = Self::default();
        Self { transaction: given.map_or(default.transaction, Duration::from_millis), ..default }
    }
}

/// A producer with a transactional id, initialised once when it is opened. Usual life of a transaction:
/// `begin`, `enqueue` (any number of times), `acknowledged`, `send_offsets` (claims only), `commit`; `abort` after
/// any error. [`TransactionalProducer::append_batch`] does all of it.
pub(crate) struct TransactionalProducer {
    producer: Polled<Deliveries>,
    id: String,
    prefix: String,
    limits: TransactionLimits,
    clock: SystemClock,
    /// Positions without offsets of what was enqueued into the open transaction, in order.
    enqueued: Vec<TopicPartition>,
    /// How many of `enqueued` earlier calls of `acknowledged` have reported.
    reported: usize,
    is_open: bool,
    /// An abort was begun and did not end in time.
    is_aborting: bool,
    /// Wall clock at the beginning of the last transaction.
    began_at: Wall,
    /// How far the brokers' clock is from ours at least, in milliseconds; from the last transaction that tells.
    broker_offset_ms: Option<i64>,
    /// The id can write no more: fenced, or in a state nobody knows.
    is_dead: bool,
    is_suspect: bool,
}

impl TransactionalProducer {
    /// Opens `id` (the full transactional id): warms the client up and initialises the id, which shuts out whoever
    /// held it and completes or aborts what was left open under it. `base` holds settings of a producer; topics
    /// of records get `prefix` put in front, and so does `warm_topic`, any topic that exists.
    ///
    /// # Errors
    /// [`AppendError::Retriable`] when the cluster does not answer; nothing was written.
    pub(crate) fn open(
        base: &ClientConfig,
        prefix: &str,
        id: &str,
        warm_topic: &str,
        limits: TransactionLimits,
    ) -> Result<Self, AppendError> {
        let clock = SystemClock::new();
        let producer: BaseProducer<Deliveries> = client_config(base, id, limits)
            .create_with_context(Deliveries::default())
            .map_err(|error| AppendError::Retriable(format!("{id}: no client: {error}")))?;
        let topic = format!("{prefix}{warm_topic}");
        // Twice: right after the first answer the handle of the bootstrap address has just been replaced, and the
        // search for the coordinator would wait 500 ms for a usable connection.
        for _ in 0..2 {
            let answer = producer.client().fetch_metadata(Some(&topic), limits.warm_up);
            answer.map_err(|error| AppendError::Retriable(format!("{id}: no metadata: {error}")))?;
        }
        let left = limits.warm_up.saturating_sub(clock.monotonic()).max(Duration::from_secs(1));
        producer.init_transactions(left).map_err(|error| AppendError::Retriable(format!("{id}: {error}")))?;
        let servers = base.get("bootstrap.servers").unwrap_or_default();
        Ok(Self {
            producer: Polled::new(Kept::new(producer, servers, topic)),
            id: id.to_owned(),
            prefix: prefix.to_owned(),
            limits,
            clock,
            enqueued: Vec::new(),
            reported: 0,
            is_open: false,
            is_aborting: false,
            began_at: Wall::MIN,
            broker_offset_ms: None,
            is_dead: false,
            is_suspect: false,
        })
    }

    /// The full transactional id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// How far the brokers' clock is ahead of this machine's (behind, if negative) at least, in milliseconds, by the times
    /// stamped on the records of the last transaction: they lie between its begin and its acknowledgement.
    pub(crate) fn broker_offset_ms(&self) -> Option<i64> {
        self.broker_offset_ms
    }

    /// True while a transaction is open.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// True once this id can write no more; drop it.
    pub(crate) fn is_dead(&self) -> bool {
        self.is_dead
    }

    /// True once an acknowledged commit was slow or saw a disconnect: a repeated request for it may still be under
    /// way and could end this id's *next* transaction, so there must be no next one.
    pub(crate) fn is_suspect(&self) -> bool {
        self.is_suspect
    }

    /// Appends all records or none and returns their positions in order; aborts by itself on an error.
    pub(crate) fn append_batch(
        &mut self,
        records: &[NewRecord],
        offsets: Option<(&TopicPartitionList, &ConsumerGroupMetadata)>,
    ) -> Result<Vec<Position>, AppendError> {
        let outcome = self.try_append_batch(records, offsets);
        self.abort_after(&outcome);
        outcome
    }

    fn try_append_batch(
        &mut self,
        records: &[NewRecord],
        offsets: Option<(&TopicPartitionList, &ConsumerGroupMetadata)>,
    ) -> Result<Vec<Position>, AppendError> {
        self.begin()?;
        self.enqueue(records)?;
        let positions = self.acknowledged()?;
        if let Some((offsets, membership)) = offsets {
            self.send_offsets(offsets, membership)?;
        }
        self.commit()?;
        Ok(positions)
    }

    /// Aborts the open transaction if `outcome` is an error that left one open.
    pub(crate) fn abort_after<T>(&mut self, outcome: &Result<T, AppendError>) {
        if outcome.is_err()
            && self.is_open
            && let Err(error) = self.abort()
        {
            tracing::debug!(producer = self.id, %error, "could not abort in time");
        }
    }

    /// Opens a transaction; local only.
    pub(crate) fn begin(&mut self) -> Result<(), AppendError> {
        if self.is_dead {
            return Err(AppendError::Refused(format!("{} can write no more", self.id)));
        }
        self.producer.begin_transaction().map_err(|error| self.classify(&error))?;
        self.enqueued.clear();
        self.reported = 0;
        self.deliveries().clear();
        self.began_at = self.clock.now();
        self.is_open = true;
        Ok(())
    }

    /// Hands records to the client, which sends them by itself; waits for nothing but room in its queue.
    pub(crate) fn enqueue(&mut self, records: &[NewRecord]) -> Result<(), AppendError> {
        let mut full_name = String::new();
        let mut name = None;
        self.deliveries().expect(self.enqueued.len() + records.len());
        for record in records {
            if name != Some(&record.topic) {
                full_name = format!("{}{}", self.prefix, record.topic);
                name = Some(&record.topic);
            }
            self.enqueue_one(&full_name, record)?;
        }
        Ok(())
    }

    fn enqueue_one(&mut self, topic: &str, record: &NewRecord) -> Result<(), AppendError> {
        let index = self.enqueued.len();
        let mut message = BaseRecord::with_opaque_to(topic, index).partition(record.partition);
        message.key = record.key.as_deref();
        message.payload = record.value.as_deref();
        message.headers = headers_of(record);
        let mut full_since = None;
        loop {
            let (error, returned) = match self.producer.send(message) {
                Ok(()) => break,
                Err((error, returned)) => (error, returned),
            };
            let now = self.clock.monotonic();
            let waited = now.saturating_sub(*full_since.get_or_insert(now));
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) || waited > self.limits.stall {
                return Err(self.classify_record(&error, record));
            }
            // Records go in one after the other, so waiting for room keeps their order.
            message = returned;
            self.producer.wait_and_serve(self.limits.stall);
        }
        self.enqueued.push(TopicPartition::new(record.topic.clone(), record.partition));
        Ok(())
    }

    /// Waits until every record enqueued was acknowledged; positions of those not reported before, in order.
    pub(crate) fn acknowledged(&mut self) -> Result<Vec<Position>, AppendError> {
        let mut answered = 0;
        let mut progress_at = self.clock.monotonic();
        while self.producer.in_flight_count() > 0 {
            self.producer.wait_and_serve(self.limits.stall);
            let now_answered = self.deliveries().answered;
            let now = self.clock.monotonic();
            if now_answered > answered {
                (answered, progress_at) = (now_answered, now);
            } else if now.saturating_sub(progress_at) > self.limits.stall {
                return Err(self.stalled(answered));
            }
        }
        self.producer.serve();
        let answers = self.deliveries().answers.clone();
        let mut positions = Vec::with_capacity(self.enqueued.len().saturating_sub(self.reported));
        for index in self.reported..self.enqueued.len() {
            let TopicPartition { topic, partition } = self.enqueued[index].clone();
            match answers.get(index).copied().flatten() {
                Some(Ok(offset)) => positions.push(Position { topic, partition, offset }),
                Some(Err(code)) => return Err(self.classify_delivery(code, &TopicPartition { topic, partition })),
                None => return Err(AppendError::Stalled(self.unanswered())),
            }
        }
        self.reported = self.enqueued.len();
        let stamped = self.deliveries().stamped_ms;
        if let Some(stamped) = stamped {
            self.broker_offset_ms = Some(offset_of(stamped, self.began_at.millis(), self.clock.now().millis()));
        }
        Ok(positions)
    }

    /// Adds consumed offsets to the open transaction; refused when the membership is stale.
    pub(crate) fn send_offsets(
        &mut self,
        offsets: &TopicPartitionList,
        membership: &ConsumerGroupMetadata,
    ) -> Result<(), AppendError> {
        let answer = self.producer.send_offsets_to_transaction(offsets, membership, self.limits.transaction);
        answer.map_err(|error| self.classify(&error))
    }

    /// Commits the open transaction; call it only after [`TransactionalProducer::acknowledged`].
    ///
    /// # Errors
    /// [`AppendError::Unknown`] when nobody knows whether it was committed; the id is dead then.
    pub(crate) fn commit(&mut self) -> Result<(), AppendError> {
        let started = self.clock.monotonic();
        let disconnects = self.disconnects();
        let answer = self.producer.commit_transaction(self.limits.transaction);
        // Signs of a lost connection wait in the queue until then.
        self.producer.serve();
        let duration = self.clock.monotonic().saturating_sub(started);
        let was_doubtful = duration > self.limits.slow_commit || self.disconnects() > disconnects;
        let Err(error) = answer else {
            self.is_open = false;
            self.is_suspect |= was_doubtful;
            return Ok(());
        };
        let class = self.classify(&error);
        let is_requested_again = was_doubtful || matches!(class, AppendError::Unknown(_));
        if let AppendError::Retriable(_) = class
            && !is_requested_again
            && requires_abort(&error)
        {
            return Err(class);
        }
        self.is_dead = true;
        if is_requested_again || !matches!(class, AppendError::Refused(_)) {
            // The request may have been sent twice: the refusal may answer the second after the first was done.
            self.is_open = false;
            return Err(AppendError::Unknown(format!("{}: commit: {error}", self.id)));
        }
        Err(class)
    }

    fn deliveries(&self) -> MutexGuard<'_, Answers> {
        self.producer.context().answers()
    }

    fn disconnects(&self) -> u64 {
        self.producer.context().disconnects()
    }

    /// What it means that nothing is answered any more. Where nothing was at all, it may be the coordinator of this id
    /// that is away, which says nothing of any partition: another id may have another one.
    fn stalled(&self, answered: usize) -> AppendError {
        if answered > 0 {
            return AppendError::Stalled(self.unanswered());
        }
        AppendError::Retriable(format!("{}: neither its coordinator nor any partition answers", self.id))
    }

    fn unanswered(&self) -> Vec<TopicPartition> {
        let answers = self.deliveries();
        let open = self.enqueued.iter().enumerate();
        let open = open.filter(|(index, _)| !matches!(answers.answers.get(*index), Some(Some(_))));
        open.map(|(_, at)| at.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What a failed transaction call means to the caller.
    fn classify(&mut self, error: &KafkaError) -> AppendError {
        let text = format!("{}: {error}", self.id);
        let KafkaError::Transaction(inner) = error else {
            return AppendError::Retriable(text);
        };
        if is_refusal(inner.code()) {
            self.is_dead |= inner.is_fatal();
            return AppendError::Refused(text);
        }
        if inner.is_fatal() {
            self.is_dead = true;
            return AppendError::Refused(text);
        }
        if inner.txn_requires_abort() {
            return AppendError::Retriable(text);
        }
        // A call that timed out may still be carried out: whatever it was, this id must not go on.
        self.is_dead = true;
        AppendError::Unknown(text)
    }

    fn classify_record(&mut self, error: &KafkaError, record: &NewRecord) -> AppendError {
        let at = TopicPartition::new(record.topic.clone(), record.partition);
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                AppendError::TooLarge { topic: record.topic.to_string(), size_bytes: record.size_bytes() }
            }
            Some(code) => self.classify_delivery(code, &at),
            None => AppendError::Retriable(format!("{}: {at}: {error}", self.id)),
        }
    }

    fn classify_delivery(&mut self, code: RDKafkaErrorCode, at: &TopicPartition) -> AppendError {
        if is_refusal(code) || self.producer.client().fatal_error().is_some() {
            self.is_dead = true;
            return AppendError::Refused(format!("{}: {at}: {code}", self.id));
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "every other code means: abort and try again")]
        match code {
            RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition => AppendError::NoSuchTopic(at.topic.to_string()),
            RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize => {
                AppendError::TooLarge { topic: at.topic.to_string(), size_bytes: 0 }
            }
            RDKafkaErrorCode::MessageTimedOut => AppendError::Stalled(vec![at.clone()]),
            _ => AppendError::Retriable(format!("{}: {at}: {code}", self.id)),
        }
    }
}

fn requires_abort(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(inner) if inner.txn_requires_abort())
}

/// Codes that say: you are not (or no longer) the one who may write.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced
            | RDKafkaErrorCode::ProducerFenced
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::InvalidProducerIdMapping
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::FencedInstanceId
            | RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    )
}

fn client_config(base: &ClientConfig, id: &str, limits: TransactionLimits) -> ClientConfig {
    let mut client = base.clone();
    client.set("transactional.id", id);
    client.set("transaction.timeout.ms", limits.transaction.as_millis().to_string());
    client
}

/// How far stamps lie outside of the time in which they were made.
fn offset_of((first, last): (i64, i64), began: i64, ended: i64) -> i64 {
    if first < began { first - began } else { (last - ended).max(0) }
}

fn headers_of(record: &NewRecord) -> Option<OwnedHeaders> {
    if record.headers.is_empty() {
        return None;
    }
    let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
    for header in &record.headers {
        headers = headers.insert(KafkaHeader { key: &header.key, value: header.value.as_ref() });
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::offset_of;

    #[test]
    fn clocks_differ_by_at_least_what_lies_outside_of_the_transaction() {
        for (stamped, offset) in [((10, 20), 0), ((5, 25), 0), ((3, 4), -2), ((30, 31), 6), ((26, 26), 1), ((5, 5), 0)]
        {
            assert_eq!(offset_of(stamped, 5, 25), offset, "{stamped:?}");
        }
    }
}
