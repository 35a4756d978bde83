//! Jobs: one by name, and lists with filters. Not here: their history and runs. Invariant: state and next fire
//! time are computed from the definition and now, so they are right however long ago the job last changed.

use std::sync::Arc;

use orloj_domain::calendar::{CalendarSet, Exclusion};
use orloj_domain::id::JobId;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use rusqlite::{Connection, OptionalExtension, Result, Row, params_from_iter};
use serde_json::{Value, json};

use super::{Definition, Definitions, instant, optional_instant, stored_json};

/// What a job does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JobState {
    /// It fires, or may be triggered.
    Active,
    /// Somebody paused it.
    Paused,
    /// Its definition says `suspend`.
    Suspended,
    /// Its schedule names no further fire time.
    Finished,
    /// It was removed.
    Deleted,
}

impl JobState {
    pub(crate) const ALL: [Self; 5] = [Self::Active, Self::Paused, Self::Suspended, Self::Finished, Self::Deleted];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Suspended => "suspended",
            Self::Finished => "finished",
            Self::Deleted => "deleted",
        }
    }
}

/// A job's row with what is looked up beside it.
pub(crate) struct JobView {
    pub(crate) job: String,
    pub(crate) shard: i32,
    pub(crate) version: i64,
    pub(crate) definition: Option<Arc<Definition>>,
    /// Present if the definition names calendars.
    calendars: Option<Arc<CalendarSet>>,
    labels: String,
    pause: Option<String>,
    backfill: Option<String>,
    definition_offset: i64,
    cursor: i64,
    fires: i64,
    last_fire: Option<i64>,
    last_run: Option<(String, String)>,
}

/// Which jobs are listed.
#[derive(Debug, Clone, Default)]
pub(crate) struct JobFilter {
    pub(crate) namespace: Option<String>,
    /// Label and value; with no value, any.
    pub(crate) labels: Vec<(String, Option<String>)>,
    pub(crate) state: Option<JobState>,
    /// Part of the job's name.
    pub(crate) part: Option<String>,
    pub(crate) queue: Option<String>,
}

const COLUMNS: &str = "job, shard, version, definition, labels, pause, definition_offset, cursor, fires, backfill";
/// Rows looked at for one page, at most, when a filter has to be computed.
const LOOKED_AT_MAX: usize = 20_000;

/// One job; deleted ones too.
pub(crate) fn find(connection: &Connection, definitions: &Definitions, job: &JobId) -> Result<Option<JobView>> {
    let sql = format!("SELECT {COLUMNS} FROM jobs WHERE job = ?1");
    let found = connection
        .prepare_cached(&sql)?
        .query_row([job.as_str()], |row| view(connection, row, definitions))
        .optional()?;
    found.map(|view| with_last(connection, view)).transpose()
}

