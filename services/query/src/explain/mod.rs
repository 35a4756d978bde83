//! Why a job fired at an instant, did not, or will: facts of the projection in, an answer in words out. Not here:
//! which facts (`views::explain`), HTTP. Invariant: nothing is guessed: what is not known is said to be unknown,
//! and the decision on the log always wins over what the rules would say today.

mod moment;
mod sentence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use orloj_domain::calendar::{CalendarSet, Exclusion};
use orloj_domain::id::CalendarName;
use orloj_domain::schedule;
use orloj_domain::time::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::views::Definition;

pub(crate) use moment::{Moment, moments};

/// A definition of the job and from when on it was in force.
#[derive(Debug, Clone)]
pub(crate) struct Version {
    pub(crate) version: i64,
    pub(crate) effective_from: Timestamp,
    /// Where in `jobs` it stands.
    pub(crate) position: String,
    /// Absent for a delete, and for a definition that can't be read any more.
    pub(crate) definition: Option<Arc<Definition>>,
    pub(crate) is_delete: bool,
}

/// The decision that covers the instant.
#[derive(Debug, Clone)]
pub(crate) struct Decided {
    pub(crate) version: i64,
    pub(crate) fire_time: Timestamp,
    /// Exclusive; only of a range.
    pub(crate) range_end: Option<Timestamp>,
    pub(crate) decision: String,
    pub(crate) reason: Option<String>,
    pub(crate) coalesced_into: Option<Timestamp>,
    pub(crate) decided_at: Timestamp,
    /// Calendars that were asked, with their offsets in `settings`.
    pub(crate) calendars: BTreeMap<CalendarName, i64>,
    /// Id and state of the run, if there is one.
    pub(crate) run: Option<(String, Option<String>)>,
    /// As the API shows it.
    pub(crate) document: Value,
}

/// The pause that was in force at the instant.
#[derive(Debug, Clone)]
pub(crate) struct Paused {
    pub(crate) at: Timestamp,
    pub(crate) reason: Option<String>,
    pub(crate) actor: Option<String>,
}

/// All that is known about a job around an instant.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    pub(crate) now: Timestamp,
    pub(crate) instant: Timestamp,
    /// Oldest first.
    pub(crate) versions: Vec<Version>,
    pub(crate) decided: Option<Decided>,
    /// The newest fire time before the instant on which something was decided.
    pub(crate) decided_before: Option<Timestamp>,
    pub(crate) paused: Option<Paused>,
    /// Id and state of the runs that backfills asked for, oldest first.
    pub(crate) backfilled: Vec<(String, String)>,
    /// Every fire time up to here is decided, as far as the trigger has saved it.
    pub(crate) cursor: Timestamp,
    /// Fire times requested by the version in force now.
    pub(crate) fires: i64,
    /// Decisions from before this are no longer kept.
    pub(crate) kept_since: Timestamp,
    /// The calendars as they are.
    pub(crate) calendars: Arc<CalendarSet>,
}

/// What became or will become of a fire time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Verdict {
    /// It fired.
    Requested,
    /// It fired although it was missed.
    RequestedLate,
    /// It was skipped, for the reason given.
    Skipped,
    /// It was taken together with a later one.
    Coalesced,
    /// It lies ahead.
    WillFire,
    /// It lies ahead, and calendars leave it out as they are.
    LeftOut,
    /// The schedule does not name the instant.
    NotAFireTime,
    /// The job was paused or suspended, and nothing is decided before it is resumed.
    Paused,
    /// The job did not exist yet.
    NotYetDefined,
    /// The job had been removed.
    Deleted,
    /// The job's `maxFires` was used up.
    UsedUp,
    /// It is due and the trigger has not decided it yet.
    NotYetDecided,
    /// Too long ago: the decision is no longer kept.
    Forgotten,
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    pub(crate) instant: String,
    /// The same on the clocks of the job's time zone.
    pub(crate) local: String,
    pub(crate) verdict: Verdict,
    /// The answer in one sentence.
    pub(crate) sentence: String,
    /// What it rests on, one fact each.
    pub(crate) because: Vec<String>,
    /// Version of the definition in force then.
    pub(crate) version: Option<i64>,
    pub(crate) previous_fire_time: Option<String>,
    pub(crate) next_fire_time: Option<String>,
    pub(crate) decision: Option<Value>,
}

