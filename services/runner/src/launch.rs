//! A process that becomes another user and then an attempt's program: both ends, the runner's and the process's own. Not
//! here: which user (`account`), how a process is made (`executor/spawner`). Invariant: nothing of a job (its variables,
//! its limits, its program) has an effect while the process is root's; and a runner that is gone starts nothing.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;

use crate::account::Account;
use crate::executor::limits::Bound;
use crate::executor::plan::{Directory, Plan, plain};
use crate::executor::progress::PROGRESS_FD;
use crate::executor::spawner::make_directory;
use crate::removal::remove_tree;

/// Where the process reads the variables, and waits for them.
pub(crate) const GATE_FD: i32 = 4;
/// Where it says why there is no program; it ends without a word when there is one.
pub(crate) const VERDICT_FD: i32 = 5;
/// How long it may take to become the program, on a machine that has much to do.
const PATIENCE: Duration = Duration::from_secs(10);
/// More variables than any kernel takes.
const VARIABLES_BYTES_MAX: usize = 64 << 20;
/// Room that is made before a limit on memory holds, for what the start of a program needs.
const SPARE_BYTES: usize = 1 << 20;
const VERDICT_BYTES_MAX: u64 = 256;
/// Says that the process is to do what attempts need, and wait.
const TRY: &str = "try";
/// What it says once it waits.
const READY: [u8; 6] = *b"ready\n";
/// What root of a container may lack.
const RIGHTS: &str = "a runner of root needs the capabilities CHOWN, DAC_OVERRIDE, FOWNER, KILL, SETGID and SETUID: give them to its \
    container or service, or start it as the user of its attempts";
/// What a step is called that failed.
const ORDER: &str = "order";
const USER: &str = "user";
const DIRECTORY: &str = "directory";
const LIMIT: &str = "limit";
const PROGRAM: &str = "program";

/// How processes of attempts become another user.
#[derive(Debug, Clone)]
pub(crate) struct Launcher {
    program: CString,
    arguments: Vec<CString>,
    pub(crate) account: Account,
}

impl Launcher {
    /// `program` with its arguments calls [`launch`].
    ///
    /// # Errors
    /// A sentence, when there is no program.
    pub(crate) fn new(program: &[PathBuf], account: Account) -> Result<Self, String> {
        let texts = program.iter().map(|text| CString::new(text.as_os_str().as_bytes()));
        let arguments: Vec<CString> = texts.collect::<Result<_, _>>().map_err(|error| failed(&account, &error))?;
        let Some(program) = arguments.first().cloned() else {
            let why = "the runner was given no program that changes the user; name the runner's own user";
            return Err(failed(&account, &why));
        };
        Ok(Self { program, arguments, account })
    }

    /// Does once all that an attempt needs root for: makes a directory of the user's in `home`, has a process enter it and become
    /// the user, ends the process, and removes the directory with what the user has put there.
    ///
    /// # Errors
    /// A sentence that says which of it can't be done, and what for.
    pub(crate) fn try_out(&self, home: &Path) -> Result<(), String> {
        self.try_in(&home.join(TRY)).map_err(|why| failed(&self.account, &format_args!("{why}; {RIGHTS}")))
    }

    fn try_in(&self, own: &Path) -> Result<(), String> {
        let problem = |what: &str, error: &io::Error| format!("{what} ({})", plain(error));
        make_directory(own, Some(self)).map_err(|error| problem("no directory can be given to it: CHOWN", &error))?;
        let rest = self.arguments.iter().skip(1).map(|text| OsStr::from_bytes(text.as_bytes()));
        let mut command = Command::new(self.program());
        command.args(rest).arg(identity(&self.account)).arg(TRY).arg(own).env_clear();
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut process =
            started.map_err(|error| problem(&format!("`{}` can't be started", self.program().display()), &error))?;
        let mut word = [0; READY.len()];
        let said = process.stdout.as_mut().map(|said| said.read_exact(&mut word));
        if said.is_none_or(|read| read.is_err()) || word != READY {
            let _ = process.kill();
            let ended = process.wait_with_output().map_err(|error| problem("its end is not known", &error))?;
            return Err(String::from_utf8_lossy(&ended.stderr).trim().to_owned());
        }
        let killed = process.kill();
        // One that can't be killed ends with this.
        drop(process.stdin.take());
        process.wait().map_err(|error| problem("its end is not known", &error))?;
        killed.map_err(|error| problem("its processes can't be ended: KILL", &error))?;
        remove_tree(own).map_err(|error| problem("its directories can't be removed: DAC_OVERRIDE, FOWNER", &error))
    }

