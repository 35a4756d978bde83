//! The tables, their version, and which columns order them. Not here: what is written into them (`write`).
//! Invariant: any change of a table or of a fold raises `VERSION`, and older files are then built anew.

/// Version of tables and folds together; another one in a file means that it is rebuilt from the log.
pub(super) const VERSION: i32 = 11;
/// Marks a file as ours (`PRAGMA application_id`): "ORLJ".
pub(super) const APPLICATION_ID: i32 = 0x4f52_4c4a;

/// The tables with what upserts need. Times are milliseconds since the epoch.
pub(super) const TABLES: &str = "
CREATE TABLE positions (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE answers (
    topic TEXT NOT NULL, partition INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE offers (
    job TEXT NOT NULL PRIMARY KEY, offset INTEGER NOT NULL, is_delete INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE jobs (
    job TEXT NOT NULL PRIMARY KEY, shard INTEGER NOT NULL, version INTEGER NOT NULL, definition BLOB,
    labels TEXT NOT NULL, queue TEXT, pause TEXT, backfill TEXT, definition_offset INTEGER NOT NULL,
    effective_from INTEGER NOT NULL, cursor INTEGER NOT NULL, fires INTEGER NOT NULL);
CREATE TABLE versions (
    job TEXT NOT NULL, definition_offset INTEGER NOT NULL, version INTEGER NOT NULL, shard INTEGER NOT NULL,
    effective_from INTEGER NOT NULL, definition BLOB,
    PRIMARY KEY (job, definition_offset)) WITHOUT ROWID;
CREATE TABLE history (
    shard INTEGER NOT NULL, offset INTEGER NOT NULL, job TEXT NOT NULL, kind TEXT NOT NULL, version INTEGER NOT NULL,
    at INTEGER NOT NULL, definition_offset INTEGER, command_offset INTEGER, command_id TEXT, actor TEXT, reason TEXT,
    errors TEXT NOT NULL,
    PRIMARY KEY (shard, offset)) WITHOUT ROWID;
CREATE TABLE decisions (
    shard INTEGER NOT NULL, offset INTEGER NOT NULL, job TEXT NOT NULL, version INTEGER NOT NULL,
    trigger TEXT NOT NULL, fire_time INTEGER NOT NULL, range_end INTEGER, decision TEXT NOT NULL, reason TEXT,
    run_id TEXT, coalesced_into INTEGER, decided_at INTEGER NOT NULL, calendars TEXT,
    PRIMARY KEY (shard, offset)) WITHOUT ROWID;
CREATE TABLE runs (
    run_id TEXT NOT NULL PRIMARY KEY, job TEXT NOT NULL, version INTEGER NOT NULL, trigger TEXT NOT NULL,
    fire_time INTEGER NOT NULL, requested_at INTEGER NOT NULL, queue TEXT NOT NULL, state TEXT NOT NULL,
    attempt INTEGER NOT NULL, token INTEGER NOT NULL, due_at INTEGER, runner TEXT, outcome TEXT, disposition TEXT,
    finished_at INTEGER, command_id TEXT, actor TEXT, params TEXT, note TEXT,
    redrives INTEGER NOT NULL DEFAULT 0, limits TEXT, missing_handler TEXT, missing_runner TEXT) WITHOUT ROWID;
CREATE TABLE attempts (
    run_id TEXT NOT NULL, token INTEGER NOT NULL, attempt INTEGER NOT NULL, runner TEXT, session TEXT,
    claimed_at INTEGER, started_at INTEGER, finished_at INTEGER, outcome TEXT, percent INTEGER,
    ended_at INTEGER, ended_outcome TEXT, callback_digest TEXT, is_hedge INTEGER NOT NULL DEFAULT 0,
    has_output INTEGER,
    PRIMARY KEY (run_id, token)) WITHOUT ROWID;
CREATE TABLE output (
    run_id TEXT NOT NULL, token INTEGER NOT NULL, sequence INTEGER NOT NULL, attempt INTEGER NOT NULL,
    is_last INTEGER NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (run_id, token, sequence));
CREATE TABLE dead_letters (
    run_id TEXT NOT NULL PRIMARY KEY, queue TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    at INTEGER NOT NULL, job TEXT, attempt INTEGER, error_class TEXT, message TEXT, disposition TEXT,
    first_failure TEXT, redrive_count INTEGER, fire_time INTEGER, trigger TEXT, source TEXT, key BLOB,
    value BLOB NOT NULL, headers TEXT NOT NULL);
CREATE TABLE runners (
    runner TEXT NOT NULL PRIMARY KEY, session TEXT NOT NULL, at INTEGER NOT NULL, seen_at INTEGER NOT NULL,
    since INTEGER NOT NULL, lease_ms INTEGER NOT NULL, queues TEXT NOT NULL, slots INTEGER NOT NULL,
    busy INTEGER NOT NULL, is_draining INTEGER NOT NULL, host TEXT NOT NULL, queue_weights TEXT NOT NULL,
    labels TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE owners (
    service TEXT NOT NULL, shard INTEGER NOT NULL, incarnation TEXT NOT NULL, offset INTEGER NOT NULL,
    host TEXT NOT NULL, since INTEGER NOT NULL,
    PRIMARY KEY (service, shard, incarnation)) WITHOUT ROWID;
CREATE TABLE calendars (
    name TEXT NOT NULL PRIMARY KEY, offset INTEGER NOT NULL, at INTEGER NOT NULL, actor TEXT,
    manifest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE job_calendars (
    job TEXT NOT NULL, calendar TEXT NOT NULL, PRIMARY KEY (job, calendar)) WITHOUT ROWID;
CREATE TABLE limits (
    name TEXT NOT NULL PRIMARY KEY, offset INTEGER NOT NULL, at INTEGER NOT NULL, actor TEXT,
    manifest TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE job_limits (
    job TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (job, name)) WITHOUT ROWID;
CREATE TABLE breakers (
    name TEXT NOT NULL, offset INTEGER NOT NULL, state TEXT NOT NULL, at INTEGER NOT NULL, until INTEGER,
    failures INTEGER NOT NULL, ended INTEGER NOT NULL, run_id TEXT, job TEXT, reason TEXT,
    PRIMARY KEY (name, offset)) WITHOUT ROWID;
CREATE TABLE quarantine (
    partition INTEGER NOT NULL, offset INTEGER NOT NULL, at INTEGER NOT NULL, source_topic TEXT,
    source_partition INTEGER, source_offset INTEGER, error TEXT, key BLOB, value BLOB, headers TEXT NOT NULL,
    PRIMARY KEY (partition, offset));
";

/// What only reads need; made last in a rebuild, since filling a table with indexes costs several times as much.
/// Most runs succeed, and nobody looks for one by that: the index by state leaves them out.
pub(super) const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS history_by_job ON history (job, offset);
CREATE INDEX IF NOT EXISTS history_by_definition ON history (shard, definition_offset) WHERE definition_offset IS NOT NULL;
CREATE INDEX IF NOT EXISTS history_by_command ON history (shard, command_offset) WHERE command_offset IS NOT NULL;
CREATE INDEX IF NOT EXISTS decisions_by_job ON decisions (job, offset);
CREATE INDEX IF NOT EXISTS decisions_by_fire_time ON decisions (job, fire_time);
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (requested_at, run_id);
CREATE INDEX IF NOT EXISTS runs_by_job ON runs (job, requested_at, run_id);
CREATE INDEX IF NOT EXISTS runs_by_state ON runs (state, requested_at, run_id) WHERE state <> 'succeeded';
CREATE INDEX IF NOT EXISTS runs_with_limits ON runs (state, run_id) WHERE limits IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_unserved ON runs (queue, missing_handler) WHERE missing_handler IS NOT NULL;
CREATE INDEX IF NOT EXISTS runs_unplaced ON runs (queue, missing_runner) WHERE missing_runner IS NOT NULL;
CREATE INDEX IF NOT EXISTS jobs_by_limit ON job_limits (name, job);
CREATE INDEX IF NOT EXISTS jobs_by_calendar ON job_calendars (calendar, job);
CREATE INDEX IF NOT EXISTS dead_letters_by_time ON dead_letters (at, run_id);
";

/// Tables that the digest covers, each with the columns that order it. Positions and versions are left out: the log
/// may have let go of records that once moved or made them.
pub(super) const ORDERED: [(&str, &str); 17] = [
    ("answers", "topic, partition"),
    ("offers", "job"),
    ("jobs", "job"),
    ("history", "shard, offset"),
    ("decisions", "shard, offset"),
    ("runs", "run_id"),
    ("attempts", "run_id, token"),
    ("output", "run_id, token, sequence"),
    ("dead_letters", "run_id"),
    ("runners", "runner"),
    ("owners", "service, shard, incarnation"),
    ("calendars", "name"),
    ("job_calendars", "job, calendar"),
    ("limits", "name"),
    ("job_limits", "job, name"),
    ("breakers", "name, offset"),
    ("quarantine", "partition, offset"),
];
