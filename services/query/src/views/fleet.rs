//! What the installation consists of: runners, shards, queues. Not here: jobs and runs. Invariant: lists are
//! whole, ordered by name; there are never so many that a page would not do.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::id::QueueName;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use rusqlite::{Connection, OptionalExtension, Result};
use serde_json::{Value, json};

use super::limits::queue_bounds;
use super::{Items, instant, stored_json};

/// Runners, with what their last sign of life means at `now`.
pub(crate) fn runners(connection: &Connection, now: Timestamp) -> Result<Items> {
    let mut statement = connection.prepare_cached(
        "SELECT runner, session, at, seen_at, since, lease_ms, queues, slots, busy, is_draining, host,
                queue_weights, labels
         FROM runners ORDER BY runner",
    )?;
    let rows = statement.query_map([], |row| {
        let runner: String = row.get(0)?;
        let (seen_at, lease_ms): (i64, i64) = (row.get(3)?, row.get(5)?);
        let state = if seen_at.saturating_add(lease_ms) < now.millis() {
            "lost"
        } else if row.get(9)? {
            "draining"
        } else {
            "online"
        };
        let document = json!({
            "runner": runner,
            "state": state,
            "session": row.get::<_, String>(1)?,
            "queues": stored_json(Some(&row.get::<_, String>(6)?)),
            "queueWeights": stored_json(Some(&row.get::<_, String>(11)?)),
            "labels": stored_json(Some(&row.get::<_, String>(12)?)),
            "busy": row.get::<_, i64>(8)?,
            "slots": row.get::<_, i64>(7)?,
            "host": row.get::<_, String>(10)?,
            "since": instant(row.get(4)?),
            "at": instant(row.get(2)?),
            "leaseSeconds": lease_ms / 1000,
        });
        Ok((runner, document))
    })?;
    rows.collect()
}

/// Shards, each with how many jobs it has and who owns it.
pub(crate) fn shards(connection: &Connection, count: i32) -> Result<Items> {
    let mut statement =
        connection.prepare_cached("SELECT shard, count(*) FROM jobs WHERE definition IS NOT NULL GROUP BY shard")?;
    let jobs: BTreeMap<i32, i64> =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_>>()?;
    let mut statement = connection
        .prepare_cached("SELECT service, shard, incarnation, offset, host, since FROM owners ORDER BY offset")?;
    let mut owners: BTreeMap<(String, i32), Value> = BTreeMap::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (service, shard): (String, i32) = (row.get(0)?, row.get(1)?);
        let owner = json!({
            "service": service,
            "incarnation": row.get::<_, String>(2)?,
            "host": row.get::<_, String>(4)?,
            "since": instant(row.get(5)?),
            "position": format!("{service}.owners/{shard}@{}", row.get::<_, i64>(3)?),
        });
        // A later claim replaces an earlier one that was never released.
        owners.insert((service, shard), owner);
    }
    let mut last = connection.prepare_cached(
        "SELECT offset, fire_time, decided_at FROM decisions WHERE shard = ?1 ORDER BY offset DESC LIMIT 1",
    )?;
    let mut last_decisions: BTreeMap<i32, Value> = BTreeMap::new();
    for shard in 0..count {
        let found = last.query_row([shard], |row| {
            Ok(json!({
                "position": format!("{}/{shard}@{}", topic::FIRES, row.get::<_, i64>(0)?),
                "fireTime": instant(row.get(1)?),
                "decidedAt": instant(row.get(2)?),
            }))
        });
        last_decisions.extend(found.optional()?.map(|decision| (shard, decision)));
    }
    let progress = progress(connection)?;
    let items = (0..count).map(|shard| {
        let (position, lag) = position_and_lag(&progress, shard);
        let owner = |service: &str| owners.get(&(service.to_owned(), shard)).cloned();
        let name = |owner: &Option<Value>| owner.as_ref().map_or(Value::Null, |owner| owner["incarnation"].clone());
        let (trigger, dispatcher) = (owner("trigger"), owner("dispatcher"));
        let owners: Vec<Value> = [&trigger, &dispatcher].into_iter().flatten().cloned().collect();
        let document = json!({
            "shard": shard,
            "jobs": jobs.get(&shard).copied().unwrap_or(0),
            "trigger": name(&trigger),
            "dispatcher": name(&dispatcher),
            "owners": owners,
            "position": position,
            "lag": lag,
            "lastDecision": last_decisions.get(&shard),
        });
        (format!("{shard:05}"), document)
    });
    Ok(items.collect())
}

/// Of each input of the trigger: the first offset that it has not dealt with, and the first that nobody has written.
type Progress = BTreeMap<(String, i32), (i64, i64)>;

