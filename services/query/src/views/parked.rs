//! What waits for a person: dead letters and quarantined records. Not here: sending them back. Invariant: keys
//! and values are shown byte for byte, as base64 where they are no text.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use orloj_domain::topic;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Result, Row, params, params_from_iter};
use serde_json::{Value, json};

use super::{Items, instant, optional_instant, sql_count, stored_json};

/// Which dead letters are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeadLetterFilter {
    pub(crate) job: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) state: LetterState,
}

/// Which dead letters, by whether somebody has put them aside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LetterState {
    /// Those that are not parked.
    #[default]
    Dead,
    /// Those that are.
    Parked,
    /// Either.
    All,
}

impl LetterState {
    /// Every word, in order.
    pub(crate) const ALL: &'static [Self] = &[Self::Dead, Self::Parked, Self::All];

    /// The word as it stands in a query.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dead => "dead",
            Self::Parked => "parked",
            Self::All => "all",
        }
    }

    fn condition(self) -> &'static str {
        match self {
            Self::Dead => " AND disposition IS NOT 'parked'",
            Self::Parked => " AND disposition = 'parked'",
            Self::All => "",
        }
    }
}

const COLUMNS: &str = "run_id, queue, partition, offset, at, job, attempt, error_class, message, disposition,
    first_failure, redrive_count, fire_time, trigger, source, iif(disposition = 'parked', headers, NULL)";

/// Dead letters before a key, newest first.
pub(crate) fn dead_letters(
    connection: &Connection,
    filter: &DeadLetterFilter,
    before: Option<(i64, String)>,
    limit: usize,
) -> Result<Items> {
    let mut sql = format!("SELECT {COLUMNS} FROM dead_letters WHERE 1{}", filter.state.condition());
    let mut values: Vec<Sql> = Vec::new();
    for (column, value) in [("job", &filter.job), ("queue", &filter.queue)] {
        if let Some(value) = value {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(value.clone().into());
        }
    }
    if let Some((at, run_id)) = before {
        sql.push_str(" AND (at, run_id) < (?, ?)");
        values.extend([at.into(), run_id.into()]);
    }
    sql.push_str(" ORDER BY at DESC, run_id DESC LIMIT ?");
    values.push(sql_count(limit).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params_from_iter(values), |row| {
        Ok((format!("{}~{}", row.get::<_, i64>(4)?, row.get::<_, String>(0)?), letter(row)?))
    })?;
    rows.collect()
}

/// One dead letter with the record itself.
pub(crate) fn dead_letter(connection: &Connection, run_id: &str) -> Result<Option<Value>> {
    let sql = format!("SELECT {COLUMNS}, key, value, headers FROM dead_letters WHERE run_id = ?1");
    let found = connection.prepare_cached(&sql)?.query_row([run_id], |row| {
        let mut document = letter(row)?;
        document["record"] = record(row, 16)?;
        Ok(document)
    });
    found.optional()
}

fn letter(row: &Row<'_>) -> Result<Value> {
    let run_id: String = row.get(0)?;
    let queue: String = row.get(1)?;
    let position = format!("{}{queue}/{}@{}", topic::DLQ_PREFIX, row.get::<_, i32>(2)?, row.get::<_, i64>(3)?);
    Ok(json!({
        "id": run_id,
        "runId": run_id,
        "job": row.get::<_, Option<String>>(5)?,
        "queue": queue,
        "trigger": row.get::<_, Option<String>>(13)?,
        "fireTime": optional_instant(row.get(12)?),
        "attempt": row.get::<_, Option<i64>>(6)?,
        "errorClass": row.get::<_, Option<String>>(7)?,
        "message": row.get::<_, Option<String>>(8)?,
        "disposition": row.get::<_, Option<String>>(9)?,
        "parkedReason": parked_reason(row.get::<_, Option<String>>(15)?.as_deref()),
        "firstFailure": row.get::<_, Option<String>>(10)?,
        "redriveCount": row.get::<_, Option<i64>>(11)?,
        "at": instant(row.get(4)?),
        "position": position,
        "sourcePosition": row.get::<_, Option<String>>(14)?,
    }))
}

/// Why a dead letter is parked, by its headers.
fn parked_reason(headers: Option<&str>) -> Value {
    let headers = stored_json(headers);
    let mut headers = headers.as_array().into_iter().flatten();
    let reason = headers.rfind(|header| header["key"] == "orloj-parked-reason");
    reason.map_or(Value::Null, |header| header["value"].clone())
}

/// Key, value and headers in three columns from `first` on.
fn record(row: &Row<'_>, first: usize) -> Result<Value> {
    let mut record = json!({"headers": stored_json(Some(&row.get::<_, String>(first + 2)?))});
    for (name, column) in [("key", first), ("value", first + 1)] {
        let bytes: Option<Vec<u8>> = row.get(column)?;
        let Some(bytes) = bytes else {
            record[name] = Value::Null;
            continue;
        };
        match String::from_utf8(bytes) {
            Ok(text) => record[name] = text.into(),
            Err(error) => record[format!("{name}Base64")] = STANDARD.encode(error.as_bytes()).into(),
        }
    }
    Ok(record)
}

/// Quarantined records before a key, newest first.
pub(crate) fn quarantine(connection: &Connection, before: Option<(i64, i64)>, limit: usize) -> Result<Items> {
    let (at, rowid) = before.unwrap_or((i64::MAX, i64::MAX));
    let mut statement = connection.prepare_cached(
        "SELECT rowid, partition, offset, at, source_topic, source_partition, source_offset, error, key, value, headers
         FROM quarantine WHERE (at, rowid) < (?1, ?2) ORDER BY at DESC, rowid DESC LIMIT ?3",
    )?;
    let rows = statement.query_map(params![at, rowid, sql_count(limit)], |row| {
        let (rowid, at): (i64, i64) = (row.get(0)?, row.get(3)?);
        let source =
            match (row.get::<_, Option<String>>(4)?, row.get::<_, Option<i64>>(5)?, row.get::<_, Option<i64>>(6)?) {
                (Some(topic), Some(partition), Some(offset)) => Some(format!("{topic}/{partition}@{offset}")),
                _ => None,
            };
        let document = json!({
            "position": format!("{}/{}@{}", topic::QUARANTINE, row.get::<_, i32>(1)?, row.get::<_, i64>(2)?),
            "at": instant(at),
            "sourceTopic": row.get::<_, Option<String>>(4)?,
            "sourcePosition": source,
            "error": row.get::<_, Option<String>>(7)?,
            "record": record(row, 8)?,
        });
        Ok((format!("{at}~{rowid}"), document))
    })?;
    rows.collect()
}
