//! What the end of an attempt says of a queue or a shared limit that it held. Not here: what is made of it (`breaker`).
//! Invariant: what says nothing of the target (a cancel, a deadline, a runner that was lost) counts for nothing, but that a
//! dead letter is a dead letter, whatever led to it.

use crate::attempt::{Outcome, OutcomeKind};
use crate::id::LimitId;
use crate::setting::Verdict;

/// What an attempt that ended with `outcome` says of a limit. `is_dead`: its run ended with it, as a dead letter.
///
/// A queue counts dead letters, since that is what it would drain into; a failure after which the run is tried again says
/// something only of one that was let through to try. A shared limit guards what answers: it counts attempts that failed,
/// and an answer below 500 that asks for no patience is one, whatever it says.
#[must_use]
pub fn verdict(limit: &LimitId, outcome: &Outcome, is_dead: bool) -> Verdict {
    if limit.is_of_queue() {
        return if is_dead { Verdict::Failed } else { of_queue(outcome.kind) };
    }
    match outcome.kind {
        OutcomeKind::Succeeded => Verdict::Succeeded,
        OutcomeKind::Failed if outcome.http_status.is_some_and(has_answered) => Verdict::Succeeded,
        OutcomeKind::Failed | OutcomeKind::TimedOut => Verdict::Failed,
        // Not started: it never came as far as the target.
        OutcomeKind::NotStarted
        | OutcomeKind::NoHandler
        | OutcomeKind::LeaseLost
        | OutcomeKind::Aborted
        | OutcomeKind::HandedBack
        | OutcomeKind::Cancelled
        | OutcomeKind::Overlap
        | OutcomeKind::Expired
        | OutcomeKind::Unknown => Verdict::Nothing,
    }
}

fn of_queue(kind: OutcomeKind) -> Verdict {
    match kind {
        OutcomeKind::Succeeded => Verdict::Succeeded,
        OutcomeKind::Failed | OutcomeKind::TimedOut | OutcomeKind::NotStarted => Verdict::Retried,
        OutcomeKind::NoHandler
        | OutcomeKind::LeaseLost
        | OutcomeKind::Aborted
        | OutcomeKind::HandedBack
        | OutcomeKind::Cancelled
        | OutcomeKind::Overlap
        | OutcomeKind::Expired
        | OutcomeKind::Unknown => Verdict::Nothing,
    }
}

/// True of an answer that shows that the target works, although it refuses this request.
fn has_answered(status: i32) -> bool {
    status < 500 && !matches!(status, 408 | 425 | 429)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limit: &str, kind: OutcomeKind, http_status: Option<i32>, is_dead: bool, wanted: Verdict) {
        let limit: LimitId = limit.parse().expect("limit");
        let outcome = Outcome { http_status, ..Outcome::new(kind, "") };
        assert_eq!(verdict(&limit, &outcome, is_dead), wanted, "{limit} {kind} {http_status:?} dead: {is_dead}");
    }

    #[test]
    fn a_queue_counts_dead_letters_and_a_limit_counts_failures_of_its_target() {
        use OutcomeKind::{
            Aborted, Cancelled, Expired, Failed, HandedBack, LeaseLost, NoHandler, NotStarted, Succeeded, TimedOut,
        };
        check("queue/q", Succeeded, None, false, Verdict::Succeeded);
        for kind in [Failed, TimedOut, NotStarted] {
            check("queue/q", kind, None, false, Verdict::Retried);
        }
        for kind in [Failed, TimedOut, NotStarted, LeaseLost, Aborted] {
            check("queue/q", kind, None, true, Verdict::Failed);
        }
        check("queue/q", Failed, Some(404), true, Verdict::Failed);
        for limit in ["queue/q", "limit/l"] {
            for kind in [Cancelled, Expired, NoHandler, LeaseLost, Aborted, HandedBack, OutcomeKind::Unknown] {
                check(limit, kind, None, false, Verdict::Nothing);
            }
        }
        check("limit/l", Succeeded, Some(200), false, Verdict::Succeeded);
        for is_dead in [false, true] {
            check("limit/l", Failed, None, is_dead, Verdict::Failed);
            check("limit/l", TimedOut, None, is_dead, Verdict::Failed);
            for status in [408, 425, 429, 500, 501, 503, 599] {
                check("limit/l", Failed, Some(status), is_dead, Verdict::Failed);
            }
            for status in [301, 400, 401, 404, 409, 422] {
                check("limit/l", Failed, Some(status), is_dead, Verdict::Succeeded);
            }
            check("limit/l", NotStarted, None, is_dead, Verdict::Nothing);
            check("limit/l", LeaseLost, None, is_dead, Verdict::Nothing);
        }
    }
}
