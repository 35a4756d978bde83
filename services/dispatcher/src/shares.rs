//! What many runs have in common, held once by all machines of a process: the terms of the runs of one job and version, and
//! how their attempts ended. Not here: anything about one run. Invariant: what is shared never changes, and goes with the
//! last run that holds it; it saves memory and decides nothing: a wrong hash costs memory, never a wrong answer.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hashbrown::DefaultHashBuilder;
use orloj_domain::attempt::Outcome;
use orloj_domain::fire::FireDecision;
use orloj_domain::job::RunSpec;

use crate::request::Terms;

/// Places of what is gone that are kept before anybody looks for them.
const GONE_MAX: usize = 1024;

/// Terms and outcomes in use; clones are the same pool.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    pools: Arc<Mutex<Pools>>,
    /// With keys of its own: what is shared is other people's, and must not be made to collide.
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Default)]
struct Pools {
    terms: Pool<Terms>,
    outcomes: Pool<Outcome>,
}

impl Shares {
    /// The terms of a request: those of another run of its job and version, if they are the same, or new ones.
    pub(crate) fn terms(&self, decision: &FireDecision, spec: &RunSpec, made: impl FnOnce() -> Terms) -> Arc<Terms> {
        let hash = self.hasher.hash_one((&decision.job, decision.version));
        let found = self.pools().terms.find(hash).filter(|terms| terms.are_of(decision, spec));
        found.unwrap_or_else(|| {
            let made = Arc::new(made());
            self.pools().terms.keep(hash, &made);
            made
        })
    }

    /// An equal outcome that other runs may hold too.
    pub(crate) fn outcome(&self, outcome: &Arc<Outcome>) -> Arc<Outcome> {
        let hash = self.hasher.hash_one(outcome);
        let found = self.pools().outcomes.find(hash).filter(|found| found == outcome);
        found.unwrap_or_else(|| {
            self.pools().outcomes.keep(hash, outcome);
            Arc::clone(outcome)
        })
    }

    /// Gives back what is left of things that no run holds any more, if that is much: `runs` runs hold at most as many.
    pub(crate) fn tidy(&self, runs: usize) {
        let mut pools = self.pools();
        pools.terms.tidy(runs);
        pools.outcomes.tidy(runs);
    }

    /// How many distinct terms and outcomes are held.
    #[cfg(test)]
    pub(crate) fn counts(&self) -> (usize, usize) {
        let pools = self.pools();
        (pools.terms.held(), pools.outcomes.held())
    }

    /// How many places there are for them.
    #[cfg(test)]
    fn places(&self) -> (usize, usize) {
        let pools = self.pools();
        (pools.terms.shared.len(), pools.outcomes.shared.len())
    }

    /// Whoever panicked with the lock held has left both pools whole.
    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Values by their hashes, as long as somebody holds them.
#[derive(Debug)]
struct Pool<T> {
    shared: BTreeMap<u64, Weak<T>>,
    /// How many were held when it was looked last.
    held: usize,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { shared: BTreeMap::new(), held: 0 }
    }
}

impl<T> Pool<T> {
    /// The value of this hash, which may be another than the one that is meant.
    fn find(&self, hash: u64) -> Option<Arc<T>> {
        self.shared.get(&hash).and_then(Weak::upgrade)
    }

    /// Keeps a value that was not found; the newest of one hash is found from here.
    fn keep(&mut self, hash: u64, value: &Arc<T>) {
        self.shared.insert(hash, Arc::downgrade(value));
        // Twice as many: looking through them costs each that came since little.
        self.tidy(2 * self.held);
    }

    #[cfg(test)]
    fn held(&self) -> usize {
        self.shared.values().filter(|value| value.strong_count() > 0).count()
    }

    /// Looks for values that are gone if there are many more than can be held.
    fn tidy(&mut self, held_max: usize) {
        if self.shared.len() <= held_max + GONE_MAX {
            return;
        }
        self.shared.retain(|_, value| value.strong_count() > 0);
        self.held = self.shared.len();
    }
}

#[cfg(test)]
mod tests {
    use orloj_domain::attempt::OutcomeKind;

    use super::*;

    fn outcome(number: usize) -> Arc<Outcome> {
        Arc::new(Outcome::new(OutcomeKind::Failed, number.to_string()))
    }

    #[test]
    fn places_of_what_is_gone_are_given_back() {
        let shares = Shares::default();
        let held: Vec<_> = (0..100).map(|number| shares.outcome(&outcome(number))).collect();
        for number in 0..100_000 {
            let shared = shares.outcome(&outcome(number));
            assert!(held.get(number).is_none_or(|held| Arc::ptr_eq(held, &shared)));
            assert!(shares.places().1 <= 2 * (held.len() + 1) + GONE_MAX, "{number}");
        }
        drop(held);
        (0..GONE_MAX).for_each(|number| drop(shares.outcome(&outcome(number))));
        shares.tidy(0);
        assert!(shares.places().1 <= GONE_MAX);
        assert_eq!(shares.counts(), (0, 0));
    }
}
