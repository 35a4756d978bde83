//! What all Kafka clients here have in common: how they complain, how they wake a thread that waits, how they
//! end, and how long a call may take. Not here: settings (`config`), what an error means (`fault`).
//! Invariant: no client is dropped on a thread that anybody waits for without a deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::statistics::Statistics;

use super::ffi;
use super::keeper::Kept;
use crate::clock::{Clock, SystemClock};
use crate::log::Waker;

/// Shortest time between two warnings of one client; an outage makes each of them complain several times a second.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);

/// Longest time a thread waits before it looks by itself, should a notice be lost all the same ([`poll_at_hand`]).
const WAIT_SLICE: Duration = Duration::from_millis(250);
/// How long a member that leaves is served before it is asked again whether it has left.
const LEAVE_LOOK: Duration = Duration::from_millis(5);
/// Most polls in a row that find nothing although something is at hand.
const POLLS_MAX: u32 = 16;

/// Takes the complaints of one client: all of them are kept quiet but one in ten seconds, and the last is kept.
#[derive(Clone)]
pub(crate) struct Complaints(Arc<Inner>);

struct Inner {
    client: &'static str,
    clock: SystemClock,
    last_error: Mutex<Option<String>>,
    next_warning_millis: AtomicU64,
    hushed: AtomicU64,
}

impl Complaints {
    /// Nothing to complain about yet; `client` says in the log which kind of client it is.
    pub(crate) fn new(client: &'static str) -> Self {
        Self(Arc::new(Inner {
            client,
            clock: SystemClock::new(),
            last_error: Mutex::new(None),
            next_warning_millis: AtomicU64::new(0),
            hushed: AtomicU64::new(0),
        }))
    }

    /// The last error that says something.
    pub(crate) fn last(&self) -> Option<String> {
        lock(&self.0.last_error).clone()
    }

    fn warn(&self, message: &str) {
        let now = u64::try_from(self.0.clock.monotonic().as_millis()).unwrap_or(u64::MAX);
        if now < self.0.next_warning_millis.load(Ordering::Relaxed) {
            self.0.hushed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(client = self.0.client, message, "kafka client complains");
            return;
        }
        let interval = u64::try_from(WARNING_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        self.0.next_warning_millis.store(now.saturating_add(interval), Ordering::Relaxed);
        let hushed = self.0.hushed.swap(0, Ordering::Relaxed);
        tracing::warn!(client = self.0.client, hushed, message, "kafka client complains");
    }
}

impl ClientContext for Complaints {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let is_serious = (level as i32) <= (RDKafkaLogLevel::Warning as i32);
        // A setting meant for another kind of client is no fault: all kinds are given all of the user's settings.
        if is_serious && facility != "CONFWARN" {
            self.warn(message);
        } else {
            tracing::debug!(client = self.0.client, facility, message, "kafka client");
        }
    }

    fn stats(&self, _statistics: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        // The log line that comes with it is what a person sees.
        tracing::debug!(client = self.0.client, %error, reason, "kafka client error");
        let mut last = lock(&self.0.last_error);
        // "All brokers are down" follows the reason why the last of them is.
        if last.is_none() || error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *last = Some(reason.to_owned());
        }
    }
}

impl ConsumerContext for Complaints {}

/// Where a thread waits until a client has something for it or another thread wakes it.
#[derive(Clone, Default)]
pub(crate) struct Bell(Arc<(Mutex<Rings>, Condvar)>);

#[derive(Default)]
struct Rings {
    is_nonempty: bool,
    is_woken: bool,
}

/// Why a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ring {
    /// The client may have something, or nobody knows: look.
    Look,
    /// Another thread wants this one to return.
    Woken,
}

impl Bell {
    /// For the client's callback: its queue is no longer empty.
    pub(crate) fn ring_nonempty(&self) {
        lock(&self.0.0).is_nonempty = true;
        self.0.1.notify_all();
    }

    /// For other threads.
    pub(crate) fn waker(&self) -> Waker {
        let bell = self.clone();
        Waker::new(move || {
            lock(&bell.0.0).is_woken = true;
            bell.0.1.notify_all();
        })
    }

    /// Waits for either, `timeout` at most; takes the waking back, so that one wakes one.
    pub(crate) fn wait(&self, timeout: Duration) -> Ring {
        let rings = lock(&self.0.0);
        let is_quiet = |rings: &mut Rings| !rings.is_nonempty && !rings.is_woken;
        let waited = self.0.1.wait_timeout_while(rings, timeout.min(WAIT_SLICE), is_quiet);
        let (mut rings, _) = waited.unwrap_or_else(PoisonError::into_inner);
        rings.is_nonempty = false;
        if std::mem::take(&mut rings.is_woken) { Ring::Woken } else { Ring::Look }
    }
}

/// Takes one thing that a consumer has at hand; `None` if there is none, or once `is_over`, which is asked after each poll that
/// gave nothing. A poll that meets an event for the client itself gives nothing, whatever stands behind that, and librdkafka
/// gives notice only of what comes into an empty queue: who waited for one then would wait for long.
pub(super) fn poll_at_hand<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    is_over: impl Fn() -> bool,
) -> Option<KafkaResult<BorrowedMessage<'_>>> {
    for _ in 0..POLLS_MAX {
        let polled = consumer.poll(Duration::ZERO);
        if polled.is_some() || is_over() || ffi::at_hand(consumer) == 0 {
            return polled;
        }
    }
    None
}

/// How much time a call has left.
pub(crate) struct Deadline {
    clock: SystemClock,
    timeout: Duration,
}

