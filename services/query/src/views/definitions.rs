//! Definitions ready for use: decoded, with rules parsed and the manifest written out. Kept in a cache, since
//! lists of jobs ask for the same ones again and again. Invariant: the key holds the version and the offset, so
//! an entry can be too old for nobody; nothing is decided by what is in the cache.

use std::sync::{Arc, Mutex, PoisonError};

use moka::sync::Cache;
use orloj_domain::calendar::{CalendarSet, ScheduleCalendars};
use orloj_domain::job::JobDefinition;
use orloj_domain::manifest;
use orloj_domain::schedule::{self, Rule};
use orloj_domain::time::Timestamp;
use orloj_runtime::codec;
use rusqlite::Connection;
use serde_json::Value;

use super::calendars;

/// Most definitions kept; the largest are 256 KiB, the usual ones 1 KiB.
const KEPT_MAX: u64 = 4096;
/// Most bytes of encoded definitions kept.
const KEPT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A definition and what is derived from it.
#[derive(Debug)]
pub(crate) struct Definition {
    /// As it is on the log.
    pub(crate) definition: JobDefinition,
    /// Its rules; none if they no longer parse, as after an update of the time zone data.
    pub(crate) rules: Vec<Rule>,
    /// The calendars that they name, if they name any.
    pub(crate) calendars: Option<ScheduleCalendars>,
    /// As people write it.
    pub(crate) manifest: Value,
}

impl Definition {
    /// A definition with what is derived from it; `None` if it can't be written as a manifest.
    pub(crate) fn new(definition: JobDefinition) -> Option<Self> {
        let rules = manifest::rules_of(&definition).unwrap_or_default();
        let calendars = ScheduleCalendars::of(&definition.schedule);
        let manifest = serde_json::to_value(manifest::from_definition(&definition)).ok()?;
        Some(Self { definition, rules, calendars, manifest })
    }

    /// The first fire time after `after`, within `notBefore` and `notAfter`, whatever calendars say.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        schedule::next_within(&self.rules, self.definition.bounds(), after)
    }

    /// The same, of those that the calendars let through.
    pub(crate) fn next_let_through(&self, set: &CalendarSet, after: Timestamp) -> Option<Timestamp> {
        let Some(calendars) = &self.calendars else { return self.next_after(after) };
        let bounds = self.definition.bounds();
        calendars.next_after(set, &self.rules, bounds.start(after)).filter(|next| bounds.is_before_end(*next))
    }
}

type Key = (String, i64, i64);

/// The calendars, and what tells them apart from others.
type KeptSet = ((i64, i64), Arc<CalendarSet>);

/// The cache.
pub(crate) struct Definitions {
    kept: Cache<Key, Arc<Definition>>,
    calendars: Mutex<Option<KeptSet>>,
}

impl Definitions {
    /// An empty cache.
    pub(crate) fn new() -> Self {
        let weight = u32::try_from(KEPT_BYTES_MAX / KEPT_MAX).unwrap_or(1);
        let weigher = move |_: &Key, kept: &Arc<Definition>| {
            weight.max(u32::try_from(kept.manifest.to_string().len()).unwrap_or(u32::MAX))
        };
        let kept = Cache::builder().max_capacity(KEPT_BYTES_MAX).weigher(weigher).build();
        Self { kept, calendars: Mutex::default() }
    }

    /// All calendars, read anew when one has changed.
    pub(crate) fn calendars(&self, connection: &Connection) -> rusqlite::Result<Arc<CalendarSet>> {
        let state = calendars::state_of_set(connection)?;
        let mut kept = self.calendars.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, set)) = kept.as_ref().filter(|(of, _)| *of == state) {
            return Ok(Arc::clone(set));
        }
        let set = Arc::new(calendars::set(connection)?);
        *kept = Some((state, Arc::clone(&set)));
        Ok(set)
    }

    /// The definition in `encoded`, which is that of this job, version and offset.
    pub(crate) fn of(&self, job: &str, version: i64, offset: i64, encoded: &[u8]) -> Option<Arc<Definition>> {
        let key = (job.to_owned(), version, offset);
        if let Some(kept) = self.kept.get(&key) {
            return Some(kept);
        }
        let made = Arc::new(Definition::new(codec::decode(encoded).ok()?)?);
        self.kept.insert(key, Arc::clone(&made));
        Some(made)
    }
}
