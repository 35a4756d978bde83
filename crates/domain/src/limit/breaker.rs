//! The breaker of a queue or a shared limit: what it counts, when it opens, and what closes it again. Not here: who is let
//! through meanwhile (`gate`), and what the end of an attempt says (`verdict`). Invariant: it opens only for failures that
//! all lie within one window; from then on only the claim that it let through to try changes it, and time.

use std::time::Duration;

use super::Claim;
use crate::manifest::duration_text;
use crate::setting::{BreakerCount, BreakerState, Verdict};
use crate::time::Timestamp;

/// In how many parts a window is counted: what is counted lies within the window, and up to one part of it is left out.
const PARTS: u128 = 10;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerRule {
    /// So many failures within the window open it; 1 or more.
    pub failures: i32,
    /// And at least this share of what ended within the window, above 0 and up to 1; `None` for any.
    pub ratio: Option<f64>,
    /// The window; 1 s or more.
    pub window: Duration,
    /// How long it is open the first time; 1 s or more.
    pub open_for: Duration,
    /// How long it is open at most, after doubling; not less than `open_for`.
    pub open_for_max: Duration,
}

/// What ended within the last window, part by part, oldest first.
pub type Counts = Vec<BreakerCount>;

/// How a breaker stands.
#[derive(Debug, Clone, PartialEq)]
pub enum Breaker {
    /// Everybody goes through.
    Closed(Counts),
    /// Nobody does.
    Open {
        /// Since when.
        since: Timestamp,
        /// Until when.
        until: Timestamp,
        /// How long that is.
        open_for: Duration,
    },
    /// One at a time, to try.
    HalfOpen {
        /// How long it was open.
        open_for: Duration,
        /// The last one that was let through. Only as long as it holds the limit another one waits for its end.
        probe: Option<Claim>,
    },
}

impl Default for Breaker {
    fn default() -> Self {
        Self::Closed(Counts::new())
    }
}

/// Why a breaker turned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Too many failures.
    Failures {
        /// So many.
        failed: i32,
        /// Of so many that ended; `None` if the others are not counted.
        ended: Option<i32>,
        /// Within this time.
        window: Duration,
    },
    /// Whoever tried has failed.
    ProbeFailed,
    /// It was open for long enough.
    Waited,
    /// Whoever tried has succeeded.
    ProbeSucceeded,
    /// Its rule is gone.
    Removed,
}

impl Why {
    /// In words; `is_queue` says whether dead letters were counted or failed attempts.
    #[must_use]
    pub fn words(self, is_queue: bool) -> String {
        match self {
            Self::Failures { failed, ended, window } => {
                let what = if is_queue { "dead letters" } else { "failed attempts" };
                let of = ended.map_or_else(String::new, |ended| format!(" of {ended} that ended"));
                format!("{failed} {what}{of} within {}", duration_text(window))
            }
            Self::ProbeFailed => "the one that was let through to try has failed".to_owned(),
            Self::Waited => "it was open for long enough: one at a time is let through to try".to_owned(),
            Self::ProbeSucceeded => "the one that was let through to try has succeeded".to_owned(),
            Self::Removed => "no manifest says any more when it opens".to_owned(),
        }
    }
}

/// What becomes of a breaker: how it stands from now on, and why it turned if it did.
pub type Change = (Breaker, Option<Why>);

