//! Which civil dates an expression means: plain days and weekdays, and `L`, `L-3`, `LW`, `15W`, `5L`, `MON#2`.
//!
//! Not here: the syntax (`fields.rs`) and times of day (`civil.rs`). Every special day is two things: a set of
//! days of the month it can possibly fall on, which the `cron` crate searches, and an exact test of the date.
//! Invariant: the set never misses a date that the test accepts.

/// Bits 1 to 31.
const ALL_DAYS: u32 = 0xFFFF_FFFE;
/// Bits 0 (Sunday) to 6 (Saturday).
const ALL_WEEKDAYS: u8 = 0x7F;

/// The day-of-month field. All members are bit sets and add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct MonthDays {
    /// Bit d: day d.
    pub(super) plain: u32,
    /// Bit n: n days before the month's last day.
    pub(super) from_last: u32,
    /// Bit d: the weekday (Monday to Friday) of the same month that is nearest to day d.
    pub(super) nearest: u32,
    /// Bit n: the same, nearest to n days before the last day.
    pub(super) nearest_from_last: u32,
}

/// The weekday field, Sunday = 0. All members are bit sets and add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Weekdays {
    /// Bit w: every weekday w.
    pub(super) plain: u8,
    /// Element n, bit w: the (n+1)-th weekday w of the month.
    pub(super) nth: [u8; 5],
    /// Bit w: the last weekday w of the month.
    pub(super) last: u8,
}

/// A civil date, with the two facts that the tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CivilDate {
    /// 1 to 31.
    pub(super) day: u32,
    /// 28 to 31.
    pub(super) days_in_month: u32,
    /// 0 (Sunday) to 6.
    pub(super) weekday: u32,
}

impl MonthDays {
    pub(super) const ANY: MonthDays = MonthDays { plain: ALL_DAYS, from_last: 0, nearest: 0, nearest_from_last: 0 };

    pub(super) fn is_plain(&self) -> bool {
        self.from_last | self.nearest | self.nearest_from_last == 0
    }

    /// The days of the month that can match, as bits 1 to 31.
    pub(super) fn reach(&self) -> u32 {
        let mut reach = self.plain;
        for back in bits(self.from_last) {
            reach |= span(28_u32.saturating_sub(back), 31 - back);
        }
        // The nearest weekday is at most two days off, and never leaves the month.
        for day in bits(self.nearest) {
            reach |= span(day.saturating_sub(2), day + 2);
        }
        for back in bits(self.nearest_from_last) {
            reach |= span(28_u32.saturating_sub(back + 2), 33 - back);
        }
        reach & ALL_DAYS
    }

    pub(super) fn matches(&self, date: CivilDate) -> bool {
        if has(self.plain, date.day) || has(self.from_last, date.days_in_month - date.day) {
            return true;
        }
        if self.nearest | self.nearest_from_last == 0 {
            return false;
        }
        nominal_days(date)
            .into_iter()
            .flatten()
            .any(|nominal| has(self.nearest, nominal) || has(self.nearest_from_last, date.days_in_month - nominal))
    }
}

/// The days of the month whose nearest weekday is `date`: itself, the Saturday after a Friday, the Sunday before a
/// Monday, and at a month's edge the day that would otherwise have crossed it.
fn nominal_days(date: CivilDate) -> [Option<u32>; 3] {
    const MONDAY: u32 = 1;
    const FRIDAY: u32 = 5;
    if !(MONDAY..=FRIDAY).contains(&date.weekday) {
        return [None; 3];
    }
    let mut nominal = [Some(date.day), None, None];
    if date.weekday == FRIDAY && date.day < date.days_in_month {
        nominal[1] = Some(date.day + 1);
        if date.day + 2 == date.days_in_month {
            nominal[2] = Some(date.day + 2);
        }
    }
    if date.weekday == MONDAY && date.day > 1 {
        nominal[1] = Some(date.day - 1);
        if date.day == 3 {
            nominal[2] = Some(1);
        }
    }
    nominal
}

impl Weekdays {
    pub(super) const ANY: Weekdays = Weekdays { plain: ALL_WEEKDAYS, nth: [0; 5], last: 0 };

    pub(super) fn is_plain(&self) -> bool {
        self.last == 0 && self.nth == [0; 5]
    }

    /// The weekdays that can match, as bits 0 to 6.
    pub(super) fn reach(&self) -> u8 {
        self.nth.iter().fold(self.plain | self.last, |reach, nth| reach | nth)
    }

    /// The days of the month that can match, as bits 1 to 31.
    pub(super) fn reach_in_month(&self) -> u32 {
        if self.plain != 0 {
            return ALL_DAYS;
        }
        let mut reach = if self.last == 0 { 0 } else { span(22, 31) };
        for (week, weekdays) in (0u32..).zip(self.nth) {
            if weekdays != 0 {
                reach |= span(week * 7 + 1, week * 7 + 7);
            }
        }
        reach & ALL_DAYS
    }

    pub(super) fn matches(&self, date: CivilDate) -> bool {
        let weekday = 1u8 << date.weekday;
        let week = self.nth.get((date.day as usize - 1) / 7).copied().unwrap_or(0);
        let is_last = date.day + 7 > date.days_in_month;
        (self.plain | week) & weekday != 0 || (is_last && self.last & weekday != 0)
    }
}

/// An exact test of the date, for days that the `cron` crate has no word for. Both must accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DayFilter {
    pub(super) month_days: MonthDays,
    pub(super) weekdays: Weekdays,
}

impl DayFilter {
    pub(super) fn matches(&self, date: CivilDate) -> bool {
        self.month_days.matches(date) && self.weekdays.matches(date)
    }
}

fn has(set: u32, bit: u32) -> bool {
    bit < 32 && set & (1 << bit) != 0
}

/// Bits `first` to `last`, both inclusive; what does not fit 32 bits is left out.
fn span(first: u32, last: u32) -> u32 {
    (first..=last.min(31)).fold(0, |set, bit| set | (1 << bit))
}

fn bits(set: u32) -> impl Iterator<Item = u32> {
    (0..32).filter(move |bit| has(set, *bit))
}
