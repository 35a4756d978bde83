//! A run that asks for a runner with labels: the steps of the way to one. Not here: which runner that is (`machine::place`).
//! Invariant: the token grows whenever a runner is chosen, and stays when the same one is only told again.

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::id::{RunnerId, SessionId};
use orloj_domain::time::Timestamp;

use crate::event::Report;
use crate::run::{Run, Step};

/// After how long a runner that has not taken what it was offered is told again, or another one is. Doubled each time that
/// the same one is told.
pub(crate) const OFFER_WAIT: Duration = Duration::from_secs(30);
/// The longest of these waits.
const OFFER_WAIT_MAX: Duration = Duration::from_secs(120);

impl Run {
    /// It waits for a runner that has its labels and a free slot; what it held of limits it holds no longer.
    #[must_use]
    pub fn unplaced(&self, now: Timestamp) -> Self {
        // The attempt that found no handler was a runner's too.
        let was_offered = matches!(self.step, Step::Offered { .. } | Step::Unserved { .. });
        Self { step: Step::Unplaced { was_offered }, since: now, limits: Arc::default(), ..self.clone() }
    }

    /// This session may claim it and no other, with a new token.
    #[must_use]
    pub fn offered(&self, runner: RunnerId, session: SessionId, now: Timestamp) -> Self {
        let step = Step::Offered { runner, session, said_at: now };
        Self { step, token: self.token + 1, since: now, ..self.clone() }
    }

    /// The session that it is offered to is told again: the offer may have been lost.
    #[must_use]
    pub fn told_again(&self, now: Timestamp) -> Self {
        let Step::Offered { runner, session, .. } = &self.step else { return self.clone() };
        let step = Step::Offered { runner: runner.clone(), session: session.clone(), said_at: now };
        Self { step, ..self.clone() }
    }

    /// When an offer is looked at again that nobody has taken.
    #[must_use]
    pub(crate) fn offered_again_at(&self) -> Timestamp {
        let Step::Offered { said_at, .. } = &self.step else { return self.since };
        said_at.plus(said_at.since(self.since).clamp(OFFER_WAIT, OFFER_WAIT_MAX))
    }

    /// The session that it is offered to.
    #[must_use]
    pub fn addressee(&self) -> Option<&SessionId> {
        match &self.step {
            Step::Offered { session, .. } => Some(session),
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Asking { .. }
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Ready
            | Step::Running { .. }
            | Step::Retrying { .. } => None,
        }
    }

    /// True if it is offered to the same session under the same token as another state of it.
    pub(crate) fn is_same_offer(&self, other: &Self) -> bool {
        self.addressee().is_some() && (self.addressee(), self.token) == (other.addressee(), other.token)
    }

    /// The attempt as the runner that it is offered to knows it.
    pub(crate) fn offer(&self) -> Option<Report> {
        let Step::Offered { runner, session, .. } = &self.step else { return None };
        Some(Report {
            run_id: self.request.run_id,
            job: self.request.job.clone(),
            attempt: self.attempt,
            token: self.token,
            runner: runner.clone(),
            session: session.clone(),
        })
    }
}
