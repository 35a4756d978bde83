//! What processes of an attempt may use at most, as the kernel keeps it (`setrlimit`). Not here: when it is
//! applied (`spawner`, before the program begins). Invariant: no limit is ever above what the runner itself may
//! use, and every process that the attempt starts inherits all of them.

use std::fmt;
use std::fs;
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use orloj_domain::job::ProcessLimits;
use rustix::process::{Resource, Rlimit, getrlimit, getuid, prlimit, setrlimit};

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

/// One limit as the kernel takes it; as text it is told to a process that puts it on itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bound {
    name: &'static str,
    resource: Resource,
    soft: u64,
    hard: u64,
}

/// The names of limits, as manifests have them.
const RESOURCES: [(&str, Resource); 4] = [
    ("memory", Resource::As),
    ("cpuSeconds", Resource::Cpu),
    ("openFiles", Resource::Nofile),
    ("processes", Resource::Nproc),
];

impl Bound {
    fn limit(&self) -> Rlimit {
        Rlimit { current: Some(self.soft), maximum: Some(self.hard) }
    }

    /// Puts it on this process.
    pub(crate) fn take(&self) -> Result<(), Errno> {
        setrlimit(self.resource, self.limit()).map_err(|errno| Errno::from_raw(errno.raw_os_error()))
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.name, self.soft, self.hard)
    }
}

impl FromStr for Bound {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let asked = parts.next().ok_or(())?;
        let (name, resource) = RESOURCES.into_iter().find(|(name, _)| *name == asked).ok_or(())?;
        let mut number = || parts.next().and_then(|number| number.parse().ok()).ok_or(());
        Ok(Self { name, resource, soft: number()?, hard: number()? })
    }
}

impl Limits {
    /// The limits of a process of `user`, who need not be the runner's own.
    pub(crate) fn bounds(&self, user: u32) -> Vec<Bound> {
        RESOURCES
            .into_iter()
            .filter_map(|(name, resource)| {
                let (value, grace) = match name {
                    "memory" => (self.asked.memory_bytes, 0),
                    "cpuSeconds" => (self.asked.cpu_seconds, CPU_GRACE_SECONDS),
                    "openFiles" => (self.asked.open_files, 0),
                    _ => (self.asked.processes.map(|asked| beyond_others(asked, user)), 0),
                };
                let soft = u64::try_from(value?).ok()?;
                let (soft, hard) = within(getrlimit(resource), soft, soft.saturating_add(grace));
                Some(Bound { name, resource, soft, hard })
            })
            .collect()
    }

    /// Puts the limits on a process of this runner's user.
    ///
    /// # Errors
    /// Which one the kernel did not take, as a sentence.
    pub(super) fn apply(&self, leader: Pid) -> Result<(), String> {
        let leader = rustix::process::Pid::from_raw(leader.as_raw());
        for bound in self.bounds(getuid().as_raw()) {
            prlimit(leader, bound.resource, bound.limit()).map_err(|errno| {
                format!("{}.{}: this machine does not take the limit ({errno})", self.path, bound.name)
            })?;
        }
        Ok(())
    }

    /// What the reader of the output must know about limits that do not hold here for `user`.
    pub(super) fn remark(&self, user: u32) -> Option<String> {
        (self.asked.processes.is_some() && user == 0).then(|| {
            format!("[orloj] {}.processes does not bind processes of root; set `runner.user` to another user, or give the runner cgroup v2 with the controller `pids`", self.path)
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
fn within(own: Rlimit, soft: u64, hard: u64) -> (u64, u64) {
    let maximum = own.maximum.map_or(hard, |own| own.min(hard));
    (soft.min(maximum), maximum)
}

/// The kernel counts all processes and threads of a user, the runner's own too: what is there already is added. The
/// one that waits to become the program is among those that were asked for; among those that are there it is only while it
/// is of that user.
fn beyond_others(asked: i64, user: u32) -> i64 {
    let waiting = i64::from(user == getuid().as_raw());
    asked.saturating_add(threads_of_user(user)).saturating_sub(waiting)
}

fn threads_of_user(user: u32) -> i64 {
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    let is_process = |name: &std::ffi::OsString| name.as_encoded_bytes().iter().all(u8::is_ascii_digit);
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name())).filter(is_process);
    let threads = |name: std::ffi::OsString| {
        let status = fs::read_to_string(std::path::Path::new("/proc").join(name).join("status")).ok()?;
        let first = |field: &str| -> Option<i64> {
            status.lines().find_map(|line| line.strip_prefix(field)?.split_ascii_whitespace().next()?.parse().ok())
        };
        first("Threads:").filter(|_| first("Uid:") == Some(i64::from(user)))
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
            (own(None, None), 10, 15, (10, 15)),
            (own(Some(5), Some(100)), 10, 15, (10, 15)),
            (own(Some(5), Some(12)), 10, 15, (10, 12)),
            (own(Some(5), Some(8)), 10, 15, (8, 8)),
        ] {
            assert_eq!(within(found, soft, hard), expected, "{found:?}");
        }
    }

    #[test]
    fn a_limit_is_told_as_text() {
        let asked = ProcessLimits {
            memory_bytes: Some(1 << 25),
            cpu_seconds: Some(7),
            open_files: Some(16),
            processes: Some(3),
        };
        let limits = Limits { path: String::new(), asked };
        let bounds = limits.bounds(64999);
        assert_eq!(bounds.len(), 4);
        for bound in bounds {
            assert_eq!(bound.to_string().parse(), Ok(bound));
        }
        assert!("speed:1:1".parse::<Bound>().is_err() && "memory:1".parse::<Bound>().is_err());
        let (own, other) = (getuid().as_raw(), 64999);
        assert_eq!(limits.remark(own).is_some(), own == 0);
        assert_eq!(limits.remark(other), None);
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
        let before = threads_of_user(getuid().as_raw());
        assert!(before >= 1);
        let thread = std::thread::spawn(move || wait.recv());
        // Others of this user come and go meanwhile, but this thread is one of ours for sure.
        let own = fs::read_to_string("/proc/self/status").expect("status");
        let own = own.lines().find_map(|line| line.strip_prefix("Threads:")).map(|count| count.trim().parse::<i64>());
        assert!(threads_of_user(getuid().as_raw()) >= own.expect("threads").expect("number") - 1);
        drop(go);
        let _ = thread.join();
    }
}
