//! Cron rules against a brute-force oracle: every minute (every second near clock changes) is looked at.
//!
//! The oracle shares no code with the implementation: it has its own small parser, and it finds gaps and folds by
//! listing what a wall clock shows, not by asking for transitions. Only jiff's reading of the zone data is trusted.
//! Every zone and every clock change from 2020 to 2037 is met; built with optimisation, by every expression and policy.

mod oracle;
#[path = "oracle/random.rs"]
mod random;

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use oracle::{Expression, Shown};
use orloj_domain::schedule::{CronRule, Dialect, Fold, Gap};
use proptest::prelude::*;

const POLICIES: [(Gap, Fold); 6] = [
    (Gap::Shift, Fold::First),
    (Gap::Shift, Fold::Last),
    (Gap::Shift, Fold::Both),
    (Gap::Skip, Fold::First),
    (Gap::Skip, Fold::Last),
    (Gap::Skip, Fold::Both),
];

const ZONES: [&str; 14] = [
    "UTC",
    "Europe/Berlin",
    "Europe/Dublin",
    "America/New_York",
    "America/St_Johns",
    "America/Santiago",
    "America/Havana",
    "America/Nuuk",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Pacific/Chatham",
    "Antarctica/Troll",
];

const EXPRESSIONS: [&str; 36] = [
    "* * * * *",
    "*/15 * * * *",
    "0 * * * *",
    "30 * * * *",
    "*/20 2 * * *",
    "17 */2 * * *",
    "30 2 * * *",
    "0 2 * * *",
    "0 3 * * *",
    "45 1 * * *",
    "30 1 * * *",
    "0 0 * * *",
    "30 23 * * *",
    "5,25,45 1-3 * * *",
    "0-59 2 * * *",
    "0 0,1,2,3 * * *",
    "15 0-23/3 * * *",
    "59 23 31 12 *",
    "30 2 * * 0",
    "30 2 * * 6-1",
    "0 1-4 * * 1-5",
    "15 22-2 * * *",
    "50-10/5 1 * * *",
    "0 2 13 * 5",
    "30 2 */2 * 0",
    "0 3 1-7 * 0",
    "30 1 L * *",
    "30 2 LW * *",
    "30 2 L-3 * *",
    "0 2 15W * *",
    "0 2 1W,31W * *",
    "30 2 * * 0L",
    "30 2 * 3 0#2",
    "30 1 * * 0#1,0L",
    "0 0 * 9,10 0#1",
    "30 2 L 3,10 7L",
];

/// Clock changes per zone that are looked at, of all between 2020 and 2037.
const CHANGES_OF_SAMPLE: usize = 2;

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if is_thorough() { 10_000 } else { 100 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Hours near the clock change, so that most expressions meet it; any day of the year would meet it rarely.
    #[test]
    fn random_expressions_agree_with_the_oracle(
        minute in random::field(0, 59),
        hour in prop_oneof![random::field(0, 4), random::field(0, 23)],
        days in random::expression(false),
        (change, policy, plain_days) in (0..CHANGES.len(), 0..POLICIES.len(), any::<bool>()),
    ) {
        let (zone, change) = CHANGES[change];
        let days: Vec<&str> = days.split(' ').rev().take(3).collect();
        let text = if plain_days {
            format!("{minute} {hour} * * *")
        } else {
            format!("{minute} {hour} {} {} {}", days[2], days[1], days[0])
        };
        if CronRule::parse(&text, Dialect::Unix, zone, Gap::Shift, Fold::First, "").is_ok() {
            let shown = Shown::around(&tz(zone), second(change), 5 * 3600, 60);
            check(zone, &text, POLICIES[policy], &shown);
        }
    }
}

