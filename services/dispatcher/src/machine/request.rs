//! A run is asked for: it goes ahead, waits for others of its job, takes their place, or ends because the job forbids
//! overlap. Not here: which fire times ask (trigger). Invariant: a run that is live is never begun again.

use std::collections::BTreeSet;
use std::sync::Arc;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::overlap::{self, Others, OverlapDecision};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;

use super::DispatcherMachine;
use super::due::expired;
use super::order::said;
use crate::event::{About, End, Ended, Event, Ignored};
use crate::request::Request;
use crate::run::{Run, Step};

impl DispatcherMachine {
    pub(super) fn decide_request(&self, request: &Arc<Request>, now: Timestamp) -> Vec<Event> {
        // One that died and is kept is not begun anew by being asked for: it can be sent back.
        if self.runs.contains(request.run_id) || self.dead.get(request.run_id).is_some() {
            return vec![Event::Ignored(Ignored::AlreadyLive)];
        }
        if let Some(order) = self.cancels.of(request) {
            let outcome = Outcome::new(OutcomeKind::Cancelled, said("cancelled", order));
            let dropped = Event::CancelDropped(Box::new(order.clone()));
            return vec![refused(request, outcome, End::Cancelled, now), dropped];
        }
        let run = Run::waiting(Arc::clone(request), now);
        if run.deadline().is_some_and(|deadline| deadline <= now) {
            return vec![refused(request, expired(&run), End::Expired, now)];
        }
        match self.admit(run, now) {
            Ok(events) => events,
            Err(why) => vec![refused(request, Outcome::new(OutcomeKind::Overlap, why), End::Cancelled, now)],
        }
    }

    /// What becomes of a run that is not live yet beside the others of its job.
    ///
    /// # Errors
    /// Why it may not become live.
    pub(super) fn admit(&self, run: Run, now: Timestamp) -> Result<Vec<Event>, String> {
        let of_job = self.index.of_job(&run.request.job);
        let others = of_job.map_or(Others { active: 0, waiting: 0 }, |of_job| of_job.others());
        match overlap::decide(&run.request.overlap, run.request.concurrency, others) {
            OverlapDecision::GoAhead => Ok(vec![self.begins(self.begin(&run, now))]),
            OverlapDecision::Wait => Ok(vec![self.begins(run)]),
            OverlapDecision::Replace => Ok(self.replace(run, now)),
            OverlapDecision::Forbidden => Err("another run of the job is live, and it forbids overlap".to_owned()),
            OverlapDecision::QueueFull => Err(format!(
                "{} runs of the job wait already, and it lets no more wait (`overlap.max`)",
                others.waiting
            )),
        }
    }

    /// All others end; those that a runner holds are told to, and the new one waits for them.
    fn replace(&self, run: Run, now: Timestamp) -> Vec<Event> {
        let reason = format!("replaced by run {}", run.request.run_id);
        let mut events = Vec::new();
        let mut is_any_running = false;
        let of_job = self.index.of_job(&run.request.job);
        let active = of_job.into_iter().flat_map(|of_job| of_job.active()).map(|handle| self.runs.at(*handle));
        let mut others: Vec<Run> = active.collect();
        others.sort_by_key(|other| other.request.run_id);
        let waiting = of_job.into_iter().flat_map(|of_job| of_job.waiting());
        others.extend(waiting.filter_map(|id| self.runs.get(id)));
        for other in &others {
            is_any_running |= matches!(other.step, Step::Running { .. });
            events.extend(self.cancel(other, &reason, now));
        }
        let next = if is_any_running { run } else { self.begin(&run, now) };
        events.push(self.begins(next));
        events
    }

    /// The first step of a life; copies of the life before that the log may still hold end with it, and so does what is kept of
    /// it as dead.
    fn begins(&self, run: Run) -> Event {
        let older = self.older_copies.get(&run.request.run_id).into_iter().flatten();
        let dead = run.redriven_at.map(|_| topic::RUN_STATE);
        let leaves: BTreeSet<_> = older.map(Run::topic).chain(dead).filter(|topic| *topic != run.topic()).collect();
        let leaves = leaves.into_iter().collect();
        Event::Stepped { run, leaves, gives_back: None, about: About::Begun, ended: Vec::new() }
    }
}

/// The end of a run that never became live.
fn refused(request: &Arc<Request>, outcome: Outcome, end: impl FnOnce(Outcome) -> End, now: Timestamp) -> Event {
    Event::Ended(Box::new(Ended {
        request: Arc::clone(request),
        end: end(outcome),
        attempt: 0,
        token: 0,
        first_failure: None,
        redrives: 0,
        recent_commands: Arc::default(),
        at: now,
        leaves: Vec::new(),
        gives_back: None,
        ended_attempts: Vec::new(),
        stops: None,
    }))
}
