//! What the safe interface of librdkafka does not offer: under which generation and member id a consumer is in its
//! group, how much a consumer has at hand, a notice when a producer has something to tell, and more addresses for a client that
//! lives already. Not here: what to make of it (`owner`, `polled`, `keeper`).
//! Invariant: nothing obtained here outlives the call, or the producer that it watches.
#![expect(
    unsafe_code,
    reason = "rdkafka 0.39 has no getters for group metadata, no notices for producers, no brokers added later, no lengths"
)]

use std::ffi::{CStr, CString, c_void};
use std::ptr::NonNull;

use rdkafka::ClientContext;
use rdkafka::bindings::{
    rd_kafka_brokers_add, rd_kafka_consumer_group_metadata, rd_kafka_consumer_group_metadata_destroy,
    rd_kafka_consumer_group_metadata_generation_id, rd_kafka_consumer_group_metadata_member_id,
    rd_kafka_queue_cb_event_enable, rd_kafka_queue_destroy, rd_kafka_queue_get_consumer, rd_kafka_queue_get_main,
    rd_kafka_queue_length, rd_kafka_queue_t, rd_kafka_t,
};
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::producer::{BaseProducer, Producer, ProducerContext};

/// Generation and member id at this moment; `None` for a consumer without a group.
pub(crate) fn generation_and_member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<(i32, String)> {
    // SAFETY: the client lives as long as the borrow of `consumer`. The metadata object is ours from here on, is
    // not used after it is destroyed, and the member id, which points into it, is copied before that.
    unsafe {
        let metadata = rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = rd_kafka_consumer_group_metadata_member_id(metadata);
        let member =
            if member.is_null() { String::new() } else { CStr::from_ptr(member).to_string_lossy().into_owned() };
        rd_kafka_consumer_group_metadata_destroy(metadata);
        Some((generation, member))
    }
}

/// A reference to a queue of a client, which lives at least as long.
struct Queue(NonNull<rd_kafka_queue_t>);

// SAFETY: librdkafka's queues are locked inside.
unsafe impl Send for Queue {}
// SAFETY: as above.
unsafe impl Sync for Queue {}

impl Queue {
    /// How many records and events wait in it.
    fn len(&self) -> usize {
        // SAFETY: the reference is ours until `drop`.
        unsafe { rd_kafka_queue_length(self.0.as_ptr()) }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the reference is ours, and is not used after this.
        unsafe { rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// How many records and events a consumer with a group id has at hand.
pub(super) fn at_hand<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> usize {
    // SAFETY: the client lives as long as the borrow of `consumer`, which is longer than the reference to its queue.
    let queue = unsafe { rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
    NonNull::new(queue).map_or(0, |queue| Queue(queue).len())
}

/// Tells a client addresses of brokers, as `bootstrap.servers` does; those that it knows change nothing.
pub(super) fn add_brokers<C: ClientContext>(client: &Client<C>, servers: &str) {
    let Ok(servers) = CString::new(servers) else { return };
    // SAFETY: the client lives as long as its borrow, and the string as long as the call, which copies it.
    unsafe { rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
}

type OnEvent = Box<dyn Fn() + Send + Sync>;

/// The queue of a producer's events, watched. Drop it before the producer.
pub(super) struct EventQueue {
    queue: Queue,
    /// Called by librdkafka through its address; boxed twice, because a `dyn` pointer does not fit the C argument.
    _on_event: Box<OnEvent>,
}

impl EventQueue {
    /// Calls `on_event`, from a thread of librdkafka, whenever the first event comes into the empty queue.
    pub(super) fn watch<C: ProducerContext + 'static>(
        producer: &BaseProducer<C>,
        on_event: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let on_event: Box<OnEvent> = Box::new(Box::new(on_event));
        let address = std::ptr::from_ref::<OnEvent>(&on_event).cast_mut().cast::<c_void>();
        // SAFETY: the client lives as long as the borrow of `producer`.
        let queue = unsafe { rd_kafka_queue_get_main(producer.client().native_ptr()) };
        let queue = Queue(NonNull::new(queue).expect("every client has a main queue"));
        // SAFETY: what `address` points to lives until `drop` has taken the callback back, and any thread may call it.
        unsafe { rd_kafka_queue_cb_event_enable(queue.0.as_ptr(), Some(call), address) };
        Self { queue, _on_event: on_event }
    }

    /// How many events wait.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }
}

impl Drop for EventQueue {
    fn drop(&mut self) {
        // SAFETY: callbacks are made and changed under the queue's lock, so that none runs once it was taken back.
        unsafe { rd_kafka_queue_cb_event_enable(self.queue.0.as_ptr(), None, std::ptr::null_mut()) };
    }
}

/// What librdkafka calls.
unsafe extern "C" fn call(_client: *mut rd_kafka_t, address: *mut c_void) {
    // SAFETY: `address` is what `watch` gave, which lives until the callback is taken back.
    let on_event = unsafe { &*address.cast::<OnEvent>() };
    on_event();
}
