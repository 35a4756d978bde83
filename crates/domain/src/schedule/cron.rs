//! Cron expressions: from the text to a rule, and from the rule to its next fire.
//!
//! The front end knows the dialects and our extensions; it hands the `cron` crate plain fields in that crate's own
//! grammar, to be parsed and searched on civil time. Not here: clock changes (`dst.rs`).
//! Invariant: a rule that was accepted fires at least once between 1970 and 2100.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::civil::{CivilMatcher, Search};
use super::day_fields::{self, DayField};
use super::days::{DayFilter, MonthDays, Weekdays};
use super::dst::{ClockChange, ClockEffect, Walk};
use super::error::ScheduleError;
use super::fields::{self, HOUR, MINUTE, MONTH, MONTH_DAY, SECOND, Token, WEEKDAY_QUARTZ, YEAR};
use super::spread::Spread;
use super::zone::find_zone;
use super::{Dialect, Fold, Gap};

/// Longer expressions are refused: the longest useful one names 60 seconds, 60 minutes and 24 hours.
const CHARACTERS_MAX: usize = 1024;
/// Where every search starts that has no lower bound: no civil time of 1970 is earlier in UTC.
pub(super) const EARLIEST_SECOND: i64 = -2 * 86_400;

/// A parsed cron expression in its time zone. Cloning shares it.
///
/// Two rules are equal if they were written to mean the same: `0 0 * * SUN` equals `@weekly`. A set of them is how
/// a million jobs share the few rules they have between them; that is why a rule does not keep its text.
#[derive(Clone, PartialEq, Eq)]
pub struct CronRule {
    inner: Arc<Inner>,
}

#[derive(PartialEq, Eq)]
struct Inner {
    zone: TimeZone,
    clock_change: ClockChange,
    matcher: CivilMatcher,
}

impl CronRule {
    /// Parses an expression. `zone` is a name of the system's time zone database; `spread_seed` is what `H` is a hash
    /// of, usually the job's id. Years are 1970 to 2100, both inclusive. Whether all fires have passed is the
    /// caller's to judge: this module has no clock.
    ///
    /// # Errors
    /// Names the field, the characters and the fix; field `cron` if the expression can never fire, `timeZone` if the
    /// zone is unknown.
    pub fn parse(
        expression: &str,
        dialect: Dialect,
        zone: &str,
        gap: Gap,
        fold: Fold,
        spread_seed: &str,
    ) -> Result<CronRule, ScheduleError> {
        let upper = check_text(expression)?;
        let spread = Spread::new(spread_seed);
        let text = expand_alias(&upper, dialect)?;
        let fields = Fields::parse(&text, dialect, spread).map_err(|error| as_written(error, expression, &upper))?;
        let matcher = fields.matcher()?.ok_or_else(|| never_fires(expression))?;
        if matcher.next(EARLIEST_SECOND).is_none() {
            return Err(never_fires(expression));
        }
        let zone = find_zone(zone)?;
        let clock_change = if fields.is_wildcard() { ClockChange::Follow } else { ClockChange::Fixed { gap, fold } };
        let inner = Inner { zone, clock_change, matcher };
        let rule = CronRule { inner: Arc::new(inner) };
        if rule.next_after(Timestamp::MIN).is_none() {
            let message =
                "can never fire: clock changes swallow every time it names; write `gap: shift` or another time";
            return Err(ScheduleError::new("cron", expression.trim(), None, message));
        }
        Ok(rule)
    }

    /// The first fire strictly after `after`, a whole second; none after the year 2100.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let at = self.walk().next_after(floor_second(after).max(EARLIEST_SECOND))?;
        Timestamp::from_second(at).ok()
    }

    /// What a clock change has to do with a fire of this rule, for people who wonder at its local time.
    pub fn effect_at(&self, fire: Timestamp) -> ClockEffect {
        self.walk().effect_at(fire)
    }

    pub(super) fn walk(&self) -> Walk<'_> {
        let inner = &*self.inner;
        Walk { matcher: &inner.matcher, zone: &inner.zone, clock_change: inner.clock_change }
    }

    /// The name of the time zone.
    pub fn zone_name(&self) -> &str {
        self.inner.zone.iana_name().unwrap_or("UTC")
    }
}

impl fmt::Debug for CronRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CronRule")
            .field("zone", &self.zone_name())
            .field("clock_change", &self.inner.clock_change)
            .field("matcher", &self.inner.matcher)
            .finish()
    }
}

impl Hash for CronRule {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.inner.matcher.hash(hasher);
        self.inner.clock_change.hash(hasher);
        self.zone_name().hash(hasher);
    }
}

