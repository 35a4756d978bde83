//! iCalendar files (RFC 5545) as calendars: events become days. Not here: repetition (`recurrence`), what is done
//! with the calendar (`commands::ics`). Invariant: half a calendar would let jobs fire on the days that it lacks, so
//! whatever can't be taken is listed with its line, and nothing comes of the file.

mod lines;
mod recurrence;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use icalendar::parser::{Component, Property, read_calendar};
use jiff::Span;
use jiff::civil::{Date, DateTime};
use orloj_domain::calendar::{CalendarSpec, DateRange, ENTRIES_MAX};

use lines::{Event, Lines};
use recurrence::Recurrence;

/// What can't be taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) reason: String,
}

/// A file as a calendar.
#[derive(Debug, Default)]
pub(crate) struct Import {
    pub(crate) spec: CalendarSpec,
    /// What the person who imports should know.
    pub(crate) notes: Vec<String>,
}

/// Most days of one event, inclusive.
const DAYS_MAX: i32 = 3_660;

/// Reads a file. What repeats for ever is expanded up to `horizon`, unless it is a day of every year.
///
/// # Errors
/// All that can't be taken.
pub(crate) fn read(text: &str, horizon: Date) -> Result<Import, Vec<Refused>> {
    let lines = Lines::of(text).map_err(|refused| vec![refused])?;
    let unfolded = lines.unfolded();
    let calendar = read_calendar(&unfolded).map_err(|_| {
        let reason = "is no iCalendar: it should begin with BEGIN:VCALENDAR, and each line be NAME:VALUE".to_owned();
        vec![Refused { line: 1, reason }]
    })?;
    let events: Vec<&Component<'_>> = calendar.components.iter().filter(|it| it.name.as_str() == "VEVENT").collect();
    let mut reading = Reading { horizon, ..Reading::default() };
    for (event, place) in events.iter().zip(&lines.events) {
        if let Err(refused) = reading.take(event, place) {
            reading.refused.push(refused);
        }
    }
    if events.len() != lines.events.len() {
        let reason = "has events inside of something else, which are not read".to_owned();
        reading.refused.push(Refused { line: 1, reason });
    }
    reading.finish(events.len())
}

#[derive(Default)]
struct Reading {
    horizon: Date,
    ranges: BTreeSet<(Date, Date)>,
    yearly: BTreeSet<(i8, i8)>,
    refused: Vec<Refused>,
    cancelled: usize,
    endless: Vec<usize>,
    timed: usize,
}

impl Reading {
    fn take(&mut self, event: &Component<'_>, place: &Event) -> Result<(), Refused> {
        let found = |name: &str| {
            let mut properties = event.properties.iter().enumerate();
            properties
                .find(|(_, property)| property.name.as_str().eq_ignore_ascii_case(name))
                .map(|(index, property)| (property, place.lines.get(index).copied().unwrap_or(place.line)))
        };
        if found("STATUS").is_some_and(|(status, _)| status.val.as_str().eq_ignore_ascii_case("CANCELLED")) {
            self.cancelled += 1;
            return Ok(());
        }
        if let Some((_, line)) = found("RECURRENCE-ID") {
            return refuse(line, "RECURRENCE-ID, one occurrence that was moved, can't be taken; export a file without");
        }
        let Some((start_property, line)) = found("DTSTART") else {
            return refuse(place.line, "an event without DTSTART can't be taken");
        };
        let start = start_of(start_property, line)?;
        let last = self.last_day(start, line, found("DTEND"), found("DURATION"))?;
        self.timed += usize::from(start.has_time);
        let excluded = self.dates_of(event, place, "EXDATE")?;
        for date in self.dates_of(event, place, "RDATE")? {
            self.add(date, start, last)?;
        }
        let Some((rule, line)) = found("RRULE") else {
            return self.add(start.at.date(), start, last);
        };
        let recurrence =
            Recurrence::read(rule.val.as_str(), start.at.date()).map_err(|reason| Refused { line, reason })?;
        if let Some(day) = recurrence.yearly().filter(|_| excluded.is_empty() && last == start.at.date()) {
            self.yearly.insert(day);
            return Ok(());
        }
        if recurrence.is_endless() {
            self.endless.push(line);
        }
        for date in recurrence.dates(self.horizon).filter(|date| !excluded.contains(date)) {
            self.add(date, start, last)?;
        }
        Ok(())
    }

