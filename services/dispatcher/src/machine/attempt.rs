//! A runner reports: it claimed an attempt, or an attempt ended. What a failure leads to is decided in
//! `orloj_domain::retry`. Invariant: a report counts only for the attempt and token in force and, once claimed or
//! offered, only from the session that holds the lease or is offered it; so each attempt ends once.

use std::sync::Arc;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::retry::{self, RetryDecision};
use orloj_domain::time::Timestamp;

use super::{DispatcherMachine, given_back};
use crate::event::{End, Ended, Event, Ignored, Report};
use crate::run::{Run, Step};

impl DispatcherMachine {
    /// Whoever claims what is not to be had is told to stop.
    pub(super) fn decide_claim(&self, report: &Report, now: Timestamp) -> Event {
        let run = match self.reported(report) {
            Ok(run) => run,
            Err(ignored) => return Event::Disowned(report.clone(), ignored),
        };
        match &run.step {
            Step::Ready | Step::Offered { .. } => {
                self.step(&run, run.claimed(report.runner.clone(), report.session.clone(), now))
            }
            Step::Running { .. } => Event::Ignored(Ignored::AlreadyClaimed),
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Asking { .. }
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Retrying { .. } => Event::Disowned(report.clone(), Ignored::Stale),
        }
    }

    /// An end counts although its claim was never seen, for example because that record was quarantined: the
    /// token proves that it answers our ready record.
    pub(super) fn decide_finish(&self, report: &Report, outcome: &Outcome, now: Timestamp) -> Vec<Event> {
        let run = match self.reported(report) {
            Ok(run) => run,
            Err(ignored) => return vec![Event::Ignored(ignored)],
        };
        let mut events = vec![match &run.step {
            Step::Ready | Step::Offered { .. } | Step::Running { .. } => self.end_attempt(&run, outcome.clone(), now),
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Asking { .. }
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Retrying { .. } => Event::Ignored(Ignored::Stale),
        }];
        self.make_room(&mut events, now);
        events
    }

    /// The attempt that a live run is at has ended: as its callback said, if it has said anything before.
    pub(super) fn end_attempt(&self, run: &Run, outcome: Outcome, now: Timestamp) -> Event {
        let outcome = run.completion.as_deref().cloned().unwrap_or(outcome);
        match outcome.kind {
            OutcomeKind::Succeeded => self.end(run, End::Succeeded(outcome), now),
            OutcomeKind::Cancelled => self.end(run, End::Cancelled(outcome), now),
            OutcomeKind::Expired => self.end(run, End::Expired(outcome), now),
            OutcomeKind::NoHandler if run.cancel_reason.is_none() => {
                self.step(run, run.found_unserved(outcome, now))
            }
            OutcomeKind::Failed
            | OutcomeKind::NoHandler
            | OutcomeKind::TimedOut
            | OutcomeKind::NotStarted
            | OutcomeKind::LeaseLost
            | OutcomeKind::Aborted
            // No runner of this version reports these two; whatever they mean, it is no success.
            | OutcomeKind::Overlap
            | OutcomeKind::Unknown => self.fail_attempt(run, outcome, now),
        }
    }

    fn fail_attempt(&self, run: &Run, outcome: Outcome, now: Timestamp) -> Event {
        if let Some(reason) = &run.cancel_reason {
            let message = format!("{reason} (the attempt ended as {})", outcome.kind);
            return self.end(run, End::Cancelled(Outcome::new(OutcomeKind::Cancelled, message)), now);
        }
        let request = &run.request;
        let attempt = run.attempt - run.attempts_before;
        let decision = retry::after_failure(&request.retry, request.delivery, &outcome, attempt, request.run_id, now);
        match decision {
            RetryDecision::Retry { due_at } if run.deadline().is_some_and(|deadline| deadline <= due_at) => {
                let message = format!("its deadline comes before its next attempt; the last ended as {}", outcome.kind);
                self.end(run, End::Expired(Outcome::new(OutcomeKind::Expired, message)), now)
            }
            RetryDecision::Retry { due_at } => self.step(run, run.failed_once(outcome, due_at, now)),
            RetryDecision::DeadLetter { disposition } => self.end(run, End::Dead(outcome, disposition), now),
        }
    }

    pub(super) fn end(&self, run: &Run, end: End, now: Timestamp) -> Event {
        let first_failure = match &end {
            End::Succeeded(_) | End::Cancelled(_) | End::Expired(_) => run.first_failure,
            End::Dead(..) => run.first_failure.or(Some(now)),
        };
        let mut leaves = self.topics_of(run);
        if end.state().topic().is_some() {
            // What is kept of it takes the place of what was there.
            leaves.retain(|topic| Some(*topic) != end.state().topic());
        }
        Event::Ended(Box::new(Ended {
            request: run.request.clone(),
            end,
            attempt: run.last_attempt(),
            token: run.token,
            first_failure,
            redrives: run.redrives,
            recent_commands: Arc::clone(&run.recent_commands),
            at: now,
            leaves,
            gives_back: given_back(run),
        }))
    }

    /// The run that a report is about, if the report is about the attempt in force.
    fn reported(&self, report: &Report) -> Result<Run, Ignored> {
        let run = self.runs.get(report.run_id).filter(|run| run.request.job == report.job);
        let run = run.ok_or(Ignored::NotLive)?;
        if (run.attempt, run.token) != (report.attempt, report.token) {
            return Err(Ignored::Stale);
        }
        match run.session().or(run.addressee()) {
            Some(session) if *session != report.session => Err(Ignored::OtherSession),
            Some(_) | None => Ok(run),
        }
    }
}
