//! Matching on civil time: seconds since 1970-01-01T00:00:00 on a wall clock that never jumps.
//!
//! The `cron` crate is the field matcher. It is only ever given civil time labelled UTC: with zoned times it loses
//! days and runs backwards at clock changes. Not here: zones (`dst.rs`). Invariant: results are strictly increasing.

use std::fmt;
use std::hash::{Hash, Hasher};

use chrono::{DateTime, Datelike, NaiveDate, Utc};
use cron::Schedule;

use super::days::{CivilDate, DayFilter};

/// Civil seconds: what a wall clock shows, counted as if it were UTC.
pub(super) type CivilSeconds = i64;

const SECONDS_PER_DAY: i64 = 86_400;

/// One or two searches whose earliest answer counts: two when day of month OR weekday is meant.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct CivilMatcher {
    pub(super) first: Search,
    pub(super) second: Option<Search>,
}

impl CivilMatcher {
    /// The first match strictly after `after`; none after the year 2100.
    pub(super) fn next(&self, after: CivilSeconds) -> Option<CivilSeconds> {
        let first = self.first.next(after);
        let Some(second) = &self.second else {
            return first;
        };
        match (first, second.next(after)) {
            (Some(first), Some(second)) => Some(first.min(second)),
            (first, second) => first.or(second),
        }
    }
}

/// Fields for the `cron` crate and, if those can't say it all, a test of the date.
#[derive(PartialEq, Eq)]
pub(super) struct Search {
    pub(super) schedule: Schedule,
    pub(super) filter: Option<DayFilter>,
}

impl Search {
    fn next(&self, after: CivilSeconds) -> Option<CivilSeconds> {
        let mut after = DateTime::<Utc>::from_timestamp(after, 0)?;
        // Bounded: every turn moves on by a day, and the `cron` crate stops at the year 2100.
        loop {
            let found = self.schedule.after(&after).next()?;
            let Some(filter) = &self.filter else {
                return Some(found.timestamp());
            };
            if filter.matches(civil_date(&found)) {
                return Some(found.timestamp());
            }
            let day_start = found.timestamp() - found.timestamp().rem_euclid(SECONDS_PER_DAY);
            after = DateTime::<Utc>::from_timestamp(day_start + SECONDS_PER_DAY - 1, 0)?;
        }
    }
}

// The normalised text stands for the whole schedule: by value it would be thousands of characters.
impl fmt::Debug for Search {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Search").field(&self.schedule.source()).field(&self.filter).finish()
    }
}

impl Hash for Search {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.schedule.source().hash(hasher);
        self.filter.hash(hasher);
    }
}

fn civil_date(at: &DateTime<Utc>) -> CivilDate {
    CivilDate {
        day: at.day(),
        days_in_month: days_in_month(at.year(), at.month()),
        weekday: at.weekday().num_days_from_sunday(),
    }
}

fn days_in_month(year: i32, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if NaiveDate::from_ymd_opt(year, 2, 29).is_some() => 29,
        2 => 28,
        _ => 31,
    }
}
