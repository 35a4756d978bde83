//! Hints about expressions that do what they say, but maybe not what was meant.
//!
//! Not here: what is wrong and refused (`error.rs`). Invariant: a hint is true of the expression, names the fix if
//! there is one, and its code never changes its meaning.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::super::cron::Fields;
use super::super::dst::{ClockChange, Walk};
use super::super::fields::{FieldSpec, HOUR, MINUTE, MONTH, SECOND, Token, WEEKDAY_UNIX};
use super::super::shifts::{Shift, date_text, shifts, time_text};
use super::super::{CronRule, Fold, Gap};
use super::dates::{self, Days};
use super::words::{counted, progression};
use super::{SpreadBy, Written};

/// Clock changes are looked for so far ahead: every yearly one is among them.
const AHEAD: SignedDuration = SignedDuration::from_hours(366 * 24);

/// One hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lint {
    /// For programs.
    pub code: &'static str,
    /// For people: continues "the expression ..." or stands alone.
    pub message: String,
}

pub(super) fn lints(
    fields: &Fields<'_>,
    has_seconds_field: bool,
    rule: &CronRule,
    written: &Written<'_>,
    now: Timestamp,
) -> Vec<Lint> {
    let mut lints = Vec::new();
    let mut add = |code, message: Option<String>| lints.extend(message.map(|message| Lint { code, message }));
    add("eitherDay", either_day(fields));
    add("leapDay", leap_day(fields));
    add("skipsMonths", skips_months(fields));
    add("herd", herd(fields, has_seconds_field));
    for (spec, index, values, place) in [
        (&SECOND, 0, &fields.second, "top of the minute"),
        (&MINUTE, 1, &fields.minute, "top of the hour"),
        (&HOUR, 2, &fields.hour, "turn of the day"),
        (&MONTH, 4, &fields.month, "turn of the year"),
    ] {
        add("unevenStep", uneven_step(spec, fields.tokens[index], values, place));
    }
    add("unevenStep", uneven_days(fields.tokens[3]));
    // Both dialects start on Sunday; a step within the week is the same in either's numbers.
    let weekdays: Vec<u16> = (0..7).filter(|day| fields.weekdays.days.plain & (1 << day) != 0).collect();
    add("unevenStep", uneven_step(&WEEKDAY_UNIX, fields.tokens[5], &weekdays, "turn of the week"));
    add("everySecond", every_second(fields));
    let walk = rule.walk();
    if !(walk.clock_change == ClockChange::Follow && fields.hour.len() == 24) {
        let ahead = shifts(walk.zone, now, now.saturating_add(AHEAD).unwrap_or(Timestamp::MAX));
        let first = |is_gap| ahead.iter().find(|it| it.is_gap() == is_gap && it.has_match(walk.matcher));
        add("clockGap", first(true).map(|shift| clock_gap(&walk, shift, rule.zone_name())));
        add("clockFold", first(false).map(|shift| clock_fold(&walk, shift, rule.zone_name())));
    }
    if written.spread_by == SpreadBy::Expression && fields.tokens.iter().any(|token| is_spread(*token)) {
        let message = "`H` is a hash of the job's name, so a job fires at other times than these; \
                       `orloj next NAMESPACE/NAME` shows them";
        add("spreadUnknown", Some(message.to_owned()));
    }
    lints
}

fn is_spread(token: Token<'_>) -> bool {
    token.items().any(|item| item.text.starts_with('H'))
}

fn either_day(fields: &Fields<'_>) -> Option<String> {
    if !fields.is_either_day() {
        return None;
    }
    let Days::Either(month_days, weekdays) = Days::of(fields) else {
        return Some(
            "fires every day: a date need only fit one of day of month and weekday, and one allows all".into(),
        );
    };
    let every = if weekdays.is_plain() && weekdays.plain.count_ones() == 1 { "every " } else { "" };
    Some(format!(
        "fires on {} of the month AND on {every}{}; `dialect: quartz` asks for both at once, and counts Sunday as 1",
        dates::month_days(&month_days),
        dates::weekdays(&weekdays, "and")
    ))
}

fn leap_day(fields: &Fields<'_>) -> Option<String> {
    let (Days::OfMonth(days) | Days::Both(days, _)) = Days::of(fields) else { return None };
    if fields.month != [2] || !days.is_plain() {
        return None;
    }
    let has = |day: u32| days.plain & (1 << day) != 0;
    // Days 30 and 31 never come in February.
    if days.plain & !(0b11 << 30) == 1 << 29 {
        return Some("fires only in leap years: no other year has a 29 February".to_owned());
    }
    (has(28) && !has(29))
        .then(|| "never fires on 29 February, the last day in leap years; use L for the last day".to_owned())
}

