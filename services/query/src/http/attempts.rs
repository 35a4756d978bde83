//! `POST /attempts/{id}/complete`: the callback of a target says how its attempt ended. Not here: what comes of it, which the
//! dispatcher decides. Invariant: nothing is written before the token was found right, and no token stands in an answer, an
//! error or a record.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::callback::{AttemptId, CallbackDigest, CallbackToken};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::JobId;
use orloj_domain::job_event::FieldError;
use orloj_domain::manifest::parse_duration;
use orloj_domain::topic;
use orloj_runtime::codec;
use serde::Deserialize;
use serde_json::json;

use super::commands::{asked, command_id};
use super::job_writes::{accepted, append, invalid};
use super::params::Params;
use super::wait::{TIMEOUT_DEFAULT, TIMEOUT_MAX, next_commit};
use super::{Api, Problem, document};
use crate::views::{self, AttemptPlace};

/// The attempt that the path names.
pub(super) struct AttemptPath(AttemptId);

impl<S: Send + Sync> FromRequestParts<S> for AttemptPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let axum::extract::Path(id) = path.map_err(|error| Problem::bad_path(&error.to_string()))?;
        let id = id.parse::<AttemptId>().map_err(|error| Problem::bad_path(&error.to_string()))?;
        Ok(Self(id))
    }
}

/// What the body says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Request {
    #[serde(default)]
    outcome: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default, rename = "final")]
    is_final: Option<bool>,
    #[serde(default)]
    retry_after: Option<String>,
}

pub(super) async fn complete(
    State(api): State<Arc<Api>>,
    AttemptPath(id): AttemptPath,
    headers: HeaderMap,
    mut params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let token = bearer(&headers)?;
    let timeout = params.duration("timeout", TIMEOUT_MAX)?.unwrap_or(TIMEOUT_DEFAULT);
    let outcome = outcome(asked(&headers, params, body).await?, token.as_ref())?;
    let command_id = command_id(&headers)?;
    if token.as_ref().is_some_and(|token| command_id.as_str().contains(token.reveal())) {
        let detail = "Idempotency-Key: holds the token, which is a secret; choose another key";
        return Err(Problem::new(StatusCode::BAD_REQUEST, "badHeader", detail));
    }
    let open = match find(&api, id, token.as_ref(), timeout).await? {
        Found::Open(open) => open,
        Found::Ended(ended) => return said_again(id, &ended, &outcome),
    };
    let job: JobId = open.job.parse().map_err(|_| Problem::internal("the run is of no job that can be named"))?;
    let kind = outcome.kind;
    let command = Command {
        at: Some(api.clock.now()),
        run_id: Some(id.run_id),
        attempt: Some(id.attempt),
        token: Some(open.token),
        outcome: Some(outcome),
        ..Command::new(CommandType::Complete, command_id.clone())
    };
    let position = append(&api, topic::COMMANDS, &job, Some(codec::encode(&command))).await?;
    let told = json!({
        "attemptId": id.to_string(), "job": job, "runId": id.run_id, "outcome": {"kind": kind}, "commandId": command_id,
    });
    Ok(accepted(&position, told))
}

