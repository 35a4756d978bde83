//! A schedule in plain English: one sentence that is true of it, and hints about what it may not be meant to do.
//!
//! The sentence is made from the sets of values, not from the text, so `MON-FRI` and `1-5` have the same.
//! Not here: fire times and the notes on them (`notes.rs`).
//! Invariant: two expressions with the same sentence fire at the same instants from 1970 to 2100.

mod dates;
mod lints;
mod time_of_day;
mod words;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_lints;
#[cfg(test)]
mod tests_property;

use std::time::Duration;

use jiff::Timestamp;

use super::cron::{self, Fields};
use super::dst::{ClockChange, Walk};
use super::error::ScheduleError;
use super::shifts::{Shift, any_match, shifts};
use super::spread::Spread;
use super::{AtRule, CronRule, Dialect, EveryRule, Fold, Gap, Rule, parse_rule};
use words::counted;

pub(super) use words::join;

pub use lints::Lint;

/// 2101-01-04: after the last fire that a cron expression can have, in any zone.
const LATEST_SECOND: i64 = 4_134_240_000;
/// Areas whose cities need no country beside them.
const AREAS: [&str; 10] =
    ["Africa", "America", "Antarctica", "Arctic", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"];

/// What `H` was a hash of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpreadBy {
    /// The name of the job.
    Job,
    /// The expression itself, as there is no job yet.
    Expression,
}

/// A cron expression, or `@every` and a period, with all that its meaning depends on.
#[derive(Debug, Clone, Copy)]
pub struct Written<'a> {
    /// The expression, as written.
    pub expression: &'a str,
    /// How it is read.
    pub dialect: Dialect,
    /// Name of the time zone.
    pub zone: &'a str,
    /// What becomes of a time that a clock change leaves out.
    pub gap: Gap,
    /// When a time fires that a clock change repeats.
    pub fold: Fold,
    /// What `H` is a hash of: the text.
    pub spread_seed: &'a str,
    /// What `H` is a hash of: its kind.
    pub spread_by: SpreadBy,
}

/// An expression in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// "at 02:30 on Monday through Friday, Berlin time".
    pub sentence: String,
    /// What the writer may not have meant, at most one of each kind.
    pub lints: Vec<Lint>,
    /// The rule itself.
    pub rule: Rule,
}

/// Puts an expression into words. Clock changes within a year of `now` are looked at for hints.
///
/// # Errors
/// Those of [`parse_rule`].
pub fn describe(written: &Written<'_>, now: Timestamp) -> Result<Description, ScheduleError> {
    let Written { expression, dialect, zone, gap, fold, spread_seed, .. } = *written;
    let parsed = parse_rule(expression, dialect, zone, gap, fold, spread_seed)?;
    let plain = |sentence, rule| Description { sentence, lints: Vec::new(), rule };
    let rule = match parsed {
        Rule::Cron(rule) => rule,
        Rule::Every(rule) => return Ok(plain(describe_every(&rule), Rule::Every(rule))),
        Rule::At(rule) => return Ok(plain(describe_at(&rule), Rule::At(rule))),
    };
    let upper = cron::check_text(expression)?;
    let text = cron::expand_alias(&upper, dialect)?;
    let fields = Fields::parse(&text, dialect, Spread::new(spread_seed))?;
    let sentence = sentence(&fields, &rule, written.spread_by);
    let has_seconds_field = text.split_ascii_whitespace().count() > 5;
    let lints = lints::lints(&fields, has_seconds_field, &rule, written, now);
    Ok(Description { sentence, lints, rule: Rule::Cron(rule) })
}

/// A period in words, with the instant that it is counted from.
pub fn describe_every(rule: &EveryRule) -> String {
    let from = Timestamp::from_millisecond(rule.anchor_ms()).unwrap_or(Timestamp::UNIX_EPOCH);
    let period = period_text(rule.period());
    format!(
        "every {}, counted from {from}",
        period.strip_prefix("1 ").filter(|unit| !unit.contains(' ')).unwrap_or(&period)
    )
}

/// An instant in words.
pub fn describe_at(rule: &AtRule) -> String {
    format!("once, at {}", rule.at())
}

