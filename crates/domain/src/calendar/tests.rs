//! Calendars as tables: how they are read, what days they hold, what they say of fire times.

use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::*;
use crate::id::CalendarName;
use crate::job::ScheduleRule;
use crate::manifest;
use crate::time::Timestamp;

fn name(text: &str) -> CalendarName {
    text.parse().expect("a name")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

fn json(name: &str, spec: &str) -> String {
    format!(r#"{{"apiVersion":"orloj/v1","kind":"Calendar","metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
}

fn calendar(name: &str, spec: &str) -> Calendar {
    parse_json(&json(name, spec)).unwrap_or_else(|errors| panic!("{errors:?}")).1
}

/// Calendars with their offsets in the order given, from 1.
fn set(calendars: &[(&str, &str)]) -> CalendarSet {
    let mut set = CalendarSet::default();
    for (offset, (name, spec)) in (1..).zip(calendars) {
        set.put(calendar(name, spec), offset);
    }
    set
}

fn complaints(text: &str) -> Vec<String> {
    let errors = parse_json(text).expect_err("refused");
    errors.iter().map(|error| format!("{} `{}`: {}", error.field, error.value, error.message)).collect()
}

#[test]
fn a_calendar_holds_the_days_that_it_names() {
    let spec = r#"{"dates": ["2026-05-14"], "ranges": [{"from": "2026-12-30", "to": "2027-01-02"},
        {"from": "2026-12-24", "to": "2026-12-29"}], "weekdays": ["SAT", "sunday"], "yearly": ["02-29", "7-4"]}"#;
    let calendar = calendar("c", spec);
    for (date, holds) in [
        ("2026-05-13", false),
        ("2026-05-14", true),
        ("2026-05-15", false),
        ("2026-12-23", false),
        ("2026-12-24", true),
        ("2026-12-30", true),
        ("2027-01-02", true),
        ("2027-01-04", false),
        ("2026-11-21", true),
        ("2026-11-22", true),
        ("2026-11-23", false),
        ("2028-02-29", true),
        ("2028-02-28", false),
        ("2029-07-04", true),
    ] {
        assert_eq!(calendar.holds(date.parse::<Date>().expect("a date")), holds, "{date}");
    }
}

