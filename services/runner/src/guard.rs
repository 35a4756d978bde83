//! A process beside the runner that ends its attempts when it can't: killed, or frozen beyond its lease. Not here: what a lease
//! is (`board`), how an attempt ends while its runner lives (`executor`). Invariant: no process of an attempt outlives
//! the lease it runs under, as long as either of the two processes runs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::executor::environment::SESSION_VARIABLE;
use crate::executor::tree;

/// Sessions remembered after the one in force: those before have been ended by the runner.
const SESSIONS_MAX: usize = 4;
/// Pause between two looks at processes that do not end at once.
const AGAIN: Duration = Duration::from_millis(50);
/// Most looks at one session in a row, and how long it rests then: a process that the kernel holds must not keep the guard from
/// others.
const LOOKS_MAX: usize = 40;
const RETRY: Duration = Duration::from_secs(1);

/// The runner's end: starts the process and tells it how long sessions hold.
#[derive(Debug)]
pub(crate) struct Guard {
    program: Option<Vec<PathBuf>>,
    child: Mutex<Option<Child>>,
}

impl Guard {
    /// `program` with its arguments is a process that calls [`guard`]; without one nobody watches over this runner.
    pub(crate) fn new(program: Option<Vec<PathBuf>>) -> Self {
        Self { program, child: Mutex::new(None) }
    }

    /// Says that attempts of `session` may run for so long from `asked_at` on, which is [`now`] from before it was known
    /// how long: time that passes in between shortens it.
    pub(crate) fn tell(&self, session: &str, asked_at: Duration, live_for: Duration) {
        let Some(program) = &self.program else { return };
        let until = asked_at + live_for;
        let line = format!("{session} {}\n", until.as_nanos());
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let is_told = child.as_mut().and_then(|child| child.stdin.as_mut()).is_some_and(|pipe| write(pipe, &line));
        if is_told {
            return;
        }
        // The first time, or somebody has killed it.
        match start(program) {
            Ok(mut started) => {
                if let Some(pipe) = started.stdin.as_mut() {
                    write(pipe, &line);
                }
                if let Some(mut gone) = child.replace(started) {
                    let _ = gone.wait();
                }
            }
            Err(error) => tracing::warn!(%error, "nobody watches over this runner: its guard can't be started"),
        }
    }
}

impl Drop for Guard {
    /// It ends with its pipe; whatever it finds then it kills.
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(mut child) = child.take() {
            drop(child.stdin.take());
            let _ = child.wait();
        }
    }
}

fn write(pipe: &mut impl Write, line: &str) -> bool {
    pipe.write_all(line.as_bytes()).and_then(|()| pipe.flush()).is_ok()
}

fn start(program: &[PathBuf]) -> std::io::Result<Child> {
    let Some((first, rest)) = program.split_first() else { return Err(std::io::ErrorKind::NotFound.into()) };
    // In a group of its own: what a terminal sends to the runner's is not meant for it.
    Command::new(first).args(rest).stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0).spawn()
}

/// Time that all processes of this machine share and nobody can set.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// The other end, for a process of its own: reads from standard input how long sessions hold, and kills every process of a
/// session that no longer does, or of all once the runner is gone. Returns when there is nothing left to watch.
pub fn guard() {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(std::io::stdin()).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut sessions: BTreeMap<String, Duration> = BTreeMap::new();
    loop {
        let next = sessions.values().min().copied();
        let received = match next {
            Some(until) => lines.recv_timeout(until.saturating_sub(now())),
            None => lines.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(line) => take(&mut sessions, &line),
            Err(RecvTimeoutError::Timeout) => {
                // This process may have slept while the news came in: whatever waits in the pipe is read before.
                while let Ok(line) = lines.recv_timeout(AGAIN) {
                    take(&mut sessions, &line);
                }
                let now = now();
                let is_over = |(_, until): &(&String, &Duration)| **until <= now;
                let over: Vec<String> = sessions.iter().filter(is_over).map(|(name, _)| name.clone()).collect();
                sessions.retain(|name, _| !over.contains(name));
                // Those that do not end are tried again, beside whatever else is to be watched.
                let left = end(&over).into_iter().map(|session| (session, now + RETRY));
                sessions.extend(left);
            }
            Err(RecvTimeoutError::Disconnected) => {
                give_up(&end(&sessions.into_keys().collect::<Vec<_>>()));
                return;
            }
        }
    }
}

fn take(sessions: &mut BTreeMap<String, Duration>, line: &str) {
    let Some((session, until)) = line.split_once(' ') else { return };
    let Ok(nanos) = until.trim().parse() else { return };
    sessions.insert(session.to_owned(), Duration::from_nanos(nanos));
    while sessions.len() > SESSIONS_MAX {
        let oldest = sessions.iter().min_by_key(|(_, until)| **until).map(|(name, _)| name.clone());
        let Some(oldest) = oldest else { return };
        sessions.remove(&oldest);
        give_up(&end(&[oldest]));
    }
}

/// Says of which sessions something is left that can't be killed: all that the kernel lets anybody do.
fn give_up(left: &[String]) {
    for session in left {
        // Whoever reads this has the runner's standard error; nobody may be left.
        let _ = writeln!(std::io::stderr(), "orloj guard: processes of session {session} do not end when killed");
    }
}

/// Kills until nobody of these sessions is left, for a while; answers those of which somebody is. A process that forks while it is
/// looked for is found by the next look.
pub(crate) fn end(sessions: &[String]) -> Vec<String> {
    let is_left = |session: &&String| {
        let mark = format!("{SESSION_VARIABLE}={session}");
        (0..LOOKS_MAX).all(|_| {
            let is_left = tree::kill_marked(mark.as_bytes()) > 0;
            if is_left {
                std::thread::park_timeout(AGAIN);
            }
            is_left
        })
    };
    sessions.iter().filter(is_left).cloned().collect()
}
