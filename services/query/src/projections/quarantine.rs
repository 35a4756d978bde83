//! Quarantine: records that could not be used, byte for byte, with the reason. Not here: putting them there.
//! Invariant: every record of `quarantine` has a row, whatever its bytes are.

use orloj_runtime::log::{Header, Record};

use super::Change;
use super::dead_letters::{headers_text, text_of};

/// A record that was put aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct QuarantineRow {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) at: i64,
    pub(crate) source_topic: Option<String>,
    pub(crate) source_partition: Option<i64>,
    pub(crate) source_offset: Option<i64>,
    pub(crate) error: Option<String>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    /// A JSON list of `{key, value}`.
    pub(crate) headers: String,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) {
    let header = |name: &str| text_of(&record.headers, name);
    let original: Vec<Header> =
        record.headers.iter().filter(|header| !header.key.starts_with("orloj-quarantine-")).cloned().collect();
    changes.push(Change::Quarantined(Box::new(QuarantineRow {
        partition: record.partition,
        offset: record.offset,
        at: record.timestamp.millis(),
        source_topic: header("orloj-quarantine-topic"),
        source_partition: header("orloj-quarantine-partition").and_then(|text| text.parse().ok()),
        source_offset: header("orloj-quarantine-offset").and_then(|text| text.parse().ok()),
        error: header("orloj-quarantine-error"),
        key: record.key.clone(),
        value: record.value.clone(),
        headers: headers_text(&original),
    })));
}
