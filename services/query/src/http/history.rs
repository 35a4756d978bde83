//! `GET /jobs/{ns}/{name}/fires` and `/history`. Not here: runs. Invariant: `?position=` answers with the event
//! that answers that record, or with none if it does not come in time.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use orloj_domain::id::JobId;
use orloj_domain::topic;
use orloj_runtime::log::Position;
use serde_json::{Value, json};

use super::page::Page;
use super::params::Params;
use super::wait::{self, TIMEOUT_MAX, Wait};
use super::{Api, JobPath, Problem, document};
use crate::views;

/// How long an answer is waited for if nothing is said.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn fires(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    params.finish()?;
    wait.done(&api).await?;
    let before = page.after_as(|key| key.parse().ok())?;
    let limit = page.limit + 1;
    let items = api.read(move |connection| views::decisions(connection, &job, before, limit)).await?;
    Ok(wait.mark(&api, document(&page.envelope(items))))
}

pub(super) async fn history(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let position =
        params.parsed::<Position>("position", "a position as `Log-Position` names it, for example `jobs/3@17`")?;
    if let Some(position) = position {
        let timeout = params.duration("timeout", TIMEOUT_MAX)?.unwrap_or(ANSWER_TIMEOUT);
        params.finish()?;
        return answer(&api, job, position, timeout).await;
    }
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    params.finish()?;
    wait.done(&api).await?;
    let before = page.after_as(|key| key.parse().ok())?;
    let limit = page.limit + 1;
    let items = api.read(move |connection| views::history(connection, &job, before, limit)).await?;
    Ok(wait.mark(&api, document(&page.envelope(items))))
}

async fn answer(api: &Arc<Api>, job: JobId, position: Position, timeout: Duration) -> Result<Response, Problem> {
    if ![topic::JOBS, topic::COMMANDS].contains(&position.topic.as_str()) {
        let message = "must be in `jobs` or `commands`; nothing else is answered by an event";
        return Err(Problem::bad_parameter("position", &position.to_string(), message));
    }
    let until = api.clock.monotonic() + timeout;
    let mut commits = api.progress.commits();
    loop {
        commits.mark_unchanged();
        let (asked, of) = (job.clone(), position.clone());
        let event = api.read(move |connection| views::answer_of(connection, &asked, &of)).await?;
        let left = until.saturating_sub(api.clock.monotonic());
        if event.is_some() || left.is_zero() {
            let items: Vec<Value> = event.into_iter().collect();
            return Ok(document(&json!({"items": items, "nextCursor": null})));
        }
        if !wait::next_commit(api, &mut commits, left).await {
            return Err(Problem::not_ready());
        }
    }
}
