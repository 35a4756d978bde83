//! Tables: the sentence of every kind of expression.
//!
//! Not here: hints (`tests_lints.rs`), and that no two meanings share a sentence (`tests_property.rs`).

use super::super::Dialect::{Quartz, Unix};
use super::super::tests::SAME;
use super::*;

const SHIFT: (Gap, Fold) = (Gap::Shift, Fold::First);
const SKIP: (Gap, Fold) = (Gap::Skip, Fold::First);
const LAST: (Gap, Fold) = (Gap::Shift, Fold::Last);
const BOTH: (Gap, Fold) = (Gap::Skip, Fold::Both);

fn sentence_of(expression: &str, dialect: Dialect, zone: &str, (gap, fold): (Gap, Fold)) -> String {
    let spread_seed = "billing/nightly-invoice";
    let written = Written { expression, dialect, zone, gap, fold, spread_seed, spread_by: SpreadBy::Job };
    describe(&written, Timestamp::UNIX_EPOCH).expect("a description").sentence
}

/// Dialect, expression in Berlin, and the sentence.
const SENTENCES: &[(Dialect, &str, &str)] = &[
    (Unix, "30 2 * * MON-FRI", "at 02:30 on Monday through Friday, Berlin time"),
    (Unix, "*/15 * * * *", "every 15 minutes, Berlin time"),
    (Unix, "5 * * * *", "at 5 past every hour, Berlin time"),
    (Unix, "0 * * * *", "every hour on the hour, Berlin time"),
    (Unix, "* 9-17 * * MON-FRI", "every minute from 09:00 to 17:59 on Monday through Friday, Berlin time"),
    (Unix, "*/15 9-17 * * 1-5", "every 15 minutes from 09:00 to 17:45 on Monday through Friday, Berlin time"),
    (Unix, "* * * * *", "every minute, Berlin time"),
    (Unix, "0 0 13 * 5", "at 00:00 on the 13th of the month or on Friday, Berlin time"),
    (Quartz, "0 0 0 13 * 6", "at 00:00 on the 13th of the month and only on Friday, Berlin time"),
    (Unix, "0 0 L * *", "at 00:00 on the last day of the month, Berlin time"),
    (Unix, "0 0 L-3 * *", "at 00:00 on the 3rd day before the last day of the month, Berlin time"),
    (Unix, "0 0 LW * *", "at 00:00 on the last weekday of the month, Berlin time"),
    (Unix, "0 0 15W * *", "at 00:00 on the weekday nearest to the 15th of the month, Berlin time"),
    (Unix, "0 0 L-1W * *", "at 00:00 on the weekday nearest to the day before the last day of the month, Berlin time"),
    (Unix, "0 0 L-1 * *", "at 00:00 on the day before the last day of the month, Berlin time"),
    (Unix, "0 0 * * 5L", "at 00:00 on the last Friday of the month, Berlin time"),
    (Unix, "0 0 * * MON#2", "at 00:00 on the 2nd Monday of the month, Berlin time"),
    (Unix, "0 0 * * MON#5", "at 00:00 on the 5th Monday of the month, Berlin time"),
    (Unix, "H * * * *", "at 16 past every hour, Berlin time; the minute was chosen by a hash of the job's name"),
    (
        Unix,
        "H H * * *",
        "at 09:16 every day, Berlin time; the minute and the hour were chosen by a hash of the job's name",
    ),
    (
        Unix,
        "H/15 * * * *",
        "at 4, 19, 34 and 49 past every hour, Berlin time; the minute was chosen by a hash of the job's name",
    ),
    (Unix, "H(0-29) 3 * * *", "at 03:08 every day, Berlin time; the minute was chosen by a hash of the job's name"),
    (Unix, "* * * * * *", "every second, Berlin time"),
    (Unix, "*/10 * * * * *", "every 10 seconds, Berlin time"),
    (Unix, "15 * * * * *", "at second 15 of every minute, Berlin time"),
    (Unix, "15 30 2 * * *", "at 02:30:15 every day, Berlin time"),
    (Unix, "*/10 0-5 9 * * *", "every 10 seconds of minutes 0 through 5 of hour 9 every day, Berlin time"),
    (Unix, "1,2,7 * 9-17 * * *", "at seconds 1, 2 and 7 of every minute from 09:00 to 17:59 every day, Berlin time"),
    (Unix, "5 0 * * * *", "at second 5 of minute 0 of every hour, Berlin time"),
    (Unix, "0 0 0 1 1 * 2027-2033", "at 00:00 on the 1st of January, in the years 2027 through 2033, Berlin time"),
    (Unix, "0 0 12 * * * 2028", "at 12:00 every day, in the year 2028, Berlin time"),
    (
        Unix,
        "0 22-2 * * *",
        "every hour from 22:00 to 02:00 every day, Berlin time, once when a gap ends for the times that clocks skipped, only the first time when clocks repeat it",
    ),
    (Unix, "*/30 22-2 * * *", "every 30 minutes from 22:00 to 02:30 every day, Berlin time"),
    (Unix, "*/30 22-2 * * FRI", "every 30 minutes from 00:00 to 02:30 and from 22:00 to 23:30 on Friday, Berlin time"),
    (Unix, "0 0 * * FRI-MON", "at 00:00 on Friday through Monday, Berlin time"),
    (Unix, "0 0 1 NOV-FEB *", "at 00:00 on the 1st of November through February, Berlin time"),
    (Unix, "@hourly", "every hour on the hour, Berlin time"),
    (Unix, "@daily", "at 00:00 every day, Berlin time"),
    (Unix, "@weekly", "at 00:00 on Sunday, Berlin time"),
    (Unix, "@monthly", "at 00:00 on the 1st of the month, Berlin time"),
    (Unix, "@yearly", "at 00:00 on the 1st of January, Berlin time"),
    (Quartz, "@weekly", "at 00:00 on Sunday, Berlin time"),
    (Unix, "@every 90s", "every 1 minute 30 seconds, counted from 1970-01-01T00:00:00Z"),
    (Unix, "@every 1h", "every hour, counted from 1970-01-01T00:00:00Z"),
    (Unix, "@every 1h30m", "every 1 hour 30 minutes, counted from 1970-01-01T00:00:00Z"),
    (Unix, "*/7 * * * *", "every 7 minutes from 0 to 56 past every hour, Berlin time"),
    (Unix, "3/10 * * * *", "every 10 minutes from 3 to 53 past every hour, Berlin time"),
    (Unix, "30/20 * * * *", "at 30 and 50 past every hour, Berlin time"),
    (Unix, "0-10 * * * *", "every minute from 0 to 10 past every hour, Berlin time"),
    (Unix, "5,20,40 * * * *", "at 5, 20 and 40 past every hour, Berlin time"),
    (Unix, "5,20,40 9,11,13,17 * * *", "at 5, 20 and 40 past hours 9, 11, 13 and 17 every day, Berlin time"),
    (Unix, "30 */2 * * *", "every 2 hours from 00:30 to 22:30 every day, Berlin time"),
    (Unix, "30 */5 * * *", "every 5 hours from 00:30 to 20:30 every day, Berlin time"),
    (Unix, "30 0,6,12,18 * * *", "at 00:30, 06:30, 12:30 and 18:30 every day, Berlin time"),
    (Unix, "30 1-3,7,9-11 * * *", "at 30 past hours 1 through 3, 7 and 9 through 11 every day, Berlin time"),
    (
        Unix,
        "0 0-23 * * *",
        "every hour on the hour, Berlin time, once when a gap ends for the times that clocks skipped, only the first time when clocks repeat it",
    ),
    (
        Unix,
        "0-59 2 * * *",
        "every minute from 02:00 to 02:59 every day, Berlin time, once when a gap ends for the times that clocks skipped, only the first time when clocks repeat it",
    ),
    (Unix, "* 2 * * *", "every minute from 02:00 to 02:59 every day, Berlin time"),
    (Unix, "*/30 2 * * *", "every 30 minutes from 02:00 to 02:30 every day, Berlin time"),
    (Unix, "0,30 2 * * *", "at 02:00 and 02:30 every day, Berlin time"),
    (Unix, "30 */12 * * *", "at 00:30 and 12:30 every day, Berlin time"),
    (Unix, "0 0 */2 * *", "at 00:00 on every 2nd day from the 1st to the 31st of the month, Berlin time"),
    (
        Unix,
        "0 0 */2 * MON",
        "at 00:00 on every 2nd day from the 1st to the 31st of the month and only on Monday, Berlin time",
    ),
    (Unix, "0 0 1-31 * MON", "at 00:00 every day, Berlin time"),
    (Unix, "0 0 1,15 * *", "at 00:00 on the 1st and the 15th of the month, Berlin time"),
    (
        Unix,
        "0 0 1-5,15,L * *",
        "at 00:00 on the 1st through the 5th, the 15th and the last day of the month, Berlin time",
    ),
    (
        Unix,
        "0 0 1,15W,LW * *",
        "at 00:00 on the 1st, the weekday nearest to the 15th and the last weekday of the month, Berlin time",
    ),
    (Unix, "0 0 29 2 *", "at 00:00 on the 29th of February, Berlin time"),
    (Unix, "0 0 28 2 *", "at 00:00 on the 28th of February, Berlin time"),
    (Unix, "0 0 31 * *", "at 00:00 on the 31st of the month, Berlin time"),
    (Unix, "0 0 30 * *", "at 00:00 on the 30th of the month, Berlin time"),
    (Unix, "0 0 29 * *", "at 00:00 on the 29th of the month, Berlin time"),
    (Unix, "0 0 15,31 * *", "at 00:00 on the 15th and the 31st of the month, Berlin time"),
    (Unix, "0 0 31 1,3 *", "at 00:00 on the 31st of January and March, Berlin time"),
    (Unix, "0 0 L-30 * *", "at 00:00 on the 30th day before the last day of the month, Berlin time"),
    (Unix, "0 0 30 2 MON", "at 00:00 on the 30th of the month or on Monday, in February, Berlin time"),
    (Unix, "0 0 1,8 JAN,JUL *", "at 00:00 on the 1st and the 8th of January and July, Berlin time"),
    (Unix, "0 0 * JAN *", "at 00:00 every day in January, Berlin time"),
    (Unix, "* * * JAN *", "every minute in January, Berlin time"),
    (Unix, "*/5 * * * SAT,SUN", "every 5 minutes on Saturday and Sunday, Berlin time"),
    (
        Unix,
        "*/5 8-11,14-17 * * SAT,SUN",
        "every 5 minutes from 08:00 to 11:55 and from 14:00 to 17:55 on Saturday and Sunday, Berlin time",
    ),
    (Unix, "0 0 13 3 FRI", "at 00:00 on the 13th of the month or on Friday, in March, Berlin time"),
    (
        Quartz,
        "0 0 12 1-7 * 2#1",
        "at 12:00 on the 1st through the 7th of the month and only on the 1st Monday of the month, Berlin time",
    ),
    (Quartz, "0 0 12 ? * L", "at 12:00 on Saturday, Berlin time"),
    (
        Quartz,
        "0 0 12 ? * MON-FRI 2026/2",
        "at 12:00 on Monday through Friday, every 2nd year from 2026 to 2100, Berlin time",
    ),
    (Unix, "0 9 * * MON,WED", "at 09:00 on Monday and Wednesday, Berlin time"),
    (
        Unix,
        "0 9 * * MON,WED,5L,2#1",
        "at 09:00 on Monday, Wednesday, the 1st Tuesday of the month and the last Friday of the month, Berlin time",
    ),
    (Unix, "17 3 1 */3 *", "at 03:17 on the 1st of January, April, July and October, Berlin time"),
    (Unix, "0 0 1 */5 *", "at 00:00 on the 1st of January, June and November, Berlin time"),
    (
        Unix,
        "H H H * *",
        "at 09:16 on the 7th of the month, Berlin time; the minute, the hour and the day of the month were chosen by a hash of the job's name",
    ),
    (Unix, "0 H * * *", "at 09:00 every day, Berlin time; the hour was chosen by a hash of the job's name"),
];

