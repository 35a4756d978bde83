//! Two attempts of one run: when the second is put beside the first, and what the end of either leads to. Not here: which
//! jobs have that (`orloj_domain::hedge`), how the last attempt of a run ends (`attempt`). Invariant: never more than two
//! attempts of a run are live, the first success ends it, and an end that says nothing of the other leaves the run to that.

use std::time::Duration;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::retry::{self, Disposition};
use orloj_domain::run::EndedAttempt;
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::{About, End, Ended, Event, Ignored, Report};
use crate::hedge::{HedgeStep, Which};
use crate::run::Run;

/// Where no second attempt can be put beside a run, that is not looked at again sooner: each look is a record.
const PUT_OFF_MIN: Duration = Duration::from_secs(10);

impl DispatcherMachine {
    /// The time has come to put a second attempt beside one that runs: it is done, unless the run's deadline has passed or a
    /// limit would have to be asked for it, which may be otherwise later.
    pub(super) fn hedge(&self, run: &Run, now: Timestamp) -> Event {
        let is_late = run.deadline().is_some_and(|deadline| deadline <= now);
        if is_late || !self.limits_of(run).is_empty() {
            let after = run.request.hedge_after.unwrap_or_default();
            let counted_from = now.plus(PUT_OFF_MIN.saturating_sub(after));
            return self.step_about(run, run.hedge_over(true, counted_from), About::HedgePutOff, Vec::new());
        }
        self.step_about(run, run.hedged(now), About::HedgeReady, Vec::new())
    }

    pub(super) fn claim_hedge(&self, run: &Run, report: &Report, now: Timestamp) -> Event {
        let Some(hedge) = run.live_hedge() else { return Event::Disowned(report.clone(), Ignored::Stale) };
        match hedge.step {
            HedgeStep::Ready => {
                let next = run.hedge_claimed(report.runner.clone(), report.session.clone(), now);
                self.step_about(run, next, About::HedgeClaimed, Vec::new())
            }
            HedgeStep::Running { .. } | HedgeStep::Over => Event::Ignored(Ignored::AlreadyClaimed),
        }
    }

    /// One of two live attempts has ended.
    pub(super) fn end_one(&self, run: &Run, which: Which, outcome: Outcome, now: Timestamp) -> Event {
        let is_final = run.cancel_reason.is_none() && retry::is_final(&run.request.retry, &outcome);
        let end = match outcome.kind {
            OutcomeKind::Succeeded => End::Succeeded(outcome),
            // The deadline is that of the run.
            OutcomeKind::Expired => End::Expired(outcome),
            OutcomeKind::Cancelled => return self.go_on(run, which, outcome, now),
            OutcomeKind::Failed
            | OutcomeKind::TimedOut
            | OutcomeKind::NotStarted
            | OutcomeKind::NoHandler
            | OutcomeKind::LeaseLost
            | OutcomeKind::Aborted
            | OutcomeKind::HandedBack
            | OutcomeKind::Overlap
            | OutcomeKind::Unknown
                if is_final =>
            {
                End::Dead(outcome, Disposition::NotRetryable)
            }
            OutcomeKind::Failed
            | OutcomeKind::TimedOut
            | OutcomeKind::NotStarted
            | OutcomeKind::NoHandler
            | OutcomeKind::LeaseLost
            | OutcomeKind::Aborted
            | OutcomeKind::HandedBack
            | OutcomeKind::Overlap
            | OutcomeKind::Unknown => return self.go_on(run, which, outcome, now),
        };
        Event::Ended(Box::new(self.ended(run, which, end, now)))
    }

    /// One of two live attempts has ended, and the run goes on with the other.
    fn go_on(&self, run: &Run, which: Which, outcome: Outcome, now: Timestamp) -> Event {
        let failed = match outcome.kind {
            OutcomeKind::Cancelled | OutcomeKind::NoHandler => run.clone(),
            OutcomeKind::HandedBack => run.without_counting_one(),
            OutcomeKind::Succeeded
            | OutcomeKind::Failed
            | OutcomeKind::TimedOut
            | OutcomeKind::NotStarted
            | OutcomeKind::LeaseLost
            | OutcomeKind::Aborted
            | OutcomeKind::Overlap
            | OutcomeKind::Expired
            | OutcomeKind::Unknown => run.having_failed(&outcome, now),
        };
        let next = match which {
            Which::Own => failed.on_hedge(),
            // A runner without the handler has not used the attempt up.
            Which::Hedge => failed.hedge_over(outcome.kind != OutcomeKind::NoHandler, now),
        };
        self.step_about(run, next, About::OneEnded, vec![ended_attempt(run, which, outcome, now)])
    }

    /// A session that held both attempts of a run is lost: the second is over, and the end of the first is that of both.
    pub(super) fn lose_both(&self, run: &Run, outcome: &Outcome, now: Timestamp) -> Event {
        let hedge = ended_attempt(run, Which::Hedge, outcome.clone(), now);
        let mut event = self.end_attempt(&run.hedge_over(true, now), Which::Own, outcome.clone(), now);
        if let Event::Stepped { ended, .. } = &mut event {
            ended.push(hedge);
        } else if let Event::Ended(ended) = &mut event {
            ended.ended_attempts.push(hedge);
        }
        event
    }

    /// The end of a run whose end was asked for: a second attempt that nobody has claimed is taken off at once.
    pub(super) fn cancelling(&self, run: &Run, reason: &str, now: Timestamp) -> Event {
        let next = run.cancelling(reason);
        match run.live_hedge() {
            Some(hedge) if hedge.step == HedgeStep::Ready => {
                let outcome = Outcome::new(OutcomeKind::Cancelled, reason);
                let ended = vec![ended_attempt(run, Which::Hedge, outcome, now)];
                self.step_about(run, next.hedge_over(true, now), About::Run, ended)
            }
            Some(_) | None => self.step(run, next),
        }
    }
}

/// What an attempt beside the one that ends a run is told, and how it ended.
pub(super) fn end_of_other(run: &Run, by: Which, ended: &mut Ended) {
    let other = match by {
        Which::Own if run.live_hedge().is_some() => Which::Hedge,
        Which::Own => return,
        Which::Hedge => Which::Own,
    };
    let why = match &ended.end {
        End::Succeeded(_) => "another attempt of the run was first".to_owned(),
        End::Cancelled(outcome) | End::Dead(outcome, _) | End::Expired(outcome) => {
            format!("another attempt of the run ended as {}, which ends the run", outcome.kind)
        }
    };
    ended.ended_attempts.push(ended_attempt(run, other, Outcome::new(OutcomeKind::Cancelled, &*why), ended.at));
    ended.stops = held(run, other).map(|report| (report, why));
}

/// The attempt as its runner reports about it, if one holds it.
pub(super) fn held(run: &Run, which: Which) -> Option<Report> {
    let (runner, session) = run.holder(which)?;
    let (attempt, token) = run.numbers(which);
    Some(Report {
        run_id: run.request.run_id,
        job: run.request.job.clone(),
        attempt,
        token,
        runner: runner.clone(),
        session: session.clone(),
    })
}

pub(super) fn ended_attempt(run: &Run, which: Which, outcome: Outcome, at: Timestamp) -> EndedAttempt {
    let (attempt, token) = run.numbers(which);
    EndedAttempt { attempt, token, at, outcome }
}
