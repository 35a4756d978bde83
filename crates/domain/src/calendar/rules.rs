//! What the calendars of a schedule say of its fire times. Not here: the fire times themselves (`schedule`).
//! Invariant: a fire time is left out if and only if every rule that names it leaves it out.

use std::collections::BTreeMap;
use std::fmt;

use jiff::civil::Date;
use jiff::tz::TimeZone;

use crate::id::CalendarName;
use crate::job::ScheduleRule;
use crate::schedule::{self, Rule};
use crate::time::Timestamp;

use super::set::{CalendarSet, Unresolved, date_of};

/// Days that are left out in a row before the search for a fire time gives up: ten years.
const DAYS_LOOKED_AT_MAX: usize = 3_660;

/// The calendars that one rule names.
#[derive(Debug, Clone, PartialEq)]
pub struct RuleCalendars {
    exclude: Vec<CalendarName>,
    only: Vec<CalendarName>,
    zone: TimeZone,
}

/// The calendars that a schedule names, rule by rule.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleCalendars {
    /// One for each rule that a clock answers, in their order.
    by_clock: Vec<RuleCalendars>,
    after_finish: Option<RuleCalendars>,
}

/// Why a fire time is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exclusion {
    /// It is on a day of a calendar of `exclude`.
    Excluded {
        /// The calendar.
        calendar: CalendarName,
        /// The day, in the zone of the rule.
        date: Date,
    },
    /// It is on no day of the calendars of `only`.
    NotOnly {
        /// Those calendars; one or more.
        calendars: Vec<CalendarName>,
        /// The day, in the zone of the rule.
        date: Date,
    },
    /// Nothing is known of the days of a calendar.
    Unknown(Unresolved),
}

impl fmt::Display for Exclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Excluded { calendar, date } => write!(f, "{date} is left out by calendar {calendar}"),
            Self::NotOnly { calendars, date } => write!(f, "{date} is not in {}", listed(calendars, "or")),
            Self::Unknown(unresolved) => unresolved.fmt(f),
        }
    }
}

/// `calendar a`, or `calendars a, b or c`.
fn listed(names: &[CalendarName], last: &str) -> String {
    let texts: Vec<&str> = names.iter().map(CalendarName::as_str).collect();
    match texts.split_last() {
        Some((one, [])) => format!("calendar {one}"),
        Some((end, others)) => format!("calendars {} {last} {end}", others.join(", ")),
        None => String::new(),
    }
}

impl RuleCalendars {
    fn of(rule: &ScheduleRule) -> Self {
        let (exclude, only) = rule.calendars();
        let zone = match rule {
            // A zone that nobody knows any more leaves the rule without fire times, so that nothing is asked.
            ScheduleRule::CronRule(cron) => schedule::zone(&cron.time_zone).unwrap_or(TimeZone::UTC),
            ScheduleRule::EveryRule(_) | ScheduleRule::AtRule(_) | ScheduleRule::AfterFinishRule(_) => TimeZone::UTC,
        };
        Self { exclude: exclude.to_vec(), only: only.to_vec(), zone }
    }

    /// What a rule's sentence adds for its calendars: `, except on days of calendar holidays`; else nothing.
    #[must_use]
    pub fn sentence(rule: &ScheduleRule) -> String {
        let (exclude, only) = rule.calendars();
        let mut sentence = String::new();
        if !only.is_empty() {
            sentence.push_str(&format!(", only on days of {}", listed(only, "or")));
        }
        if !exclude.is_empty() {
            sentence.push_str(&format!(", except on days of {}", listed(exclude, "and")));
        }
        sentence
    }

    /// Why this rule leaves an instant out; `None` if it does not.
    fn exclusion(&self, set: &CalendarSet, at: Timestamp) -> Option<Exclusion> {
        self.find_exclusion(set, at).unwrap_or_else(|unresolved| Some(Exclusion::Unknown(unresolved)))
    }

    fn find_exclusion(&self, set: &CalendarSet, at: Timestamp) -> Result<Option<Exclusion>, Unresolved> {
        let date = || date_of(at, &self.zone);
        for calendar in &self.exclude {
            if set.covers(calendar, at, &self.zone)? {
                return Ok(Some(Exclusion::Excluded { calendar: calendar.clone(), date: date() }));
            }
        }
        let mut is_in_one = self.only.is_empty();
        for calendar in &self.only {
            is_in_one |= set.covers(calendar, at, &self.zone)?;
        }
        Ok((!is_in_one).then(|| Exclusion::NotOnly { calendars: self.only.clone(), date: date() }))
    }

