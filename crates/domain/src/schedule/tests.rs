//! Tables: what expressions mean where the clock never changes, and what lists of rules do.
//!
//! Not here: clock changes (`tests_clock.rs`), refusals (`tests_errors.rs`), and the comparisons with an oracle and
//! with another crate (`tests/` of this crate).

use super::Dialect::{Quartz, Unix};
use super::*;

/// First fires after an instant, as UTC.
pub(super) fn fires(text: &str, dialect: Dialect, zone: &str, after: &str, count: usize) -> Vec<String> {
    fires_with(text, dialect, zone, (Gap::Shift, Fold::First), after, count)
}

pub(super) fn fires_with(
    text: &str,
    dialect: Dialect,
    zone: &str,
    policy: (Gap, Fold),
    after: &str,
    count: usize,
) -> Vec<String> {
    let rule = CronRule::parse(text, dialect, zone, policy.0, policy.1, "billing/nightly").expect("a rule");
    let mut at: Timestamp = after.parse().expect("a timestamp");
    let mut fires = Vec::new();
    while fires.len() < count {
        let Some(next) = rule.next_after(at) else {
            break;
        };
        assert!(next > at, "`{text}` goes back from {at} to {next}");
        fires.push(next.to_string());
        at = next;
    }
    fires
}

/// Dialect, and two expressions that are one rule.
pub(super) const SAME: &[(Dialect, &str, &str)] = &[
    (Unix, "0 0 * * FRI-MON", "0 0 * * 0,1,5,6"),
    (Unix, "0 0 * * friday-Monday", "0 0 * * 5-1"),
    (Unix, "0 22-2 * * *", "0 0,1,2,22,23 * * *"),
    (Unix, "0 22-4/2 * * *", "0 22,0,2,4 * * *"),
    (Unix, "50-10/10 * * * *", "50,0,10 * * * *"),
    (Unix, "0 0 1 NOV-FEB *", "0 0 1 11,12,1,2 *"),
    (Unix, "0 0 1 january,Mar *", "0 0 1 1,3 *"),
    (Unix, "0 0 * * 7", "0 0 * * SUN"),
    (Unix, "0 0 * * 5-7", "0 0 * * 0,5,6"),
    (Unix, "0 0 * * 7-2", "0 0 * * 0-2"),
    (Unix, "0 0 * * 0-7", "0 0 * * *"),
    (Unix, "0 0 * * 1-7/2", "0 0 * * 0,1,3,5"),
    (Unix, "0 0 * * 7/2", "0 0 * * 0,2,4,6"),
    (Unix, "5/15 * * * *", "5,20,35,50 * * * *"),
    (Unix, "  0   0 * *\t* ", "0 0 * * *"),
    (Unix, "007 08 * * *", "7 8 * * *"),
    (Unix, "0 5 0 * * *", "5 0 * * *"),
    (Unix, "0 5 0 * * * *", "5 0 * * *"),
    (Unix, "0 0 ? * MON", "0 0 * * 1"),
    (Unix, "0 0 5 * ?", "0 0 5 * *"),
    (Unix, "0 0 L * fril", "0 0 L-0 * 5l"),
    (Unix, "0 0 * * MON#2", "0 0 * * 1#2"),
    (Unix, "0 0 * * 7#1", "0 0 * * SUN#1"),
    (Unix, "0 0 * * H(0-7)", "0 0 * * H(0-6)"),
    (Unix, "0 0 * * H(7-2)", "0 0 * * H(0-2)"),
    (Unix, "@hourly", "0 * * * *"),
    (Unix, "@Daily", "0 0 * * *"),
    (Unix, " @midnight ", "0 0 * * *"),
    (Unix, "@weekly", "0 0 * * 0"),
    (Unix, "@monthly", "0 0 1 * *"),
    (Unix, "@yearly", "0 0 1 1 *"),
    (Unix, "@annually", "@yearly"),
    (Quartz, "0 0 0 ? * 1", "0 0 0 ? * SUN"),
    (Quartz, "0 0 0 ? * 6-2", "0 0 0 ? * FRI-MON"),
    (Quartz, "0 0 0 ? * L", "0 0 0 ? * 7"),
    (Quartz, "0 0 0 ? * 6L", "0 0 0 ? * FRIL"),
    (Quartz, "0 0 0 ? * 2#1", "0 0 0 ? * MON#1"),
    (Quartz, "@weekly", "0 0 0 ? * SUN"),
    (Quartz, "/10 /5 /2 /5 /3 ?", "*/10 */5 */2 */5 */3 ?"),
    (Quartz, "/5 0 12 * * ?", "0/5 0 12 * * ?"),
    (Quartz, "0 /20,50 12 ? * /2 /3", "0 */20,50 12 ? * */2 */3"),
];

