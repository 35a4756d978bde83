//! Runs with their attempts. Not here: what they wrote (`output`). Invariant: how an attempt ended is what the
//! dispatcher decided, if it has; a runner's own report counts until then, and where the run ended for another reason.

use orloj_domain::callback::AttemptId;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Result, Row, params_from_iter};
use serde_json::{Value, json};

use super::breakers::why_shut;
use super::{Items, instant, optional_instant, sql_count, stored_json};

/// Which runs are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct RunFilter {
    pub(crate) job: Option<String>,
    pub(crate) namespace: Option<String>,
    pub(crate) state: Option<&'static str>,
    pub(crate) queue: Option<String>,
    /// First instant of a request, inclusive.
    pub(crate) since: Option<i64>,
    /// Last instant of a request, exclusive.
    pub(crate) until: Option<i64>,
}

const COLUMNS: &str = "run_id, job, version, trigger, fire_time, requested_at, queue, state, attempt, token, due_at,
    runner, outcome, disposition, finished_at, command_id, actor, params, note, redrives, limits";

/// Runs before a key, newest request first.
pub(crate) fn runs(
    connection: &Connection,
    filter: &RunFilter,
    before: Option<(i64, String)>,
    limit: usize,
) -> Result<Items> {
    let mut sql = format!("SELECT {COLUMNS} FROM runs WHERE 1");
    let mut values: Vec<Sql> = Vec::new();
    if let Some(job) = &filter.job {
        sql.push_str(" AND job = ?");
        values.push(job.clone().into());
    }
    if let Some(namespace) = &filter.namespace {
        // `0` is the character after `/`: all of a namespace lies between the two.
        sql.push_str(" AND job > ? AND job < ?");
        values.extend([format!("{namespace}/").into(), format!("{namespace}0").into()]);
    }
    if let Some(state) = filter.state {
        sql.push_str(" AND state = ?");
        values.push(state.to_owned().into());
        if state != "succeeded" {
            // As the partial index says it, or SQLite would not use it.
            sql.push_str(" AND state <> 'succeeded'");
        }
    }
    if let Some(queue) = &filter.queue {
        sql.push_str(" AND queue = ?");
        values.push(queue.clone().into());
    }
    for (bound, comparison) in [(filter.since, ">="), (filter.until, "<")] {
        if let Some(bound) = bound {
            sql.push_str(&format!(" AND requested_at {comparison} ?"));
            values.push(bound.into());
        }
    }
    if let Some((requested_at, run_id)) = before {
        sql.push_str(" AND (requested_at, run_id) < (?, ?)");
        values.extend([requested_at.into(), run_id.into()]);
    }
    sql.push_str(" ORDER BY requested_at DESC, run_id DESC LIMIT ?");
    values.push(sql_count(limit).into());
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let mut items = Vec::new();
    while let Some(row) = rows.next()? {
        items.push((format!("{}~{}", row.get::<_, i64>(5)?, row.get::<_, String>(0)?), document(connection, row)?));
    }
    Ok(items)
}

/// One run.
pub(crate) fn run(connection: &Connection, run_id: &str) -> Result<Option<Value>> {
    let sql = format!("SELECT {COLUMNS} FROM runs WHERE run_id = ?1");
    connection.prepare_cached(&sql)?.query_row([run_id], |row| document(connection, row)).optional()
}

/// State of a run, and whether that is its end.
pub(crate) fn run_state(connection: &Connection, run_id: &str) -> Result<Option<(String, bool)>> {
    connection
        .prepare_cached("SELECT state, finished_at IS NOT NULL FROM runs WHERE run_id = ?1")?
        .query_row([run_id], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Where a run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunPlace {
    pub(crate) job: String,
    pub(crate) state: String,
    pub(crate) has_ended: bool,
    pub(crate) note: Option<String>,
}

/// Job and state of a run.
pub(crate) fn run_place(connection: &Connection, run_id: &str) -> Result<Option<RunPlace>> {
    let place = |row: &Row<'_>| {
        Ok(RunPlace { job: row.get(0)?, state: row.get(1)?, has_ended: row.get(2)?, note: row.get(3)? })
    };
    connection
        .prepare_cached("SELECT job, state, finished_at IS NOT NULL, note FROM runs WHERE run_id = ?1")?
        .query_row([run_id], place)
        .optional()
}

/// Where an attempt is, for a callback of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AttemptPlace {
    pub(crate) job: String,
    pub(crate) has_run_ended: bool,
    /// Its fencing token; none if nothing was reported of it.
    pub(crate) token: Option<i64>,
    /// Of the callback's token.
    pub(crate) digest: Option<String>,
    pub(crate) has_started: bool,
    pub(crate) has_ended: bool,
    /// How it ended, or null.
    pub(crate) outcome: Value,
}

