//! Tables: which hints an expression brings, and what they say.
//!
//! Not here: sentences (`tests.rs`).

use super::super::Dialect::{Quartz, Unix};
use super::*;

const SHIFT: (Gap, Fold) = (Gap::Shift, Fold::First);
const SKIP: (Gap, Fold) = (Gap::Skip, Fold::Last);
const BOTH: (Gap, Fold) = (Gap::Skip, Fold::Both);
const BERLIN: &str = "Europe/Berlin";
/// Its clocks never change.
const STEADY: &str = "Pacific/Pitcairn";

/// Dialect, expression, zone, policy, and `code: part of the message` for each hint.
type Case = (Dialect, &'static str, &'static str, (Gap, Fold), &'static [&'static str]);

const LINTS: &[Case] = &[
    (Unix, "30 4 * * MON-FRI", BERLIN, SHIFT, &[]),
    (Unix, "17 9 13 * *", BERLIN, SHIFT, &[]),
    (Unix, "17 9 13 * FRI", BERLIN, SHIFT, &["eitherDay: fires on the 13th of the month AND on every Friday"]),
    (Unix, "17 9 13 * 1-5", BERLIN, SHIFT, &["eitherDay: fires on the 13th of the month AND on Monday through Friday"]),
    (Unix, "17 9 1-31 * FRI", BERLIN, SHIFT, &["eitherDay: fires every day"]),
    (Unix, "17 9 */2 * FRI", BERLIN, SHIFT, &["unevenStep: `*/2` in days"]),
    (Quartz, "0 17 9 13 * FRI", BERLIN, SHIFT, &[]),
    (Unix, "17 9 29 2 *", BERLIN, SHIFT, &["leapDay: fires only in leap years"]),
    (Unix, "17 9 29,30 2 *", BERLIN, SHIFT, &["leapDay: fires only in leap years"]),
    (Unix, "17 9 28 2 *", BERLIN, SHIFT, &["leapDay: never fires on 29 February"]),
    (Unix, "17 9 L 2 *", BERLIN, SHIFT, &[]),
    (Unix, "17 9 31 * *", BERLIN, SHIFT, &["skipsMonths: skips months without a 31st; use L for the last day"]),
    (Unix, "17 9 31W * *", BERLIN, SHIFT, &["skipsMonths: skips months without a 31st"]),
    (Unix, "17 9 30 * *", BERLIN, SHIFT, &["skipsMonths: skips February, which has no 30th"]),
    (Unix, "17 9 29 * *", BERLIN, SHIFT, &["skipsMonths: skips February outside leap years"]),
    (Unix, "17 9 15,31 * *", BERLIN, SHIFT, &["skipsMonths: fires less often in months without a 31st"]),
    (Unix, "17 9 L-30 * *", BERLIN, SHIFT, &["skipsMonths: names no day in months of fewer than 31 days"]),
    (Unix, "17 9 * * MON#5", BERLIN, SHIFT, &["skipsMonths: has no 5th Monday to fire on in most months; use MONL"]),
    (Unix, "17 9 31 1,3,5 *", BERLIN, SHIFT, &[]),
    (Unix, "17 9 25-31 * *", BERLIN, SHIFT, &[]),
    (Unix, "0 0 * * *", BERLIN, SHIFT, &["herd: midnight like many other jobs; `H` spreads jobs: `H H * * *`"]),
    (Unix, "@daily", BERLIN, SHIFT, &["herd: `H H * * *`"]),
    (Unix, "0 * * * *", "UTC", SHIFT, &["herd: the full hour like many other jobs; `H` spreads jobs: `H * * * *`"]),
    (Unix, "0 9 * * mon", "UTC", SHIFT, &["herd: `H 9 * * MON`"]),
    (Quartz, "0 0 9 ? * MON 2027", "UTC", SHIFT, &["herd: `0 H 9 ? * MON 2027`"]),
    // Jobs meet wherever their clocks show the same.
    (Unix, "0 0 * * *", "Europe/Vienna", SHIFT, &["herd: midnight like many other jobs"]),
    (Unix, "0 9 * * *", STEADY, SHIFT, &["herd: the full hour like many other jobs; `H` spreads jobs: `H 9 * * *`"]),
    (Unix, "H H * * *", "UTC", SHIFT, &[]),
    (
        Unix,
        "*/7 * * * *",
        BERLIN,
        SHIFT,
        &["unevenStep: `*/7` in minutes: the gap at the top of the hour is shorter (4 minutes)"],
    ),
    (Unix, "30/20 * * * *", BERLIN, SHIFT, &["unevenStep: the gap at the top of the hour is longer (40 minutes)"]),
    (Unix, "*/15 * * * *", BERLIN, SHIFT, &[]),
    (Unix, "5/15 * * * *", BERLIN, SHIFT, &[]),
    (Unix, "0-30/7 9 * * *", BERLIN, SHIFT, &[]),
    (
        Unix,
        "*/7 * * * * *",
        BERLIN,
        SHIFT,
        &["unevenStep: `*/7` in seconds: the gap at the top of the minute is shorter (4 seconds)"],
    ),
    (
        Unix,
        "17 */5 * * *",
        STEADY,
        SHIFT,
        &["unevenStep: `*/5` in hours: the gap at the turn of the day is shorter (4 hours)"],
    ),
    (
        Unix,
        "17 9 1 */5 *",
        BERLIN,
        SHIFT,
        &["unevenStep: `*/5` in months: the gap at the turn of the year is shorter (2 months)"],
    ),
    (Unix, "17 9 * * */2", BERLIN, SHIFT, &["unevenStep: `*/2` in weekdays"]),
    (Unix, "* * * * * *", BERLIN, SHIFT, &["everySecond: fires 60 times in each minute"]),
    (
        Unix,
        "30 2 * * *",
        BERLIN,
        SHIFT,
        &[
            "clockGap: 02:30 on 2027-03-28 does not exist in Europe/Berlin (clocks go forward from 02:00 to 03:00): fires at 03:00",
            "clockFold: 02:30 on 2026-10-25 comes twice in Europe/Berlin (clocks go back from 03:00 to 02:00): fires the first time",
        ],
    ),
    (
        Unix,
        "0,30 2 * * *",
        BERLIN,
        SKIP,
        &[
            "clockGap: 02:00 and 02:30 on 2027-03-28 do not exist in Europe/Berlin (clocks go forward from 02:00 to 03:00): does not fire",
            "clockFold: 02:00 and 02:30 on 2026-10-25 come twice in Europe/Berlin (clocks go back from 03:00 to 02:00): fires the second time",
        ],
    ),
    (Unix, "30 2 * 10 *", BERLIN, BOTH, &["clockFold: fires both times; `fold: first`"]),
    (Unix, "*/30 2 * 3 *", BERLIN, SHIFT, &["clockGap: does not fire, as a `*` in minute or hour follows the clock"]),
    (Unix, "30 * * * *", BERLIN, SHIFT, &[]),
    (Unix, "30 2 * * *", "UTC", SHIFT, &[]),
];

