//! The callback of a target says how its attempt ended. Not here: whether the token was right (query), the end itself (the
//! runner reports it). Invariant: the first word about the end of an attempt counts; once a completion is taken it is the
//! attempt's end, whatever becomes of the word to the runner.

use super::DispatcherMachine;
use crate::event::{Completion, Event, Ignored};
use crate::run::Step;

impl DispatcherMachine {
    /// Keeps the completion with the run and passes it to the runner that holds the attempt.
    pub(super) fn decide_complete(&self, completion: &Completion) -> Event {
        let run = self.runs.get(completion.run_id).filter(|run| run.request.job == completion.job);
        let Some(run) = run else { return Event::Ignored(Ignored::NotLive) };
        if (run.attempt, run.token) != (completion.attempt, completion.token) {
            return Event::Ignored(Ignored::Stale);
        }
        if !run.request.awaits_callback {
            return Event::Ignored(Ignored::NoCallback);
        }
        match &run.step {
            Step::Running { .. } if run.completion.is_some() => Event::Ignored(Ignored::AlreadyCompleted),
            Step::Running { .. } if run.cancel_reason.is_some() => Event::Ignored(Ignored::AlreadyCancelled),
            Step::Running { .. } => self.step(&run, run.completed(completion.outcome.clone())),
            // The token is handed out after the claim was seen, so nobody can have it for these.
            Step::Ready
            | Step::Delayed { .. }
            | Step::Waiting
            | Step::Asking { .. }
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Offered { .. }
            | Step::Retrying { .. } => Event::Ignored(Ignored::Stale),
        }
    }
}
