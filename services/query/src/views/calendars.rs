//! Calendars: one by name, lists, who names them, and all of them ready to be asked. Not here: which fire times they
//! leave out (`orloj_domain::calendar`). Invariant: a set holds each calendar with the position that it stands at.

use orloj_domain::calendar::{self, CalendarSet};
use orloj_domain::id::CalendarName;
use orloj_domain::topic;
use rusqlite::{Connection, OptionalExtension, Result, Row};
use serde_json::{Value, json};

use super::{Items, instant, sql_count, stored_json};

/// Most of those who name a calendar that are listed.
const USERS_MAX: i64 = 100;

const COLUMNS: &str = "name, offset, at, actor, manifest";

/// A calendar's document, and the offset that it stands at.
pub(crate) fn calendar(connection: &Connection, name: &CalendarName) -> Result<Option<(Value, i64)>> {
    let sql = format!("SELECT {COLUMNS} FROM calendars WHERE name = ?1");
    let found = connection.prepare_cached(&sql)?.query_row([name.as_str()], |row| Ok((document(row)?, row.get(1)?)));
    let Some((mut document, offset)) = found.optional()? else { return Ok(None) };
    let (jobs, calendars) = (jobs_with(connection, name)?, calendars_with(connection, name)?);
    document["status"]["jobs"] = json!(jobs);
    document["status"]["calendars"] = json!(calendars);
    Ok(Some((document, offset)))
}

/// Calendars after `after` in order of their names.
pub(crate) fn calendars(connection: &Connection, after: Option<&str>, limit: usize) -> Result<Items> {
    let sql = format!("SELECT {COLUMNS} FROM calendars WHERE name > ?1 ORDER BY name LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let row = |row: &Row<'_>| Ok((row.get(0)?, document(row)?));
    statement.query_map((after.unwrap_or_default(), sql_count(limit)), row)?.collect()
}

/// The offset that a calendar stands at.
pub(crate) fn calendar_offset(connection: &Connection, name: &CalendarName) -> Result<Option<i64>> {
    let sql = "SELECT offset FROM calendars WHERE name = ?1";
    connection.prepare_cached(sql)?.query_row([name.as_str()], |row| row.get(0)).optional()
}

/// Jobs in force that name a calendar, the first hundred.
pub(crate) fn jobs_with(connection: &Connection, name: &CalendarName) -> Result<Vec<String>> {
    let sql = "SELECT job FROM job_calendars WHERE calendar = ?1 ORDER BY job LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map((name.as_str(), USERS_MAX), |row| row.get(0))?.collect()
}

/// Other calendars that include a calendar by name.
pub(crate) fn calendars_with(connection: &Connection, name: &CalendarName) -> Result<Vec<String>> {
    let sql = "SELECT name FROM calendars WHERE name <> ?1 AND EXISTS
        (SELECT 1 FROM json_each(manifest, '$.spec.include') WHERE value = ?1) ORDER BY name LIMIT ?2";
    let mut statement = connection.prepare_cached(sql)?;
    statement.query_map((name.as_str(), USERS_MAX), |row| row.get(0))?.collect()
}

/// Tells sets apart: how many calendars there are, and the newest of their offsets.
pub(super) fn state_of_set(connection: &Connection) -> Result<(i64, i64)> {
    let sql = "SELECT count(*), coalesce(max(offset), -1) FROM calendars";
    connection.prepare_cached(sql)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// All calendars.
pub(super) fn set(connection: &Connection) -> Result<CalendarSet> {
    let mut set = CalendarSet::default();
    let mut statement = connection.prepare_cached("SELECT manifest, offset FROM calendars")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        // Only what could be read was folded in; a zone that an update has removed since leaves its calendar out.
        if let Ok((_, calendar)) = calendar::parse_json(row.get_ref(0)?.as_str()?) {
            set.put(calendar, row.get(1)?);
        }
    }
    Ok(set)
}

/// The position of an offset in `settings`.
pub(crate) fn setting_position(offset: i64) -> String {
    format!("{}/0@{offset}", topic::SETTINGS)
}

fn document(row: &Row<'_>) -> Result<Value> {
    let name: String = row.get(0)?;
    let manifest = stored_json(row.get_ref(4)?.as_str_or_null()?);
    let entries =
        |field: &str| manifest.pointer(&format!("/spec/{field}")).and_then(Value::as_array).map_or(0, Vec::len);
    let days = ["dates", "ranges", "weekdays", "yearly"].map(entries).iter().sum::<usize>();
    let mut document = manifest.clone();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("calendar".to_owned(), json!(name));
        fields.insert("manifest".to_owned(), manifest.clone());
        let status = json!({
            "position": setting_position(row.get(1)?),
            "updatedAt": instant(row.get(2)?),
            "actor": row.get::<_, Option<String>>(3)?,
            "entries": days,
        });
        fields.insert("status".to_owned(), status);
    }
    Ok(document)
}