#[test]
fn expressions_bring_hints() {
    for &(dialect, expression, zone, (gap, fold), wanted) in LINTS {
        let spread_by = SpreadBy::Job;
        let written = Written { expression, dialect, zone, gap, fold, spread_seed: "a/b", spread_by };
        let now = "2026-06-01T00:00:00Z".parse().expect("a timestamp");
        let lints = describe(&written, now).expect("a description").lints;
        let is_wanted = |lint: &Lint, wanted: &str| {
            wanted.split_once(": ").is_some_and(|(code, part)| lint.code == code && lint.message.contains(part))
        };
        let fits =
            lints.len() == wanted.len() && lints.iter().zip(wanted).all(|(lint, wanted)| is_wanted(lint, wanted));
        assert!(fits, "`{expression}` in {zone}: {lints:#?} instead of {wanted:#?}");
    }
}

#[test]
fn without_a_job_a_spread_is_a_guess() {
    let spread_by = SpreadBy::Expression;
    let (gap, fold) = SHIFT;
    let written =
        Written { expression: "H 4 * * *", dialect: Unix, zone: "UTC", gap, fold, spread_seed: "H 4 * * *", spread_by };
    let lints = describe(&written, Timestamp::UNIX_EPOCH).expect("a description").lints;
    assert_eq!(lints.iter().map(|lint| lint.code).collect::<Vec<_>>(), ["spreadUnknown"]);
}
