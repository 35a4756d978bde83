//! Calendars: named sets of days that schedules leave out or keep to. How they are written, what days they hold,
//! and what they say of a fire time. Not here: where they are kept (topic `settings`), and what becomes of a fire
//! time that is left out (the trigger's machine). Invariant: a calendar that is missing never lets a fire time
//! through, and neither a cycle of includes nor any number of them makes an answer endless.

mod days;
mod read;
mod rules;
mod set;
mod shape;
#[cfg(test)]
mod tests;

pub use read::{parse_json, to_calendar};
pub use rules::{Exclusion, RuleCalendars, ScheduleCalendars};
pub use set::{Calendar, CalendarSet, Unresolved};
pub use shape::{CalendarManifest, CalendarSpec, DateRange};

/// The `kind` of a calendar's manifest.
pub const KIND: &str = "Calendar";
/// Largest manifest of a calendar in bytes, inclusive.
pub const CALENDAR_BYTES_MAX: usize = 256 * 1024;
/// Most dates, ranges, weekdays and yearly days of one calendar together, inclusive.
pub const ENTRIES_MAX: usize = 10_000;
/// Most calendars that one calendar names under `include`, inclusive.
pub const INCLUDES_MAX: usize = 100;
/// Most calendars that are asked for the sake of one name: itself and all that it includes, inclusive.
pub const INCLUDED_MAX: usize = 256;
/// Most calendars that one rule of a schedule names, inclusive.
pub const CALENDARS_OF_RULE_MAX: usize = 20;
