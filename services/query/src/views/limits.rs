//! Bounds of queues and shared limits: one by name, lists, who holds them, waits for them and names them. Not here: who is
//! next (`orloj_domain::limit`). Invariant: of a run that waits, the last of its limits is the one that it waits for, and it
//! holds those before.

use std::collections::BTreeMap;

use orloj_domain::id::LimitId;
use orloj_domain::limit::{self, LimitRule, QUEUE_KIND};
use rusqlite::{Connection, OptionalExtension, Result, Row};
use serde_json::{Value, json};

use super::breakers::breaker;
use super::calendars::setting_position;
use super::{Items, instant, sql_count, stored_json};

/// Most jobs that are listed as naming a limit.
const USERS_MAX: i64 = 100;

const COLUMNS: &str = "name, offset, at, actor, manifest";

/// How many runs hold a limit, and how many wait for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct LimitUse {
    pub(crate) held: i64,
    pub(crate) waiting: i64,
}

/// The document of a shared limit, and the offset that it stands at.
pub(crate) fn limit(connection: &Connection, limit: &LimitId) -> Result<Option<(Value, i64)>> {
    let sql = format!("SELECT {COLUMNS} FROM limits WHERE name = ?1");
    let uses = limit_uses(connection)?;
    let found = connection
        .prepare_cached(&sql)?
        .query_row([limit.as_str()], |row| Ok((document(connection, row, &uses)?, row.get(1)?)))
        .optional()?;
    let Some((mut document, offset)) = found else { return Ok(None) };
    document["status"]["jobs"] = json!(jobs_with_limit(connection, limit)?);
    if let Some(host) = document["spec"]["host"].as_str() {
        document["status"]["jobsOfHost"] = json!(jobs_with(connection, &format!("host/{host}"))?);
    }
    Ok(Some((document, offset)))
}

/// Shared limits after `after` in order of their names.
pub(crate) fn limits(connection: &Connection, after: Option<&str>, limit: usize) -> Result<Items> {
    let uses = limit_uses(connection)?;
    // `0` is the character after `/`: all shared limits lie between the two.
    let sql =
        format!("SELECT {COLUMNS} FROM limits WHERE name > 'limit/' || ?1 AND name < 'limit0' ORDER BY name LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let row = |row: &Row<'_>| Ok((short_name(&row.get::<_, String>(0)?), document(connection, row, &uses)?));
    statement.query_map((after.unwrap_or_default(), sql_count(limit)), row)?.collect()
}

/// The offset that a limit or the bounds of a queue stand at.
pub(crate) fn limit_offset(connection: &Connection, limit: &LimitId) -> Result<Option<i64>> {
    let sql = "SELECT offset FROM limits WHERE name = ?1";
    connection.prepare_cached(sql)?.query_row([limit.as_str()], |row| row.get(0)).optional()
}

/// Names of all shared limits.
pub(crate) fn limit_names(connection: &Connection) -> Result<Vec<String>> {
    let sql = "SELECT name FROM limits WHERE name > 'limit/' AND name < 'limit0' ORDER BY name";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map([], |row| Ok(short_name(&row.get::<_, String>(0)?)))?.collect()
}

/// Jobs in force that name a limit, the first hundred.
pub(crate) fn jobs_with_limit(connection: &Connection, limit: &LimitId) -> Result<Vec<String>> {
    jobs_with(connection, limit.as_str())
}

fn jobs_with(connection: &Connection, name: &str) -> Result<Vec<String>> {
    let sql = "SELECT job FROM job_limits WHERE name = ?1 ORDER BY job LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map((name, USERS_MAX), |row| row.get(0))?.collect()
}

/// What live runs hold and wait for, by the limit's whole name.
pub(crate) fn limit_uses(connection: &Connection) -> Result<BTreeMap<String, LimitUse>> {
    let mut statement = connection.prepare_cached(
        "SELECT one.value, runs.state = 'waiting' AND one.key = json_array_length(runs.limits) - 1, count(*)
         FROM runs, json_each(runs.limits) AS one
         WHERE runs.limits IS NOT NULL AND runs.state IN ('waiting', 'ready', 'running') GROUP BY 1, 2",
    )?;
    let mut rows = statement.query([])?;
    let mut uses: BTreeMap<String, LimitUse> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let of_limit = uses.entry(row.get(0)?).or_default();
        let (waits, count): (bool, i64) = (row.get(1)?, row.get(2)?);
        let counted = if waits { &mut of_limit.waiting } else { &mut of_limit.held };
        *counted += count;
    }
    Ok(uses)
}

/// What each bounded queue adds to its document, by the queue's name.
pub(super) fn queue_bounds(connection: &Connection) -> Result<BTreeMap<String, Value>> {
    let uses = limit_uses(connection)?;
    let sql = format!("SELECT {COLUMNS} FROM limits WHERE name > 'queue/' AND name < 'queue0'");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([], |row| {
        let name: String = row.get(0)?;
        let manifest = manifest_of(row)?;
        let used = uses.get(&name).copied().unwrap_or_default();
        let rule = rule_of(&manifest);
        let bounds = json!({
            "maxConcurrent": rule.max_concurrent,
            "ratePerSecond": rule.rate_per_second,
            "burst": rule.rate_per_second.map(|_| rule.burst),
            "paused": rule.is_paused,
            "breaker": breaker(connection, &name, &manifest)?,
            "held": used.held,
            "waitingForLimit": used.waiting,
            "manifest": manifest,
            "status": status(row)?,
        });
        Ok((short_name(&name), bounds))
    })?;
    rows.collect()
}

/// The document of a queue, from the list of all.
pub(crate) fn queue(queues: Items, name: &str) -> Option<Value> {
    queues.into_iter().find(|(queue, _)| queue == name).map(|(_, document)| document)
}

/// The name without its kind.
fn short_name(name: &str) -> String {
    name.split_once('/').map_or(name, |(_, name)| name).to_owned()
}

fn manifest_of(row: &Row<'_>) -> Result<Value> {
    Ok(stored_json(row.get_ref(4)?.as_str_or_null()?))
}

/// What a manifest allows. Only what could be read was folded in.
fn rule_of(manifest: &Value) -> LimitRule {
    debug_assert_eq!(manifest["kind"], QUEUE_KIND);
    limit::parse_json(&manifest.to_string()).map(|(_, _, rule)| rule).unwrap_or_default()
}

fn status(row: &Row<'_>) -> Result<Value> {
    Ok(json!({
        "position": setting_position(row.get(1)?),
        "updatedAt": instant(row.get(2)?),
        "actor": row.get::<_, Option<String>>(3)?,
    }))
}

fn document(connection: &Connection, row: &Row<'_>, uses: &BTreeMap<String, LimitUse>) -> Result<Value> {
    let name: String = row.get(0)?;
    let manifest = manifest_of(row)?;
    let used = uses.get(&name).copied().unwrap_or_default();
    let breaker = breaker(connection, &name, &manifest)?;
    let mut document = manifest.clone();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("limit".to_owned(), json!(short_name(&name)));
        fields.insert("held".to_owned(), json!(used.held));
        fields.insert("waiting".to_owned(), json!(used.waiting));
        fields.insert("breaker".to_owned(), breaker);
        fields.insert("manifest".to_owned(), manifest);
        fields.insert("status".to_owned(), status(row)?);
    }
    Ok(document)
}
