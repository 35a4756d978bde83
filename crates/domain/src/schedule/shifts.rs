//! The clock changes of a zone as wall-clock windows: what was left out, what comes twice.
//!
//! For words about them; fires are found in `dst.rs`, which walks segments. Invariant: in order of time, and none
//! that leaves the offset as it was.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};

use super::civil::{CivilMatcher, CivilSeconds};
use super::describe::join;

/// Far more than a zone has until 2100; a bound on the walk.
const SHIFTS_MAX: usize = 1024;

/// Times of one expression that are named one by one; more of them are "more".
const TIMES_MAX: usize = 3;

/// Times of an expression that a change leaves out or repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Times {
    /// "02:00, 02:15 and 02:30".
    pub(super) text: String,
    pub(super) first: CivilSeconds,
    pub(super) is_one: bool,
}

/// One change of a zone's offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shift {
    /// The first second of the new offset.
    pub(super) at: i64,
    before: i64,
    after: i64,
}

impl Shift {
    /// The clocks go forward.
    pub(super) fn is_gap(self) -> bool {
        self.after > self.before
    }

    /// How far the clocks jump, in seconds.
    pub(super) fn length(self) -> i64 {
        (self.after - self.before).abs()
    }

    /// What the clocks show when they are about to change.
    pub(super) fn from(self) -> CivilSeconds {
        self.at + self.before
    }

    /// What they show at once after it.
    pub(super) fn to(self) -> CivilSeconds {
        self.at + self.after
    }

    /// The wall-clock times that are left out or come twice: the first, and the first after them.
    pub(super) fn window(self) -> (CivilSeconds, CivilSeconds) {
        (self.from().min(self.to()), self.from().max(self.to()))
    }

    /// The first `count` times of the expression in the window.
    pub(super) fn matches(self, matcher: &CivilMatcher, count: usize) -> Vec<CivilSeconds> {
        let (start, end) = self.window();
        let mut found = Vec::new();
        let mut lower = start - 1;
        while found.len() < count {
            let Some(civil) = matcher.next(lower).filter(|civil| *civil < end) else { break };
            found.push(civil);
            lower = civil;
        }
        found
    }

    /// The times of the expression in the window, for people; absent if there is none.
    pub(super) fn times(self, matcher: &CivilMatcher) -> Option<Times> {
        let found = self.matches(matcher, TIMES_MAX + 1);
        let mut texts: Vec<String> = found.iter().take(TIMES_MAX).map(|civil| time_text(*civil)).collect();
        if found.len() > TIMES_MAX {
            texts.push("more".to_owned());
        }
        Some(Times { text: join(&texts, "and"), first: *found.first()?, is_one: found.len() == 1 })
    }

    pub(super) fn has_match(self, matcher: &CivilMatcher) -> bool {
        !self.matches(matcher, 1).is_empty()
    }
}

/// True if any of the changes leaves out (or repeats) a time of the expression. An expression that rarely fires is not
/// searched anew for each change: its next time is remembered until a window comes near it.
pub(super) fn any_match(shifts: impl Iterator<Item = Shift>, matcher: &CivilMatcher) -> bool {
    let mut searched: Option<(CivilSeconds, Option<CivilSeconds>)> = None;
    for shift in shifts {
        let (start, end) = shift.window();
        let found = match searched {
            Some((from, found)) if from <= start && found.is_none_or(|found| found >= start) => found,
            Some(_) | None => matcher.next(start - 1),
        };
        if found.is_some_and(|found| found < end) {
            return true;
        }
        searched = Some((start, found));
    }
    false
}

/// The changes after `after`, up to `until` inclusive.
pub(super) fn shifts(zone: &TimeZone, after: Timestamp, until: Timestamp) -> Vec<Shift> {
    let mut offset = zone.to_offset(after);
    let mut found = Vec::new();
    for change in zone.following(after).take(SHIFTS_MAX).take_while(|change| change.timestamp() <= until) {
        if change.offset() != offset {
            let (before, after) = (i64::from(offset.seconds()), i64::from(change.offset().seconds()));
            found.push(Shift { at: change.timestamp().as_second(), before, after });
        }
        offset = change.offset();
    }
    found
}

/// A wall-clock time for people: "02:30", with the seconds if there are any.
pub(super) fn time_text(civil: CivilSeconds) -> String {
    let at = date_time(civil);
    at.strftime(if at.second() == 0 { "%H:%M" } else { "%H:%M:%S" }).to_string()
}

/// "2026-03-29".
pub(super) fn date_text(civil: CivilSeconds) -> String {
    date_time(civil).strftime("%Y-%m-%d").to_string()
}

fn date_time(civil: CivilSeconds) -> DateTime {
    Timestamp::from_second(civil).map(|at| Offset::UTC.to_datetime(at)).unwrap_or_default()
}