#[test]
fn expressions_that_mean_the_same() {
    for &(dialect, one, other) in SAME {
        let rule = |text| parse_rule(text, dialect, "Europe/Berlin", Gap::Shift, Fold::First, "seed").expect("a rule");
        assert_eq!(rule(one), rule(other), "`{one}` and `{other}`");
    }
}

#[test]
fn equality_sees_every_part_of_a_rule() {
    let rule = |text, zone, gap| CronRule::parse(text, Unix, zone, gap, Fold::First, "").expect("a rule");
    let base = rule("0 2 * * *", "UTC", Gap::Shift);
    assert_ne!(base, rule("0 3 * * *", "UTC", Gap::Shift));
    assert_ne!(base, rule("0 2 * * *", "Europe/Berlin", Gap::Shift));
    assert_ne!(base, rule("0 2 * * *", "UTC", Gap::Skip));
    assert_ne!(rule("0 2 L * *", "UTC", Gap::Skip), rule("0 2 28-31 * *", "UTC", Gap::Skip));
    // The same instants on most days, but another reading of clock changes.
    assert_ne!(rule("0 * * * *", "UTC", Gap::Shift), rule("0 0-23 * * *", "UTC", Gap::Shift));
}

/// Dialect, expression, start, and the months and days of the first fires.
const DATES: &[(Dialect, &str, &str, &str)] = &[
    (Unix, "0 0 13 * 5", "2026-02-01T00:00:00Z", "02-06 02-13 02-20 02-27 03-06 03-13"),
    (Quartz, "0 0 0 13 * 6", "2026-01-01T00:00:00Z", "02-13 03-13 11-13"),
    (Unix, "0 0 */2 * MON", "2026-06-01T00:00:00Z", "06-15 06-29 07-13 07-27"),
    (Unix, "0 0 1-31/2 * MON", "2026-06-01T00:00:00Z", "06-03 06-05 06-07 06-08 06-09"),
    (Unix, "0 0 L * *", "2028-01-31T00:00:00Z", "02-29 03-31 04-30"),
    (Unix, "0 0 L-3 * *", "2026-01-31T00:00:00Z", "02-25 03-28 04-27"),
    (Unix, "0 0 LW * *", "2026-01-01T00:00:00Z", "01-30 02-27 03-31 04-30 05-29"),
    (Unix, "0 0 L-1W * *", "2026-01-01T00:00:00Z", "01-30 02-27 03-30 04-29 05-29"),
    (Unix, "0 0 15W * *", "2026-08-01T00:00:00Z", "08-14 09-15 10-15 11-16"),
    (Unix, "0 0 1W * *", "2026-07-15T00:00:00Z", "08-03 09-01 10-01 11-02"),
    (Unix, "0 0 31W * *", "2026-04-01T00:00:00Z", "05-29 07-31 08-31 10-30"),
    (Unix, "0 0 * * 5L", "2026-01-01T00:00:00Z", "01-30 02-27 03-27 04-24"),
    (Unix, "0 0 * * MON#5", "2026-01-01T00:00:00Z", "03-30 06-29 08-31 11-30"),
    (Unix, "0 0 15 * MON#1", "2026-01-01T00:00:00Z", "01-05 01-15 02-02 02-15"),
    (Quartz, "0 0 0 ? * 6#3", "2026-01-01T00:00:00Z", "01-16 02-20 03-20"),
    (Quartz, "0 0 0 L * SAT", "2026-01-01T00:00:00Z", "01-31 02-28 10-31"),
    (Quartz, "0 0 0 1-7 * 2#1", "2026-01-01T00:00:00Z", "01-05 02-02 03-02"),
    (Unix, "0 0 31 * *", "2026-01-31T00:00:00Z", "03-31 05-31 07-31 08-31 10-31"),
    (Unix, "0 0 0 29 2 * 2027-2033", "2026-01-01T00:00:00Z", "02-29 02-29"),
];

#[test]
fn dates() {
    for &(dialect, text, after, wanted) in DATES {
        let wanted: Vec<&str> = wanted.split(' ').collect();
        let found = fires(text, dialect, "UTC", after, wanted.len());
        let found: Vec<&str> = found.iter().map(|fire| &fire[5..10]).collect();
        assert_eq!(found, wanted, "`{text}`");
    }
}

