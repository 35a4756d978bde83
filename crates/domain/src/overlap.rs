//! What a new run does while other runs of its job are live. Not here: counting them (dispatcher). Invariant:
//! a run under a policy that bounds overlap never starts beside a live run of its job.

use crate::job::OverlapKind;

/// What a new run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlapDecision {
    /// It goes ahead: the policy allows overlap, or no run of the job is live.
    GoAhead,
    /// It ends at once: a run of the job is live and the policy forbids a second.
    Forbidden,
    /// It ends at once: a run of the job is live, and admission should have refused the policy, which this
    /// version does not carry out. Of all it could mean, only this never runs two at once.
    NotAvailable,
}

/// Decides about a new run of a job that has `live` other runs: delayed, waiting, ready, running or retrying.
#[must_use]
pub fn decide(policy: OverlapKind, live: usize) -> OverlapDecision {
    match policy {
        OverlapKind::Allow => OverlapDecision::GoAhead,
        OverlapKind::Forbid | OverlapKind::Queue | OverlapKind::Replace if live == 0 => OverlapDecision::GoAhead,
        OverlapKind::Forbid => OverlapDecision::Forbidden,
        OverlapKind::Queue | OverlapKind::Replace => OverlapDecision::NotAvailable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_allow_starts_beside_a_live_run() {
        for (policy, live, wanted) in [
            (OverlapKind::Allow, 0, OverlapDecision::GoAhead),
            (OverlapKind::Allow, 1, OverlapDecision::GoAhead),
            (OverlapKind::Forbid, 0, OverlapDecision::GoAhead),
            (OverlapKind::Forbid, 1, OverlapDecision::Forbidden),
            (OverlapKind::Forbid, 2, OverlapDecision::Forbidden),
            (OverlapKind::Queue, 0, OverlapDecision::GoAhead),
            (OverlapKind::Queue, 1, OverlapDecision::NotAvailable),
            (OverlapKind::Replace, 0, OverlapDecision::GoAhead),
            (OverlapKind::Replace, 1, OverlapDecision::NotAvailable),
        ] {
            assert_eq!(decide(policy, live), wanted, "{policy} beside {live}");
        }
    }
}
