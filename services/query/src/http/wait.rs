//! Read your writes: `?wait=<position>&timeout=2s`. Not here: positions themselves (`progress`). Invariant: a
//! wait that runs out answers with what there is, and says in `Log-Position` how far that is.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use orloj_domain::topic;
use orloj_runtime::log::Position;

use super::params::Params;
use super::{Api, Problem};

/// Where in the log a write is, or up to where an answer has read.
pub(super) const LOG_POSITION: HeaderName = HeaderName::from_static("log-position");
/// How long a wait is if nothing is said.
pub(super) const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
/// Longest wait.
pub(super) const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// A wait that was asked for.
pub(super) struct Wait {
    position: Option<Position>,
    timeout: Duration,
}

impl Wait {
    /// Takes `wait` and `timeout`.
    pub(super) fn of(params: &mut Params) -> Result<Self, Problem> {
        let position = params.parsed("wait", "a position as `Log-Position` names it, for example `jobs/3@17`")?;
        let timeout = params.duration("timeout", TIMEOUT_MAX)?.unwrap_or(TIMEOUT_DEFAULT);
        Ok(Self { position, timeout })
    }

    /// Waits until the projection has the record and, where it asks for something, the answer to it.
    pub(super) async fn done(&self, api: &Api) -> Result<(), Problem> {
        let Some(position) = &self.position else { return Ok(()) };
        let is_question = [topic::JOBS, topic::COMMANDS].contains(&position.topic.as_str());
        let partitions = api.shards.get();
        let is_read = if is_question {
            (0..partitions).contains(&position.partition)
        } else {
            api.progress.next(&position.topic_partition()).is_some()
        };
        if !is_read && api.progress.partitions() > 0 {
            let message = "is in no partition that the projection reads";
            return Err(Problem::bad_parameter("wait", &position.to_string(), message));
        }
        until(api, self.timeout, || api.progress.covers(position, is_question)).await;
        Ok(())
    }

    /// Says how far the answer has read in the partition that was waited for.
    pub(super) fn mark(&self, api: &Api, mut response: Response) -> Response {
        let Some(position) = &self.position else { return response };
        let at = position.topic_partition();
        if let Some(offset) = api.progress.next(&at).and_then(|next| next.checked_sub(1)).filter(|offset| *offset >= 0)
            && let Ok(value) = HeaderValue::from_str(&format!("{at}@{offset}"))
        {
            response.headers_mut().insert(LOG_POSITION, value);
        }
        response
    }
}

/// Waits until `is_so` holds after some commit, for `timeout` at most, or until the service ends; true if it held.
pub(super) async fn until(api: &Api, timeout: Duration, is_so: impl Fn() -> bool) -> bool {
    let (mut commits, mut ending) = (api.progress.commits(), api.ending.clone());
    let held = async {
        while !is_so() {
            if commits.changed().await.is_err() {
                return false;
            }
        }
        true
    };
    tokio::select! {
        held = tokio::time::timeout(timeout, held) => held.unwrap_or(false),
        _ = ending.wait_for(|is_ending| *is_ending) => false,
    }
}

/// Waits for the next commit, for `timeout` at most; false when the service ends.
pub(super) async fn next_commit(
    api: &Arc<Api>,
    commits: &mut tokio::sync::watch::Receiver<u64>,
    timeout: Duration,
) -> bool {
    let mut ending = api.ending.clone();
    tokio::select! {
        // A commit or the time: either way it is worth another look.
        _ = tokio::time::timeout(timeout, commits.changed()) => true,
        _ = ending.wait_for(|is_ending| *is_ending) => false,
    }
}
