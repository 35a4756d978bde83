//! `/calendars` and `/calendars/{name}`: reads, and records for `settings`. Not here: what a calendar says of fire
//! times. Invariant: what would make a job fire never again without a word is refused here: a calendar that includes
//! what does not exist, and the removal of one that somebody names.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use orloj_domain::calendar::{self, Calendar, CalendarManifest, Unresolved};
use orloj_domain::id::CalendarName;
use orloj_domain::job::JobDefinition;
use orloj_domain::job_event::FieldError;
use orloj_domain::manifest;
use orloj_domain::setting::{Setting, SettingKind};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{NewRecord, Position};
use serde_json::json;

use super::job_writes::{accepted, invalid, json_body};
use super::page::Page;
use super::params::Params;
use super::wait::Wait;
use super::{Api, Problem, document, preconditions};
use crate::views;

/// Names listed in a complaint.
const NAMES_MAX: usize = 10;

/// The calendar that the path names.
pub(super) struct CalendarPath(CalendarName);

impl<S: Send + Sync> FromRequestParts<S> for CalendarPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let axum::extract::Path(name) = path.map_err(|error| Problem::bad_path(&error.to_string()))?;
        CalendarName::new(&name).map(Self).map_err(|error| Problem::bad_path(&error.to_string()))
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    params.finish()?;
    wait.done(&api).await?;
    let (after, limit) = (page.after.clone(), page.limit + 1);
    let items = api.read(move |connection| views::calendars(connection, after.as_deref(), limit)).await?;
    Ok(wait.mark(&api, document(&page.envelope(items))))
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    CalendarPath(name): CalendarPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = Wait::of(&mut params)?;
    params.finish()?;
    wait.done(&api).await?;
    let asked = name.clone();
    let found = api.read(move |connection| views::calendar(connection, &asked)).await?;
    let (found, offset) = found.ok_or_else(|| Problem::not_found(&format!("calendar {name}")))?;
    Ok(wait.mark(&api, preconditions::tagged(document(&found), offset)))
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    CalendarPath(name): CalendarPath,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    params.finish()?;
    let text = json_body(&headers, body).await?;
    let (manifest, calendar) = read(&name, &text)?;
    check_version(&api, &name, &headers).await?;
    check_includes(&api, calendar).await?;
    let setting = Setting {
        kind: SettingKind::Calendar,
        name: name.to_string(),
        at: api.clock.now(),
        actor: None,
        document: json!(manifest).to_string(),
    };
    let position = append(&api, &name, Some(codec::encode(&setting))).await?;
    Ok(accepted(&position, json!({"calendar": name})))
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    CalendarPath(name): CalendarPath,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let asked = name.clone();
    let (offset, jobs, calendars) = api
        .read(move |connection| {
            let offset = views::calendar_offset(connection, &asked)?;
            Ok((offset, views::jobs_with(connection, &asked)?, views::calendars_with(connection, &asked)?))
        })
        .await?;
    if offset.is_none() {
        return Err(Problem::not_found(&format!("calendar {name}")));
    }
    preconditions::check(&headers, "calendar", offset)?;
    for (what, users) in [("jobs", jobs), ("calendars", calendars)] {
        if !users.is_empty() {
            let detail = format!(
                "calendar {name} is named by {what} {}; take it out of them first, or they would never fire",
                some_of(users.iter().map(String::as_str))
            );
            return Err(Problem::new(StatusCode::CONFLICT, "calendarInUse", detail));
        }
    }
    let position = append(&api, &name, None).await?;
    Ok(accepted(&position, json!({"calendar": name})))
}

