//! Tables: what happens to expressions when the clocks of a zone change.
//!
//! Not here: the brute-force oracle over all zones (`tests/schedule_oracle.rs`).

use super::tests::fires_with;
use super::*;

const SHIFT: (Gap, Fold) = (Gap::Shift, Fold::First);
const SKIP: (Gap, Fold) = (Gap::Skip, Fold::First);
const LAST: (Gap, Fold) = (Gap::Shift, Fold::Last);
const BOTH: (Gap, Fold) = (Gap::Shift, Fold::Both);

/// Expression, zone, policy, start, and the first fires in UTC.
type Case = (&'static str, &'static str, (Gap, Fold), &'static str, &'static str);

const CLOCK_CHANGES: &[Case] = &[
    // Berlin leaves out 02:00-03:00 on March 29 2026.
    ("30 2 * * *", "Europe/Berlin", SHIFT, "2026-03-28T12:00:00Z", "03-29T01:00 03-30T00:30"),
    ("30 2 * * *", "Europe/Berlin", SKIP, "2026-03-28T12:00:00Z", "03-30T00:30 03-31T00:30"),
    ("5,35 2 * * *", "Europe/Berlin", SHIFT, "2026-03-28T12:00:00Z", "03-29T01:00 03-30T00:05"),
    ("30 2 * * *", "Europe/Berlin", SHIFT, "2026-03-29T01:00:00Z", "03-30T00:30"),
    ("0 2,3 * * *", "Europe/Berlin", SHIFT, "2026-03-28T12:00:00Z", "03-29T01:00 03-30T00:00"),
    ("*/30 2 * * *", "Europe/Berlin", SHIFT, "2026-03-28T12:00:00Z", "03-30T00:00 03-30T00:30"),
    ("30 * * * *", "Europe/Berlin", SHIFT, "2026-03-29T00:00:00Z", "03-29T00:30 03-29T01:30 03-29T02:30"),
    // It repeats 02:00-03:00 on October 25.
    ("30 2 * * *", "Europe/Berlin", SHIFT, "2026-10-24T12:00:00Z", "10-25T00:30 10-26T01:30"),
    ("30 2 * * *", "Europe/Berlin", LAST, "2026-10-24T12:00:00Z", "10-25T01:30 10-26T01:30"),
    ("30 2 * * *", "Europe/Berlin", BOTH, "2026-10-24T12:00:00Z", "10-25T00:30 10-25T01:30 10-26T01:30"),
    ("10 2 * * *", "Europe/Berlin", LAST, "2026-10-25T00:30:00Z", "10-25T01:10 10-26T01:10"),
    ("0,30 2 * * *", "Europe/Berlin", BOTH, "2026-10-24T12:00:00Z", "10-25T00:00 10-25T00:30 10-25T01:00 10-25T01:30"),
    ("*/30 2 * * *", "Europe/Berlin", SHIFT, "2026-10-24T12:00:00Z", "10-25T00:00 10-25T00:30 10-25T01:00 10-25T01:30"),
    ("0 * * * *", "Europe/Berlin", SHIFT, "2026-10-24T23:30:00Z", "10-25T00:00 10-25T01:00 10-25T02:00"),
    // Lord Howe moves by half an hour, at 02:00.
    ("15 2 * * *", "Australia/Lord_Howe", SHIFT, "2026-10-03T12:00:00Z", "10-03T15:30 10-04T15:15"),
    ("0 * * * *", "Australia/Lord_Howe", SHIFT, "2026-10-03T14:00:00Z", "10-03T14:30 10-03T16:00"),
    ("45 1 * * *", "Australia/Lord_Howe", SHIFT, "2026-04-04T12:00:00Z", "04-04T14:45 04-05T15:15"),
    ("45 1 * * *", "Australia/Lord_Howe", LAST, "2026-04-04T12:00:00Z", "04-04T15:15 04-05T15:15"),
    // Sao Paulo once left out its midnight; the first instant of the day was 01:00.
    ("0 0 * * *", "America/Sao_Paulo", SHIFT, "2018-11-03T12:00:00Z", "11-04T03:00 11-05T02:00"),
    ("0 0 * * *", "America/Sao_Paulo", SKIP, "2018-11-03T12:00:00Z", "11-05T02:00"),
    ("30 23 * * *", "America/Sao_Paulo", SHIFT, "2019-02-16T12:00:00Z", "02-17T01:30 02-18T02:30"),
    // Apia left out a whole Friday, December 30 2011.
    ("0 9 * * *", "Pacific/Apia", SHIFT, "2011-12-29T12:00:00Z", "12-29T19:00 12-30T10:00 12-30T19:00"),
    ("0 9 * * *", "Pacific/Apia", SKIP, "2011-12-29T12:00:00Z", "12-29T19:00 12-30T19:00"),
    ("0 9 * * FRI", "Pacific/Apia", SHIFT, "2011-12-29T12:00:00Z", "12-30T10:00 01-05T19:00"),
    // The next December 30 that it had was in 2012.
    ("0 9 30 12 *", "Pacific/Apia", SKIP, "2011-12-29T12:00:00Z", "12-29T19:00"),
    ("30 2 29 3 *", "Europe/Berlin", SHIFT, "2025-12-29T12:00:00Z", "03-29T01:00 03-29T00:30"),
];

#[test]
fn clock_changes() {
    for &(text, zone, policy, after, wanted) in CLOCK_CHANGES {
        let wanted: Vec<&str> = wanted.split(' ').collect();
        let found = fires_with(text, Dialect::Unix, zone, policy, after, wanted.len());
        let found: Vec<&str> = found.iter().map(|fire| &fire[5..16]).collect();
        assert_eq!(found, wanted, "`{text}` in {zone} with {policy:?}");
    }
}

#[test]
fn effects_are_told() {
    for (text, fire, effect) in [
        ("30 2 * * *", "2026-03-29T01:00:00Z", ClockEffect::ShiftedFromGap),
        ("30 2 * * *", "2026-03-30T00:30:00Z", ClockEffect::None),
        ("30 2 * * *", "2026-10-25T00:30:00Z", ClockEffect::FirstPass),
        ("30 2 * * *", "2026-10-25T01:30:00Z", ClockEffect::SecondPass),
        ("0 3 * * *", "2026-03-29T01:00:00Z", ClockEffect::None),
        ("*/5 * * * *", "2026-10-25T01:05:00Z", ClockEffect::SecondPass),
    ] {
        let rule = CronRule::parse(text, Dialect::Unix, "Europe/Berlin", Gap::Shift, Fold::Both, "");
        let fire = fire.parse().expect("a timestamp");
        assert_eq!(rule.expect("a rule").effect_at(fire), effect, "`{text}` at {fire}");
    }
}
