//! Runners: the newest sign of life of each. Not here: whether that is too long ago, which is asked when it is
//! shown. Invariant: the newest record of a runner replaces its row.

use orloj_domain::runner::RunnerHeartbeat;
use orloj_runtime::log::Record;

use super::{Change, Unreadable, decoded, json_text};

/// A runner as it last said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunnerRow {
    pub(crate) runner: String,
    pub(crate) session: String,
    pub(crate) at: i64,
    /// When the log took the sign of life; what is compared with now.
    pub(crate) seen_at: i64,
    pub(crate) since: i64,
    pub(crate) lease_ms: i64,
    /// A JSON list.
    pub(crate) queues: String,
    pub(crate) slots: i32,
    pub(crate) busy: i32,
    pub(crate) is_draining: bool,
    pub(crate) host: String,
    /// JSON documents.
    pub(crate) queue_weights: String,
    pub(crate) labels: String,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(heartbeat) = decoded::<RunnerHeartbeat>(record)? else {
        changes.extend(record.key_text().map(|runner| Change::RunnerGone(runner.to_owned())));
        return Ok(());
    };
    changes.push(Change::Seen(Box::new(RunnerRow {
        runner: heartbeat.runner.to_string(),
        session: heartbeat.session.to_string(),
        at: heartbeat.at.millis(),
        seen_at: record.timestamp.millis(),
        since: heartbeat.since.millis(),
        lease_ms: heartbeat.lease_ms,
        queues: json_text(&heartbeat.queues),
        slots: heartbeat.slots,
        busy: heartbeat.busy,
        is_draining: heartbeat.is_draining,
        host: heartbeat.host,
        queue_weights: json_text(&heartbeat.queue_weights),
        labels: json_text(&heartbeat.labels),
    })));
    Ok(())
}
