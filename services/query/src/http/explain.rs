//! `GET /jobs/{ns}/{name}/explain?at=`: why it fired, did not, or will. Not here: the answer (`explain`).
//! Invariant: a job that was removed is still explained.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use orloj_domain::id::JobId;
use orloj_domain::time::Timestamp;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::params::Params;
use super::wait::Wait;
use super::{Api, JobPath, Problem, document};
use crate::explain::{Moment, explain, moments};
use crate::views::{self, Definitions};

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    JobPath(job): JobPath,
    mut params: Params,
) -> Result<Response, Problem> {
    let wait = Wait::of(&mut params)?;
    let text = params.text("at")?.ok_or_else(|| Problem::bad_parameter("at", "", "is missing"))?;
    params.finish()?;
    wait.done(&api).await?;
    let (reading, asked, about, now) = (Arc::clone(&api), job.clone(), text.clone(), api.clock.now());
    // All in one view of the projection, so that facts agree with each other.
    let answer = api.read(move |connection| answers(connection, &reading.definitions, &asked, &about, now)).await?;
    let items = match answer {
        Answer::Items(items) => items,
        Answer::NoSuchJob => return Err(Problem::not_found(&format!("job {job}"))),
        Answer::NoInstant(message) => return Err(Problem::bad_parameter("at", &text, message)),
    };
    Ok(wait.mark(&api, document(&json!({"job": job, "at": text, "items": items}))))
}

enum Answer {
    Items(Vec<Value>),
    NoSuchJob,
    /// Why the text is none; continues the sentence that it starts.
    NoInstant(String),
}

fn answers(
    connection: &Connection,
    definitions: &Definitions,
    job: &JobId,
    text: &str,
    now: Timestamp,
) -> rusqlite::Result<Answer> {
    let versions = views::versions(connection, definitions, job)?;
    if versions.is_empty() {
        return Ok(Answer::NoSuchJob);
    }
    let meant = match moments(text, &versions) {
        Ok(meant) => meant,
        Err(message) => return Ok(Answer::NoInstant(message)),
    };
    let answer = |moment: Moment| {
        let facts = views::facts(connection, definitions, job, &versions, (moment.instant, now))?;
        let mut item = json!(explain(&facts));
        item["note"] = json!(moment.note);
        Ok(item)
    };
    let items: rusqlite::Result<Vec<Value>> = meant.into_iter().map(answer).collect();
    Ok(Answer::Items(items?))
}
