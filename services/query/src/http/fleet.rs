//! `GET /runners`, `/shards`, `/queues`. Not here: jobs and runs. Invariant: whether a runner is lost is judged
//! by the time at which it is asked.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;

use super::page::Page;
use super::params::Params;
use super::{Api, Problem};
use crate::views;

pub(super) async fn runners(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let page = Page::of(&mut params)?;
    params.finish()?;
    let now = api.clock.now();
    Ok(page.of_whole(api.read(move |connection| views::runners(connection, now)).await?))
}

pub(super) async fn shards(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let page = Page::of(&mut params)?;
    params.finish()?;
    let count = api.shards.get();
    Ok(page.of_whole(api.read(move |connection| views::shards(connection, count)).await?))
}

pub(super) async fn queues(State(api): State<Arc<Api>>, mut params: Params) -> Result<Response, Problem> {
    let page = Page::of(&mut params)?;
    params.finish()?;
    let (now, known) = (api.clock.now(), api.queues.clone());
    Ok(page.of_whole(api.read(move |connection| views::queues(connection, &known, now)).await?))
}
