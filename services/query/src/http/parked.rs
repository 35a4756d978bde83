//! `GET /dead-letters`, `/dead-letters/{id}`, `/quarantine`. Not here: sending anything back. Invariant: looking
//! changes nothing.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use orloj_domain::id::JobId;

use super::page::Page;
use super::params::Params;
use super::runs::time_and_id;
use super::wait::Wait;
use super::{Api, Problem, RunPath, document};
use crate::views::{self, DeadLetterFilter, LetterState};

pub(super) async fn dead_letters(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    let job = params.parsed::<JobId>("job", "`namespace/name`")?.map(|job| job.to_string());
    let state = params.word("state", LetterState::ALL, LetterState::as_str)?.unwrap_or_default();
    let filter = DeadLetterFilter { job, queue: params.text("queue")?, state };
    params.finish()?;
    wait.done(&api).await?;
    let before = page.after_as(time_and_id)?;
    let limit = page.limit + 1;
    let items = api.read(move |connection| views::dead_letters(connection, &filter, before, limit)).await?;
    Ok(wait.mark(&api, document(&page.envelope(items))))
}

pub(super) async fn dead_letter(
    State(api): State<Arc<Api>>,
    RunPath(id): RunPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = Wait::of(&mut params)?;
    params.finish()?;
    wait.done(&api).await?;
    let asked = id.clone();
    let letter = api.read(move |connection| views::dead_letter(connection, &asked)).await?;
    let letter = letter.ok_or_else(|| Problem::not_found(&format!("dead letter of run {id}")))?;
    Ok(wait.mark(&api, document(&letter)))
}

pub(super) async fn quarantine(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    params.finish()?;
    wait.done(&api).await?;
    let before = page.after_as(|key| {
        let (at, rowid) = time_and_id(key)?;
        Some((at, rowid.parse().ok()?))
    })?;
    let limit = page.limit + 1;
    let items = api.read(move |connection| views::quarantine(connection, before, limit)).await?;
    Ok(wait.mark(&api, document(&page.envelope(items))))
}
