//! The store in one SQLite file in WAL mode: one connection writes, each reader has a read-only one of its own.
//! Not here: threads, group commit (`core`). Invariant: `synchronous=FULL`, so a commit is on the disk before
//! it is acknowledged; what a full disk interrupted is rolled back whole.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use orloj_domain::time::Timestamp;
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Row, Transaction, TransactionBehavior, ffi, params,
};

use super::{
    BatchId, Change, Loaded, LoadedPartition, Marks, Outline, PartitionKey, Range, Slice, Store, StoreError,
    StoreReader, StoredRecord, headers,
};
use crate::log::TopicSpec;

/// Version of the tables; another one is refused rather than guessed at.
const LAYOUT: i32 = 1;
const PAGE_BYTES: u32 = 8192;
/// Pages in the write-ahead log at which a commit copies them into the file.
const CHECKPOINT_PAGES: u32 = 2000;

const TABLES: &str = "
CREATE TABLE topics (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
    replication INTEGER NOT NULL, settings TEXT NOT NULL);
CREATE TABLE records (topic INTEGER NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
    at INTEGER NOT NULL, batch INTEGER NOT NULL, key BLOB, value BLOB, headers BLOB,
    PRIMARY KEY (topic, partition, offset)) WITHOUT ROWID;
CREATE INDEX records_of_batches ON records (batch) WHERE batch <> 0;
CREATE TABLE batches (id INTEGER PRIMARY KEY);
CREATE TABLE marks (topic INTEGER NOT NULL, partition INTEGER NOT NULL, first INTEGER NOT NULL,
    end INTEGER NOT NULL, cleaned INTEGER NOT NULL, PRIMARY KEY (topic, partition)) WITHOUT ROWID;
CREATE TABLE positions (consumers TEXT NOT NULL, topic INTEGER NOT NULL, partition INTEGER NOT NULL,
    offset INTEGER NOT NULL, PRIMARY KEY (consumers, topic, partition)) WITHOUT ROWID;
";

/// Records in a file.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    path: PathBuf,
    writer: Mutex<Connection>,
}

impl SqliteStore {
    /// Opens the file, or makes it.
    pub(crate) fn open(path: &Path, file_bytes_max: Option<u64>) -> Result<Self, StoreError> {
        // Definitions and output are nobody else's business; SQLite gives its other files the mode of this one.
        let made = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        made.map_err(|error| StoreError::Failed(error.to_string()))?;
        let connection = Connection::open(path).map_err(|error| refused(path, &error))?;
        Self::prepare(&connection, file_bytes_max).map_err(|error| refused(path, &error))?;
        let layout: i32 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(|error| refused(path, &error))?;
        match layout {
            0 => connection
                .execute_batch(&format!("BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {LAYOUT}; COMMIT;"))
                .map_err(|error| refused(path, &error))?,
            LAYOUT => {}
            other => {
                return Err(StoreError::Failed(format!(
                    "its tables have layout {other}, this version of orloj knows only {LAYOUT}"
                )));
            }
        }
        Ok(Self { path: path.to_owned(), writer: Mutex::new(connection) })
    }

    fn prepare(connection: &Connection, file_bytes_max: Option<u64>) -> rusqlite::Result<()> {
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        connection.pragma_update(None, "cache_size", -8 * 1024)?;
        connection.busy_timeout(std::time::Duration::from_secs(5))?;
        if let Some(bytes) = file_bytes_max {
            let pages = i64::try_from(bytes.div_ceil(u64::from(PAGE_BYTES))).unwrap_or(i64::MAX);
            connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))?;
        }
        Ok(())
    }

    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failure(&self, error: &rusqlite::Error, is_committing: bool) -> StoreError {
        refused_while(&self.path, error, is_committing)
    }
}

impl Store for SqliteStore {
    fn load(&self) -> Result<Loaded, StoreError> {
        load(&self.writer()).map_err(|error| self.failure(&error, false))
    }

    fn commit(&self, mut changes: Vec<Change>) -> Result<(), StoreError> {
        // Neighbours in the file one after the other; changes of other kinds do not touch the records put here.
        changes.sort_by_key(|change| match change {
            Change::Put(key, record) => Some((*key, record.offset)),
            Change::CreateTopic { .. }
            | Change::OpenBatch(_)
            | Change::CloseBatch(_)
            | Change::SetPosition(..)
            | Change::Remove(..)
            | Change::RemoveBelow(..)
            | Change::Mark(..) => None,
        });
        let mut writer = self.writer();
        let transaction = writer
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| self.failure(&error, false))?;
        for change in &changes {
            apply(&transaction, change).map_err(|error| self.failure(&error, false))?;
        }
        transaction.commit().map_err(|error| self.failure(&error, true))
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        let open = || {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            connection.pragma_update(None, "cache_size", -1024)?;
            Ok(connection)
        };
        let connection = open().map_err(|error| self.failure(&error, false))?;
        Ok(Box::new(SqliteReader { path: self.path.clone(), connection }))
    }
}