/// A gap and a fold of an hour, of half an hour, at midnight, and of a day.
const CHANGES: [(&str, &str); 7] = [
    ("Europe/Berlin", "2026-03-29T01:00:00Z"),
    ("Europe/Berlin", "2026-10-25T01:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
    ("America/Sao_Paulo", "2019-02-17T02:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
];

#[test]
fn sampled_zones_agree_with_the_oracle_around_clock_changes() {
    for (zone_index, zone) in ZONES.into_iter().enumerate() {
        let windows = windows_of(zone, zone_index, if is_thorough() { usize::MAX } else { CHANGES_OF_SAMPLE });
        for (window_index, shown) in windows.iter().enumerate() {
            for (index, text) in EXPRESSIONS.into_iter().enumerate() {
                // A sample meets each policy in turn; over zones and windows every expression meets most of them.
                let turn = index + zone_index + window_index;
                for (policy_index, policy) in POLICIES.into_iter().enumerate() {
                    if is_thorough() || turn % POLICIES.len() == policy_index {
                        check(zone, text, policy, shown);
                    }
                }
            }
        }
    }
}

/// All zones, all of 2020 to 2037: hours in which nothing but the offset differs between two zones are taken once.
#[test]
fn every_zone_agrees_with_the_oracle() {
    let names = all_zones();
    assert!(names.len() > 300, "the system's time zone database is not there: {} zones", names.len());
    let mut changes: BTreeMap<(i64, i32, i32), &str> = BTreeMap::new();
    for name in &names {
        let found = changes_of(name);
        // A zone without changes has one ordinary day.
        let quiet = found.is_empty().then(|| second("2026-03-29T01:00:00Z"));
        for at in found.into_iter().chain(quiet) {
            let offset = |at| tz(name).to_offset(Timestamp::from_second(at).expect("in range")).seconds();
            changes.entry((at, offset(at - 1), offset(at))).or_insert(name);
        }
    }
    assert!(changes.len() > 1000, "only {} clock changes", changes.len());
    let changes: Vec<(i64, &str)> = changes.into_iter().map(|((at, ..), zone)| (at, zone)).collect();
    let (expressions, reach) = if is_thorough() { (12, 36 * 3600) } else { (4, 4 * 3600) };
    let middle = changes.len() / 2;
    std::thread::scope(|scope| {
        for (part, some) in [&changes[..middle], &changes[middle..]].into_iter().enumerate() {
            scope.spawn(move || {
                for (index, (at, zone)) in some.iter().enumerate() {
                    let shown = Shown::around(&tz(zone), *at, reach, 60);
                    for step in 0..expressions {
                        let turn = part + index + step * 11;
                        let text = EXPRESSIONS[turn * 7 % EXPRESSIONS.len()];
                        check(zone, text, POLICIES[turn % POLICIES.len()], &shown);
                    }
                }
            });
        }
    });
}

/// Changes that the years 2020 to 2037 do not have: skipped days, gaps at midnight, changes of a zone's own offset.
#[test]
fn famous_clock_changes_agree_with_the_oracle() {
    for (zone, change) in [
        ("Pacific/Apia", "2011-12-30T10:00:00Z"),
        ("Pacific/Kwajalein", "1993-08-21T12:00:00Z"),
        ("Pacific/Kiritimati", "1994-12-31T10:00:00Z"),
        ("America/Sao_Paulo", "2018-11-04T03:00:00Z"),
        ("America/Sao_Paulo", "2019-02-17T02:00:00Z"),
        ("Asia/Pyongyang", "2015-08-14T15:00:00Z"),
        ("Asia/Pyongyang", "2018-05-04T15:00:00Z"),
        ("America/Caracas", "2016-05-01T07:00:00Z"),
        ("Europe/Moscow", "2014-10-25T22:00:00Z"),
        ("Asia/Beirut", "2023-03-29T22:00:00Z"),
        ("America/Metlakatla", "2018-11-04T10:00:00Z"),
        ("Antarctica/Casey", "2018-03-10T17:00:00Z"),
        ("Australia/Lord_Howe", "1981-02-28T14:00:00Z"),
    ] {
        let shown = Shown::around(&tz(zone), second(change), 40 * 3600, 60);
        for (index, text) in EXPRESSIONS.into_iter().enumerate() {
            for (turn, policy) in POLICIES.into_iter().enumerate() {
                if is_thorough() || (index + zone.len() + turn).is_multiple_of(3) {
                    check(zone, text, policy, &shown);
                }
            }
        }
    }
}

#[test]
fn seconds_agree_with_the_oracle_around_clock_changes() {
    let expressions = [
        "*/7 * * * * *",
        "30 59 1 * * *",
        "10-12 0 3 * * *",
        "* 30 2 * * *",
        "* 0-59 1-2 * * 0",
        "59 59 * * * *",
        "0 0 2 L * * 2026",
    ];
    for (zone, change) in [
        ("Europe/Berlin", "2026-03-29T01:00:00Z"),
        ("Europe/Berlin", "2026-10-25T01:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
        ("America/New_York", "2026-11-01T06:00:00Z"),
    ] {
        let shown = Shown::around(&tz(zone), second(change), 2 * 3600, 1);
        for (index, text) in expressions.into_iter().enumerate() {
            check(zone, text, POLICIES[index % POLICIES.len()], &shown);
            check(zone, text, POLICIES[(index + 3) % POLICIES.len()], &shown);
        }
    }
}

/// Every day of sixteen years, for the expressions whose dates are the hard part.
#[test]
fn special_days_agree_with_the_oracle_over_years() {
    let centre = second("2026-01-01T00:00:00Z");
    let shown = Shown::around(&tz("UTC"), centre, 8 * 366 * 86_400, 86_400);
    for text in [
        "0 0 L * *",
        "0 0 LW * *",
        "0 0 L-1 * *",
        "0 0 L-28,L-30 * *",
        "0 0 1W * *",
        "0 0 2W,30W * *",
        "0 0 31W * *",
        "0 0 15W * *",
        "0 0 28W,29W 2 *",
        "0 0 L 2 *",
        "0 0 29 2 *",
        "0 0 * * 0L",
        "0 0 * * 1L,5L",
        "0 0 * * 7L",
        "0 0 * * 1#1",
        "0 0 * * 3#2,6#4",
        "0 0 * * 0#5",
        "0 0 * * 2#3,4L",
        "0 0 LW * 5L",
        "0 0 1W,L 1-6/2 0#2,3",
        "0 0 13 * 5",
        "0 0 */2 * 1",
        "0 0 1-7 * *",
        "0 0 28-3 * *",
        "0 0 * 11-2 5-1",
        "0 0 */10,L * */3",
        "0 0 0 31 12 * 2020-2030/5",
        "0 0 0 L,1W * 5#3,1L 2024,2028",
    ] {
        check("UTC", text, (Gap::Shift, Fold::First), &shown);
    }
}

/// The rule must name exactly the oracle's fires, whether asked in order or from any instant between.
fn check(zone: &str, text: &str, (gap, fold): (Gap, Fold), shown: &Shown) {
    let rule = CronRule::parse(text, Dialect::Unix, zone, gap, fold, "seed").expect("a rule");
    let fires = shown.fires(&Expression::parse(text), gap == Gap::Shift, fold_name(fold));
    let fail = |after: i64, found: Option<i64>, wanted: Option<i64>| {
        panic!(
            "`{text}` in {zone} with {gap:?} and {fold:?}, after {}: found {}, the oracle says {}",
            render(Some(after)),
            render(found),
            render(wanted)
        )
    };
    let mut after = shown.first() - 1;
    for fire in fires.iter().copied().map(Some).chain([None]) {
        let found = next(&rule, after).filter(|found| *found <= shown.last());
        if found != fire {
            fail(after, found, fire);
        }
        after = found.unwrap_or(after);
    }
    // From instants that are no fires; the stride is prime to the hour, so all kinds of minutes come up.
    let stride = shown.step() * if is_thorough() { 37 } else { 331 };
    for after in (shown.first()..shown.last()).step_by(stride as usize) {
        let wanted = fires.get(fires.partition_point(|fire| *fire <= after)).copied();
        let found = next(&rule, after).filter(|found| *found <= shown.last());
        if found != wanted {
            fail(after, found, wanted);
        }
    }
}

fn next(rule: &CronRule, after: i64) -> Option<i64> {
    let found = rule.next_after(Timestamp::from_second(after).expect("in range"))?;
    assert_eq!(found.subsec_nanosecond(), 0);
    assert!(found.as_second() > after, "not after the question");
    Some(found.as_second())
}

fn fold_name(fold: Fold) -> oracle::Occurrence {
    match fold {
        Fold::First => oracle::Occurrence::First,
        Fold::Last => oracle::Occurrence::Last,
        Fold::Both => oracle::Occurrence::Every,
    }
}

fn is_thorough() -> bool {
    !cfg!(debug_assertions)
}

/// What the zone's clocks show around some of its changes; around one ordinary day if there are none.
fn windows_of(zone: &str, turn: usize, count: usize) -> Vec<Shown> {
    let tz = tz(zone);
    let mut changes: Vec<i64> = changes_of(zone);
    if changes.is_empty() {
        changes.push(second("2026-03-29T01:00:00Z"));
    }
    let stride = (changes.len() / count).max(1);
    // An odd stride alternates between gaps and folds.
    let stride = if stride.is_multiple_of(2) && count > 1 { stride - 1 } else { stride };
    let start = turn % stride;
    changes
        .into_iter()
        .skip(start)
        .step_by(stride)
        .take(count)
        .map(|change| Shown::around(&tz, change, 36 * 3600, 60))
        .collect()
}

/// The clock changes of a zone from 2020 to 2037.
fn changes_of(zone: &str) -> Vec<i64> {
    let (from, to) = (second("2020-01-01T00:00:00Z"), second("2038-01-01T00:00:00Z"));
    let from = Timestamp::from_second(from).expect("in range");
    let zone = tz(zone);
    zone.following(from).map(|change| change.timestamp().as_second()).take_while(|at| *at < to).collect()
}

/// All but the names that mean whatever the machine is set to: those are refused.
fn all_zones() -> Vec<String> {
    let is_local = |name: &str| matches!(name, "localtime" | "posixrules" | "Factory");
    jiff::tz::db()
        .available()
        .map(|name| name.to_string())
        .filter(|name| !name.starts_with("posix/") && !name.starts_with("right/") && !is_local(name))
        .filter(|name| TimeZone::get(name).is_ok())
        .collect()
}

fn tz(name: &str) -> TimeZone {
    TimeZone::get(name).expect("a zone")
}

fn second(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a timestamp").as_second()
}

fn render(at: Option<i64>) -> String {
    at.map_or("nothing".to_owned(), |at| Timestamp::from_second(at).expect("in range").to_string())
}
