//! What follows a failed attempt: another one after a backoff, or a dead letter. The one place where a retry is
//! decided. Not here: who noticed the failure (dispatcher). Invariant: attempts never exceed the policy, and
//! the wait is a hash of (run, attempt): the same on every replay.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attempt::{Outcome, OutcomeKind};
use crate::id::RunId;
use crate::job::{Delivery, RetryPolicy, words};
use crate::time::Timestamp;

words! {
    /// Why a run became a dead letter.
    Disposition {
        /// The last attempt that the policy allows has failed.
        AttemptsExhausted = "attemptsExhausted",
        /// The outcome is one after which the policy allows no other attempt.
        NotRetryable = "notRetryable",
        /// Nobody knows how far the attempt came, and the job asks for at most one execution.
        LeaseLost = "leaseLost",
        /// Put aside for a person, on request or because it was sent back as often as it may be; no failure leads here.
        Parked = "parked",
    }
}

/// Longest wait that a target can ask for; beyond that the backoff decides.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// What follows a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// The next attempt, not before an instant.
    Retry {
        /// That instant.
        due_at: Timestamp,
    },
    /// No further attempt.
    DeadLetter {
        /// Why.
        disposition: Disposition,
    },
}

/// Decides what follows attempt number `attempt` of `run`, which ended at `now` with `outcome` and not with
/// success.
///
/// At most once means at most one attempt that may have done something: only an attempt that certainly never
/// started is followed by another. An attempt that its runner stopped by itself (`aborted`) is judged as one
/// whose lease was lost, so that it does not matter which of the two is noticed first. One that was handed back is followed by
/// another at once, whatever the policy says: it has not failed.
#[must_use]
pub fn after_failure(
    policy: &RetryPolicy,
    delivery: Delivery,
    outcome: &Outcome,
    attempt: i32,
    run: RunId,
    now: Timestamp,
) -> RetryDecision {
    if outcome.kind == OutcomeKind::HandedBack {
        return RetryDecision::Retry { due_at: now };
    }
    match refusal(policy, delivery, outcome, attempt) {
        Some(disposition) => RetryDecision::DeadLetter { disposition },
        None => {
            let asked = outcome.retry_after_ms.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
            let wait = backoff(policy, attempt, run).max(asked.unwrap_or_default().min(RETRY_AFTER_MAX));
            RetryDecision::Retry { due_at: now.plus(wait) }
        }
    }
}

/// True if no attempt follows such an outcome, however many are left: none can end otherwise.
#[must_use]
pub fn is_final(policy: &RetryPolicy, outcome: &Outcome) -> bool {
    outcome.is_final || outcome.exit_code.is_some_and(|code| policy.non_retryable_exit_codes.contains(&code))
}

fn refusal(policy: &RetryPolicy, delivery: Delivery, outcome: &Outcome, attempt: i32) -> Option<Disposition> {
    match (delivery, outcome.kind) {
        (Delivery::AtMostOnce, OutcomeKind::LeaseLost | OutcomeKind::Aborted) => Some(Disposition::LeaseLost),
        _ if is_final(policy, outcome) => Some(Disposition::NotRetryable),
        _ if attempt >= policy.max_attempts => Some(Disposition::AttemptsExhausted),
        (Delivery::AtMostOnce, kind) if kind != OutcomeKind::NotStarted => Some(Disposition::NotRetryable),
        (Delivery::AtLeastOnce | Delivery::AtMostOnce, _) => None,
    }
}

/// How long to wait after attempt number `attempt` (from 1) of `run` before the next one: `initial` times
/// `factor` for each attempt before, at most `max`, varied by `jitter` around that and still at most `max`.
#[must_use]
pub fn backoff(policy: &RetryPolicy, attempt: i32, run: RunId) -> Duration {
    let max = non_negative(policy.max_ms);
    let mut wait = non_negative(policy.initial_ms).min(max);
    for _ in 1..attempt.max(1) {
        // A factor of 1 would go round for nothing, and beyond the cap nothing changes any more.
        if wait >= max || policy.factor <= 1.0 {
            break;
        }
        wait = (wait * policy.factor).min(max);
    }
    let jitter = if policy.jitter.is_finite() { policy.jitter.clamp(0.0, 1.0) } else { 0.0 };
    // Drawn below the cap instead of cut to it: cutting would gather half of a herd at one instant.
    let (low, high) = (wait * (1.0 - jitter), (wait * (1.0 + jitter)).min(max));
    millis(low + (high - low) * share(run, attempt))
}

