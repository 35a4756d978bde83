//! The producers of one incarnation: two write in turn, because the broker puts off the next transaction of an id
//! whose last one it is still finishing; two warm spares wait. Not here: claims (`takeover`, `reclaim`).
//! Invariants: each id is initialised once and before a claim names it; an id that may still be ended by a late
//! request for its last transaction writes no more; ids never come back.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, bounded};
use orloj_domain::id::Incarnation;

use crate::kafka::config::KafkaConfig;
use crate::kafka::transaction::{TransactionLimits, TransactionalProducer};
use crate::log::AppendError;

/// Producers of one incarnation, spares included.
pub(super) const RING_SIZE: usize = 4;
/// How many of them write in turn.
const TURN_SIZE: usize = 2;

/// What new producers are made from.
#[derive(Clone)]
pub(super) struct Recipe {
    pub(super) config: KafkaConfig,
    /// A topic that exists.
    pub(super) warm_topic: String,
    pub(super) limits: TransactionLimits,
}

impl Recipe {
    fn open_one(&self, id: &str) -> Result<TransactionalProducer, AppendError> {
        let base = self.config.for_producer();
        TransactionalProducer::open(&base, &self.config.prefix, id, &self.warm_topic, self.limits)
    }

    /// Opens these ids side by side on threads of their own; one answer each, in any order.
    pub(super) fn open(&self, ids: &[String]) -> Receiver<Result<TransactionalProducer, AppendError>> {
        let (sender, receiver) = bounded(ids.len());
        for id in ids {
            let (recipe, id, answer) = (self.clone(), id.clone(), sender.clone());
            let open = move || {
                let opened = recipe.open_one(&id);
                // Nobody listens any more if the owner has given up meanwhile.
                if let Err(unwanted) = answer.send(opened) {
                    drop(unwanted);
                }
            };
            let thread = std::thread::Builder::new().name("producer-open".to_owned()).spawn(open);
            if let Err(error) = thread {
                let failed = Err(AppendError::Retriable(format!("no thread: {error}")));
                drop(sender.send(failed));
            }
        }
        receiver
    }
}

/// The id of one producer: `<prefix><service>.<incarnation>.<index>`.
pub(super) fn id_prefix(config: &KafkaConfig, service: &str) -> String {
    config.full_name(&format!("{service}."))
}

/// The producers of one incarnation.
pub(super) struct Ring {
    id_prefix: String,
    incarnation: Incarnation,
    /// The first `TURN_SIZE` write in turn, the rest are spares.
    producers: VecDeque<TransactionalProducer>,
    /// Every id added, retired ones included.
    named: Vec<String>,
    next_index: u32,
}

impl Ring {
    /// A ring without producers yet.
    pub(super) fn new(id_prefix: String, incarnation: Incarnation) -> Self {
        Self { id_prefix, incarnation, producers: VecDeque::new(), named: Vec::new(), next_index: 0 }
    }

    /// Ids that were never used before, as many as are missing.
    pub(super) fn new_ids(&mut self) -> Vec<String> {
        let missing = RING_SIZE.saturating_sub(self.producers.len());
        let mut ids = Vec::with_capacity(missing);
        for _ in 0..missing {
            ids.push(format!("{}{}.{}", self.id_prefix, self.incarnation, self.next_index));
            self.next_index += 1;
        }
        ids
    }

    /// Adds a producer that was opened; the next claim must name it before it writes anything else.
    pub(super) fn add(&mut self, producer: TransactionalProducer) {
        self.named.push(producer.id().to_owned());
        if producer.is_dead() || producer.is_suspect() {
            producer.retire();
        } else {
            self.producers.push_back(producer);
        }
    }

    /// Every id that may have written, retired ones included.
    pub(super) fn ids(&self) -> &[String] {
        &self.named
    }

    /// How many producers are left.
    pub(super) fn len(&self) -> usize {
        self.producers.len()
    }

    /// The producer whose turn it is; give it back by [`Ring::give_back`].
    pub(super) fn take(&mut self) -> Option<TransactionalProducer> {
        self.producers.pop_front()
    }

    /// Takes a producer back, behind the one that is next; one that must write no more is retired.
    pub(super) fn give_back(&mut self, producer: TransactionalProducer) {
        if producer.is_dead() || producer.is_suspect() {
            tracing::info!(producer = producer.id(), left = self.producers.len(), "retired a producer");
            producer.retire();
            return;
        }
        let place = (TURN_SIZE - 1).min(self.producers.len());
        self.producers.insert(place, producer);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        for producer in self.producers.drain(..) {
            producer.retire();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Even ids that were opened in vain are not given out again.
    #[test]
    fn ids_never_come_back() {
        let mut ids = BTreeSet::new();
        for incarnation in ["a", "b"] {
            let incarnation = Incarnation::new(incarnation).expect("incarnation");
            let mut ring = Ring::new("x.trigger.".to_owned(), incarnation);
            ids.extend(ring.new_ids());
            ids.extend(ring.new_ids());
            assert!(ring.ids().is_empty(), "an id counts once it was opened");
        }
        assert_eq!(ids.len(), 4 * RING_SIZE);
        assert!(ids.contains("x.trigger.b.7"));
    }
}