struct SqliteReader {
    path: PathBuf,
    connection: Connection,
}

impl SqliteReader {
    /// Reads rows until the range is used up or `take` says that this one was the last.
    fn slice<T>(
        &self,
        columns: &str,
        range: Range,
        mut take: impl FnMut(&Row<'_>) -> rusqlite::Result<(i64, T, bool)>,
    ) -> rusqlite::Result<Slice<T>> {
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT {columns} FROM records
             WHERE topic = ?1 AND partition = ?2 AND offset >= ?3 AND offset < ?4 ORDER BY offset LIMIT ?5"
        ))?;
        let limit = i64::try_from(range.records_max).unwrap_or(i64::MAX);
        let bounds = params![range.key.topic, range.key.partition, range.from, range.until, limit];
        let mut found = statement.query(bounds)?;
        let mut rows = Vec::new();
        while let Some(row) = found.next()? {
            let (offset, row, is_last) = take(row)?;
            rows.push(row);
            if is_last || rows.len() >= range.records_max {
                return Ok(Slice { rows, next: offset + 1 });
            }
        }
        Ok(Slice { rows, next: range.until })
    }
}

impl StoreReader for SqliteReader {
    fn read(&mut self, range: Range) -> Result<Slice<StoredRecord>, StoreError> {
        let mut bytes = 0;
        let rows = self.slice("offset, at, batch, key, value, headers", range, |row| {
            let record = StoredRecord {
                offset: row.get(0)?,
                at: Timestamp::from_millis(row.get(1)?),
                batch: row.get(2)?,
                key: row.get(3)?,
                value: row.get(4)?,
                headers: headers::decode(row.get_ref(5)?.as_blob_or_null().unwrap_or_default()).ok_or_else(damaged)?,
            };
            bytes += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
            Ok((record.offset, record, bytes >= range.bytes_max))
        });
        rows.map_err(|error| refused(&self.path, &error))
    }

    fn outline(&mut self, range: Range) -> Result<Slice<Outline>, StoreError> {
        let rows = self.slice("offset, at, batch, key, value IS NULL", range, |row| {
            let outline = Outline {
                offset: row.get(0)?,
                at: Timestamp::from_millis(row.get(1)?),
                batch: row.get(2)?,
                key: row.get(3)?,
                is_tombstone: row.get(4)?,
            };
            Ok((outline.offset, outline, false))
        });
        rows.map_err(|error| refused(&self.path, &error))
    }

    fn offset_at(&mut self, key: PartitionKey, time: Timestamp) -> Result<Option<i64>, StoreError> {
        let find = || {
            let mut statement = self.connection.prepare_cached(
                "SELECT offset FROM records WHERE topic = ?1 AND partition = ?2 AND at >= ?3 ORDER BY offset LIMIT 1",
            )?;
            statement.query_row(params![key.topic, key.partition, time.millis()], |row| row.get(0)).optional()
        };
        find().map_err(|error| refused(&self.path, &error))
    }

    fn has_records_of(&mut self, batch: BatchId) -> Result<bool, StoreError> {
        let sql = "SELECT EXISTS (SELECT 1 FROM records WHERE batch <> 0 AND batch = ?1)";
        let found = self.connection.query_row(sql, [batch], |row| row.get(0));
        found.map_err(|error| refused(&self.path, &error))
    }
}