impl Deadline {
    /// Starts now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self { clock: SystemClock::new(), timeout }
    }

    /// Zero once it has passed.
    pub(crate) fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.clock.monotonic())
    }

    /// True once it has passed.
    pub(crate) fn has_passed(&self) -> bool {
        self.left().is_zero()
    }
}

/// A client that is dropped on a thread of its own, see [`drop_aside`].
pub(crate) struct Aside<T: Send + 'static>(Option<T>);

impl<T: Send + 'static> Aside<T> {
    /// Takes the client.
    pub(crate) fn new(client: T) -> Self {
        Self(Some(client))
    }

    /// Hands the client out for another kind of end.
    pub(crate) fn into_inner(mut self) -> Option<T> {
        self.0.take()
    }
}

impl<T: Send + 'static> std::ops::Deref for Aside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect("taken only by what consumes the wrapper")
    }
}

impl<T: Send + 'static> std::ops::DerefMut for Aside<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect("taken only by what consumes the wrapper")
    }
}

impl<T: Send + 'static> Drop for Aside<T> {
    fn drop(&mut self) {
        if let Some(client) = self.0.take() {
            drop_aside(client);
        }
    }
}

/// Drops a client on a thread of its own: that may take as long as the broker is away.
pub(crate) fn drop_aside<T: Send + 'static>(client: T) {
    // Without a thread it is dropped here, which is slow but right.
    let spawned = std::thread::Builder::new().name("kafka-drop".to_owned()).spawn(move || drop(client));
    drop(spawned);
}

/// As [`drop_aside`], and waits for the end of it, `timeout` at most: for a client that should say good-bye.
pub(crate) fn drop_within<T: Send + 'static>(client: T, timeout: Duration) {
    let (done, is_done) = crossbeam_channel::bounded::<()>(1);
    drop_aside((client, done));
    // Disconnected as soon as both are dropped, in order; a time-out leaves the rest to the thread.
    let _ = is_done.recv_timeout(timeout);
}

/// As [`drop_within`], for a member of a group that was told to leave it: serves it until it has said good-bye. librdkafka 2.12 forgets
/// that if it is ended while it gives partitions back, and whoever joins next would wait for the session of one that is gone.
pub(crate) fn leave_within<C: ConsumerContext + 'static>(consumer: Kept<BaseConsumer<C>>, timeout: Duration) {
    let deadline = Deadline::after(timeout);
    // It forgets its id as it says good-bye.
    let is_member = || ffi::generation_and_member(&consumer).is_some_and(|(_, member)| !member.is_empty());
    while is_member() && !deadline.has_passed() {
        // Of records that still come, nobody keeps any.
        drop(consumer.poll(LEAVE_LOOK));
    }
    drop_within(consumer, deadline.left());
}

/// Locks; a thread that panicked while it held the lock left nothing half done that matters here.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use rdkafka::consumer::Consumer;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    use rdkafka::{Offset, TopicPartitionList};

    use super::*;
    use crate::kafka::config::KafkaConfig;
    use crate::log::Isolation;

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Waits until the consumer has more than `count` things at hand, without polling it.
    fn await_more_than(count: usize, consumer: &BaseConsumer<Complaints>) {
        let deadline = Deadline::after(PATIENCE);
        while ffi::at_hand(consumer) <= count {
            assert!(!deadline.has_passed(), "only {} at hand", ffi::at_hand(consumer));
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_stands_behind_an_event_of_the_client_is_taken_at_once() {
        let (_cluster, config) = KafkaConfig::of_mock(1);
        let producer: BaseProducer = config.for_producer().create().expect("a producer");
        for _ in 0..500 {
            producer.send(BaseRecord::<str, str>::to("o.t").partition(0).payload("x")).expect("room in the queue");
        }
        producer.flush(PATIENCE).expect("appended");
        // Statistics are such an event, and the one that a test can ask for.
        let mut settings = config.for_reader(Isolation::Committed, "50");
        settings.set("statistics.interval.ms", "1000");
        let consumer: BaseConsumer<Complaints> =
            settings.create_with_context(Complaints::new("test")).expect("valid settings");
        await_more_than(0, &consumer);
        let mut partitions = TopicPartitionList::new();
        partitions.add_partition_offset("o.t", 0, Offset::Beginning).expect("a valid offset");
        consumer.assign(&partitions).expect("an existing topic");
        // One a second: far fewer of them than of the records.
        await_more_than(100, &consumer);
        assert!(consumer.poll(Duration::ZERO).is_none(), "it has met no event");
        let message = poll_at_hand(&consumer, || false).expect("what stands behind it").expect("a record");
        assert_eq!(rdkafka::Message::payload(&message), Some(&b"x"[..]));
    }

    #[test]
    fn a_bell_rings_once_for_each_waking() {
        let bell = Bell::default();
        bell.waker().wake();
        assert_eq!(bell.wait(Duration::from_secs(10)), Ring::Woken);
        bell.ring_nonempty();
        assert_eq!(bell.wait(Duration::from_secs(10)), Ring::Look);
        assert_eq!(bell.wait(Duration::ZERO), Ring::Look);
    }

    #[test]
    fn a_client_is_dropped_before_the_wait_ends() {
        struct Client(Arc<AtomicU64>);
        impl Drop for Client {
            fn drop(&mut self) {
                self.0.store(1, Ordering::SeqCst);
            }
        }
        let is_dropped = Arc::new(AtomicU64::new(0));
        drop_within(Client(is_dropped.clone()), Duration::from_secs(10));
        assert_eq!(is_dropped.load(Ordering::SeqCst), 1);
    }
}