/// The token of the request; none if its text can be nobody's.
fn bearer(headers: &HeaderMap) -> Result<Option<CallbackToken>, Problem> {
    let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = given.and_then(|text| {
        let (scheme, token) = text.trim().split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let detail =
        "send `Authorization: Bearer TOKEN` with the token of the header `Orloj-Callback-Token` of the request";
    let missing = || Problem::new(StatusCode::UNAUTHORIZED, "noToken", detail);
    token.map(CallbackToken::new).ok_or_else(missing)
}

fn outcome(request: Request, token: Option<&CallbackToken>) -> Result<Outcome, Problem> {
    let Request { outcome, message, is_final, retry_after } = request;
    let refused = |field: &str, value: &str, message: &str| Err(invalid(vec![FieldError::new(field, value, message)]));
    let kind = match outcome.as_deref() {
        Some("succeeded") => OutcomeKind::Succeeded,
        Some("failed") => OutcomeKind::Failed,
        Some(other) => return refused("outcome", other, "must be succeeded or failed"),
        None => return refused("outcome", "", "is missing; it must be succeeded or failed"),
    };
    if kind == OutcomeKind::Succeeded {
        let is_named = [("final", is_final.is_some()), ("retryAfter", retry_after.is_some())];
        if let Some((field, _)) = is_named.into_iter().find(|(_, is_present)| *is_present) {
            return refused(field, "", "is for `\"outcome\": \"failed\"` only; leave it out");
        }
    }
    let retry_after_ms = match retry_after.as_deref().map(|text| (text, parse_duration(text))) {
        None => None,
        Some((_, Ok(wait))) => Some(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
        Some((text, Err(message))) => return refused("retryAfter", text, &message),
    };
    let is_final = is_final.unwrap_or(false);
    let message = message.unwrap_or_default();
    let message = token.map_or_else(|| message.clone(), |token| message.replace(token.reveal(), "(hidden)"));
    Ok(Outcome { is_final, retry_after_ms, ..Outcome::new(kind, message) })
}

/// An attempt whose token was shown.
enum Found {
    /// It has not ended as far as the projection knows.
    Open(Open),
    /// It has.
    Ended(AttemptPlace),
}

struct Open {
    job: String,
    token: i64,
}

/// Looks for the attempt until it is there, for `timeout` at most: a target may call back before the report that it was started
/// is folded in.
async fn find(
    api: &Arc<Api>,
    id: AttemptId,
    token: Option<&CallbackToken>,
    timeout: Duration,
) -> Result<Found, Problem> {
    let deadline = api.clock.monotonic() + timeout;
    let mut commits = api.progress.commits();
    loop {
        let place = api.read(move |connection| views::attempt_place(connection, id)).await?;
        let early = match judged(id, place, token) {
            Ok(found) => return Ok(found),
            Err(Refused::ForGood(problem)) => return Err(problem),
            Err(Refused::ForNow(problem)) => problem.worth_repeating(),
        };
        let left = deadline.saturating_sub(api.clock.monotonic());
        if left.is_zero() || !next_commit(api, &mut commits, left).await {
            return Err(early);
        }
    }
}

enum Refused {
    /// It may be otherwise in a moment.
    ForNow(Problem),
    ForGood(Problem),
}

fn judged(id: AttemptId, place: Option<AttemptPlace>, token: Option<&CallbackToken>) -> Result<Found, Refused> {
    let conflict = |code, detail: &str| Problem::new(StatusCode::CONFLICT, code, format!("attempt {id}: {detail}"));
    let unknown = || Refused::ForNow(Problem::not_found(&format!("attempt {id}, or none yet")));
    let place = place.ok_or_else(unknown)?;
    let fencing_token = place.token.ok_or_else(unknown)?;
    let Some(digest) = &place.digest else {
        if place.has_started || place.has_ended {
            let detail = "its target ends it by its answer; set `spec.run.http.completion` to `callback` for the next";
            return Err(Refused::ForGood(conflict("noCallback", detail)));
        }
        return Err(Refused::ForNow(conflict("notStarted", "nothing is known of its start yet; try again")));
    };
    let digest: Result<CallbackDigest, _> = digest.parse();
    if !token.zip(digest.ok()).is_some_and(|(token, digest)| token.digest().is_same(&digest)) {
        let detail = format!("this is not the token of attempt {id}");
        return Err(Refused::ForGood(Problem::new(StatusCode::FORBIDDEN, "wrongToken", detail)));
    }
    if place.has_ended || place.has_run_ended {
        return Ok(Found::Ended(place));
    }
    Ok(Found::Open(Open { job: place.job, token: fencing_token }))
}

/// An answer for whoever says of an ended attempt how it ended: again, or too late.
fn said_again(id: AttemptId, ended: &AttemptPlace, outcome: &Outcome) -> Result<Response, Problem> {
    let kind = ended.outcome["kind"].as_str().unwrap_or("unknown");
    if kind == outcome.kind.as_str() {
        return Ok(document(&json!({
            "attemptId": id.to_string(), "job": ended.job, "runId": id.run_id, "outcome": ended.outcome,
        })));
    }
    let how = if ended.has_ended { kind } else { "its run has ended" };
    let detail = format!("attempt {id} has ended before ({how}); nothing was changed");
    Err(Problem::new(StatusCode::CONFLICT, "attemptEnded", detail))
}
