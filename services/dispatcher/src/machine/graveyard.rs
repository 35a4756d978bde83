//! Dead runs that may still be sent back. Not here: how they died (`attempt`). Invariant: a run is live or dead, never both.

use std::collections::{BTreeSet, HashMap};

use orloj_domain::id::RunId;
use orloj_domain::time::Timestamp;

use super::due::DEAD_KEPT;
use crate::run::DeadRun;

/// Most dead runs kept in one shard: what fails every second must not fill the memory. The dead letters of older ones stay.
pub(super) const DEAD_MAX: usize = 2000;

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Graveyard {
    dead: HashMap<RunId, DeadRun>,
    /// By when they are too old.
    until: BTreeSet<(Timestamp, RunId)>,
}

impl Graveyard {
    pub(super) fn get(&self, run: RunId) -> Option<&DeadRun> {
        self.dead.get(&run)
    }

    pub(super) fn put(&mut self, dead: DeadRun) {
        let id = dead.request.run_id;
        self.take(id);
        self.until.insert((dead.since.plus(DEAD_KEPT), id));
        self.dead.insert(id, dead);
    }

    pub(super) fn take(&mut self, run: RunId) -> Option<DeadRun> {
        let dead = self.dead.remove(&run)?;
        self.until.remove(&(dead.since.plus(DEAD_KEPT), run));
        Some(dead)
    }

    pub(super) fn len(&self) -> usize {
        self.dead.len()
    }

    pub(super) fn first_too_old(&self) -> Option<Timestamp> {
        self.until.first().map(|(until, _)| *until)
    }

    /// The oldest, at most `count`.
    pub(super) fn oldest(&self, count: usize) -> impl Iterator<Item = &DeadRun> {
        self.until.iter().take(count).filter_map(|(_, run)| self.dead.get(run))
    }

    /// Those that are too old at `now`, the oldest first.
    pub(super) fn too_old(&self, now: Timestamp) -> impl Iterator<Item = &DeadRun> {
        self.until.iter().take_while(move |(until, _)| *until <= now).filter_map(|(_, run)| self.dead.get(run))
    }
}
