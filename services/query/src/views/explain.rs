//! The facts about a job around an instant. Not here: what follows from them (`explain`). Invariant: read in one
//! transaction's view of the projection, so that facts agree with each other.

use std::collections::BTreeMap;

use orloj_domain::id::{CalendarName, JobId};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use rusqlite::{Connection, OptionalExtension, Result, Row, params};
use serde_json::Value;

use super::Definitions;
use super::history;
use crate::explain::{Decided, Facts, Paused, Version, in_force};
use crate::store::RUNS_KEPT;

/// All definitions of a job that are kept, oldest first; none for a job that never was.
pub(crate) fn versions(connection: &Connection, definitions: &Definitions, job: &JobId) -> Result<Vec<Version>> {
    let sql = "SELECT version, effective_from, shard, definition_offset, definition FROM versions
        WHERE job = ?1 ORDER BY definition_offset";
    let mut statement = connection.prepare_cached(sql)?;
    let row = |row: &Row<'_>| {
        let (version, offset): (i64, i64) = (row.get(0)?, row.get(3)?);
        let encoded: Option<&[u8]> = row.get_ref(4)?.as_blob_or_null()?;
        Ok(Version {
            version,
            effective_from: Timestamp::from_millis(row.get(1)?),
            position: format!("{}/{}@{offset}", topic::JOBS, row.get::<_, i32>(2)?),
            definition: encoded.and_then(|encoded| definitions.of(job.as_str(), version, offset, encoded)),
            is_delete: encoded.is_none(),
        })
    };
    statement.query_map([job.as_str()], row)?.collect()
}

/// What is known around an instant; `versions` are those that [`versions`] has read in the same view.
pub(crate) fn facts(
    connection: &Connection,
    definitions: &Definitions,
    job: &JobId,
    versions: &[Version],
    (instant, now): (Timestamp, Timestamp),
) -> Result<Facts> {
    let of_job = "SELECT cursor, fires FROM jobs WHERE job = ?1";
    let of_job = connection.prepare_cached(of_job)?.query_row([job.as_str()], |row| Ok((row.get(0)?, row.get(1)?)));
    let (cursor, newest_fires): (i64, i64) = of_job.optional()?.unwrap_or_default();
    // `maxFires` counts from each edit on.
    let newest = versions.last().map(|newest| newest.version);
    let fires = match in_force(versions, instant).filter(|version| Some(version.version) != newest) {
        Some(earlier) => requested(connection, job, earlier.version)?,
        None => newest_fires,
    };
    let before = "SELECT max(fire_time) FROM decisions WHERE job = ?1 AND trigger = 'schedule' AND fire_time < ?2";
    let before: Option<i64> =
        connection.prepare_cached(before)?.query_row(params![job.as_str(), instant.millis()], |row| row.get(0))?;
    Ok(Facts {
        now,
        instant,
        versions: versions.to_vec(),
        decided: decided(connection, job, instant)?,
        decided_before: before.map(Timestamp::from_millis),
        paused: paused(connection, job, instant)?,
        backfilled: backfilled(connection, job, instant)?,
        cursor: Timestamp::from_millis(cursor),
        fires,
        kept_since: now.minus(RUNS_KEPT),
        calendars: definitions.calendars(connection)?,
    })
}

/// How many fire times a version had requested that are known here.
fn requested(connection: &Connection, job: &JobId, version: i64) -> Result<i64> {
    let sql = "SELECT count(*) FROM decisions
        WHERE job = ?1 AND version = ?2 AND trigger = 'schedule' AND decision = 'requested'";
    connection.prepare_cached(sql)?.query_row(params![job.as_str(), version], |row| row.get(0))
}

/// The decision about exactly this fire time, or the range that it lies in.
fn decided(connection: &Connection, job: &JobId, instant: Timestamp) -> Result<Option<Decided>> {
    let sql = format!(
        "SELECT {} FROM decisions WHERE job = ?1 AND trigger = 'schedule' AND fire_time <= ?2
         AND (fire_time = ?2 OR range_end > ?2) ORDER BY fire_time DESC, offset DESC LIMIT 1",
        history::DECISION
    );
    let found = connection.prepare_cached(&sql)?.query_row(params![job.as_str(), instant.millis()], |row| {
        let (_, document) = history::decision(row)?;
        let time = |column: usize| row.get::<_, Option<i64>>(column).map(|it| it.map(Timestamp::from_millis));
        Ok(Decided {
            version: row.get(3)?,
            fire_time: Timestamp::from_millis(row.get(5)?),
            range_end: time(6)?,
            decision: row.get(7)?,
            reason: row.get(8)?,
            coalesced_into: time(10)?,
            decided_at: Timestamp::from_millis(row.get(11)?),
            calendars: calendars(row)?,
            run: None,
            document,
        })
    });
    let Some(mut decided) = found.optional()? else { return Ok(None) };
    if let Some(id) = decided.document.get("runId").and_then(Value::as_str).map(str::to_owned) {
        let state = "SELECT CASE outcome ->> 'kind' WHEN 'overlap' THEN state || ': ' || (outcome ->> 'message')
            ELSE state END FROM runs WHERE run_id = ?1";
        let state = connection.prepare_cached(state)?.query_row([&id], |row| row.get(0)).optional()?;
        decided.run = Some((id, state));
    }
    Ok(Some(decided))
}

/// The runs of backfills for exactly this fire time.
fn backfilled(connection: &Connection, job: &JobId, instant: Timestamp) -> Result<Vec<(String, String)>> {
    let sql = "SELECT run_id, state FROM runs WHERE run_id IN (SELECT run_id FROM decisions
        WHERE job = ?1 AND fire_time = ?2 AND trigger = 'backfill') ORDER BY requested_at, run_id";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map(params![job.as_str(), instant.millis()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}

/// The calendars that a decision asked, with their offsets.
fn calendars(row: &Row<'_>) -> Result<BTreeMap<CalendarName, i64>> {
    let text = row.get_ref(12)?.as_str_or_null()?;
    Ok(text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default())
}

/// The pause in force at an instant, by the events that began and ended pauses.
fn paused(connection: &Connection, job: &JobId, instant: Timestamp) -> Result<Option<Paused>> {
    let sql = "SELECT kind, at, reason, actor FROM history
        WHERE job = ?1 AND kind IN ('paused', 'resumed', 'deleted') AND at <= ?2 ORDER BY offset DESC LIMIT 1";
    let row = |row: &Row<'_>| {
        let paused = Paused { at: Timestamp::from_millis(row.get(1)?), reason: row.get(2)?, actor: row.get(3)? };
        Ok((row.get::<_, String>(0)? == "paused").then_some(paused))
    };
    let found = connection.prepare_cached(sql)?.query_row(params![job.as_str(), instant.millis()], row).optional()?;
    Ok(found.flatten())
}
