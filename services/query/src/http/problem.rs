//! Failures as RFC 9457 problem documents. Not here: when something fails. Invariant: the detail says what is
//! wrong and how to mend it; `code` never changes its meaning.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use orloj_domain::job_event::FieldError;
use serde_json::{Value, json};

use crate::appends::AppendFailure;

/// A failure.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    errors: Vec<FieldError>,
    /// The same request may do in a moment.
    is_worth_repeating: bool,
}

impl Problem {
    /// A failure with a status, a code for programs and a sentence for people.
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            errors: Vec::new(),
            is_worth_repeating: status == StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The same with complaints about fields.
    pub(crate) fn with(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// The same, for a request that may do in a moment.
    pub(crate) fn worth_repeating(mut self) -> Self {
        self.is_worth_repeating = true;
        self
    }

    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "notFound", format!("there is no {what}"))
    }

    pub(crate) fn internal(detail: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    pub(crate) fn not_ready() -> Self {
        let detail = "the projection is being built from the log; see /readyz?verbose, and try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "notReady", detail)
    }

    pub(crate) fn bad_path(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "badPath", detail)
    }

    /// A query parameter that can't be used.
    pub(crate) fn bad_parameter(name: &str, value: &str, message: impl Into<String>) -> Self {
        let error = FieldError::new(name, value, message);
        let problem = Self::new(StatusCode::BAD_REQUEST, "badParameter", format!("query parameter {error}"));
        problem.with(vec![error])
    }

    /// The document; `instance` is the path that was asked for.
    pub(crate) fn document(&self, instance: &str) -> Value {
        json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
            "instance": instance,
            "errors": self.errors,
        })
    }

    /// The whole answer.
    pub(crate) fn response(&self, instance: &str) -> Response {
        let body = self.document(instance).to_string();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if self.is_worth_repeating {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// Without its body yet: only the outermost layer knows the path.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<AppendFailure> for Problem {
    fn from(failure: AppendFailure) -> Self {
        match failure {
            AppendFailure::Unavailable(text) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "logUnavailable", format!("nothing was written: {text}"))
            }
            AppendFailure::Unknown(text) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "outcomeUnknown",
                format!("it may or may not have been written: {text}; send it again, with the same Idempotency-Key"),
            ),
            AppendFailure::TooLarge(text) => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "recordTooLarge", text),
            AppendFailure::Full(text) => Self::new(StatusCode::INSUFFICIENT_STORAGE, "logFull", text),
        }
    }
}