/// Complaints about calendars that a definition names and that do not exist.
pub(super) async fn check_calendars_of(api: &Arc<Api>, definition: &JobDefinition) -> Result<(), Problem> {
    let named = manifest::calendars_of(definition);
    if named.is_empty() {
        return Ok(());
    }
    let reading = Arc::clone(api);
    let set = api.read(move |connection| reading.definitions.calendars(connection)).await?;
    let missing = named.into_iter().filter_map(|(field, name)| {
        let unresolved = set.all_of(&name).err()?;
        let known = some_of(set.calendars().map(|calendar| calendar.name().as_str()));
        let known = if known.is_empty() { String::new() } else { format!(", or name one of: {known}") };
        let message = match unresolved {
            Unresolved::Missing(missing) if missing == name => format!("is no calendar; apply it first{known}"),
            other @ (Unresolved::Missing(_) | Unresolved::TooMany(_)) => format!("can't be asked: {other}"),
        };
        Some(FieldError::new(field, name, message))
    });
    let errors: Vec<FieldError> = missing.collect();
    if errors.is_empty() { Ok(()) } else { Err(invalid(errors)) }
}

fn read(name: &CalendarName, text: &str) -> Result<(CalendarManifest, Calendar), Problem> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let detail = format!("the body is no JSON: {error}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "notJson", detail));
    }
    let (manifest, calendar) = calendar::parse_json(text).map_err(invalid)?;
    if calendar.name() != name {
        let message = format!("must be the calendar of the path, {name}");
        return Err(invalid(vec![FieldError::new("metadata.name", calendar.name(), message)]));
    }
    Ok((manifest, calendar))
}

async fn check_version(api: &Arc<Api>, name: &CalendarName, headers: &HeaderMap) -> Result<(), Problem> {
    if !preconditions::are_there(headers) {
        return Ok(());
    }
    let asked = name.clone();
    let offset = api.read(move |connection| views::calendar_offset(connection, &asked)).await?;
    preconditions::check(headers, "calendar", offset)
}

/// Refuses what includes a calendar that does not exist, itself by any way, or too many.
async fn check_includes(api: &Arc<Api>, calendar: Calendar) -> Result<(), Problem> {
    if calendar.include().is_empty() {
        return Ok(());
    }
    let reading = Arc::clone(api);
    let set = api.read(move |connection| reading.definitions.calendars(connection)).await?;
    let (mut set, name) = ((*set).clone(), calendar.name().clone());
    let include = calendar.include().to_vec();
    set.put(calendar, 0);
    let mut errors = Vec::new();
    for (index, included) in include.iter().enumerate() {
        if let Err(unresolved) = set.all_of(included) {
            let message = match unresolved {
                Unresolved::Missing(missing) if missing == *included => "is no calendar; apply it first".to_owned(),
                other @ (Unresolved::Missing(_) | Unresolved::TooMany(_)) => format!("can't be included: {other}"),
            };
            errors.push(FieldError::new(format!("spec.include[{index}]"), included, message));
        }
    }
    if let Some(circle) = set.circle_of(&name) {
        let way: Vec<&str> = circle.iter().map(CalendarName::as_str).collect();
        let message = format!("leads back to the calendar itself, {}; leave one of them out", way.join(" → "));
        errors.push(FieldError::new("spec.include", circle.get(1).unwrap_or(&name), message));
    }
    if let Err(Unresolved::TooMany(_)) = set.all_of(&name) {
        let message = format!("leads to more than {} calendars; join some of them", calendar::INCLUDED_MAX);
        errors.push(FieldError::new("spec.include", include.len(), message));
    }
    if errors.is_empty() { Ok(()) } else { Err(invalid(errors)) }
}

/// The first names of a list, and whether there are more.
pub(super) fn some_of<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut names = names.peekable();
    let shown: Vec<&str> = names.by_ref().take(NAMES_MAX).collect();
    let more = if names.peek().is_some() { ", …" } else { "" };
    format!("{}{more}", shown.join(", "))
}

async fn append(api: &Api, name: &CalendarName, value: Option<Vec<u8>>) -> Result<Position, Problem> {
    let key = format!("{}/{name}", SettingKind::Calendar);
    Ok(api.appends.append(NewRecord::new(topic::SETTINGS, 0, key, value)).await?)
}
