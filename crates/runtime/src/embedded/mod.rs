//! The embedded back end of `trait Log`: one process, one directory, or memory only. The broker's logic is here
//! and in the files beside; records are kept by one of two stores. Not here: a network, replication.
//! Invariant: in memory, driven from one thread with a manual clock, the same calls give the same answers.

mod broker;
mod claimer;
mod claims;
mod core;
mod cursors;
mod lock;
mod maintain;
mod owner;
mod owners;
mod plain;
mod signal;
mod store;
#[cfg(test)]
mod tests;
mod write;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::time::Timestamp;

use self::broker::Broker;
use self::claimer::EmbeddedClaimer;
use self::core::{Committer, Core, Threads, Underway};
use self::lock::DirectoryLock;
pub use self::maintain::Upkeep;
use self::owner::EmbeddedOwner;
use self::plain::{EmbeddedAppender, EmbeddedBatchWriter, EmbeddedReader};
use self::store::Store;
use self::store::memory::MemoryStore;
use self::store::sqlite::SqliteStore;
use self::write::{Body, Guard, Reply, Write};
use crate::clock::Clock;
use crate::host;
use crate::log::{
    AppendError, Appender, BatchWriter, Claimer, ClaimerSpec, Isolation, Log, LogError, NewRecord, Owner, OwnerSpec,
    Reader, TopicPartition, TopicSpec,
};

/// Limits and times of an embedded log.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// A member that made no call for this long, by the monotonic clock, loses its share.
    pub session: Duration,
    /// Largest record, in bytes of key, value and headers, inclusive.
    pub record_bytes_max: usize,
    /// Largest size of the log file; without it only the disk is the limit. Not for memory.
    pub file_bytes_max: Option<u64>,
    /// Pause between two rounds of retention and compaction in the background. Not for memory.
    pub upkeep_pause: Duration,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            session: Duration::from_secs(6),
            record_bytes_max: 1024 * 1024,
            file_bytes_max: None,
            upkeep_pause: Duration::from_secs(30),
        }
    }
}

/// A log inside this process. Clones share it; it closes when the last of them, and of what they gave, is dropped.
#[derive(Clone)]
pub struct EmbeddedLog {
    inner: Arc<Inner>,
}

struct Inner {
    core: Arc<Core>,
    committer: Committer,
    /// Declared last, so that the submitter above is gone when the writer thread is waited for.
    _threads: Option<Threads>,
}

