//! `/limits`, `/limits/{name}` and `/queues/{name}`: reads, and records for `settings`. Not here: the list of queues
//! (`fleet`), and who is let through (dispatcher). Invariant: what would make runs wait for ever without a word is refused
//! here: a job that names a limit that does not exist, and the removal of one that somebody needs.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use orloj_domain::id::{LimitId, LimitName, QueueName};
use orloj_domain::job::JobDefinition;
use orloj_domain::job_event::FieldError;
use orloj_domain::limit::{self, LIMIT_KIND, LimitManifest, QUEUE_KIND};
use orloj_domain::setting::{Setting, SettingKind};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{NewRecord, Position};
use serde_json::{Value, json};

use super::calendars::some_of;
use super::job_writes::{accepted, invalid, json_body};
use super::page::Page;
use super::params::Params;
use super::wait::Wait;
use super::{Api, Problem, document, preconditions};
use crate::views;

/// The queue or the shared limit that the path names.
pub(super) struct LimitPath(LimitId);

impl<S: Send + Sync> FromRequestParts<S> for LimitPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let is_queue = parts.uri.path().starts_with("/api/v1/queues/");
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let axum::extract::Path(name) = path.map_err(|error| Problem::bad_path(&error.to_string()))?;
        let limit = if is_queue {
            QueueName::new(&name).map(|queue| LimitId::of_queue(&queue))
        } else {
            LimitName::new(&name).map(|limit| LimitId::of_limit(&limit))
        };
        limit.map(Self).map_err(|error| Problem::bad_path(&error.to_string()))
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    params.finish()?;
    wait.done(&api).await?;
    let (after, limit) = (page.after.clone(), page.limit + 1);
    let items = api.read(move |connection| views::limits(connection, after.as_deref(), limit)).await?;
    Ok(wait.mark(&api, document(&page.envelope(items))))
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    LimitPath(limit): LimitPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = Wait::of(&mut params)?;
    params.finish()?;
    wait.done(&api).await?;
    let (found, offset) = found(&api, &limit).await?.ok_or_else(|| Problem::not_found(&words(&limit)))?;
    let response = document(&found);
    let response = match offset {
        Some(offset) => preconditions::tagged(response, offset),
        None => response,
    };
    Ok(wait.mark(&api, response))
}

/// The document, and the offset that its manifest stands at; a queue is there without one too.
async fn found(api: &Arc<Api>, limit: &LimitId) -> Result<Option<(Value, Option<i64>)>, Problem> {
    let asked = limit.clone();
    if !limit.is_of_queue() {
        let read = api.read(move |connection| {
            let Some((mut document, offset)) = views::limit(connection, &asked)? else { return Ok(None) };
            views::add_turns(connection, &asked, &mut document)?;
            Ok(Some((document, Some(offset))))
        });
        return read.await;
    }
    let (now, known) = (api.clock.now(), api.queues.clone());
    api.read(move |connection| {
        let mut queue = views::queue(views::queues(connection, &known, now)?, asked.name());
        if let Some(queue) = &mut queue {
            views::add_turns(connection, &asked, queue)?;
        }
        let offset = views::limit_offset(connection, &asked)?;
        Ok(queue.map(|document| (document, offset)))
    })
    .await
}

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    LimitPath(limit): LimitPath,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    params.finish()?;
    let text = json_body(&headers, body).await?;
    let manifest = read(&limit, &text)?;
    if preconditions::are_there(&headers) {
        let asked = limit.clone();
        let offset = api.read(move |connection| views::limit_offset(connection, &asked)).await?;
        preconditions::check(&headers, versioned(&limit), offset)?;
    }
    let setting = Setting {
        kind: if limit.is_of_queue() { SettingKind::Queue } else { SettingKind::Limit },
        name: limit.name().to_owned(),
        at: api.clock.now(),
        actor: None,
        document: json!(manifest).to_string(),
    };
    let position = append(&api, &limit, Some(codec::encode(&setting))).await?;
    Ok(accepted(&position, answer(&limit)))
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    LimitPath(limit): LimitPath,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    let asked = limit.clone();
    let (offset, jobs, uses) = api
        .read(move |connection| {
            let offset = views::limit_offset(connection, &asked)?;
            let used = views::limit_uses(connection)?.get(asked.as_str()).copied().unwrap_or_default();
            Ok((offset, views::jobs_with_limit(connection, &asked)?, used))
        })
        .await?;
    if offset.is_none() {
        let what = if limit.is_of_queue() { format!("manifest of {}", words(&limit)) } else { words(&limit) };
        return Err(Problem::not_found(&what));
    }
    preconditions::check(&headers, versioned(&limit), offset)?;
    if !limit.is_of_queue() {
        check_unused(&limit, &jobs, uses)?;
    }
    let position = append(&api, &limit, None).await?;
    Ok(accepted(&position, answer(&limit)))
}