fn progress(connection: &Connection) -> Result<Progress> {
    let sql = "SELECT positions.topic, positions.partition, coalesce(answers.next, 0), positions.next
        FROM positions LEFT JOIN answers USING (topic, partition) WHERE positions.topic IN (?1, ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([topic::JOBS, topic::COMMANDS], |row| {
        let at = (row.get(0)?, row.get(1)?);
        Ok((at, (row.get(2)?, row.get(3)?)))
    })?;
    rows.collect()
}

/// Where the trigger of a shard stands in its inputs, as far as it has said so, and how many records that is behind.
fn position_and_lag(progress: &Progress, shard: i32) -> (Value, i64) {
    let mut position = json!({});
    let mut lag = 0;
    for topic in [topic::JOBS, topic::COMMANDS] {
        let (next, end) = progress.get(&(topic.to_owned(), shard)).copied().unwrap_or_default();
        position[topic] = format!("{topic}/{shard}@{}", next.min(end)).into();
        lag += (end - next).max(0);
    }
    (position, lag)
}

/// What the documents of queues show of their bounds, and nothing where there are none.
const BOUNDS: [&str; 9] =
    ["maxConcurrent", "ratePerSecond", "burst", "paused", "breaker", "held", "waitingForLimit", "manifest", "status"];

/// Most handlers that are listed as missing.
const MISSING_MAX: i64 = 100;

/// Handlers that runs of a queue wait for because the runner that took them has not got them, by queue.
fn missing_handlers(connection: &Connection) -> Result<BTreeMap<String, Vec<String>>> {
    let sql = "SELECT DISTINCT queue, missing_handler FROM runs WHERE missing_handler IS NOT NULL
        ORDER BY queue, missing_handler LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([MISSING_MAX])?;
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        missing.entry(row.get(0)?).or_default().push(row.get(1)?);
    }
    Ok(missing)
}

/// Labels that runs of a queue wait for a runner with, by queue; those that a runner has which is online are left out: these runs
/// wait for a free slot.
fn missing_runners(connection: &Connection, runners: &[(String, Value)]) -> Result<BTreeMap<String, Vec<String>>> {
    let sql = "SELECT DISTINCT queue, missing_runner FROM runs WHERE missing_runner IS NOT NULL
        ORDER BY queue, missing_runner LIMIT ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query([MISSING_MAX])?;
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (queue, labels): (String, String) = (row.get(0)?, row.get(1)?);
        if !runners.iter().any(|(_, runner)| serves(runner, &queue, &labels)) {
            missing.entry(queue).or_default().push(labels);
        }
    }
    Ok(missing)
}

/// True if a runner is online, takes from a queue and has all of the labels of a text as `gpu=true,zone=eu`.
fn serves(runner: &Value, queue: &str, labels: &str) -> bool {
    let takes_from = runner["queues"].as_array().is_some_and(|queues| queues.iter().any(|served| served == queue));
    let mut pairs = labels.split(',').filter_map(|pair| pair.split_once('='));
    runner["state"] == "online" && takes_from && pairs.all(|(name, value)| runner["labels"][name] == value)
}

/// Queues, each with what is on it and what bounds it.
pub(crate) fn queues(connection: &Connection, known: &[QueueName], now: Timestamp) -> Result<Items> {
    let mut names: BTreeSet<String> = known.iter().map(|queue| queue.as_str().to_owned()).collect();
    let mut counts: BTreeMap<(String, String), i64> = BTreeMap::new();
    let mut count = |sql: &str| -> Result<()> {
        let mut statement = connection.prepare_cached(sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let queue: String = row.get(0)?;
            names.insert(queue.clone());
            counts.insert((queue, row.get(1)?), row.get(2)?);
        }
        Ok(())
    };
    count(
        "SELECT queue, state, count(*) FROM runs
         WHERE state <> 'succeeded' AND state IN ('delayed', 'waiting', 'ready', 'running', 'retrying')
         GROUP BY queue, state",
    )?;
    count("SELECT queue, 'dead', count(*) FROM dead_letters GROUP BY queue")?;
    count("SELECT queue, 'jobs', count(*) FROM jobs WHERE definition IS NOT NULL GROUP BY queue")?;
    let mut serving: BTreeMap<String, i64> = BTreeMap::new();
    let runners = runners(connection, now)?;
    for (_, runner) in &runners {
        let is_online = runner["state"] == "online";
        for queue in runner["queues"].as_array().into_iter().flatten().filter_map(Value::as_str).filter(|_| is_online) {
            names.insert(queue.to_owned());
            *serving.entry(queue.to_owned()).or_default() += 1;
        }
    }
    let mut missing = missing_handlers(connection)?;
    let mut without_runner = missing_runners(connection, &runners)?;
    let mut bounds = queue_bounds(connection)?;
    names.extend(bounds.keys().cloned());
    let items = names.into_iter().map(|queue| {
        let mut document = json!({"queue": queue, "runners": serving.get(&queue).copied().unwrap_or(0)});
        for kind in ["jobs", "delayed", "waiting", "ready", "running", "retrying", "dead"] {
            document[kind] = counts.get(&(queue.clone(), kind.to_owned())).copied().unwrap_or(0).into();
        }
        document["missingHandlers"] = json!(missing.remove(&queue).unwrap_or_default());
        document["missingRunners"] = json!(without_runner.remove(&queue).unwrap_or_default());
        let mut bounds = bounds.remove(&queue).unwrap_or_default();
        for field in BOUNDS {
            document[field] = bounds.get_mut(field).map(Value::take).unwrap_or_default();
        }
        (queue, document)
    });
    Ok(items.collect())
}
