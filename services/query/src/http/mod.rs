//! The HTTP API under `/api/v1`, and the routes for operations. Not here: queries and documents (`views`).
//! Invariant: every failure is a problem document, and a request can write nothing but job records,
//! settings and commands.

mod attempts;
mod backfill;
mod calendars;
mod commands;
mod dead_letter_orders;
mod explain;
mod fleet;
mod guard;
mod history;
mod job_writes;
mod jobs;
mod limits;
pub(crate) mod operations;
mod output;
mod page;
mod params;
mod parked;
mod preconditions;
mod problem;
mod run_commands;
mod runs;
mod schedules;
mod stream;
mod wait;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use orloj_domain::id::{JobId, QueueName};
use orloj_domain::shard::ShardCount;
use orloj_runtime::clock::Clock;
use orloj_runtime::health::Health;
use orloj_runtime::metrics::Metrics;
use rusqlite::Connection;
use serde::Serialize;
use tokio::sync::watch;

use crate::VersionInfo;
use crate::appends::Appends;
use crate::metrics::QueryMetrics;
use crate::progress::Progress;
use crate::store::{Pool, ReadError};
use crate::views::Definitions;
pub(crate) use problem::Problem;

/// What requests work with.
pub(crate) struct Api {
    pub(crate) progress: Arc<Progress>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) appends: Appends,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) health: Health,
    pub(crate) metrics: Metrics,
    pub(crate) counted: QueryMetrics,
    pub(crate) shards: ShardCount,
    pub(crate) queues: Vec<QueueName>,
    pub(crate) version: VersionInfo,
    pub(crate) listen: SocketAddr,
    pub(crate) definitions: Definitions,
    /// Turns true when the service is to end.
    pub(crate) ending: watch::Receiver<bool>,
}

impl Api {
    /// Asks the projection, off the threads that serve.
    pub(crate) async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, Problem> {
        let _turn = self.pool.turn().await;
        let pool = Arc::clone(&self.pool);
        match tokio::task::spawn_blocking(move || pool.read(ask)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(ReadError::NotReady)) => Err(Problem::not_ready()),
            Ok(Err(ReadError::Sqlite(error))) => {
                tracing::warn!(%error, "the projection could not be read");
                Err(Problem::internal("the projection could not be read"))
            }
            Err(error) => {
                tracing::error!(%error, "a read has panicked");
                Err(Problem::internal("a defect; the log of the server has more"))
            }
        }
    }
}

/// All routes.
pub(crate) fn router(api: Arc<Api>) -> Router {
    let job = get(jobs::get).put(job_writes::put).delete(job_writes::delete);
    let calendar = get(calendars::get).put(calendars::put).delete(calendars::delete);
    let limit = get(limits::get).put(limits::put).delete(limits::delete);
    Router::new()
        .route("/api/v1/jobs", get(jobs::list))
        .route("/api/v1/jobs/{namespace}/{name}", job)
        .route("/api/v1/jobs/{namespace}/{name}/trigger", post(commands::trigger))
        .route("/api/v1/jobs/{namespace}/{name}/pause", post(commands::pause))
        .route("/api/v1/jobs/{namespace}/{name}/resume", post(commands::resume))
        .route("/api/v1/jobs/{namespace}/{name}/backfill", post(backfill::post))
        .route("/api/v1/jobs/{namespace}/{name}/fires", get(history::fires))
        .route("/api/v1/jobs/{namespace}/{name}/history", get(history::history))
        .route("/api/v1/jobs/{namespace}/{name}/next", get(schedules::of_job))
        .route("/api/v1/jobs/{namespace}/{name}/explain", get(explain::get))
        .route("/api/v1/runs", get(runs::list))
        .route("/api/v1/runs/{id}", get(runs::get))
        .route("/api/v1/runs/{id}/output", get(output::get))
        .route("/api/v1/runs/{id}/cancel", post(run_commands::cancel))
        .route("/api/v1/runs/{id}/retry", post(run_commands::retry))
        .route("/api/v1/attempts/{id}/complete", post(attempts::complete))
        .route("/api/v1/dead-letters", get(parked::dead_letters))
        .route("/api/v1/dead-letters/{id}", get(parked::dead_letter))
        .route("/api/v1/dead-letters/redrive", post(dead_letter_orders::redrive))
        .route("/api/v1/dead-letters/park", post(dead_letter_orders::park))
        .route("/api/v1/quarantine", get(parked::quarantine))
        .route("/api/v1/runners", get(fleet::runners))
        .route("/api/v1/shards", get(fleet::shards))
        .route("/api/v1/queues", get(fleet::queues))
        .route("/api/v1/queues/{name}", limit.clone())
        .route("/api/v1/limits", get(limits::list))
        .route("/api/v1/limits/{name}", limit)
        .route("/api/v1/calendars", get(calendars::list))
        .route("/api/v1/calendars/{name}", calendar)
        .route("/api/v1/schedules/next", get(schedules::of_expression))
        .route("/livez", get(operations::livez))
        .route("/readyz", get(operations::readyz))
        .route("/version", get(operations::version))
        .route("/metrics", get(operations::metrics))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&api), guard::guard))
        .with_state(api)
}

pub(crate) async fn no_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "noRoute", "there is nothing at this path")
}

pub(crate) async fn no_method() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "noMethod",
        "this path does not know this method; `Allow` lists those it does",
    )
}

/// A document as an answer.
fn document<T: Serialize>(document: &T) -> Response {
    axum::Json(document).into_response()
}

/// The job that the path names.
struct JobPath(JobId);

impl<S: Send + Sync> FromRequestParts<S> for JobPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        let axum::extract::Path((namespace, name)) = path.map_err(|error| Problem::bad_path(&error.to_string()))?;
        let job = JobId::new(&namespace, &name).map_err(|error| Problem::bad_path(&error.to_string()))?;
        Ok(Self(job))
    }
}

/// The id that the path names, as a run's.
struct RunPath(String);

impl<S: Send + Sync> FromRequestParts<S> for RunPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let axum::extract::Path(id) = path.map_err(|error| Problem::bad_path(&error.to_string()))?;
        let id: orloj_domain::id::RunId =
            id.parse().map_err(|error: orloj_domain::id::IdError| Problem::bad_path(&error.to_string()))?;
        Ok(Self(id.to_string()))
    }
}
