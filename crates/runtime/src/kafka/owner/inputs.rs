//! Reading inputs of owned shards: one consumer on one thread for each topic, because the sign for the end of a
//! partition names no topic. All push into one bounded channel, so that the loop can wait for everything at once.
//! Not here: what the records mean. Invariant: what was read under an earlier position is never handed out after
//! a new one was asked for, and a partition is called caught up once for each position asked for.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select, unbounded};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::tail::{ANSWER_MAX, ask_for_topics, is_gone, list_of, out_of_range, record_of};
use crate::clock::{Clock, SystemClock};
use crate::kafka::client::{Complaints, drop_aside, poll_at_hand};
use crate::kafka::config::KafkaConfig;
use crate::kafka::ends::ends_of;
use crate::kafka::fault;
use crate::kafka::keeper::Kept;
use crate::log::{Isolation, LogError, OwnerEvent, Record, TopicName, TopicPartition};

/// Most records in one message of the channel, and most messages in the channel.
const BATCH_RECORDS_MAX: usize = 256;
const BATCHES_MAX: usize = 32;
/// Longest time a thread waits before it looks by itself, should the client's notice be lost.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long to wait before a request that failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What a thread has to say. The number says under which request for positions it was read.
pub(super) enum Arrival {
    Record(u64, Record),
    CaughtUp(u64, TopicPartition),
    Failed(LogError),
}

enum Request {
    /// Read these partitions from these offsets on, whatever was read of them before.
    Read(u64, Vec<(TopicPartition, i64)>),
    Stop(Vec<TopicPartition>),
}

/// The inputs of one owner.
pub(super) struct Inputs {
    config: KafkaConfig,
    requests: BTreeMap<String, Sender<Request>>,
    sender: Sender<Vec<Arrival>>,
    receiver: Receiver<Vec<Arrival>>,
    /// Request in force for each partition that is read.
    current: BTreeMap<TopicPartition, u64>,
    last_request: u64,
    /// Taken from the channel and not yet handed out.
    waiting: VecDeque<Arrival>,
}

impl Inputs {
    /// Reads nothing yet; threads start with the first partition of their topic.
    pub(super) fn new(config: &KafkaConfig) -> Self {
        let (sender, receiver) = bounded(BATCHES_MAX);
        Self {
            config: config.clone(),
            requests: BTreeMap::new(),
            sender,
            receiver,
            current: BTreeMap::new(),
            last_request: 0,
            waiting: VecDeque::new(),
        }
    }

    /// Where arrivals come from, for waiting; hand what it gives to [`Inputs::accept`].
    pub(super) fn receiver(&self) -> &Receiver<Vec<Arrival>> {
        &self.receiver
    }

    /// Takes what the channel gave while somebody waited.
    pub(super) fn accept(&mut self, arrivals: Vec<Arrival>) {
        self.waiting.extend(arrivals);
    }

    /// Reads these partitions from these offsets on.
    pub(super) fn read(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.last_request += 1;
        let mut by_topic: BTreeMap<&str, Vec<(TopicPartition, i64)>> = BTreeMap::new();
        for (at, offset) in positions {
            self.current.insert(at.clone(), self.last_request);
            by_topic.entry(&at.topic).or_default().push((at.clone(), *offset));
        }
        for (topic, positions) in by_topic {
            self.ask(topic, Request::Read(self.last_request, positions))?;
        }
        Ok(())
    }

    /// Stops reading the partitions that `is_stopped` picks.
    pub(super) fn stop(&mut self, is_stopped: impl Fn(&TopicPartition) -> bool) {
        let stopped: Vec<_> = self.current.keys().filter(|at| is_stopped(at)).cloned().collect();
        let mut by_topic: BTreeMap<TopicName, Vec<TopicPartition>> = BTreeMap::new();
        for at in stopped {
            self.current.remove(&at);
            by_topic.entry(at.topic.clone()).or_default().push(at);
        }
        for (topic, stopped) in by_topic {
            if let Err(error) = self.ask(&topic, Request::Stop(stopped)) {
                tracing::debug!(%topic, %error, "not stopped; what it reads is dropped");
            }
        }
    }

