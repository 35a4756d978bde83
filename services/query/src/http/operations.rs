//! `/livez`, `/readyz`, `/version`, `/metrics`: for whoever runs the process. Not here: the API. Invariant: they
//! answer while everything else waits, and need no projection.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use orloj_runtime::health::Health;
use orloj_runtime::metrics::Metrics;
use serde_json::{Value, json};

use super::{Api, guard, no_method, no_route};
use crate::VersionInfo;

/// What a process without the API answers with.
struct Operations {
    health: Health,
    metrics: Metrics,
    version: VersionInfo,
}

/// The routes for a process without the API.
pub(crate) fn only(health: Health, metrics: Metrics, version: VersionInfo, listen: SocketAddr) -> Router {
    let guard = move |request: Request, next: Next| guard::guarded(listen, request, next);
    Router::new()
        .route("/livez", get(livez))
        .route(
            "/readyz",
            get(|State(this): State<Arc<Operations>>, uri: Uri| async move { ready(&this.health, &uri, None) }),
        )
        .route("/version", get(|State(this): State<Arc<Operations>>| async move { axum::Json(this.version.clone()) }))
        .route("/metrics", get(|State(this): State<Arc<Operations>>| async move { text(&this.metrics) }))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(axum::middleware::from_fn(guard))
        .with_state(Arc::new(Operations { health, metrics, version }))
}

pub(super) async fn livez() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(api): State<Arc<Api>>, uri: Uri) -> Response {
    ready(&api.health, &uri, Some(api.counted.lag.get()))
}

pub(super) async fn version(State(api): State<Arc<Api>>) -> axum::Json<VersionInfo> {
    axum::Json(api.version.clone())
}

pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    text(&api.metrics)
}

/// 200 if every component does its work, else 503 with the reasons; `?verbose` as JSON, with the projection's lag.
fn ready(health: &Health, uri: &Uri, lag: Option<i64>) -> Response {
    let (states, is_ready) = (health.states(), health.is_ready());
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_verbose =
        uri.query().is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("verbose")));
    if is_verbose {
        let components: serde_json::Map<String, Value> = states
            .into_iter()
            .map(|(name, reason)| (name, json!({"ready": reason.is_none(), "reason": reason})))
            .collect();
        let mut document = json!({"ready": is_ready, "components": components});
        if let Some(lag) = lag {
            document["components"]["query"]["lagRecords"] = lag.into();
        }
        return (status, axum::Json(document)).into_response();
    }
    if is_ready {
        return (status, "ok\n").into_response();
    }
    let reasons = states.into_iter().filter_map(|(name, reason)| Some(format!("{name}: {}\n", reason?)));
    (status, reasons.collect::<String>()).into_response()
}

fn text(metrics: &Metrics) -> Response {
    let kind = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, kind)], metrics.text()).into_response()
}
