//! Output of attempts, piece by piece in the order it was written. Not here: streams (`http`). Invariant: a piece
//! is named by token, record and index, and that name never changes.

use std::str::FromStr;

use orloj_domain::runner::{AttemptOutput, OutputChunk};
use orloj_runtime::codec;
use rusqlite::{Connection, Result, params};
use serde_json::{Value, json};

/// Names a piece of output of a run: `token.sequence.index`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OutputCursor {
    pub(crate) token: i64,
    pub(crate) sequence: i64,
    pub(crate) index: usize,
}

impl std::fmt::Display for OutputCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.token, self.sequence, self.index)
    }
}

impl FromStr for OutputCursor {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut parts = text.split('.');
        let mut part = || parts.next().ok_or(());
        let cursor = Self {
            token: part()?.parse().map_err(|_| ())?,
            sequence: part()?.parse().map_err(|_| ())?,
            index: part()?.parse().map_err(|_| ())?,
        };
        if parts.next().is_some() { Err(()) } else { Ok(cursor) }
    }
}

/// A piece of output.
#[derive(Debug, Clone)]
pub(crate) struct OutputItem {
    pub(crate) at: OutputCursor,
    pub(crate) attempt: i32,
    pub(crate) chunk: OutputChunk,
}

impl OutputItem {
    /// Its document: text as far as it is text, and the bytes as they are if it is not.
    pub(crate) fn document(&self) -> Value {
        let mut document = json!({
            "attempt": self.attempt,
            "stream": self.chunk.stream,
            "at": self.chunk.at.to_string(),
            "text": String::from_utf8_lossy(&self.chunk.bytes),
        });
        if std::str::from_utf8(&self.chunk.bytes).is_err() {
            document["base64"] = super::base64(&self.chunk.bytes).into();
        }
        document
    }
}

/// Pieces of a run's output after one, `limit` at most.
pub(crate) fn output(
    connection: &Connection,
    run_id: &str,
    attempt: Option<i32>,
    after: Option<OutputCursor>,
    limit: usize,
) -> Result<Vec<OutputItem>> {
    let from = after.unwrap_or(OutputCursor { token: i64::MIN, sequence: i64::MIN, index: 0 });
    let mut statement = connection.prepare_cached(
        "SELECT token, sequence, value FROM output
         WHERE run_id = ?1 AND (?2 IS NULL OR attempt = ?2) AND (token, sequence) >= (?3, ?4)
         ORDER BY token, sequence",
    )?;
    let mut rows = statement.query(params![run_id, attempt, from.token, from.sequence])?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        let (token, sequence): (i64, i64) = (row.get(0)?, row.get(1)?);
        // The fold has decoded it before; what does not decode now says nothing.
        let Ok(output) = codec::decode::<AttemptOutput>(row.get_ref(2)?.as_blob()?) else { continue };
        for (index, chunk) in output.chunks.into_iter().enumerate() {
            let at = OutputCursor { token, sequence, index };
            if after.is_some_and(|after| at <= after) {
                continue;
            }
            items.push(OutputItem { at, attempt: output.attempt, chunk });
            if items.len() == limit {
                return Ok(items);
            }
        }
    }
    Ok(items)
}

/// True if the last record of the newest attempt's output is there, or no attempt ever began.
pub(crate) fn is_complete(connection: &Connection, run_id: &str) -> Result<bool> {
    connection
        .prepare_cached(
            "SELECT NOT EXISTS (SELECT 1 FROM attempts WHERE run_id = ?1 AND started_at IS NOT NULL)
                OR EXISTS (SELECT 1 FROM output WHERE run_id = ?1 AND is_last
                    AND token = (SELECT max(token) FROM attempts WHERE run_id = ?1 AND started_at IS NOT NULL))",
        )?
        .query_row([run_id], |row| row.get(0))
}
