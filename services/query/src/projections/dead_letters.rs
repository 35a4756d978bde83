//! Dead letters: runs that wait for a person, with the request's bytes and the headers that say what happened.
//! Not here: sending them back. Invariant: key, value and headers are kept byte for byte.

use orloj_domain::fire::FireDecision;
use orloj_runtime::codec;
use orloj_runtime::log::{Header, Record};

use super::{Change, Unreadable};

/// A parked run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DeadLetter {
    pub(crate) run_id: String,
    pub(crate) queue: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) at: i64,
    pub(crate) job: Option<String>,
    pub(crate) attempt: Option<i64>,
    pub(crate) error_class: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) disposition: Option<String>,
    pub(crate) first_failure: Option<String>,
    pub(crate) redrive_count: Option<i64>,
    pub(crate) fire_time: Option<i64>,
    pub(crate) trigger: Option<&'static str>,
    /// Where the request stands, `topic/partition@offset`.
    pub(crate) source: Option<String>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Vec<u8>,
    /// A JSON list of `{key, value}`.
    pub(crate) headers: String,
}

pub(super) fn fold(queue: &str, record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let header = |name: &str| text_of(&record.headers, name);
    let named = header("orloj-run-id").or_else(|| record.key_text().map(str::to_owned));
    let run_id = named.filter(|it| it.parse::<orloj_domain::id::RunId>().is_ok());
    let run_id = run_id.ok_or_else(|| Unreadable("a dead letter that names no run".to_owned()))?;
    let Some(value) = record.value.clone() else {
        changes.push(Change::Unparked(run_id));
        return Ok(());
    };
    // The request may be of a version that is not known here; what the headers say is enough for a list.
    let request = codec::decode::<FireDecision>(&value).ok();
    let source = match (header("__dlq.errors.topic"), header("__dlq.errors.partition"), header("__dlq.errors.offset")) {
        (Some(topic), Some(partition), Some(offset)) => Some(format!("{topic}/{partition}@{offset}")),
        _ => None,
    };
    changes.push(Change::Parked(Box::new(DeadLetter {
        run_id,
        queue: queue.to_owned(),
        partition: record.partition,
        offset: record.offset,
        at: record.timestamp.millis(),
        job: header("orloj-job").or_else(|| request.as_ref().map(|request| request.job.to_string())),
        attempt: header("orloj-attempt").and_then(|text| text.parse().ok()),
        error_class: header("orloj-error-class"),
        message: header("__dlq.errors.message"),
        disposition: header("orloj-disposition"),
        first_failure: header("orloj-first-failure"),
        redrive_count: header("orloj-redrive-count").and_then(|text| text.parse().ok()),
        fire_time: request.as_ref().map(|request| request.fire_time.millis()),
        trigger: request.as_ref().map(|request| request.trigger.as_str()),
        source,
        key: record.key.clone(),
        value,
        headers: headers_text(&record.headers),
    })));
    Ok(())
}

/// The last header of a name, as text.
pub(super) fn text_of(headers: &[Header], name: &str) -> Option<String> {
    let found = headers.iter().rev().find(|header| header.key == name)?;
    found.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Headers as JSON; a value that is no text is shown as far as it is one.
pub(super) fn headers_text(headers: &[Header]) -> String {
    let list = headers.iter().map(|header| {
        let value = header.value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned());
        serde_json::json!({"key": header.key, "value": value})
    });
    serde_json::Value::Array(list.collect()).to_string()
}