/// Refuses the removal of a limit without which somebody would wait for ever.
fn check_unused(limit: &LimitId, jobs: &[String], used: views::LimitUse) -> Result<(), Problem> {
    let what = words(limit);
    let detail = if !jobs.is_empty() {
        let names = some_of(jobs.iter().map(String::as_str));
        format!("{what} is named by jobs {names}; take it out of them first, or their runs would wait for ever")
    } else if used != views::LimitUse::default() {
        let (held, waiting) = (used.held, used.waiting);
        let how = "let them end or cancel them first, and take out its `host` if it has one, so that no more come";
        format!("{what} is held by {held} runs and {waiting} wait for it; {how}")
    } else {
        return Ok(());
    };
    Err(Problem::new(StatusCode::CONFLICT, "limitInUse", detail))
}

/// Complaints about limits that a definition names and that do not exist.
pub(super) async fn check_limits_of(api: &Arc<Api>, definition: &JobDefinition) -> Result<(), Problem> {
    let named = definition.spec.limits.clone();
    if named.is_empty() {
        return Ok(());
    }
    let known = api.read(views::limit_names).await?;
    let list = some_of(known.iter().map(String::as_str));
    let hint = if list.is_empty() { String::new() } else { format!(", or name one of: {list}") };
    let missing = named.iter().enumerate().filter(|(_, name)| !known.iter().any(|known| known == name.as_str()));
    let errors: Vec<FieldError> = missing
        .map(|(index, name)| {
            FieldError::new(format!("spec.limits[{index}]"), name, format!("is no limit; apply it first{hint}"))
        })
        .collect();
    if errors.is_empty() { Ok(()) } else { Err(invalid(errors)) }
}

fn read(limit: &LimitId, text: &str) -> Result<LimitManifest, Problem> {
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        let detail = format!("the body is no JSON: {error}");
        return Err(Problem::new(StatusCode::BAD_REQUEST, "notJson", detail));
    }
    let (manifest, found, _) = limit::parse_json(text).map_err(invalid)?;
    let what = words(limit);
    if found.is_of_queue() != limit.is_of_queue() {
        let wanted = if limit.is_of_queue() { QUEUE_KIND } else { LIMIT_KIND };
        let message = format!("must be `{wanted}`: the path names {what}");
        return Err(invalid(vec![FieldError::new("kind", &manifest.kind, message)]));
    }
    if found != *limit {
        let message = format!("must be that of the path, {what}");
        return Err(invalid(vec![FieldError::new("metadata.name", found.name(), message)]));
    }
    Ok(manifest)
}

/// `queue NAME` or `limit NAME`.
fn words(limit: &LimitId) -> String {
    limit.as_str().replacen('/', " ", 1)
}

/// What has a version: of a queue only its manifest.
fn versioned(limit: &LimitId) -> &'static str {
    if limit.is_of_queue() { "manifest of the queue" } else { "limit" }
}

fn answer(limit: &LimitId) -> Value {
    if limit.is_of_queue() { json!({"queue": limit.name()}) } else { json!({"limit": limit.name()}) }
}

async fn append(api: &Api, limit: &LimitId, value: Option<Vec<u8>>) -> Result<Position, Problem> {
    Ok(api.appends.append(NewRecord::new(topic::SETTINGS, 0, limit.as_str(), value)).await?)
}
