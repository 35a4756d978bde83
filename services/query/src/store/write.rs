//! Changes as SQL. Not here: what changes (`projections`). Invariant: whatever order topics are folded in, the
//! rows come out the same; that is why requests never touch a state, and states never what was requested.

use rusqlite::{Connection, Result, named_params, params};

use crate::projections::{
    AttemptEnd, AttemptReport, BreakerRow, Change, DeadLetter, DecisionRow, HistoryRow, JobRow, OwnerRow,
    QuarantineRow, RunRequest, RunStep, RunnerRow, SettingRow,
};

/// Carries one change out.
pub(super) fn apply(connection: &Connection, change: &Change) -> Result<()> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| connection.prepare_cached(sql)?.execute(values).map(|_| ());
    match change {
        Change::Offered(offer) => run(
            "INSERT OR REPLACE INTO offers (job, offset, is_delete) VALUES (?1, ?2, ?3)",
            params![offer.job.as_str(), offer.offset, offer.is_delete],
        ),
        Change::Stated(row) => job(connection, row),
        Change::Told(row) => history(connection, row),
        Change::Answered { topic, partition, next } => run(
            "INSERT INTO answers (topic, partition, next) VALUES (?1, ?2, ?3)
             ON CONFLICT DO UPDATE SET next = max(next, excluded.next)",
            params![topic, partition, next],
        ),
        Change::Decided(row) => decision(connection, row),
        Change::Requested(row) => request(connection, row),
        Change::Stepped(row) => step(connection, row),
        Change::AttemptEnded(row) => attempt_end(connection, row),
        Change::Hedged { run_id, token, attempt } => run(
            "INSERT INTO attempts (run_id, token, attempt, is_hedge) VALUES (?1, ?2, ?3, 1)
             ON CONFLICT DO UPDATE SET is_hedge = 1",
            params![run_id, token, attempt],
        ),
        Change::Reported(row) => report(connection, row),
        Change::Wrote(row) => run(
            "INSERT OR IGNORE INTO output (run_id, token, sequence, attempt, is_last, value)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![row.run_id, row.token, row.sequence, row.attempt, row.is_last, row.value],
        ),
        Change::Parked(row) => dead_letter(connection, row),
        Change::Unparked(run_id) => run("DELETE FROM dead_letters WHERE run_id = ?1", params![run_id]),
        Change::Seen(row) => runner(connection, row),
        Change::RunnerGone(runner) => run("DELETE FROM runners WHERE runner = ?1", params![runner]),
        Change::Owned(row) => owner(connection, row),
        Change::Released { service, shard, incarnation } => run(
            "DELETE FROM owners WHERE service = ?1 AND shard = ?2 AND incarnation = ?3",
            params![service.as_str(), shard, incarnation],
        ),
        Change::Calendar(row) => setting(connection, "calendars", row),
        Change::CalendarGone(name) => run("DELETE FROM calendars WHERE name = ?1", params![name]),
        Change::Limit(row) => setting(connection, "limits", row),
        Change::LimitGone(name) => run("DELETE FROM limits WHERE name = ?1", params![name]),
        Change::BreakerTurned(row) => breaker(connection, row),
        Change::Quarantined(row) => quarantine(connection, row),
    }
}

fn job(connection: &Connection, row: &JobRow) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO jobs (job, shard, version, definition, labels, queue, pause, backfill,
        definition_offset, effective_from, cursor, fires)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let values = params![
        row.job,
        row.shard,
        row.version,
        row.definition,
        row.labels,
        row.queue,
        row.pause,
        row.backfill,
        row.definition_offset,
        row.effective_from,
        row.cursor,
        row.fires,
    ];
    connection.prepare_cached(sql)?.execute(values)?;
    // The first state of a version says from when on it is in force; later ones only move the cursor.
    let sql = "INSERT OR IGNORE INTO versions (job, definition_offset, version, shard, effective_from, definition)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![row.job, row.definition_offset, row.version, row.shard, row.effective_from, row.definition];
    connection.prepare_cached(sql)?.execute(values)?;
    connection.prepare_cached("DELETE FROM job_calendars WHERE job = ?1")?.execute(params![row.job])?;
    for calendar in &row.calendars {
        let sql = "INSERT INTO job_calendars (job, calendar) VALUES (?1, ?2)";
        connection.prepare_cached(sql)?.execute(params![row.job, calendar])?;
    }
    connection.prepare_cached("DELETE FROM job_limits WHERE job = ?1")?.execute(params![row.job])?;
    for limit in &row.limits {
        let sql = "INSERT OR IGNORE INTO job_limits (job, name) VALUES (?1, ?2)";
        connection.prepare_cached(sql)?.execute(params![row.job, limit])?;
    }
    forget_versions(connection, &row.job)
}

