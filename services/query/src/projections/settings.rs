//! Settings: of calendars, bounds of queues and shared limits the newest one of each name that can be used, as the trigger and
//! the dispatcher take them. Not here: what they mean (`orloj_domain`). Invariant: what those don't take does not replace what
//! is in force.

use orloj_domain::time::Timestamp;
use orloj_runtime::codec::input;
use orloj_runtime::log::Record;
use serde::Serialize;

use super::{Change, Unreadable, json_text};

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SettingRow {
    /// A calendar's name; `queue/NAME` or `limit/NAME` of the others.
    pub(crate) name: String,
    pub(crate) offset: i64,
    pub(crate) at: i64,
    pub(crate) actor: Option<String>,
    /// The manifest as JSON.
    pub(crate) manifest: String,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let unreadable = |reason: input::Undecodable| Unreadable(reason.to_string());
    let (key, value) = (record.key.as_deref(), record.value.as_deref());
    if let Some(name) = input::calendar_of_key(key).map_err(unreadable)? {
        changes.push(match value {
            None => Change::CalendarGone(name.to_string()),
            Some(value) => {
                let setting = input::decode_calendar(&name, value).map_err(unreadable)?;
                Change::Calendar(row(record, name.to_string(), setting.at, setting.actor, &setting.manifest))
            }
        });
    } else if let Some(limit) = input::limit_of_key(key).map_err(unreadable)? {
        changes.push(match value {
            None => Change::LimitGone(limit.to_string()),
            Some(value) => {
                let setting = input::decode_limit(&limit, value).map_err(unreadable)?;
                Change::Limit(row(record, limit.to_string(), setting.at, setting.actor, &setting.manifest))
            }
        });
    }
    Ok(())
}

fn row(
    record: &Record,
    name: String,
    at: Option<Timestamp>,
    actor: Option<String>,
    manifest: &impl Serialize,
) -> Box<SettingRow> {
    let at = at.unwrap_or(record.timestamp).millis();
    Box::new(SettingRow { name, offset: record.offset, at, actor, manifest: json_text(manifest) })
}
