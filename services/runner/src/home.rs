//! A directory of this process's own, where its attempts have theirs and where its sessions are noted: what a runner leaves behind
//! that was killed together with its guard is ended by the next one that starts beside it. Not here: what a lease is
//! (`board`), what the guard does (`guard`). Invariant: nobody touches the directory of a process that lives, which the
//! kernel's lock on a file in it tells.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::geteuid;

use crate::guard;
use crate::removal::remove_tree;

/// Held for as long as the process lives; one session in each line.
const SESSIONS: &str = "sessions";
/// Users of attempts pass through to directories that are theirs, and see nothing on the way.
const PASSABLE: u32 = 0o711;
/// Directories whose names begin so are being made.
const UNFINISHED: char = '.';

/// The directory; removed in the end.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    sessions: Mutex<Sessions>,
}

#[derive(Debug)]
struct Sessions {
    file: Flock<File>,
    noted: Vec<String>,
}

/// Makes the directory that homes are in, if it is not there, and answers its path without links. `is_for_others`: attempts of
/// other users pass through it.
pub(crate) fn make_work_dir(work_dir: &Path, is_for_others: bool) -> io::Result<PathBuf> {
    let builder = || {
        let mut builder = DirBuilder::new();
        builder.mode(PASSABLE);
        builder
    };
    if let Some(above) = work_dir.parent() {
        builder().recursive(true).create(above)?;
    }
    match builder().create(work_dir) {
        // What the process's mask has taken away. Nobody else's directory gets another mode: it may be one that many share.
        Ok(()) if is_for_others => fs::set_permissions(work_dir, fs::Permissions::from_mode(PASSABLE))?,
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    work_dir.canonicalize()
}

impl Home {
    /// Ends what processes that are gone have left in `work_dir`, as [`make_work_dir`] answers it, and makes a directory in it.
    pub(crate) fn open(work_dir: &Path) -> io::Result<Self> {
        let owner = fs::metadata(work_dir)?.uid();
        for entry in fs::read_dir(work_dir)?.flatten() {
            if let Err(error) = clear(&entry.path(), owner) {
                tracing::warn!(path = %entry.path().display(), %error, "what a runner has left behind can't be cleared");
            }
        }
        let name = uuid::Uuid::new_v4().simple().to_string();
        let unfinished = work_dir.join(format!("{UNFINISHED}{name}"));
        DirBuilder::new().mode(PASSABLE).create(&unfinished)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(unfinished.join(SESSIONS))?;
        let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| io::Error::from(errno))?;
        let path = work_dir.join(name);
        // Nobody sees it before it is locked.
        fs::rename(&unfinished, &path)?;
        Ok(Self { path, sessions: Mutex::new(Sessions { file, noted: Vec::new() }) })
    }

    /// Where attempts get directories of their own.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes a session, before anything is executed under it.
    pub(crate) fn note(&self, session: &str) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.noted.iter().any(|noted| noted == session) {
            return;
        }
        if let Err(error) = writeln!(sessions.file, "{session}") {
            tracing::warn!(%error, session, "a session is not noted: what it leaves behind is found by nobody");
        }
        sessions.noted.push(session.to_owned());
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What can't be removed now, the next runner removes.
        let _ = remove_tree(&self.path);
    }
}