#[test]
fn answers_are_strictly_later_whole_seconds() {
    for (after, wanted) in [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z"),
        ("2026-01-01T00:00:59.999999999Z", "2026-01-01T00:01:00Z"),
        ("2026-01-01T00:01:00.000000001Z", "2026-01-01T00:02:00Z"),
        ("1969-12-31T23:59:59.5Z", "1970-01-01T00:00:00Z"),
        ("-009999-01-02T02:00:00Z", "1970-01-01T00:00:00Z"),
        ("2100-12-31T23:58:30Z", "2100-12-31T23:59:00Z"),
    ] {
        assert_eq!(fires("* * * * *", Unix, "UTC", after, 1), [wanted], "after {after}");
    }
    for after in ["2100-12-31T23:59:00Z", "9999-12-30T22:00:00Z"] {
        assert!(fires("* * * * *", Unix, "UTC", after, 1).is_empty(), "after {after}");
    }
}

#[test]
fn spread_is_stable_and_within_bounds() {
    let rule = |text: &str, seed: &str| {
        let rule = CronRule::parse(text, Unix, "UTC", Gap::Shift, Fold::First, seed).expect("a rule");
        format!("{rule:?}")
    };
    for text in ["H * * * *", "H H * * *", "H(0-29) H(1-5) * * *", "H/15 * * * *", "H(10-20)/5 * * * *", "H H H H H"] {
        assert_eq!(rule(text, "a/b"), rule(text, "a/b"));
    }
    assert!((0..20).any(|job| rule("H * * * *", &format!("a/{job}")) != rule("H * * * *", "a/b")));
    let minutes = |text: &str, seed: &str| -> Vec<u32> {
        let rule = CronRule::parse(text, Unix, "UTC", Gap::Shift, Fold::First, seed).expect("a rule");
        let mut at = Timestamp::UNIX_EPOCH - SignedDuration::from_secs(1);
        let mut minutes = Vec::new();
        while let Some(next) = rule.next_after(at).filter(|next| next.as_second() < 3600) {
            minutes.push(next.as_second() as u32 / 60);
            at = next;
        }
        minutes
    };
    for job in 0..200 {
        let seed = format!("ns/{job}");
        let quarter = minutes("H/15 * * * *", &seed);
        assert_eq!(quarter.len(), 4);
        assert!(quarter.windows(2).all(|pair| pair[1] - pair[0] == 15));
        let half = minutes("H(0-29) * * * *", &seed);
        assert!(half.len() == 1 && half[0] < 30);
        let some = minutes("H(10-20)/5 * * * *", &seed);
        assert!(some.iter().all(|minute| (10..=20).contains(minute)) && (2..=3).contains(&some.len()));
    }
}

#[test]
fn spread_knows_both_numbers_of_sunday() {
    let rule = |text: &str, seed: &str| CronRule::parse(text, Unix, "UTC", Gap::Shift, Fold::First, seed);
    let weekdays = |text: &str| -> Vec<usize> {
        let mut hits = [0; 7];
        for job in 0..700 {
            let fire = rule(text, &format!("ns/{job}")).expect("a rule").next_after(Timestamp::UNIX_EPOCH);
            // 1970-01-01 was a Thursday.
            let day = fire.expect("a fire").as_second() / 86_400 + 4;
            hits[usize::try_from(day % 7).expect("small")] += 1;
        }
        hits.to_vec()
    };
    assert!(weekdays("0 12 * * H(1-7)").iter().all(|hits| (50..=150).contains(hits)));
    assert!(weekdays("0 12 * * H(0-7)").iter().all(|hits| (50..=150).contains(hits)));
    assert_eq!(weekdays("0 12 * * H(7-7)"), [700, 0, 0, 0, 0, 0, 0]);
    // Friday to Sunday, and what a job had before stays as it was.
    assert_eq!(weekdays("0 12 * * H(5-7)")[1..5], [0; 4]);
    assert_eq!(rule("0 12 * * H(1-5)", "ns/1").expect("a rule"), rule("0 12 * * WED", "ns/1").expect("a rule"));
}

#[test]
fn a_list_fires_at_the_earliest_and_once() {
    let rule = |text| parse_rule(text, Unix, "UTC", Gap::Shift, Fold::First, "").expect("a rule");
    let at = AtRule::new("2026-01-01T00:20:00Z".parse().expect("a timestamp")).expect("a rule");
    let rules = [rule("0 * * * *"), rule("*/30 * * * *"), rule("@every 45m"), Rule::At(at)];
    let mut after: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a timestamp");
    let mut fires = Vec::new();
    for _ in 0..6 {
        after = next_of(&rules, after).expect("a fire");
        fires.push(after.to_string()[11..16].to_owned());
    }
    assert_eq!(fires, ["00:20", "00:30", "00:45", "01:00", "01:30", "02:00"]);
    assert_eq!(next_of(&[], after), None);
}
