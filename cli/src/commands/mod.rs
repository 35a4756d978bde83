//! The operator's commands, one file each: their arguments, their help, what they do. Not here: the services
//! (`serve`, `dev`). Invariant: a command talks to the HTTP API or computes locally, and never opens a log, but
//! `topics`, which is about the log itself.

pub(crate) mod apply;
pub(crate) mod backfill;
pub(crate) mod calendars;
pub(crate) mod completion;
pub(crate) mod crontab;
pub(crate) mod dead_letters;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod ics;
pub(crate) mod limits;
pub(crate) mod logs;
pub(crate) mod next;
pub(crate) mod offer;
pub(crate) mod pause;
pub(crate) mod run_orders;
pub(crate) mod runs;
pub(crate) mod schemas;
pub(crate) mod settings;
pub(crate) mod topics;
pub(crate) mod trigger;
pub(crate) mod version;

use orloj_domain::id::JobId;
use orloj_domain::manifest::NAMESPACE_DEFAULT;

use crate::args::{Global, Namespace};
use crate::client::Client;
use crate::exit::Failure;

/// What a command works with.
pub(crate) struct Context {
    pub(crate) global: Global,
}

impl Context {
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.global.server, self.global.token.clone())
    }
}

/// Reads `NS/NAME`, or `NAME` in the namespace chosen.
pub(crate) fn job_id(text: &str, namespace: &Namespace) -> Result<JobId, Failure> {
    let id = match text.split_once('/') {
        Some(_) => text.parse(),
        None => JobId::new(namespace.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT), text),
    };
    id.map_err(|error| Failure::usage(error.to_string()))
}

/// Path of a job in the API.
pub(crate) fn job_path(job: &JobId) -> String {
    format!("/api/v1/jobs/{job}")
}

/// Who asks, for whoever reads the history: the user and the machine.
#[expect(clippy::disallowed_methods, reason = "the environment says who the user is")]
pub(crate) fn actor() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".to_owned());
    format!("{user}@{}", orloj_runtime::host::name())
}

/// A key that names one request, however often it is sent.
pub(crate) fn new_key() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Now, for ages and defaults.
pub(crate) fn now() -> jiff::Timestamp {
    use orloj_runtime::clock::Clock as _;
    orloj_runtime::clock::SystemClock::new().now().to_jiff()
}

/// Reads a duration of the command line, as manifests have them.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    orloj_domain::manifest::parse_duration(text)
}

/// Reads a parameter of a run.
pub(crate) fn param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        Some(_) | None => Err("write NAME=VALUE".to_owned()),
    }
}

/// Reads an instant of the command line: RFC 3339, or a duration before now.
pub(crate) fn instant(text: &str) -> Result<String, String> {
    if let Ok(ago) = duration(text) {
        return Ok(orloj_domain::time::Timestamp::from(now()).minus(ago).to_string());
    }
    orloj_domain::manifest::parse_instant(text)
        .map(|instant| instant.to_string())
        .map_err(|_| "write RFC 3339 such as `2026-12-01T08:00:00Z`, or how long ago, such as `2h`".to_owned())
}
