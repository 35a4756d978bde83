//! Calendars by name, each with its position in `settings`. Not here: which of them a schedule asks (`rules`).
//! Invariant: a calendar holds its own days and those of all that it includes, each counted once, so that includes
//! in a circle are harmless; if one of them is missing, nothing is said of any day.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::fire::NO_CALENDAR;
use crate::id::CalendarName;
use crate::time::Timestamp;

use super::INCLUDED_MAX;
use super::days::Days;

/// One calendar, ready to be asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Calendar {
    pub(super) name: CalendarName,
    pub(super) zone: Option<TimeZone>,
    pub(super) days: Days,
    pub(super) include: Vec<CalendarName>,
}

impl Calendar {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &CalendarName {
        &self.name
    }

    /// The calendars that it includes by name, in the order written.
    #[must_use]
    pub fn include(&self) -> &[CalendarName] {
        &self.include
    }

    /// True if the day is one of its own; those of calendars that it includes are not looked at.
    #[must_use]
    pub fn holds(&self, date: Date) -> bool {
        self.days.contains(date)
    }
}

/// A calendar of a set.
#[derive(Debug, Clone, PartialEq)]
struct Known {
    offset: i64,
    calendar: Arc<Calendar>,
}

/// Why nothing can be said of a calendar's days.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unresolved {
    /// There is no calendar of this name.
    Missing(CalendarName),
    /// It includes more than [`INCLUDED_MAX`] calendars, directly or by others.
    TooMany(CalendarName),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(name) => write!(f, "calendar {name} does not exist"),
            Self::TooMany(name) => write!(f, "calendar {name} includes more than {INCLUDED_MAX} others"),
        }
    }
}

/// All calendars of the installation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CalendarSet {
    calendars: BTreeMap<CalendarName, Known>,
}

impl CalendarSet {
    /// Takes a calendar that stands at an offset of `settings`, in place of an older one of its name.
    pub fn put(&mut self, calendar: Calendar, offset: i64) {
        let known = Known { offset, calendar: Arc::new(calendar) };
        self.calendars.insert(known.calendar.name.clone(), known);
    }

    /// Forgets a calendar; true if there was one.
    pub fn remove(&mut self, name: &CalendarName) -> bool {
        self.calendars.remove(name).is_some()
    }

    /// The calendar of this name and its offset in `settings`.
    #[must_use]
    pub fn get(&self, name: &CalendarName) -> Option<(&Calendar, i64)> {
        self.calendars.get(name).map(|known| (&*known.calendar, known.offset))
    }

    /// All calendars, in order of their names.
    pub fn calendars(&self) -> impl Iterator<Item = &Calendar> {
        self.calendars.values().map(|known| &*known.calendar)
    }

    /// True if the day of an instant is one of the calendar's or of those that it includes. The date is taken in
    /// the zone of the calendar that holds the day, else in that of the one asked, else in `zone`.
    ///
    /// # Errors
    /// [`Unresolved`] when one of them is missing or there are too many; days can't be told then.
    pub fn covers(&self, name: &CalendarName, at: Timestamp, zone: &TimeZone) -> Result<bool, Unresolved> {
        let asked = self.all_of(name)?;
        let zone = asked.first().and_then(|calendar| calendar.zone.as_ref()).unwrap_or(zone);
        let is_held = |calendar: &&Calendar| calendar.holds(date_of(at, calendar.zone.as_ref().unwrap_or(zone)));
        Ok(asked.iter().any(is_held))
    }

    /// The offsets of a calendar and of all that it includes; [`NO_CALENDAR`] for those that are missing.
    pub fn add_positions(&self, name: &CalendarName, positions: &mut BTreeMap<CalendarName, i64>) {
        let mut left = vec![name];
        while let Some(name) = left.pop() {
            if positions.len() >= INCLUDED_MAX || positions.contains_key(name) {
                continue;
            }
            let known = self.calendars.get(name);
            positions.insert(name.clone(), known.map_or(NO_CALENDAR, |known| known.offset));
            left.extend(known.into_iter().flat_map(|known| &known.calendar.include));
        }
    }

    /// The calendar of this name and all that it includes, directly or by others, each once, itself first.
    ///
    /// # Errors
    /// [`Unresolved`] when one of them is missing or there are too many.
    pub fn all_of(&self, name: &CalendarName) -> Result<Vec<&Calendar>, Unresolved> {
        let find = |name: &CalendarName| {
            self.calendars.get(name).map(|known| &*known.calendar).ok_or_else(|| Unresolved::Missing(name.clone()))
        };
        let mut found = vec![find(name)?];
        let mut looked_at = 0;
        // Bounded: each turn looks at another one of at most `INCLUDED_MAX`.
        while let Some(calendar) = found.get(looked_at).copied() {
            looked_at += 1;
            for included in &calendar.include {
                if found.iter().any(|known| known.name == *included) {
                    continue;
                }
                if found.len() >= INCLUDED_MAX {
                    return Err(Unresolved::TooMany(name.clone()));
                }
                found.push(find(included)?);
            }
        }
        Ok(found)
    }

    /// The way from a calendar back to itself by includes, if there is one: its name, those between, its name.
    #[must_use]
    pub fn circle_of(&self, name: &CalendarName) -> Option<Vec<CalendarName>> {
        // For each calendar that was reached, the one that led to it.
        let mut before: BTreeMap<&CalendarName, &CalendarName> = BTreeMap::new();
        let mut left = vec![name];
        while let Some(at) = left.pop() {
            for included in self.calendars.get(at).into_iter().flat_map(|known| &known.calendar.include) {
                if included == name {
                    return Some(way(name, at, &before));
                }
                if !before.contains_key(included) {
                    before.insert(included, at);
                    left.push(included);
                }
            }
        }
        None
    }
}

fn way(name: &CalendarName, last: &CalendarName, before: &BTreeMap<&CalendarName, &CalendarName>) -> Vec<CalendarName> {
    let mut way = vec![name.clone()];
    let mut at = last;
    while at != name {
        way.push(at.clone());
        let Some(earlier) = before.get(at) else { break };
        at = earlier;
    }
    way.push(name.clone());
    way.reverse();
    way
}

/// The date that the clocks of a zone show at an instant.
pub(super) fn date_of(at: Timestamp, zone: &TimeZone) -> Date {
    zone.to_datetime(at.to_jiff()).date()
}
