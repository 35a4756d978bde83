//! The dispatcher's memory of one shard: its live runs, and indexes over them. Decisions are one file each in
//! `machine/`; bytes are in `service`. Invariant: only `apply` and `restore` change it, each index agrees with
//! the runs, and what `restore` rebuilds from the log equals what `apply` built.

mod attempt;
mod cancels;
mod complete;
mod due;
mod graveyard;
mod hedge;
mod index;
mod lease_lost;
mod limit;
mod order;
mod place;
mod request;
mod restore;
mod room;
mod runs;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_breaker;
#[cfg(test)]
mod tests_complete;
#[cfg(test)]
mod tests_hedge;
#[cfg(test)]
mod tests_limits;
#[cfg(test)]
mod tests_orders;
#[cfg(test)]
mod tests_place;
#[cfg(test)]
mod tests_unserved;

use std::collections::BTreeMap;
use std::sync::Arc;

use orloj_domain::attempt::Outcome;
use orloj_domain::fleet::Fleet;
use orloj_domain::id::{RunId, SessionId};
use orloj_domain::limit::{self as limits, LimitRules};
use orloj_domain::run::{EndedAttempt, RunState, lifecycle};
use orloj_domain::setting::Verdict;
use orloj_domain::time::Timestamp;
use orloj_runtime::driver::Machine;

use crate::event::{About, Event, GivenBack, Input};
use crate::run::{DeadRun, Run, Step};
use crate::shares::Shares;
use cancels::Cancels;
use graveyard::{DEAD_MAX, Graveyard};
use index::Index;
use limit::Gates;
use runs::Runs;

/// The live runs of one shard.
#[derive(Debug, Clone, Default)]
pub struct DispatcherMachine {
    runs: Runs,
    index: Index,
    dead: Graveyard,
    /// Limits that belong to this shard.
    gates: Gates,
    /// Cancels of runs whose requests may come yet.
    cancels: Cancels,
    /// What limits allow, whichever shard they belong to; no state of the shard.
    rules: Arc<LimitRules>,
    /// The runners that have labels; no state of the shard.
    fleet: Arc<Fleet>,
    /// Copies of a live run that the log holds beside the one in `runs`; see `restore`. Almost always empty.
    older_copies: BTreeMap<RunId, Vec<Run>>,
}

/// By the runs, live and dead, and by who claims what; the indexes over runs follow.
impl PartialEq for DispatcherMachine {
    fn eq(&self, other: &Self) -> bool {
        (&self.runs, &self.dead, &self.older_copies) == (&other.runs, &other.dead, &other.older_copies)
            && (&self.gates, &self.rules, &self.fleet) == (&other.gates, &other.rules, &other.fleet)
            && self.cancels == other.cancels
    }
}

impl Machine for DispatcherMachine {
    type Input = Input;
    type Event = Event;

    fn tick() -> Input {
        Input::Tick
    }

    fn decide(&self, input: &Input, now: Timestamp) -> Vec<Event> {
        let mut events = match input {
            Input::Tick => self.decide_due(now),
            Input::Requested(request) => self.decide_request(request, now),
            Input::Claimed(report) => vec![self.decide_claim(report, now)],
            Input::Finished(report, outcome) => self.decide_finish(report, outcome, now),
            Input::SessionExpired(session) => self.decide_lease_lost(session, now),
            Input::Cancel(order) => self.decide_cancel(order, now),
            Input::Redrive(order) => self.decide_redrive(order, now),
            Input::LimitAsked(limit, waiter) => self.decide_asked(limit, waiter, now),
            Input::LimitGivenBack(limit, claim, verdict) => self.decide_given_back(limit, *claim, *verdict, now),
            Input::LimitGranted(limit, waiter) => vec![self.decide_granted(limit, waiter, now)],
            Input::LimitRules(rules) => vec![Event::LimitRulesTaken(Arc::clone(rules))],
            Input::Fleet(fleet) => self.decide_fleet(fleet, now),
            Input::Complete(completion) => vec![self.decide_complete(completion)],
            Input::Park(order) => vec![self.decide_park(order, now)],
        };
        self.forget_oldest(&mut events, now);
        if !matches!(input, Input::Claimed(_) | Input::Finished(..)) {
            self.withdraw(&mut events);
        }
        events
    }

