//! The two transactional ids that a claimer uses in turn: the broker is still busy with the end of one claim when
//! the next begins under the other. Not here: what a claim holds (`claimer`).
//! Invariant: an id whose last transaction may not have ended is initialised again before it is used again. That
//! is safe here, unlike for owners: nobody fences a claimer, the group's generation is what refuses a stale one.

use std::sync::Arc;

use super::client::Aside;
use super::config::KafkaConfig;
use super::transaction::{TransactionLimits, TransactionalProducer};
use crate::log::AppendError;

/// Both ids.
pub(crate) struct ClaimIds {
    config: Arc<KafkaConfig>,
    /// Any topic that exists.
    warm_topic: String,
    /// What both ids begin with.
    stem: String,
    producers: [Option<Aside<TransactionalProducer>>; 2],
    turn: usize,
}

impl ClaimIds {
    /// Opens both ids.
    pub(crate) fn open(config: Arc<KafkaConfig>, stem: String, warm_topic: String) -> Result<Self, AppendError> {
        let mut ids = Self { config, warm_topic, stem, producers: [None, None], turn: 0 };
        ids.revive()?;
        Ok(ids)
    }

    /// The producer whose turn it is.
    pub(crate) fn next(&mut self) -> Result<&mut TransactionalProducer, AppendError> {
        self.revive_one(self.turn)?;
        let turn = self.turn;
        self.turn = (turn + 1) % self.producers.len();
        self.producers[turn].as_deref_mut().ok_or_else(|| AppendError::Retriable("no producer".to_owned()))
    }

    /// Opens again what can't go on; afterwards every earlier transaction of both ids has ended one way or the other.
    pub(crate) fn revive(&mut self) -> Result<(), AppendError> {
        for index in 0..self.producers.len() {
            self.revive_one(index)?;
        }
        Ok(())
    }

    fn revive_one(&mut self, index: usize) -> Result<(), AppendError> {
        let is_usable = |producer: &Aside<TransactionalProducer>| !producer.is_dead() && !producer.is_suspect();
        if self.producers[index].as_ref().is_some_and(is_usable) {
            return Ok(());
        }
        self.producers[index] = None;
        let id = self.config.full_name(&format!("{}.{index}", self.stem));
        let base = self.config.for_transactions();
        let limits = TransactionLimits::of(&self.config);
        let producer = TransactionalProducer::open(&base, &self.config.prefix, &id, &self.warm_topic, limits)?;
        self.producers[index] = Some(Aside::new(producer));
        Ok(())
    }
}
