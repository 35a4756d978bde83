//! What was decided about a job: decisions about fire times, and events about its definition. Not here: runs.
//! Invariant: newest first, in the order of the log.

use orloj_domain::id::JobId;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::log::Position;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use serde_json::{Value, json};

use super::{Items, instant, optional_instant, setting_position, sql_count, stored_json};

const HISTORY: &str =
    "shard, offset, job, kind, version, at, definition_offset, command_offset, command_id, actor, reason, errors";

/// Columns of a decision, as [`decision`] reads them; the last tells whether the dispatcher refused what was requested.
pub(super) const DECISION: &str =
    "shard, offset, job, version, trigger, fire_time, range_end, decision, reason, run_id,
    coalesced_into, decided_at, calendars, EXISTS (SELECT 1 FROM runs WHERE runs.run_id = decisions.run_id
        AND runs.state = 'cancelled' AND runs.attempt = 0 AND runs.outcome ->> 'kind' = 'overlap')";

/// Decisions of a job before an offset, newest first.
pub(crate) fn decisions(connection: &Connection, job: &JobId, before: Option<i64>, limit: usize) -> Result<Items> {
    let sql = format!("SELECT {DECISION} FROM decisions WHERE job = ?1 AND offset < ?2 ORDER BY offset DESC LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![job.as_str(), before.unwrap_or(i64::MAX), sql_count(limit)], decision)?;
    rows.collect()
}

/// What was decided about a fire time, or about those in a range.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    pub(crate) fire_time: Timestamp,
    /// Exclusive; only of a range.
    pub(crate) range_end: Option<Timestamp>,
    pub(crate) decision: String,
    pub(crate) reason: Option<String>,
}

/// Decisions about fire times in [`from`, `until`), the schedule's and those of backfills, in order of fire time.
pub(crate) fn settled_between(
    connection: &Connection,
    job: &JobId,
    from: Timestamp,
    until: Timestamp,
) -> Result<Vec<Settled>> {
    let sql = "SELECT fire_time, range_end, decision, reason FROM decisions
        WHERE job = ?1 AND fire_time < ?3 AND (fire_time >= ?2 OR range_end > ?2)
        AND trigger IN ('schedule', 'backfill') ORDER BY fire_time, offset";
    let mut statement = connection.prepare_cached(sql)?;
    let time = |millis: i64| Timestamp::from_millis(millis);
    let rows = statement.query_map(params![job.as_str(), from.millis(), until.millis()], |row| {
        Ok(Settled {
            fire_time: time(row.get(0)?),
            range_end: row.get::<_, Option<i64>>(1)?.map(time),
            decision: row.get(2)?,
            reason: row.get(3)?,
        })
    })?;
    rows.collect()
}

pub(super) fn decision(row: &Row<'_>) -> Result<(String, Value)> {
    let (shard, offset): (i32, i64) = (row.get(0)?, row.get(1)?);
    let (mut decision, mut reason): (String, Option<String>) = (row.get(7)?, row.get(8)?);
    // The trigger requests it, and the dispatcher alone knows what is live.
    if row.get(13)? {
        (decision, reason) = ("skipped".to_owned(), Some("overlap".to_owned()));
    }
    let mut document = json!({
        "job": row.get::<_, String>(2)?,
        "version": row.get::<_, i64>(3)?,
        "trigger": row.get::<_, String>(4)?,
        "fireTime": instant(row.get(5)?),
        "decision": decision,
        "reason": reason,
        "runId": row.get::<_, Option<String>>(9)?,
        "decidedAt": instant(row.get(11)?),
        "position": format!("{}/{shard}@{offset}", topic::FIRES),
    });
    // Only a range of missed fire times and a coalesced one have more to say.
    for (name, column) in [("rangeEnd", 6), ("coalescedInto", 10)] {
        if let Some(millis) = row.get::<_, Option<i64>>(column)? {
            document[name] = instant(millis);
        }
    }
    if let Some(calendars) = row.get_ref(12)?.as_str_or_null()? {
        document["calendars"] = positions_of(calendars);
    }
    Ok((offset.to_string(), document))
}

/// Offsets of calendars, as a fold has written them, as positions; null for one that did not exist.
fn positions_of(offsets: &str) -> Value {
    let Value::Object(offsets) = stored_json(Some(offsets)) else { return Value::Null };
    let position = |offset: Value| offset.as_i64().filter(|offset| *offset >= 0).map(setting_position);
    Value::Object(offsets.into_iter().map(|(name, offset)| (name, json!(position(offset)))).collect())
}

/// Events of a job before an offset, newest first.
pub(crate) fn history(connection: &Connection, job: &JobId, before: Option<i64>, limit: usize) -> Result<Items> {
    let sql = format!("SELECT {HISTORY} FROM history WHERE job = ?1 AND offset < ?2 ORDER BY offset DESC LIMIT ?3");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![job.as_str(), before.unwrap_or(i64::MAX), sql_count(limit)], event)?;
    rows.collect()
}

/// The event that answers the record at a position of `jobs` or `commands`.
pub(crate) fn answer_of(connection: &Connection, job: &JobId, position: &Position) -> Result<Option<Value>> {
    let column = if position.topic == topic::JOBS { "definition_offset" } else { "command_offset" };
    let sql = format!(
        "SELECT {HISTORY} FROM history WHERE shard = ?1 AND {column} = ?2 AND job = ?3 ORDER BY offset LIMIT 1"
    );
    let values = params![position.partition, position.offset, job.as_str()];
    let found = connection.prepare_cached(&sql)?.query_row(values, event).optional()?;
    Ok(found.map(|(_, document)| document))
}

fn event(row: &Row<'_>) -> Result<(String, Value)> {
    let (shard, offset): (i32, i64) = (row.get(0)?, row.get(1)?);
    let position_of = |topic: &str, offset: Option<i64>| offset.map(|offset| format!("{topic}/{shard}@{offset}"));
    let document = json!({
        "type": row.get::<_, String>(3)?,
        "job": row.get::<_, String>(2)?,
        "version": row.get::<_, i64>(4)?,
        "at": optional_instant(Some(row.get(5)?)),
        "position": format!("{}/{shard}@{offset}", topic::JOB_EVENTS),
        "definitionPosition": position_of(topic::JOBS, row.get(6)?),
        "commandPosition": position_of(topic::COMMANDS, row.get(7)?),
        "commandId": row.get::<_, Option<String>>(8)?,
        "actor": row.get::<_, Option<String>>(9)?,
        "reason": row.get::<_, Option<String>>(10)?,
        "errors": stored_json(Some(&row.get::<_, String>(11)?)),
    });
    Ok((offset.to_string(), document))
}