#[test]
fn days_of_the_week_may_be_in_a_row() {
    for (text, held) in [
        ("MON-FRI", "1111100"),
        ("friday-monday", "1000111"),
        ("Wed", "0010000"),
        ("sun-sat", "1111111"),
        ("SUN-SUN", "0000001"),
    ] {
        let calendar = calendar("c", &format!(r#"{{"weekdays": ["{text}"]}}"#));
        let monday: Date = "2026-11-16".parse().expect("a date");
        let mut days = monday.series(jiff::Span::new().days(1));
        let found: String = (&mut days).take(7).map(|day| if calendar.holds(day) { '1' } else { '0' }).collect();
        assert_eq!(found, held, "{text}");
    }
}

#[test]
fn every_complaint_names_field_value_and_fix() {
    let text = json(
        "Holidays",
        r#"{"dates": ["2026-02-30", "2026-12-25T00:00:00Z"], "ranges": [{"from": "2026-12-25", "to": "2026-12-24"}],
            "weekdays": ["caturday", "MON-"], "yearly": ["02-30", "2026-12-25"], "include": ["a/b"],
            "timeZone": "Europe/Berln"}"#,
    );
    let said = complaints(&text);
    for (line, parts) in [
        (0, ["metadata.name `Holidays`", "lower-case"]),
        (1, ["spec.dates[0] `2026-02-30`", "as in `2026-12-25`"]),
        (2, ["spec.dates[1] `2026-12-25T00:00:00Z`", "is no date"]),
        (3, ["spec.ranges[0].to `2026-12-24`", "swap"]),
        (4, ["spec.weekdays[0] `caturday`", "`SAT`"]),
        (5, ["spec.weekdays[1] `MON-`", "`MON-FRI`"]),
        (6, ["spec.yearly[0] `02-30`", "`12-25`"]),
        (7, ["spec.yearly[1] `2026-12-25`", "`12-25`"]),
        (8, ["spec.timeZone `Europe/Berln`", "Europe/Berlin"]),
        (9, ["spec.include[0] `a/b`", "lower-case"]),
    ] {
        assert!(parts.iter().all(|part| said[line].contains(part)), "{line}: {said:#?}");
    }
    assert_eq!(said.len(), 10, "{said:#?}");
    for (text, part) in [
        (json("a", r#"{"days": []}"#), "days ``: unknown field `days`"),
        (json("a", "{}").replace("Calendar", "Job"), "kind `Job`: must be `Calendar`"),
        (
            json("a", "{}").replace(r#""name""#, r#""namespace":"x","name""#),
            "metadata.namespace `x`: calendars have no",
        ),
        ("{".to_owned(), "line 1"),
    ] {
        assert!(complaints(&text)[0].contains(part), "{:?}", complaints(&text));
    }
}

#[test]
fn limits_are_kept_by_name() {
    let dates = vec![r#""2026-12-25""#; ENTRIES_MAX].join(",");
    assert!(parse_json(&json("a", &format!(r#"{{"dates":[{dates}]}}"#))).is_ok());
    assert!(
        complaints(&json("a", &format!(r#"{{"dates":[{dates}],"yearly":["12-25"]}}"#)))[0].contains("10001 entries")
    );
    let names = vec![r#""b""#; INCLUDES_MAX + 1].join(",");
    assert!(complaints(&json("a", &format!(r#"{{"include":[{names}]}}"#)))[0].contains("spec.include `101`"));
    let long = json("a", &format!(r#"{{"dates":["{}"]}}"#, "x".repeat(CALENDAR_BYTES_MAX)));
    assert!(complaints(&long)[0].contains("larger than 262144 bytes"));
}

#[test]
fn a_manifest_is_written_as_it_was_read() {
    let text = json("a", r#"{"timeZone":"UTC","ranges":[{"from":"2026-12-24","to":"2026-12-26"}],"include":["b"]}"#);
    let (manifest, _) = parse_json(&text).expect("good");
    assert_eq!(serde_json::to_string(&manifest).expect("JSON"), text);
}

#[test]
fn included_calendars_count_whatever_the_way() {
    let set = set(&[
        ("a", r#"{"include": ["b", "c"], "dates": ["2026-01-01"]}"#),
        ("b", r#"{"include": ["c"], "dates": ["2026-01-02"]}"#),
        ("c", r#"{"include": ["a"], "dates": ["2026-01-03"]}"#),
        ("lost", r#"{"include": ["a", "nowhere"]}"#),
    ]);
    let covers =
        |name: &str, day: u8| set.covers(&self::name(name), at(&format!("2026-01-0{day}T12:00:00Z")), &TimeZone::UTC);
    for day in 1..=3 {
        assert_eq!(covers("a", day), Ok(true), "{day}");
        assert_eq!(covers("c", day), Ok(true), "{day}: a circle is no end");
    }
    assert_eq!(covers("a", 4), Ok(false));
    assert_eq!(covers("lost", 1), Err(Unresolved::Missing(name("nowhere"))));
    assert_eq!(covers("nobody", 1), Err(Unresolved::Missing(name("nobody"))));
    let circle = set.circle_of(&name("a")).expect("a circle");
    let circle: Vec<&str> = circle.iter().map(CalendarName::as_str).collect();
    assert_eq!((circle.first(), circle.last()), (Some(&"a"), Some(&"a")), "{circle:?}");
    assert_eq!(set.circle_of(&name("lost")), None);
    let mut positions = std::collections::BTreeMap::new();
    set.add_positions(&name("lost"), &mut positions);
    let positions: Vec<(&str, i64)> = positions.iter().map(|(name, offset)| (name.as_str(), *offset)).collect();
    assert_eq!(positions, [("a", 1), ("b", 2), ("c", 3), ("lost", 4), ("nowhere", -1)]);
}

#[test]
fn too_many_included_calendars_are_refused_not_cut_short() {
    let mut set = CalendarSet::default();
    for index in 0..=INCLUDED_MAX {
        let next = index + 1;
        set.put(calendar(&format!("c{index}"), &format!(r#"{{"include": ["c{next}"]}}"#)), 0);
    }
    let covers = |first: usize| set.covers(&name(&format!("c{first}")), at("2026-01-01T00:00:00Z"), &TimeZone::UTC);
    assert_eq!(covers(0), Err(Unresolved::TooMany(name("c0"))));
    assert_eq!(covers(2), Err(Unresolved::Missing(name("c257"))), "the last one includes one that is not there");
}

#[test]
fn a_date_is_that_of_the_calendars_zone_or_else_of_the_rules() {
    let set = set(&[
        ("plain", r#"{"dates": ["2026-12-25"]}"#),
        ("tokyo", r#"{"dates": ["2026-12-25"], "timeZone": "Asia/Tokyo"}"#),
        ("both", r#"{"include": ["plain", "tokyo"], "timeZone": "America/New_York"}"#),
    ]);
    let berlin = TimeZone::get("Europe/Berlin").expect("a zone");
    for (calendar, first, last) in [
        ("plain", "2026-12-24T23:00:00Z", "2026-12-25T22:59:59Z"),
        ("tokyo", "2026-12-24T15:00:00Z", "2026-12-25T14:59:59Z"),
        ("both", "2026-12-24T15:00:00Z", "2026-12-26T04:59:59Z"),
    ] {
        let covers = |instant: Timestamp| set.covers(&name(calendar), instant, &berlin).expect("known");
        let second = std::time::Duration::from_secs(1);
        assert!(covers(at(first)) && covers(at(last)), "{calendar}");
        assert!(!covers(at(first).minus(second)) && !covers(at(last).plus(second)), "{calendar}");
    }
}

fn schedule(text: &str) -> (Vec<ScheduleRule>, Vec<crate::schedule::Rule>) {
    let text = format!(
        r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"a","name":"b"}},
            "spec":{{"schedule":{text},"run":{{"exec":{{"command":["true"]}}}}}}}}"#
    );
    let definition = manifest::parse_json(&text).unwrap_or_else(|errors| panic!("{errors:?}"));
    let rules = manifest::rules_of(&definition).expect("rules");
    (definition.schedule, rules)
}

#[test]
fn a_fire_time_is_left_out_if_every_rule_that_names_it_leaves_it_out() {
    let set = set(&[
        ("holidays", r#"{"yearly": ["12-25"]}"#),
        ("workdays", r#"{"weekdays": ["MON-FRI"]}"#),
        ("lost", r#"{"include": ["nowhere"]}"#),
    ]);
    let friday = "2026-12-25T08:00:00Z";
    for (rules, instant, said) in [
        (r#"{"cron": "0 8 * * *", "exclude": ["holidays"]}"#, friday, "2026-12-25 is left out by calendar holidays"),
        (r#"{"cron": "0 8 * * *", "exclude": ["holidays"]}"#, "2026-12-24T08:00:00Z", ""),
        (r#"{"every": "1h", "only": ["workdays"]}"#, "2026-12-26T08:00:00Z", "2026-12-26 is not in calendar workdays"),
        (r#"{"every": "1h", "only": ["workdays"]}"#, friday, ""),
        (r#"{"every": "1h", "only": ["workdays"], "exclude": ["holidays"]}"#, friday, "left out by calendar holidays"),
        (
            r#"{"every": "1h", "only": ["workdays", "holidays"]}"#,
            "2026-12-26T08:00:00Z",
            "2026-12-26 is not in calendars workdays or holidays",
        ),
        (r#"{"every": "1h", "only": ["holidays", "workdays"]}"#, "2026-12-24T08:00:00Z", ""),
        (r#"{"at": "2026-12-25T08:00:00Z", "exclude": ["nobody"]}"#, friday, "calendar nobody does not exist"),
        (r#"{"every": "1h", "only": ["lost"]}"#, friday, "calendar nowhere does not exist"),
        // Two rules name it, and one of them has no objection.
        (r#"[{"every": "1h", "exclude": ["holidays"]}, {"cron": "0 8 * * *"}]"#, friday, ""),
        (r#"[{"every": "1h", "exclude": ["holidays"]}, {"cron": "0 9 * * *"}]"#, friday, "holidays"),
        (r#"[{"every": "1h", "exclude": ["holidays"]}, {"cron": "0 8 * * *", "only": ["lost"]}]"#, friday, "holidays"),
    ] {
        let (schedule, clock) = schedule(rules);
        let calendars = ScheduleCalendars::of(&schedule).expect("calendars");
        let exclusion = calendars.exclusion(&set, &clock, None, at(instant)).map(|it| it.to_string());
        let exclusion = exclusion.unwrap_or_default();
        assert!(exclusion.contains(said) && exclusion.is_empty() == said.is_empty(), "{rules} {instant}: {exclusion}");
    }
    assert_eq!(ScheduleCalendars::of(&schedule(r#"{"every": "1h"}"#).0), None);
}

#[test]
fn the_end_of_a_run_is_judged_by_its_own_rule() {
    let set = set(&[("holidays", r#"{"yearly": ["12-25"]}"#)]);
    let (rules, clock) = schedule(r#"[{"every": "1h"}, {"afterFinish": "10m", "exclude": ["holidays"]}]"#);
    let calendars = ScheduleCalendars::of(&rules).expect("calendars");
    let half = at("2026-12-25T08:30:00Z");
    assert!(calendars.exclusion(&set, &clock, Some(half), half).is_some());
    assert!(calendars.exclusion(&set, &clock, Some(half), at("2026-12-25T08:00:00Z")).is_none());
    let full = at("2026-12-25T08:00:00Z");
    assert!(calendars.exclusion(&set, &clock, Some(full), full).is_none(), "the other rule names it too");
}

#[test]
fn the_next_fire_time_is_found_behind_days_that_are_left_out() {
    let set = set(&[
        ("weekend", r#"{"weekdays": ["SAT", "SUN"]}"#),
        ("decade", r#"{"ranges": [{"from": "2026-01-01", "to": "2035-06-30"}]}"#),
        ("always", r#"{"weekdays": ["MON-SUN"]}"#),
        ("tokyo", r#"{"weekdays": ["SAT", "SUN"], "timeZone": "Asia/Tokyo"}"#),
    ]);
    let saturday = "2026-11-21T03:00:00Z";
    for (rules, next) in [
        (r#"{"every": "1s", "exclude": ["weekend"]}"#, "2026-11-23T00:00:00Z"),
        (r#"{"every": "1s", "exclude": ["tokyo"]}"#, "2026-11-22T15:00:00Z"),
        (r#"{"every": "7m", "exclude": ["decade"]}"#, "2035-07-01T00:06:00Z"),
        (r#"{"cron": "30 1 * * *", "timeZone": "Europe/Berlin", "only": ["weekend"]}"#, "2026-11-22T00:30:00Z"),
        (r#"[{"every": "1s", "exclude": ["weekend"]}, {"cron": "15 9 * * *"}]"#, "2026-11-21T09:15:00Z"),
        (r#"{"every": "1s", "exclude": ["always"]}"#, "never"),
        (r#"{"every": "1s", "only": ["nobody"]}"#, "never"),
    ] {
        let (schedule, clock) = schedule(rules);
        let calendars = ScheduleCalendars::of(&schedule).expect("calendars");
        let found = calendars.next_after(&set, &clock, at(saturday));
        assert_eq!(found.map_or_else(|| "never".to_owned(), |it| it.to_string()), next, "{rules}");
    }
}

#[test]
fn a_schedule_says_which_calendars_it_asks() {
    for (rule, wanted) in [
        (r#"{"every": "1h"}"#, ""),
        (r#"{"every": "1h", "exclude": ["a"]}"#, ", except on days of calendar a"),
        (
            r#"{"every": "1h", "exclude": ["a", "b"], "only": ["c"]}"#,
            ", only on days of calendar c, except on days of calendars a and b",
        ),
    ] {
        assert_eq!(RuleCalendars::sentence(&schedule(rule).0[0]), wanted);
    }
}
