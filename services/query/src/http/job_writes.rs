//! `PUT` and `DELETE /jobs/{ns}/{name}`: records for `jobs`, which the trigger answers. Not here: whether they
//! take effect. Invariant: what is obviously wrong is refused here with every complaint, and never sent.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orloj_domain::id::JobId;
use orloj_domain::job::{DEFINITION_BYTES_MAX, JobDefinition};
use orloj_domain::job_event::FieldError;
use orloj_domain::manifest::{self, Manifest};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{NewRecord, Position};
use serde_json::{Value, json};

use super::calendars::check_calendars_of;
use super::limits::check_limits_of;
use super::params::Params;
use super::wait::{LOG_POSITION, Wait};
use super::{Api, JobPath, Problem, preconditions};
use crate::views;

/// Largest body that is read.
const BODY_BYTES_MAX: usize = 512 * 1024;
/// Most that is read of a body that is too large.
const DISCARDED_BYTES_MAX: usize = 8 * BODY_BYTES_MAX;
/// Longest time that a body may take to come.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) async fn put(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    headers: HeaderMap,
    mut params: Params,
    body: Body,
) -> Result<Response, Problem> {
    // For calendars and limits that were written a moment ago.
    let wait = Wait::of(&mut params)?;
    params.finish()?;
    let text = json_body(&headers, body).await?;
    let definition = definition(&job, &text)?;
    wait.done(&api).await?;
    check_calendars_of(&api, &definition).await?;
    check_limits_of(&api, &definition).await?;
    check_version(&api, &job, &headers).await?;
    let value = codec::encode(&definition);
    if value.len() > DEFINITION_BYTES_MAX {
        let detail = format!("a definition has at most {DEFINITION_BYTES_MAX} bytes, this one {}", value.len());
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "definitionTooLarge", detail));
    }
    let position = append(&api, topic::JOBS, &job, Some(value)).await?;
    Ok(accepted(&position, json!({"job": job})))
}

pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    headers: HeaderMap,
    params: Params,
) -> Result<Response, Problem> {
    params.finish()?;
    must_exist(&api, &job).await?;
    check_version(&api, &job, &headers).await?;
    let position = append(&api, topic::JOBS, &job, None).await?;
    Ok(accepted(&position, json!({"job": job})))
}

/// Refuses what is about a job that is neither in force nor offered.
pub(super) async fn must_exist(api: &Arc<Api>, job: &JobId) -> Result<(), Problem> {
    let asked = job.clone();
    if api.read(move |connection| views::exists(connection, &asked)).await? {
        return Ok(());
    }
    Err(Problem::not_found(&format!("job {job}")))
}

async fn check_version(api: &Arc<Api>, job: &JobId, headers: &HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(header::IF_MATCH) && !headers.contains_key(header::IF_NONE_MATCH) {
        return Ok(());
    }
    let (reading, asked) = (Arc::clone(api), job.clone());
    let view = api.read(move |connection| views::find(connection, &reading.definitions, &asked)).await?;
    preconditions::check(headers, "job", view.filter(|view| view.definition.is_some()).map(|view| view.version))
}

/// Appends a record about a job to the job's shard.
pub(super) async fn append(api: &Api, topic: &str, job: &JobId, value: Option<Vec<u8>>) -> Result<Position, Problem> {
    let partition = api.shards.shard_of(job).0;
    Ok(api.appends.append(NewRecord::new(topic, partition, job.as_str(), value)).await?)
}

/// 202 with the position in header and document.
pub(super) fn accepted(position: &Position, mut document: Value) -> Response {
    document["position"] = position.to_string().into();
    let mut response = (StatusCode::ACCEPTED, axum::Json(document)).into_response();
    if let Ok(value) = HeaderValue::from_str(&position.to_string()) {
        response.headers_mut().insert(LOG_POSITION, value);
    }
    response
}

/// The body as text, if it is JSON; empty if there is none.
pub(super) async fn json_body(headers: &HeaderMap, body: Body) -> Result<String, Problem> {
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        let kind = kind.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if kind != "application/json" && !kind.ends_with("+json") {
            let detail = format!("the body is `{kind}`; send JSON with `Content-Type: application/json`");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "notJson", detail));
        }
    }
    let read = tokio::time::timeout(BODY_TIMEOUT, collected(body)).await;
    let bytes =
        read.map_err(|_| Problem::new(StatusCode::REQUEST_TIMEOUT, "bodyTooSlow", "the body took too long to come"))??;
    String::from_utf8(bytes)
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "notJson", "the body is no UTF-8 text; JSON must be"))
}

/// Reads a body. Of one that is too large more is taken than kept: a client that is cut off while it still sends
/// would see a broken connection instead of the answer.
async fn collected(mut body: Body) -> Result<Vec<u8>, Problem> {
    let (mut kept, mut taken) = (Vec::new(), 0);
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame = frame.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "bodyBroken", error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        taken += data.len();
        if taken <= BODY_BYTES_MAX {
            kept.extend_from_slice(&data);
        } else if taken > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if taken > BODY_BYTES_MAX {
        let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "bodyTooLarge", detail));
    }
    Ok(kept)
}

/// The definition that a body holds, for the job that the path names.
fn definition(job: &JobId, text: &str) -> Result<JobDefinition, Problem> {
    let mut manifest: Manifest = serde_json::from_str(text).map_err(|error| {
        // The reader of manifests says it better: with the field it happened at.
        let errors = manifest::parse_json(text).err().unwrap_or_default();
        if error.is_data() {
            invalid(errors)
        } else {
            Problem::new(StatusCode::BAD_REQUEST, "notJson", format!("the body is no JSON: {error}")).with(errors)
        }
    })?;
    manifest.metadata.namespace.get_or_insert_with(|| job.namespace().to_owned());
    let definition = manifest::to_definition(manifest).map_err(invalid)?;
    if definition.job != *job {
        let message = format!("must name the job of the path, {job}");
        return Err(invalid(vec![FieldError::new("metadata", &definition.job, message)]));
    }
    Ok(definition)
}

pub(super) fn invalid(errors: Vec<FieldError>) -> Problem {
    let detail = match errors.as_slice() {
        [one] => one.to_string(),
        many => format!("{} fields are wrong; `errors` lists them", many.len()),
    };
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail).with(errors)
}
