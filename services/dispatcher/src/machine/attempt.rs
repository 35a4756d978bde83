//! A runner reports: it claimed an attempt, or an attempt ended. What a failure leads to is decided in
//! `orloj_domain::retry`. Invariant: a report counts only for the attempt and token in force and, once claimed,
//! only from the session that holds the lease; so each attempt ends once.

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::retry::{self, RetryDecision};
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::{End, Ended, Event, Ignored, Report};
use crate::run::{Run, Step};

impl DispatcherMachine {
    pub(super) fn decide_claim(&self, report: &Report, now: Timestamp) -> Event {
        let run = match self.reported(report) {
            Ok(run) => run,
            Err(ignored) => return Event::Ignored(ignored),
        };
        match &run.step {
            Step::Ready => self.step(run, run.claimed(report.runner.clone(), report.session.clone(), now)),
            Step::Running { .. } => Event::Ignored(Ignored::AlreadyClaimed),
            Step::Delayed { .. } | Step::Retrying { .. } => Event::Ignored(Ignored::Stale),
        }
    }

    /// An end counts although its claim was never seen, for example because that record was quarantined: the
    /// token proves that it answers our ready record.
    pub(super) fn decide_finish(&self, report: &Report, outcome: &Outcome, now: Timestamp) -> Event {
        let run = match self.reported(report) {
            Ok(run) => run,
            Err(ignored) => return Event::Ignored(ignored),
        };
        match &run.step {
            Step::Ready | Step::Running { .. } => self.end_attempt(run, outcome.clone(), now),
            Step::Delayed { .. } | Step::Retrying { .. } => Event::Ignored(Ignored::Stale),
        }
    }

    /// The attempt that a live run is at has ended.
    pub(super) fn end_attempt(&self, run: &Run, outcome: Outcome, now: Timestamp) -> Event {
        match outcome.kind {
            OutcomeKind::Succeeded => self.end(run, End::Succeeded(outcome), now),
            OutcomeKind::Cancelled => self.end(run, End::Cancelled(outcome), now),
            OutcomeKind::Failed
            | OutcomeKind::TimedOut
            | OutcomeKind::NotStarted
            | OutcomeKind::LeaseLost
            | OutcomeKind::Aborted
            // No runner of this version reports these three; whatever they mean, it is no success.
            | OutcomeKind::Overlap
            | OutcomeKind::Expired
            | OutcomeKind::Unknown => self.fail_attempt(run, outcome, now),
        }
    }

    fn fail_attempt(&self, run: &Run, outcome: Outcome, now: Timestamp) -> Event {
        let request = &run.request;
        let decision =
            retry::after_failure(&request.retry, request.delivery, &outcome, run.attempt, request.run_id, now);
        match decision {
            RetryDecision::Retry { due_at } => self.step(run, run.failed_once(outcome, due_at, now)),
            RetryDecision::DeadLetter { disposition } => self.end(run, End::Dead(outcome, disposition), now),
        }
    }

    fn end(&self, run: &Run, end: End, now: Timestamp) -> Event {
        let first_failure = match &end {
            End::Succeeded(_) | End::Cancelled(_) => run.first_failure,
            End::Dead(..) => run.first_failure.or(Some(now)),
        };
        Event::Ended(Box::new(Ended {
            request: run.request.clone(),
            end,
            attempt: run.attempt,
            token: run.token,
            first_failure,
            redrives: run.redrives,
            at: now,
            leaves: self.topics_of(run),
        }))
    }

    /// The run that a report is about, if the report is about the attempt in force.
    fn reported(&self, report: &Report) -> Result<&Run, Ignored> {
        let run = self.runs.get(&report.run_id).filter(|run| run.request.job == report.job);
        let run = run.ok_or(Ignored::NotLive)?;
        if (run.attempt, run.token) != (report.attempt, report.token) {
            return Err(Ignored::Stale);
        }
        match run.session() {
            Some(session) if *session != report.session => Err(Ignored::OtherSession),
            Some(_) | None => Ok(run),
        }
    }
}
