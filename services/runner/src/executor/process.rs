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
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::cgroup::{Group, Groups};
use super::limits::Limits;
use super::pipes::Pipes;
use super::plan::{Directory, Plan};
use super::spawner::{Spawned, Spawner};
use super::tree::{Tree, reap_leader};
use crate::launch::{Launcher, Launching};
use crate::removal::remove_tree;

/// How the processes of an attempt are held together, as Started reports it: by nothing that they can't leave, or in a control
/// group.
const IN_SESSION: &str = "session";
const IN_GROUP: &str = "cgroup";
/// Between TERM and KILL.
pub(crate) const GRACE: Duration = Duration::from_secs(5);
/// After the leader ended: how long others may go on writing before they are ended too.
const LINGER: Duration = Duration::from_secs(1);
/// How long the rest of a pipe is waited for when only a stranger can still hold it.
const LAST_READ: Duration = Duration::from_millis(250);

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
    /// Takes how far the attempt says it is, 0 to 100.
    fn progress(&mut self, percent: i32);
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
    /// The user of attempts, by number.
    pub(crate) user: u32,
}

impl Host {
    /// Starts the thread that makes processes. `adopts_orphans` makes this process the reaper of what
    /// attempts leave behind; only for a process that has no other children in sessions of their own. With a `launcher`
    /// attempts run as its user.
    pub(crate) fn start(adopts_orphans: bool, groups: Option<Groups>, launcher: Option<Launcher>) -> io::Result<Self> {
        let has_adopted = adopts_orphans && super::tree::adopt_orphans();
        let own = nix::unistd::geteuid().as_raw();
        let user = launcher.as_ref().map_or(own, |launcher| launcher.account.uid);
        Ok(Self { spawner: Spawner::start(groups, launcher)?, has_adopted, user })
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
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
    on_started: impl FnOnce(&'static str),
    sink: &mut impl Sink,
) -> Outcome {
    let directory = plan.directory.clone();
    let (mark, stdin, limits) = (plan.mark.clone(), plan.stdin.clone(), plan.limits.clone());
    let outcome = match host.spawner.spawn(plan).await {
        Err(problem) => Outcome::new(OutcomeKind::NotStarted, problem),
        Ok(mut spawned) => {
            let leader = spawned.leader;
            let group = spawned.group.take();
            let isolation = if group.is_some() { IN_GROUP } else { IN_SESSION };
            let is_bounded = group.as_ref().is_some_and(Group::bounds_processes);
            let tree = Tree::new(leader, mark, group, host.has_adopted);
            let mut abort = pin!(abort);
            let outcome = match begin(spawned.launching.take(), &mut abort).await {
                Err(outcome) => {
                    tree.end(Duration::ZERO).await;
                    outcome
                }
                Ok(()) => {
                    on_started(isolation);
                    let bounding = limits.as_ref().filter(|_| !is_bounded);
                    if let Some(remark) = bounding.and_then(|limits| limits.remark(host.user)) {
                        sink.note(&remark);
                    }
                    match Running::new(spawned, stdin, limits) {
                        Ok(running) => running.watch(&tree, timeout, abort, sink).await,
                        Err(error) => {
                            tree.end(Duration::ZERO).await;
                            let message = format!("the runner can't watch the process: {error}");
                            Outcome::new(OutcomeKind::NotStarted, message)
                        }
                    }
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

/// Has a process become the program, if it is not yet.
async fn begin(launching: Option<Launching>, abort: &mut (impl Future<Output = Abort> + Unpin)) -> Result<(), Outcome> {
    let Some(launching) = launching else { return Ok(()) };
    tokio::select! {
        biased;
        abort = abort => Err(Outcome::new(abort.kind, format!("not started: {}", abort.reason))),
        begun = launching.begin() => begun.map_err(|problem| Outcome::new(OutcomeKind::NotStarted, problem)),
    }
}

/// Removes an attempt's own directory with all that is in it.
async fn remove(path: std::path::PathBuf) {
    // Usually nothing is in it, and that needs no thread.
    if std::fs::remove_dir(&path).is_ok() || !path.exists() {
        return;
    }
    let removed = tokio::task::spawn_blocking(move || (remove_tree(&path), path)).await;
    if let Ok((Err(error), path)) = removed {
        tracing::warn!(path = %path.display(), %error, "an attempt's own directory was not removed");
    }
}

/// A process that was spawned, and its pipes.
struct Running {
    leader: Pid,
    pidfd: AsyncFd<OwnedFd>,
    pipes: Pipes,
    /// What its manifest limits.
    limits: Option<Limits>,
    stdin: tokio::task::JoinHandle<()>,
}

impl Running {
    fn new(spawned: Spawned, stdin: Vec<u8>, limits: Option<Limits>) -> io::Result<Self> {
        let input = pipe::Sender::from_owned_fd(spawned.stdin)?;
        Ok(Self {
            leader: spawned.leader,
            pidfd: watched(spawned.pidfd)?,
            pipes: Pipes::new(spawned.stdout, spawned.stderr, spawned.progress)?,
            limits,
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
        let stop = self.pipes.pump(sink, first).await;
        let (outcome, left) = match stop {
            Stop::Ended(end) => (self.outcome_of(end), self.end_leftovers(tree, sink, &mut abort).await),
            Stop::TimedOut => {
                let left = self.pipes.pump(sink, tree.end(GRACE)).await;
                let text = format!("stopped: it ran longer than its timeout of {timeout:?}");
                (self.stopped(OutcomeKind::TimedOut, text), left)
            }
            Stop::Aborted(abort) => {
                let left = self.pipes.pump(sink, tree.end(abort.grace)).await;
                (self.stopped(abort.kind, abort.reason), left)
            }
        };
        self.stdin.abort();
        self.pipes.read_rest(sink, LAST_READ).await;
        self.pipes.end_progress(sink);
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
            () = self.pipes.read_rest(sink, LINGER) => {}
            _ = abort => {}
        }
        let members = tree.look().await;
        if members.is_empty() {
            return 0;
        }
        let count = members.len();
        sink.note(&format!("[orloj] {count} processes outlived the attempt's own and were ended"));
        self.pipes.pump(sink, tree.end(GRACE)).await
    }

    /// How it ended, and which of its limits may be why.
    fn outcome_of(&self, end: End) -> Outcome {
        let mut outcome = outcome_of(end);
        if let Some(reached) = self.limits.as_ref().and_then(|limits| limits.reached(end)) {
            outcome.message = Some(format!("{}: {reached}", outcome.message.unwrap_or_default()));
        }
        outcome
    }

    fn stopped(&self, kind: OutcomeKind, reason: String) -> Outcome {
        let ended = end_of(self.leader).map(outcome_of);
        let mut outcome = Outcome::new(kind, reason);
        if let Some(ended) = ended {
            (outcome.exit_code, outcome.signal) = (ended.exit_code, ended.signal);
        }
        outcome
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
