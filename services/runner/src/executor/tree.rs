//! Finds all processes of an attempt and ends them: its session, its process group, its control group, their
//! descendants, and whoever carries its mark in the environment. Not here: when to end them. Invariant: the leader is not
//! reaped before its tree was looked at, so its number means this attempt and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Gid, Pid, Uid, geteuid, setfsgid, setfsuid};
use tokio::time::Instant;

use super::cgroup::Group;

/// How long a killed tree may take to go; longer means a process that the kernel can't end now.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// First and longest wait between two looks at a tree that is ending.
const LOOK_FIRST: Duration = Duration::from_millis(5);
const LOOK_LONGEST: Duration = Duration::from_millis(100);

/// The leaders of all attempts of this process that run or ran and are not reaped. One table for the whole
/// process, as its children are: two runners in one process must not take each other's for orphans.
static LEADERS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

fn leaders() -> MutexGuard<'static, BTreeSet<i32>> {
    LEADERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Makes a leader and enters it before anyone else can look, so that nobody takes it for an orphan.
pub(super) fn enter_leader<E>(make: impl FnOnce() -> Result<Pid, E>) -> Result<Pid, E> {
    let mut leaders = leaders();
    let leader = make()?;
    leaders.insert(leader.as_raw());
    Ok(leader)
}

/// Takes a leader's end from the kernel; from here on its number may name another process.
pub(super) fn reap_leader(leader: Pid) {
    reap(leader.as_raw());
    leaders().remove(&leader.as_raw());
}

/// Kills whatever attempts of this process have running, for a process that ends without draining.
pub(crate) fn kill_all() {
    let processes = all_processes();
    let leaders = leaders();
    let me = std::process::id().cast_signed();
    let own_session = nix::unistd::getsid(None).map_or(0, Pid::as_raw);
    let is_kin = |process: &&Process| {
        // What left its attempt's session and lost its parent was handed to this process.
        let is_adopted = process.parent == me && process.session != own_session;
        is_adopted || [process.pid, process.session, process.group].iter().any(|number| leaders.contains(number))
    };
    let mut members: BTreeSet<i32> = processes.values().filter(is_kin).map(|process| process.pid).collect();
    add_descendants(&mut members, &processes);
    for member in members {
        // Whoever has ended meanwhile needs no signal.
        let _ = kill(Pid::from_raw(member), Signal::SIGKILL);
    }
}

/// Kills whoever carries `mark` in its environment, with its session, group and descendants, for a process that stands in for
/// the runner; answers how many there were.
pub(crate) fn kill_marked(mark: &[u8]) -> usize {
    let processes = all_processes();
    let me = std::process::id().cast_signed();
    let own_session = nix::unistd::getsid(None).map_or(0, Pid::as_raw);
    let is_attempt = |process: &&Process| process.pid != me && process.session != own_session && !process.is_zombie;
    let carries = |process: &&Process| {
        let environment = environment_of(process.pid).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|found| found == mark)
    };
    let marked: Vec<&Process> = processes.values().filter(is_attempt).filter(carries).collect();
    let kin: BTreeSet<i32> = marked.iter().flat_map(|process| [process.session, process.group]).collect();
    let is_kin = |process: &&Process| kin.contains(&process.session) || kin.contains(&process.group);
    let mut members: BTreeSet<i32> = marked.iter().map(|process| process.pid).collect();
    members.extend(processes.values().filter(is_attempt).filter(is_kin).map(|process| process.pid));
    add_descendants(&mut members, &processes);
    members.retain(|pid| processes.get(pid).is_some_and(|process| !process.is_zombie));
    for member in &members {
        // Whoever has ended meanwhile needs no signal.
        let _ = kill(Pid::from_raw(*member), Signal::SIGKILL);
    }
    members.len()
}

/// Adds the children of members, theirs too; this process is nobody's child here.
fn add_descendants(members: &mut BTreeSet<i32>, processes: &BTreeMap<i32, Process>) {
    let me = std::process::id().cast_signed();
    // A child may have a smaller number than its parent, so once over all is not enough.
    loop {
        let before = members.len();
        for process in processes.values() {
            if process.pid != me && members.contains(&process.parent) {
                members.insert(process.pid);
            }
        }
        if members.len() == before {
            return;
        }
    }
}

/// Makes orphans of attempts children of this process instead of init's, so that they are found at once and
/// reaped. True if the kernel does it.
pub(crate) fn adopt_orphans() -> bool {
    nix::sys::prctl::set_child_subreaper(true).is_ok()
}

/// What the kernel says about a process.
#[derive(Debug, Clone, Copy)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
    is_zombie: bool,
}

/// The processes of one attempt.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    leader: Pid,
    mark: Arc<Vec<Vec<u8>>>,
    group: Option<Arc<Group>>,
    has_adopted: bool,
}

impl Tree {
    /// The tree below `leader`. `has_adopted` says that [`adopt_orphans`] was granted.
    pub(crate) fn new(leader: Pid, mark: Vec<Vec<u8>>, group: Option<Group>, has_adopted: bool) -> Self {
        Self { leader, mark: Arc::new(mark), group: group.map(Arc::new), has_adopted }
    }

    /// Who is left, the leader included while it runs.
    pub(crate) async fn look(&self) -> Vec<Pid> {
        self.blocking(Self::members).await
    }