    pub(crate) fn program(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.program.as_bytes()))
    }

    /// What the process is told beside the variables.
    pub(crate) fn arguments(&self, plan: &Plan, bounds: &[Bound]) -> Result<Vec<CString>, Errno> {
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::EINVAL);
        let place = match plan.directory {
            Directory::Given(_) => Place::Given,
            Directory::Private(_) => Place::Private,
        };
        let mut arguments = self.arguments.clone();
        arguments.push(text(identity(&self.account).as_bytes())?);
        arguments.push(text(place.word().as_bytes())?);
        arguments.push(text(plan.directory.path().as_os_str().as_bytes())?);
        arguments.push(text(bounds.iter().map(Bound::to_string).collect::<Vec<_>>().join(",").as_bytes())?);
        arguments.push(text(plan.program.as_os_str().as_bytes())?);
        arguments.extend(plan.arguments.iter().cloned());
        Ok(arguments)
    }

    /// Its own variables: what marks an attempt's processes, and nothing that a job could have written.
    pub(crate) fn environment(plan: &Plan) -> Vec<CString> {
        plan.mark.iter().filter_map(|entry| CString::new(entry.as_slice()).ok()).collect()
    }

    /// Gives descriptors of a process to its user, who may want to open them again (`/dev/stderr`).
    pub(crate) fn give<'a>(&self, ends: impl IntoIterator<Item = &'a OwnedFd>) -> io::Result<()> {
        let (uid, gid) = (Some(self.account.uid), Some(self.account.gid));
        ends.into_iter().try_for_each(|end| std::os::unix::fs::fchown(end, uid, gid))
    }
}

/// A process that is on its way to become a program: the runner's ends, and what messages say.
#[derive(Debug)]
pub(crate) struct Launching {
    pub(crate) gate: OwnedFd,
    pub(crate) verdict: OwnedFd,
    pub(crate) variables: Vec<CString>,
    pub(crate) user: String,
    /// The manifest's field of the program.
    pub(crate) field: &'static str,
    pub(crate) program: PathBuf,
    pub(crate) directory: PathBuf,
}

impl Launching {
    /// Lets it begin; returns once it is the program, or has ended.
    ///
    /// # Errors
    /// Why it did not become the program, as a sentence that names field and fix.
    pub(crate) async fn begin(self) -> Result<(), String> {
        let Self { gate, verdict, variables, user, field, program, directory } = self;
        let lost = |error: io::Error| format!("{field}: the process can't be talked to ({error})");
        let (mut gate, verdict) =
            (pipe::Sender::from_owned_fd(gate).map_err(lost)?, pipe::Receiver::from_owned_fd(verdict).map_err(lost)?);
        let mut said = Vec::new();
        let talk = async {
            // One that ended by now is found by its end.
            let _ = gate.write_all(&packed(&variables)).await;
            let _ = verdict.take(VERDICT_BYTES_MAX).read_to_end(&mut said).await;
        };
        if tokio::time::timeout(PATIENCE, talk).await.is_err() {
            return Err(format!("{field}: the process did not become user `{user}` within {PATIENCE:?}"));
        }
        let said = String::from_utf8_lossy(&said).into_owned();
        let Some((step, number)) = said.split_once(' ') else { return Ok(()) };
        let errno = Errno::from_raw(number.trim().parse().unwrap_or_default());
        let (why, program, directory) = (errno.desc().to_lowercase(), program.display(), directory.display());
        Err(match (step, errno) {
            (ORDER, _) => format!(
                "{field}: the process that becomes user `{user}` (`runner.user`) does not understand this runner; it is of another version, \
                 restart the runner"
            ),
            (USER, _) => format!("{field}: the process can't become user `{user}` (`runner.user`): {why}"),
            (DIRECTORY, _) => format!(
                "{field}: user `{user}` (`runner.user`) may not enter `{directory}` ({why}); give it the right, or name another `workingDir`"
            ),
            (PROGRAM, Errno::EACCES) => format!(
                "{field}: user `{user}` (`runner.user`) may not execute `{program}` in `{directory}`; give it the right to the file and to the \
                 directories on the way"
            ),
            (PROGRAM, Errno::E2BIG) => format!(
                "{field}: arguments and environment are larger than this machine takes; pass less, or use stdin"
            ),
            (PROGRAM, _) => format!("{field}: `{program}` can't be started ({why})"),
            (limit, _) => format!("{field}: this machine does not take the {limit} ({why})"),
        })
    }
}

/// The first of all bytes say how many follow: one that is cut off is told from one that is not.
fn packed(variables: &[CString]) -> Vec<u8> {
    let bytes: Vec<u8> = variables.iter().flat_map(|entry| entry.as_bytes_with_nul()).copied().collect();
    [&bytes.len().to_le_bytes()[..], &bytes].concat()
}

