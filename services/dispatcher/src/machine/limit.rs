//! Limits that runs of many jobs share. A run asks the shard of each limit, one after the other in one order for all, so that
//! no two runs wait for each other; that shard grants, and gets back what an attempt no longer needs. Not here: who is next
//! (`orloj_domain::limit`). Invariant: a run is ready only while it holds all of its limits, and whatever is said twice, late
//! or of a run that is gone changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use orloj_domain::id::LimitId;
use orloj_domain::limit::{Claim, Gate, LimitRules, Next, Waiter};
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::{Event, Ignored};
use crate::run::{Run, Step};

/// The limits that belong to one shard, those of which there is nothing to remember left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Gates(BTreeMap<LimitId, Gate>);

impl Gates {
    pub(super) fn join(&mut self, limit: &LimitId, waiter: &Waiter) {
        self.0.entry(limit.clone()).or_default().join(waiter);
    }

    pub(super) fn grant(&mut self, limit: &LimitId, waiter: &Waiter, at: Timestamp, used_until_nanos: i64) {
        self.0.entry(limit.clone()).or_default().grant(waiter, at, used_until_nanos);
    }

    pub(super) fn use_until(&mut self, limit: &LimitId, nanos: i64, at: Timestamp) {
        self.0.entry(limit.clone()).or_default().use_until(nanos, at);
    }

    pub(super) fn give_back(&mut self, limit: &LimitId, claim: Claim) {
        if let Some(gate) = self.0.get_mut(limit) {
            gate.give_back(claim);
            if gate.is_empty() {
                self.0.remove(limit);
            }
        }
    }

    /// When one of them has something to do.
    pub(super) fn first_due(&self, rules: &LimitRules) -> Option<Timestamp> {
        self.0.iter().filter_map(|(limit, gate)| gate.due(limit, rules.get(limit))).min()
    }
}

impl DispatcherMachine {
    /// How many wait for a limit of this shard, and how many hold it.
    #[must_use]
    pub fn limit(&self, limit: &LimitId) -> (usize, usize) {
        self.gates.0.get(limit).map_or((0, 0), |gate| (gate.waiting(), gate.held()))
    }

    /// Nothing keeps a run back but its limits and the runner that it asks for, which comes first: who waits for one holds no
    /// limit. It is ready, or asks for the first of them.
    pub(super) fn go(&self, run: &Run, now: Timestamp) -> Run {
        if !run.request.runner_labels.is_empty() {
            return run.unplaced(now);
        }
        let limits = self.limits_of(run);
        if limits.is_empty() { run.made_ready(now) } else { run.asking(limits, now) }
    }

    /// There is room for a run: it goes, or waits for its start delay. The delay counts from the trigger's decision, so that
    /// a dispatcher that was away does not add to it; a run that was sent back has had it.
    pub(super) fn begin(&self, run: &Run, now: Timestamp) -> Run {
        let request = &run.request;
        let due_at = request.requested_at.plus(request.start_delay);
        if !request.start_delay.is_zero() && due_at > now && run.redriven_at.is_none() {
            run.put_off(due_at, now)
        } else {
            self.go(run, now)
        }
    }

    /// The limits that an attempt of a run needs, in the one order in which all runs ask.
    pub(super) fn limits_of(&self, run: &Run) -> Arc<[LimitId]> {
        let shared = run.request.limits.iter().map(LimitId::of_limit);
        let mut limits: Vec<LimitId> = self.rules.of_queue(&run.request.queue).into_iter().chain(shared).collect();
        limits.sort_unstable();
        limits.dedup();
        limits.into()
    }

    /// A run asks for a limit of this shard: it gets it, or waits in line.
    pub(super) fn decide_asked(&self, limit: &LimitId, waiter: &Waiter, now: Timestamp) -> Event {
        let nobody = Gate::default();
        let gate = self.gates.0.get(limit).unwrap_or(&nobody);
        if gate.knows(waiter.claim) {
            return Event::Ignored(Ignored::NoClaim);
        }
        match gate.admits(limit, self.rules.get(limit), now) {
            Some(used_until_nanos) => held(limit, waiter, now, used_until_nanos),
            None => Event::LimitJoined(limit.clone(), waiter.clone()),
        }
    }

    pub(super) fn decide_given_back(&self, limit: &LimitId, claim: Claim) -> Event {
        if self.gates.0.get(limit).is_some_and(|gate| gate.knows(claim)) {
            Event::LimitFree(limit.clone(), claim)
        } else {
            Event::Ignored(Ignored::NoClaim)
        }
    }

    /// What the limits of this shard do now, one step of each: the next tick does the rest.
    pub(super) fn decide_limits(&self, now: Timestamp) -> impl Iterator<Item = Event> {
        self.gates.0.iter().filter_map(move |(limit, gate)| match gate.next(limit, self.rules.get(limit), now)? {
            Next::Grant(waiter, used_until_nanos) => Some(held(limit, &waiter, now, used_until_nanos)),
            Next::TellAgain(waiter) => Some(held(limit, &waiter, now, 0)),
        })
    }

    /// A run of this shard has got a limit: it asks for the next one, or is ready.
    pub(super) fn decide_granted(&self, limit: &LimitId, waiter: &Waiter, now: Timestamp) -> Event {
        let (id, _) = waiter.claim;
        let run = self.runs.get(id).filter(|run| run.request.job == waiter.job);
        let Some(run) = run.filter(|run| run.claim() == waiter.claim && run.limits.contains(limit)) else {
            return Event::LimitDeclined(limit.clone(), waiter.clone());
        };
        match &run.step {
            Step::Asking { held, .. } if run.asks_for() == Some(limit) => {
                let held = held + 1;
                let next = if held < run.limits.len() { run.asking_on(held, now) } else { self.let_go(&run, now) };
                self.step(&run, next)
            }
            // It was told before.
            Step::Asking { .. } | Step::Ready | Step::Offered { .. } | Step::Running { .. } => {
                Event::Ignored(Ignored::NoClaim)
            }
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Retrying { .. } => Event::LimitDeclined(limit.clone(), waiter.clone()),
        }
    }
}

fn held(limit: &LimitId, waiter: &Waiter, at: Timestamp, used_until_nanos: i64) -> Event {
    Event::LimitHeld { limit: limit.clone(), waiter: waiter.clone(), at, used_until_nanos }
}