/// Into `calendars` or `limits`, which have the same columns.
fn setting(connection: &Connection, table: &'static str, row: &SettingRow) -> Result<()> {
    let sql =
        &format!("INSERT OR REPLACE INTO {table} (name, offset, at, actor, manifest) VALUES (?1, ?2, ?3, ?4, ?5)");
    let values = params![row.name, row.offset, row.at, row.actor, row.manifest];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

/// Most turns kept of one breaker; the newest says how it stands, however old it is.
const TURNS_MAX: i64 = 20;

fn breaker(connection: &Connection, row: &BreakerRow) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO breakers (name, offset, state, at, until, failures, ended, run_id, job, reason)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let values = params![
        row.name,
        row.offset,
        row.state,
        row.at,
        row.until,
        row.failures,
        row.ended,
        row.run_id,
        row.job,
        row.reason,
    ];
    connection.prepare_cached(sql)?.execute(values)?;
    let sql = "DELETE FROM breakers WHERE name = ?1 AND offset <
        (SELECT offset FROM breakers WHERE name = ?1 ORDER BY offset DESC LIMIT 1 OFFSET ?2)";
    connection.prepare_cached(sql)?.execute(params![row.name, TURNS_MAX - 1]).map(|_| ())
}

/// Most definitions kept of one job.
const VERSIONS_MAX: i64 = 100;

fn forget_versions(connection: &Connection, job: &str) -> Result<()> {
    let sql = "DELETE FROM versions WHERE job = ?1 AND definition_offset < (SELECT definition_offset FROM versions
        WHERE job = ?1 ORDER BY definition_offset DESC LIMIT 1 OFFSET ?2)";
    connection.prepare_cached(sql)?.execute(params![job, VERSIONS_MAX - 1]).map(|_| ())
}

fn history(connection: &Connection, row: &HistoryRow) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO history (shard, offset, job, kind, version, at, definition_offset,
        command_offset, command_id, actor, reason, errors) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let values = params![
        row.shard,
        row.offset,
        row.job,
        row.kind,
        row.version,
        row.at,
        row.definition_offset,
        row.command_offset,
        row.command_id,
        row.actor,
        row.reason,
        row.errors,
    ];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

fn decision(connection: &Connection, row: &DecisionRow) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO decisions (shard, offset, job, version, trigger, fire_time, range_end, decision,
        reason, run_id, coalesced_into, decided_at, calendars)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let values = params![
        row.shard,
        row.offset,
        row.job,
        row.version,
        row.trigger,
        row.fire_time,
        row.range_end,
        row.decision,
        row.reason,
        row.run_id,
        row.coalesced_into,
        row.decided_at,
        row.calendars,
    ];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

/// As long as the dispatcher says nothing else of a run, it is on its queue, or will be in a moment.
fn request(connection: &Connection, row: &RunRequest) -> Result<()> {
    let sql = "INSERT INTO runs (run_id, job, version, trigger, fire_time, requested_at, queue, state, attempt, token,
            command_id, actor, params)
        VALUES (:run_id, :job, :version, :trigger, :fire_time, :requested_at, :queue, 'ready', 1, 1,
            :command_id, :actor, :params)
        ON CONFLICT DO UPDATE SET command_id = excluded.command_id, actor = excluded.actor, params = excluded.params";
    let values = named_params! {
        ":run_id": row.run_id,
        ":job": row.job,
        ":version": row.version,
        ":trigger": row.trigger,
        ":fire_time": row.fire_time,
        ":requested_at": row.requested_at,
        ":queue": row.queue,
        ":command_id": row.command_id,
        ":actor": row.actor,
        ":params": row.params,
    };
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

fn step(connection: &Connection, row: &RunStep) -> Result<()> {
    let sql = "INSERT INTO runs (run_id, job, version, trigger, fire_time, requested_at, queue, state, attempt, token,
            due_at, runner, outcome, disposition, finished_at, note, redrives, limits, missing_handler,
            missing_runner)
        VALUES (:run_id, :job, :version, :trigger, :fire_time, :requested_at, :queue, :state, :attempt, :token,
            :due_at, :runner, :outcome, :disposition, :finished_at, :note, :redrives, :limits,
            :missing_handler, :missing_runner)
        ON CONFLICT DO UPDATE SET state = excluded.state, attempt = excluded.attempt, token = excluded.token,
            due_at = excluded.due_at, runner = excluded.runner, outcome = excluded.outcome,
            disposition = excluded.disposition, finished_at = excluded.finished_at, note = excluded.note,
            redrives = excluded.redrives, limits = excluded.limits,
            missing_handler = excluded.missing_handler, missing_runner = excluded.missing_runner";
    let values = named_params! {
        ":run_id": row.run_id,
        ":job": row.job,
        ":version": row.version,
        ":trigger": row.trigger,
        ":fire_time": row.fire_time,
        ":requested_at": row.requested_at,
        ":queue": row.queue,
        ":state": row.state,
        ":attempt": row.attempt,
        ":token": row.token,
        ":due_at": row.due_at,
        ":runner": row.runner,
        ":outcome": row.outcome,
        ":disposition": row.disposition,
        ":finished_at": row.finished_at,
        ":note": row.note,
        ":redrives": row.redrives,
        ":limits": row.limits,
        ":missing_handler": row.missing_handler,
        ":missing_runner": row.missing_runner,
    };
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

