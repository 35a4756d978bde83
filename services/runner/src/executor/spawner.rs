//! Makes processes, each in a session of its own. `posix_spawn` and not `fork`: a fork copies the page tables
//! of the whole service, several milliseconds in a large process. One plain thread does it, because the
//! working directory of the child is that of the thread: the thread keeps one of its own (CLONE_FS). Where that
//! is refused (some containers) a shell changes the directory before it becomes the program, and where there are
//! limits or a control group a shell waits until it has them. Where attempts run as another user, a launcher does all that.

use std::ffi::{CString, OsStr};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use tokio::sync::oneshot;

use super::cgroup::{Group, Groups};
use super::plan::{Directory, Plan, no_file, plain};
use super::progress::PROGRESS_FD;
use super::tree::{enter_leader, reap_leader};
use crate::launch::{GATE_FD, Launcher, Launching, VERDICT_FD};

/// `POSIX_SPAWN_SETSID` of glibc 2.26 and musl, which nix does not name.
const SPAWN_SETSID: i32 = 0x80;
const SHELL: &str = "/bin/sh";

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
    /// Where it says how far it is.
    pub(crate) progress: OwnedFd,
    /// Its control group.
    pub(crate) group: Option<Group>,
    /// What it needs to become the program, if it is not yet.
    pub(crate) launching: Option<Launching>,
}

/// What processes are made with.
#[derive(Debug)]
struct Means {
    groups: Option<Groups>,
    launcher: Option<Launcher>,
    has_own_directory: bool,
}

struct Order {
    plan: Plan,
    answer: oneshot::Sender<Result<Spawned, String>>,
}

/// The thread that makes processes; ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Spawner(mpsc::Sender<Order>);

