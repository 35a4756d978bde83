//! How a handler says that it failed. Not here: what comes of it (the job's retry policy). Invariant: it is data; a
//! failure never ends the runner.

use std::error::Error;
use std::time::Duration;

use orloj_runner::HandlerFailure;

/// Why a handler failed, and whether another attempt may help.
///
/// Any error becomes a retryable one by `?`, with its causes in the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(HandlerFailure);

impl Failure {
    /// Another attempt may help: it is made if the job's `retry` allows one. Of the message 1000 characters are kept.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self(HandlerFailure { message: message.into(), is_final: false, retry_after: None })
    }

    /// No other attempt can end otherwise: the run goes to the dead letters at once, whatever the job's `retry` says.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self(HandlerFailure { message: message.into(), is_final: true, retry_after: None })
    }

    /// Asks that the next attempt begin no sooner than after `wait`; more than a day is a day. Means nothing for one
    /// that is permanent.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    pub(crate) fn into_inner(self) -> HandlerFailure {
        self.0
    }
}

// `Failure` is no `Error` itself, which is what lets every error become one.
impl<E: Error> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            message = format!("{message}: {inner}");
            cause = inner.source();
        }
        Self::retryable(message)
    }
}