#[test]
fn expressions_have_sentences() {
    for &(dialect, text, wanted) in SENTENCES {
        assert_eq!(sentence_of(text, dialect, "Europe/Berlin", SHIFT), wanted, "`{text}`");
    }
}

/// Expression, zone, policy, and the sentence.
const ELSEWHERE: &[(&str, &str, (Gap, Fold), &str)] = &[
    ("*/15 * * * *", "UTC", SHIFT, "every 15 minutes"),
    ("* * * * *", "UTC", SHIFT, "every minute"),
    ("* * * * * *", "UTC", SHIFT, "every second"),
    ("*/30 * * * * *", "UTC", SHIFT, "every 30 seconds"),
    ("5 * * * *", "UTC", SHIFT, "at 5 past every hour"),
    ("0 0-23 * * *", "UTC", SHIFT, "every hour on the hour"),
    ("30 2 * * *", "UTC", SKIP, "at 02:30 every day, UTC"),
    ("30 2 * * *", "America/New_York", SHIFT, "at 02:30 every day, New York time"),
    ("30 2 * * *", "America/Argentina/Buenos_Aires", SHIFT, "at 02:30 every day, Buenos Aires time"),
    ("30 2 * * *", "US/Eastern", SHIFT, "at 02:30 every day, US/Eastern time"),
    ("30 2 * * *", "Etc/GMT+5", SHIFT, "at 02:30 every day, Etc/GMT+5 time"),
    ("30 2 * * *", "Asia/Kolkata", SKIP, "at 02:30 every day, Kolkata time"),
    ("30 2 * * *", "Europe/Berlin", SKIP, "at 02:30 every day, Berlin time, not on days when clocks skip it"),
    (
        "30 2 * * *",
        "Europe/Berlin",
        LAST,
        "at 02:30 every day, Berlin time, only the second time when clocks repeat it",
    ),
    (
        "30 2 * * *",
        "Europe/Berlin",
        BOTH,
        "at 02:30 every day, Berlin time, not on days when clocks skip it, both times when clocks repeat it",
    ),
    ("30 4 * * *", "Europe/Berlin", BOTH, "at 04:30 every day, Berlin time"),
    ("30 0-23 * * *", "Europe/Berlin", BOTH, "at 30 past every hour, Berlin time"),
    (
        "* 9-17 * * MON-FRI",
        "Europe/Berlin",
        LAST,
        "every minute from 09:00 to 17:59 on Monday through Friday, Berlin time",
    ),
];