fn skips_months(fields: &Fields<'_>) -> Option<String> {
    let (Days::OfMonth(_) | Days::OfWeek(_) | Days::Both(..)) = Days::of(fields) else { return None };
    if let Some(weekday) = fields.weekdays.days.nth[4].checked_ilog2() {
        let name = dates::WEEKDAYS[weekday as usize];
        let token = name[..3].to_ascii_uppercase();
        return Some(format!("has no 5th {name} to fire on in most months; use {token}L for the last {name}"));
    }
    let [_, _, _, token, ..] = fields.tokens;
    // Ranges and steps that reach the end of the month are meant to end with it.
    let named = token.items().filter_map(|item| item.text.trim_end_matches('W').parse::<u16>().ok()).max();
    let back = token.items().filter_map(|item| item.text.strip_prefix("L-")?.trim_end_matches('W').parse().ok()).max();
    let day = named.max(back.map(|back: u16| back + 1)).filter(|day| *day >= 29)?;
    let is_short = |month: &&u16| match month {
        2 => true,
        4 | 6 | 9 | 11 => day == 31,
        _ => false,
    };
    let short = fields.month.iter().filter(is_short).count();
    if short == 0 || short == fields.month.len() {
        return None;
    }
    if named != Some(day) {
        return Some(format!("names no day in months of fewer than {day} days"));
    }
    let months = match day {
        29 => "February outside leap years, which has no 29th".to_owned(),
        30 => "February, which has no 30th".to_owned(),
        _ => "months without a 31st".to_owned(),
    };
    let verb = if token.items().count() == 1 { "skips" } else { "fires less often in" };
    Some(format!("{verb} {months}; use L for the last day"))
}

/// A full hour or midnight, where everybody's jobs meet, in whatever zone: most zones share their full hours.
fn herd(fields: &Fields<'_>, has_seconds_field: bool) -> Option<String> {
    if fields.second != [0] || fields.minute != [0] || is_spread(fields.tokens[1]) {
        return None;
    }
    let is_midnight = fields.hour == [0] && !is_spread(fields.tokens[2]);
    let written_from = usize::from(!has_seconds_field);
    // The year is only there if it was written.
    let written_to = if fields.year.len() == dates::YEARS { 6 } else { 7 };
    let words: Vec<&str> = (written_from..written_to)
        .map(|index| match index {
            1 => "H",
            2 if is_midnight => "H",
            _ => fields.tokens[index].text,
        })
        .collect();
    let time = if is_midnight { "midnight" } else { "the full hour" };
    Some(format!("starts at {time} like many other jobs; `H` spreads jobs: `{}`", words.join(" ")))
}

fn uneven_step(spec: &FieldSpec, token: Token<'_>, values: &[u16], place: &str) -> Option<String> {
    open_step(token)?;
    let even = progression(values, 2)?;
    let gap = spec.max - spec.min + 1 - (even.last - even.first);
    let compared = match gap.cmp(&even.step) {
        std::cmp::Ordering::Less => "shorter",
        std::cmp::Ordering::Equal => return None,
        std::cmp::Ordering::Greater => "longer",
    };
    let gap = counted(gap.into(), spec.name);
    Some(format!("`{}` in {}s: the gap at the {place} is {compared} ({gap})", token.text, spec.name))
}

/// Months differ in length, so no step of days runs on evenly into the next month.
fn uneven_days(token: Token<'_>) -> Option<String> {
    open_step(token)
        .map(|_| format!("`{}` in days: it starts anew each month, so the gap at its turn is another", token.text))
}

/// The step of a field that is a single step to the end of the cycle, unless it is 1.
fn open_step(token: Token<'_>) -> Option<u16> {
    let (body, step) = token.split('/')?;
    let is_open = !body.text.contains(['-', ',']) && !step.text.contains(',');
    step.text.parse().ok().filter(|step| is_open && *step > 1)
}

fn every_second(fields: &Fields<'_>) -> Option<String> {
    (fields.second.len() == 60).then(|| {
        "fires 60 times in each minute that it names: the first of six or seven fields is the second; write `0` there for once"
            .to_owned()
    })
}

fn clock_gap(walk: &Walk<'_>, shift: &Shift, zone: &str) -> String {
    let to = time_text(shift.to());
    let what = match walk.clock_change {
        ClockChange::Fixed { gap: Gap::Shift, .. } => format!("fires at {to} instead, once; `gap: skip` leaves it out"),
        ClockChange::Fixed { gap: Gap::Skip, .. } => format!("does not fire; `gap: shift` moves it to {to}"),
        ClockChange::Follow => "does not fire, as a `*` in minute or hour follows the clock".to_owned(),
    };
    let (times, is_one) = times(walk, shift);
    let verb = if is_one { "does" } else { "do" };
    format!("{times} {verb} not exist in {zone} (clocks go forward from {} to {to}): {what}", time_text(shift.from()))
}

fn clock_fold(walk: &Walk<'_>, shift: &Shift, zone: &str) -> String {
    let what = match walk.clock_change {
        ClockChange::Fixed { fold: Fold::First, .. } => "fires the first time; `fold: last` or `both` changes that",
        ClockChange::Fixed { fold: Fold::Last, .. } => "fires the second time; `fold: first` or `both` changes that",
        ClockChange::Fixed { fold: Fold::Both, .. } => "fires both times; `fold: first` makes it once",
        ClockChange::Follow => "fires both times, as a `*` in minute or hour follows the clock",
    };
    let (from, to) = (time_text(shift.from()), time_text(shift.to()));
    let (times, is_one) = times(walk, shift);
    let verb = if is_one { "comes" } else { "come" };
    format!("{times} {verb} twice in {zone} (clocks go back from {from} to {to}): {what}")
}

/// "02:30 on 2026-03-29", and if it is one time.
fn times(walk: &Walk<'_>, shift: &Shift) -> (String, bool) {
    let times = shift.times(walk.matcher);
    let date = date_text(times.as_ref().map_or(shift.from(), |times| times.first));
    (format!("{} on {date}", times.as_ref().map_or("", |times| &times.text)), times.is_none_or(|times| times.is_one))
}
