//! A producer that is served by the thread that uses it, which sleeps until there is something to serve. Not here:
//! what reports mean (the contexts). Invariant: whoever waits uses no processor time: `BaseProducer::poll` of rdkafka
//! 0.39 lasts its whole time and spins through the last millisecond of it, so it is only ever called with zero.

use std::ops::Deref;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, ProducerContext};

use super::client::Bell;
use super::ffi::EventQueue;
use super::keeper::Kept;

/// The producer.
pub(crate) struct Polled<C: ProducerContext + 'static> {
    /// Before the producer, for that is the order in which they are dropped.
    events: EventQueue,
    bell: Bell,
    producer: Kept<BaseProducer<C>>,
}

impl<C: ProducerContext + 'static> Polled<C> {
    /// Takes a producer that nobody else polls.
    pub(crate) fn new(producer: Kept<BaseProducer<C>>) -> Self {
        let bell = Bell::default();
        let rung = bell.clone();
        let events = EventQueue::watch(&producer, move || rung.ring_nonempty());
        Self { events, bell, producer }
    }

    /// Hands everything that waits to the context.
    pub(crate) fn serve(&self) {
        while self.events.len() > 0 {
            self.producer.poll(Duration::ZERO);
        }
    }

    /// As [`Polled::serve`]; waits for the first thing, `timeout` at most, and may return earlier without any.
    pub(crate) fn wait_and_serve(&self, timeout: Duration) {
        if self.events.len() == 0 {
            self.bell.wait(timeout);
        }
        self.serve();
    }
}

impl<C: ProducerContext + 'static> Deref for Polled<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.producer
    }
}