    fn apply(&mut self, event: &Event) {
        debug_assert!(self.is_legal(event), "no run takes this step: {event:?}");
        match event {
            Event::Stepped { run, .. } => {
                self.older_copies.remove(&run.request.run_id);
                self.dead.take(run.request.run_id);
                self.put(run);
            }
            Event::Ended(ended) => {
                self.older_copies.remove(&ended.request.run_id);
                self.take(ended.request.run_id);
                if let Some(dead) = ended.dead() {
                    self.dead.put(dead);
                }
            }
            Event::NotRedriven { dead, .. } | Event::Parked { dead, .. } => self.dead.put((**dead).clone()),
            Event::Forgotten(dead, _) => {
                self.dead.take(dead.request.run_id);
            }
            Event::LimitJoined(limit, waiter) => self.gates.join(limit, waiter),
            Event::LimitHeld { limit, waiter, at, used_until_nanos } => {
                self.gates.grant(limit, waiter, *at, *used_until_nanos);
            }
            Event::LimitFree(limit, claim) => self.gates.give_back(limit, *claim),
            Event::LimitTurned { limit, turn, .. } => self.gates.turn(limit, &turn.breaker),
            Event::CancelKept(order, at) => self.cancels.put(order, *at),
            Event::CancelDropped(order) => self.cancels.take(order.run_id),
            Event::LimitRulesTaken(rules) => self.rules = Arc::clone(rules),
            Event::FleetTaken(fleet) => self.fleet = Arc::clone(fleet),
            Event::Withdrawn(_) | Event::Disowned(..) | Event::LimitDeclined(..) | Event::Ignored(_) => {}
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        // At once: whoever can be placed need not wait.
        let placed = self.can_place().then_some(Timestamp::MIN);
        let due = [self.index.first_due(), self.dead.first_too_old(), self.gates.first_due(&self.rules), placed];
        due.into_iter().chain([self.cancels.first_due()]).flatten().min()
    }
}

impl DispatcherMachine {
    /// A shard without runs, which shares with others of the process what their runs have in common.
    #[must_use]
    pub fn new(shares: Shares) -> Self {
        Self { runs: Runs::new(shares), ..Self::default() }
    }

    /// What its runs have in common with others.
    #[must_use]
    pub fn shares(&self) -> &Shares {
        self.runs.shares()
    }

    /// A live run.
    #[must_use]
    pub fn run(&self, run: RunId) -> Option<Run> {
        self.runs.get(run)
    }

    /// How many runs are live.
    #[must_use]
    pub fn live(&self) -> usize {
        self.runs.len()
    }

    /// How many dead runs can be sent back.
    #[must_use]
    pub fn dead(&self) -> usize {
        self.dead.len()
    }

    /// A dead run that can be sent back.
    #[must_use]
    pub fn dead_run(&self, run: RunId) -> Option<&DeadRun> {
        self.dead.get(run)
    }

    /// Sessions that hold an attempt, and those that are offered one.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        self.index.sessions()
    }

    /// Forgets the oldest dead runs if there are too many with those among `events`.
    fn forget_oldest(&self, events: &mut Vec<Event>, now: Timestamp) {
        let dying =
            events.iter().filter(|event| matches!(event, Event::Ended(end) if end.end.state() == RunState::Dead));
        let surplus = (self.dead.len() + dying.count()).saturating_sub(DEAD_MAX);
        let is_met = |id| {
            events.iter().any(|event| match event {
                Event::Stepped { run, .. } => run.request.run_id == id,
                Event::Forgotten(dead, _) => dead.request.run_id == id,
                Event::Ended(_)
                | Event::NotRedriven { .. }
                | Event::Parked { .. }
                | Event::Disowned(..)
                | Event::LimitJoined(..)
                | Event::LimitHeld { .. }
                | Event::LimitFree(..)
                | Event::LimitTurned { .. }
                | Event::LimitDeclined(..)
                | Event::LimitRulesTaken(_)
                | Event::FleetTaken(_)
                | Event::Withdrawn(_)
                | Event::CancelKept(..)
                | Event::CancelDropped(_)
                | Event::Ignored(_) => false,
            })
        };
        let oldest = self.dead.oldest(surplus).filter(|dead| !is_met(dead.request.run_id));
        let forgotten: Vec<Event> = oldest.map(|dead| Event::Forgotten(Box::new(dead.clone()), now)).collect();
        events.extend(forgotten);
    }