/// Refuses what no dialect can mean, and returns the text in upper case. Positions stay what they were.
pub(super) fn check_text(expression: &str) -> Result<String, ScheduleError> {
    let error = |value: &str, column, message: &str| Err(ScheduleError::new("cron", value, column, message));
    if expression.trim().is_empty() {
        return error(expression, None, "is empty; write five fields, as in `30 2 * * *`");
    }
    if expression.len() > CHARACTERS_MAX {
        let shown: String = expression.chars().take(32).collect();
        return error(
            &shown,
            Some(1),
            &format!("starts an expression of over {CHARACTERS_MAX} characters; use ranges and steps"),
        );
    }
    let is_wrong = |(_, character): &(usize, char)| !character.is_ascii_graphic() && !matches!(character, ' ' | '\t');
    if let Some((position, character)) = expression.chars().enumerate().find(is_wrong) {
        return error(
            &character.escape_debug().to_string(),
            Some(position + 1),
            "is no character of an expression; remove it",
        );
    }
    let upper = expression.to_ascii_uppercase();
    let first = upper.split_ascii_whitespace().next().unwrap_or("");
    if first.starts_with("TZ=") || first.starts_with("CRON_TZ=") {
        return error(first, Some(1), "is not part of an expression; set `timeZone` instead");
    }
    Ok(upper)
}

/// Replaces `@daily` and its kin by the fields they stand for.
pub(super) fn expand_alias(upper: &str, dialect: Dialect) -> Result<String, ScheduleError> {
    let trimmed = upper.trim();
    let column = upper.find('@').map(|at| at + 1);
    let fields = match trimmed {
        "@HOURLY" => "0 * * * *",
        "@DAILY" | "@MIDNIGHT" => "0 0 * * *",
        "@WEEKLY" => "0 0 * * SUN",
        "@MONTHLY" => "0 0 1 * *",
        "@YEARLY" | "@ANNUALLY" => "0 0 1 1 *",
        _ if !trimmed.starts_with('@') => return Ok(upper.to_owned()),
        "@REBOOT" => {
            let message = "means the start of one machine, and there is none here; name a time, or trigger the job";
            return Err(ScheduleError::new("cron", "@reboot", column, message));
        }
        _ if trimmed.starts_with("@EVERY") => {
            let message = "is no cron expression; write it as `every: 90s`";
            return Err(ScheduleError::new("cron", &trimmed.to_ascii_lowercase(), column, message));
        }
        _ => {
            let message = "is no known schedule; write @hourly, @daily, @midnight, @weekly, @monthly, @yearly, \
                           @annually or @every 90s";
            return Err(ScheduleError::new("cron", &trimmed.to_ascii_lowercase(), column, message));
        }
    };
    Ok(match dialect {
        Dialect::Unix => fields.to_owned(),
        Dialect::Quartz => format!("0 {fields}"),
    })
}

/// The fields of an expression as sets of values; a field that was not written has what it stands for.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    pub(super) dialect: Dialect,
    /// Second, minute, hour, day of month, month, weekday, year, as written.
    pub(super) tokens: [Token<'a>; 7],
    pub(super) second: Vec<u16>,
    pub(super) minute: Vec<u16>,
    pub(super) hour: Vec<u16>,
    pub(super) month_days: DayField<MonthDays>,
    pub(super) month: Vec<u16>,
    pub(super) weekdays: DayField<Weekdays>,
    pub(super) year: Vec<u16>,
}

impl<'a> Fields<'a> {
    /// Reads what [`expand_alias`] gave.
    pub(super) fn parse(text: &'a str, dialect: Dialect, spread: Spread) -> Result<Fields<'a>, ScheduleError> {
        let mut tokens = tokens_of(text);
        let count = tokens.len();
        let fits = match dialect {
            Dialect::Unix => (5..=7).contains(&count),
            Dialect::Quartz => (6..=7).contains(&count),
        };
        if !fits {
            return Err(wrong_count(text, dialect, count));
        }
        if count == 5 {
            tokens.insert(0, Token { text: "0", column: 1 });
        }
        if count < 7 {
            tokens.push(Token { text: "*", column: 1 });
        }
        let [second, minute, hour, month_day, month, weekday, year] = tokens[..] else {
            return Err(wrong_count(text, dialect, count));
        };
        let fields = Fields {
            dialect,
            tokens: [second, minute, hour, month_day, month, weekday, year],
            second: fields::parse_values(dialect, &SECOND, second, spread)?,
            minute: fields::parse_values(dialect, &MINUTE, minute, spread)?,
            hour: fields::parse_values(dialect, &HOUR, hour, spread)?,
            month_days: day_fields::parse_month_days(dialect, month_day, spread)?,
            month: fields::parse_values(dialect, &MONTH, month, spread)?,
            weekdays: day_fields::parse_weekdays(dialect, weekday, spread)?,
            year: fields::parse_values(dialect, &YEAR, year, spread)?,
        };
        if dialect == Dialect::Quartz && month_day.text == "?" && weekday.text == "?" {
            let message = "leaves no day to fire on, as dayOfMonth is `?` too; write `*` in one of them";
            return Err(weekday.error(&WEEKDAY_QUARTZ, message));
        }
        Ok(fields)
    }

    /// The minute or the hour starts with `*`, or with the `/` that is short for `*/` in Quartz's dialect.
    pub(super) fn is_wildcard(&self) -> bool {
        let [_, minute, hour, ..] = self.tokens;
        minute.text.starts_with(['*', '/']) || hour.text.starts_with(['*', '/'])
    }

    /// A date has to fit one of the two day fields, not both.
    pub(super) fn is_either_day(&self) -> bool {
        self.dialect == Dialect::Unix && !self.month_days.is_unrestricted && !self.weekdays.is_unrestricted
    }

    /// None if the two day fields exclude each other.
    fn matcher(&self) -> Result<Option<CivilMatcher>, ScheduleError> {
        let time = [(&SECOND, &self.second), (&MINUTE, &self.minute), (&HOUR, &self.hour)];
        let around = Around {
            time: time.map(|(spec, values)| fields::cron_text(spec, values) + " ").concat(),
            month: fields::cron_text(&MONTH, &self.month),
            year: fields::cron_text(&YEAR, &self.year),
        };
        around.matcher(self.is_either_day(), self.month_days.days, self.weekdays.days)
    }
}

/// The fields around the days, in the grammar of the `cron` crate.
struct Around {
    time: String,
    month: String,
    year: String,
}

impl Around {
    fn matcher(
        &self,
        is_either_day: bool,
        month_days: MonthDays,
        weekdays: Weekdays,
    ) -> Result<Option<CivilMatcher>, ScheduleError> {
        if !is_either_day {
            let both = self.search(month_days, weekdays)?;
            return Ok(both.map(|first| CivilMatcher { first, second: None }));
        }
        let by_month_day = self.search(month_days, Weekdays::ANY)?;
        let by_weekday = self.search(MonthDays::ANY, weekdays)?;
        Ok(match (by_month_day, by_weekday) {
            (Some(first), second) => Some(CivilMatcher { first, second }),
            (None, second) => second.map(|first| CivilMatcher { first, second: None }),
        })
    }