fn apply(transaction: &Transaction<'_>, change: &Change) -> rusqlite::Result<()> {
    match change {
        Change::CreateTopic { id, spec } => {
            let settings = serde_json::to_string(&spec.settings).map_err(|error| other(error.into()))?;
            transaction.execute(
                "INSERT INTO topics VALUES (?1, ?2, ?3, ?4, ?5)",
                params![id, spec.name, spec.partitions, spec.replication, settings],
            )?;
        }
        Change::Put(key, record) => {
            let StoredRecord { offset, at, batch, key: name, value, headers } = record;
            let mut insert =
                transaction.prepare_cached("INSERT INTO records VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
            insert.execute(params![
                key.topic,
                key.partition,
                offset,
                at.millis(),
                batch,
                name,
                value,
                headers::encode(headers)
            ])?;
        }
        Change::OpenBatch(batch) => {
            transaction.execute("INSERT INTO batches VALUES (?1)", [batch])?;
        }
        Change::CloseBatch(batch) => {
            transaction.execute("DELETE FROM batches WHERE id = ?1", [batch])?;
        }
        Change::SetPosition(group, key, offset) => {
            let mut set = transaction.prepare_cached("INSERT OR REPLACE INTO positions VALUES (?1, ?2, ?3, ?4)")?;
            set.execute(params![group, key.topic, key.partition, offset])?;
        }
        Change::Remove(key, offsets) => {
            let mut delete = transaction
                .prepare_cached("DELETE FROM records WHERE topic = ?1 AND partition = ?2 AND offset = ?3")?;
            for offset in offsets {
                delete.execute(params![key.topic, key.partition, offset])?;
            }
        }
        Change::RemoveBelow(key, first) => {
            transaction.execute(
                "DELETE FROM records WHERE topic = ?1 AND partition = ?2 AND offset < ?3",
                params![key.topic, key.partition, first],
            )?;
        }
        Change::Mark(key, Marks { first, end, cleaned }) => {
            transaction.execute(
                "INSERT OR REPLACE INTO marks VALUES (?1, ?2, ?3, ?4, ?5)",
                params![key.topic, key.partition, first, end, cleaned],
            )?;
        }
    }
    Ok(())
}

fn load(connection: &Connection) -> rusqlite::Result<Loaded> {
    let mut loaded = Loaded::default();
    let mut topics = connection.prepare("SELECT id, name, partitions, replication, settings FROM topics")?;
    let mut rows = topics.query([])?;
    while let Some(row) = rows.next()? {
        let settings = serde_json::from_str(&row.get::<_, String>(4)?).map_err(|error| other(error.into()))?;
        let spec = TopicSpec { name: row.get(1)?, partitions: row.get(2)?, replication: row.get(3)?, settings };
        loaded.topics.push((row.get(0)?, spec));
    }
    let mut marks = connection.prepare("SELECT first, end, cleaned FROM marks WHERE topic = ?1 AND partition = ?2")?;
    let mut last = connection
        .prepare("SELECT offset FROM records WHERE topic = ?1 AND partition = ?2 ORDER BY offset DESC LIMIT 1")?;
    for (topic, spec) in &loaded.topics {
        for partition in 0..spec.partitions {
            let found = marks.query_row(params![topic, partition], |row| {
                Ok(Marks { first: row.get(0)?, end: row.get(1)?, cleaned: row.get(2)? })
            });
            let mut marks = found.optional()?.unwrap_or(Marks { first: 0, end: 0, cleaned: 0 });
            let last: Option<i64> = last.query_row(params![topic, partition], |row| row.get(0)).optional()?;
            marks.end = marks.end.max(last.map_or(0, |offset| offset + 1));
            loaded.partitions.push(LoadedPartition { key: PartitionKey { topic: *topic, partition }, marks });
        }
    }
    let mut batches = connection.prepare("SELECT id FROM batches")?;
    loaded.aborted = batches.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let newest = "SELECT max(coalesce((SELECT max(id) FROM batches), 0),
                            coalesce((SELECT max(batch) FROM records WHERE batch <> 0), 0)) + 1";
    loaded.next_batch = connection.query_row(newest, [], |row| row.get(0))?;
    let mut positions = connection.prepare("SELECT consumers, topic, partition, offset FROM positions")?;
    loaded.positions = positions
        .query_map([], |row| {
            Ok((row.get(0)?, PartitionKey { topic: row.get(1)?, partition: row.get(2)? }, row.get(3)?))
        })?
        .collect::<Result<_, _>>()?;
    Ok(loaded)
}

fn other(error: Box<dyn std::error::Error + Send + Sync>) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(error)
}

fn damaged() -> rusqlite::Error {
    other("the headers of a record are damaged".into())
}

fn refused(path: &Path, error: &rusqlite::Error) -> StoreError {
    refused_while(path, error, false)
}

/// Sorts SQLite's failures. Before the commit is written every failure is rolled back whole; if the disk failed
/// while the commit was made durable, nobody can tell.
fn refused_while(path: &Path, error: &rusqlite::Error, is_committing: bool) -> StoreError {
    let path = path.display();
    let rusqlite::Error::SqliteFailure(code, _) = error else {
        return StoreError::Failed(format!("`{path}`: {error}"));
    };
    let is_io = code.code == ErrorCode::SystemIoFailure;
    if is_committing && is_io && code.extended_code != ffi::SQLITE_IOERR_WRITE {
        return StoreError::Unknown(format!("`{path}`: {error}"));
    }
    if code.code == ErrorCode::DiskFull || is_io {
        return StoreError::Full(format!(
            "there is no space for `{path}` ({error}): free space on its disk or raise the limit of its size. \
             Nothing acknowledged is lost, and appends work again as soon as there is space"
        ));
    }
    StoreError::Failed(format!("`{path}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_synchronous() {
        let directory = tempfile::tempdir().expect("a directory");
        let store = SqliteStore::open(&directory.path().join("log.sqlite"), None).expect("opened");
        let ask = |name: &str| -> String {
            let value =
                store.writer().query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, rusqlite::types::Value>(0));
            format!("{:?}", value.expect("a value"))
        };
        assert_eq!(ask("journal_mode"), "Text(\"wal\")");
        assert_eq!(ask("synchronous"), "Integer(2)", "FULL");
        assert_eq!(ask("page_size"), format!("Integer({PAGE_BYTES})"));
    }

    #[test]
    fn another_layout_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("log.sqlite");
        drop(SqliteStore::open(&path, None).expect("opened"));
        Connection::open(&path).expect("opened").pragma_update(None, "user_version", 7).expect("set");
        let error = SqliteStore::open(&path, None).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains("layout 7"), "{error}");
    }
}
