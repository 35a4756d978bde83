//! Bounds of queues and shared limits: the newest one of each that can be used, as the dispatcher takes them. Not here: who
//! waits for them (`runs`). Invariant: what the dispatcher does not take does not replace what is in force.

use orloj_runtime::codec::input;
use orloj_runtime::log::Record;

use super::{Change, Unreadable, json_text};

/// The bounds of a queue or a shared limit in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LimitRow {
    /// `queue/NAME` or `limit/NAME`.
    pub(crate) name: String,
    pub(crate) offset: i64,
    pub(crate) at: i64,
    pub(crate) actor: Option<String>,
    /// The manifest as JSON.
    pub(crate) manifest: String,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let unreadable = |reason: input::Undecodable| Unreadable(reason.to_string());
    let Some(limit) = input::limit_of_key(record.key.as_deref()).map_err(unreadable)? else { return Ok(()) };
    let Some(value) = record.value.as_deref() else {
        changes.push(Change::LimitGone(limit.to_string()));
        return Ok(());
    };
    let setting = input::decode_limit(&limit, value).map_err(unreadable)?;
    changes.push(Change::Limit(Box::new(LimitRow {
        name: limit.to_string(),
        offset: record.offset,
        at: setting.at.unwrap_or(record.timestamp).millis(),
        actor: setting.actor,
        manifest: json_text(&setting.manifest),
    })));
    Ok(())
}
