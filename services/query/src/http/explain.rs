//! `GET /jobs/{ns}/{name}/explain?at=`: why it fired, did not, or will. Not here: the answer (`explain`).
//! Invariant: a job that was removed is still explained.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::params::Params;
use super::wait::Wait;
use super::{Api, JobPath, Problem, document};
use crate::explain::{explain, moments};
use crate::views;

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = Wait::of(&mut params)?;
    let text = params.text("at")?.ok_or_else(|| Problem::bad_parameter("at", "", "is missing"))?;
    params.finish()?;
    wait.done(&api).await?;
    let (reading, asked) = (Arc::clone(&api), job.clone());
    let versions = api.read(move |connection| views::versions(connection, &reading.definitions, &asked)).await?;
    if versions.is_empty() {
        return Err(Problem::not_found(&format!("job {job}")));
    }
    let meant = moments(&text, &versions).map_err(|message| Problem::bad_parameter("at", &text, message))?;
    let (reading, asked, now) = (Arc::clone(&api), job.clone(), api.clock.now());
    let items: Vec<Value> = api
        .read(move |connection| {
            let answer = |moment: crate::explain::Moment| {
                let facts = views::facts(connection, &reading.definitions, &asked, moment.instant, now)?;
                let mut item = json!(explain(&facts));
                item["note"] = json!(moment.note);
                Ok(item)
            };
            meant.into_iter().map(answer).collect()
        })
        .await?;
    Ok(wait.mark(&api, document(&json!({"job": job, "at": text, "items": items}))))
}
