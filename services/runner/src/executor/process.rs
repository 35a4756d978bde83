//! One process from spawn to the last byte of its output, and the end of everything it left behind. Not here:
//! what is done with output and outcome. Invariant: when [`execute`] returns, no process of the attempt is
//! left, or the outcome's message and an error in the log say that the kernel holds one.

use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::runner::OutputStream;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::plan::{Directory, Plan};
use super::spawner::{Spawned, Spawner};
use super::tree::{Tree, reap_leader};

/// Between TERM and KILL.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// After the leader ended: how long others may go on writing before they are ended too.
const LINGER: Duration = Duration::from_secs(1);
/// How long the rest of a pipe is waited for when only a stranger can still hold it.
const LAST_READ: Duration = Duration::from_millis(250);
const READ_BYTES: usize = 16 * 1024;

/// What takes the output as it comes.
pub(crate) trait Sink {
    /// Takes what was read.
    fn push(&mut self, stream: OutputStream, bytes: &[u8]);
    /// Takes a remark of the runner's own.
    fn note(&mut self, text: &str);
    /// When [`Sink::flush`] is wanted next.
    fn flush_at(&self) -> Option<Instant>;
    /// Hands on what waits.
    fn flush(&mut self);
}

/// Why an attempt is stopped from outside.
#[derive(Debug, Clone)]
pub(crate) struct Abort {
    /// For the outcome.
    pub(crate) kind: OutcomeKind,
    /// For people.
    pub(crate) reason: String,
    /// Between TERM and KILL.
    pub(crate) grace: Duration,
}

/// What executions share.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// Makes processes.
    pub(crate) spawner: Spawner,
    /// Orphans become ours.
    pub(crate) has_adopted: bool,
}

impl Host {
    /// Starts the thread that makes processes. `adopts_orphans` makes this process the reaper of what
    /// attempts leave behind; only for a process that has no other children in sessions of their own.
    pub(crate) fn start(adopts_orphans: bool) -> io::Result<Self> {
        let has_adopted = adopts_orphans && super::tree::adopt_orphans();
        Ok(Self { spawner: Spawner::start()?, has_adopted })
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
enum End {
    Exited(i32),
    Signalled(Signal),
    /// Somebody else in this process asked the kernel first.
    NotKnown,
}

enum Stop {
    Ended(End),
    TimedOut,
    Aborted(Abort),
}

/// Runs a plan to its end. `on_started` is called once the process exists; `abort` stops it.
pub(crate) async fn execute(
    host: &Host,
    plan: Plan,
    timeout: Duration,
    abort: impl Future<Output = Abort>,
    on_started: impl FnOnce(),
    sink: &mut impl Sink,
) -> Outcome {
    let directory = plan.directory.clone();
    let (mark, stdin) = (plan.mark.clone(), plan.stdin.clone());
    let outcome = match host.spawner.spawn(plan).await {
        Err(problem) => Outcome::new(OutcomeKind::NotStarted, problem),
        Ok(spawned) => {
            on_started();
            let leader = spawned.leader;
            let tree = Tree::new(leader, mark, host.has_adopted);
            let outcome = match Running::new(spawned, stdin) {
                Ok(running) => running.watch(&tree, timeout, abort, sink).await,
                Err(error) => {
                    tree.end(Duration::ZERO).await;
                    Outcome::new(OutcomeKind::NotStarted, format!("the runner can't watch the process: {error}"))
                }
            };
            reap_leader(leader);
            outcome
        }
    };
    if let Directory::Private(path) = directory {
        remove(path).await;
    }
    outcome
}

/// Removes an attempt's own directory with all that is in it.
async fn remove(path: std::path::PathBuf) {
    // Usually nothing is in it, and that needs no thread.
    if std::fs::remove_dir(&path).is_ok() || !path.exists() {
        return;
    }
    let removed = tokio::task::spawn_blocking(move || (std::fs::remove_dir_all(&path), path)).await;
    if let Ok((Err(error), path)) = removed {
        tracing::warn!(path = %path.display(), %error, "an attempt's own directory was not removed");
    }
}

/// A process that was spawned, and its pipes.
struct Running {
    leader: Pid,
    pidfd: AsyncFd<OwnedFd>,
    stdout: Stream,
    stderr: Stream,
    stdin: tokio::task::JoinHandle<()>,
}

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
}

impl Running {
    fn new(spawned: Spawned, stdin: Vec<u8>) -> io::Result<Self> {
        let input = pipe::Sender::from_owned_fd(spawned.stdin)?;
        Ok(Self {
            leader: spawned.leader,
            pidfd: watched(spawned.pidfd)?,
            stdout: Stream::new(spawned.stdout)?,
            stderr: Stream::new(spawned.stderr)?,
            stdin: write_all(input, stdin),
        })
    }

