//! From the text of a calendar to its days. Not here: whether what it includes exists (`set`). Invariant: every
//! complaint is made at once, each with its field, the value found and how to mend it.

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

use crate::complaints::Complaints;
use crate::id::CalendarName;
use crate::job_event::FieldError;
use crate::manifest::API_VERSION;
use crate::schedule;

use super::days::Days;
use super::set::Calendar;
use super::shape::{CalendarManifest, CalendarSpec};
use super::{CALENDAR_BYTES_MAX, ENTRIES_MAX, INCLUDES_MAX, KIND};

const WEEKDAYS: [(&str, Weekday); 7] = [
    ("monday", Weekday::Monday),
    ("tuesday", Weekday::Tuesday),
    ("wednesday", Weekday::Wednesday),
    ("thursday", Weekday::Thursday),
    ("friday", Weekday::Friday),
    ("saturday", Weekday::Saturday),
    ("sunday", Weekday::Sunday),
];

/// Reads a calendar's manifest as JSON.
///
/// # Errors
/// Every complaint; one that names line and column if the text is no JSON manifest of a calendar at all.
pub fn parse_json(text: &str) -> Result<(CalendarManifest, Calendar), Vec<FieldError>> {
    if text.len() > CALENDAR_BYTES_MAX {
        let message = format!("is larger than {CALENDAR_BYTES_MAX} bytes; split the calendar, and `include` its parts");
        return Err(vec![FieldError::new("manifest", format!("{} bytes", text.len()), message)]);
    }
    let manifest: CalendarManifest =
        serde_json::from_str(text).map_err(|error| vec![crate::manifest::no_manifest(&error)])?;
    let calendar = to_calendar(&manifest)?;
    Ok((manifest, calendar))
}

/// Converts and checks a calendar's manifest.
///
/// # Errors
/// Every complaint at once.
pub fn to_calendar(manifest: &CalendarManifest) -> Result<Calendar, Vec<FieldError>> {
    let mut reading = Reading::default();
    reading.complaints.constant("apiVersion", &manifest.api_version, API_VERSION);
    reading.complaints.constant("kind", &manifest.kind, KIND);
    if let Some(namespace) = &manifest.metadata.namespace {
        reading.complaints.add(
            "metadata.namespace",
            namespace,
            "calendars have no namespace, all jobs share them; remove it",
        );
    }
    let name = reading.name("metadata.name", &manifest.metadata.name);
    let spec = &manifest.spec;
    let days = reading.days(spec);
    let zone = reading.zone(spec.time_zone.as_deref());
    let include = reading.include(&spec.include);
    match name {
        Some(name) if reading.complaints.0.is_empty() => Ok(Calendar { name, zone, days, include }),
        Some(_) | None => Err(reading.complaints.0),
    }
}

#[derive(Default)]
struct Reading {
    complaints: Complaints,
}

impl Reading {
    fn name(&mut self, field: &str, text: &str) -> Option<CalendarName> {
        match CalendarName::new(text) {
            Ok(name) => Some(name),
            Err(error) => {
                self.complaints.add(field, text, format!("is no calendar name; {}", error.rule));
                None
            }
        }
    }

    fn zone(&mut self, name: Option<&str>) -> Option<TimeZone> {
        match schedule::find_zone(name?) {
            Ok(zone) => Some(zone),
            Err(error) => {
                self.complaints.add("spec.timeZone", &error.value, error.message);
                None
            }
        }
    }

    fn include(&mut self, names: &[String]) -> Vec<CalendarName> {
        if names.len() > INCLUDES_MAX {
            let message =
                format!("names more than {INCLUDES_MAX} calendars; include some in another, and that one here");
            self.complaints.add("spec.include", names.len(), message);
            return Vec::new();
        }
        let named =
            names.iter().enumerate().filter_map(|(index, text)| self.name(&format!("spec.include[{index}]"), text));
        named.collect()
    }

    fn days(&mut self, spec: &CalendarSpec) -> Days {
        let entries = spec.dates.len() + spec.ranges.len() + spec.weekdays.len() + spec.yearly.len();
        if entries > ENTRIES_MAX {
            let message = format!("names more than {ENTRIES_MAX} days and ranges; split it, and `include` its parts");
            self.complaints.add("spec", format!("{entries} entries"), message);
            return Days::default();
        }
        let mut ranges = Vec::with_capacity(spec.dates.len() + spec.ranges.len());
        for (index, text) in spec.dates.iter().enumerate() {
            ranges.extend(self.date(&format!("spec.dates[{index}]"), text).map(|date| (date, date)));
        }
        for (index, range) in spec.ranges.iter().enumerate() {
            let path = format!("spec.ranges[{index}]");
            let from = self.date(&format!("{path}.from"), &range.from);
            let to = self.date(&format!("{path}.to"), &range.to);
            match from.zip(to) {
                Some((from, to)) if from > to => {
                    self.complaints.add(format!("{path}.to"), to, format!("is before `from`, {from}; swap the two"));
                }
                both => ranges.extend(both),
            }
        }
        let mut days = Days::new(ranges);
        for (index, text) in spec.weekdays.iter().enumerate() {
            self.weekdays(&format!("spec.weekdays[{index}]"), text, &mut days);
        }
        for (index, text) in spec.yearly.iter().enumerate() {
            match month_and_day(text) {
                Some((month, day)) => days.add_yearly(month, day),
                None => {
                    let message = "is no day of the year; write month and day, as in `12-25`";
                    self.complaints.add(format!("spec.yearly[{index}]"), text, message);
                }
            }
        }
        days
    }

    fn date(&mut self, field: &str, text: &str) -> Option<Date> {
        // Only the plain form: jiff would read the date of a whole date-time, too.
        let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        match text.parse::<Date>() {
            Ok(date) if is_plain => Some(date),
            Ok(_) | Err(_) => {
                self.complaints.add(field, text, "is no date; write year, month and day, as in `2026-12-25`");
                None
            }
        }
    }

    /// One day of the week, or the first and last of some in a row.
    fn weekdays(&mut self, field: &str, text: &str, days: &mut Days) {
        let bounds = match text.split_once('-') {
            Some((first, last)) => weekday(first).zip(weekday(last)),
            None => weekday(text).map(|day| (day, day)),
        };
        let Some((first, last)) = bounds else {
            return self.complaints.add(field, text, "is no day of the week; write `SAT`, `saturday` or `MON-FRI`");
        };
        for (index, day) in first.cycle_forward().enumerate().take(7) {
            days.add_weekday(day);
            if day == last || index == 6 {
                break;
            }
        }
    }
}

fn weekday(text: &str) -> Option<Weekday> {
    let text = text.trim().to_ascii_lowercase();
    let is_named = |name: &str| text == name || Some(text.as_str()) == name.get(..3);
    WEEKDAYS.iter().find(|(name, _)| is_named(name)).map(|(_, day)| *day)
}

/// Month and day, if some year has that day.
fn month_and_day(text: &str) -> Option<(i8, i8)> {
    let (month, day) = text.split_once('-')?;
    let is_plain = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !is_plain(month) || !is_plain(day) {
        return None;
    }
    // A leap year has all the days that any year has.
    let date = Date::new(2024, month.parse().ok()?, day.parse().ok()?).ok()?;
    Some((date.month(), date.day()))
}
