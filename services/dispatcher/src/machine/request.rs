//! A run is asked for: it waits for its start delay, is ready at once, or ends because the job forbids overlap.
//! Not here: which fire times ask (trigger). Invariant: a run that is live is never begun again.

use std::sync::Arc;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::overlap::{self, OverlapDecision};
use orloj_domain::time::Timestamp;

use super::DispatcherMachine;
use crate::event::{End, Ended, Event, Ignored};
use crate::run::{Request, Run};

impl DispatcherMachine {
    pub(super) fn decide_request(&self, request: &Arc<Request>, now: Timestamp) -> Event {
        if self.runs.contains_key(&request.run_id) {
            return Event::Ignored(Ignored::AlreadyLive);
        }
        match overlap::decide(request.overlap, self.index.live_of(&request.job)) {
            OverlapDecision::GoAhead => Event::Stepped { run: begin(request, now), leaves: Vec::new() },
            OverlapDecision::Forbidden => {
                refuse(request, "another run of the job is live, and it forbids overlap", now)
            }
            OverlapDecision::NotAvailable => {
                let message = "another run of the job is live, and its overlap policy is not available in this \
                               version: use `allow` or `forbid`";
                refuse(request, message, now)
            }
        }
    }
}

/// The delay counts from the trigger's decision, so that a dispatcher that was away does not add to it.
fn begin(request: &Arc<Request>, now: Timestamp) -> Run {
    let due_at = request.requested_at.plus(request.start_delay);
    if !request.start_delay.is_zero() && due_at > now {
        Run::delayed(Arc::clone(request), due_at, now)
    } else {
        Run::ready(Arc::clone(request), now)
    }
}

fn refuse(request: &Arc<Request>, message: &str, now: Timestamp) -> Event {
    Event::Ended(Box::new(Ended {
        request: Arc::clone(request),
        end: End::Cancelled(Outcome::new(OutcomeKind::Overlap, message)),
        attempt: 0,
        token: 0,
        first_failure: None,
        redrives: 0,
        at: now,
        leaves: Vec::new(),
    }))
}
