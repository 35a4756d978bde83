//! The store: one SQLite file, one writer, positions in the same commit as the rows. Not here: folds
//! (`projections`), reading for people (`views`). Invariant: a file that is not exactly of this version, or not
//! sound, is never read; it is built anew from the log beside the old name and then takes that name.

mod digest;
mod pool;
mod retention;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::collections::BTreeMap;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orloj_runtime::log::TopicPartition;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use crate::projections::Change;

pub(crate) use digest::digest;
pub(crate) use pool::{Pool, ReadError};
pub(crate) use retention::RUNS_KEPT;

/// Name of the file in the data directory.
pub(crate) const FILE: &str = "query.sqlite";
/// Name of the file while it is built.
const FILE_BUILDING: &str = "query.sqlite.building";
/// Statements kept prepared; there are fewer.
const STATEMENTS_MAX: usize = 64;

/// A failure of the file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    /// The disk is full, or the file is busy or can't be reached: the same commit may be tried again.
    #[error("the projection can't be written: {0}")]
    Retriable(rusqlite::Error),
    /// The file is damaged or not ours: build it anew.
    #[error("the projection is damaged: {0}")]
    Damaged(rusqlite::Error),
    /// The directory can't be used; a person must act.
    #[error("the directory `{path}` can't be used: {error}")]
    Directory { path: String, error: std::io::Error },
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DiskFull
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly
                | ErrorCode::OutOfMemory
                | ErrorCode::OperationInterrupted
                | ErrorCode::FileLockingProtocolFailed,
            ) => Self::Retriable(error),
            _ => Self::Damaged(error),
        }
    }
}

/// The writer's side of the file.
pub(crate) struct Store {
    connection: Connection,
    directory: PathBuf,
    is_building: bool,
}

impl Store {
    /// Opens the file of `directory`, or one to be built if there is none that can be used.
    pub(crate) fn open(directory: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(directory).map_err(|error| unusable(directory, error))?;
        let file = directory.join(FILE);
        if file.exists() {
            match open_sound(&file) {
                Ok(connection) => return Ok(Self { connection, directory: directory.to_owned(), is_building: false }),
                Err(reason) => {
                    tracing::warn!(file = %file.display(), %reason, "the projection is rebuilt from the log")
                }
            }
        }
        Self::build(directory)
    }

    /// A file to be built; goes on with one that an earlier life has begun.
    fn build(directory: &Path) -> Result<Self, StoreError> {
        let file = directory.join(FILE_BUILDING);
        let connection = match open_sound(&file) {
            Ok(connection) => connection,
            Err(_) => {
                remove(&file)?;
                create(&file)?
            }
        };
        Ok(Self { connection, directory: directory.to_owned(), is_building: true })
    }

    /// Removes the file, so that the next open builds it anew.
    pub(crate) fn discard(directory: &Path) -> Result<(), StoreError> {
        remove(&directory.join(FILE))?;
        remove(&directory.join(FILE_BUILDING))
    }

    /// True until [`Store::finish`].
    pub(crate) fn is_building(&self) -> bool {
        self.is_building
    }

    /// The file that readers open once it is no longer being built.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// First offset of each partition that is not folded in.
    pub(crate) fn positions(&self) -> Result<BTreeMap<TopicPartition, i64>, StoreError> {
        self.marks("positions")
    }

    /// For each partition of questions, the first offset that has no answer.
    pub(crate) fn answers(&self) -> Result<BTreeMap<TopicPartition, i64>, StoreError> {
        self.marks("answers")
    }

    fn marks(&self, table: &str) -> Result<BTreeMap<TopicPartition, i64>, StoreError> {
        let mut statement = self.connection.prepare(&format!("SELECT topic, partition, next FROM {table}"))?;
        let rows = statement
            .query_map([], |row| Ok((TopicPartition::new(row.get::<_, String>(0)?, row.get(1)?), row.get(2)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Writes rows and positions, all or nothing.
    pub(crate) fn commit(
        &mut self,
        changes: &[Change],
        positions: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for change in changes {
            write::apply(&transaction, change)?;
        }
        for (at, next) in positions {
            transaction
                .prepare_cached("INSERT OR REPLACE INTO positions (topic, partition, next) VALUES (?1, ?2, ?3)")?
                .execute((at.topic.as_str(), at.partition, next))?;
        }
        Ok(transaction.commit()?)
    }

    /// Ends a rebuild: makes the indexes and gives the file its name.
    pub(crate) fn finish(self) -> Result<Self, StoreError> {
        if !self.is_building {
            return Ok(self);
        }
        self.connection.execute_batch(schema::INDEXES)?;
        // Without its journal the file can be renamed alone.
        self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        self.connection.close().map_err(|(_, error)| error)?;
        let (building, file) = (self.directory.join(FILE_BUILDING), self.directory.join(FILE));
        remove(&file)?;
        std::fs::rename(&building, &file).map_err(|error| unusable(&self.directory, error))?;
        let connection = open_writer(&file)?;
        Ok(Self { connection, directory: self.directory, is_building: false })
    }

    /// Deletes a slice of what is older than is kept; true if there may be more.
    pub(crate) fn forget(&mut self, now: orloj_domain::time::Timestamp) -> Result<bool, StoreError> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let is_more = retention::forget(&transaction, now)?;
        transaction.commit()?;
        Ok(is_more)
    }
}

fn unusable(directory: &Path, error: std::io::Error) -> StoreError {
    StoreError::Directory { path: directory.display().to_string(), error }
}

/// Removes a file with its journals; one that does not exist is no error.
fn remove(file: &Path) -> Result<(), StoreError> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unusable(file, error)),
        }
    }
    Ok(())
}

fn open_writer(file: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(file)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    // NORMAL is enough: positions are in the same commit, so what a crash takes the log gives again.
    connection.execute_batch(
        "PRAGMA page_size = 8192; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;
         PRAGMA cache_size = -8000; PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = 67108864;",
    )?;
    Ok(connection)
}

fn create(file: &Path) -> Result<Connection, StoreError> {
    // Output and environments are for the owner's eyes; SQLite gives its journals the same rights.
    let options = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    options.map_err(|error| unusable(file, error))?;
    let connection = open_writer(file)?;
    let (id, version) = (schema::APPLICATION_ID, schema::VERSION);
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {} PRAGMA application_id = {id}; PRAGMA user_version = {version}; COMMIT;",
        schema::TABLES
    ))?;
    Ok(connection)
}

/// Opens a file that exists, is ours, of this version and sound; else says why not.
fn open_sound(file: &Path) -> Result<Connection, String> {
    if !file.exists() {
        return Err("there is none".to_owned());
    }
    let number = |connection: &Connection, pragma: &str| {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get::<_, i32>(0))
    };
    let check = || -> Result<Result<Connection, String>, rusqlite::Error> {
        // Looked at before anything is written to it: it may be somebody else's.
        let found =
            Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        if number(&found, "application_id")? != schema::APPLICATION_ID {
            return Ok(Err("it is not a projection".to_owned()));
        }
        let version = number(&found, "user_version")?;
        if version != schema::VERSION {
            return Ok(Err(format!("it is of version {version}, this program's is {}", schema::VERSION)));
        }
        let verdict: String = found.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Ok(Err(format!("it is damaged: {verdict}")));
        }
        drop(found);
        Ok(Ok(open_writer(file)?))
    };
    check().unwrap_or_else(|error| Err(error.to_string()))
}
