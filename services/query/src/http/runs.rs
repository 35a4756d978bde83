//! `GET /runs` and `GET /runs/{id}`. Not here: output. Invariant: newest request first.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use orloj_domain::id::JobId;
use orloj_domain::run::RunState;

use super::page::Page;
use super::params::Params;
use super::wait::Wait;
use super::{Api, Problem, RunPath, document};
use crate::views::{self, RunFilter};

pub(super) async fn list(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    let now = api.clock.now();
    let filter = RunFilter {
        job: params.parsed::<JobId>("job", "`namespace/name`")?.map(|job| job.to_string()),
        namespace: params.text("namespace")?,
        state: params.word("state", RunState::ALL, RunState::as_str)?.map(RunState::as_str),
        queue: params.text("queue")?,
        since: params.instant("since", now)?.map(|instant| instant.millis()),
        until: params.instant("until", now)?.map(|instant| instant.millis()),
    };
    params.finish()?;
    wait.done(&api).await?;
    let before = page.after_as(time_and_id)?;
    let limit = page.limit + 1;
    let items = api.read(move |connection| views::runs(connection, &filter, before, limit)).await?;
    Ok(wait.mark(&api, document(&page.envelope(items))))
}

/// Reads the key of a list that is ordered by time and id.
pub(super) fn time_and_id(key: &str) -> Option<(i64, String)> {
    let (millis, id) = key.split_once('~')?;
    Some((millis.parse().ok()?, id.to_owned()))
}

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    RunPath(id): RunPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = Wait::of(&mut params)?;
    params.finish()?;
    wait.done(&api).await?;
    let asked = id.clone();
    let run = api.read(move |connection| views::run(connection, &asked)).await?;
    let run = run.ok_or_else(|| Problem::not_found(&format!("run {id}")))?;
    Ok(wait.mark(&api, document(&run)))
}