fn failed(account: &Account, why: &dyn std::fmt::Display) -> String {
    format!("attempts can't run as user `{}` (`runner.user`): {why}", account.name)
}

fn identity(account: &Account) -> String {
    let groups: Vec<String> = account.groups.iter().map(u32::to_string).collect();
    format!("{}:{}:{}", account.uid, account.gid, groups.join(","))
}

/// When the directory is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// One that the manifest names: with the rights of the attempt's user.
    Given,
    /// The attempt's own: as root, as the way to it is not for that user.
    Private,
}

impl Place {
    fn word(self) -> &'static str {
        match self {
            Self::Given => "given",
            Self::Private => "private",
        }
    }
}

/// The other end, for a process of its own with these arguments (those after the program's own): becomes a user, and then a
/// program. Answers only if that failed.
pub fn launch(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments;
    let identity = arguments.next().and_then(|text| Identity::parse(text.to_str()?));
    let Some(identity) = identity else {
        let _ = writeln!(io::stderr(), "orloj launch: it is started by runners alone");
        return ExitCode::from(2);
    };
    let first = arguments.next();
    if first.as_deref() == Some(OsStr::new(TRY)) {
        return match try_all(&identity, arguments.next()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(problem) => {
                let _ = writeln!(io::stderr(), "{problem}");
                ExitCode::FAILURE
            }
        };
    }
    // Nobody to tell it to: the runner is gone.
    let Ok(mut verdict) = taken(VERDICT_FD, File::options().write(true)) else { return ExitCode::FAILURE };
    close_others(&verdict);
    let problem = match Order::parse(first.into_iter().chain(arguments)) {
        Some(order) => order.follow(&identity),
        None => Some((ORDER, Errno::EINVAL)),
    };
    if let Some((step, errno)) = problem {
        let _ = writeln!(verdict, "{step} {}", errno as i32);
    }
    ExitCode::FAILURE
}

/// What [`Launcher::try_out`] has a process do: becomes the user in a directory of the user's, leaves something there that only root
/// can remove for it, and waits for the runner.
fn try_all(identity: &Identity, directory: Option<OsString>) -> Result<(), String> {
    let problem = |what: &str, errno: Errno| format!("{what} ({})", errno.desc().to_lowercase());
    let own = |error: io::Error| format!("it can't use a directory of its own ({})", plain(&error));
    let directory = directory.ok_or("the runner has named no directory")?;
    nix::unistd::chdir(directory.as_os_str())
        .map_err(|errno| problem("its directories can't be entered: DAC_OVERRIDE", errno))?;
    identity.take().map_err(|errno| problem("no process can become it: SETGID, SETUID", errno))?;
    std::fs::create_dir("kept").map_err(own)?;
    // Only the owner of a file removes it from such a directory.
    std::fs::set_permissions(".", std::fs::Permissions::from_mode(0o1700)).map_err(own)?;
    io::stdout().write_all(&READY).and_then(|()| io::stdout().flush()).map_err(own)?;
    io::stdin().read_to_end(&mut Vec::new()).map(drop).map_err(own)
}

/// A descriptor that this process was given under a number, closed by `exec` from here on.
fn taken(number: i32, options: &mut std::fs::OpenOptions) -> io::Result<File> {
    let file = options.open(format!("/proc/self/fd/{number}"))?;
    nix::unistd::close(number)?;
    Ok(file)
}

/// Libraries of the runner open descriptors that `exec` does not close; what it had open is nothing to another user.
fn close_others(kept: &File) {
    let kept = [GATE_FD, kept.as_raw_fd()];
    let Ok(listed) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<i32> = listed.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for number in open.into_iter().filter(|number| *number > PROGRESS_FD && !kept.contains(number)) {
        // The listing's own is closed by now.
        let _ = nix::unistd::close(number);
    }
}

struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Identity {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(':');
        let mut number = || parts.next()?.parse::<u32>().ok();
        let (uid, gid) = (Uid::from_raw(number()?), Gid::from_raw(number()?));
        let groups = parts.next()?.split(',').map(|group| group.parse().map(Gid::from_raw));
        Some(Self { uid, gid, groups: groups.collect::<Result<_, _>>().ok()? })
    }

    /// For good: nothing of what the process was is left.
    fn take(&self) -> Result<(), Errno> {
        nix::unistd::setgroups(&self.groups)?;
        nix::unistd::setresgid(self.gid, self.gid, self.gid)?;
        nix::unistd::setresuid(self.uid, self.uid, self.uid)?;
        let root = Uid::from_raw(0);
        let is_back = !self.uid.is_root() && nix::unistd::setresuid(root, root, root).is_ok();
        if is_back { Err(Errno::EPERM) } else { Ok(()) }
    }
}