fn non_negative(millis: i64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a backoff of 2^53 ms is 285,000 years")]
    let millis = millis.max(0) as f64;
    millis
}

fn millis(wait: f64) -> Duration {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative; saturates")]
    let wait = wait.round() as u64;
    Duration::from_millis(wait)
}

/// A share in [0, 1) that depends on nothing but the run and the attempt.
fn share(run: RunId, attempt: i32) -> f64 {
    let mut digest = Sha256::new();
    digest.update(b"backoff");
    digest.update(run.to_string().as_bytes());
    digest.update(attempt.to_be_bytes());
    let hash = digest.finalize();
    let bits = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::JobId;

    const NOW: Timestamp = Timestamp::MIN;

    fn run(number: i64) -> RunId {
        let job: JobId = "a/b".parse().expect("job");
        RunId::of_fire_time(&job, number, NOW)
    }

    fn policy(max_attempts: i32, jitter: f64) -> RetryPolicy {
        RetryPolicy {
            max_attempts,
            initial_ms: 1_000,
            factor: 2.0,
            max_ms: 10_000,
            jitter,
            non_retryable_exit_codes: vec![2],
        }
    }

    fn check(delivery: Delivery, kind: OutcomeKind, exit_code: Option<i32>, attempt: i32, wanted: Option<Disposition>) {
        let outcome = Outcome { exit_code, ..Outcome::new(kind, "") };
        let decision = after_failure(&policy(3, 0.0), delivery, &outcome, attempt, run(1), NOW);
        let wanted = match wanted {
            Some(disposition) => RetryDecision::DeadLetter { disposition },
            None => RetryDecision::Retry { due_at: NOW.plus(backoff(&policy(3, 0.0), attempt, run(1))) },
        };
        assert_eq!(decision, wanted, "{delivery} {kind} {exit_code:?} attempt {attempt}");
    }

    #[test]
    fn outcomes_are_retried_by_policy_and_delivery() {
        use Disposition::{AttemptsExhausted, LeaseLost, NotRetryable};
        let least = Delivery::AtLeastOnce;
        for kind in [
            OutcomeKind::Failed,
            OutcomeKind::TimedOut,
            OutcomeKind::NotStarted,
            OutcomeKind::LeaseLost,
            OutcomeKind::Aborted,
            OutcomeKind::Unknown,
        ] {
            check(least, kind, None, 1, None);
            check(least, kind, None, 2, None);
            check(least, kind, None, 3, Some(AttemptsExhausted));
            check(least, kind, None, 4, Some(AttemptsExhausted));
        }
        check(least, OutcomeKind::Failed, Some(1), 1, None);
        check(least, OutcomeKind::Failed, Some(2), 1, Some(NotRetryable));
        check(least, OutcomeKind::Failed, Some(2), 3, Some(NotRetryable));
        let most = Delivery::AtMostOnce;
        check(most, OutcomeKind::LeaseLost, None, 1, Some(LeaseLost));
        check(most, OutcomeKind::LeaseLost, None, 3, Some(LeaseLost));
        check(most, OutcomeKind::Aborted, None, 1, Some(LeaseLost));
        check(most, OutcomeKind::Failed, Some(1), 1, Some(NotRetryable));
        check(most, OutcomeKind::TimedOut, None, 1, Some(NotRetryable));
        check(most, OutcomeKind::Unknown, None, 1, Some(NotRetryable));
        check(most, OutcomeKind::NotStarted, None, 1, None);
        check(most, OutcomeKind::NotStarted, None, 3, Some(AttemptsExhausted));
    }

    #[test]
    fn what_was_handed_back_has_not_failed() {
        let outcome = Outcome::new(OutcomeKind::HandedBack, "");
        for (delivery, attempt) in [(Delivery::AtLeastOnce, 1), (Delivery::AtLeastOnce, 9), (Delivery::AtMostOnce, 3)] {
            let decision = after_failure(&policy(1, 0.0), delivery, &outcome, attempt, run(1), NOW);
            assert_eq!(decision, RetryDecision::Retry { due_at: NOW }, "{delivery} attempt {attempt}");
        }
    }

    #[test]
    fn a_target_may_ask_for_time_and_say_that_it_is_final() {
        let wait = |retry_after_ms| {
            let outcome = Outcome { retry_after_ms, ..Outcome::new(OutcomeKind::Failed, "") };
            match after_failure(&policy(3, 0.0), Delivery::AtLeastOnce, &outcome, 1, run(1), NOW) {
                RetryDecision::Retry { due_at } => due_at.since(NOW).as_secs(),
                RetryDecision::DeadLetter { .. } => panic!("{retry_after_ms:?}"),
            }
        };
        // The backoff is 1 s; a day is the most that is waited.
        for (asked, waited) in [(None, 1), (Some(500), 1), (Some(60_000), 60), (Some(i64::MAX), 86_400), (Some(-5), 1)]
        {
            assert_eq!(wait(asked), waited, "{asked:?}");
        }
        let last = Outcome { is_final: true, ..Outcome::new(OutcomeKind::Failed, "") };
        let decision = after_failure(&policy(3, 0.0), Delivery::AtLeastOnce, &last, 1, run(1), NOW);
        assert_eq!(decision, RetryDecision::DeadLetter { disposition: Disposition::NotRetryable });
    }

    #[test]
    fn waits_grow_to_the_cap() {
        let seconds: Vec<_> = (1..=7).map(|attempt| backoff(&policy(9, 0.0), attempt, run(1)).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 10, 10, 10]);
        let constant = RetryPolicy { factor: 1.0, ..policy(9, 0.0) };
        assert_eq!(backoff(&constant, i32::MAX, run(1)), Duration::from_secs(1));
    }

    #[test]
    fn jitter_is_stable_spread_and_never_above_the_cap() {
        let policy = policy(9, 0.5);
        for (attempt, low, high) in [(1, 500, 1_500), (2, 1_000, 3_000), (5, 5_000, 10_000)] {
            let waits: Vec<_> = (0..200).map(|number| backoff(&policy, attempt, run(number))).collect();
            assert_eq!(waits, (0..200).map(|number| backoff(&policy, attempt, run(number))).collect::<Vec<_>>());
            let (least, most) = (waits.iter().min().expect("some"), waits.iter().max().expect("some"));
            let (low, high) = (Duration::from_millis(low), Duration::from_millis(high));
            assert!(*least >= low && *most <= high, "attempt {attempt}: {least:?} to {most:?}");
            assert!(*most - *least > (high - low) * 9 / 10, "attempt {attempt}: {least:?} to {most:?}");
        }
        assert_ne!(backoff(&policy, 1, run(1)), backoff(&policy, 2, run(1)));
    }

    #[test]
    fn senseless_policies_do_no_harm() {
        for (initial_ms, factor, max_ms, jitter) in
            [(-1, 2.0, 10, 0.0), (10, f64::NAN, 10, f64::NAN), (i64::MAX, 1e300, i64::MAX, 9.0), (5, 2.0, -7, 0.3)]
        {
            let policy = RetryPolicy { initial_ms, factor, max_ms, jitter, ..policy(3, 0.0) };
            let outcome = Outcome::new(OutcomeKind::Failed, "");
            let decision = after_failure(&policy, Delivery::AtLeastOnce, &outcome, 2, run(1), NOW);
            let RetryDecision::Retry { due_at } = decision else { panic!("{decision:?}") };
            assert!(due_at >= NOW, "{policy:?}");
        }
    }
}
