//! What becomes of fire times that are due: requested, skipped or coalesced. The one place where the misfire
//! policy is applied, the same live, after a restart and after a takeover. Not here: which fire times there are
//! (`schedule`). Invariant: one verdict per fire time, and the newest one is never coalesced.

use std::time::Duration;

use crate::job::{MissedKind, MissedPolicy};
use crate::time::Timestamp;

/// A fire time noticed at most this late is on time, whatever else is due. Covers a slow commit.
pub const ON_TIME: Duration = Duration::from_secs(1);
/// The newest fire time is on time if it is noticed at most this late: a takeover or a restart of the service
/// delays a job, it does not make it miss. (Quartz has the same bound as its misfire threshold.)
pub const NEWEST_ON_TIME: Duration = Duration::from_secs(60);

/// What becomes of one fire time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is requested, on time.
    OnTime,
    /// It was missed and the policy requests it nevertheless.
    Late,
    /// It was missed, and the policy or the window drops it.
    Skipped,
    /// It was missed, and is taken together with the newest one.
    Coalesced,
}

/// Judges all fire times of one job that are due at `now`. `due` holds when each was due (jitter included), in
/// order, the newest last; the answer has the same length.
#[must_use]
pub fn judge(due: &[Timestamp], policy: &MissedPolicy, now: Timestamp) -> Vec<Verdict> {
    let Some((&newest, earlier)) = due.split_last() else { return Vec::new() };
    let window = Duration::from_millis(u64::try_from(policy.window_ms).unwrap_or(0));
    let is_in_window = |due: Timestamp| now.since(due) <= window;
    let newest_verdict = if now.since(newest) <= NEWEST_ON_TIME {
        Verdict::OnTime
    } else if policy.policy != MissedKind::Skip && is_in_window(newest) {
        Verdict::Late
    } else {
        Verdict::Skipped
    };
    let mut verdicts: Vec<Verdict> = earlier
        .iter()
        .map(|&due| {
            if now.since(due) <= ON_TIME {
                return Verdict::OnTime;
            }
            match policy.policy {
                MissedKind::Skip => Verdict::Skipped,
                MissedKind::Latest if newest_verdict != Verdict::Skipped && is_in_window(due) => Verdict::Coalesced,
                MissedKind::All if is_in_window(due) => Verdict::Late,
                MissedKind::Latest | MissedKind::All => Verdict::Skipped,
            }
        })
        .collect();
    verdicts.push(newest_verdict);
    keep_newest_late(&mut verdicts, usize::try_from(policy.max).unwrap_or(0));
    verdicts
}

/// `all` requests at most `max` missed fire times: the newest ones.
fn keep_newest_late(verdicts: &mut [Verdict], max: usize) {
    let late = verdicts.iter_mut().rev().filter(|verdict| **verdict == Verdict::Late);
    for verdict in late.skip(max) {
        *verdict = Verdict::Skipped;
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Coalesced, Late, OnTime, Skipped};
    use super::*;

    /// Judges fire times that were due so many seconds ago, newest last.
    fn check(policy: MissedKind, window_s: i64, max: i32, late_s: &[i64], wanted: &[Verdict]) {
        let now = Timestamp::from_millis(1_000_000_000);
        let due: Vec<_> = late_s.iter().map(|late| Timestamp::from_millis(now.millis() - late * 1000)).collect();
        let policy = MissedPolicy { policy, window_ms: window_s * 1000, max };
        assert_eq!(judge(&due, &policy, now), wanted, "{policy:?} {late_s:?}");
    }

    #[test]
    fn fire_times_are_judged_by_lateness_policy_and_window() {
        for policy in [MissedKind::Skip, MissedKind::Latest, MissedKind::All] {
            check(policy, 3600, 100, &[], &[]);
            check(policy, 3600, 100, &[0], &[OnTime]);
            check(policy, 0, 100, &[60], &[OnTime]);
            check(policy, 3600, 100, &[1, 0], &[OnTime, OnTime]);
        }
        check(MissedKind::Skip, 3600, 100, &[3, 2, 1, 0], &[Skipped, Skipped, OnTime, OnTime]);
        check(MissedKind::Skip, 3600, 100, &[61], &[Skipped]);
        check(MissedKind::Latest, 3600, 100, &[3, 2, 1, 0], &[Coalesced, Coalesced, OnTime, OnTime]);
        check(MissedKind::Latest, 3600, 100, &[7200, 600, 300], &[Skipped, Coalesced, Late]);
        check(MissedKind::Latest, 100, 100, &[600, 300], &[Skipped, Skipped]);
        check(MissedKind::All, 3600, 100, &[7200, 600, 300], &[Skipped, Late, Late]);
        check(MissedKind::All, 3600, 2, &[600, 500, 400, 300], &[Skipped, Skipped, Late, Late]);
        check(MissedKind::All, 3600, 1, &[600, 500, 30], &[Skipped, Late, OnTime]);
    }
}
