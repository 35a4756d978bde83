//! Day of the month and weekday: the two fields that know `?`, `L`, `W` and `#` besides numbers and names.
//!
//! Not here: numbers, names, ranges, steps and `H` (`fields.rs`) and what the special days mean (`days.rs`).

use super::Dialect;
use super::days::{MonthDays, Weekdays};
use super::error::ScheduleError;
use super::fields::{self, FieldSpec, MONTH_DAY, Token, WEEKDAY_QUARTZ, WEEKDAY_UNIX};
use super::spread::Spread;

/// A parsed day field.
#[derive(Debug, Clone, Copy)]
pub(super) struct DayField<T> {
    pub(super) days: T,
    /// The field says nothing (`*`, `?`) or starts with `*`: crontab then joins the two day fields by AND.
    pub(super) is_unrestricted: bool,
}

/// Parses a day of the month: numbers, `L`, `L-3`, `LW`, `L-3W`, `15W`, `?`.
pub(super) fn parse_month_days(
    dialect: Dialect,
    field: Token<'_>,
    spread: Spread,
) -> Result<DayField<MonthDays>, ScheduleError> {
    if field.text == "?" {
        return Ok(DayField { days: MonthDays::ANY, is_unrestricted: true });
    }
    let mut days = MonthDays::default();
    for item in field.items() {
        if item.text.starts_with('L') {
            let (back, is_nearest) = parse_from_last(item)?;
            let set = if is_nearest { &mut days.nearest_from_last } else { &mut days.from_last };
            *set |= 1 << back;
        } else if let Some(day) = item.text.strip_suffix('W') {
            if day.is_empty() {
                return Err(item.error(&MONTH_DAY, "names no day; write 15W for the weekday nearest to day 15, or LW"));
            }
            days.nearest |= 1 << fields::parse_value(&MONTH_DAY, item.until(day.len()))?;
        } else {
            for value in fields::parse_item(dialect, &MONTH_DAY, item, spread)? {
                days.plain |= 1 << value;
            }
        }
    }
    Ok(DayField { days, is_unrestricted: field.text.starts_with('*') })
}

/// `L`, `L-3`, `LW` or `L-3W`: how far from the last day, and if the nearest weekday is meant.
fn parse_from_last(item: Token<'_>) -> Result<(u16, bool), ScheduleError> {
    const WRITE: &str =
        "is not understood; write L (last day), L-3 (three days before it), LW or L-3W (nearest weekday)";
    let (body, is_nearest) = match item.text.strip_suffix('W') {
        Some(body) => (item.until(body.len()), true),
        None => (item, false),
    };
    let rest = body.from(1);
    if rest.text.is_empty() {
        return Ok((0, is_nearest));
    }
    let digits = rest.text.strip_prefix('-').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.map(str::parse::<u16>) {
        Some(Ok(back)) if back <= 30 => Ok((back, is_nearest)),
        Some(Ok(_)) => Err(item.error(&MONTH_DAY, "goes back more than a month; write L-0 to L-30")),
        Some(Err(_)) | None => Err(item.error(&MONTH_DAY, WRITE)),
    }
}

/// Parses a weekday: numbers, names, `5L`, `FRIL`, `MON#2`, `?`, and in Quartz `L` for Saturday.
pub(super) fn parse_weekdays(
    dialect: Dialect,
    field: Token<'_>,
    spread: Spread,
) -> Result<DayField<Weekdays>, ScheduleError> {
    if field.text == "?" {
        return Ok(DayField { days: Weekdays::ANY, is_unrestricted: true });
    }
    let spec = weekday_spec(dialect);
    let mut days = Weekdays::default();
    for item in field.items() {
        if let Some((weekday, nth)) = item.split('#') {
            let weekday = weekday_bit(spec, fields::parse_value(spec, weekday)?);
            let week = match nth.text.as_bytes() {
                [digit @ b'1'..=b'5'] => usize::from(digit - b'1'),
                _ => {
                    return Err(nth.error(spec, "is no week of a month; write 1-5 after the `#`, as in MON#2"));
                }
            };
            days.nth[week] |= weekday;
        } else if item.text == "L" {
            if dialect == Dialect::Unix {
                return Err(item.error(spec, "names no weekday; write 5L for the last Friday of the month"));
            }
            days.plain |= 1 << 6;
        } else if let Some(weekday) = item.text.strip_suffix('L') {
            days.last |= weekday_bit(spec, fields::parse_value(spec, item.until(weekday.len()))?);
        } else {
            for value in fields::parse_item(dialect, spec, item, spread)? {
                days.plain |= weekday_bit(spec, value);
            }
        }
    }
    Ok(DayField { days, is_unrestricted: field.text.starts_with('*') })
}

pub(super) fn weekday_spec(dialect: Dialect) -> &'static FieldSpec {
    match dialect {
        Dialect::Unix => &WEEKDAY_UNIX,
        Dialect::Quartz => &WEEKDAY_QUARTZ,
    }
}

/// The dialect's number as a bit, Sunday = bit 0.
fn weekday_bit(spec: &FieldSpec, value: u16) -> u8 {
    1 << ((value - spec.min) % 7)
}
