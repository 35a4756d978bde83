//! Cancels of runs that are not known: topics are read in no order among each other, so that the request of such a run may come
//! yet. Not here: cancels of live runs (`order`). Invariant: what is kept is bounded in number and time, and stands in
//! `run.state`, so that a dispatcher that takes the shard over knows it too.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orloj_domain::id::RunId;
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::{Event, Ignored, Order};
use crate::request::Request;

/// How long the request of a cancelled run may come after its cancel; mostly the run has ended, and none comes.
const KEPT_FOR: Duration = Duration::from_secs(600);
/// Most that are kept.
const KEPT_MAX: usize = 10_000;
/// Most that are forgotten in one tick.
const FORGOTTEN_MAX: usize = 1000;

/// Cancels that came before their runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cancels {
    by_run: BTreeMap<RunId, (Timestamp, Order)>,
    by_age: BTreeSet<(Timestamp, RunId)>,
}

impl Cancels {
    /// The cancel of the run that is asked for.
    pub(super) fn of(&self, request: &Request) -> Option<&Order> {
        self.by_run.get(&request.run_id).map(|(_, order)| order).filter(|order| order.job == request.job)
    }

    pub(super) fn put(&mut self, order: &Order, at: Timestamp) {
        self.take(order.run_id);
        self.by_run.insert(order.run_id, (at, order.clone()));
        self.by_age.insert((at, order.run_id));
    }

    pub(super) fn take(&mut self, run: RunId) {
        if let Some((at, _)) = self.by_run.remove(&run) {
            self.by_age.remove(&(at, run));
        }
    }

    /// When the first of them is kept no longer.
    pub(super) fn first_due(&self) -> Option<Timestamp> {
        self.by_age.first().map(|(at, _)| at.plus(KEPT_FOR))
    }

    fn too_old(&self, now: Timestamp) -> impl Iterator<Item = &Order> {
        let old = self.by_age.iter().take_while(move |(at, _)| at.plus(KEPT_FOR) <= now);
        old.filter_map(|(_, run)| self.by_run.get(run)).map(|(_, order)| order)
    }
}

impl DispatcherMachine {
    /// A cancel of a run that is not live is kept, unless the run is known to have ended.
    pub(super) fn keep_cancel(&self, order: &Order, now: Timestamp) -> Event {
        let kept = &self.cancels.by_run;
        if self.dead.get(order.run_id).is_some() || kept.contains_key(&order.run_id) || kept.len() >= KEPT_MAX {
            return Event::Ignored(Ignored::NotLive);
        }
        Event::CancelKept(Box::new(order.clone()), now)
    }

    pub(super) fn decide_cancels(&self, now: Timestamp) -> impl Iterator<Item = Event> {
        self.cancels.too_old(now).take(FORGOTTEN_MAX).map(|order| Event::CancelDropped(Box::new(order.clone())))
    }
}
