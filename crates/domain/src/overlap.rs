//! What a new run does while other runs of its job are live. Not here: counting them (dispatcher). Invariant:
//! a run under a policy that bounds overlap never starts beside more live runs of its job than that allows.

use crate::job::{OverlapKind, OverlapPolicy};

/// The other live runs of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Others {
    /// Those that take up room: delayed, ready, running or retrying.
    pub active: usize,
    /// Those that wait for room.
    pub waiting: usize,
}

/// What a new run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlapDecision {
    /// It goes ahead.
    GoAhead,
    /// It waits until there is room, behind those that wait already.
    Wait,
    /// The others are cancelled, and it starts when none of them is left.
    Replace,
    /// It ends at once: a run of the job is live and the policy forbids a second.
    Forbidden,
    /// It ends at once: as many wait already as the policy lets wait.
    QueueFull,
}

/// Most runs of a job that take up room at once, 1 or more.
#[must_use]
pub fn room(policy: OverlapKind, concurrency: Option<i32>) -> usize {
    let given = concurrency.map(|count| usize::try_from(count).unwrap_or(1).max(1));
    match policy {
        OverlapKind::Allow => given.unwrap_or(usize::MAX),
        OverlapKind::Queue => given.unwrap_or(1),
        OverlapKind::Forbid | OverlapKind::Replace => 1,
    }
}

/// Decides about a new run of a job under a policy and, for `allow` and `queue`, a bound on its live runs.
#[must_use]
pub fn decide(policy: &OverlapPolicy, concurrency: Option<i32>, others: Others) -> OverlapDecision {
    let Others { active, waiting } = others;
    let room = room(policy.policy, concurrency);
    match policy.policy {
        OverlapKind::Allow | OverlapKind::Queue => {
            // Whoever came first goes first; where there is no bound nobody is in the way.
            if active < room && (waiting == 0 || room == usize::MAX) {
                OverlapDecision::GoAhead
            } else if waiting < usize::try_from(policy.max).unwrap_or(0) {
                OverlapDecision::Wait
            } else {
                OverlapDecision::QueueFull
            }
        }
        OverlapKind::Forbid | OverlapKind::Replace if active + waiting == 0 => OverlapDecision::GoAhead,
        OverlapKind::Forbid => OverlapDecision::Forbidden,
        OverlapKind::Replace => OverlapDecision::Replace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_bound_what_is_live() {
        use OverlapDecision::{Forbidden, GoAhead, QueueFull, Replace, Wait};
        use OverlapKind as Kind;
        for (policy, concurrency, active, waiting, wanted) in [
            (Kind::Allow, None, 0, 0, GoAhead),
            (Kind::Allow, None, 1_000, 5, GoAhead),
            (Kind::Allow, Some(2), 1, 0, GoAhead),
            (Kind::Allow, Some(2), 2, 0, Wait),
            (Kind::Allow, Some(2), 1, 1, Wait),
            (Kind::Allow, Some(2), 2, 3, QueueFull),
            (Kind::Queue, None, 0, 0, GoAhead),
            (Kind::Queue, None, 1, 0, Wait),
            (Kind::Queue, None, 0, 1, Wait),
            (Kind::Queue, None, 1, 2, Wait),
            (Kind::Queue, None, 1, 3, QueueFull),
            (Kind::Queue, Some(4), 3, 0, GoAhead),
            (Kind::Queue, Some(4), 4, 0, Wait),
            (Kind::Forbid, None, 0, 0, GoAhead),
            (Kind::Forbid, None, 1, 0, Forbidden),
            (Kind::Forbid, None, 0, 1, Forbidden),
            (Kind::Replace, None, 0, 0, GoAhead),
            (Kind::Replace, None, 2, 0, Replace),
            (Kind::Replace, None, 0, 1, Replace),
        ] {
            let decision = decide(&OverlapPolicy { policy, max: 3 }, concurrency, Others { active, waiting });
            assert_eq!(decision, wanted, "{policy} {concurrency:?} beside {active} and {waiting}");
        }
    }
}
