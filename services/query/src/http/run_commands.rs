//! `POST /runs/{id}/cancel` and `/retry`: records for `commands`. Not here: what comes of them, which the dispatcher decides.
//! Invariant: what can't come true as things stand is refused, with what can be done instead.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::{JobId, RunId};
use orloj_domain::run::NOT_KEPT;
use orloj_domain::topic;
use orloj_runtime::codec;
use serde::Deserialize;
use serde_json::json;

use super::commands::{actor, asked, command_id};
use super::job_writes::{accepted, append};
use super::params::Params;
use super::{Api, Problem, RunPath};
use crate::views;

/// What the body may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    reason: Option<String>,
    /// Who asks, as the client names itself.
    #[serde(default)]
    actor: Option<String>,
}

pub(super) async fn cancel(
    State(api): State<Arc<Api>>,
    RunPath(id): RunPath,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    ask(&api, id, CommandType::Cancel, &headers, params, body).await
}

pub(super) async fn retry(
    State(api): State<Arc<Api>>,
    RunPath(id): RunPath,
    headers: HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    ask(&api, id, CommandType::Redrive, &headers, params, body).await
}

async fn ask(
    api: &Arc<Api>,
    id: String,
    kind: CommandType,
    headers: &HeaderMap,
    params: Params,
    body: Body,
) -> Result<Response, Problem> {
    let request: Request = asked(headers, params, body).await?;
    let command_id = command_id(headers)?;
    let asked = id.clone();
    let found = api.read(move |connection| views::run_place(connection, &asked)).await?;
    let place = found.ok_or_else(|| Problem::not_found(&format!("run {id}")))?;
    let run_id: RunId = id.parse().map_err(|_| Problem::not_found(&format!("run {id}")))?;
    if let Some(complaint) = complaint(kind, &place) {
        return Err(Problem::new(StatusCode::CONFLICT, "wrongState", complaint));
    }
    let job: JobId = place.job.parse().map_err(|_| Problem::internal("the run is of no job that can be named"))?;
    let command = Command {
        at: Some(api.clock.now()),
        actor: actor(request.actor)?,
        reason: request.reason,
        run_id: Some(run_id),
        ..Command::new(kind, command_id.clone())
    };
    let position = append(api, topic::COMMANDS, &job, Some(codec::encode(&command))).await?;
    Ok(accepted(&position, json!({"job": job, "runId": run_id, "commandId": command_id})))
}

/// Why a command makes no sense for a run that is known to be in this state.
fn complaint(kind: CommandType, place: &views::RunPlace) -> Option<String> {
    let (job, state) = (&place.job, &place.state);
    if kind == CommandType::Cancel {
        return place.has_ended.then(|| format!("the run has ended already ({state}); there is nothing to cancel"));
    }
    if state == "dead" && place.note.as_deref() == Some(NOT_KEPT) {
        return Some(format!("the run is {NOT_KEPT}"));
    }
    let instead = if place.has_ended { "; to run the job again, trigger it" } else { ": it has not ended" };
    (state != "dead").then(|| format!("the run is {state}, and only dead runs are sent back{instead} (job {job})"))
}
