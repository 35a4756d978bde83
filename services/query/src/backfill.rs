//! What became of the fire times that a backfill may ask for. Not here: which fire times there are
//! (`orloj_domain::backfill`), HTTP. Invariant: a fire time whose decision is not known is never taken for one that
//! was missed.

use std::collections::BTreeMap;

use orloj_domain::time::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use crate::explain::Version;
use crate::views::Settled;

/// What became of a fire time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Was {
    /// A run was asked for.
    Requested,
    /// No run, for the reason given.
    Skipped,
    /// Taken together with a later one.
    Coalesced,
    /// The job, or this version line of it, did not exist yet.
    Never,
    /// What was decided is no longer kept, or not yet folded.
    Unknown,
}

/// A fire time of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) fire_time: Timestamp,
    pub(crate) was: Was,
    pub(crate) reason: Option<String>,
}

impl Slot {
    /// True if no run was ever asked for.
    pub(crate) fn is_missed(&self) -> bool {
        matches!(self.was, Was::Skipped | Was::Coalesced | Was::Never)
    }

    pub(crate) fn document(&self) -> Value {
        json!({"fireTime": self.fire_time.to_string(), "was": self.was, "reason": self.reason})
    }
}

/// What became of each of `times`. `settled` are all decisions that are kept of that time, in order; `versions` those
/// of the job that are known, oldest first; decisions from before `kept_since` are forgotten.
pub(crate) fn slots(
    times: impl Iterator<Item = Timestamp>,
    settled: &[Settled],
    versions: &[Version],
    kept_since: Timestamp,
) -> Vec<Slot> {
    let known = Known::of(settled);
    // Before its first version a job had nothing to decide; but if it is older than what is kept, an older backfill
    // may have.
    let first = versions.first().filter(|version| version.version == 1).map(|version| version.effective_from);
    let is_before_the_job = |fire_time| first.is_some_and(|first| first >= kept_since && fire_time <= first);
    times
        .map(|fire_time| match known.at(fire_time) {
            Some((was, reason)) => Slot { fire_time, was, reason: reason.map(str::to_owned) },
            None if is_before_the_job(fire_time) => Slot { fire_time, was: Was::Never, reason: None },
            None => Slot { fire_time, was: Was::Unknown, reason: None },
        })
        .collect()
}

type Verdict<'a> = (Was, Option<&'a str>);

/// Decisions by the fire times that they are about.
struct Known<'a> {
    single: BTreeMap<Timestamp, Verdict<'a>>,
    /// Start and end, exclusive; they do not overlap.
    ranges: Vec<(Timestamp, Timestamp, Verdict<'a>)>,
}

impl<'a> Known<'a> {
    fn of(settled: &'a [Settled]) -> Self {
        let mut known = Self { single: BTreeMap::new(), ranges: Vec::new() };
        for one in settled {
            let was = match one.decision.as_str() {
                "requested" => Was::Requested,
                "coalesced" => Was::Coalesced,
                "skipped" => Was::Skipped,
                _ => Was::Unknown,
            };
            let verdict = (was, one.reason.as_deref());
            match one.range_end {
                Some(end) => known.ranges.push((one.fire_time, end, verdict)),
                // A request wins, whoever made it.
                None if was == Was::Requested => drop(known.single.insert(one.fire_time, verdict)),
                None => drop(known.single.entry(one.fire_time).or_insert(verdict)),
            }
        }
        known
    }

    fn at(&self, fire_time: Timestamp) -> Option<Verdict<'a>> {
        let started = self.ranges.partition_point(|(start, ..)| *start <= fire_time);
        let range = self.ranges[..started].last().filter(|(_, end, _)| fire_time < *end).map(|(.., verdict)| *verdict);
        self.single.get(&fire_time).copied().or(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1000)
    }

    fn settled(second: i64, end: Option<i64>, decision: &str) -> Settled {
        Settled { fire_time: at(second), range_end: end.map(at), decision: decision.to_owned(), reason: None }
    }

    fn version(version: i64, second: i64) -> Version {
        let effective_from = at(second);
        Version { version, effective_from, position: String::new(), definition: None, is_delete: false }
    }

    fn told(versions: &[Version], kept_since: i64) -> Vec<Was> {
        let settled = [
            settled(20, Some(50), "skipped"),
            settled(30, None, "requested"),
            settled(50, None, "coalesced"),
            settled(60, None, "skipped"),
            settled(60, None, "requested"),
            settled(70, None, "requested"),
        ];
        let times = (1..=8).map(|ten| at(ten * 10));
        slots(times, &settled, versions, at(kept_since)).iter().map(|slot| slot.was).collect()
    }

    #[test]
    fn what_became_of_a_fire_time_is_what_the_log_says_and_never_a_guess() {
        use Was::{Coalesced, Never, Requested, Skipped, Unknown};
        let decided = [Skipped, Requested, Skipped, Coalesced, Requested, Requested];
        let with = |first, last| [&[first][..], &decided, &[last]].concat();
        assert_eq!(told(&[version(1, 15), version(2, 45)], 0), with(Never, Unknown));
        // The first version is forgotten: when the job began is not known.
        assert_eq!(told(&[version(2, 15)], 0), with(Unknown, Unknown));
        // The job is older than what is kept: so may be a backfill of it.
        assert_eq!(told(&[version(1, 15)], 16), with(Unknown, Unknown));
        assert_eq!(told(&[], 0), with(Unknown, Unknown));
    }
}