    /// Reads all of /proc: blocking.
    fn members(&self) -> Vec<Pid> {
        // Before the others, so that whoever is in the group is among them unless it has ended.
        let mut members: BTreeSet<i32> = self.in_group().into_iter().collect();
        let processes = all_processes();
        let leader = self.leader.as_raw();
        let me = std::process::id().cast_signed();
        for process in processes.values() {
            let is_kin = process.pid == leader || process.session == leader || process.group == leader;
            if process.pid != me && (is_kin || self.is_marked(process)) {
                members.insert(process.pid);
            }
        }
        add_descendants(&mut members, &processes);
        for pid in &members {
            if *pid != leader && processes.get(pid).is_some_and(|process| process.is_zombie && process.parent == me) {
                reap(*pid);
            }
        }
        members.retain(|pid| processes.get(pid).is_some_and(|process| !process.is_zombie));
        members.into_iter().map(Pid::from_raw).collect()
    }

    fn in_group(&self) -> Vec<i32> {
        self.group.as_ref().map(|group| group.members()).unwrap_or_default()
    }

    fn is_marked(&self, process: &Process) -> bool {
        // The environment of a process that is gone can't be read, nor that of a user who can't be ours: then it is none of ours.
        let Ok(environment) = environment_of(process.pid) else {
            return false;
        };
        !environment.is_empty()
            && self.mark.iter().all(|entry| environment.split(|byte| *byte == 0).any(|found| found == &entry[..]))
    }

    /// True if, after the leader ended, nobody can be left: no orphan was handed to this process. A fast
    /// answer for the usual case; false means that [`Tree::look`] has to look.
    pub(crate) fn is_surely_gone(&self) -> bool {
        if !self.has_adopted || !self.in_group().is_empty() {
            return false;
        }
        // Twice, because one that ends while the kernel lists them can hide another.
        let (Some(mut children), Some(again)) = (adopted_children(), adopted_children()) else {
            return false;
        };
        children.extend(again);
        // After the lists: whoever is in them was entered by the time that the lock is ours.
        let leaders = leaders().clone();
        let own_session = nix::unistd::getsid(None).map_or(0, Pid::as_raw);
        // A child in our own session was made by another part of this process: a descendant of an attempt
        // has left it for good.
        children.into_iter().filter(|child| !leaders.contains(child)).all(|child| match process(child) {
            None => true,
            Some(found) if found.session == own_session => true,
            Some(found) if found.is_zombie => {
                reap(child);
                true
            }
            Some(_) => false,
        })
    }

    /// Asks all of the tree to end (TERM), and to go on if it was stopped. Blocking.
    fn ask(&self) {
        // Whoever has ended meanwhile needs no signal; that is the only error there can be.
        for member in self.members() {
            let _ = kill(member, Signal::SIGTERM);
            let _ = kill(member, Signal::SIGCONT);
        }
    }

    /// Kills all of the tree once; returns how many were left. Blocking.
    fn kill_once(&self) -> usize {
        if let Some(group) = &self.group {
            group.kill();
        }
        let members = self.members();
        if !members.is_empty() {
            let _ = killpg(self.leader, Signal::SIGKILL);
        }
        for member in &members {
            let _ = kill(*member, Signal::SIGKILL);
        }
        members.len()
    }

    /// Ends the whole tree: TERM, up to `grace` to comply, then KILL until nothing is left. Returns how many
    /// were still there when time was up, which is 0 unless the kernel holds one in an uninterruptible wait.
    pub(crate) async fn end(&self, grace: Duration) -> usize {
        self.blocking(Self::ask).await;
        let patience = Instant::now() + grace;
        let mut wait = LOOK_FIRST;
        while Instant::now() < patience {
            if self.look().await.is_empty() {
                return 0;
            }
            tokio::time::sleep(wait.min(patience - Instant::now())).await;
            wait = (wait * 2).min(LOOK_LONGEST);
        }
        let deadline = Instant::now() + KILL_TIMEOUT;
        let mut wait = LOOK_FIRST;
        loop {
            let left = self.blocking(Self::kill_once).await;
            if left == 0 || Instant::now() >= deadline {
                return left;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LOOK_LONGEST);
        }
    }

    async fn blocking<T: Send + 'static>(&self, look: impl FnOnce(&Self) -> T + Send + 'static) -> T {
        let tree = self.clone();
        match tokio::task::spawn_blocking(move || look(&tree)).await {
            Ok(answer) => answer,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
}

fn reap(pid: i32) {
    // Not our child, or taken already: both are fine.
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
}

fn all_processes() -> BTreeMap<i32, Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| Some((pid, process(pid)?)))
        .collect()
}

fn process(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold any byte, so the fields begin behind the last `)`.
    let behind_name = stat.iter().rposition(|byte| *byte == b')')?;
    let text = String::from_utf8_lossy(stat.get(behind_name + 1..)?);
    let mut fields = text.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse::<i32>().ok();
    let (parent, group, session) = (number()?, number()?, number()?);
    Some(Process { pid, parent, group, session, is_zombie: matches!(state, "Z" | "X") })
}

/// The environment of a process. Root in a container may read that of another user's only in the place of that user: without
/// the capability SYS_PTRACE the kernel asks who reads.
fn environment_of(pid: i32) -> io::Result<Vec<u8>> {
    let path = format!("/proc/{pid}/environ");
    let outcome = fs::read(&path);
    let is_refused = outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    if !is_refused || !geteuid().is_root() {
        return outcome;
    }
    let owner = fs::metadata(format!("/proc/{pid}"))?;
    // Of this thread alone, and for files alone: nobody may send it a signal for that.
    let own = (setfsuid(Uid::from_raw(owner.uid())), setfsgid(Gid::from_raw(owner.gid())));
    let outcome = fs::read(&path);
    setfsuid(own.0);
    setfsgid(own.1);
    outcome
}

/// Children of this process's first thread, to which the kernel hands orphans; absent where it lists none.
fn adopted_children() -> Option<BTreeSet<i32>> {
    let me = std::process::id();
    let list = fs::read_to_string(format!("/proc/self/task/{me}/children")).ok()?;
    Some(list.split_ascii_whitespace().filter_map(|child| child.parse().ok()).collect())
}
