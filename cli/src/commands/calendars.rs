//! Calendars of `apply`, `get`, `describe` and `delete`. Not here: reading files (`manifest_file`). Invariant: what
//! includes a calendar is sent after it, and whatever is sent next finds those before it in force.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orloj_domain::calendar::{CalendarManifest, CalendarSet};
use orloj_domain::id::CalendarName;
use serde_json::Value;

use super::{Context, settings};
use crate::client::Client;
use crate::exit::{Code, Failure, Outcome};
use crate::manifest_file::LoadedCalendar;
use crate::output::{self, Column, Format, column, text, wide};

pub(super) const COLUMNS: &[Column] = &[
    column("CALENDAR", |item| text(item, "calendar")),
    column("ENTRIES", |item| text(item, "status.entries")),
    column("INCLUDES", includes),
    wide("ZONE", |item| text(item, "spec.timeZone")),
    wide("POSITION", |item| text(item, "status.position")),
    column("UPDATED", |item| output::age(item, "status.updatedAt", super::now())),
];

fn includes(item: &Value) -> String {
    let names = item.pointer("/spec/include").and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = names.filter_map(Value::as_str).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// Path of a calendar in the API.
pub(super) fn path(name: &CalendarName) -> String {
    format!("/api/v1/calendars/{name}")
}

/// Reads a calendar's name.
pub(super) fn name(text: &str) -> Result<CalendarName, Failure> {
    CalendarName::new(text).map_err(|error| Failure::usage(error.to_string()))
}

/// Sends calendars, each after those that it includes, and waits until each is in force for readers.
pub(crate) fn send(
    client: &Client,
    calendars: &[LoadedCalendar],
    timeout: Duration,
    format: Format,
) -> Result<Vec<Value>, Failure> {
    let mut items = Vec::new();
    for one in in_order(calendars)? {
        let name = one.calendar.name();
        let manifest = serde_json::to_value(&one.manifest).map_err(|error| Failure::error(error.to_string()))?;
        let (kind, path) = ("calendar", path(name));
        let setting = settings::Setting { kind, name: name.as_str(), path, origin: &one.origin, manifest };
        items.push(settings::send(client, &setting, timeout, format)?);
    }
    Ok(items)
}

/// Those that are included before those that include them.
fn in_order(calendars: &[LoadedCalendar]) -> Result<Vec<&LoadedCalendar>, Failure> {
    let by_name: BTreeMap<&CalendarName, &LoadedCalendar> =
        calendars.iter().map(|one| (one.calendar.name(), one)).collect();
    let mut set = CalendarSet::default();
    for one in calendars {
        set.put(one.calendar.clone(), 0);
    }
    if let Some((one, circle)) = calendars.iter().find_map(|one| Some((one, set.circle_of(one.calendar.name())?))) {
        let way: Vec<&str> = circle.iter().map(CalendarName::as_str).collect();
        let way = way.join(" → ");
        return Err(Failure::usage(format!("{}: spec.include: leads in a circle: {way}", one.origin)));
    }
    let (mut ordered, mut sent) = (Vec::with_capacity(calendars.len()), BTreeSet::new());
    // Without a circle, each round finds at least one whose includes are all there or are in no file.
    while ordered.len() < calendars.len() {
        for one in calendars {
            let is_ready = |name: &CalendarName| sent.contains(name) || !by_name.contains_key(name);
            if !sent.contains(one.calendar.name()) && one.calendar.include().iter().all(is_ready) {
                ordered.push(one);
                sent.insert(one.calendar.name().clone());
            }
        }
    }
    Ok(ordered)
}

/// Shows one or more calendars.
pub(super) fn show(context: &Context, items: &[Value]) -> Outcome {
    if context.global.output == Format::Yaml {
        let manifests: Result<Vec<CalendarManifest>, Failure> = items.iter().map(manifest).collect();
        output::print(&output::yaml(&manifests?)?)?;
    } else {
        output::list(context.global.output, items, COLUMNS, |item| format!("calendar/{}", text(item, "calendar")))?;
    }
    Ok(Code::Ok)
}

/// The manifest of a calendar's document, its fields in the usual order.
pub(super) fn manifest(item: &Value) -> Result<CalendarManifest, Failure> {
    let found = item.get("manifest").cloned().unwrap_or(Value::Null);
    serde_json::from_value(found).map_err(|error| {
        Failure::error(format!("calendar {} has no readable manifest: {error}", text(item, "calendar")))
    })
}

/// Removes one calendar and says what came of it.
pub(super) fn remove(client: &Client, name: &CalendarName) -> Outcome {
    settings::remove(client, "calendar", name.as_str(), &path(name))
}
