//! What processes of an attempt may use at most, as the kernel keeps it (`setrlimit`). Not here: when it is
//! applied (`spawner`, before the program begins). Invariant: no limit is ever above what the runner itself may
//! use, and every process that the attempt starts inherits all of them.

use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use orloj_domain::job::ProcessLimits;
use rustix::process::{Resource, Rlimit, Uid, getrlimit, getuid, prlimit};

use super::process::End;

/// Processor seconds between SIGXCPU, which a program may catch to clean up, and SIGKILL.
const CPU_GRACE_SECONDS: u64 = 5;
/// A shell exits with this and the signal's number where a signal ended what it waited for.
const SHELL_SIGNAL_BASE: i32 = 128;

/// The limits of one attempt, and where they stand in its manifest.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    /// For messages, for example `spec.run.exec.limits`.
    pub(crate) path: String,
    /// What was asked.
    pub(crate) asked: ProcessLimits,
}

impl Limits {
    /// Puts the limits on a process of this runner's user.
    ///
    /// # Errors
    /// Which one the kernel did not take, as a sentence.
    pub(super) fn apply(&self, leader: Pid) -> Result<(), String> {
        let asked = [
            ("memory", Resource::As, self.asked.memory_bytes, 0),
            ("cpuSeconds", Resource::Cpu, self.asked.cpu_seconds, CPU_GRACE_SECONDS),
            ("openFiles", Resource::Nofile, self.asked.open_files, 0),
            ("processes", Resource::Nproc, self.asked.processes.map(beyond_others), 0),
        ];
        let leader = rustix::process::Pid::from_raw(leader.as_raw());
        for (name, resource, value, grace) in asked {
            let Some(soft) = value.and_then(|value| u64::try_from(value).ok()) else { continue };
            prlimit(leader, resource, within(getrlimit(resource), soft, soft.saturating_add(grace)))
                .map_err(|errno| format!("{}.{name}: this machine does not take the limit ({errno})", self.path))?;
        }
        Ok(())
    }

    /// What the reader of the output must know about limits that do not hold here.
    pub(super) fn remark(&self) -> Option<String> {
        (self.asked.processes.is_some() && getuid().is_root()).then(|| {
            format!("[orloj] {}.processes does not bind processes of root; start the runner as another user, or give it cgroup v2 with the controller `pids`", self.path)
        })
    }

    /// Which limit has ended a process that ended so; certain only where the kernel says it.
    pub(super) fn reached(&self, end: End) -> Option<String> {
        let signal = match end {
            End::Signalled(signal) => signal,
            End::Exited(code) => Signal::try_from(code - SHELL_SIGNAL_BASE).ok()?,
            End::NotKnown => return None,
        };
        let path = &self.path;
        let cpu = self.asked.cpu_seconds;
        let memory = self.asked.memory_bytes;
        if let (Signal::SIGXCPU, Some(seconds)) = (signal, cpu) {
            return Some(format!("used up {path}.cpuSeconds, {seconds}"));
        }
        if let (Signal::SIGKILL, Some(seconds)) = (signal, cpu) {
            return Some(format!("perhaps used up {path}.cpuSeconds, {seconds}, and went on after SIGXCPU"));
        }
        let of_memory = [Signal::SIGSEGV, Signal::SIGABRT, Signal::SIGBUS, Signal::SIGTRAP, Signal::SIGKILL];
        let is_want_of_memory = of_memory.contains(&signal);
        let bytes = memory.filter(|_| is_want_of_memory)?;
        Some(format!("perhaps for want of memory: {path}.memory is {bytes} bytes"))
    }
}

/// A limit, or as much of it as this process may give away.
fn within(own: Rlimit, soft: u64, hard: u64) -> Rlimit {
    let maximum = own.maximum.map_or(hard, |own| own.min(hard));
    Rlimit { current: Some(soft.min(maximum)), maximum: Some(maximum) }
}

/// The kernel counts all processes and threads of a user, this runner's own too: what is there already is added. The
/// one that waits to become the program is among them, and among those that were asked for.
fn beyond_others(asked: i64) -> i64 {
    asked.saturating_add(threads_of_user(getuid())).saturating_sub(1)
}

fn threads_of_user(user: Uid) -> i64 {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let is_process = |name: &std::ffi::OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name())).filter(is_process);
    let threads = |name: std::ffi::OsString| {
        let status = fs::read_to_string(std::path::Path::new("/proc").join(name).join("status")).ok()?;
        let first = |field: &str| -> Option<i64> {
            status.lines().find_map(|line| line.strip_prefix(field)?.split_ascii_whitespace().next()?.parse().ok())
        };
        first("Threads:").filter(|_| first("Uid:") == Some(i64::from(user.as_raw())))
    };
    names.filter_map(threads).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_never_above_the_runners_own() {
        let own = |current, maximum| Rlimit { current, maximum };
        for (found, soft, hard, expected) in [
            (own(None, None), 10, 15, own(Some(10), Some(15))),
            (own(Some(5), Some(100)), 10, 15, own(Some(10), Some(15))),
            (own(Some(5), Some(12)), 10, 15, own(Some(10), Some(12))),
            (own(Some(5), Some(8)), 10, 15, own(Some(8), Some(8))),
        ] {
            assert_eq!(within(found, soft, hard), expected, "{found:?}");
        }
    }

    #[test]
    fn the_limit_that_was_reached_is_named() {
        let asked = ProcessLimits { memory_bytes: Some(1 << 25), cpu_seconds: Some(7), ..ProcessLimits::default() };
        let all = Limits { path: "spec.run.exec.limits".into(), asked };
        let none = Limits { path: String::new(), asked: ProcessLimits::default() };
        for (end, word) in [
            (End::Signalled(Signal::SIGXCPU), Some("used up spec.run.exec.limits.cpuSeconds, 7")),
            (End::Exited(152), Some("used up spec.run.exec.limits.cpuSeconds, 7")),
            (End::Signalled(Signal::SIGKILL), Some("perhaps used up")),
            (End::Signalled(Signal::SIGSEGV), Some("limits.memory is 33554432")),
            (End::Exited(134), Some("limits.memory")),
            (End::Exited(1), None),
            (End::Signalled(Signal::SIGTERM), None),
            (End::NotKnown, None),
        ] {
            let said = all.reached(end);
            assert_eq!(said.is_some(), word.is_some(), "{end:?}: {said:?}");
            assert!(said.unwrap_or_default().contains(word.unwrap_or_default()), "{end:?}");
            assert_eq!(none.reached(end), None, "{end:?}");
        }
    }

    #[test]
    fn the_users_own_threads_are_counted() {
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let before = threads_of_user(getuid());
        assert!(before >= 1);
        let thread = std::thread::spawn(move || wait.recv());
        // Others of this user come and go meanwhile, but this thread is one of ours for sure.
        let own = fs::read_to_string("/proc/self/status").expect("status");
        let own = own.lines().find_map(|line| line.strip_prefix("Threads:")).map(|count| count.trim().parse::<i64>());
        assert!(threads_of_user(getuid()) >= own.expect("threads").expect("number") - 1);
        drop(go);
        let _ = thread.join();
    }
}
