//! `GET /jobs` and `GET /jobs/{ns}/{name}`. Not here: writes (`job_writes`), what was decided (`history`).
//! Invariant: a job that was removed is not found, but is listed when asked for by its state.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use orloj_domain::id::{JobId, check_label};

use super::page::Page;
use super::params::Params;
use super::wait::Wait;
use super::{Api, JobPath, Problem, document};
use crate::views::{self, Items, JobFilter, JobState, JobView};

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = Wait::of(&mut params)?;
    params.finish()?;
    wait.done(&api).await?;
    let view = found(&api, &job).await?;
    let mut response = document(&view.document(api.clock.now()));
    // Not for `If-None-Match` here: the status changes without the version.
    if let Ok(etag) = HeaderValue::from_str(&view.etag()) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(wait.mark(&api, response))
}

/// The job in force.
pub(super) async fn found(api: &Arc<Api>, job: &JobId) -> Result<JobView, Problem> {
    let (reading, asked) = (Arc::clone(api), job.clone());
    let view = api.read(move |connection| views::find(connection, &reading.definitions, &asked)).await?;
    match view {
        Some(view) if view.definition.is_some() => Ok(view),
        Some(_) => Err(Problem::new(StatusCode::NOT_FOUND, "notFound", format!("job {job} was deleted"))),
        None => Err(Problem::not_found(&format!("job {job}"))),
    }
}

pub(super) async fn list(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    let filter = filter(&mut params)?;
    params.finish()?;
    wait.done(&api).await?;
    let (now, limit) = (api.clock.now(), page.limit + 1);
    let (reading, after) = (Arc::clone(&api), page.after.clone());
    let (items, cut_at) = api
        .read(move |connection| {
            let (found, cut_at) = views::list(connection, &reading.definitions, &filter, after.as_deref(), limit, now)?;
            let items: Items = found.into_iter().map(|view| (view.job.clone(), view.document(now))).collect();
            Ok((items, cut_at))
        })
        .await?;
    Ok(wait.mark(&api, document(&page.envelope_until(items, cut_at))))
}

fn filter(params: &mut Params) -> Result<JobFilter, Problem> {
    let namespace = params.text("namespace")?;
    if let Some(namespace) = &namespace {
        check_label("namespace", namespace)
            .map_err(|error| Problem::bad_parameter("namespace", namespace, error.rule))?;
    }
    let mut labels = Vec::new();
    for text in params.texts("label").iter().flat_map(|text| text.split(',')) {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.is_empty() {
            return Err(Problem::bad_parameter("label", text, "must be `name=value` or `name`"));
        }
        labels.push((name.to_owned(), value));
    }
    let state = params.word("state", &JobState::ALL, JobState::as_str)?;
    Ok(JobFilter { namespace, labels, state, part: params.text("q")?, queue: params.text("queue")? })
}