    async fn watch(
        mut self,
        tree: &Tree,
        timeout: Duration,
        abort: impl Future<Output = Abort>,
        sink: &mut impl Sink,
    ) -> Outcome {
        let mut abort = pin!(abort);
        let ended = exit_of(self.leader, &self.pidfd);
        let first = async {
            tokio::select! {
                biased;
                end = ended => Stop::Ended(end),
                reason = &mut abort => Stop::Aborted(reason),
                () = tokio::time::sleep(timeout) => Stop::TimedOut,
            }
        };
        let stop = pump(&mut self.stdout, &mut self.stderr, sink, first).await;
        let (outcome, left) = match stop {
            Stop::Ended(end) => (outcome_of(end), self.end_leftovers(tree, sink, &mut abort).await),
            Stop::TimedOut => {
                let left = self.pump(sink, tree.end(GRACE)).await;
                let text = format!("stopped: it ran longer than its timeout of {timeout:?}");
                (self.stopped(OutcomeKind::TimedOut, text), left)
            }
            Stop::Aborted(abort) => {
                let left = self.pump(sink, tree.end(abort.grace)).await;
                (self.stopped(abort.kind, abort.reason), left)
            }
        };
        self.stdin.abort();
        self.read_rest(sink, LAST_READ).await;
        if left > 0 {
            tracing::error!(leader = self.leader.as_raw(), left, "processes of an attempt could not be killed");
            sink.note(&format!("[orloj] {left} processes could not be killed"));
        }
        outcome
    }

    /// The leader has ended by itself: takes the rest of the output and ends who is still there.
    async fn end_leftovers(&mut self, tree: &Tree, sink: &mut impl Sink, abort: impl Future<Output = Abort>) -> usize {
        if tree.is_surely_gone() || tree.look().await.is_empty() {
            return 0;
        }
        // `cmd | tee log &` and the like: whoever still holds the output may finish writing.
        tokio::select! {
            () = self.read_rest(sink, LINGER) => {}
            _ = abort => {}
        }
        let members = tree.look().await;
        if members.is_empty() {
            return 0;
        }
        let count = members.len();
        sink.note(&format!("[orloj] {count} processes outlived the attempt's own and were ended"));
        self.pump(sink, tree.end(GRACE)).await
    }

    fn stopped(&self, kind: OutcomeKind, reason: String) -> Outcome {
        let ended = end_of(self.leader).map(outcome_of);
        let mut outcome = Outcome::new(kind, reason);
        if let Some(ended) = ended {
            (outcome.exit_code, outcome.signal) = (ended.exit_code, ended.signal);
        }
        outcome
    }

    async fn pump<T>(&mut self, sink: &mut impl Sink, until: impl Future<Output = T>) -> T {
        pump(&mut self.stdout, &mut self.stderr, sink, until).await
    }

    /// Reads until both pipes ended, or `patience` is over.
    async fn read_rest(&mut self, sink: &mut impl Sink, patience: Duration) {
        let deadline = Instant::now() + patience;
        while self.stdout.pipe.is_some() || self.stderr.pipe.is_some() {
            let next = pump_once(&mut self.stdout, &mut self.stderr, sink);
            if tokio::time::timeout_at(deadline, next).await.is_err() {
                return;
            }
        }
    }
}

/// Passes output on until `until` is done.
async fn pump<T>(out: &mut Stream, err: &mut Stream, sink: &mut impl Sink, until: impl Future<Output = T>) -> T {
    let mut until = pin!(until);
    loop {
        tokio::select! {
            biased;
            done = &mut until => return done,
            () = pump_once(out, err, sink) => {}
        }
    }
}

/// Waits for the next piece of output, or for the moment to hand a batch on.
async fn pump_once(out: &mut Stream, err: &mut Stream, sink: &mut impl Sink) {
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
        count = out.read() => if count > 0 { sink.push(OutputStream::Stdout, &out.buffer[..count]) },
        count = err.read() => if count > 0 { sink.push(OutputStream::Stderr, &err.buffer[..count]) },
    }
}

#[allow(
    deprecated,
    reason = "what replaces it is unsafe, for types that may change or close their descriptor; an OwnedFd can't"
)]
fn watched(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, tokio::io::Interest::READABLE)
}

fn write_all(mut pipe: pipe::Sender, bytes: Vec<u8>) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        // A program that does not read its input is no error.
        let _ = pipe.write_all(&bytes).await;
    })
}

async fn exit_of(leader: Pid, pidfd: &AsyncFd<OwnedFd>) -> End {
    loop {
        match pidfd.readable().await {
            Ok(mut guard) => match end_of(leader) {
                Some(end) => return end,
                None => guard.clear_ready(),
            },
            // Only when the executor goes down: then everything is dropped next.
            Err(_) => return std::future::pending().await,
        }
    }
}

/// How a leader ended, left with the kernel so that its number stays taken.
fn end_of(leader: Pid) -> Option<End> {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(leader), flags) {
        Ok(WaitStatus::Exited(_, code)) => Some(End::Exited(code)),
        Ok(WaitStatus::Signaled(_, signal, _)) => Some(End::Signalled(signal)),
        Ok(_) => None,
        Err(_) => Some(End::NotKnown),
    }
}

fn outcome_of(end: End) -> Outcome {
    match end {
        End::Exited(0) => Outcome { exit_code: Some(0), ..Outcome::new(OutcomeKind::Succeeded, "") },
        End::Exited(code) => {
            Outcome { exit_code: Some(code), ..Outcome::new(OutcomeKind::Failed, format!("exit code {code}")) }
        }
        End::Signalled(signal) => {
            let message = format!("ended by signal {} ({signal})", signal as i32);
            Outcome { signal: Some(signal as i32), ..Outcome::new(OutcomeKind::Failed, message) }
        }
        End::NotKnown => Outcome::new(OutcomeKind::Failed, "how it ended is not known"),
    }
}
