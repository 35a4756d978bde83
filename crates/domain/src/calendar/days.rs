//! A set of days: single days and ranges, days of the week, days of the year. Not here: text and zones.
//! Invariant: ranges are in order and neither touch nor overlap, so that one search answers.

use jiff::civil::{Date, Weekday};

/// The days.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Days {
    /// First and last day of each range, both inclusive.
    ranges: Vec<(Date, Date)>,
    /// Bit 0 is Monday.
    weekdays: u8,
    /// For each month, bit 1 is its first day.
    yearly: [u32; 12],
}

impl Days {
    /// Takes ranges in any order, overlapping or not; none may end before it begins.
    pub(super) fn new(mut ranges: Vec<(Date, Date)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(Date, Date)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if end.tomorrow().is_ok_and(|after| first <= after) || first <= *end => {
                    *end = last.max(*end);
                }
                Some(_) | None => merged.push((first, last)),
            }
        }
        Self { ranges: merged, weekdays: 0, yearly: [0; 12] }
    }

    pub(super) fn add_weekday(&mut self, day: Weekday) {
        self.weekdays |= bit_of(day);
    }

    /// Adds a day of every year; `month` 1..=12, `day` 1..=31, else nothing.
    pub(super) fn add_yearly(&mut self, month: i8, day: i8) {
        if let Some(days) = month_index(month).and_then(|index| self.yearly.get_mut(index)) {
            *days |= day_bit(day);
        }
    }

    pub(super) fn contains(&self, date: Date) -> bool {
        let is_yearly = || {
            let days = month_index(date.month()).and_then(|index| self.yearly.get(index));
            days.is_some_and(|days| days & day_bit(date.day()) != 0)
        };
        let is_in_range = || {
            let behind = self.ranges.partition_point(|(first, _)| *first <= date);
            behind.checked_sub(1).and_then(|index| self.ranges.get(index)).is_some_and(|(_, last)| date <= *last)
        };
        self.weekdays & bit_of(date.weekday()) != 0 || is_yearly() || is_in_range()
    }
}

fn bit_of(day: Weekday) -> u8 {
    1_u8.checked_shl(u32::from(day.to_monday_zero_offset().unsigned_abs())).unwrap_or(0)
}

fn day_bit(day: i8) -> u32 {
    1_u32.checked_shl(u32::from(day.unsigned_abs())).unwrap_or(0)
}

fn month_index(month: i8) -> Option<usize> {
    usize::try_from(month).ok()?.checked_sub(1)
}
