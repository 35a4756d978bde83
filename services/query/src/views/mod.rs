//! Reading the projection: queries, and the JSON documents that come of them. Not here: HTTP (`http`), writing
//! (`store`). Invariant: a list is ordered by a key that never changes, so that pages hold under inserts.

mod breakers;
mod calendars;
mod definitions;
mod explain;
mod fleet;
mod history;
mod jobs;
mod limits;
mod output;
mod parked;
mod runs;

use orloj_domain::time::Timestamp;
use serde_json::Value;

pub(crate) use breakers::add_turns;
pub(crate) use calendars::{calendar, calendar_offset, calendars, calendars_with, jobs_with, setting_position};
pub(crate) use definitions::{Definition, Definitions};
pub(crate) use explain::{facts, versions};
pub(crate) use fleet::{queues, runners, shards};
pub(crate) use history::{Settled, answer_of, decisions, history, settled_between};
pub(crate) use jobs::{JobFilter, JobState, JobView, exists, find, list};
pub(crate) use limits::{LimitUse, jobs_with_limit, limit, limit_names, limit_offset, limit_uses, limits, queue};
pub(crate) use output::{OutputItem, OutputSeen, is_complete, output, unseen};
pub(crate) use parked::{DeadLetterFilter, LetterState, dead_letter, dead_letters, quarantine};
pub(crate) use runs::{AttemptPlace, RunFilter, RunPlace, attempt_place, run, run_place, run_state, runs};

/// Items of a list, each with the key that a cursor continues after.
pub(crate) type Items = Vec<(String, Value)>;

/// An instant as documents write it.
fn instant(millis: i64) -> Value {
    Value::String(Timestamp::from_millis(millis).to_string())
}

fn optional_instant(millis: Option<i64>) -> Value {
    millis.map_or(Value::Null, instant)
}

/// JSON that a fold has written.
fn stored_json(text: Option<&str>) -> Value {
    text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null)
}

/// A limit as SQLite takes it.
fn sql_count(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