impl EmbeddedLog {
    /// Opens the log in `dir`, creating it if there is none.
    ///
    /// # Errors
    /// [`LogError::Busy`] if another process has it open, [`LogError::Misconfigured`] if the directory or the
    /// file cannot be used.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        Self::open_with(dir, clock, EmbeddedOptions::default())
    }

    /// Opens the log in `dir` with other limits and times.
    ///
    /// # Errors
    /// As [`EmbeddedLog::open`].
    pub fn open_with(dir: &Path, clock: Arc<dyn Clock>, options: EmbeddedOptions) -> Result<Self, LogError> {
        let failed = |error: std::io::Error| {
            LogError::Misconfigured(format!("the directory `{}` cannot be used: {error}", dir.display()))
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let lock = DirectoryLock::take(dir)?;
        let file = dir.join("log.sqlite");
        let unusable = |error: store::StoreError| {
            LogError::Misconfigured(format!("the log `{}` cannot be opened: {error}", file.display()))
        };
        let store = SqliteStore::open(&file, options.file_bytes_max).map_err(unusable)?;
        let broker = Broker::load(store.load().map_err(unusable)?);
        let life = uuid::Uuid::new_v4().simple().to_string();
        let names = (life, host::process());
        let core = Arc::new(Core::new(Box::new(store), broker, clock, options, names));
        let threads = Threads::start(&core, lock, dir).map_err(failed)?;
        let committer = threads.submitter().map_or(Committer::Inline, Committer::Thread);
        Ok(Self { inner: Arc::new(Inner { core, committer, _threads: Some(threads) }) })
    }

    /// A log in memory; it ends with its last clone.
    #[must_use]
    pub fn in_memory(clock: Arc<dyn Clock>) -> Self {
        Self::in_memory_with(clock, EmbeddedOptions::default())
    }

    /// A log in memory with other limits and times.
    #[must_use]
    pub fn in_memory_with(clock: Arc<dyn Clock>, options: EmbeddedOptions) -> Self {
        let broker = Broker::new();
        let names = (String::new(), "memory".to_owned());
        let core = Arc::new(Core::new(Box::new(MemoryStore::default()), broker, clock, options, names));
        Self { inner: Arc::new(Inner { core, committer: Committer::Inline, _threads: None }) }
    }

    /// Does all retention and compaction that is due at `now`, in slices that let appends through. A log on
    /// disk does so by itself from time to time.
    ///
    /// # Errors
    /// [`LogError::Unavailable`] when the store fails; what was done until then stays done.
    pub fn maintain(&self, now: Timestamp) -> Result<Upkeep, LogError> {
        maintain::maintain(&self.inner.core, &|write| self.write(write), now, maintain::Thoroughness::All, &|| false)
    }

    pub(crate) fn core(&self) -> &Core {
        &self.inner.core
    }

    pub(crate) fn write(&self, write: Write) -> Reply {
        self.inner.committer.write(&self.inner.core, write)
    }

    pub(crate) fn append(&self, guard: Guard, records: Vec<NewRecord>) -> Reply {
        self.finish_append(self.start_append(guard, records))
    }

    /// Hands an append over to the writer thread.
    pub(crate) fn start_append(&self, guard: Guard, records: Vec<NewRecord>) -> Underway {
        match self.core().check_sizes(&records) {
            Ok(()) => self.inner.committer.start(Write { guard, body: Body::Append { records } }),
            Err(error) => Underway::Done(Err(error)),
        }
    }

    /// Waits until an append is durable or refused.
    pub(crate) fn finish_append(&self, underway: Underway) -> Reply {
        underway.wait(self.core())
    }
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EmbeddedLog")
    }
}

impl Log for EmbeddedLog {
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        Ok(self.core().broker().topics.values().map(|topic| topic.spec.clone()).collect())
    }

    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        if spec.name.is_empty() || spec.partitions < 1 {
            return Err(LogError::Misconfigured(format!("a topic needs a name and 1 partition or more: {spec:?}")));
        }
        maintain::Policy::of(spec)?;
        let body = Body::CreateTopic(spec.clone());
        self.write(Write { guard: Guard::None, body }).map_err(|error| LogError::Unavailable(error.to_string()))?;
        Ok(())
    }

    fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<i64, LogError> {
        Ok(self.core().broker().partition(at)?.end(isolation))
    }

    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<i64, LogError> {
        let (key, first, end) = {
            let broker = self.core().broker();
            let partition = broker.partition(at)?;
            (broker.key(at)?, partition.marks.first, partition.end(Isolation::Uncommitted))
        };
        let found = self.core().store.reader()?.offset_at(key, time)?;
        Ok(found.map_or(end, |offset| offset.clamp(first, end)))
    }

    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError> {
        Ok(Box::new(EmbeddedReader::new(self, isolation)?))
    }

    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        Ok(Box::new(EmbeddedAppender::new(self)))
    }

    fn batch_writer(&self, id: &str) -> Result<Box<dyn BatchWriter>, LogError> {
        Ok(Box::new(EmbeddedBatchWriter::open(self, id)?))
    }

    fn own(&self, spec: OwnerSpec) -> Result<Box<dyn Owner>, LogError> {
        Ok(Box::new(EmbeddedOwner::join(self, spec)?))
    }

    fn claim(&self, spec: ClaimerSpec) -> Result<Box<dyn Claimer>, LogError> {
        Ok(Box::new(EmbeddedClaimer::join(self, spec)?))
    }
}

/// Turns the failure of an append that is a step of something else into a failure of that.
fn step_failed(error: &AppendError) -> LogError {
    LogError::Unavailable(error.to_string())
}
