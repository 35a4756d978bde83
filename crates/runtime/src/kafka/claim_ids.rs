//! The two transactional ids that a claimer uses in turn: the broker is still busy with the end of one claim when
//! the next begins under the other. Not here: what a claim holds (`claimer`).
//! Invariant: an id whose last transaction may not have ended is initialised again before it is used again. That
//! is safe here, unlike for owners: to be fenced means nothing to a claimer, the group's generation is what refuses a stale
//! one.

use std::sync::Arc;

use super::client::Aside;
use super::config::KafkaConfig;
use super::transaction::{TransactionLimits, TransactionalProducer};
use crate::log::{AppendError, ClaimerName};

/// How many ids a claimer has.
const COUNT: usize = 2;

/// The full names of a claimer's ids.
pub(crate) fn names(config: &KafkaConfig, claimer: &ClaimerName) -> [String; COUNT] {
    std::array::from_fn(|index| config.full_name(&format!("{}.{}.{index}", claimer.group, claimer.member)))
}

/// What ids are opened with.
#[derive(Clone)]
pub(crate) struct Opener {
    pub(crate) config: Arc<KafkaConfig>,
    /// Any topic that exists.
    pub(crate) warm_topic: String,
}

impl Opener {
    /// Opens an id, whoever's it is, which ends what was left open under it and shuts its holder out.
    pub(crate) fn open(&self, id: &str) -> Result<TransactionalProducer, AppendError> {
        let base = self.config.for_transactions();
        let limits = TransactionLimits::of(&self.config);
        TransactionalProducer::open(&base, &self.config.prefix, id, &self.warm_topic, limits)
    }
}

/// Both ids.
pub(crate) struct ClaimIds {
    opener: Opener,
    names: [String; COUNT],
    producers: [Option<Aside<TransactionalProducer>>; COUNT],
    turn: usize,
}

impl ClaimIds {
    /// Opens both ids.
    pub(crate) fn open(opener: Opener, claimer: &ClaimerName) -> Result<Self, AppendError> {
        let names = names(&opener.config, claimer);
        let mut ids = Self { opener, names, producers: [None, None], turn: 0 };
        ids.revive()?;
        Ok(ids)
    }

    /// Lets go of both: they are opened again when they are needed.
    pub(crate) fn drop_all(&mut self) {
        self.producers = [None, None];
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
        let producer = self.opener.open(&self.names[index])?;
        self.producers[index] = Some(Aside::new(producer));
        Ok(())
    }
}
