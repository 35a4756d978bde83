//! Limits that runs of many jobs share. A run asks the shard of each limit, one after the other in one order for all, so that
//! no two runs wait for each other; that shard grants, and gets back what an attempt no longer needs. Not here: who is next
//! (`orloj_domain::limit`). Invariant: a run is ready only while it holds all of its limits, and whatever is said twice, late
//! or of a run that is gone changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use orloj_domain::id::LimitId;
use orloj_domain::limit::{Breaker, Claim, Gate, Grant, LimitRules, Next, Turn, Waiter};
use orloj_domain::setting::{BreakerState, Verdict};
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

    pub(super) fn turn(&mut self, limit: &LimitId, breaker: &Breaker) {
        let gate = self.0.entry(limit.clone()).or_default();
        gate.turn(breaker.clone());
        if gate.is_empty() {
            self.0.remove(limit);
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

    /// The breaker of a limit of this shard; `None` if it is at rest.
    #[must_use]
    pub fn breaker(&self, limit: &LimitId) -> Option<&Breaker> {
        self.gates.0.get(limit).map(Gate::breaker).filter(|breaker| !breaker.is_at_rest())
    }

    /// How many breakers of limits of this shard are in a state other than closed.
    #[must_use]
    pub fn breakers(&self, state: BreakerState) -> usize {
        self.gates.0.values().filter(|gate| gate.breaker().state() == state).count()
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
    /// a dispatcher that was away does not add to it; a run that was sent back has had it, and may be one of many that go back at
    /// a rate.
    pub(super) fn begin(&self, run: &Run, now: Timestamp) -> Run {
        let request = &run.request;
        let due_at = run.redriven_at.unwrap_or_else(|| request.requested_at.plus(request.start_delay));
        if due_at > now { run.put_off(due_at, now) } else { self.go(run, now) }
    }

    /// What a run does that has waited for long, holding the first `held` of its limits.
    pub(super) fn ask_again(&self, run: &Run, held: usize, now: Timestamp) -> Run {
        let is_needed = run.asks_for().is_none_or(|limit| self.limits_of(run).contains(limit));
        // Nobody grants the limit of a host that has none any more.
        if is_needed { run.asked_again(held, now) } else { self.got_one(run, held, now) }
    }

    /// A run that held the first `held` of its limits has one more: it asks for the next one, or goes.
    fn got_one(&self, run: &Run, held: usize, now: Timestamp) -> Run {
        let held = held + 1;
        if held < run.limits.len() { run.asking_on(held, now) } else { self.let_go(run, now) }
    }

    /// The limits that an attempt of a run needs, in the one order in which all runs ask: that of its queue, those that its job
    /// names, and those of the host of its target.
    pub(super) fn limits_of(&self, run: &Run) -> Arc<[LimitId]> {
        let shared = run.request.limits.iter().map(LimitId::of_limit);
        let of_host = run.request.host.iter().flat_map(|host| self.rules.of_host(host)).cloned();
        let of_queue = self.rules.of_queue(&run.request.queue);
        let mut limits: Vec<LimitId> = of_queue.into_iter().chain(shared).chain(of_host).collect();
        limits.sort_unstable();
        limits.dedup();
        limits.into()
    }

    /// A run asks for a limit of this shard: it gets it, or waits in line.
    pub(super) fn decide_asked(&self, limit: &LimitId, waiter: &Waiter, now: Timestamp) -> Vec<Event> {
        let nobody = Gate::default();
        let gate = self.gates.0.get(limit).unwrap_or(&nobody);
        if gate.knows(waiter.claim) {
            return vec![Event::Ignored(Ignored::NoClaim)];
        }
        match gate.admits(limit, self.rules.get(limit), waiter.claim, now) {
            Some(grant) => held(limit, waiter, now, grant),
            None => vec![Event::LimitJoined(limit.clone(), waiter.clone())],
        }
    }

    pub(super) fn decide_given_back(
        &self,
        limit: &LimitId,
        claim: Claim,
        verdict: Verdict,
        now: Timestamp,
    ) -> Vec<Event> {
        let Some(gate) = self.gates.0.get(limit).filter(|gate| gate.knows(claim)) else {
            return vec![Event::Ignored(Ignored::NoClaim)];
        };
        let turn = gate.turned_by(self.rules.get(limit), claim, verdict, now);
        let turn = turn.map(|turn| turned(limit, turn, now));
        std::iter::once(Event::LimitFree(limit.clone(), claim)).chain(turn).collect()
    }

    /// What the limits of this shard do now, one step of each: the next tick does the rest.
    pub(super) fn decide_limits(&self, now: Timestamp) -> impl Iterator<Item = Event> {
        self.gates.0.iter().flat_map(move |(limit, gate)| match gate.next(limit, self.rules.get(limit), now) {
            Some(Next::Turn(turn)) => vec![turned(limit, turn, now)],
            Some(Next::Grant(waiter, grant)) => held(limit, &waiter, now, grant),
            Some(Next::TellAgain(waiter)) => held(limit, &waiter, now, Grant::default()),
            None => Vec::new(),
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
                self.step(&run, self.got_one(&run, *held, now))
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

fn held(limit: &LimitId, waiter: &Waiter, at: Timestamp, grant: Grant) -> Vec<Event> {
    let Grant { used_until_nanos, breaker } = grant;
    let turn = breaker.map(|breaker| turned(limit, Turn { breaker, why: None, run: None }, at));
    let held = Event::LimitHeld { limit: limit.clone(), waiter: waiter.clone(), at, used_until_nanos };
    std::iter::once(held).chain(turn).collect()
}

fn turned(limit: &LimitId, turn: Turn, at: Timestamp) -> Event {
    Event::LimitTurned { limit: limit.clone(), turn: Box::new(turn), at }
}