#[test]
fn zones_and_policies_are_told_where_they_matter() {
    for &(text, zone, policy, wanted) in ELSEWHERE {
        assert_eq!(sentence_of(text, Unix, zone, policy), wanted, "`{text}` in {zone} with {policy:?}");
    }
}

#[test]
fn spellings_of_one_rule_share_their_sentence() {
    for &(dialect, one, other) in SAME {
        let sentence = |text| sentence_of(text, dialect, "Europe/Berlin", SHIFT);
        assert_eq!(sentence(one), sentence(other), "`{one}` and `{other}`");
    }
}

#[test]
fn periods_and_instants_have_sentences() {
    let instant: Timestamp = "2026-12-01T08:00:00Z".parse().expect("a timestamp");
    for (seconds, wanted) in [
        (900, "15 minutes"),
        (1, "second"),
        (3600, "hour"),
        (86_400, "24 hours"),
        (90_061, "25 hours 1 minute 1 second"),
    ] {
        let rule = EveryRule::new(Duration::from_secs(seconds), instant).expect("a rule");
        assert_eq!(describe_every(&rule), format!("every {wanted}, counted from 2026-12-01T08:00:00Z"));
    }
    assert_eq!(describe_at(&AtRule::new(instant).expect("a rule")), "once, at 2026-12-01T08:00:00Z");
    assert_eq!(period_text(Duration::from_millis(1_500)), "1 second 500 milliseconds");
}

#[test]
fn without_a_job_the_hash_is_of_the_expression() {
    let written = Written {
        expression: "H 3 * * *",
        dialect: Unix,
        zone: "UTC",
        gap: Gap::Shift,
        fold: Fold::First,
        spread_seed: "billing/nightly-invoice",
        spread_by: SpreadBy::Expression,
    };
    let wanted = "at 03:16 every day, UTC; the minute was chosen by a hash of this expression, as there is no job";
    assert_eq!(describe(&written, Timestamp::UNIX_EPOCH).expect("a description").sentence, wanted);
}