impl Breaker {
    /// True if there is nothing to remember of it.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        *self == Self::default()
    }

    /// Its state in one word.
    #[must_use]
    pub fn state(&self) -> BreakerState {
        match self {
            Self::Closed(_) => BreakerState::Closed,
            Self::Open { .. } => BreakerState::Open,
            Self::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }

    /// What it is after a claim that held its limit has ended at `now`; `None` if that changes nothing.
    #[must_use]
    pub fn after_end(&self, rule: &BreakerRule, claim: Claim, verdict: Verdict, now: Timestamp) -> Option<Change> {
        match self {
            Self::Closed(counts) => counted(counts, rule, verdict, now),
            Self::HalfOpen { open_for, probe } if *probe == Some(claim) => match verdict {
                Verdict::Succeeded => Some((Self::default(), Some(Why::ProbeSucceeded))),
                Verdict::Failed | Verdict::Retried => {
                    let open_for = open_for.saturating_mul(2).min(rule.open_for_max).max(rule.open_for);
                    Some((opened(open_for, now), Some(Why::ProbeFailed)))
                }
                Verdict::Nothing | Verdict::Unknown => None,
            },
            // It was let through before it opened: whatever it says is of then.
            Self::HalfOpen { .. } | Self::Open { .. } => None,
        }
    }

    /// When it turns although nobody ends.
    #[must_use]
    pub fn due(&self, rule: Option<&BreakerRule>) -> Option<Timestamp> {
        match (self, rule) {
            (_, None) => (!self.is_at_rest()).then_some(Timestamp::MIN),
            // A rule that was edited makes nobody wait for longer than it says.
            (Self::Open { since, until, .. }, Some(rule)) => Some((*until).min(since.plus(rule.open_for_max))),
            (Self::Closed(_) | Self::HalfOpen { .. }, Some(_)) => None,
        }
    }

    /// What it is at `now` if it is due.
    #[must_use]
    pub fn after_wait(&self, rule: Option<&BreakerRule>, now: Timestamp) -> Option<Change> {
        self.due(rule).filter(|due| *due <= now)?;
        Some(match self {
            Self::Open { open_for, .. } if rule.is_some() => {
                (Self::HalfOpen { open_for: *open_for, probe: None }, Some(Why::Waited))
            }
            Self::Open { .. } | Self::HalfOpen { .. } => (Self::default(), Some(Why::Removed)),
            Self::Closed(_) => (Self::default(), None),
        })
    }

    /// What it is once a claim got its limit; `None` if that changes nothing.
    #[must_use]
    pub fn after_grant(&self, claim: Claim) -> Option<Self> {
        match self {
            Self::HalfOpen { open_for, .. } => Some(Self::HalfOpen { open_for: *open_for, probe: Some(claim) }),
            Self::Closed(_) | Self::Open { .. } => None,
        }
    }
}

fn opened(open_for: Duration, now: Timestamp) -> Breaker {
    Breaker::Open { since: now, until: now.plus(open_for), open_for }
}

fn counted(counts: &Counts, rule: &BreakerRule, verdict: Verdict, now: Timestamp) -> Option<Change> {
    let has_failed = match verdict {
        Verdict::Failed => true,
        // Without a share nobody asks how many succeeded.
        Verdict::Succeeded if rule.ratio.is_some() => false,
        Verdict::Succeeded | Verdict::Retried | Verdict::Nothing | Verdict::Unknown => return None,
    };
    let counts = with_one_more(counts, rule.window, has_failed, now);
    let failed: i32 = counts.iter().map(|part| part.failed).fold(0, i32::saturating_add);
    let ended: i32 = counts.iter().map(|part| part.ended).fold(0, i32::saturating_add);
    let is_share_reached = rule.ratio.is_none_or(|ratio| f64::from(failed) >= ratio * f64::from(ended));
    if has_failed && failed >= rule.failures && is_share_reached {
        let why = Why::Failures { failed, ended: rule.ratio.map(|_| ended), window: rule.window };
        return Some((opened(rule.open_for, now), Some(why)));
    }
    Some((Breaker::Closed(counts), None))
}