    /// Adds an occurrence that begins on `date`, as long as the event from `start` to `last`.
    fn add(&mut self, date: Date, start: Start, last: Date) -> Result<(), Refused> {
        let length = start.at.date().until(last).map(|span| span.get_days()).unwrap_or(0);
        match date.checked_add(Span::new().days(length)) {
            Ok(_) if self.ranges.len() >= ENTRIES_MAX => {
                return refuse(start.line, &format!("the file has more than {ENTRIES_MAX} days; split it"));
            }
            Ok(end) => drop(self.ranges.insert((date, end))),
            Err(_) => return refuse(start.line, "is longer than time itself"),
        }
        Ok(())
    }

    /// The last day of the first occurrence: ends are exclusive.
    fn last_day(
        &self,
        start: Start,
        line: usize,
        end: Option<(&Property<'_>, usize)>,
        duration: Option<(&Property<'_>, usize)>,
    ) -> Result<Date, Refused> {
        let first = start.at.date();
        let (end, line) = match (end, duration) {
            (Some((end, line)), _) => (start_of(end, line)?.at, line),
            (None, Some((duration, line))) => {
                let text = duration.val.as_str();
                let end = text.parse::<Span>().ok().and_then(|span| start.at.checked_add(span).ok());
                let Some(end) = end else { return refuse(line, &format!("DURATION `{text}` is no duration")) };
                (end, line)
            }
            (None, None) => (start.at, line),
        };
        if end < start.at {
            return refuse(line, "the event ends before it begins");
        }
        let last = end.checked_sub(Span::new().seconds(1)).map_or(first, DateTime::date).max(first);
        let days = first.until(last).map(|span| span.get_days()).unwrap_or(i32::MAX);
        if days > DAYS_MAX { refuse(line, &format!("the event is longer than {DAYS_MAX} days")) } else { Ok(last) }
    }

    /// All dates of properties that list some.
    fn dates_of(&self, event: &Component<'_>, place: &Event, name: &str) -> Result<BTreeSet<Date>, Refused> {
        let mut dates = BTreeSet::new();
        for (index, property) in event.properties.iter().enumerate() {
            if !property.name.as_str().eq_ignore_ascii_case(name) {
                continue;
            }
            let line = place.lines.get(index).copied().unwrap_or(place.line);
            for text in property.val.as_str().split(',') {
                match instant_of(text) {
                    Some((at, _)) => dates.insert(at.date()),
                    None => return refuse(line, &format!("{name} `{text}` is no date; periods can't be taken")),
                };
            }
        }
        Ok(dates)
    }

    fn finish(self, events: usize) -> Result<Import, Vec<Refused>> {
        let mut refused = self.refused;
        if events == 0 && refused.is_empty() {
            refused.push(Refused { line: 1, reason: "has no event (VEVENT)".to_owned() });
        }
        if !refused.is_empty() {
            refused.sort_by_key(|one| one.line);
            return Err(refused);
        }
        let (single, several): (Vec<_>, Vec<_>) = self.ranges.into_iter().partition(|(first, last)| first == last);
        let spec = CalendarSpec {
            dates: single.iter().map(|(date, _)| date.to_string()).collect(),
            ranges: several
                .iter()
                .map(|(first, last)| DateRange { from: first.to_string(), to: last.to_string() })
                .collect(),
            yearly: self.yearly.iter().map(|(month, day)| format!("{month:02}-{day:02}")).collect(),
            ..CalendarSpec::default()
        };
        let mut notes = Vec::new();
        for line in self.endless {
            let until = self.horizon;
            notes.push(format!(
                "line {line}: repeats for ever, and is taken up to {until}: import it again before then"
            ));
        }
        if self.timed > 0 {
            notes.push(format!("events with times count for their whole days, as written: {}", self.timed));
        }
        if self.cancelled > 0 {
            notes.push(format!("cancelled events are left out: {}", self.cancelled));
        }
        Ok(Import { spec, notes })
    }
}

/// When an event begins.
#[derive(Debug, Clone, Copy)]
struct Start {
    at: DateTime,
    has_time: bool,
    line: usize,
}

fn start_of(property: &Property<'_>, line: usize) -> Result<Start, Refused> {
    let text = property.val.as_str();
    match instant_of(text) {
        Some((at, has_time)) => Ok(Start { at, has_time, line }),
        None => refuse(line, &format!("{} `{text}` is no date such as `20261225`", property.name.as_str())),
    }
}

/// `20261225`, `20261225T090000` or `20261225T090000Z`, and whether it has a time.
fn instant_of(text: &str) -> Option<(DateTime, bool)> {
    let text = text.trim().trim_end_matches('Z');
    if let Ok(date) = Date::strptime("%Y%m%d", text) {
        return Some((date.at(0, 0, 0, 0), false));
    }
    DateTime::strptime("%Y%m%dT%H%M%S", text).ok().map(|at| (at, true))
}

fn refuse<T>(line: usize, reason: &str) -> Result<T, Refused> {
    Err(Refused { line, reason: reason.to_owned() })
}
