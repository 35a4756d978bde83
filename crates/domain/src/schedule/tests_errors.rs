//! Tables: what is refused, and the exact words in which it is.
//!
//! Not here: what accepted expressions mean (`tests.rs`).

use super::Dialect::{Quartz, Unix};
use super::*;
use proptest::prelude::*;

fn refused(text: &str, dialect: Dialect) -> ScheduleError {
    parse_rule(text, dialect, "UTC", Gap::Shift, Fold::First, "seed").expect_err("refused")
}

/// Dialect, expression, and the whole error.
const ERRORS: &[(Dialect, &str, &str)] = &[
    (Unix, "0 0 * * 8", "weekday: `8` at column 9 is out of range 0-7 (Sunday is 0 or 7)"),
    (Unix, "60 * * * *", "minute: `60` at column 1 is out of range 0-59"),
    (Unix, "0 1,24 * * *", "hour: `24` at column 5 is out of range 0-23"),
    (Unix, "0 0 0 * *", "dayOfMonth: `0` at column 5 is out of range 1-31"),
    (Unix, "0 0 1 1-13 *", "month: `13` at column 9 is out of range 1-12"),
    (
        Unix,
        "0 0 1 foo *",
        "month: `foo` at column 7 is not understood; write a number in 1-12 or a name from JAN to DEC",
    ),
    (Unix, "99999999999999999999 * * * *", "minute: `99999999999999999999` at column 1 is out of range 0-59"),
    (Unix, "0 0 0 1 1 * 1969", "year: `1969` at column 13 is out of range 1970-2100"),
    (Unix, "0 0 0 1 1 * 2030-2027", "year: `2030-2027` at column 13 runs backwards; write 2027-2030"),
    (Unix, "*/0 * * * *", "minute: `0` at column 3 is no step: it would stand still; write 1 or more"),
    (Unix, "*/x * * * *", "minute: `x` at column 3 is no step; write a number in 1-59"),
    (Unix, "1,,2 * * * *", "minute: `` at column 3 is an empty list item; write a value in 0-59 or drop the comma"),
    (Unix, "/5 * * * *", "minute: `` at column 1 is missing a value; write one in 0-59"),
    (Quartz, "0 / * * * ?", "minute: `` at column 4 is no step; write a number in 1-59"),
    (Unix, "5- * * * *", "minute: `` at column 3 is missing a value; write one in 0-59"),
    (
        Unix,
        "? * * * *",
        "minute: `?` at column 1 stands for `no rule` and only a day field may be that, alone; write `*`",
    ),
    (Unix, "0 0 * * L", "weekday: `L` at column 9 names no weekday; write 5L for the last Friday of the month"),
    (Unix, "0 0 * * mon#6", "weekday: `6` at column 13 is no week of a month; write 1-5 after the `#`, as in MON#2"),
    (Unix, "0 0 W * *", "dayOfMonth: `W` at column 5 names no day; write 15W for the weekday nearest to day 15, or LW"),
    (Unix, "0 0 L-31 * *", "dayOfMonth: `L-31` at column 5 goes back more than a month; write L-0 to L-30"),
    (Unix, "H(5-70) * * * *", "minute: `70` at column 5 is out of range 0-59"),
    (Unix, "0 h(9-5) * * *", "hour: `h(9-5)` at column 3 runs backwards; write a range from low to high, as in H(5-9)"),
    (
        Unix,
        "0 0 * * H(5-1)/2",
        "weekday: `H(5-1)` at column 9 runs backwards; write a range from low to high, as in H(1-5)",
    ),
    (Unix, "H(7) * * * *", "minute: `7` at column 3 is no range; write H(first-last)"),
    (
        Unix,
        "H(0-5)/10 * * * *",
        "minute: `H(0-5)` at column 1 has a step of 10, but only 6 values to step over; write a smaller step",
    ),
    (
        Unix,
        "* * * *",
        "cron: `* * * *` has 4 fields; write 5 (minute hour day-of-month month weekday), 6 (seconds first) or 7 (year last)",
    ),
    (
        Quartz,
        "0 0 * * 1",
        "cron: `0 0 * * 1` has 5 fields; quartz starts with seconds: put `0` in front, or use `dialect: unix`",
    ),
    (Quartz, "0 0 0 * * 0", "weekday: `0` at column 11 is out of range 1-7 (Sunday is 1, Saturday 7)"),
    (
        Quartz,
        "0 0 0 ? * ?",
        "weekday: `?` at column 11 leaves no day to fire on, as dayOfMonth is `?` too; write `*` in one of them",
    ),
    (
        Unix,
        " @reboot",
        "cron: `@reboot` at column 2 means the start of one machine, and there is none here; name a time, or trigger the job",
    ),
    (Unix, "TZ=UTC 0 0 * * *", "cron: `TZ=UTC` at column 1 is not part of an expression; set `timeZone` instead"),
    (Unix, "0 0 * * \u{445}", "cron: `\u{445}` at column 9 is no character of an expression; remove it"),
    (Unix, "@every -5s", "every: `-5s` is negative; write a period of at least 1ms"),
    (Unix, "@every 0s", "every: `0s` is no period; write at least 1ms"),
    (Unix, "@every soon", "every: `soon` is no period; write hours, minutes and seconds, as in 90s or 1h30m"),
];