    /// One search for dates that both accept; none if no day of the month can.
    fn search(&self, month_days: MonthDays, weekdays: Weekdays) -> Result<Option<Search>, ScheduleError> {
        let reach = month_days.reach() & weekdays.reach_in_month();
        if reach == 0 || weekdays.reach() == 0 {
            return Ok(None);
        }
        let days: Vec<u16> = (1..=31).filter(|day| reach & (1 << day) != 0).collect();
        // The `cron` crate counts as Quartz does: Sunday is 1.
        let names: Vec<u16> = (1..=7).filter(|day| weekdays.reach() & (1 << (day - 1)) != 0).collect();
        let text = format!(
            "{}{} {} {} {}",
            self.time,
            fields::cron_text(&MONTH_DAY, &days),
            self.month,
            fields::cron_text(&WEEKDAY_QUARTZ, &names),
            self.year,
        );
        // The front end has checked every value, so this can't fail; if it does, the reason must not be lost.
        let schedule = cron::Schedule::from_str(&text)
            .map_err(|error| ScheduleError::new("cron", &text, None, format!("is not understood: {error}")))?;
        let is_plain = month_days.is_plain() && weekdays.is_plain();
        Ok(Some(Search { schedule, filter: (!is_plain).then_some(DayFilter { month_days, weekdays }) }))
    }
}

fn tokens_of(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = None;
    // One blank after the end closes the last token.
    for (position, byte) in text.bytes().chain([b' ']).enumerate() {
        let is_blank = byte.is_ascii_whitespace();
        match start {
            None if !is_blank => start = Some(position),
            Some(from) if is_blank => {
                tokens.push(Token { text: &text[from..position], column: from + 1 });
                start = None;
            }
            None | Some(_) => {}
        }
    }
    tokens
}

fn wrong_count(text: &str, dialect: Dialect, count: usize) -> ScheduleError {
    let has = if count == 1 { "has 1 field".to_owned() } else { format!("has {count} fields") };
    let wants = match (dialect, count) {
        (Dialect::Quartz, 5) => "quartz starts with seconds: put `0` in front, or use `dialect: unix`",
        (Dialect::Quartz, _) => "quartz takes 6 (second minute hour day-of-month month weekday) or 7 (with a year)",
        (Dialect::Unix, _) => "write 5 (minute hour day-of-month month weekday), 6 (seconds first) or 7 (year last)",
    };
    ScheduleError::new("cron", text.trim(), None, format!("{has}; {wants}"))
}

fn never_fires(expression: &str) -> ScheduleError {
    let message = "can never fire: no date from 1970 to 2100 has such a day; check day, month, weekday and year";
    ScheduleError::new("cron", expression.trim(), None, message)
}

/// Errors quote the text as the user wrote it, not in our upper case.
fn as_written(mut error: ScheduleError, expression: &str, upper: &str) -> ScheduleError {
    let from = error.column.map_or(0, |column| column - 1);
    let range = from..from + error.value.len();
    if upper.get(range.clone()) == Some(error.value.as_str()) {
        error.value = expression.get(range).unwrap_or(&error.value).to_owned();
    } else if upper.trim() == error.value {
        error.value = expression.trim().to_owned();
    }
    error
}

/// Seconds rounded towards the past: jiff truncates towards the epoch.
fn floor_second(instant: Timestamp) -> i64 {
    if instant.subsec_nanosecond() < 0 { instant.as_second() - 1 } else { instant.as_second() }
}