    /// True if the run that an event is about may take that step.
    fn is_legal(&self, event: &Event) -> bool {
        let (id, to) = match event {
            Event::Stepped { run, .. } => (run.request.run_id, run.step.state()),
            Event::Ended(ended) => (ended.request.run_id, ended.end.state()),
            Event::NotRedriven { dead, .. } | Event::Parked { dead, .. } => (dead.request.run_id, RunState::Dead),
            Event::Forgotten(..)
            | Event::Disowned(..)
            | Event::CancelKept(..)
            | Event::CancelDropped(_)
            | Event::LimitJoined(..)
            | Event::LimitHeld { .. }
            | Event::LimitFree(..)
            | Event::LimitTurned { .. }
            | Event::LimitDeclined(..)
            | Event::LimitRulesTaken(_)
            | Event::FleetTaken(_)
            | Event::Withdrawn(_)
            | Event::Ignored(_) => return true,
        };
        let dead = self.dead.get(id).map(|_| RunState::Dead);
        lifecycle::is_legal(self.runs.get(id).map(|run| run.step.state()).or(dead), to)
    }

    fn put(&mut self, run: &Run) {
        let (handle, before) = self.runs.put(run);
        if let Some(before) = before {
            self.index.remove(&before, handle);
        }
        self.index.insert(run, handle);
    }

    fn take(&mut self, run: RunId) -> Option<Run> {
        let (handle, run) = self.runs.take(run)?;
        self.index.remove(&run, handle);
        Some(run)
    }

    /// When a run has to be looked at next.
    #[cfg(test)]
    pub(crate) fn next_deadline_of_runs(&self) -> Option<Timestamp> {
        self.index.first_due()
    }

    /// True if the indexes are those of the runs.
    #[cfg(test)]
    pub(crate) fn is_index_right(&self) -> bool {
        let mut wanted = Index::default();
        self.runs.iter().for_each(|(handle, run)| wanted.insert(&run, handle));
        self.index == wanted
    }

    /// The step of a live run to `next`, with the topics that it leaves by it.
    fn step(&self, from: &Run, next: Run) -> Event {
        self.step_about(from, next, About::Run, Vec::new())
    }

    /// The same, of one of its attempts, with those that ended by it where two were live.
    fn step_about(&self, from: &Run, next: Run, about: About, ended: Vec<EndedAttempt>) -> Event {
        let mut leaves = self.topics_of(from);
        leaves.retain(|topic| *topic != next.topic());
        // Its attempt has ended, and another one follows: of one that found no handler the outcome says nothing. Whoever gives
        // back for another reason has made no attempt since.
        let has_ended = matches!(next.step, Step::Retrying { .. } | Step::Unserved { .. });
        let told = next.last_outcome.as_deref().filter(|_| has_ended).map(|outcome| (outcome, false));
        // What is held is held for one attempt under one token.
        let is_over = next.limits.is_empty() || next.claim() != from.claim();
        let gives_back = if is_over { given_back(from, told) } else { None };
        Event::Stepped { run: next, leaves, gives_back, about, ended }
    }

    /// Every topic in which the log holds a copy of a live run.
    fn topics_of(&self, run: &Run) -> Vec<&'static str> {
        let older = self.older_copies.get(&run.request.run_id).into_iter().flatten();
        std::iter::once(run).chain(older).map(Run::topic).collect()
    }
}

/// Limits that a run asks for or holds, as it gives them back; `told` is how its attempt ended, if it did, and whether the
/// run is a dead letter by that.
fn given_back(run: &Run, told: Option<(&Outcome, bool)>) -> GivenBack {
    let limits = run.claimed_limits();
    let said = limits.iter().map(|limit| {
        let verdict = told.map_or(Verdict::Nothing, |(outcome, is_dead)| limits::verdict(limit, outcome, is_dead));
        (limit.clone(), verdict)
    });
    (!limits.is_empty()).then(|| (said.collect(), run.claim()))
}
