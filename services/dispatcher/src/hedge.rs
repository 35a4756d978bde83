//! The second attempt of a run, beside the one that it is at: where it is, and the steps by which it comes and goes. Not here:
//! when it does (`machine::hedge`). Invariant: a run has a hedge only while it is running, and its attempt and token are the
//! newest ones of the run, so that no number and no token is given twice.

use std::sync::Arc;

use orloj_domain::attempt::Outcome;
use orloj_domain::id::{RunnerId, SessionId};
use orloj_domain::time::Timestamp;

use crate::run::{Run, Step};

/// The attempt that was put beside that of a run last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hedge {
    /// Its number; of one that is over, the newest one that was used.
    pub attempt: i32,
    /// The newest token handed out.
    pub token: i64,
    /// Since when it is at this step; of one that is over, from when the time of the next one counts.
    pub since: Timestamp,
    /// Where it is.
    pub step: HedgeStep,
}

/// Where a second attempt is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HedgeStep {
    /// On its queue.
    Ready,
    /// Claimed.
    Running {
        /// The runner.
        runner: RunnerId,
        /// The session that holds the lease.
        session: SessionId,
    },
    /// Ended, or not begun because of a limit: another one may be put beside the run after a while.
    Over,
}

/// Which of the attempts of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// The one that the run is at.
    Own,
    /// The one beside it.
    Hedge,
}

impl Hedge {
    /// True while it is on its queue or claimed.
    #[must_use]
    pub fn is_live(&self) -> bool {
        match self.step {
            HedgeStep::Ready | HedgeStep::Running { .. } => true,
            HedgeStep::Over => false,
        }
    }

    /// Who holds it.
    #[must_use]
    pub fn holder(&self) -> Option<(&RunnerId, &SessionId)> {
        match &self.step {
            HedgeStep::Running { runner, session } => Some((runner, session)),
            HedgeStep::Ready | HedgeStep::Over => None,
        }
    }
}

impl Run {
    /// The second attempt, while it is live.
    #[must_use]
    pub fn live_hedge(&self) -> Option<&Hedge> {
        self.hedge.as_deref().filter(|hedge| hedge.is_live())
    }

    /// The newest attempt that it used, or will with its next step.
    #[must_use]
    pub fn newest_attempt(&self) -> i32 {
        self.hedge.as_ref().map_or(self.attempt, |hedge| hedge.attempt)
    }

    /// The newest token that was handed out.
    #[must_use]
    pub fn newest_token(&self) -> i64 {
        self.hedge.as_ref().map_or(self.token, |hedge| hedge.token)
    }

    /// Number and token of one of its attempts.
    #[must_use]
    pub fn numbers(&self, which: Which) -> (i32, i64) {
        match which {
            Which::Own => (self.attempt, self.token),
            Which::Hedge => (self.newest_attempt(), self.newest_token()),
        }
    }

    /// Who holds one of its attempts.
    #[must_use]
    pub fn holder(&self, which: Which) -> Option<(&RunnerId, &SessionId)> {
        match (which, &self.step) {
            (Which::Own, Step::Running { runner, session }) => Some((runner, session)),
            (Which::Own, _) => None,
            (Which::Hedge, _) => self.hedge.as_deref().and_then(Hedge::holder),
        }
    }

    /// The sessions that hold its attempts: up to two, which may be the same.
    pub fn sessions(&self) -> impl Iterator<Item = &SessionId> {
        [Which::Own, Which::Hedge].into_iter().filter_map(|which| Some(self.holder(which)?.1))
    }

    /// When another attempt is put beside it, if it goes on till then. Not after its deadline, beside limits that it holds,
    /// once its end was asked for, or beyond the attempts that its policy allows.
    #[must_use]
    pub fn hedges_at(&self) -> Option<Timestamp> {
        let after = self.request.hedge_after?;
        let may_be = matches!(self.step, Step::Running { .. })
            && self.cancel_reason.is_none()
            && self.limits.is_empty()
            && self.live_hedge().is_none()
            && self.newest_attempt() - self.attempts_before < self.request.retry.max_attempts;
        // One that ended is not followed by the next at once.
        let since = self.hedge.as_ref().map_or(self.since, |hedge| hedge.since.max(self.since));
        let at = since.plus(after);
        (may_be && self.deadline().is_none_or(|deadline| at < deadline)).then_some(at)
    }

    /// A second attempt is on the queue.
    #[must_use]
    pub fn hedged(&self, now: Timestamp) -> Self {
        let (attempt, token) = (self.newest_attempt() + 1, self.newest_token() + 1);
        self.beside(Hedge { attempt, token, since: now, step: HedgeStep::Ready })
    }

    /// A runner has claimed the second attempt.
    #[must_use]
    pub fn hedge_claimed(&self, runner: RunnerId, session: SessionId, now: Timestamp) -> Self {
        let (attempt, token) = self.numbers(Which::Hedge);
        self.beside(Hedge { attempt, token, since: now, step: HedgeStep::Running { runner, session } })
    }

    /// The second attempt is live no more, and was one of those that the policy counts if `is_used`; or there was none, and
    /// it is looked at again later.
    #[must_use]
    pub fn hedge_over(&self, is_used: bool, now: Timestamp) -> Self {
        let (attempt, token) = self.numbers(Which::Hedge);
        let attempt = if is_used { attempt } else { attempt - 1 };
        self.beside(Hedge { attempt, token, since: now, step: HedgeStep::Over })
    }

    /// Its own attempt is live no more: it goes on with the second one.
    #[must_use]
    pub fn on_hedge(&self) -> Self {
        let Some(hedge) = self.live_hedge() else { return self.clone() };
        let step = match &hedge.step {
            HedgeStep::Running { runner, session } => {
                Step::Running { runner: runner.clone(), session: session.clone() }
            }
            HedgeStep::Ready | HedgeStep::Over => Step::Ready,
        };
        let (attempt, token, since) = (hedge.attempt, hedge.token, hedge.since);
        Self { step, attempt, token, since, hedge: None, ..self.clone() }
    }

    /// One of its attempts has failed while the other is live.
    #[must_use]
    pub fn having_failed(&self, outcome: &Outcome, now: Timestamp) -> Self {
        let first_failure = self.first_failure.or(Some(now));
        Self { first_failure, last_outcome: Some(Arc::new(outcome.clone())), ..self.clone() }
    }

    fn beside(&self, hedge: Hedge) -> Self {
        Self { hedge: Some(Arc::new(hedge)), ..self.clone() }
    }
}
