//! The seven fields of an expression: what each may hold, and how one field's text becomes a set of values.
//!
//! Not here: what a day of the month or a weekday may hold besides numbers (`day_fields.rs`), and the expression
//! as a whole (`cron.rs`). Invariant: every value of a parsed field is one that the `cron` crate accepts.

use super::Dialect;
use super::error::ScheduleError;
use super::spread::Spread;

/// What is special about one field of one dialect.
#[derive(Debug)]
pub(super) struct FieldSpec {
    /// The name used in errors.
    pub(super) name: &'static str,
    /// Both inclusive; the values that a full cycle has.
    pub(super) min: u16,
    pub(super) max: u16,
    /// The largest number that may be written: `max`, or 7 for a second name of Sunday.
    pub(super) max_written: u16,
    /// Said after a range in errors, if there is something to say.
    pub(super) note: &'static str,
    /// Names for the values from `min` on.
    pub(super) names: &'static [&'static str],
    /// Ranges may run over the end of the cycle.
    pub(super) wraps: bool,
    /// Which number of the spread `H` takes.
    pub(super) slot: usize,
    /// The largest value that a bare `H` picks: 28 for days, so that every month has it.
    pub(super) spread_max: u16,
}

const fn number(name: &'static str, slot: usize, min: u16, max: u16) -> FieldSpec {
    FieldSpec { name, min, max, max_written: max, note: "", names: &[], wraps: true, slot, spread_max: max }
}

const MONTHS: [&str; 12] = [
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
];
const WEEKDAYS: [&str; 7] = ["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"];

pub(super) static SECOND: FieldSpec = number("second", 0, 0, 59);
pub(super) static MINUTE: FieldSpec = number("minute", 1, 0, 59);
pub(super) static HOUR: FieldSpec = number("hour", 2, 0, 23);
pub(super) static MONTH_DAY: FieldSpec = FieldSpec { spread_max: 28, ..number("dayOfMonth", 3, 1, 31) };
pub(super) static MONTH: FieldSpec = FieldSpec { names: &MONTHS, ..number("month", 4, 1, 12) };
pub(super) static WEEKDAY_UNIX: FieldSpec =
    FieldSpec { names: &WEEKDAYS, max_written: 7, note: " (Sunday is 0 or 7)", ..number("weekday", 5, 0, 6) };
pub(super) static WEEKDAY_QUARTZ: FieldSpec =
    FieldSpec { names: &WEEKDAYS, note: " (Sunday is 1, Saturday 7)", ..number("weekday", 5, 1, 7) };
pub(super) static YEAR: FieldSpec = FieldSpec { wraps: false, ..number("year", 6, 1970, 2100) };

/// A piece of an expression and where it starts, in characters from 1. All ASCII and in upper case.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub(super) text: &'a str,
    pub(super) column: usize,
}

impl<'a> Token<'a> {
    /// The part from `start` (bytes, which are characters here) on.
    pub(super) fn from(self, start: usize) -> Token<'a> {
        Token { text: self.text.get(start..).unwrap_or(""), column: self.column + start }
    }

    /// The part before `end`.
    pub(super) fn until(self, end: usize) -> Token<'a> {
        Token { text: self.text.get(..end).unwrap_or(self.text), column: self.column }
    }

    /// The parts before and after the first `separator`.
    pub(super) fn split(self, separator: char) -> Option<(Token<'a>, Token<'a>)> {
        let at = self.text.find(separator)?;
        Some((self.until(at), self.from(at + separator.len_utf8())))
    }

    /// The items of a list separated by commas; always at least one, maybe empty.
    pub(super) fn items(self) -> impl Iterator<Item = Token<'a>> {
        let mut start = 0;
        self.text.split(',').map(move |text| {
            let item = Token { text, column: self.column + start };
            start += text.len() + 1;
            item
        })
    }

    pub(super) fn error(self, spec: &FieldSpec, message: impl Into<String>) -> ScheduleError {
        ScheduleError::new(spec.name, self.text, Some(self.column), message)
    }
}

/// Parses a whole field that knows only numbers, names, `*`, `H`, ranges and steps.
pub(super) fn parse_values(
    dialect: Dialect,
    spec: &FieldSpec,
    field: Token<'_>,
    spread: Spread,
) -> Result<Vec<u16>, ScheduleError> {
    let mut values = Vec::new();
    for item in field.items() {
        values.extend(parse_item(dialect, spec, item, spread)?);
    }
    values.sort_unstable();
    values.dedup();
    Ok(values)
}

/// Parses one item of a list into its values, unsorted.
pub(super) fn parse_item(
    dialect: Dialect,
    spec: &FieldSpec,
    item: Token<'_>,
    spread: Spread,
) -> Result<Vec<u16>, ScheduleError> {
    if item.text.is_empty() {
        return Err(
            item.error(spec, format!("is an empty list item; write a value in {} or drop the comma", range(spec)))
        );
    }
    let (body, step) = match item.split('/') {
        Some((body, step)) => (body, Some(parse_step(spec, step)?)),
        None => (item, None),
    };
    if body.text.starts_with('H') {
        return parse_spread(spec, body, step, spread);
    }
    // Quartz's `/5` is its `*/5`.
    if body.text.is_empty() && dialect == Dialect::Quartz {
        return Ok(cycle(spec, spec.min, spec.max, step.unwrap_or(1)));
    }
    let (first, last) = parse_bounds(spec, body, step.is_some())?;
    Ok(cycle(spec, first, last, step.unwrap_or(1)))
}

