//! What producers put on `settings`: calendars, bounds of queues and shared limits, as Avro or as the manifest in JSON. Not
//! here: what they mean (`orloj_domain`). Invariant: whatever can't be read is refused with complaints; what was in force
//! before stays.

use orloj_domain::calendar::{self, CALENDAR_BYTES_MAX, Calendar, CalendarManifest};
use orloj_domain::id::{CalendarName, LimitId};
use orloj_domain::job_event::FieldError;
use orloj_domain::limit::{self, LimitManifest, LimitRule, MANIFEST_BYTES_MAX};
use orloj_domain::setting::{Setting, SettingKind};
use orloj_domain::time::Timestamp;

use super::{Undecodable, check_size, decode_avro, json_text};

/// A setting, its document not yet looked into.
struct Written {
    document: String,
    at: Option<Timestamp>,
    actor: Option<String>,
}

impl Written {
    fn of(value: &[u8]) -> Result<Self, Undecodable> {
        if let Some(text) = json_text(value)? {
            return Ok(Self { document: text.to_owned(), at: None, actor: None });
        }
        let setting: Setting = decode_avro(value)?;
        Ok(Self { document: setting.document, at: Some(setting.at), actor: setting.actor })
    }
}

/// A calendar as a record of `settings` brings it.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingOfCalendar {
    /// As it was written.
    pub manifest: CalendarManifest,
    /// Ready to be asked.
    pub calendar: Calendar,
    /// When it was written, by the writer's clock; absent if the record does not say.
    pub at: Option<Timestamp>,
    /// Who wrote it, if the record says so.
    pub actor: Option<String>,
}

/// The calendar that a key of `settings` names; `None` if the key is about something else.
///
/// # Errors
/// A complaint when the key is that of a calendar, with no name that a calendar may have.
pub fn calendar_of_key(key: Option<&[u8]>) -> Result<Option<CalendarName>, Undecodable> {
    let text = String::from_utf8_lossy(key.unwrap_or_default());
    let prefix = format!("{}/", SettingKind::Calendar);
    let Some(name) = text.strip_prefix(&prefix) else { return Ok(None) };
    CalendarName::new(name).map(Some).map_err(|error| {
        let message = format!("must be `{prefix}NAME`: {}", error.rule);
        Undecodable::one(FieldError::new("key", &text, message))
    })
}

/// Reads a calendar of `settings`: an Avro `Setting` whose document is the manifest, or the manifest as JSON. It
/// must be the calendar that the key names.
///
/// # Errors
/// Every complaint about the value.
pub fn decode_calendar(name: &CalendarName, value: &[u8]) -> Result<SettingOfCalendar, Undecodable> {
    check_size(value, 2 * CALENDAR_BYTES_MAX)?;
    let Written { document, at, actor } = Written::of(value)?;
    let (manifest, calendar) = calendar::parse_json(&document).map_err(|errors| Undecodable { errors })?;
    if calendar.name() != name {
        let message = format!("must be the calendar that the key names, `{name}`");
        return Err(Undecodable::one(FieldError::new("metadata.name", calendar.name(), message)));
    }
    Ok(SettingOfCalendar { manifest, calendar, at, actor })
}

/// A queue's bounds or a shared limit, as a record of `settings` brings it.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingOfLimit {
    /// As it was written.
    pub manifest: LimitManifest,
    /// What it allows.
    pub rule: LimitRule,
    /// When it was written, by the writer's clock; absent if the record does not say.
    pub at: Option<Timestamp>,
    /// Who wrote it, if the record says so.
    pub actor: Option<String>,
}

/// The queue or limit that a key of `settings` names; `None` if the key is about something else.
///
/// # Errors
/// A complaint when the key is that of a queue or a limit, with no name that it may have.
pub fn limit_of_key(key: Option<&[u8]>) -> Result<Option<LimitId>, Undecodable> {
    let text = String::from_utf8_lossy(key.unwrap_or_default());
    let kinds = [SettingKind::Queue, SettingKind::Limit];
    if !kinds.iter().any(|kind| text.split_once('/').is_some_and(|(start, _)| start == kind.as_str())) {
        return Ok(None);
    }
    LimitId::new(&text).map(Some).map_err(|error| {
        let message = format!("must be `queue/NAME` or `limit/NAME`: {}", error.rule);
        Undecodable::one(FieldError::new("key", &text, message))
    })
}

/// Reads a queue's bounds or a shared limit of `settings`: an Avro `Setting` whose document is the manifest, or the manifest
/// as JSON. It must be what the key names.
///
/// # Errors
/// Every complaint about the value.
pub fn decode_limit(limit: &LimitId, value: &[u8]) -> Result<SettingOfLimit, Undecodable> {
    check_size(value, 2 * MANIFEST_BYTES_MAX)?;
    let Written { document, at, actor } = Written::of(value)?;
    let (manifest, found, rule) = limit::parse_json(&document).map_err(|errors| Undecodable { errors })?;
    if found != *limit {
        let message = format!("must be what the key names, `{limit}`");
        return Err(Undecodable::one(FieldError::new("metadata.name", found, message)));
    }
    Ok(SettingOfLimit { manifest, rule, at, actor })
}
