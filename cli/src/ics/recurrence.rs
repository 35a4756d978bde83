//! Repetition by `RRULE`, as far as calendars of days need it: days, weeks, months and years, with or without an end.
//! Not here: single dates (`RDATE`, `EXDATE`). Invariant: a part that is not understood is refused by name, for a
//! day that is missing is worse than a file that is not taken.

use jiff::civil::{Date, Weekday};
use jiff::{Span, ToSpan as _};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frequency {
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// A rule and the day it begins with.
#[derive(Debug)]
pub(super) struct Recurrence {
    start: Date,
    frequency: Frequency,
    interval: i32,
    count: Option<usize>,
    until: Option<Date>,
    months: Vec<i8>,
    /// Negative ones count from the end of the month.
    month_days: Vec<i8>,
    /// 0 for every such day; negative ones count from the end of the month.
    weekdays: Vec<(i8, Weekday)>,
}

impl Recurrence {
    /// Reads a rule.
    ///
    /// # Errors
    /// The part that can't be taken, and why.
    pub(super) fn read(text: &str, start: Date) -> Result<Self, String> {
        let mut rule = Self {
            start,
            frequency: Frequency::Yearly,
            interval: 1,
            count: None,
            until: None,
            months: Vec::new(),
            month_days: Vec::new(),
            weekdays: Vec::new(),
        };
        let (mut has_frequency, mut week_begin) = (false, None);
        for part in text.split(';').filter(|part| !part.trim().is_empty()) {
            let wrong = || format!("RRULE part `{part}` can't be taken; write the days as events of their own");
            let (name, value) = part.split_once('=').ok_or_else(wrong)?;
            match name.trim().to_ascii_uppercase().as_str() {
                "FREQ" => {
                    rule.frequency = frequency(value).ok_or_else(wrong)?;
                    has_frequency = true;
                }
                "INTERVAL" => {
                    rule.interval = value.parse().ok().filter(|it| (1..=1000).contains(it)).ok_or_else(wrong)?
                }
                "COUNT" => rule.count = Some(value.parse().ok().filter(|it| *it > 0).ok_or_else(wrong)?),
                "UNTIL" => rule.until = Some(super::instant_of(value).ok_or_else(wrong)?.0.date()),
                "BYMONTH" => rule.months = numbers(value, 1, 12).ok_or_else(wrong)?,
                "BYMONTHDAY" => rule.month_days = numbers(value, -31, 31).ok_or_else(wrong)?,
                "BYDAY" => rule.weekdays = value.split(',').map(weekday).collect::<Option<_>>().ok_or_else(wrong)?,
                "WKST" => week_begin = Some(weekday(value).filter(|(number, _)| *number == 0).ok_or_else(wrong)?.1),
                _ => return Err(wrong()),
            }
        }
        if !has_frequency {
            return Err("RRULE has no FREQ".to_owned());
        }
        // Where weeks begin matters only if some of them are left out.
        let begins_otherwise = week_begin.is_some_and(|day| day != Weekday::Monday);
        if begins_otherwise && rule.frequency == Frequency::Weekly && rule.interval > 1 {
            return Err(
                "RRULE part `WKST` can only be MO beside INTERVAL; write the days as events of their own".to_owned()
            );
        }
        rule.check()?;
        Ok(rule)
    }

    fn check(&self) -> Result<(), String> {
        let is_numbered = self.weekdays.iter().any(|(number, _)| *number != 0);
        let is_of_month = self.frequency == Frequency::Monthly
            || (self.frequency == Frequency::Yearly && (!self.months.is_empty() || self.weekdays.is_empty()));
        if !is_of_month && (is_numbered || self.frequency == Frequency::Yearly) {
            return Err(
                "RRULE part `BYDAY` can't be taken without BYMONTH; write the days as events of their own".to_owned()
            );
        }
        if self.frequency == Frequency::Weekly && !self.month_days.is_empty() {
            return Err("RRULE part `BYMONTHDAY` means nothing beside FREQ=WEEKLY".to_owned());
        }
        Ok(())
    }

    /// True if it has no end.
    pub(super) fn is_endless(&self) -> bool {
        self.count.is_none() && self.until.is_none()
    }

    /// Month and day, if it is simply a day of every year from its start on.
    pub(super) fn yearly(&self) -> Option<(i8, i8)> {
        let (month, day) = (self.start.month(), self.start.day());
        let is_plain = self.frequency == Frequency::Yearly && self.interval == 1 && self.weekdays.is_empty();
        let is_its_own = (self.months.is_empty() || self.months == [month])
            && (self.month_days.is_empty() || (self.month_days == [day] && !self.months.is_empty()));
        (self.is_endless() && is_plain && is_its_own).then_some((month, day))
    }

    /// The days it names, its start first, up to `horizon` inclusive.
    pub(super) fn dates(&self, horizon: Date) -> impl Iterator<Item = Date> {
        let last = match (self.until, self.count) {
            (Some(until), _) => until,
            (None, Some(_)) => Date::MAX,
            (None, None) => horizon,
        };
        let days = self.start.series(Span::new().days(1)).take_while(move |date| *date <= last);
        // The day it begins with counts whether the rule names it or not (RFC 5545, 3.8.5.3).
        days.filter(|date| *date == self.start || self.names(*date)).take(self.count.unwrap_or(usize::MAX))
    }

    fn names(&self, date: Date) -> bool {
        let is_of_month = self.months.is_empty() || self.months.contains(&date.month());
        let is_due = |passed: i32| passed.rem_euclid(self.interval) == 0;
        let months = |date: Date| i32::from(date.year()) * 12 + i32::from(date.month());
        let is_own_month = !self.months.is_empty() || date.month() == self.start.month();
        let has_day = !self.month_days.is_empty() || !self.weekdays.is_empty();
        is_of_month
            && match self.frequency {
                Frequency::Daily => is_due(days_between(self.start, date)) && self.is_day(date),
                Frequency::Weekly if self.weekdays.is_empty() => {
                    is_due(days_between(monday(self.start), date) / 7) && date.weekday() == self.start.weekday()
                }
                Frequency::Weekly => is_due(days_between(monday(self.start), date) / 7) && self.is_day(date),
                Frequency::Monthly if has_day => is_due(months(date) - months(self.start)) && self.is_day(date),
                Frequency::Monthly => is_due(months(date) - months(self.start)) && date.day() == self.start.day(),
                Frequency::Yearly if has_day => {
                    is_due(i32::from(date.year()) - i32::from(self.start.year())) && self.is_day(date)
                }
                Frequency::Yearly => {
                    is_due(i32::from(date.year()) - i32::from(self.start.year()))
                        && is_own_month
                        && date.day() == self.start.day()
                }
            }
    }

    /// True unless the days of the month or of the week that are named are others.
    fn is_day(&self, date: Date) -> bool {
        let from_end = date.day() - date.days_in_month() - 1;
        let is_month_day = |day: &i8| *day == date.day() || *day == from_end;
        let is_weekday = |(number, weekday): &(i8, Weekday)| {
            let is_numbered = *number == 0 || *number == (date.day() - 1) / 7 + 1 || *number == (from_end + 1) / 7 - 1;
            *weekday == date.weekday() && is_numbered
        };
        (self.month_days.is_empty() || self.month_days.iter().any(is_month_day))
            && (self.weekdays.is_empty() || self.weekdays.iter().any(is_weekday))
    }
}

fn frequency(text: &str) -> Option<Frequency> {
    match text.trim().to_ascii_uppercase().as_str() {
        "DAILY" => Some(Frequency::Daily),
        "WEEKLY" => Some(Frequency::Weekly),
        "MONTHLY" => Some(Frequency::Monthly),
        "YEARLY" => Some(Frequency::Yearly),
        _ => None,
    }
}

/// A list of numbers between the two, none of them 0.
fn numbers(text: &str, min: i8, max: i8) -> Option<Vec<i8>> {
    let number = |text: &str| text.trim().parse().ok().filter(|it| (min..=max).contains(it) && *it != 0);
    text.split(',').map(number).collect()
}

/// `MO`, `1MO` or `-1MO`.
fn weekday(text: &str) -> Option<(i8, Weekday)> {
    const NAMES: [&str; 7] = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"];
    let text = text.trim().to_ascii_uppercase();
    let (number, name) = text.split_at_checked(text.len().checked_sub(2)?)?;
    let index = NAMES.iter().position(|known| *known == name)?;
    let weekday = Weekday::from_monday_zero_offset(i8::try_from(index).ok()?).ok()?;
    let number =
        if number.is_empty() { 0 } else { number.parse().ok().filter(|it: &i8| (1..=5).contains(&it.abs()))? };
    Some((number, weekday))
}

fn days_between(first: Date, last: Date) -> i32 {
    first.until(last).map(|span| span.get_days()).unwrap_or(0)
}

fn monday(date: Date) -> Date {
    date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).unwrap_or(date)
}