    /// The first instant after `at` at which the date may be another one for any calendar concerned.
    fn next_day(&self, set: &CalendarSet, at: Timestamp) -> Option<Timestamp> {
        let calendars = self.exclude.iter().chain(&self.only).filter_map(|name| set.all_of(name).ok()).flatten();
        let zones = calendars.filter_map(|calendar| calendar.zone.as_ref()).chain([&self.zone]);
        let midnight = |zone: &TimeZone| {
            let tomorrow = date_of(at, zone).tomorrow().ok()?;
            zone.to_ambiguous_timestamp(tomorrow.at(0, 0, 0, 0)).compatible().ok().map(Timestamp::from)
        };
        zones.filter_map(midnight).filter(|midnight| *midnight > at).min()
    }

    /// The first fire time of a rule after `after` that its calendars let through. Gives up after ten years of days.
    fn next_after(&self, set: &CalendarSet, rule: &Rule, after: Timestamp) -> Option<Timestamp> {
        let mut after = after;
        for _ in 0..DAYS_LOOKED_AT_MAX {
            let at = rule.next_after(after.to_jiff()).map(Timestamp::from)?;
            match self.exclusion(set, at) {
                None => return Some(at),
                Some(Exclusion::Unknown(_)) => return None,
                Some(Exclusion::Excluded { .. } | Exclusion::NotOnly { .. }) => {}
            }
            after = Timestamp::from_millis(self.next_day(set, at)?.millis() - 1);
        }
        None
    }
}

impl ScheduleCalendars {
    /// The calendars of a schedule; `None` if it names none.
    #[must_use]
    pub fn of(schedule: &[ScheduleRule]) -> Option<Self> {
        let is_plain = |rule: &ScheduleRule| rule.calendars() == (&[], &[]);
        if schedule.iter().all(is_plain) {
            return None;
        }
        let (mut by_clock, mut after_finish) = (Vec::new(), None);
        for rule in schedule {
            let calendars = RuleCalendars::of(rule);
            match rule {
                ScheduleRule::CronRule(_) | ScheduleRule::EveryRule(_) | ScheduleRule::AtRule(_) => {
                    by_clock.push(calendars);
                }
                ScheduleRule::AfterFinishRule(_) => after_finish = Some(calendars),
            }
        }
        Some(Self { by_clock, after_finish })
    }

    /// Why a fire time is left out; `None` if it is not. `rules` are those of the same schedule that a clock answers
    /// (`manifest::rules_of`); `by_finish` is the fire time that the end of the last run has set, if there is one.
    #[must_use]
    pub fn exclusion(
        &self,
        set: &CalendarSet,
        rules: &[Rule],
        by_finish: Option<Timestamp>,
        at: Timestamp,
    ) -> Option<Exclusion> {
        let before = Timestamp::from_millis(at.millis() - 1).to_jiff();
        let names = |rule: &Rule| rule.next_after(before).map(Timestamp::from) == Some(at);
        // The only rule there is names every fire time there is.
        let is_only = rules.len() == 1 && self.after_finish.is_none();
        let by_clock = rules.iter().zip(&self.by_clock).filter(|(rule, _)| is_only || names(rule));
        let naming = by_clock.map(|(_, calendars)| calendars);
        let finish = self.after_finish.as_ref().filter(|_| by_finish == Some(at));
        let mut first = None;
        for calendars in naming.chain(finish) {
            let exclusion = calendars.exclusion(set, at)?;
            first.get_or_insert(exclusion);
        }
        first
    }

    /// The first fire time after `after` that is not left out, of the rules that a clock answers. Gives up where ten
    /// years of days in a row are left out.
    #[must_use]
    pub fn next_after(&self, set: &CalendarSet, rules: &[Rule], after: Timestamp) -> Option<Timestamp> {
        rules.iter().zip(&self.by_clock).filter_map(|(rule, calendars)| calendars.next_after(set, rule, after)).min()
    }

    /// The calendars asked, those they include too, with their offsets in `settings`.
    #[must_use]
    pub fn positions(&self, set: &CalendarSet) -> BTreeMap<CalendarName, i64> {
        let mut positions = BTreeMap::new();
        for calendars in self.by_clock.iter().chain(&self.after_finish) {
            for name in calendars.exclude.iter().chain(&calendars.only) {
                set.add_positions(name, &mut positions);
            }
        }
        positions
    }
}
