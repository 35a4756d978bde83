//! `GET /runs/{id}/output`: pieces as JSON, all of it as plain bytes, or a stream that follows the run. Not here:
//! the stream itself (`stream`). Invariant: plain bytes are exactly what was captured, in order.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::page::Page;
use super::params::Params;
use super::wait::Wait;
use super::{Api, Problem, RunPath, document, stream};
use crate::views::{self, OutputSeen};

/// Most bytes of an answer in plain text; the API has the rest in pages.
const PLAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Pieces read at a time.
const PIECES: usize = 2000;

pub(super) async fn get(
    State(api): State<Arc<Api>>,
    RunPath(id): RunPath,
    headers: HeaderMap,
    mut params: Params,
) -> Result<Response, Problem> {
    let (page, wait) = (Page::of(&mut params)?, Wait::of(&mut params)?);
    let attempt = params.parsed::<i32>("attempt", "the number of an attempt")?;
    params.finish()?;
    wait.done(&api).await?;
    let asked = id.clone();
    let state = api.read(move |connection| views::run_state(connection, &asked)).await?;
    let accepts = |kind: &str| {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        accept.split(',').any(|part| part.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind))
    };
    if state.is_none() {
        return Err(Problem::not_found(&format!("run {id}")));
    }
    let response = if accepts("text/event-stream") {
        stream::follow(&api, id, attempt, last_seen(&headers)?)
    } else if accepts("text/plain") {
        plain(&api, id, attempt).await?
    } else {
        pieces(&api, id, attempt, &page).await?
    };
    Ok(wait.mark(&api, response))
}

fn last_seen(headers: &HeaderMap) -> Result<OutputSeen, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(OutputSeen::default()) };
    let seen = value.to_str().ok().and_then(|text| text.parse().ok());
    let complaint = || Problem::new(StatusCode::BAD_REQUEST, "badHeader", "Last-Event-ID is none of this stream");
    seen.ok_or_else(complaint)
}

async fn pieces(api: &Arc<Api>, id: String, attempt: Option<i32>, page: &Page) -> Result<Response, Problem> {
    let after = page.after_as(|key| key.parse().ok())?;
    let limit = page.limit + 1;
    let found = api.read(move |connection| views::output(connection, &id, attempt, after, limit)).await?;
    let items = found.iter().map(|item| (item.at.to_string(), item.document())).collect();
    Ok(document(&page.envelope(items)))
}

async fn plain(api: &Arc<Api>, id: String, attempt: Option<i32>) -> Result<Response, Problem> {
    let mut bytes = Vec::new();
    let mut after = None;
    loop {
        let asked = id.clone();
        let found = api.read(move |connection| views::output(connection, &asked, attempt, after, PIECES)).await?;
        let Some(last) = found.last() else { break };
        after = Some(last.at);
        for item in &found {
            bytes.extend_from_slice(&item.chunk.bytes);
        }
        if bytes.len() > PLAIN_BYTES_MAX {
            let detail = "the output is too large for one answer; ask for one attempt, or for pages of JSON";
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, "outputTooLarge", detail));
        }
    }
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    Ok(([(header::CONTENT_TYPE, kind)], bytes).into_response())
}
