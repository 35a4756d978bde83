//! Attempts: what runners report, one row per fencing token. Not here: which of the reports counted (`runs`).
//! Invariant: the first session that claims a token keeps the row; reports of others change nothing.

use orloj_domain::attempt::{AttemptEvent, AttemptEventType};
use orloj_runtime::log::Record;

use super::{Change, Unreadable, decoded, json_text};

/// A report; only what it reports is present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttemptReport {
    pub(crate) run_id: String,
    pub(crate) token: i64,
    pub(crate) attempt: i32,
    pub(crate) job: String,
    pub(crate) runner: String,
    pub(crate) session: String,
    pub(crate) claimed_at: Option<i64>,
    pub(crate) started_at: Option<i64>,
    pub(crate) finished_at: Option<i64>,
    /// A JSON object.
    pub(crate) outcome: Option<String>,
    pub(crate) percent: Option<i32>,
    pub(crate) callback_digest: Option<String>,
    pub(crate) has_output: Option<bool>,
}

/// How an attempt ended, as the dispatcher decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttemptEnd {
    pub(crate) run_id: String,
    pub(crate) token: i64,
    pub(crate) attempt: i32,
    pub(crate) at: i64,
    /// A JSON object.
    pub(crate) outcome: String,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(event) = decoded::<AttemptEvent>(record)? else { return Ok(()) };
    let at = event.at.millis();
    let is = |kind| (event.kind == kind).then_some(at);
    changes.push(Change::Reported(Box::new(AttemptReport {
        run_id: event.run_id.to_string(),
        token: event.token,
        attempt: event.attempt,
        job: event.job.to_string(),
        runner: event.runner.to_string(),
        session: event.session.to_string(),
        claimed_at: is(AttemptEventType::Claimed),
        started_at: is(AttemptEventType::Started).or(event.started_at.map(|at| at.millis())),
        finished_at: is(AttemptEventType::Finished),
        outcome: event.outcome.as_ref().map(json_text),
        percent: event.percent,
        callback_digest: event.callback_digest,
        has_output: event.has_output,
    })));
    Ok(())
}
