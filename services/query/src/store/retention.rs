//! What is forgotten: rows whose records the log no longer keeps, or keeps for replay only. Not here: when to
//! ask. Invariant: a run that has not ended is never forgotten, and one call deletes a bounded number of rows.

use std::time::Duration;

use orloj_domain::time::Timestamp;
use rusqlite::{Connection, Result, params};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long decisions, ended runs, attempts and output are kept.
pub(crate) const RUNS_KEPT: Duration = DAY.saturating_mul(30);
/// How long dead letters and quarantined records are kept, as on the log.
const PARKED_KEPT: Duration = DAY.saturating_mul(90);
/// How long job events are kept, as on the log.
const HISTORY_KEPT: Duration = DAY.saturating_mul(365);
/// How long a silent runner is shown, as on the log.
const RUNNERS_KEPT: Duration = DAY;
/// Most rows of one kind that one call deletes.
const SLICE: usize = 500;

/// Deletes a slice of each kind; true if any was full, so that there may be more.
pub(super) fn forget(connection: &Connection, now: Timestamp) -> Result<bool> {
    let before = |kept: Duration| now.minus(kept).millis();
    let mut is_more = forget_runs(connection, before(RUNS_KEPT))?;
    // Offsets and times grow together, so the oldest rows of a shard are its first: no index by time is needed.
    for (table, cutoff, time) in
        [("decisions", before(RUNS_KEPT), "decided_at"), ("history", before(HISTORY_KEPT), "at")]
    {
        is_more |= forget_first(connection, table, time, cutoff)?;
    }
    for (table, key, cutoff, time) in [
        ("dead_letters", "run_id", before(PARKED_KEPT), "at"),
        ("quarantine", "rowid", before(PARKED_KEPT), "at"),
        ("runners", "runner", before(RUNNERS_KEPT), "seen_at"),
    ] {
        let sql =
            format!("DELETE FROM {table} WHERE {key} IN (SELECT {key} FROM {table} WHERE {time} < ?1 LIMIT {SLICE})");
        is_more |= connection.prepare_cached(&sql)?.execute(params![cutoff])? == SLICE;
    }
    Ok(is_more)
}

fn forget_runs(connection: &Connection, cutoff: i64) -> Result<bool> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT run_id FROM runs WHERE requested_at < ?1 AND finished_at < ?1 ORDER BY requested_at LIMIT {SLICE}"
    ))?;
    let runs: Vec<String> = statement.query_map(params![cutoff], |row| row.get(0))?.collect::<Result<_>>()?;
    for run_id in &runs {
        for table in ["output", "attempts", "runs"] {
            connection.prepare_cached(&format!("DELETE FROM {table} WHERE run_id = ?1"))?.execute(params![run_id])?;
        }
    }
    Ok(runs.len() == SLICE)
}

fn forget_first(connection: &Connection, table: &str, time: &str, cutoff: i64) -> Result<bool> {
    let mut shards = connection.prepare_cached(&format!("SELECT DISTINCT shard FROM {table}"))?;
    let shards: Vec<i32> = shards.query_map([], |row| row.get(0))?.collect::<Result<_>>()?;
    let mut is_more = false;
    for shard in shards {
        let sql = format!(
            "DELETE FROM {table} WHERE shard = ?1 AND {time} < ?2
             AND offset IN (SELECT offset FROM {table} WHERE shard = ?1 ORDER BY offset LIMIT {SLICE})"
        );
        is_more |= connection.prepare_cached(&sql)?.execute(params![shard, cutoff])? == SLICE;
    }
    Ok(is_more)
}
