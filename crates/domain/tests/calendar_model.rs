//! Calendars against a model that looks at every day by itself and follows every include by recursion: days, and
//! next fire times. Not here: how calendars are written (`calendar/tests.rs`).

use std::collections::BTreeSet;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use orloj_domain::calendar::{self, CalendarSet, ScheduleCalendars};
use orloj_domain::job::{EveryRule, ScheduleRule};
use orloj_domain::schedule;
use proptest::prelude::*;
use serde_json::json;

const CALENDARS: usize = 4;
const DAYS: i64 = 60;

/// A calendar as the model has it: each list as numbers.
#[derive(Debug, Clone)]
struct Model {
    dates: Vec<i64>,
    ranges: Vec<(i64, i64)>,
    weekdays: Vec<i8>,
    yearly: Vec<(i8, i8)>,
    include: Vec<usize>,
}

fn day(number: i64) -> Date {
    let first: Date = "2026-12-01".parse().expect("a date");
    first.checked_add(Span::new().days(number)).expect("a date")
}

fn models() -> impl Strategy<Value = Vec<Model>> {
    let model = (
        prop::collection::vec(0..DAYS, 0..6),
        prop::collection::vec((0..DAYS, 0..9_i64), 0..4),
        prop::collection::vec(0..7_i8, 0..2),
        prop::collection::vec((1..=12_i8, 1..=28_i8), 0..4),
        prop::collection::vec(0..CALENDARS, 0..2),
    );
    let model = model.prop_map(|(dates, ranges, weekdays, yearly, include)| Model {
        dates,
        ranges: ranges.into_iter().map(|(first, length)| (first, first + length)).collect(),
        weekdays,
        yearly,
        include,
    });
    prop::collection::vec(model, CALENDARS)
}

fn holds(models: &[Model], index: usize, date: Date, seen: &mut BTreeSet<usize>) -> bool {
    if !seen.insert(index) {
        return false;
    }
    let model = &models[index];
    model.dates.iter().any(|number| day(*number) == date)
        || model.ranges.iter().any(|(first, last)| (*first..=*last).any(|number| day(number) == date))
        || model.weekdays.contains(&date.weekday().to_monday_zero_offset())
        || model.yearly.contains(&(date.month(), date.day()))
        || model.include.iter().any(|included| holds(models, *included, date, seen))
}

fn set(models: &[Model]) -> CalendarSet {
    const NAMES: [&str; 7] = ["mon", "tuesday", "WED", "Thu", "fri", "SAT", "sunday"];
    let mut set = CalendarSet::default();
    for (index, model) in models.iter().enumerate() {
        let manifest = json!({
            "apiVersion": "orloj/v1", "kind": "Calendar", "metadata": {"name": format!("c{index}")},
            "spec": {
                "dates": model.dates.iter().map(|number| day(*number).to_string()).collect::<Vec<_>>(),
                "ranges": model.ranges.iter().map(|(first, last)| {
                    json!({"from": day(*first).to_string(), "to": day(*last).to_string()})
                }).collect::<Vec<_>>(),
                "weekdays": model.weekdays.iter().map(|day| NAMES[usize::try_from(*day).expect("small")]).collect::<Vec<_>>(),
                "yearly": model.yearly.iter().map(|(month, day)| format!("{month:02}-{day:02}")).collect::<Vec<_>>(),
                "include": model.include.iter().map(|index| format!("c{index}")).collect::<Vec<_>>(),
            },
        });
        set.put(calendar::parse_json(&manifest.to_string()).expect("a good calendar").1, 0);
    }
    set
}

proptest! {
    #[test]
    fn every_day_is_judged_as_the_model_does(models in models()) {
        let set = set(&models);
        for number in -5..DAYS + 15 {
            let noon = day(number).at(12, 0, 0, 0).to_zoned(TimeZone::UTC).expect("an instant").timestamp();
            for index in 0..CALENDARS {
                let name = format!("c{index}").parse().expect("a name");
                let found = set.covers(&name, noon.into(), &TimeZone::UTC).expect("all are there");
                prop_assert_eq!(found, holds(&models, index, day(number), &mut BTreeSet::new()), "{} c{}", day(number), index);
            }
        }
    }

    #[test]
    fn the_next_fire_time_is_the_first_that_the_model_lets_through(
        models in models(),
        hours in 1..40_i64,
        after in 0..DAYS,
        exclude in 0..CALENDARS,
        only in prop::option::of(0..CALENDARS),
    ) {
        let set = set(&models);
        let name = |index: usize| format!("c{index}").parse().expect("a name");
        let rule = ScheduleRule::EveryRule(EveryRule {
            period_ms: hours * 3_600_000,
            anchor: orloj_domain::time::Timestamp::default(),
            exclude: vec![name(exclude)],
            only: only.map(name).into_iter().collect(),
        });
        let every = schedule::EveryRule::new(std::time::Duration::from_secs(hours.unsigned_abs() * 3600), Timestamp::UNIX_EPOCH);
        let rules = [schedule::Rule::Every(every.expect("a rule"))];
        let after = day(after).at(7, 0, 0, 0).to_zoned(TimeZone::UTC).expect("an instant").timestamp();
        let calendars = ScheduleCalendars::of(&[rule]).expect("calendars");
        let found = calendars.next_after(&set, &rules, after.into());
        let end = after + Span::new().hours(24 * 400);
        let is_let_through = |at: &Timestamp| {
            let date = at.to_zoned(TimeZone::UTC).date();
            let held = |index: usize| holds(&models, index, date, &mut BTreeSet::new());
            !held(exclude) && only.is_none_or(held)
        };
        let mut times = std::iter::successors(rules[0].next_after(after), |at| rules[0].next_after(*at));
        let wanted = times.by_ref().take_while(|at| *at < end).find(is_let_through);
        prop_assert_eq!(found.filter(|at| at.to_jiff() < end), wanted.map(Into::into));
        if let Some(at) = found {
            prop_assert!(calendars.exclusion(&set, &rules, None, at).is_none());
        }
    }
}
