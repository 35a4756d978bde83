//! `POST /jobs/{ns}/{name}/trigger`, `/pause`, `/resume`: records for `commands`. Not here: what comes of them.
//! Invariant: the idempotency key is the command's id, so the same key sent twice asks once and names one run.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::Response;
use orloj_domain::command::{Command, CommandType, PauseMissed};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::job_event::FieldError;
use orloj_domain::topic;
use orloj_runtime::codec;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::job_writes::{accepted, append, invalid, json_body, must_exist};
use super::params::Params;
use super::{Api, JobPath, Problem};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Longest name of who asks.
const ACTOR_CHARACTERS_MAX: usize = 128;

/// What the body of a command may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    params: BTreeMap<String, String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    missed: Option<PauseMissed>,
    /// Who asks, as the client names itself.
    #[serde(default)]
    actor: Option<String>,
}

pub(super) async fn trigger(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    ask(&api, &job, CommandType::RunNow, &headers, params, body).await
}

pub(super) async fn pause(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    ask(&api, &job, CommandType::Pause, &headers, params, body).await
}

pub(super) async fn resume(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    ask(&api, &job, CommandType::Resume, &headers, params, body).await
}

async fn ask(
    api: &Arc<Api>,
    job: &JobId,
    kind: CommandType,
    headers: &HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let request: Request = asked(headers, params, body).await?;
    if kind != CommandType::RunNow && !request.params.is_empty() {
        return Err(invalid(vec![FieldError::new("params", "", "is for /trigger only; leave it out")]));
    }
    if kind != CommandType::Resume && request.missed.is_some() {
        return Err(invalid(vec![FieldError::new("missed", "", "is for /resume only; leave it out")]));
    }
    if request.missed == Some(PauseMissed::Unknown) {
        return Err(invalid(vec![FieldError::new("missed", "unknown", "must be drop or accumulate")]));
    }
    let command_id = command_id(headers)?;
    must_exist(api, job).await?;
    let command = Command {
        at: Some(api.clock.now()),
        actor: actor(request.actor)?,
        reason: request.reason,
        params: request.params,
        missed: request.missed,
        ..Command::new(kind, command_id.clone())
    };
    let position = append(api, topic::COMMANDS, job, Some(codec::encode(&command))).await?;
    let mut document = json!({"job": job, "commandId": command_id});
    if kind == CommandType::RunNow {
        document["runId"] = json!(RunId::of_command(job, &command_id));
    }
    Ok(accepted(&position, document))
}

/// Who asks; nobody if it is left out.
pub(super) fn actor(found: Option<String>) -> Result<Option<String>, Problem> {
    let found = found.filter(|actor| !actor.trim().is_empty());
    let is_good = |actor: &str| actor.chars().count() <= ACTOR_CHARACTERS_MAX && !actor.chars().any(char::is_control);
    match found {
        Some(actor) if !is_good(&actor) => {
            let message = format!("must be at most {ACTOR_CHARACTERS_MAX} printable characters");
            Err(invalid(vec![FieldError::new("actor", actor.escape_debug(), message)]))
        }
        found => Ok(found),
    }
}

/// What a command asks for: its body, and nothing in its query.
pub(super) async fn asked<T: Default + DeserializeOwned>(
    headers: &HeaderMap,
    params: Params,
    body: Body,
) -> Result<T, Problem> {
    params.finish()?;
    request(&json_body(headers, body).await?)
}

/// The body of a command; empty for one that says nothing.
fn request<T: Default + DeserializeOwned>(text: &str) -> Result<T, Problem> {
    if text.trim().is_empty() {
        return Ok(T::default());
    }
    serde_json::from_str(text).map_err(|error| {
        let errors = vec![FieldError::new("body", "", error.to_string())];
        if error.is_data() {
            invalid(errors)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "notJson", format!("the body is no JSON: {error}")).with(errors)
        }
    })
}

pub(super) fn command_id(headers: &HeaderMap) -> Result<CommandId, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        let generated = uuid::Uuid::new_v4().to_string();
        return CommandId::new(&generated).map_err(|error| Problem::internal(&error.to_string()));
    };
    let complaint =
        |text: String| Problem::new(StatusCode::BAD_REQUEST, "badHeader", format!("Idempotency-Key: {text}"));
    let key = key.to_str().map_err(|_| complaint("is no text".to_owned()))?;
    CommandId::new(key).map_err(|error| complaint(error.to_string()))
}