/// Explains one instant.
pub(crate) fn explain(facts: &Facts) -> Explanation {
    let version = facts.version();
    let verdict = facts.verdict(version);
    let instant = facts.instant;
    let zone = schedule::zone(&moment::zone_of(version)).unwrap_or(jiff::tz::TimeZone::UTC);
    let next = version.and_then(|version| version.next_let_through(&facts.calendars, instant));
    Explanation {
        instant: instant.to_string(),
        local: instant.to_jiff().to_zoned(zone).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        verdict,
        sentence: sentence::of(facts, version, verdict),
        because: sentence::because(facts, version, verdict),
        version: version.map(|version| version.version),
        previous_fire_time: facts.decided_before.map(|at| at.to_string()),
        next_fire_time: next.map(|at| at.to_string()),
        decision: facts.decided.as_ref().map(|decided| decided.document.clone()),
    }
}

impl Facts {
    /// The definition that was, or will be, in force at the instant: that of the decision if there is one, for an
    /// edit and a fire time may come at the same moment.
    fn version(&self) -> Option<&Version> {
        let of_decision = self.decided.as_ref().and_then(|decided| {
            self.versions.iter().find(|version| version.version == decided.version && !version.is_delete)
        });
        of_decision.or_else(|| in_force(&self.versions, self.instant))
    }

    fn verdict(&self, version: Option<&Version>) -> Verdict {
        let is_named = version.and_then(|version| version.names(self.instant));
        if let Some(decided) = &self.decided {
            // A range also covers instants between two fire times.
            let is_between = decided.range_end.is_some() && is_named == Some(false);
            if !is_between {
                return decided.verdict();
            }
        }
        let Some(version) = version else {
            return if self.versions.is_empty() { Verdict::Forgotten } else { Verdict::NotYetDefined };
        };
        if version.is_delete {
            return Verdict::Deleted;
        }
        match is_named {
            Some(false) => Verdict::NotAFireTime,
            _ if self.paused.is_some() || version.is_suspended() => Verdict::Paused,
            _ if self.instant <= self.now && self.instant < self.kept_since => Verdict::Forgotten,
            Some(true) if version.is_used_up(self.fires) => Verdict::UsedUp,
            Some(true) if self.instant > self.now && self.exclusion(version).is_some() => Verdict::LeftOut,
            Some(true) if self.instant > self.now => Verdict::WillFire,
            Some(true) => Verdict::NotYetDecided,
            None => Verdict::Forgotten,
        }
    }
}

impl Facts {
    /// Why the calendars, as they are, leave the instant out.
    fn exclusion(&self, version: &Version) -> Option<Exclusion> {
        let kept = version.definition.as_ref()?;
        kept.calendars.as_ref()?.exclusion(&self.calendars, &kept.rules, None, self.instant)
    }

    /// The calendars that the version asks, with their offsets as they are.
    fn positions(&self, version: &Version) -> BTreeMap<CalendarName, i64> {
        let calendars = version.definition.as_ref().and_then(|kept| kept.calendars.as_ref());
        calendars.map(|calendars| calendars.positions(&self.calendars)).unwrap_or_default()
    }
}

/// Of the versions of a job, oldest first, the one that fire times at an instant belong to.
pub(crate) fn in_force(versions: &[Version], instant: Timestamp) -> Option<&Version> {
    versions.iter().rev().find(|version| version.effective_from < instant)
}

impl Decided {
    fn verdict(&self) -> Verdict {
        match (self.decision.as_str(), self.reason.as_deref()) {
            ("requested", Some("misfire")) => Verdict::RequestedLate,
            ("requested", _) => Verdict::Requested,
            ("coalesced", _) => Verdict::Coalesced,
            _ => Verdict::Skipped,
        }
    }
}

impl Version {
    /// The first fire time after `after`, within `notBefore` and `notAfter`.
    fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        self.definition.as_ref()?.next_after(after)
    }

    /// The same, of those that calendars let through.
    fn next_let_through(&self, calendars: &CalendarSet, after: Timestamp) -> Option<Timestamp> {
        self.definition.as_ref()?.next_let_through(calendars, after)
    }

    /// True if the schedule names the instant; `None` if the definition is not known.
    fn names(&self, instant: Timestamp) -> Option<bool> {
        self.definition.as_ref()?;
        Some(self.next_after(Timestamp::from_millis(instant.millis() - 1)) == Some(instant))
    }

    /// What a clock change has to do with the schedule not naming the instant.
    fn absence(&self, instant: Timestamp) -> Option<String> {
        schedule::absence(&self.definition.as_ref()?.rules, instant.to_jiff())
    }

    fn is_suspended(&self) -> bool {
        self.definition.as_ref().is_some_and(|kept| kept.definition.suspend)
    }

    fn is_used_up(&self, fires: i64) -> bool {
        let max = self.definition.as_ref().and_then(|kept| kept.definition.max_fires);
        max.is_some_and(|max| fires >= max)
    }
}