    /// At most `max` records, and what else arrived before them.
    pub(super) fn take(&mut self, max: usize) -> Result<Vec<OwnerEvent>, LogError> {
        let mut events = Vec::new();
        let mut records = Vec::new();
        // Records come in runs of one partition: which request is in force is looked up once for each run.
        let mut run: Option<(TopicPartition, Option<u64>)> = None;
        while records.len() < max {
            let Some(arrival) = self.next() else { break };
            match arrival {
                Arrival::Record(request, record) => {
                    let is_same = |at: &TopicPartition| at.partition == record.partition && at.topic == record.topic;
                    let current = match &run {
                        Some((at, current)) if is_same(at) => *current,
                        Some(_) | None => {
                            let at = record.topic_partition();
                            let current = self.current.get(&at).copied();
                            run = Some((at, current));
                            current
                        }
                    };
                    if current == Some(request) {
                        records.push(record);
                    }
                }
                Arrival::CaughtUp(request, at) => {
                    if self.is_current(request, &at) {
                        flush(&mut events, &mut records);
                        events.push(OwnerEvent::CaughtUp(at));
                    }
                }
                Arrival::Failed(error) if events.is_empty() && records.is_empty() => return Err(error),
                Arrival::Failed(error) => {
                    self.waiting.push_front(Arrival::Failed(error));
                    break;
                }
            }
        }
        flush(&mut events, &mut records);
        Ok(events)
    }

    fn next(&mut self) -> Option<Arrival> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.receiver.try_recv().into_iter().flatten());
        }
        self.waiting.pop_front()
    }

    fn is_current(&self, request: u64, at: &TopicPartition) -> bool {
        self.current.get(at) == Some(&request)
    }

    fn ask(&mut self, topic: &str, request: Request) -> Result<(), LogError> {
        if !self.requests.contains_key(topic) {
            let reader = TopicReader::open(&self.config, self.sender.clone())?;
            let (sender, receiver) = unbounded();
            let thread = std::thread::Builder::new().name(format!("input-{topic}"));
            let thread = thread.spawn(move || reader.run(&receiver));
            thread.map_err(|error| LogError::Unavailable(format!("no thread: {error}")))?;
            self.requests.insert(topic.to_owned(), sender);
        }
        let sent = self.requests.get(topic).map(|sender| sender.send(request));
        if matches!(sent, Some(Ok(()))) {
            return Ok(());
        }
        // The thread has ended, which it does only when it panicked; the next request starts another.
        self.requests.remove(topic);
        Err(LogError::Unavailable(format!("{topic}: its reader has ended")))
    }
}

fn flush(events: &mut Vec<OwnerEvent>, records: &mut Vec<Record>) {
    if !records.is_empty() {
        events.push(OwnerEvent::Records(std::mem::take(records)));
    }
}

/// What a thread knows of a partition it reads.
struct Tracked {
    request: u64,
    /// End of what was committed when reading began; `None` if it could not be learnt.
    target: Option<i64>,
    is_caught_up: bool,
}

/// The reader of one topic; lives on its thread and ends when the owner is gone.
struct TopicReader {
    config: KafkaConfig,
    consumer: Kept<BaseConsumer<Complaints>>,
    nonempty: Receiver<()>,
    out: Sender<Vec<Arrival>>,
    tracked: BTreeMap<TopicPartition, Tracked>,
    next: BTreeMap<TopicPartition, i64>,
    /// What could not be read yet and is tried again at `retry_at`: request and offset.
    unread: BTreeMap<TopicPartition, (u64, i64)>,
    clock: SystemClock,
    retry_at: Duration,
    batch: Vec<Arrival>,
}