struct Order {
    place: Place,
    directory: PathBuf,
    bounds: Vec<Bound>,
    program: PathBuf,
    arguments: Vec<OsString>,
}

impl Order {
    fn parse(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        let place = arguments.next()?;
        let place = [Place::Given, Place::Private].into_iter().find(|known| place == known.word())?;
        let directory = arguments.next()?.into();
        let bounds = arguments.next()?.into_string().ok()?;
        let bounds = bounds.split(',').filter(|text| !text.is_empty()).map(|text| text.parse().ok());
        let bounds = bounds.collect::<Option<Vec<Bound>>>()?;
        Some(Self { place, directory, bounds, program: arguments.next()?.into(), arguments: arguments.collect() })
    }

    /// Answers only what went wrong; nothing if the runner is gone.
    fn follow(self, identity: &Identity) -> Option<(&'static str, Errno)> {
        let variables = taken(GATE_FD, File::options().read(true)).and_then(read_variables).ok()?;
        let enter = || nix::unistd::chdir(&self.directory).map_err(|errno| (DIRECTORY, errno));
        let take = || identity.take().map_err(|errno| (USER, errno));
        let moved = match self.place {
            Place::Private => enter().and_then(|()| take()),
            Place::Given => take().and_then(|()| enter()),
        };
        if let Err(problem) = moved {
            return Some(problem);
        }
        let mut command = Command::new(&self.program);
        if let Some((name, rest)) = self.arguments.split_first() {
            command.arg0(name).args(rest);
        }
        let size: usize = variables.iter().map(|(name, value)| name.len() + value.len()).sum();
        command.env_clear().envs(variables);
        // Freed at once, and at hand for what `exec` takes once no more is given.
        drop(std::hint::black_box(Vec::<u8>::with_capacity(SPARE_BYTES + 4 * size)));
        for bound in &self.bounds {
            if let Err(errno) = bound.take() {
                return Some((LIMIT, errno));
            }
        }
        let error = command.exec();
        Some((PROGRAM, Errno::from_raw(error.raw_os_error().unwrap_or_default())))
    }
}

fn read_variables(mut gate: File) -> io::Result<Vec<(OsString, OsString)>> {
    let mut count = [0; size_of::<usize>()];
    gate.read_exact(&mut count)?;
    let count = usize::from_le_bytes(count);
    if count > VARIABLES_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; count];
    gate.read_exact(&mut bytes)?;
    let split = |entry: &[u8]| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((OsString::from_vec(entry[..at].to_vec()), OsString::from_vec(entry[at + 1..].to_vec())))
    };
    Ok(bytes.split(|byte| *byte == 0).filter_map(split).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_out_and_a_cut_is_seen() {
        let entries = ["A=1", "B=", "C=x=y\nz"].map(|text| CString::new(text).expect("no NUL"));
        let bytes = packed(&entries);
        let read = |bytes: &[u8]| {
            let (reader, mut writer) = io::pipe().expect("a pipe");
            writer.write_all(bytes).expect("room");
            drop(writer);
            read_variables(File::from(OwnedFd::from(reader)))
        };
        let text = |text: &str| OsString::from(text);
        let found = read(&bytes).expect("whole");
        assert_eq!(found, [(text("A"), text("1")), (text("B"), text("")), (text("C"), text("x=y\nz"))]);
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(read(&usize::MAX.to_le_bytes()).is_err(), "too many");
        assert_eq!(read(&packed(&[])).expect("whole"), []);
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let words = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>().into_iter();
        let order = Order::parse(words(&["given", "/srv", "memory:5:6,processes:7:7", "/bin/echo", "echo", "a", ""]));
        let order = order.expect("whole");
        assert_eq!((order.place, order.directory.as_path(), order.bounds.len()), (Place::Given, Path::new("/srv"), 2));
        assert_eq!((order.program.as_path(), order.arguments.len()), (Path::new("/bin/echo"), 3));
        for bad in [&["given"][..], &["other", "/", "", "/p"], &["given", "/", "speed:1:1", "/p"], &["given", "/", ""]]
        {
            assert!(Order::parse(words(bad)).is_none(), "{bad:?}");
        }
        for bad in ["", "1", "1:2", "1:2:", "1:2:x", "-1:2:3"] {
            assert!(Identity::parse(bad).is_none(), "{bad:?}");
        }
        let identity = Identity::parse("1:2:3,4").expect("whole");
        assert_eq!((identity.uid.as_raw(), identity.gid.as_raw(), identity.groups.len()), (1, 2, 2));
    }
}