/// True if the job is in force, or was offered and has no answer yet.
pub(crate) fn exists(connection: &Connection, job: &JobId) -> Result<bool> {
    let in_force = "SELECT definition IS NOT NULL, definition_offset FROM jobs WHERE job = ?1";
    let in_force: Option<(bool, i64)> = connection
        .prepare_cached(in_force)?
        .query_row([job.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let offered = "SELECT is_delete, offset FROM offers WHERE job = ?1";
    let offered: Option<(bool, i64)> = connection
        .prepare_cached(offered)?
        .query_row([job.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(match (in_force, offered) {
        (Some((is_there, of_state)), Some((is_delete, offset))) if offset > of_state => is_there || !is_delete,
        (Some((is_there, _)), _) => is_there,
        (None, Some((is_delete, _))) => !is_delete,
        (None, None) => false,
    })
}

/// Jobs after `after` in order of their names, `limit` at most; and the last one looked at, if the search was cut
/// short there.
pub(crate) fn list(
    connection: &Connection,
    definitions: &Definitions,
    filter: &JobFilter,
    after: Option<&str>,
    limit: usize,
    now: Timestamp,
) -> Result<(Vec<JobView>, Option<String>)> {
    let mut sql = format!("SELECT {COLUMNS} FROM jobs WHERE job > ?");
    let mut values = vec![after.unwrap_or_default().to_owned()];
    if let Some(namespace) = &filter.namespace {
        // `0` is the character after `/`: all of a namespace lies between the two.
        sql.push_str(" AND job > ? AND job < ?");
        values.extend([format!("{namespace}/"), format!("{namespace}0")]);
    }
    for (label, value) in &filter.labels {
        sql.push_str(" AND EXISTS (SELECT 1 FROM json_each(labels) WHERE key = ?");
        values.push(label.clone());
        if let Some(value) = value {
            sql.push_str(" AND value = ?");
            values.push(value.clone());
        }
        sql.push(')');
    }
    if let Some(part) = &filter.part {
        sql.push_str(" AND instr(job, ?) > 0");
        values.push(part.clone());
    }
    if let Some(queue) = &filter.queue {
        sql.push_str(" AND queue = ?");
        values.push(queue.clone());
    }
    let is_deleted = if filter.state == Some(JobState::Deleted) { "" } else { "NOT" };
    sql.push_str(&format!(" AND definition IS {is_deleted} NULL ORDER BY job LIMIT {LOOKED_AT_MAX}"));
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    let (mut found, mut looked_at, mut last) = (Vec::new(), 0, None);
    while let Some(row) = rows.next()? {
        let view = view(connection, row, definitions)?;
        looked_at += 1;
        last = (looked_at == LOOKED_AT_MAX).then(|| view.job.clone());
        if filter.state.is_none_or(|state| view.state(now) == state) {
            found.push(with_last(connection, view)?);
        }
        if found.len() == limit {
            return Ok((found, None));
        }
    }
    Ok((found, last))
}

fn view(connection: &Connection, row: &Row<'_>, definitions: &Definitions) -> Result<JobView> {
    let (job, version, definition_offset): (String, i64, i64) = (row.get(0)?, row.get(2)?, row.get(6)?);
    let encoded: Option<&[u8]> = row.get_ref(3)?.as_blob_or_null()?;
    let definition = encoded.and_then(|encoded| definitions.of(&job, version, definition_offset, encoded));
    let has_calendars = definition.as_ref().is_some_and(|kept| kept.calendars.is_some());
    Ok(JobView {
        calendars: has_calendars.then(|| definitions.calendars(connection)).transpose()?,
        job,
        shard: row.get(1)?,
        version,
        definition,
        labels: row.get(4)?,
        pause: row.get(5)?,
        definition_offset,
        cursor: row.get(7)?,
        fires: row.get(8)?,
        backfill: row.get(9)?,
        last_fire: None,
        last_run: None,
    })
}

fn with_last(connection: &Connection, mut view: JobView) -> Result<JobView> {
    let last_fire =
        "SELECT fire_time FROM decisions WHERE job = ?1 AND decision = 'requested' ORDER BY offset DESC LIMIT 1";
    view.last_fire = connection.prepare_cached(last_fire)?.query_row([&view.job], |row| row.get(0)).optional()?;
    let last_run = "SELECT run_id, state FROM runs WHERE job = ?1 ORDER BY requested_at DESC, run_id DESC LIMIT 1";
    let last_run = connection.prepare_cached(last_run)?.query_row([&view.job], |row| Ok((row.get(0)?, row.get(1)?)));
    view.last_run = last_run.optional()?;
    Ok(view)
}

impl JobView {
    /// What the job does at `now`.
    pub(crate) fn state(&self, now: Timestamp) -> JobState {
        let Some(definition) = &self.definition else { return JobState::Deleted };
        if self.pause.is_some() {
            JobState::Paused
        } else if definition.definition.suspend {
            JobState::Suspended
        } else if !definition.rules.is_empty() && self.next_after(now).is_none() {
            JobState::Finished
        } else {
            JobState::Active
        }
    }

    /// The first fire time after `after`, paused or not; nominal, without jitter.
    pub(crate) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        if self.fires_left() == 0 { None } else { self.definition.as_ref()?.next_after(after) }
    }

    /// The same, of those that the calendars let through as they are.
    pub(crate) fn next_let_through(&self, after: Timestamp) -> Option<Timestamp> {
        let Some(set) = &self.calendars else { return self.next_after(after) };
        if self.fires_left() == 0 { None } else { self.definition.as_ref()?.next_let_through(set, after) }
    }

    /// Why the calendars leave a fire time out, as they are.
    pub(crate) fn exclusion(&self, at: Timestamp) -> Option<Exclusion> {
        let kept = self.definition.as_ref()?;
        kept.calendars.as_ref()?.exclusion(self.calendars.as_ref()?, &kept.rules, None, at)
    }

    /// Fire times that `maxFires` still allows.
    pub(crate) fn fires_left(&self) -> usize {
        let max = self.definition.as_ref().and_then(|kept| kept.definition.max_fires);
        max.map_or(usize::MAX, |max| usize::try_from(max - self.fires).unwrap_or(0))
    }

    /// The version as an entity tag.
    pub(crate) fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }

    /// The job's document: the manifest, and `status` beside it.
    pub(crate) fn document(&self, now: Timestamp) -> Value {
        let state = self.state(now);
        let next = match state {
            JobState::Active => self.next_let_through(now),
            JobState::Paused | JobState::Suspended | JobState::Finished | JobState::Deleted => None,
        };
        let next = next.map_or(Value::Null, |next| instant(next.millis()));
        let (pause, backfill) = (stored_json(self.pause.as_deref()), stored_json(self.backfill.as_deref()));
        let last_run = self.last_run.as_ref().map(|(id, state)| json!({"id": id, "state": state}));
        let manifest = self.definition.as_ref().map_or_else(|| self.deleted_manifest(), |kept| kept.manifest.clone());
        let mut document = manifest.clone();
        if let Some(fields) = document.as_object_mut() {
            let status = json!({
                "version": self.version,
                "position": format!("{}/{}@{}", topic::JOBS, self.shard, self.definition_offset),
                "shard": self.shard,
                "state": state.as_str(),
                "pause": pause,
                "backfill": backfill,
                "nextFire": next,
                "lastFire": optional_instant(self.last_fire),
                "lastRun": last_run,
                "decidedUntil": instant(self.cursor),
            });
            fields.insert("status".to_owned(), status);
            // The same in short, as the command line shows it.
            let summary = json!({
                "job": self.job,
                "state": state.as_str(),
                "version": self.version,
                "queue": self.definition.as_ref().map(|kept| kept.definition.spec.queue.as_str()),
                "nextFireTime": next,
                "pause": pause,
                "backfill": backfill,
                "manifest": manifest,
            });
            fields.extend(summary.as_object().cloned().unwrap_or_default());
        }
        document
    }

    fn deleted_manifest(&self) -> Value {
        let (namespace, name) = self.job.split_once('/').unwrap_or(("", &self.job));
        json!({
            "apiVersion": orloj_domain::manifest::API_VERSION,
            "kind": orloj_domain::manifest::KIND,
            "metadata": {"namespace": namespace, "name": name, "labels": stored_json(Some(&self.labels))},
        })
    }
}
