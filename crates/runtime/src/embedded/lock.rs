//! One process per directory: an advisory lock of the operating system on `log.lock`, which vanishes with its
//! holder however that dies. Not here: the log file. Invariant: whoever holds it is the only writer.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use crate::log::LogError;

/// A holder that was killed while it started a process lives on in that process until its `exec`: such a lock
/// goes away within milliseconds, so it is asked for this often before it counts as held.
const TRIES_MAX: u32 = 20;
const TRY_PAUSE: Duration = Duration::from_millis(50);

/// The lock, held for as long as this lives.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock of `directory`, or says who has it.
    pub(crate) fn take(directory: &Path) -> Result<Self, LogError> {
        let path = directory.join("log.lock");
        let failed =
            |error: std::io::Error| LogError::Misconfigured(format!("`{}` cannot be opened: {error}", path.display()));
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let mut tries = 0;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if tries < TRIES_MAX => {
                    tries += 1;
                    std::thread::park_timeout(TRY_PAUSE);
                }
                Err(TryLockError::WouldBlock) => return Err(busy(directory, &mut file)),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        // Who has it is told for people only; on a full disk the lock holds without it.
        let told = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id()));
        if let Err(error) = told {
            tracing::debug!(%error, path = %path.display(), "the process id was not written");
        }
        Ok(Self { _file: file })
    }
}

fn busy(directory: &Path, file: &mut File) -> LogError {
    let mut holder = String::new();
    let is_told = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
    let holder = if is_told { format!(" (pid {holder})") } else { String::new() };
    LogError::Busy(format!(
        "`{}` is in use by another orloj process{holder}: stop it or choose another --data directory",
        directory.display()
    ))
}
