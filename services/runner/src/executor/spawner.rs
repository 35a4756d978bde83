//! Makes processes, each in a session of its own. `posix_spawn` and not `fork`: a fork copies the page tables
//! of the whole service, several milliseconds in a large process. One plain thread does it, because the
//! working directory of the child is that of the thread: the thread keeps one of its own (CLONE_FS), and
//! where that is refused (some containers), a shell changes the directory before it becomes the program.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::mpsc;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::plan::{Directory, Plan, plain};
use super::tree::{enter_leader, reap_leader};

/// `POSIX_SPAWN_SETSID` of glibc 2.26 and musl, which nix does not name.
const SPAWN_SETSID: i32 = 0x80;

/// A process that was just made, and our ends of its pipes.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Leader of its session and process group.
    pub(crate) leader: Pid,
    /// Becomes readable when it ends.
    pub(crate) pidfd: OwnedFd,
    /// Where its input is written.
    pub(crate) stdin: OwnedFd,
    /// Where its output is read.
    pub(crate) stdout: OwnedFd,
    /// Where its errors are read.
    pub(crate) stderr: OwnedFd,
}

struct Order {
    plan: Plan,
    answer: oneshot::Sender<Result<Spawned, String>>,
}

/// The thread that makes processes; ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Spawner(mpsc::Sender<Order>);

impl Spawner {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::Builder::new().name("runner-spawn".into()).spawn(move || {
            let has_own_directory = unshare(CloneFlags::CLONE_FS).is_ok();
            for Order { plan, answer } in orders {
                let made = spawn(&plan, has_own_directory);
                // Nobody waits for the answer any more only if the runtime is going down with the process.
                let _ = answer.send(made);
            }
        })?;
        Ok(Self(sender))
    }

    /// Makes a process.
    ///
    /// # Errors
    /// Why there is none, as a sentence that names field and fix.
    pub(crate) async fn spawn(&self, plan: Plan) -> Result<Spawned, String> {
        let (answer, made) = oneshot::channel();
        let gone = || "the runner is ending".to_owned();
        self.0.send(Order { plan, answer }).map_err(|_| gone())?;
        made.await.map_err(|_| gone())?
    }
}

fn spawn(plan: &Plan, has_own_directory: bool) -> Result<Spawned, String> {
    if let Directory::Private(path) = &plan.directory {
        DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(|error| {
            format!("the attempt's own directory `{}` can't be made ({})", path.display(), plain(&error))
        })?;
    }
    let machine =
        |error: io::Error| format!("the machine gave no process ({}); see the runner's limits", plain(&error));
    let (stdin_child, stdin) = io::pipe().map_err(machine)?;
    let (stdout, stdout_child) = io::pipe().map_err(machine)?;
    let (stderr, stderr_child) = io::pipe().map_err(machine)?;
    let ends = [stdin_child.as_raw_fd(), stdout_child.as_raw_fd(), stderr_child.as_raw_fd()];
    let leader = enter_leader(|| make(plan, &ends, has_own_directory)).map_err(|errno| refusal(plan, errno))?;
    // The leader stays a zombie until its tree was checked, so its number can't name another process here.
    let pidfd = rustix::process::Pid::from_raw(leader.as_raw())
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK));
    match pidfd {
        Ok(pidfd) => Ok(Spawned { leader, pidfd, stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into() }),
        Err(errno) => {
            let _ = nix::sys::signal::killpg(leader, Signal::SIGKILL);
            let _ = nix::sys::wait::waitid(nix::sys::wait::Id::Pid(leader), nix::sys::wait::WaitPidFlag::WEXITED);
            reap_leader(leader);
            Err(format!("the process can't be watched ({errno}); Linux 5.3 or later is needed"))
        }
    }
}

fn make(plan: &Plan, ends: &[i32; 3], has_own_directory: bool) -> Result<Pid, Errno> {
    let mut actions = PosixSpawnFileActions::init()?;
    for (end, standard) in ends.iter().zip(0..) {
        actions.add_dup2(*end, standard)?;
    }
    let mut attributes = PosixSpawnAttr::init()?;
    // What Rust's start-up ignores (SIGPIPE) and this thread blocks must not reach the program.
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::from_bits_retain(SPAWN_SETSID),
    )?;
    if !has_own_directory {
        let (shell, arguments) = through_shell(plan)?;
        return posix_spawn(Path::new(shell), &actions, &attributes, &arguments, &plan.environment);
    }
    nix::unistd::chdir(plan.directory.path())?;
    let made = posix_spawn(plan.program.as_path(), &actions, &attributes, &plan.arguments, &plan.environment);
    // Not to keep a directory busy that is removed or unmounted later.
    let _ = nix::unistd::chdir("/");
    made
}

/// The same call by way of a shell that changes the directory; only the program's own name is lost.
fn through_shell(plan: &Plan) -> Result<(&'static str, Vec<CString>), Errno> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let path = |path: &Path| text(path.as_os_str().as_encoded_bytes());
    let mut arguments = vec![
        text(b"sh")?,
        text(b"-c")?,
        text(b"cd -- \"$0\" && exec \"$@\"")?,
        path(plan.directory.path())?,
        path(&plan.program)?,
    ];
    arguments.extend(plan.arguments.iter().skip(1).cloned());
    Ok(("/bin/sh", arguments))
}

fn refusal(plan: &Plan, errno: Errno) -> String {
    let (field, program) = (plan.field, plan.program.display());
    if errno == Errno::ENOEXEC {
        format!("{field}: `{program}` is in no format this machine executes; for a script, begin it with a `#!` line")
    } else if errno == Errno::ENOENT {
        format!("{field}: the interpreter that `{program}` names in its `#!` line is missing; install or correct it")
    } else if errno == Errno::E2BIG {
        format!("{field}: arguments and environment are larger than this machine takes; pass less, or use stdin")
    } else if errno == Errno::EACCES {
        format!("{field}: the runner may not execute `{program}` in `{}`", plan.directory.path().display())
    } else {
        format!("{field}: `{program}` can't be started ({})", errno.desc().to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};

    use super::super::environment::inherited;
    use super::super::plan::{Program, plan};
    use super::super::template::example;
    use super::*;

    /// Both ways into a directory lead to the same program with the same arguments.
    #[test]
    fn the_shell_is_an_equal_way_into_a_directory() {
        let target = orloj_domain::job::ExecTarget {
            command: ["sh", "-c", "test \"$PWD\" = /usr && test \"$1\" = 'a  b'", "name", "a  b"]
                .map(str::to_owned)
                .to_vec(),
            env: std::collections::BTreeMap::new(),
            working_dir: Some("/usr".to_owned()),
            stdin: String::new(),
        };
        let environment = inherited(std::iter::empty());
        let plan = plan(Program::Exec(&target), &example(), &environment, "s", "/nowhere".into()).expect("plan");
        let made = spawn(&plan, false).expect("process");
        assert_eq!(waitpid(made.leader, None), Ok(WaitStatus::Exited(made.leader, 0)));
        reap_leader(made.leader);
    }
}
