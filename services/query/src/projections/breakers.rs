//! Turns of breakers, as the dispatchers tell them beside what they say to each other about limits. Not here: when one turns
//! (dispatcher). Invariant: the newest one of a limit says how its breaker stands.

use orloj_domain::setting::{BREAKER_KEY_PREFIX, BreakerEvent};
use orloj_runtime::log::Record;

use super::{Change, Unreadable, decoded};

/// A turn of a breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BreakerRow {
    /// `queue/NAME` or `limit/NAME`.
    pub(crate) name: String,
    pub(crate) offset: i64,
    pub(crate) state: &'static str,
    pub(crate) at: i64,
    pub(crate) until: Option<i64>,
    pub(crate) failures: i32,
    pub(crate) ended: i32,
    pub(crate) run_id: Option<String>,
    pub(crate) job: Option<String>,
    pub(crate) reason: Option<String>,
}

/// What shards say to each other is theirs.
pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    if !record.key_text().is_some_and(|key| key.starts_with(BREAKER_KEY_PREFIX)) {
        return Ok(());
    }
    let Some(event) = decoded::<BreakerEvent>(record)? else { return Ok(()) };
    changes.push(Change::BreakerTurned(Box::new(BreakerRow {
        name: event.limit.to_string(),
        offset: record.offset,
        state: event.state.as_str(),
        at: event.at.millis(),
        until: event.until.map(|until| until.millis()),
        failures: event.failures,
        ended: event.ended,
        run_id: event.run_id.map(|run| run.to_string()),
        job: event.job.map(|job| job.to_string()),
        reason: event.reason,
    })));
    Ok(())
}