impl Spawner {
    /// Starts the thread. Every process gets a group of its own, if there are `groups`, and becomes another user, if there is a
    /// `launcher`.
    pub(crate) fn start(groups: Option<Groups>, launcher: Option<Launcher>) -> io::Result<Self> {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::Builder::new().name("runner-spawn".into()).spawn(move || {
            let has_own_directory = unshare(CloneFlags::CLONE_FS).is_ok();
            let means = Means { groups, launcher, has_own_directory };
            for Order { plan, answer } in orders {
                let made = spawn(&plan, &means);
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

/// The last number that a child gets a descriptor on; ours lie above, so that none is overwritten by another.
const CHILD_FD_LAST: i32 = VERDICT_FD;
/// How much of a file tells what it is.
const MAGIC_BYTES: usize = 256;

/// The child's ends of its pipes.
struct Ends {
    stdin: OwnedFd,
    stdout: OwnedFd,
    stderr: OwnedFd,
    progress: OwnedFd,
    /// Only of a process that waits.
    gate: Option<OwnedFd>,
    /// Only of a launcher.
    verdict: Option<OwnedFd>,
}

/// Our ends of what a process waits for.
enum Wait {
    None,
    /// A shell that waits for its limits and its group.
    Shell(OwnedFd),
    /// A launcher, which waits for its variables.
    Launcher {
        gate: OwnedFd,
        verdict: OwnedFd,
    },
}

impl Wait {
    fn is_needed(&self) -> bool {
        match self {
            Self::None => false,
            Self::Shell(_) | Self::Launcher { .. } => true,
        }
    }
}

fn spawn(plan: &Plan, means: &Means) -> Result<Spawned, String> {
    if let Directory::Private(path) = &plan.directory {
        make_directory(path, means.launcher.as_ref()).map_err(|error| {
            format!("the attempt's own directory `{}` can't be made ({})", path.display(), plain(&error))
        })?;
    }
    let machine =
        |error: io::Error| format!("the machine gave no process ({}); see the runner's limits", plain(&error));
    let (stdin_child, stdin) = pipe().map_err(machine)?;
    let (stdout, stdout_child) = pipe().map_err(machine)?;
    let (stderr, stderr_child) = pipe().map_err(machine)?;
    let (progress, progress_child) = pipe().map_err(machine)?;
    let group = means.groups.as_ref().and_then(|groups| group_of(plan, groups));
    let mut ends = Ends {
        stdin: stdin_child,
        stdout: stdout_child,
        stderr: stderr_child,
        progress: progress_child,
        gate: None,
        verdict: None,
    };
    let mut wait = Wait::None;
    if let Some(launcher) = &means.launcher {
        launcher.give([&ends.stdin, &ends.stdout, &ends.stderr, &ends.progress]).map_err(machine)?;
        let ((gate_child, gate), (verdict, verdict_child)) = (pipe().map_err(machine)?, pipe().map_err(machine)?);
        (ends.gate, ends.verdict) = (Some(gate_child), Some(verdict_child));
        wait = Wait::Launcher { gate, verdict };
    } else if plan.limits.is_some() || group.is_some() {
        let (gate_child, gate) = pipe().map_err(machine)?;
        ends.gate = Some(gate_child);
        wait = Wait::Shell(gate);
    }
    // While a process is made, nobody else in this process gets to know of an end: no file may keep that waiting.
    if wait.is_needed() || !means.has_own_directory {
        can_begin(&plan.program).map_err(|unfit| unfit.sentence(plan))?;
    }
    let leader = enter_leader(|| make(plan, &ends, means)).map_err(|errno| refusal(plan, errno))?;
    match watch_and_release(plan, leader, group, wait, means.launcher.as_ref()) {
        Ok((pidfd, group, launching)) => {
            Ok(Spawned { leader, pidfd, stdin, stdout, stderr, progress, group, launching })
        }
        Err(problem) => {
            let _ = nix::sys::signal::killpg(leader, Signal::SIGKILL);
            let _ = nix::sys::wait::waitid(nix::sys::wait::Id::Pid(leader), nix::sys::wait::WaitPidFlag::WEXITED);
            reap_leader(leader);
            Err(problem)
        }
    }
}

/// The attempt's own directory, which nobody else may look into. It must not be there yet, and no link is followed: root
/// gives away what it has just made and nothing else.
pub(crate) fn make_directory(path: &Path, launcher: Option<&Launcher>) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    let Some(Launcher { account, .. }) = launcher else { return Ok(()) };
    std::os::unix::fs::lchown(path, Some(account.uid), Some(account.gid))
}

/// A pipe whose ends lie above what children use.
fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let aside = |fd: OwnedFd| match fd.as_raw_fd() {
        ..=CHILD_FD_LAST => Ok::<_, io::Error>(rustix::io::fcntl_dupfd_cloexec(&fd, CHILD_FD_LAST + 1)?),
        _ => Ok(fd),
    };
    let (reader, writer) = io::pipe()?;
    Ok((aside(reader.into())?, aside(writer.into())?))
}

/// A group for the process to come, unless the machine gives none now.
fn group_of(plan: &Plan, groups: &Groups) -> Option<Group> {
    let made = groups.make(plan.group.as_deref()?, plan.limits.as_ref().map(|limits| &limits.asked));
    made.map_err(|error| tracing::warn!(%error, "an attempt gets no control group")).ok()
}

/// Answers what tells the end of a process that was made, its group if it is there, and what a launcher still needs. Lets a
/// shell begin once it is in its group and its limits are set.
fn watch_and_release(
    plan: &Plan,
    leader: Pid,
    group: Option<Group>,
    wait: Wait,
    launcher: Option<&Launcher>,
) -> Result<(OwnedFd, Option<Group>, Option<Launching>), String> {
    // The leader stays a zombie until its tree was checked, so its number can't name another process here.
    let pidfd = rustix::process::Pid::from_raw(leader.as_raw())
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK))
        .map_err(|errno| format!("the process can't be watched ({errno}); Linux 5.3 or later is needed"))?;
    let is_in = |group: &Group| match group.place(leader) {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "an attempt was not let into its control group");
            false
        }
    };
    let group = group.filter(is_in);
    let launching = match (wait, launcher) {
        (Wait::Shell(gate), _) => {
            plan.limits.as_ref().map_or(Ok(()), |limits| limits.apply(leader))?;
            // Whoever has killed it meanwhile ended the attempt, as the watch over it will tell.
            let _ = rustix::io::write(&gate, b"\n");
            None
        }
        (Wait::Launcher { gate, verdict }, Some(launcher)) => Some(Launching {
            gate,
            verdict,
            variables: plan.environment.clone(),
            user: launcher.account.name.clone(),
            field: plan.field,
            program: plan.program.clone(),
            directory: plan.directory.path().to_owned(),
        }),
        (Wait::Launcher { .. } | Wait::None, _) => None,
    };
    Ok((pidfd, group, launching))
}

