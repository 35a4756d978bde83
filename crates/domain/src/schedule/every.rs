//! The two schedules that need no calendar: a fixed period from an anchor, and one instant.
//!
//! Invariant: both count real milliseconds; no time zone, daylight saving or process start ever moves them.

use std::time::Duration;

use jiff::Timestamp;

use super::ScheduleError;

/// Fires at `anchor + k * period` for every whole `k >= 0`; the anchor itself is the first fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EveryRule {
    period_ms: i64,
    anchor_ms: i64,
}

impl EveryRule {
    /// Builds the rule.
    ///
    /// # Errors
    /// Field `every` if the period is zero, not a whole number of milliseconds or longer than time itself
    /// (about 292 million years); field `anchor` if the anchor has a part below the millisecond.
    pub fn new(period: Duration, anchor: Timestamp) -> Result<EveryRule, ScheduleError> {
        let refused = |message: &str| Err(ScheduleError::new("every", &format!("{period:?}"), None, message));
        if period.is_zero() {
            return refused("is no period; write at least 1ms");
        }
        if !period.subsec_nanos().is_multiple_of(1_000_000) {
            return refused("is finer than a millisecond; round it to whole milliseconds");
        }
        let Ok(period_ms) = i64::try_from(period.as_millis()) else {
            return refused("is too long; write a shorter period");
        };
        let anchor_ms = whole_milliseconds("anchor", anchor)?;
        Ok(EveryRule { period_ms, anchor_ms })
    }

    /// The first fire strictly after `after`, in constant time; none past the year 9999.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let after_ms = floor_milliseconds(after);
        if after_ms < self.anchor_ms {
            return Timestamp::from_millisecond(self.anchor_ms).ok();
        }
        let periods = (after_ms - self.anchor_ms) / self.period_ms + 1;
        let fire_ms = periods.checked_mul(self.period_ms)?.checked_add(self.anchor_ms)?;
        Timestamp::from_millisecond(fire_ms).ok()
    }

    /// The time between two fires.
    pub fn period(&self) -> Duration {
        Duration::from_millis(self.period_ms.unsigned_abs())
    }

    /// The first fire, in milliseconds since the Unix epoch.
    pub fn anchor_ms(&self) -> i64 {
        self.anchor_ms
    }
}

/// Fires once, at the given instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AtRule {
    at: Timestamp,
}

impl AtRule {
    /// Builds the rule. Whether the instant has passed is the caller's to judge: this module has no clock.
    ///
    /// # Errors
    /// Field `at` if the instant has a part below the millisecond.
    pub fn new(at: Timestamp) -> Result<AtRule, ScheduleError> {
        whole_milliseconds("at", at)?;
        Ok(AtRule { at })
    }

    /// The instant, if it is strictly after `after`.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        (self.at > after).then_some(self.at)
    }

    /// The instant.
    pub fn at(&self) -> Timestamp {
        self.at
    }
}

fn whole_milliseconds(field: &str, instant: Timestamp) -> Result<i64, ScheduleError> {
    if instant.subsec_nanosecond() % 1_000_000 != 0 {
        let message = "is finer than a millisecond; round it to whole milliseconds";
        return Err(ScheduleError::new(field, &instant.to_string(), None, message));
    }
    Ok(instant.as_millisecond())
}

/// Milliseconds rounded towards the past: jiff truncates towards the epoch, which is the future before 1970.
fn floor_milliseconds(instant: Timestamp) -> i64 {
    let truncated = instant.as_millisecond();
    if instant.subsec_nanosecond() % 1_000_000 < 0 { truncated - 1 } else { truncated }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instant(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn every_starts_at_its_anchor_and_is_strict() {
        let anchor = instant("2026-01-01T00:00:00Z");
        let rule = EveryRule::new(Duration::from_secs(90), anchor).expect("a rule");
        for (after, fire) in [
            ("1960-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("2025-12-31T23:59:59.999999999Z", "2026-01-01T00:00:00Z"),
            ("2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"),
            ("2026-01-01T00:01:29.9999Z", "2026-01-01T00:01:30Z"),
            ("2026-01-01T00:01:30Z", "2026-01-01T00:03:00Z"),
        ] {
            assert_eq!(rule.next_after(instant(after)), Some(instant(fire)), "after {after}");
        }
    }

    #[test]
    fn every_before_the_epoch_rounds_to_the_past() {
        let rule = EveryRule::new(Duration::from_millis(1), instant("1969-12-31T00:00:00Z")).expect("a rule");
        let fire = rule.next_after(instant("1969-12-31T00:00:00.0004Z"));
        assert_eq!(fire, Some(instant("1969-12-31T00:00:00.001Z")));
    }

    #[test]
    fn every_ends_with_time() {
        let rule = EveryRule::new(Duration::from_millis(i64::MAX as u64), Timestamp::UNIX_EPOCH).expect("a rule");
        assert_eq!(rule.next_after(Timestamp::UNIX_EPOCH), None);
        let second = EveryRule::new(Duration::from_secs(1), Timestamp::UNIX_EPOCH).expect("a rule");
        assert_eq!(second.next_after(Timestamp::MAX), None);
    }

    #[test]
    fn every_refuses_what_it_cannot_keep() {
        for period in [Duration::ZERO, Duration::from_micros(1500), Duration::MAX] {
            let error = EveryRule::new(period, Timestamp::UNIX_EPOCH).expect_err("refused");
            assert_eq!(error.field, "every");
        }
        let error = EveryRule::new(Duration::from_secs(1), instant("2026-01-01T00:00:00.0001Z")).expect_err("refused");
        assert_eq!(error.field, "anchor");
    }

    #[test]
    fn at_fires_once() {
        let rule = AtRule::new(instant("2026-12-01T08:00:00Z")).expect("a rule");
        assert_eq!(rule.next_after(instant("2026-12-01T07:59:59.999Z")), Some(rule.at()));
        assert_eq!(rule.next_after(rule.at()), None);
        assert_eq!(AtRule::new(instant("2026-12-01T08:00:00.0000001Z")).expect_err("refused").field, "at");
    }
}
