//! What a person means by a moment: an instant, or what a clock in the job's time zone shows, which may come twice
//! or never. Not here: what happened then. Invariant: a time that never came is answered with the instant at which
//! the gap ended, and says so.

use jiff::civil::DateTime;
use jiff::tz::AmbiguousOffset;
use orloj_domain::job::ScheduleRule;
use orloj_domain::schedule;
use orloj_domain::time::Timestamp;

use super::Version;

/// One instant that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) instant: Timestamp,
    /// What the clocks did, if they did something.
    pub(crate) note: Option<String>,
}

/// The time zone of the job's first rule that has one.
pub(super) fn zone_of(version: Option<&Version>) -> String {
    let rules = version.and_then(|version| version.definition.as_ref()).map(|kept| &kept.definition.schedule);
    let zone = rules.into_iter().flatten().find_map(|rule| match rule {
        ScheduleRule::CronRule(cron) => Some(cron.time_zone.clone()),
        ScheduleRule::EveryRule(_) | ScheduleRule::AtRule(_) | ScheduleRule::AfterFinishRule(_) => None,
    });
    zone.unwrap_or_else(|| "UTC".to_owned())
}

/// Reads RFC 3339, or a date and time without an offset as the clocks of the newest definition's time zone show it.
///
/// # Errors
/// How to write it; continues the sentence that the value starts.
pub(crate) fn moments(text: &str, versions: &[Version]) -> Result<Vec<Moment>, String> {
    if let Ok(instant) = text.trim().parse::<Timestamp>() {
        return Ok(vec![Moment { instant, note: None }]);
    }
    let civil: DateTime = text.trim().parse().map_err(|_| {
        "is no instant; write RFC 3339 such as `2026-12-01T08:00:00Z`, or what the clocks of the job's time zone show, \
         such as `2026-12-01T09:00`"
            .to_owned()
    })?;
    let name = zone_of(versions.iter().rev().find(|version| !version.is_delete));
    let zone = schedule::zone(&name).ok_or_else(|| {
        format!("can't be read in the job's time zone {name}, which is not known here; write RFC 3339")
    })?;
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    let at = |offset: jiff::tz::Offset| offset.to_timestamp(civil).map(Timestamp::from).map_err(|it| it.to_string());
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { offset } => Ok(vec![Moment { instant: at(offset)?, note: None }]),
        AmbiguousOffset::Fold { before, after } => {
            let note = |which: &str, offset| {
                Some(format!("{civil} came twice in {name}; this is the {which}, at UTC{offset}"))
            };
            Ok(vec![
                Moment { instant: at(before)?, note: note("first", before) },
                Moment { instant: at(after)?, note: note("second", after) },
            ])
        }
        AmbiguousOffset::Gap { before, after } => {
            // The clocks were put forward at one instant between the two readings.
            let (early, late) = (at(after)?, at(before)?);
            let start = Timestamp::from_millis(early.millis() - 1);
            let change = zone.following(start.to_jiff()).next().map(|change| Timestamp::from(change.timestamp()));
            let instant = change.filter(|change| *change <= late).unwrap_or(late);
            let note = format!(
                "{civil} never came in {name}: the clocks went forward from UTC{before} to UTC{after} at {instant}"
            );
            Ok(vec![Moment { instant, note: Some(note) }])
        }
    }
}
