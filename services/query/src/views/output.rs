//! Output of attempts, piece by piece in the order it was written. Not here: streams (`http`). Invariant: a piece
//! is named by token, record and index, and that name never changes.

use std::collections::BTreeMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use orloj_domain::runner::{AttemptOutput, OutputChunk};
use orloj_runtime::codec;
use rusqlite::{Connection, OptionalExtension as _, Result, params};
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

/// Most attempts of which a reader says how far it is; once there are so many, it has all of lower ones.
const TOKENS_MAX: usize = 32;

/// How far a reader is in what the attempts of a run write, two of which may write at once: the last piece that it has of each.
/// Of one that is not named it has nothing: one may begin to write after another that began later. As text, pieces with commas
/// between them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OutputSeen(BTreeMap<i64, OutputCursor>);

impl OutputSeen {
    /// The reader gets a piece.
    pub(crate) fn see(&mut self, at: OutputCursor) {
        self.0.insert(at.token, at);
        if self.0.len() > TOKENS_MAX {
            self.0.pop_first();
        }
    }

    /// The lowest attempt of which it may not have all, by its token.
    fn first_token(&self) -> i64 {
        let lowest = self.0.first_key_value().filter(|_| self.0.len() >= TOKENS_MAX);
        lowest.map_or(i64::MIN, |(token, _)| *token)
    }
}

impl std::fmt::Display for OutputSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, at) in self.0.values().enumerate() {
            write!(f, "{}{at}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for OutputSeen {
    type Err = ();

    fn from_str(text: &str) -> std::result::Result<Self, ()> {
        let mut seen = Self::default();
        for at in text.split(',') {
            seen.see(at.parse()?);
        }
        Ok(seen)
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
            document["base64"] = STANDARD.encode(&self.chunk.bytes).into();
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
    pieces(connection, run_id, attempt, (from, i64::MAX), after, limit)
}

/// Pieces from the record of one on, up to the attempt with a token, without those up to `after`.
fn pieces(
    connection: &Connection,
    run_id: &str,
    attempt: Option<i32>,
    (from, token_max): (OutputCursor, i64),
    after: Option<OutputCursor>,
    limit: usize,
) -> Result<Vec<OutputItem>> {
    let mut statement = connection.prepare_cached(
        "SELECT token, sequence, value FROM output
         WHERE run_id = ?1 AND (?2 IS NULL OR attempt = ?2) AND (token, sequence) >= (?3, ?4) AND token <= ?5
         ORDER BY token, sequence",
    )?;
    let mut rows = statement.query(params![run_id, attempt, from.token, from.sequence, token_max])?;
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

/// Pieces of a run's output that a reader has not got, `limit` at most.
pub(crate) fn unseen(
    connection: &Connection,
    run_id: &str,
    attempt: Option<i32>,
    seen: &OutputSeen,
    limit: usize,
) -> Result<Vec<OutputItem>> {
    // From one to the next by the index: what each of them wrote may be much.
    let sql = "WITH RECURSIVE tokens (token) AS (
            SELECT min(token) FROM output WHERE run_id = ?1 AND token >= ?2
            UNION ALL SELECT (SELECT min(token) FROM output WHERE run_id = ?1 AND token > tokens.token)
            FROM tokens WHERE token IS NOT NULL)
        SELECT token FROM tokens WHERE token IS NOT NULL";
    let mut statement = connection.prepare_cached(sql)?;
    let tokens = statement.query_map(params![run_id, seen.first_token()], |row| row.get(0))?;
    let tokens: Vec<i64> = tokens.collect::<Result<_>>()?;
    let mut items = Vec::new();
    for token in tokens {
        let after = seen.0.get(&token).copied();
        let before = OutputCursor { token, sequence: i64::MIN, index: 0 };
        items.extend(pieces(
            connection,
            run_id,
            attempt,
            (after.unwrap_or(before), token),
            after,
            limit - items.len(),
        )?);
        if items.len() == limit {
            break;
        }
    }
    Ok(items)
}

/// True if the last record of the last attempt's output is there, or its runner said that it has none, or no runner ever
/// reported one. Where the first of two attempts ended the run, that is the last.
pub(crate) fn is_complete(connection: &Connection, run_id: &str) -> Result<bool> {
    let sql = "SELECT token, has_output FROM attempts WHERE run_id = ?1 AND session IS NOT NULL
            AND token <= coalesce((SELECT token FROM runs WHERE run_id = ?1), token)
        ORDER BY token DESC LIMIT 1";
    let last = connection.prepare_cached(sql)?.query_row([run_id], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let token: i64 = match last {
        None | Some((_, Some(false))) => return Ok(true),
        Some((token, None | Some(true))) => token,
    };
    connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM output WHERE run_id = ?1 AND token = ?2 AND is_last)")?
        .query_row(params![run_id, token], |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projections::{AttemptReport, Change, OutputRow};
    use crate::store::Store;

    /// What the runner of an attempt says of it.
    fn report(token: i64, has_output: Option<bool>) -> Change {
        Change::Reported(Box::new(AttemptReport {
            run_id: "r".to_owned(),
            token,
            attempt: 1,
            job: "a/b".to_owned(),
            runner: "one".to_owned(),
            session: "s".to_owned(),
            claimed_at: Some(5),
            started_at: None,
            finished_at: has_output.map(|_| 9),
            outcome: None,
            percent: None,
            callback_digest: None,
            has_output,
        }))
    }

    fn wrote(sequence: i64, is_last: bool) -> Change {
        Change::Wrote(OutputRow { run_id: "r".to_owned(), token: 2, sequence, attempt: 1, is_last, value: vec![] })
    }

    #[test]
    fn output_is_complete_once_nothing_of_it_is_missing() {
        let directory = tempfile::tempdir().expect("a directory");
        let mut store = Store::open(directory.path()).expect("a file").finish().expect("named");
        let connection = Connection::open(store.file()).expect("readable");
        for (change, is_now_complete, why) in [
            // It has a row and no session.
            (Change::Hedged { run_id: "r".to_owned(), token: 2, attempt: 1 }, true, "no attempt was claimed"),
            (report(1, None), false, "it may have written something"),
            (report(1, Some(false)), true, "its runner says that it has not"),
            (report(2, Some(true)), false, "the second has, and nothing is there"),
            (wrote(0, false), false, "there is more than that"),
            (wrote(1, true), true, "that was the last"),
        ] {
            store.commit(&[change], &BTreeMap::new()).expect("written");
            assert_eq!(is_complete(&connection, "r").expect("an answer"), is_now_complete, "{why}");
        }
    }

    #[test]
    fn a_reader_of_two_attempts_says_how_far_it_is_in_each() {
        let at = |token, sequence| OutputCursor { token, sequence, index: 0 };
        let mut seen = OutputSeen::default();
        assert_eq!(seen.first_token(), i64::MIN);
        for cursor in [at(2, 0), at(3, 0), at(2, 4)] {
            seen.see(cursor);
        }
        assert_eq!(seen.to_string(), "2.4.0,3.0.0");
        assert_eq!(seen.to_string().parse(), Ok(seen.clone()));
        assert_eq!(seen.first_token(), i64::MIN, "the first attempt may write later");
        for text in ["", ",", "1.0", "1.0.0,", "1.0.0,x"] {
            assert_eq!(text.parse::<OutputSeen>(), Err(()), "{text}");
        }
        (4..100).for_each(|token| seen.see(at(token, 1)));
        assert_eq!((seen.0.len(), seen.first_token()), (TOKENS_MAX, 68), "the id of an event has a bound");
    }
}