fn with_one_more(counts: &Counts, window: Duration, has_failed: bool, now: Timestamp) -> Counts {
    let part_ms = i64::try_from((window.as_millis() / PARTS).max(1)).unwrap_or(i64::MAX);
    let since = Timestamp::from_millis(now.millis().div_euclid(part_ms).saturating_mul(part_ms));
    // What lies as far ahead was counted by a clock that was wrong.
    let (first, last) = (now.minus(window), now.plus(window));
    let mut counts: Counts = counts.iter().filter(|part| first < part.since && part.since <= last).copied().collect();
    let place = match counts.binary_search_by_key(&since, |part| part.since) {
        Ok(place) => place,
        Err(place) => {
            counts.insert(place, BreakerCount { since, ended: 0, failed: 0 });
            place
        }
    };
    let part = &mut counts[place];
    part.ended = part.ended.saturating_add(1);
    part.failed = part.failed.saturating_add(i32::from(has_failed));
    counts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::RunId;

    const RULE: BreakerRule = BreakerRule {
        failures: 3,
        ratio: None,
        window: Duration::from_secs(10),
        open_for: Duration::from_secs(5),
        open_for_max: Duration::from_secs(15),
    };

    fn claim(number: i64) -> Claim {
        (RunId::of_fire_time(&"a/b".parse().expect("job"), number, Timestamp::MIN), 1)
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000 + millis)
    }

    /// Takes an end in; answers why it turned.
    fn end(breaker: &mut Breaker, rule: &BreakerRule, verdict: Verdict, millis: i64) -> Option<Why> {
        let (next, why) = breaker.after_end(rule, claim(0), verdict, at(millis))?;
        *breaker = next;
        why
    }

    #[test]
    fn so_many_failures_within_the_window_open_it() {
        let mut breaker = Breaker::default();
        assert_eq!(end(&mut breaker, &RULE, Verdict::Failed, 0), None);
        for verdict in [Verdict::Succeeded, Verdict::Retried, Verdict::Nothing, Verdict::Unknown] {
            assert_eq!(breaker.after_end(&RULE, claim(0), verdict, at(1)), None, "{verdict} is not counted");
        }
        assert_eq!(end(&mut breaker, &RULE, Verdict::Failed, 9000), None);
        // The first one is too old by now.
        assert_eq!(end(&mut breaker, &RULE, Verdict::Failed, 10_000), None);
        let why = end(&mut breaker, &RULE, Verdict::Failed, 10_001).expect("opened");
        assert_eq!(why, Why::Failures { failed: 3, ended: None, window: RULE.window });
        assert_eq!(why.words(true), "3 dead letters within 10s");
        assert_eq!(breaker, Breaker::Open { since: at(10_001), until: at(15_001), open_for: RULE.open_for });
    }

    #[test]
    fn a_share_keeps_a_busy_one_closed() {
        let rule = BreakerRule { ratio: Some(0.5), ..RULE };
        let mut breaker = Breaker::default();
        for number in 0..5 {
            assert_eq!(end(&mut breaker, &rule, Verdict::Succeeded, number), None);
        }
        for number in 5..9 {
            assert_eq!(end(&mut breaker, &rule, Verdict::Failed, number), None, "{number}");
        }
        let why = end(&mut breaker, &rule, Verdict::Failed, 9).expect("opened");
        assert_eq!(why.words(false), "5 failed attempts of 10 that ended within 10s");
    }

    #[test]
    fn only_who_was_let_through_to_try_turns_it() {
        let mut breaker = Breaker::Open { since: at(0), until: at(5000), open_for: RULE.open_for };
        assert_eq!(end(&mut breaker, &RULE, Verdict::Succeeded, 1), None);
        assert_eq!((breaker.due(Some(&RULE)), breaker.after_wait(Some(&RULE), at(4999))), (Some(at(5000)), None));
        let mut waited = 0;
        for open_for in [10, 15, 15] {
            let (next, why) = breaker.after_wait(Some(&RULE), at(waited + 15_000)).expect("due");
            assert_eq!((next.state(), why), (BreakerState::HalfOpen, Some(Why::Waited)));
            assert_eq!(next.after_end(&RULE, claim(0), Verdict::Failed, at(0)), None, "nobody tries yet");
            breaker = next.after_grant(claim(1)).expect("it tries");
            assert_eq!(breaker.due(Some(&RULE)), None);
            assert_eq!(breaker.after_end(&RULE, claim(2), Verdict::Succeeded, at(0)), None, "it is of before");
            assert_eq!(breaker.after_end(&RULE, claim(1), Verdict::Nothing, at(0)), None);
            waited += 20_000;
            let verdict = if open_for == 10 { Verdict::Retried } else { Verdict::Failed };
            let (next, why) = breaker.after_end(&RULE, claim(1), verdict, at(waited)).expect("it turns");
            let open_for = Duration::from_secs(open_for);
            assert_eq!(next, Breaker::Open { since: at(waited), until: at(waited).plus(open_for), open_for });
            assert_eq!(why, Some(Why::ProbeFailed));
            breaker = next;
        }
        let (next, _) = breaker.after_wait(Some(&RULE), at(waited + 15_000)).expect("due");
        let next = next.after_grant(claim(3)).expect("it tries");
        let closed = next.after_end(&RULE, claim(3), Verdict::Succeeded, at(0));
        assert_eq!(closed, Some((Breaker::default(), Some(Why::ProbeSucceeded))));
        assert!(closed.is_some_and(|(breaker, _)| breaker.is_at_rest()));
    }

    #[test]
    fn a_rule_that_goes_closes_it_and_a_shorter_one_counts_at_once() {
        let open = Breaker::Open { since: at(0), until: at(60_000), open_for: Duration::from_secs(60) };
        assert_eq!(open.due(Some(&RULE)), Some(at(15_000)), "no longer than the rule in force allows");
        let half = Breaker::HalfOpen { open_for: RULE.open_for, probe: Some(claim(1)) };
        for breaker in [open, half] {
            assert_eq!(breaker.after_wait(None, at(0)), Some((Breaker::default(), Some(Why::Removed))));
        }
        let (counting, _) = Breaker::default().after_end(&RULE, claim(0), Verdict::Failed, at(0)).expect("counted");
        assert_eq!(counting.after_wait(None, at(0)), Some((Breaker::default(), None)), "nothing turns");
        assert_eq!((counting.due(Some(&RULE)), Breaker::default().due(None)), (None, None));
    }

    proptest! {
        /// Against a list of all ends: it never opens for failures that are not within one window, and always for those of
        /// nine tenths of one.
        #[test]
        fn what_is_counted_lies_within_the_window(steps in proptest::collection::vec((0..4000_i64, any::<bool>()), 1..60)) {
            let rule = BreakerRule { failures: 4, ratio: Some(0.6), ..RULE };
            let (mut breaker, mut now, mut ends) = (Breaker::default(), 0, Vec::new());
            for (step, has_failed) in steps {
                now += step;
                ends.push((now, has_failed));
                let verdict = if has_failed { Verdict::Failed } else { Verdict::Succeeded };
                let why = end(&mut breaker, &rule, verdict, now);
                let counts = |first: i64| {
                    let within: Vec<_> = ends.iter().filter(|(at, _)| *at >= first).collect();
                    (within.iter().filter(|(_, has_failed)| *has_failed).count(), within.len())
                };
                match why {
                    Some(Why::Failures { failed, ended, .. }) => {
                        let (most_failed, most_ended) = counts(now - 10_000);
                        prop_assert!(failed >= 4 && usize::try_from(failed).expect("small") <= most_failed);
                        prop_assert!(ended.is_some_and(|ended| usize::try_from(ended).expect("small") <= most_ended));
                        return Ok(());
                    }
                    None => {
                        let (failed, ended) = counts(now - 9000);
                        let all = counts(now - 10_000).1;
                        let is_due = has_failed && failed >= 4 && failed as f64 >= 0.6 * all.max(ended) as f64;
                        prop_assert!(!is_due, "{ends:?}");
                    }
                    other => prop_assert!(false, "{other:?}"),
                }
            }
            if let Breaker::Closed(counts) = breaker {
                prop_assert!(counts.len() <= 11, "{counts:?}");
            }
        }
    }
}
