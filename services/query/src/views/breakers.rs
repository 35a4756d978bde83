//! Breakers of queues and limits: how each stands, its last turns, and what that means for a run that waits. Not here: when
//! one turns (`orloj_domain::limit`). Invariant: what has a breaker by its manifest shows one, what has none shows none,
//! whichever of the two topics was read first.

use rusqlite::{Connection, OptionalExtension, Result, Row};
use serde_json::{Value, json};

use orloj_domain::id::LimitId;

use super::{instant, optional_instant};

const COLUMNS: &str = "state, at, until, failures, ended, run_id, job, reason";

/// How the breaker of a queue or a limit with this manifest stands; null if that has none.
pub(super) fn breaker(connection: &Connection, name: &str, manifest: &Value) -> Result<Value> {
    if manifest["spec"]["breaker"].is_null() {
        return Ok(Value::Null);
    }
    let sql = format!("SELECT {COLUMNS} FROM breakers WHERE name = ?1 ORDER BY offset DESC LIMIT 1");
    let newest = connection.prepare_cached(&sql)?.query_row([name], turn).optional()?;
    // One that never turned is closed.
    Ok(newest.unwrap_or_else(|| {
        json!({"state": "closed", "since": null, "until": null, "failures": 0, "ended": null, "reason": null,
            "runId": null, "job": null})
    }))
}

/// Adds the last turns, newest first, to the document of a queue or a limit that has a breaker.
pub(crate) fn add_turns(connection: &Connection, limit: &LimitId, document: &mut Value) -> Result<()> {
    let Some(breaker) = document.get_mut("breaker").filter(|breaker| !breaker.is_null()) else { return Ok(()) };
    let sql = format!("SELECT {COLUMNS} FROM breakers WHERE name = ?1 ORDER BY offset DESC");
    let mut statement = connection.prepare_cached(&sql)?;
    let turns: Vec<Value> = statement.query_map([limit.as_str()], turn)?.collect::<Result<_>>()?;
    breaker["turns"] = turns.into();
    Ok(())
}

/// What keeps a run that waits for a limit, if it is its breaker.
pub(super) fn why_shut(connection: &Connection, name: &str) -> Result<Option<String>> {
    let sql = "SELECT state, until, reason FROM breakers
        WHERE name = ?1 AND EXISTS (SELECT 1 FROM limits WHERE limits.name = ?1
            AND json_extract(limits.manifest, '$.spec.breaker') IS NOT NULL)
        ORDER BY offset DESC LIMIT 1";
    let newest = connection.prepare_cached(sql)?.query_row([name], |row| {
        let (state, until, reason): (String, Option<i64>, Option<String>) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(match (state.as_str(), until) {
            ("open", Some(until)) => {
                let until = instant(until);
                let until = until.as_str().unwrap_or_default();
                Some(format!("open until {until}: {}", reason.unwrap_or_default()))
            }
            ("halfOpen", _) => Some("half-open: one run at a time is let through until one succeeds".to_owned()),
            _ => None,
        })
    });
    Ok(newest.optional()?.flatten())
}

fn turn(row: &Row<'_>) -> Result<Value> {
    let ended: i64 = row.get(4)?;
    Ok(json!({
        "state": row.get::<_, String>(0)?,
        "since": instant(row.get(1)?),
        "until": optional_instant(row.get(2)?),
        "failures": row.get::<_, i64>(3)?,
        "ended": (ended != 0).then_some(ended),
        "reason": row.get::<_, Option<String>>(7)?,
        "runId": row.get::<_, Option<String>>(5)?,
        "job": row.get::<_, Option<String>>(6)?,
    }))
}