fn parse_bounds(spec: &FieldSpec, body: Token<'_>, has_step: bool) -> Result<(u16, u16), ScheduleError> {
    match body.text {
        "*" => return Ok((spec.min, spec.max)),
        "?" => {
            return Err(body.error(spec, "stands for `no rule` and only a day field may be that, alone; write `*`"));
        }
        _ => {}
    }
    let Some((first, last)) = body.split('-') else {
        let value = parse_value(spec, body)?;
        return Ok(if has_step { (alias(spec, value), spec.max) } else { (value, value) });
    };
    let (first, last) = (parse_value(spec, first)?, parse_value(spec, last)?);
    if first <= last {
        return Ok((first, last));
    }
    if !spec.wraps {
        return Err(body.error(spec, format!("runs backwards; write {last}-{first}")));
    }
    Ok((alias(spec, first), last))
}

/// 7 as Sunday is 0 when it starts something.
fn alias(spec: &FieldSpec, value: u16) -> u16 {
    if value > spec.max { spec.min } else { value }
}

/// Every `step`-th value from `first` to `last` inclusive, over the end of the cycle if `last` is smaller.
fn cycle(spec: &FieldSpec, first: u16, last: u16, step: u16) -> Vec<u16> {
    let length = spec.max - spec.min + 1;
    let last = if last < first { last + length } else { last };
    (first..=last).step_by(usize::from(step)).map(|value| spec.min + (value - spec.min) % length).collect()
}

/// `H`, `H/15`, `H(0-29)`, `H(0-29)/10`.
fn parse_spread(
    spec: &FieldSpec,
    body: Token<'_>,
    step: Option<u16>,
    spread: Spread,
) -> Result<Vec<u16>, ScheduleError> {
    let (first, last) = match body.from(1).text {
        "" => (spec.min, spec.spread_max),
        text if text.len() > 2 && text.starts_with('(') && text.ends_with(')') => {
            let inside = body.from(2).until(text.len() - 2);
            let Some((first, last)) = inside.split('-') else {
                return Err(inside.error(spec, "is no range; write H(first-last)"));
            };
            (parse_value(spec, first)?, parse_value(spec, last)?)
        }
        _ => {
            return Err(body.error(spec, "is no spread; write H, H/step, H(first-last) or H(first-last)/step"));
        }
    };
    let from = if first > last { alias(spec, first) } else { first };
    if from > last {
        let message = format!("runs backwards; write a range from low to high, as in H({last}-{first})");
        return Err(body.error(spec, message));
    }
    // `H(0-7)` names Sunday twice, and must not pick it twice as often.
    let (first, last) = (from, last.min(from + (spec.max - spec.min)));
    let count = last - first + 1;
    let Some(step) = step else {
        let picked = first + spread.pick(spec.slot, count);
        return Ok(cycle(spec, picked, picked, 1));
    };
    if step > count {
        let message = format!("has a step of {step}, but only {count} values to step over; write a smaller step");
        return Err(body.error(spec, message));
    }
    Ok(cycle(spec, first + spread.pick(spec.slot, step), last, step))
}

fn parse_step(spec: &FieldSpec, step: Token<'_>) -> Result<u16, ScheduleError> {
    let largest = if spec.min == 0 { spec.max_written } else { spec.max };
    match parse_number(step.text) {
        Some(0) => Err(step.error(spec, "is no step: it would stand still; write 1 or more")),
        Some(value) if value <= largest => Ok(value),
        Some(_) => Err(step.error(
            spec,
            format!(
                "is a step past the whole field, which leaves its first value alone; write that \
                 value, or a step up to {largest}"
            ),
        )),
        None => Err(step.error(spec, format!("is no step; write a number in 1-{largest}"))),
    }
}

/// Parses a number or a name, in the numbers of the dialect.
pub(super) fn parse_value(spec: &FieldSpec, token: Token<'_>) -> Result<u16, ScheduleError> {
    if token.text.is_empty() {
        return Err(token.error(spec, format!("is missing a value; write one in {}", range(spec))));
    }
    if token.text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match parse_number(token.text) {
            Some(value) if (spec.min..=spec.max_written).contains(&value) => Ok(value),
            Some(_) | None => Err(token.error(spec, format!("is out of range {}", range(spec)))),
        };
    }
    if token.text.len() >= 3 {
        for (value, name) in (spec.min..).zip(spec.names) {
            // Either the three-letter name or the whole one: anything between is a slip.
            if *name == token.text || name.get(..3) == Some(token.text) {
                return Ok(value);
            }
        }
    }
    let names = match spec.names {
        [first, .., last] => format!(" or a name from {} to {}", &first[..3], &last[..3]),
        _ => String::new(),
    };
    Err(token.error(spec, format!("is not understood; write a number in {}{names}", range(spec))))
}

fn parse_number(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { text.parse().ok() }
}

/// "0-7 (Sunday is 0 or 7)".
pub(super) fn range(spec: &FieldSpec) -> String {
    format!("{}-{}{}", spec.min, spec.max_written, spec.note)
}

/// The values as the `cron` crate reads them: a list, or `*` if there is nothing left out.
pub(super) fn cron_text(spec: &FieldSpec, values: &[u16]) -> String {
    if values.len() == usize::from(spec.max - spec.min + 1) {
        return "*".to_owned();
    }
    let values: Vec<String> = values.iter().map(u16::to_string).collect();
    values.join(",")
}
