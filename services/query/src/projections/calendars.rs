//! Calendars: the newest one of each name that can be used, as the trigger takes them. Not here: what days they hold
//! (`orloj_domain::calendar`). Invariant: what the trigger does not take does not replace what is in force.

use orloj_runtime::codec::input;
use orloj_runtime::log::Record;

use super::{Change, Unreadable, json_text};

/// A calendar in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CalendarRow {
    pub(crate) name: String,
    pub(crate) offset: i64,
    pub(crate) at: i64,
    pub(crate) actor: Option<String>,
    /// The manifest as JSON.
    pub(crate) manifest: String,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let unreadable = |reason: input::Undecodable| Unreadable(reason.to_string());
    let Some(name) = input::calendar_of_key(record.key.as_deref()).map_err(unreadable)? else { return Ok(()) };
    let Some(value) = record.value.as_deref() else {
        changes.push(Change::CalendarGone(name.to_string()));
        return Ok(());
    };
    let setting = input::decode_calendar(&name, value).map_err(unreadable)?;
    changes.push(Change::Calendar(Box::new(CalendarRow {
        name: name.to_string(),
        offset: record.offset,
        at: setting.at.unwrap_or(record.timestamp).millis(),
        actor: setting.actor,
        manifest: json_text(&setting.manifest),
    })));
    Ok(())
}
