//! The days in words: "on Monday through Friday", "on the 13th of the month or on Friday", "in March", years.
//!
//! Not here: times of day. Invariant: what the words leave out is not restricted; "or" joins what crontab joins by
//! OR, and "and only" what must hold together.

use super::super::cron::Fields;
use super::super::days::{MonthDays, Weekdays};
use super::words::{self, ordinal, progression};

pub(super) const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The shortest list that is told as a step.
const STEPS_MIN: usize = 5;
pub(super) const YEARS: usize = 131;

/// What the two day fields and their join come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Days {
    Any,
    OfMonth(MonthDays),
    OfWeek(Weekdays),
    Either(MonthDays, Weekdays),
    Both(MonthDays, Weekdays),
}

impl Days {
    pub(super) fn of(fields: &Fields<'_>) -> Days {
        let (month_days, weekdays) = (fields.month_days.days, fields.weekdays.days);
        let is_any_date = month_days.plain == MonthDays::ANY.plain;
        let is_any_weekday = weekdays.plain == Weekdays::ANY.plain;
        match (is_any_date, is_any_weekday) {
            (true, true) => Days::Any,
            // A list of all days lets every day through on its own, whatever the other field says.
            (true, false) | (false, true) if fields.is_either_day() => Days::Any,
            (true, false) => Days::OfWeek(weekdays),
            (false, true) => Days::OfMonth(month_days),
            (false, false) if fields.is_either_day() => Days::Either(month_days, weekdays),
            (false, false) => Days::Both(month_days, weekdays),
        }
    }
}

/// Neither day, month nor year is restricted.
pub(super) fn is_daily(fields: &Fields<'_>) -> bool {
    Days::of(fields) == Days::Any && fields.month.len() == MONTHS.len() && fields.year.len() == YEARS
}

/// The days, months and years, each after a blank or a comma; empty if none is restricted.
pub(super) fn dates(fields: &Fields<'_>) -> String {
    let has_all_years = fields.year.len() == YEARS;
    let months = (fields.month.len() < MONTHS.len()).then(|| months(&fields.month, has_all_years));
    let in_months = |before: &str| months.as_ref().map_or_else(String::new, |months| format!("{before} in {months}"));
    let mut text = match Days::of(fields) {
        Days::Any => in_months(""),
        Days::OfMonth(days) => {
            format!(" on {} of {}", month_days(&days), months.as_deref().unwrap_or("the month"))
        }
        Days::OfWeek(days) => format!(" on {}{}", weekdays(&days, "and"), in_months("")),
        Days::Either(dates, days) => {
            format!(" on {} of the month or on {}{}", month_days(&dates), weekdays(&days, "or"), in_months(","))
        }
        Days::Both(dates, days) => {
            format!(" on {} of the month and only on {}{}", month_days(&dates), weekdays(&days, "or"), in_months(","))
        }
    };
    if !has_all_years {
        text.push_str(&years(&fields.year));
    }
    text
}

/// "the 1st, the 10th through the 12th and the last day"; the month comes after it.
pub(super) fn month_days(days: &MonthDays) -> String {
    let plain = bits(days.plain);
    let mut items = Vec::new();
    if let Some(even) = progression(&plain, STEPS_MIN).filter(|even| even.step > 1) {
        let step = ordinal(even.step.into());
        items.push(format!("every {step} day from {} to {}", the(even.first), the(even.last)));
    } else {
        items = words::items(&words::runs(&plain), |day| day + 1, the);
    }
    for day in bits(days.nearest) {
        items.push(format!("the weekday nearest to {}", the(day)));
    }
    for back in bits(days.nearest_from_last) {
        items.push(match back {
            0 => "the last weekday".to_owned(),
            _ => format!("the weekday nearest to {}", from_last(back)),
        });
    }
    items.extend(bits(days.from_last).into_iter().map(from_last));
    words::join(&items, "and")
}

fn from_last(back: u16) -> String {
    match back {
        0 => "the last day".to_owned(),
        1 => "the day before the last day".to_owned(),
        _ => format!("the {} day before the last day", ordinal(back.into())),
    }
}

fn the(day: u16) -> String {
    format!("the {}", ordinal(day.into()))
}

/// "Monday through Friday", "Monday and the 2nd Tuesday of the month".
pub(super) fn weekdays(days: &Weekdays, word: &str) -> String {
    // Told from Monday on, over the end of the week if need be.
    let mut plain: Vec<u16> = bits(days.plain.into()).into_iter().map(|day| (day + 6) % 7).collect();
    plain.sort_unstable();
    let name = |day: u16| WEEKDAYS[usize::from((day + 1) % 7)].to_owned();
    let mut items = words::items(&words::cyclic_runs(&plain, 0, 6), |day| (day + 1) % 7, name);
    for (week, set) in (1u32..).zip(days.nth) {
        items.extend(
            bits(set.into())
                .into_iter()
                .map(|day| format!("the {} {} of the month", ordinal(week), WEEKDAYS[usize::from(day)])),
        );
    }
    items.extend(
        bits(days.last.into()).into_iter().map(|day| format!("the last {} of the month", WEEKDAYS[usize::from(day)])),
    );
    words::join(&items, word)
}

/// The year's end is told over only if there is a next year.
fn months(values: &[u16], has_all_years: bool) -> String {
    let runs = if has_all_years { words::cyclic_runs(values, 1, 12) } else { words::runs(values) };
    words::list(&runs, "and", |month| month % 12 + 1, |month| MONTHS[usize::from(month - 1)].to_owned())
}

fn years(values: &[u16]) -> String {
    if let Some(even) = progression(values, STEPS_MIN).filter(|even| even.step > 1) {
        return format!(", every {} year from {} to {}", ordinal(even.step.into()), even.first, even.last);
    }
    let plural = if values.len() == 1 { "" } else { "s" };
    format!(", in the year{plural} {}", words::plain_list(values))
}

fn bits(set: u32) -> Vec<u16> {
    (0..32).filter(|bit| set & (1 << bit) != 0).collect()
}
