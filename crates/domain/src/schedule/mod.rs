//! When a job fires: cron expressions in a time zone, fixed periods, single instants, and lists of them.
//!
//! Text becomes a typed rule, and a rule answers one question: the first fire strictly after an instant.
//! Not here: what is done about fires that were missed, and windows such as `notBefore`.
//! Invariant: pure. The same rule and the same time zone data give the same answer, on every machine.

mod absences;
mod civil;
mod cron;
mod day_fields;
mod days;
mod describe;
mod dst;
mod error;
mod every;
mod fields;
mod notes;
mod shifts;
mod spread;
mod zone;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_absences;
#[cfg(test)]
mod tests_clock;
#[cfg(test)]
mod tests_errors;
#[cfg(test)]
mod tests_notes;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::time;

pub use absences::absence;
pub use cron::CronRule;
pub use describe::{Description, Lint, SpreadBy, Written, describe, describe_at, describe_every, period_text};
pub use dst::ClockEffect;
pub use error::ScheduleError;
pub use every::{AtRule, EveryRule};
pub use notes::note;
pub use spread::has_spread;
pub(crate) use zone::find_zone;
pub use zone::{is_bundled_zone, zone};

/// How a cron expression is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// Crontab's: 5 fields, 6 with seconds first, 7 with the year last; Sunday is 0 or 7; day of month OR weekday.
    #[default]
    Unix,
    /// Quartz's: 6 fields with seconds first, 7 with the year; Sunday is 1; day of month AND weekday.
    Quartz,
}

/// What becomes of a fixed wall-clock time that a clock change leaves out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gap {
    /// It fires at the instant the gap ends; once, however many times of one expression the gap swallowed.
    #[default]
    Shift,
    /// It does not fire.
    Skip,
}

/// When a fixed wall-clock time fires that a clock change repeats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fold {
    /// The first time only.
    #[default]
    First,
    /// The last time only.
    Last,
    /// Both times.
    Both,
}

/// One rule of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A cron expression.
    Cron(CronRule),
    /// A fixed period.
    Every(EveryRule),
    /// One instant.
    At(AtRule),
}

impl Rule {
    /// The first fire strictly after `after`.
    pub fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Rule::Cron(rule) => rule.next_after(after),
            Rule::Every(rule) => rule.next_after(after),
            Rule::At(rule) => rule.next_after(after),
        }
    }
}

/// The first instant strictly after `after` that any of the rules names. An instant that several rules name is one
/// fire: asking again from it finds the next one.
pub fn next_of(rules: &[Rule], after: Timestamp) -> Option<Timestamp> {
    rules.iter().filter_map(|rule| rule.next_after(after)).min()
}

/// What bounds the fire times of a schedule.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The first instant that may be one, inclusive.
    pub not_before: Option<time::Timestamp>,
    /// The end, exclusive.
    pub not_after: Option<time::Timestamp>,
}

impl Bounds {
    /// The later of `after` and the last instant before the bounds: what comes after it is not too early.
    #[must_use]
    pub fn start(self, after: time::Timestamp) -> time::Timestamp {
        self.not_before.map_or(after, |bound| after.max(time::Timestamp::from_millis(bound.millis() - 1)))
    }

    /// True if the instant is not too late.
    #[must_use]
    pub fn is_before_end(self, instant: time::Timestamp) -> bool {
        self.not_after.is_none_or(|bound| instant < bound)
    }
}

/// The first instant strictly after `after` that any of the rules names within the bounds.
pub fn next_within(rules: &[Rule], bounds: Bounds, after: time::Timestamp) -> Option<time::Timestamp> {
    let next = next_of(rules, bounds.start(after).to_jiff()).map(time::Timestamp::from)?;
    bounds.is_before_end(next).then_some(next)
}

/// Parses what may stand where a cron expression does: one, or `@every` and a period, which is anchored at the Unix
/// epoch and so the same on every machine. The other arguments are those of [`CronRule::parse`].
///
/// # Errors
/// Those of [`CronRule::parse`], and field `every` for a period that can't be read or kept.
pub fn parse_rule(
    expression: &str,
    dialect: Dialect,
    zone: &str,
    gap: Gap,
    fold: Fold,
    spread_seed: &str,
) -> Result<Rule, ScheduleError> {
    let trimmed = expression.trim();
    match trimmed.split_once(|character: char| character.is_ascii_whitespace()) {
        Some((word, period)) if word.eq_ignore_ascii_case("@every") => parse_period(period.trim()).map(Rule::Every),
        Some(_) | None => CronRule::parse(expression, dialect, zone, gap, fold, spread_seed).map(Rule::Cron),
    }
}

fn parse_period(text: &str) -> Result<EveryRule, ScheduleError> {
    let wrong = |message: &str| ScheduleError::new("every", text, None, message);
    let period: SignedDuration =
        text.parse().map_err(|_| wrong("is no period; write hours, minutes and seconds, as in 90s or 1h30m"))?;
    let period = period.try_into().map_err(|_| wrong("is negative; write a period of at least 1ms"))?;
    let mut rule = EveryRule::new(period, Timestamp::UNIX_EPOCH);
    if let Err(error) = &mut rule {
        text.clone_into(&mut error.value);
    }
    rule
}