/// What is known of an attempt; none if nothing is of its run.
pub(crate) fn attempt_place(connection: &Connection, id: AttemptId) -> Result<Option<AttemptPlace>> {
    let place = |row: &Row<'_>| {
        Ok(AttemptPlace {
            job: row.get(0)?,
            has_run_ended: row.get(1)?,
            token: row.get(2)?,
            digest: row.get(3)?,
            has_started: row.get(4)?,
            has_ended: row.get(5)?,
            outcome: stored_json(row.get::<_, Option<String>>(6)?.as_deref()),
        })
    };
    let sql = "SELECT job, runs.finished_at IS NOT NULL, attempts.token, callback_digest, started_at IS NOT NULL,
            coalesce(ended_at, attempts.finished_at) IS NOT NULL, coalesce(ended_outcome, attempts.outcome)
        FROM runs LEFT JOIN attempts ON attempts.run_id = runs.run_id AND attempts.attempt = ?2
        WHERE runs.run_id = ?1 ORDER BY attempts.token DESC LIMIT 1";
    connection.prepare_cached(sql)?.query_row((id.run_id.to_string(), id.attempt), place).optional()
}

fn document(connection: &Connection, row: &Row<'_>) -> Result<Value> {
    let run_id: String = row.get(0)?;
    let (attempts, started_at) = attempts(connection, &run_id)?;
    let limits = row.get_ref(20)?.as_str_or_null()?.map_or_else(|| json!([]), |limits| stored_json(Some(limits)));
    let state: String = row.get(7)?;
    let note = note(connection, &state, &limits, row.get(18)?)?;
    Ok(json!({
        "id": run_id,
        "job": row.get::<_, String>(1)?,
        "version": row.get::<_, i64>(2)?,
        "trigger": row.get::<_, String>(3)?,
        "fireTime": instant(row.get(4)?),
        "state": state,
        "attempt": row.get::<_, i64>(8)?,
        "queue": row.get::<_, String>(6)?,
        "requestedAt": instant(row.get(5)?),
        "startedAt": optional_instant(started_at),
        "finishedAt": optional_instant(row.get(14)?),
        "dueAt": optional_instant(row.get(10)?),
        "runner": row.get::<_, Option<String>>(11)?,
        "outcome": stored_json(row.get::<_, Option<String>>(12)?.as_deref()),
        "disposition": row.get::<_, Option<String>>(13)?,
        "note": note,
        "limits": limits,
        "redrives": row.get::<_, i64>(19)?,
        "commandId": row.get::<_, Option<String>>(15)?,
        "actor": row.get::<_, Option<String>>(16)?,
        "params": stored_json(row.get::<_, Option<String>>(17)?.as_deref()),
        "attempts": attempts,
    }))
}

/// What the dispatcher noted; of a run that waits for a limit, with what its breaker does.
fn note(connection: &Connection, state: &str, limits: &Value, note: Option<String>) -> Result<Option<String>> {
    let awaited = limits.as_array().and_then(|limits| limits.last()?.as_str()).filter(|_| state == "waiting");
    let (Some(note), Some(awaited)) = (&note, awaited) else { return Ok(note) };
    let shut = why_shut(connection, awaited)?;
    Ok(Some(shut.map_or_else(|| note.clone(), |shut| format!("{note}, which is {shut}"))))
}

/// Attempts in order of their tokens, and when the first of them started.
fn attempts(connection: &Connection, run_id: &str) -> Result<(Vec<Value>, Option<i64>)> {
    let mut statement = connection.prepare_cached(
        "SELECT token, attempt, runner, session, claimed_at, started_at, coalesce(ended_at, finished_at),
            CASE WHEN json_extract(ended_outcome, '$.kind') IN ('cancelled', 'expired')
                THEN coalesce(outcome, ended_outcome) ELSE coalesce(ended_outcome, outcome) END, percent,
            CASE WHEN json_extract(ended_outcome, '$.kind') = 'leaseLost' THEN outcome END, finished_at,
            callback_digest IS NOT NULL AND coalesce(ended_at, finished_at) IS NULL, is_hedge
         FROM attempts WHERE run_id = ?1 ORDER BY token",
    )?;
    let mut rows = statement.query([run_id])?;
    let (mut attempts, mut first_start) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let started_at: Option<i64> = row.get(5)?;
        first_start = first_start.or(started_at);
        // What its runner had to say when the attempt had been taken from it: it changed nothing.
        let mut late = stored_json(row.get::<_, Option<String>>(9)?.as_deref());
        if let Some(late) = late.as_object_mut() {
            late.insert("at".to_owned(), json!(optional_instant(row.get(10)?)));
        }
        attempts.push(json!({
            "attempt": row.get::<_, i64>(1)?,
            "token": row.get::<_, i64>(0)?,
            "runner": row.get::<_, Option<String>>(2)?,
            "session": row.get::<_, Option<String>>(3)?,
            "claimedAt": optional_instant(row.get(4)?),
            "startedAt": optional_instant(started_at),
            "finishedAt": optional_instant(row.get(6)?),
            "percent": row.get::<_, Option<i64>>(8)?,
            "outcome": stored_json(row.get::<_, Option<String>>(7)?.as_deref()),
            "lateResult": late,
            "awaitsCallback": row.get::<_, bool>(11)?,
            "hedge": row.get::<_, bool>(12)?,
        }));
    }
    Ok((attempts, first_start))
}
