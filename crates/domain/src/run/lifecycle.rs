//! The life of a run: each step that it may take, and why it takes it. Not here: who decides (dispatcher). Invariant: a step
//! that is not in [`STEPS`] never stands on the log; `docs/run-lifecycle.md` is made from it.

use super::RunState;

/// A step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepRule {
    /// Where it comes from; `None` before its first.
    pub from: Option<RunState>,
    /// Where it goes.
    pub to: RunState,
    /// When it does.
    pub when: &'static str,
}

const fn step(from: RunState, to: RunState, when: &'static str) -> StepRule {
    StepRule { from: Some(from), to, when }
}

const fn first(to: RunState, when: &'static str) -> StepRule {
    StepRule { from: None, to, when }
}

/// Every step there is.
pub const STEPS: &[StepRule] = {
    use RunState::{Cancelled, Dead, Delayed, Expired, Ready, Retrying, Running, Succeeded, Waiting};
    &[
        first(Delayed, "it has a start delay"),
        first(
            Waiting,
            "as many runs of the job are live as it allows, a limit keeps it, or it asks for a runner with labels",
        ),
        first(Ready, "nothing keeps it"),
        first(Cancelled, "the overlap policy forbids it, too many wait already, or its cancel came first"),
        first(Expired, "its deadline had passed when it was asked for"),
        step(Delayed, Waiting, "the start delay is over, and a limit keeps it or it asks for a runner with labels"),
        step(Delayed, Ready, "the start delay is over"),
        step(Delayed, Cancelled, "somebody asked, or a newer run took its place"),
        step(Delayed, Expired, "its deadline passed"),
        step(Waiting, Delayed, "there is room, and its start delay is not over"),
        step(
            Waiting,
            Waiting,
            "there is room, it has got a limit or there is a runner, and a limit or the want of a runner keeps it",
        ),
        step(
            Waiting,
            Ready,
            "there is room, it has got its limits and its runner, and it is time to look for its handler again",
        ),
        step(Waiting, Cancelled, "somebody asked, or a newer run took its place"),
        step(Waiting, Expired, "its deadline passed"),
        step(Ready, Running, "a runner claimed it"),
        step(Ready, Succeeded, "an attempt succeeded whose claim was not seen, or not a moment before"),
        step(Ready, Retrying, "an attempt failed, as above, and the policy allows another"),
        step(
            Ready,
            Waiting,
            "its runner is gone or takes no more; or one took it, as above, that has not got its handler",
        ),
        step(Ready, Ready, "its runner has not taken it; it is told again, or another one is"),
        step(Ready, Dead, "an attempt failed, as above, and the policy allows no other"),
        step(Ready, Cancelled, "somebody asked, or a newer run took its place"),
        step(Ready, Expired, "its deadline passed"),
        step(
            Running,
            Running,
            "its end was asked for, and its runner is told; or an attempt is put beside it, is claimed, or ended",
        ),
        step(
            Running,
            Ready,
            "the attempt failed or its lease was lost, and one that was put beside it is on its queue",
        ),
        step(Running, Succeeded, "the attempt succeeded"),
        step(Running, Waiting, "its runner has not got its handler; another one may"),
        step(Running, Retrying, "the attempt failed or its lease was lost, and the policy allows another"),
        step(Running, Dead, "the attempt failed or its lease was lost, and the policy allows no other"),
        step(Running, Cancelled, "its end was asked for, and the attempt ended other than well"),
        step(Running, Expired, "its deadline passed, or comes before the next attempt"),
        step(Retrying, Waiting, "the backoff is over, and a limit keeps it or it asks for a runner with labels"),
        step(Retrying, Ready, "the backoff is over"),
        step(Retrying, Cancelled, "somebody asked, or a newer run took its place"),
        step(Retrying, Expired, "its deadline passed"),
        step(Dead, Ready, "it was sent back"),
        step(Dead, Delayed, "it was sent back as one of many, at a rate"),
        step(
            Dead,
            Waiting,
            "it was sent back, and as many runs of the job are live as it allows, or a limit or the want of a runner keeps it",
        ),
        step(Dead, Dead, "it was parked or not sent back, or is kept no longer; a note says why"),
    ]
};

/// True if a run may take this step; `None` is before its first.
#[must_use]
pub fn is_legal(from: Option<RunState>, to: RunState) -> bool {
    STEPS.iter().any(|rule| rule.from == from && rule.to == to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_reached_and_only_ends_lead_nowhere() {
        for state in RunState::ALL.iter().copied() {
            let is_reached = STEPS.iter().any(|rule| rule.to == state);
            let leads_on = STEPS.iter().any(|rule| rule.from == Some(state));
            // Nothing writes these two.
            let is_spare = matches!(state, RunState::Failed | RunState::Unknown);
            assert_eq!(is_reached, !is_spare, "{state}");
            assert_eq!(leads_on, !is_spare && (!state.is_terminal() || state == RunState::Dead), "{state}");
        }
        for (index, rule) in STEPS.iter().enumerate() {
            let is_repeated = STEPS[..index].iter().any(|other| (other.from, other.to) == (rule.from, rule.to));
            assert!(!is_repeated, "{rule:?}");
        }
    }
}
