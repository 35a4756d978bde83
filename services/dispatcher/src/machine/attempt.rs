//! A runner reports: it claimed an attempt, or an attempt ended. What a failure leads to is decided in
//! `orloj_domain::retry`, of two attempts in `hedge`. Invariant: a report counts only for an attempt and token in force and,
//! once claimed or offered, only from the session that holds the lease or is offered it; so each attempt ends once.

use std::sync::Arc;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::retry::{self, RetryDecision};
use orloj_domain::time::Timestamp;

use super::hedge::{end_of_other, ended_attempt};
use super::{DispatcherMachine, given_back};
use crate::event::{About, End, Ended, Event, Ignored, Report};
use crate::hedge::Which;
use crate::run::{Run, Step};

impl DispatcherMachine {
    /// Whoever claims what is not to be had is told to stop.
    pub(super) fn decide_claim(&self, report: &Report, now: Timestamp) -> Event {
        let (run, which) = match self.reported(report) {
            Ok(found) => found,
            Err(ignored) => return Event::Disowned(report.clone(), ignored),
        };
        if which == Which::Hedge {
            return self.claim_hedge(&run, report, now);
        }
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
        let (run, which) = match self.reported(report) {
            Ok(found) => found,
            Err(ignored) => return vec![Event::Ignored(ignored)],
        };
        let mut events = vec![match &run.step {
            Step::Ready | Step::Offered { .. } | Step::Running { .. } => {
                self.end_attempt(&run, which, outcome.clone(), now)
            }
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

    /// An attempt of a live run has ended: as its callback said, if it has said anything before.
    pub(super) fn end_attempt(&self, run: &Run, which: Which, outcome: Outcome, now: Timestamp) -> Event {
        if run.live_hedge().is_some() {
            return self.end_one(run, which, outcome, now);
        }
        let outcome = run.completion.as_deref().cloned().unwrap_or(outcome);
        match outcome.kind {
            OutcomeKind::Succeeded => self.end(run, End::Succeeded(outcome), now),
            OutcomeKind::Cancelled => self.end(run, End::Cancelled(outcome), now),
            OutcomeKind::Expired => self.end(run, End::Expired(outcome), now),
            // Beside one that was used, the number of this one can't be given again: it counts as failed.
            OutcomeKind::NoHandler if run.cancel_reason.is_none() && run.hedge.is_none() => {
                self.step(run, run.found_unserved(outcome, now))
            }
            OutcomeKind::Failed
            | OutcomeKind::NoHandler
            | OutcomeKind::TimedOut
            | OutcomeKind::NotStarted
            | OutcomeKind::LeaseLost
            | OutcomeKind::Aborted
            | OutcomeKind::HandedBack
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
        let attempt = run.newest_attempt() - run.attempts_before;
        let decision = retry::after_failure(&request.retry, request.delivery, &outcome, attempt, request.run_id, now);
        match decision {
            RetryDecision::Retry { due_at } if run.deadline().is_some_and(|deadline| deadline <= due_at) => {
                let message = format!("its deadline comes before its next attempt; the last ended as {}", outcome.kind);
                // It ends for want of time; its attempt has failed all the same.
                let gives_back = given_back(run, Some((&outcome, false)));
                let end = End::Expired(Outcome::new(OutcomeKind::Expired, message));
                Event::Ended(Box::new(Ended { gives_back, ..self.ended(run, Which::Own, end, now) }))
            }
            RetryDecision::Retry { due_at } => {
                let ended = run.hedge.as_ref().map(|_| ended_attempt(run, Which::Own, outcome.clone(), now));
                let ended = ended.into_iter().collect();
                let is_failure = outcome.kind != OutcomeKind::HandedBack;
                let next =
                    if is_failure { run.failed_once(outcome, due_at, now) } else { run.handed_back(outcome, now) };
                self.step_about(run, next, About::Run, ended)
            }
            RetryDecision::DeadLetter { disposition } => self.end(run, End::Dead(outcome, disposition), now),
        }
    }

    pub(super) fn end(&self, run: &Run, end: End, now: Timestamp) -> Event {
        Event::Ended(Box::new(self.ended(run, Which::Own, end, now)))
    }

    /// The end of a run by one of its attempts, or while none is live.
    pub(super) fn ended(&self, run: &Run, by: Which, end: End, now: Timestamp) -> Ended {
        let told = match &end {
            End::Succeeded(outcome) => Some((outcome, false)),
            End::Dead(outcome, _) => Some((outcome, true)),
            End::Cancelled(_) | End::Expired(_) => None,
        };
        let gives_back = given_back(run, told);
        let first_failure = match &end {
            End::Succeeded(_) | End::Cancelled(_) | End::Expired(_) => run.first_failure,
            End::Dead(..) => run.first_failure.or(Some(now)),
        };
        let mut leaves = self.topics_of(run);
        if end.state().topic().is_some() {
            // What is kept of it takes the place of what was there.
            leaves.retain(|topic| Some(*topic) != end.state().topic());
        }
        let (attempt, token) = match &end {
            End::Succeeded(_) => run.numbers(by),
            // Whoever sends it back goes on from the newest.
            End::Cancelled(_) | End::Expired(_) | End::Dead(..) => (run.last_attempt(), run.newest_token()),
        };
        let by_attempt = run.hedge.as_ref().map(|_| ended_attempt(run, by, end.outcome().clone(), now));
        let mut ended = Ended {
            request: run.request.clone(),
            end,
            attempt,
            token,
            first_failure,
            redrives: run.redrives,
            recent_commands: Arc::clone(&run.recent_commands),
            at: now,
            leaves,
            gives_back,
            ended_attempts: by_attempt.into_iter().collect(),
            stops: None,
        };
        end_of_other(run, by, &mut ended);
        ended
    }

    /// The run that a report is about, and which of its attempts, if that is in force.
    fn reported(&self, report: &Report) -> Result<(Run, Which), Ignored> {
        let run = self.runs.get(report.run_id).filter(|run| run.request.job == report.job);
        let run = run.ok_or(Ignored::NotLive)?;
        let reported = (report.attempt, report.token);
        let which = if run.numbers(Which::Own) == reported {
            Which::Own
        } else if run.live_hedge().is_some() && run.numbers(Which::Hedge) == reported {
            Which::Hedge
        } else {
            return Err(Ignored::Stale);
        };
        let holder = run.holder(which).map(|(_, session)| session);
        match holder.or(run.addressee()) {
            Some(session) if *session != report.session => Err(Ignored::OtherSession),
            Some(_) | None => Ok((run, which)),
        }
    }
}
