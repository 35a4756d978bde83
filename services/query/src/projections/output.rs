//! Output: what attempts wrote, record by record, kept as the bytes that are on the log. Not here: turning them
//! into text (`views`). Invariant: a piece that was sent twice is kept once.

use orloj_domain::runner::AttemptOutput;
use orloj_runtime::log::Record;

use super::{Change, Unreadable, decoded};

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputRow {
    pub(crate) run_id: String,
    pub(crate) token: i64,
    pub(crate) sequence: i64,
    pub(crate) attempt: i32,
    pub(crate) is_last: bool,
    /// The record's value.
    pub(crate) value: Vec<u8>,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(output) = decoded::<AttemptOutput>(record)? else { return Ok(()) };
    changes.push(Change::Wrote(OutputRow {
        run_id: output.run_id.to_string(),
        token: output.token,
        sequence: output.sequence,
        attempt: output.attempt,
        is_last: output.is_last,
        value: record.value.clone().unwrap_or_default(),
    }));
    Ok(())
}