/// "1 hour 30 minutes", to the millisecond.
pub fn period_text(period: Duration) -> String {
    let seconds = period.as_secs();
    let parts = [
        (seconds / 3600, "hour"),
        (seconds / 60 % 60, "minute"),
        (seconds % 60, "second"),
        (u64::from(period.subsec_millis()), "millisecond"),
    ];
    let parts: Vec<String> =
        parts.into_iter().filter(|(count, _)| *count > 0).map(|(count, unit)| counted(count, unit)).collect();
    if parts.is_empty() { "0 seconds".to_owned() } else { parts.join(" ") }
}

fn sentence(fields: &Fields<'_>, rule: &CronRule, spread_by: SpreadBy) -> String {
    let is_daily = dates::is_daily(fields);
    let time = time_of_day::time_of_day(fields, is_daily);
    let mut sentence = time.text;
    if dates::Days::of(fields) == dates::Days::Any && !time.is_all_day {
        sentence.push_str(" every day");
    }
    sentence.push_str(&dates::dates(fields));
    let zone = rule.zone_name();
    // A step through every hour of every day needs a zone only to tell it from the same step in another.
    if zone != "UTC" || !time.is_all_day || !is_daily {
        sentence.push_str(", ");
        sentence.push_str(&zone_text(zone));
    }
    for clause in clock_clauses(&rule.walk(), time.is_recurring) {
        sentence.push_str(", ");
        sentence.push_str(clause);
    }
    sentence + &spread_clause(fields, spread_by)
}

/// "Berlin time"; outside the areas that have cities, the name in full: `US/Eastern` and `Canada/Eastern` are two.
fn zone_text(name: &str) -> String {
    match name.split_once('/') {
        None if name == "UTC" => name.to_owned(),
        Some((area, rest)) if AREAS.contains(&area) => {
            format!("{} time", rest.rsplit('/').next().unwrap_or(rest).replace('_', " "))
        }
        Some(_) | None => format!("{name} time"),
    }
}

/// What clock changes do to the rule, where the words before don't say it and it ever comes to bear. "At 02:30" is
/// heard as once a day, made up for if it is left out; "every hour" as real hours.
fn clock_clauses(walk: &Walk<'_>, is_recurring: bool) -> Vec<&'static str> {
    let (gap, fold) = match walk.clock_change {
        ClockChange::Fixed { gap, fold } => (gap, fold),
        // To follow the clock is to skip what it skips and repeat what it repeats.
        ClockChange::Follow => (Gap::Skip, Fold::Both),
    };
    let gap_clause = match (is_recurring, gap) {
        (true, Gap::Shift) => Some("once when a gap ends for the times that clocks skipped"),
        (false, Gap::Skip) => Some("not on days when clocks skip it"),
        (true, Gap::Skip) | (false, Gap::Shift) => None,
    };
    let fold_clause = match (is_recurring, fold) {
        (true, Fold::First) => Some("only the first time when clocks repeat it"),
        (_, Fold::Last) => Some("only the second time when clocks repeat it"),
        (false, Fold::Both) => Some("both times when clocks repeat it"),
        (true, Fold::Both) | (false, Fold::First) => None,
    };
    let mut clauses = Vec::new();
    if gap_clause.is_none() && fold_clause.is_none() {
        return clauses;
    }
    let bounds = (Timestamp::from_second(cron::EARLIEST_SECOND), Timestamp::from_second(LATEST_SECOND));
    let (Ok(earliest), Ok(latest)) = bounds else { return clauses };
    let shifts: Vec<Shift> = shifts(walk.zone, earliest, latest);
    for (is_gap, clause) in [(true, gap_clause), (false, fold_clause)] {
        let matters = || any_match(shifts.iter().copied().filter(|shift| shift.is_gap() == is_gap), walk.matcher);
        clauses.extend(clause.filter(|_| matters()));
    }
    clauses
}

/// "; the minute and the hour were chosen by a hash of the job's name".
fn spread_clause(fields: &Fields<'_>, spread_by: SpreadBy) -> String {
    let names = ["second", "minute", "hour", "day of the month", "month", "weekday", "year"];
    let spread: Vec<String> = names
        .iter()
        .zip(&fields.tokens)
        .filter(|(_, token)| token.items().any(|item| item.text.starts_with('H')))
        .map(|(name, _)| format!("the {name}"))
        .collect();
    let verb = match spread.len() {
        0 => return String::new(),
        1 => "was",
        _ => "were",
    };
    let by = match spread_by {
        SpreadBy::Job => "the job's name",
        SpreadBy::Expression => "this expression, as there is no job",
    };
    format!("; {} {verb} chosen by a hash of {by}", words::join(&spread, "and"))
}