impl TopicReader {
    fn open(config: &KafkaConfig, out: Sender<Vec<Arrival>>) -> Result<Self, LogError> {
        // Partitions that come with a takeover wait for the answer to the request that is under way.
        let mut client = config.for_reader(Isolation::Committed, "100");
        client.set("enable.partition.eof", "true");
        let consumer = client.create_with_context(Complaints::new("input"));
        let mut consumer: BaseConsumer<Complaints> = consumer.map_err(|error| fault::of_read("inputs", &error))?;
        let (sender, nonempty) = bounded(1);
        consumer.set_nonempty_callback(move || super::ring_bell(&sender));
        Ok(Self {
            config: config.clone(),
            consumer: config.kept(consumer),
            nonempty,
            out,
            tracked: BTreeMap::new(),
            next: BTreeMap::new(),
            unread: BTreeMap::new(),
            clock: SystemClock::new(),
            retry_at: Duration::ZERO,
            batch: Vec::new(),
        })
    }

    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            select! {
                recv(requests) -> request => match request {
                    Ok(request) => self.handle(request),
                    Err(_) => break,
                },
                recv(self.nonempty) -> _ => {}
                default(LOOK_INTERVAL) => {}
            }
            // Requests come before records that they would make void.
            while let Ok(request) = requests.try_recv() {
                self.handle(request);
            }
            self.retry();
            if self.drain().is_err() {
                break;
            }
        }
        drop_aside(self.consumer);
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Read(number, positions) => self.read_or_retry(number, &positions),
            Request::Stop(partitions) => self.forget(&partitions),
        }
    }

    fn read_or_retry(&mut self, request: u64, positions: &[(TopicPartition, i64)]) {
        let Err(error) = self.read(request, positions) else { return };
        self.batch.push(Arrival::Failed(error));
        let again = positions.iter().map(|(at, offset)| (at.clone(), (request, *offset)));
        self.unread.extend(again);
        self.retry_at = self.clock.monotonic() + RETRY_INTERVAL;
    }

    fn retry(&mut self) {
        if self.unread.is_empty() || self.clock.monotonic() < self.retry_at {
            return;
        }
        let mut by_request: BTreeMap<u64, Vec<(TopicPartition, i64)>> = BTreeMap::new();
        for (at, (request, offset)) in std::mem::take(&mut self.unread) {
            by_request.entry(request).or_default().push((at, offset));
        }
        for (request, positions) in by_request {
            self.read_or_retry(request, &positions);
        }
    }

    fn read(&mut self, request: u64, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        let partitions: Vec<_> = positions.iter().map(|(at, _)| at.clone()).collect();
        self.forget(&partitions);
        ask_for_topics(&self.consumer, &self.config, positions.iter().map(|(at, _)| at.topic.as_str()))?;
        // What can't be learnt now is caught up with by what is read.
        let ends = ends_of(&self.consumer, &self.config, &partitions, ANSWER_MAX).unwrap_or_default();
        for (at, offset) in positions {
            let target = ends.get(at).copied();
            let is_caught_up = target.is_some_and(|target| target <= *offset);
            self.tracked.insert(at.clone(), Tracked { request, target, is_caught_up });
            self.next.insert(at.clone(), *offset);
            if is_caught_up {
                self.batch.push(Arrival::CaughtUp(request, at.clone()));
            }
        }
        let list = list_of(&self.config, positions)?;
        self.consumer.incremental_assign(&list).map_err(|error| fault::of_read("inputs", &error))
    }

    fn forget(&mut self, partitions: &[TopicPartition]) {
        let mut list = TopicPartitionList::new();
        for at in partitions {
            self.next.remove(at);
            self.unread.remove(at);
            if self.tracked.remove(at).is_some() {
                list.add_partition(&self.config.full_name(&at.topic), at.partition);
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.incremental_unassign(&list)
        {
            tracing::debug!(%error, "these inputs were not read yet");
        }
    }

    /// Hands out whatever the client has; an error means that the owner is gone.
    fn drain(&mut self) -> Result<(), ()> {
        loop {
            let is_idle = self.take_one();
            if !self.batch.is_empty() && (is_idle || self.batch.len() >= BATCH_RECORDS_MAX) {
                self.out.send(std::mem::take(&mut self.batch)).map_err(|_| ())?;
            }
            if is_idle {
                return Ok(());
            }
        }
    }

    /// Takes one thing from the client; true if there was none.
    fn take_one(&mut self) -> bool {
        match poll_at_hand(&self.consumer, || false) {
            None => return true,
            Some(Ok(message)) => {
                let record = record_of(&self.config, &message);
                let at = record.topic_partition();
                let Some(tracked) = self.tracked.get_mut(&at) else { return false };
                let offset = record.offset;
                self.batch.push(Arrival::Record(tracked.request, record));
                if let Some(next) = self.next.get_mut(&at) {
                    *next = offset + 1;
                }
                if !tracked.is_caught_up && tracked.target.is_some_and(|target| offset + 1 >= target) {
                    tracked.is_caught_up = true;
                    self.batch.push(Arrival::CaughtUp(tracked.request, at));
                }
            }
            // This fetch began after the takeover, so its end is at or behind the last stable offset of then.
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                let tracked = self.tracked.iter_mut().find(|(at, _)| at.partition == partition);
                if let Some((at, tracked)) = tracked
                    && !tracked.is_caught_up
                {
                    tracked.is_caught_up = true;
                    self.batch.push(Arrival::CaughtUp(tracked.request, at.clone()));
                }
            }
            Some(Err(error)) if is_gone(&error) => {
                self.batch.push(Arrival::Failed(out_of_range(&self.consumer, &self.config, &self.next)));
            }
            Some(Err(error)) if fault::is_passing(&error) => {}
            Some(Err(error)) => self.batch.push(Arrival::Failed(fault::of_read("inputs", &error))),
        }
        false
    }
}