/// Clears a directory if its process is gone. One that is neither this user's nor `owner`'s is nobody's home: where many may
/// write, somebody may have laid it out.
fn clear(path: &Path, owner: u32) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || ![owner, geteuid().as_raw()].contains(&found.uid()) {
        return Ok(());
    }
    let is_unfinished = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(UNFINISHED));
    let file = match File::open(path.join(SESSIONS)) {
        Ok(file) if !is_unfinished => file,
        // None of ours, or not yet.
        Ok(_) | Err(_) => return Ok(()),
    };
    // Held until all is cleared: two that start at once do it one after the other.
    let _lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(()),
        Err((_, errno)) => return Err(errno.into()),
    };
    let sessions: Vec<String> = fs::read_to_string(path.join(SESSIONS))?.lines().map(str::to_owned).collect();
    let left = guard::end(&sessions);
    if !left.is_empty() {
        // The kernel holds them; the next runner looks again.
        return Err(io::Error::other(format!("processes of the sessions {} do not end", left.join(", "))));
    }
    remove_tree(path)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use nix::unistd::{Pid, getsid};

    use super::*;
    use crate::executor::environment::SESSION_VARIABLE;

    /// A process as attempts are: marked, and in a session of its own.
    fn marked(session: &str) -> std::process::Child {
        let mut command = Command::new("setsid");
        command.args(["sleep", "600"]).env(SESSION_VARIABLE, session).stdin(Stdio::null());
        let mut child = command.spawn().expect("setsid and sleep");
        let pid = Pid::from_raw(child.id().cast_signed());
        while getsid(Some(pid)) != Ok(pid) {
            assert_eq!(child.try_wait().expect("a child of ours"), None, "it has ended");
            std::thread::yield_now();
        }
        child
    }

    /// As a process leaves it that is killed: nothing is removed, and the lock is gone.
    fn abandon(home: Home) -> PathBuf {
        let path = home.path.clone();
        let copy = path.with_extension("kept");
        fs::create_dir(&copy).expect("a directory");
        fs::copy(path.join(SESSIONS), copy.join(SESSIONS)).expect("a copy");
        fs::create_dir(copy.join("attempt")).expect("a directory");
        drop(home);
        copy
    }

    #[test]
    fn what_a_killed_runner_left_behind_is_ended_and_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let [gone, alive] = ["gone", "alive"].map(|name| format!("{name}-{}", std::process::id()));
        let home = Home::open(folder.path()).expect("a home");
        home.note(&gone);
        home.note(&gone);
        let left = abandon(home);
        let other = make_work_dir(&folder.path().join("other"), false).expect("a directory");
        let living = Home::open(&other).expect("a home");
        living.note(&alive);
        let (mut orphan, mut other) = (marked(&gone), marked(&alive));
        fs::rename(living.path(), folder.path().join("living")).expect("beside it");

        let next = Home::open(folder.path()).expect("a home");
        assert!(!orphan.wait().expect("a child of ours").success(), "it was killed");
        assert!(!left.exists(), "its directory is gone");
        assert!(folder.path().join("living").exists(), "a runner that lives keeps its own");
        assert_eq!(other.try_wait().expect("a child of ours"), None, "and its attempts");
        other.kill().expect("a child of ours");
        other.wait().expect("a child of ours");
        let own = next.path().to_owned();
        drop(next);
        assert!(!own.exists(), "nothing is left of one that ended in order");
    }

    #[test]
    fn a_directory_that_was_there_keeps_its_mode() {
        let folder = tempfile::tempdir().expect("a folder");
        let mode = |path: &Path| fs::metadata(path).expect("a directory").mode() & 0o7777;
        for before in [0o1777, 0o755, 0o700] {
            let shared = folder.path().join(format!("{before:o}"));
            fs::create_dir(&shared).expect("a directory");
            fs::set_permissions(&shared, fs::Permissions::from_mode(before)).expect("a mode");
            for is_for_others in [true, false] {
                let work_dir = make_work_dir(&shared, is_for_others).expect("a directory");
                let home = Home::open(&work_dir).expect("a home");
                assert_eq!((mode(&shared), mode(home.path())), (before, PASSABLE), "{is_for_others}");
            }
        }
        let made = make_work_dir(&folder.path().join("above/work"), true).expect("a directory");
        assert_eq!(mode(&made), PASSABLE, "one that was made can be passed through");
    }

    #[test]
    fn what_somebody_else_has_laid_out_is_no_home() {
        if !geteuid().is_root() {
            eprintln!("what_somebody_else_has_laid_out_is_no_home: skipped, only root can give a directory away");
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let (trap, behind) = (folder.path().join("trap"), folder.path().join("behind"));
        for (path, owner) in [(&trap, 64999), (&behind, 0)] {
            fs::create_dir(path).expect("a directory");
            fs::write(path.join(SESSIONS), "").expect("a file");
            std::os::unix::fs::chown(path, Some(owner), None).expect("an owner");
        }
        let outside = tempfile::tempdir().expect("a folder");
        fs::write(outside.path().join(SESSIONS), "").expect("a file");
        std::os::unix::fs::symlink(outside.path(), folder.path().join("link")).expect("a link");
        Home::open(folder.path()).expect("a home");
        assert!(trap.exists(), "it is another user's");
        assert!(outside.path().join(SESSIONS).exists(), "no link is followed");
        assert!(!behind.exists(), "one of this user's is cleared");
    }
}