fn make(plan: &Plan, ends: &Ends, means: &Means) -> Result<Pid, Errno> {
    let mut actions = PosixSpawnFileActions::init()?;
    let standard = [&ends.stdin, &ends.stdout, &ends.stderr].into_iter().zip(0..);
    let special =
        [(Some(&ends.progress), PROGRESS_FD), (ends.gate.as_ref(), GATE_FD), (ends.verdict.as_ref(), VERDICT_FD)];
    let special = special.into_iter().filter_map(|(end, number)| Some((end?, number)));
    for (end, number) in standard.chain(special) {
        actions.add_dup2(end.as_raw_fd(), number)?;
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
    if let Some(launcher) = &means.launcher {
        let user = launcher.account.uid;
        let bounds = plan.limits.as_ref().map(|limits| limits.bounds(user)).unwrap_or_default();
        let arguments = launcher.arguments(plan, &bounds)?;
        return posix_spawn(launcher.program(), &actions, &attributes, &arguments, &Launcher::environment(plan));
    }
    let shell = through_shell(plan, ends.gate.is_some(), !means.has_own_directory)?;
    let (program, arguments) = match &shell {
        Some(arguments) => (Path::new(SHELL), arguments),
        None => (plan.program.as_path(), &plan.arguments),
    };
    if !means.has_own_directory {
        return posix_spawn(program, &actions, &attributes, arguments, &plan.environment);
    }
    nix::unistd::chdir(plan.directory.path())?;
    let made = posix_spawn(program, &actions, &attributes, arguments, &plan.environment);
    // Not to keep a directory busy that is removed or unmounted later.
    let _ = nix::unistd::chdir("/");
    made
}

/// The same call by way of a shell that waits for its limits or changes the directory, and then becomes the program; only the
/// program's own name is lost. Nothing if there is no need of it.
fn through_shell(plan: &Plan, waits: bool, changes_directory: bool) -> Result<Option<Vec<CString>>, Errno> {
    // A pipe that ends without a line: the runner is gone, and nothing may begin.
    let wait = format!("read -r ORLOJ_GO <&{GATE_FD} && exec {GATE_FD}<&- && ");
    let script = match (waits, changes_directory) {
        (false, false) => return Ok(None),
        (false, true) => "cd -- \"$0\" && exec \"$@\"".to_owned(),
        (true, false) => wait + "exec \"$@\"",
        (true, true) => wait + "cd -- \"$0\" && exec \"$@\"",
    };
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
    let path = |path: &Path| text(path.as_os_str().as_encoded_bytes());
    let mut arguments =
        vec![text(b"sh")?, text(b"-c")?, text(script.as_bytes())?, path(plan.directory.path())?, path(&plan.program)?];
    arguments.extend(plan.arguments.iter().skip(1).cloned());
    Ok(Some(arguments))
}

/// Why the kernel would not execute a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unfit {
    Irregular,
    UnknownFormat,
    MissingInterpreter,
}

impl Unfit {
    fn sentence(self, plan: &Plan) -> String {
        match self {
            Self::Irregular => format!("{}: {}", plan.field, no_file(&plan.program.display())),
            Self::UnknownFormat => refusal(plan, Errno::ENOEXEC),
            Self::MissingInterpreter => refusal(plan, Errno::ENOENT),
        }
    }
}