#[test]
fn errors_name_field_token_column_and_fix() {
    for &(dialect, text, message) in ERRORS {
        assert_eq!(refused(text, dialect).to_string(), message);
    }
}

#[test]
fn what_can_never_fire_is_refused() {
    for (dialect, text) in [
        (Unix, "0 0 31 2 *"),
        (Unix, "0 0 30,31 2 *"),
        (Unix, "0 0 31 2,4,6,9,11 *"),
        (Unix, "0 0 31W 4 *"),
        (Unix, "0 0 L-30 2,4 *"),
        (Unix, "0 0 0 29 2 * 2027"),
        (Unix, "0 0 0 29 2 * 2100"),
        (Quartz, "0 0 0 1-28 2 1#5 2026"),
        (Quartz, "0 0 0 1W * 1"),
        (Quartz, "* * * 31W * SUN,SAT"),
    ] {
        let error = refused(text, dialect);
        assert_eq!((error.field.as_str(), error.value.as_str()), ("cron", text));
        assert!(error.message.starts_with("can never fire"), "{error}");
    }
    // One half of an OR is enough.
    let half = parse_rule("0 0 31 2 MON", Unix, "UTC", Gap::Shift, Fold::First, "seed").expect("a rule");
    assert!(half.next_after(Timestamp::UNIX_EPOCH).is_some());
    let in_gap = CronRule::parse("0 30 2 29 3 * 2026", Unix, "Europe/Berlin", Gap::Skip, Fold::First, "");
    assert!(in_gap.expect_err("refused").message.contains("clock changes swallow"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is typed is a rule that fires, or an error whose column is where its characters are.
    #[test]
    fn any_text_is_a_rule_or_an_error_in_place(
        text in prop_oneof!["[-0-9*/,LWH#?()@ a-z]{0,24}", "([-0-9*/,LWH#?()]{1,4} ){4,6}[-0-9*/,LH#?a-z]{1,4}", ".{0,12}"],
        is_unix in any::<bool>(),
    ) {
        let dialect = if is_unix { Unix } else { Quartz };
        match parse_rule(&text, dialect, "Europe/Berlin", Gap::Skip, Fold::Last, &text) {
            Ok(rule) => prop_assert!(rule.next_after(Timestamp::MIN).is_some()),
            Err(error) => {
                prop_assert!(!error.message.is_empty() && !error.field.is_empty());
                if let Some(column) = error.column {
                    let from: String = text.chars().skip(column - 1).collect();
                    let is_there = from.to_ascii_uppercase().starts_with(&error.value.to_ascii_uppercase());
                    let is_escaped = error.message.contains("no character");
                    prop_assert!(is_there || is_escaped, "`{}`: {}", text, error);
                }
            }
        }
    }
}
