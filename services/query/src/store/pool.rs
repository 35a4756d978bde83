//! Read-only connections for HTTP, a few, kept open. Not here: what is asked (`views`). Invariant: while the file
//! is being built there is nothing to read, and a connection to a file that was replaced is never used again.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

/// Most reads at a time; more would only wait for the two or so cores.
const CONNECTIONS_MAX: usize = 4;
/// Statements kept prepared by each.
const STATEMENTS_MAX: usize = 64;

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    /// The projection is being built.
    #[error("the projection is being built from the log")]
    NotReady,
    /// SQLite failed.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

#[derive(Default)]
struct State {
    file: Option<PathBuf>,
    /// Counts the files; connections of an older one are dropped.
    generation: u64,
    idle: Vec<(u64, Connection)>,
}

/// The pool.
pub(crate) struct Pool {
    state: Mutex<State>,
    permits: Semaphore,
}

impl Pool {
    /// A pool of nothing yet.
    pub(crate) fn new() -> Self {
        Self { state: Mutex::default(), permits: Semaphore::new(CONNECTIONS_MAX) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads from `file` from here on; `None`: from nothing.
    pub(crate) fn switch_to(&self, file: Option<PathBuf>) {
        let mut state = self.state();
        state.file = file;
        state.generation += 1;
        state.idle.clear();
    }

    /// Waits for a turn; hold what it gives while [`Pool::read`] runs.
    pub(crate) async fn turn(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.permits.acquire().await.ok()
    }

    /// Reads on the calling thread, within one transaction.
    pub(crate) fn read<T>(&self, ask: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, ReadError> {
        let (generation, connection) = self.connection()?;
        // One snapshot for all statements of one answer.
        connection.execute_batch("BEGIN")?;
        let answer = ask(&connection);
        let ended = connection.execute_batch("COMMIT");
        let mut state = self.state();
        if ended.is_ok() && state.generation == generation && state.idle.len() < CONNECTIONS_MAX {
            state.idle.push((generation, connection));
        }
        Ok(answer?)
    }

    fn connection(&self) -> Result<(u64, Connection), ReadError> {
        let (file, generation) = {
            let mut state = self.state();
            if let Some(idle) = state.idle.pop() {
                return Ok(idle);
            }
            (state.file.clone().ok_or(ReadError::NotReady)?, state.generation)
        };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(file, flags)?;
        connection.busy_timeout(Duration::from_secs(2))?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
        connection.execute_batch("PRAGMA cache_size = -2000; PRAGMA query_only = 1")?;
        Ok((generation, connection))
    }
}