/// Finds what the kernel would refuse and a shell would not: it takes any text for a script of its own, and says only to
/// the job's errors that an interpreter is missing. A job may have put anything there since the file was found, a pipe that nobody
/// writes to for one, so nothing here waits for it.
fn can_begin(program: &Path) -> Result<(), Unfit> {
    let waits_for_nothing = OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(waits_for_nothing.bits()).open(program);
    // Who may execute a file need not be allowed to read it; then the shell or the launcher has the last word.
    let Ok(mut file) = opened else { return Ok(()) };
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err(Unfit::Irregular);
    }
    let mut magic = [0; MAGIC_BYTES];
    let Ok(count) = file.read(&mut magic) else { return Ok(()) };
    let magic = &magic[..count];
    let Some(line) = magic.strip_prefix(b"#!") else {
        return if magic.contains(&0) { Ok(()) } else { Err(Unfit::UnknownFormat) };
    };
    let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let interpreter = line.split(u8::is_ascii_whitespace).next().unwrap_or_default();
    let is_missing = interpreter.starts_with(b"/") && !Path::new(OsStr::from_bytes(interpreter)).exists();
    if is_missing { Err(Unfit::MissingInterpreter) } else { Ok(()) }
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
    use nix::sys::wait::WaitStatus;
    use orloj_domain::job::ProcessLimits;
    use rustix::process::Resource;

    use super::super::environment::inherited;
    use super::super::plan::{Program, plan};
    use super::super::template::example;
    use super::*;

    /// All ways into a directory lead to the same program with the same arguments, and the ways with limits leave nothing
    /// of the wait behind.
    #[test]
    fn the_shell_is_an_equal_way_into_a_directory() {
        let limits =
            ProcessLimits { memory_bytes: Some(64 << 20), cpu_seconds: Some(7), open_files: Some(64), processes: None };
        let script = "test \"$PWD\" = /usr && test \"$1\" = 'a  b' && test -e /proc/self/fd/3 && test ! -e /proc/self/fd/4 \
            && test -z \"${ORLOJ_GO+set}\" && test \"$(ulimit -n):$(ulimit -v):$(ulimit -t)\" = \"$2\"";
        let own = |resource| rustix::process::getrlimit(resource).current;
        let text = |limit: Option<u64>| limit.map_or("unlimited".to_owned(), |limit| limit.to_string());
        let kibibytes = own(Resource::As).map(|bytes| bytes / 1024);
        let unlimited = format!("{}:{}:{}", text(own(Resource::Nofile)), text(kibibytes), text(own(Resource::Cpu)));
        for (limits, expected) in [(None, unlimited), (Some(limits), "64:65536:7".to_owned())] {
            let target = orloj_domain::job::ExecTarget {
                command: ["sh", "-c", script, "name", "a  b", &expected].map(str::to_owned).to_vec(),
                env: std::collections::BTreeMap::new(),
                working_dir: Some("/usr".to_owned()),
                stdin: String::new(),
                limits,
            };
            let environment = inherited(std::iter::empty());
            let plan = plan(Program::Exec(&target), &example(), &environment, "s", "/nowhere".into()).expect("plan");
            // On a thread of its own, whose directory is its own too.
            std::thread::spawn(move || {
                let has_own_directory = unshare(CloneFlags::CLONE_FS).is_ok();
                for way in [false, has_own_directory] {
                    let means = Means { groups: None, launcher: None, has_own_directory: way };
                    let made = spawn(&plan, &means).expect("process");
                    let ended = nix::sys::wait::waitpid(made.leader, None);
                    assert_eq!(ended, Ok(WaitStatus::Exited(made.leader, 0)), "{expected}, {way}");
                    reap_leader(made.leader);
                }
            })
            .join()
            .expect("both ways");
        }
    }

    /// What is there already may be a link that somebody has laid out, or have a content of somebody's.
    #[test]
    fn a_directory_of_an_attempts_own_is_new_or_not_given_away() {
        let folder = tempfile::tempdir().expect("folder");
        let (link, there, own) = (folder.path().join("link"), folder.path().join("there"), folder.path().join("own"));
        std::fs::create_dir(&there).expect("directory");
        std::os::unix::fs::symlink(&there, &link).expect("link");
        for taken in [&link, &there] {
            let refused = make_directory(taken, None).map_err(|error| error.kind());
            assert_eq!(refused, Err(io::ErrorKind::AlreadyExists), "{}", taken.display());
        }
        let refused = make_directory(&folder.path().join("missing/own"), None).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::NotFound), "the way to it is the runner's, made before");
        make_directory(&own, None).expect("a new one");
    }

    /// What a shell would take for a script of its own is refused by every way, as the kernel does.
    #[test]
    fn a_shell_on_the_way_takes_no_more_than_the_kernel() {
        let folder = tempfile::tempdir().expect("folder");
        for (text, expected) in [
            ("echo no program\n", Err(Unfit::UnknownFormat)),
            ("", Err(Unfit::UnknownFormat)),
            ("#!/no/such/interpreter -x\n", Err(Unfit::MissingInterpreter)),
            ("#! /bin/sh\n", Ok(())),
            ("\u{7f}ELF\0\0", Ok(())),
        ] {
            let file = folder.path().join("program");
            std::fs::write(&file, text).expect("file");
            assert_eq!(can_begin(&file), expected, "{text:?}");
        }
    }

    #[test]
    fn nothing_waits_for_a_program_that_is_no_file() {
        let folder = tempfile::tempdir().expect("folder");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("pipe");
        let (sender, found) = mpsc::channel();
        let others = [folder.path().to_owned(), "/dev/null".into()];
        std::thread::spawn(move || {
            for path in [pipe].into_iter().chain(others) {
                let _ = sender.send(can_begin(&path));
            }
        });
        let long = std::time::Duration::from_secs(60);
        for what in ["a pipe", "a directory", "a device"] {
            assert_eq!(found.recv_timeout(long), Ok(Err(Unfit::Irregular)), "{what}");
        }
    }
}
