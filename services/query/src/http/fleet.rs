//! `GET /runners`, `/shards`, `/queues`. Not here: jobs and runs. Invariant: whether a runner is lost is judged
//! by the time at which it is asked.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::page::Page;
use super::params::Params;
use super::wait::Wait;
use super::{Api, Problem};
use crate::views;

pub(super) async fn runners(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    params.finish()?;
    wait.done(&api).await?;
    let now = api.clock.now();
    let items = api.read(move |connection| views::runners(connection, now)).await?;
    Ok(wait.mark(&api, page.of_whole(items)))
}

pub(super) async fn shards(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    params.finish()?;
    wait.done(&api).await?;
    let count = api.shards.get();
    let items = api.read(move |connection| views::shards(connection, count)).await?;
    Ok(wait.mark(&api, page.of_whole(items)))
}

pub(super) async fn queues(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    params.finish()?;
    wait.done(&api).await?;
    let (now, known) = (api.clock.now(), api.queues.clone());
    let items = api.read(move |connection| views::queues(connection, &known, now)).await?;
    Ok(wait.mark(&api, page.of_whole(items)))
}