/// What ended it first counts: a run that is cancelled or expires between two attempts ends with the one before.
fn attempt_end(connection: &Connection, row: &AttemptEnd) -> Result<()> {
    let sql = "INSERT INTO attempts (run_id, token, attempt, ended_at, ended_outcome) VALUES (?1, ?2, ?3, ?4, ?5)
        ON CONFLICT DO UPDATE SET ended_at = coalesce(ended_at, excluded.ended_at),
            ended_outcome = coalesce(ended_outcome, excluded.ended_outcome)";
    connection
        .prepare_cached(sql)?
        .execute(params![row.run_id, row.token, row.attempt, row.at, row.outcome])
        .map(|_| ())
}

/// A report of the session that holds the attempt, or of the first one that says anything about it.
fn report(connection: &Connection, row: &AttemptReport) -> Result<()> {
    let sql = "INSERT INTO attempts (run_id, token, attempt, runner, session, claimed_at, started_at, finished_at,
            outcome, percent, callback_digest, has_output)
        VALUES (:run_id, :token, :attempt, :runner, :session, :claimed_at, :started_at, :finished_at, :outcome, :percent,
            :callback_digest, :has_output)
        ON CONFLICT DO UPDATE SET runner = excluded.runner, session = excluded.session,
            claimed_at = coalesce(claimed_at, excluded.claimed_at),
            started_at = coalesce(started_at, excluded.started_at),
            finished_at = coalesce(finished_at, excluded.finished_at),
            outcome = coalesce(outcome, excluded.outcome), percent = coalesce(excluded.percent, percent),
            callback_digest = coalesce(callback_digest, excluded.callback_digest),
            has_output = coalesce(has_output, excluded.has_output)
        WHERE session IS NULL OR session = excluded.session";
    let values = named_params! {
        ":run_id": row.run_id,
        ":token": row.token,
        ":attempt": row.attempt,
        ":runner": row.runner,
        ":session": row.session,
        ":claimed_at": row.claimed_at,
        ":started_at": row.started_at,
        ":finished_at": row.finished_at,
        ":outcome": row.outcome,
        ":percent": row.percent,
        ":callback_digest": row.callback_digest,
        ":has_output": row.has_output,
    };
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

fn dead_letter(connection: &Connection, row: &DeadLetter) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO dead_letters (run_id, queue, partition, offset, at, job, attempt, error_class,
            message, disposition, first_failure, redrive_count, fire_time, trigger, source, key, value, headers)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)";
    let values = params![
        row.run_id,
        row.queue,
        row.partition,
        row.offset,
        row.at,
        row.job,
        row.attempt,
        row.error_class,
        row.message,
        row.disposition,
        row.first_failure,
        row.redrive_count,
        row.fire_time,
        row.trigger,
        row.source,
        row.key,
        row.value,
        row.headers,
    ];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

fn runner(connection: &Connection, row: &RunnerRow) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO runners (runner, session, at, seen_at, since, lease_ms, queues, slots, busy,
        is_draining, host, queue_weights, labels)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)";
    let values = params![
        row.runner,
        row.session,
        row.at,
        row.seen_at,
        row.since,
        row.lease_ms,
        row.queues,
        row.slots,
        row.busy,
        row.is_draining,
        row.host,
        row.queue_weights,
        row.labels,
    ];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

fn owner(connection: &Connection, row: &OwnerRow) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO owners (service, shard, incarnation, offset, host, since)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let values = params![row.service.as_str(), row.shard, row.incarnation, row.offset, row.host, row.since];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}

fn quarantine(connection: &Connection, row: &QuarantineRow) -> Result<()> {
    let sql = "INSERT OR REPLACE INTO quarantine (partition, offset, at, source_topic, source_partition, source_offset,
        error, key, value, headers) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let values = params![
        row.partition,
        row.offset,
        row.at,
        row.source_topic,
        row.source_partition,
        row.source_offset,
        row.error,
        row.key,
        row.value,
        row.headers,
    ];
    connection.prepare_cached(sql)?.execute(values).map(|_| ())
}
