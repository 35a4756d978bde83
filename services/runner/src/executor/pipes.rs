//! The pipes of one process: its output, and what it says about its progress. Not here: when a process has
//! ended. Invariant: whatever it writes is read while it is watched, so that a full pipe never holds it for
//! ever, and nobody waits for the end of the progress alone.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use orloj_domain::runner::OutputStream;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::process::Sink;
use super::progress::{PROGRESS_FD, Scanner};

const READ_BYTES: usize = 16 * 1024;
/// Most reads of what is left on the progress pipe at the end: more than a pipe holds.
const PROGRESS_READS_MAX: usize = 16;

struct Stream {
    /// Absent after its end.
    pipe: Option<pipe::Receiver>,
    buffer: Vec<u8>,
}

impl Stream {
    fn new(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { pipe: Some(pipe::Receiver::from_owned_fd(fd)?), buffer: vec![0; READ_BYTES] })
    }

    /// Waits for bytes; 0 is the end. Never returns after the end. Loses nothing when dropped half-way.
    async fn read(&mut self) -> usize {
        let Some(pipe) = &mut self.pipe else {
            return std::future::pending().await;
        };
        // A pipe that can't be read gives nothing more, which is what its end means.
        let count = pipe.read(&mut self.buffer).await.unwrap_or(0);
        if count == 0 {
            self.pipe = None;
        }
        count
    }

    /// What is there now; 0 if that is nothing.
    fn read_now(&mut self) -> usize {
        self.pipe.as_mut().and_then(|pipe| pipe.try_read(&mut self.buffer).ok()).unwrap_or(0)
    }
}

/// Our ends of the pipes of one process.
pub(super) struct Pipes {
    stdout: Stream,
    stderr: Stream,
    progress: Stream,
    in_output: Scanner,
    on_descriptor: Scanner,
}

impl Pipes {
    /// Takes our ends over.
    pub(super) fn new(stdout: OwnedFd, stderr: OwnedFd, progress: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            stdout: Stream::new(stdout)?,
            stderr: Stream::new(stderr)?,
            progress: Stream::new(progress)?,
            in_output: Scanner::of_output(),
            on_descriptor: Scanner::of_descriptor(),
        })
    }

    /// Passes output on until `until` is done.
    pub(super) async fn pump<T>(&mut self, sink: &mut impl Sink, until: impl Future<Output = T>) -> T {
        let mut until = pin!(until);
        loop {
            tokio::select! {
                biased;
                done = &mut until => return done,
                () = self.pump_once(sink) => {}
            }
        }
    }

    /// Reads until both pipes of the output ended, or `patience` is over.
    pub(super) async fn read_rest(&mut self, sink: &mut impl Sink, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.stdout.pipe.is_some() || self.stderr.pipe.is_some() {
            if tokio::time::timeout_at(deadline, self.pump_once(sink)).await.is_err() {
                return;
            }
        }
    }

    /// Takes what was said about progress and not read yet; whoever still holds that pipe is not waited for.
    pub(super) fn end_progress(&mut self, sink: &mut impl Sink) {
        for _ in 0..PROGRESS_READS_MAX {
            let count = self.progress.read_now();
            if count == 0 {
                break;
            }
            self.take_progress(count, sink);
        }
        for scanner in [&mut self.in_output, &mut self.on_descriptor] {
            if let Some(percent) = scanner.finish() {
                sink.progress(percent);
            }
        }
        if let Some(line) = self.on_descriptor.strange() {
            let line = line.escape_debug();
            sink.note(&format!("[orloj] no progress on descriptor {PROGRESS_FD}: `{line}`; write `42 some text`"));
        }
    }

    /// Waits for the next piece of output, or for the moment to hand a batch on.
    async fn pump_once(&mut self, sink: &mut impl Sink) {
        let due = sink.flush_at();
        let flush = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = flush => sink.flush(),
            // Before the output, which may come without a pause.
            count = self.progress.read() => self.take_progress(count, sink),
            count = self.stdout.read() => self.take_output(count, sink),
            count = self.stderr.read() => if count > 0 { sink.push(OutputStream::Stderr, &self.stderr.buffer[..count]) },
        }
    }

    fn take_output(&mut self, count: usize, sink: &mut impl Sink) {
        if count == 0 {
            return;
        }
        let bytes = &self.stdout.buffer[..count];
        sink.push(OutputStream::Stdout, bytes);
        if let Some(percent) = self.in_output.push(bytes) {
            sink.progress(percent);
        }
    }

    fn take_progress(&mut self, count: usize, sink: &mut impl Sink) {
        if let Some(percent) = self.on_descriptor.push(&self.progress.buffer[..count]) {
            sink.progress(percent);
        }
    }
}
