//! As which user attempts run: what `runner.user` says, and what this machine knows about that user. Not here: how a
//! process becomes it (`launch`). Invariant: a runner of root executes nothing as root unless it was told to, and a user that
//! is not known is refused before anything is claimed.

use std::ffi::CString;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User, getgrouplist};

use crate::executor::environment::Environment;

/// Whom a runner of root takes when nobody was named.
const DEFAULT: &str = "nobody";
/// The number of that user where the machine has no such name.
const DEFAULT_ID: u32 = 65534;
/// The number that system calls take for "leave it as it is".
const NO_ID: u32 = u32::MAX;
/// Bits of a mode: reading a file, changing what a directory holds, and entering it.
const READ: u32 = 4;
const WRITE: u32 = 2;
const ENTER: u32 = 1;
/// Of a directory in which only owners rename and remove what is theirs, as `/tmp`.
const STICKY: u32 = 0o1000;

/// A user of this machine, with the groups that its processes are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// For people: the name, or the number where there is none.
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, the first one included.
    pub(crate) groups: Vec<u32>,
    home: PathBuf,
}

/// The user that `exec` and `shell` attempts of a runner run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptUser(Choice);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Choice {
    /// The runner's own; the number.
    Own(u32),
    /// The one that was asked for.
    Asked(Account),
    /// Nobody said whom, and the runner is root.
    Default(Account),
}

impl AttemptUser {
    /// The user of attempts of a runner in this process. `asked` is a name or a number, with or without `:group`, as
    /// `runner.user` has it; `None`: the runner's own user, and `nobody` where that is root.
    ///
    /// # Errors
    /// A sentence that names key, value and fix: a user or group that this machine does not know, or another user
    /// than this process's though it is not root's.
    pub fn of(asked: Option<&str>) -> Result<Self, String> {
        choose(asked, nix::unistd::geteuid(), nix::unistd::getegid()).map(Self)
    }

    /// Whom a process must become before it executes anything.
    pub(crate) fn other(&self) -> Option<&Account> {
        match &self.0 {
            Choice::Own(_) => None,
            Choice::Asked(account) | Choice::Default(account) => Some(account),
        }
    }

    /// True if nobody was named, and the runner's own user is not taken because it is root.
    #[must_use]
    pub fn is_default_of_root(&self) -> bool {
        matches!(self.0, Choice::Default(_))
    }
}

impl fmt::Display for AttemptUser {
    /// The name, and the number where it has another.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::Own(uid) => match User::from_uid(Uid::from_raw(*uid)) {
                Ok(Some(user)) => write!(f, "{} ({uid})", user.name),
                Ok(None) | Err(_) => write!(f, "{uid}"),
            },
            Choice::Asked(account) | Choice::Default(account) if account.name == account.uid.to_string() => {
                write!(f, "{}", account.uid)
            }
            Choice::Asked(account) | Choice::Default(account) => write!(f, "{} ({})", account.name, account.uid),
        }
    }
}

fn choose(asked: Option<&str>, own: Uid, own_group: Gid) -> Result<Choice, String> {
    let Some(asked) = asked else {
        return if own.is_root() { default_account().map(Choice::Default) } else { Ok(Choice::Own(own.as_raw())) };
    };
    let (user, group) = match asked.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (asked, None),
    };
    let group = group.map(|group| find_group(asked, group)).transpose()?;
    let (uid, found) = find_user(asked, user)?;
    if uid == own && group.is_none_or(|group| group == own_group) {
        return Ok(Choice::Own(own.as_raw()));
    }
    if !own.is_root() {
        return Err(format!(
            "`runner.user` is `{asked}`: only a runner that is root can run attempts as another user or group, and this one is user {own} \
             and group {own_group}; start it as root, or remove the key"
        ));
    }
    match (found, group) {
        (Some(found), group) => Ok(Choice::Asked(Account::of(found, group))),
        (None, Some(group)) => Ok(Choice::Asked(Account::unknown(uid.as_raw(), group.as_raw()))),
        (None, None) => Err(format!(
            "`runner.user` is `{asked}`: this machine has no user {uid}, so that its group is not known; write it too, as in `{uid}:{uid}`"
        )),
    }
}

fn default_account() -> Result<Account, String> {
    let found = User::from_name(DEFAULT).map_err(|errno| not_looked_up(DEFAULT, errno))?;
    Ok(match found {
        Some(found) if !found.uid.is_root() => Account::of(found, None),
        Some(_) | None => Account::unknown(DEFAULT_ID, DEFAULT_ID),
    })
}

fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| is_number && *number != NO_ID)
}

fn find_user(asked: &str, text: &str) -> Result<(Uid, Option<User>), String> {
    let looked_up = match number(text) {
        Some(uid) => User::from_uid(Uid::from_raw(uid)).map(|found| Some((Uid::from_raw(uid), found))),
        None => User::from_name(text).map(|found| found.map(|user| (user.uid, Some(user)))),
    };
    looked_up.map_err(|errno| not_looked_up(asked, errno))?.ok_or_else(|| {
        format!(
            "`runner.user` is `{asked}`: this machine has no user `{text}`; write a user of `/etc/passwd`, or a number and a group as in \
             `1000:1000`"
        )
    })
}

fn find_group(asked: &str, text: &str) -> Result<Gid, String> {
    if let Some(gid) = number(text) {
        return Ok(Gid::from_raw(gid));
    }
    let found = Group::from_name(text).map_err(|errno| not_looked_up(asked, errno))?;
    found.map(|group| group.gid).ok_or_else(|| {
        format!("`runner.user` is `{asked}`: this machine has no group `{text}`; write a group of `/etc/group`, or its number")
    })
}

fn not_looked_up(asked: &str, errno: nix::errno::Errno) -> String {
    format!("`runner.user` is `{asked}`: it can't be looked up on this machine ({})", errno.desc().to_lowercase())
}

impl Account {
    fn of(user: User, group: Option<Gid>) -> Self {
        let gid = group.unwrap_or(user.gid);
        let listed = CString::new(user.name.as_str()).ok().and_then(|name| getgrouplist(&name, gid).ok());
        let groups = listed.map_or_else(|| vec![gid.as_raw()], |all| all.into_iter().map(Gid::as_raw).collect());
        Self { name: user.name, uid: user.uid.as_raw(), gid: gid.as_raw(), groups, home: user.dir }
    }

    /// One that the machine knows by its number alone.
    fn unknown(uid: u32, gid: u32) -> Self {
        Self { name: uid.to_string(), uid, gid, groups: vec![gid], home: PathBuf::from("/") }
    }

    /// Puts in place of the runner's own what says whose processes they are.
    pub(crate) fn fit(&self, variables: &mut Environment) {
        variables.insert("HOME".into(), self.home.clone().into());
        for name in ["USER", "LOGNAME"] {
            variables.insert(name.into(), self.name.clone().into());
        }
    }

    /// A file of a directory that this user may read, by the modes of the file and of the way to it; lists of rights beside
    /// the modes are not asked.
    pub(crate) fn readable_file(&self, directory: &Path) -> Option<PathBuf> {
        let entries = fs::read_dir(directory).ok()?;
        entries.filter_map(|entry| Some(entry.ok()?.path())).find(|path| self.may_read(path))
    }

    /// A directory that this user could put something else in place of: `path` or one on the way to it, links on the way and
    /// behind them included. What does not exist yet is left out. Asks owners and modes, as [`Account::readable_file`] does.
    pub(crate) fn changeable_directory(&self, path: &Path) -> Option<PathBuf> {
        if self.uid == 0 {
            // It is root's in any case.
            return None;
        }
        let path = std::path::absolute(path).ok()?;
        let there = path.ancestors().find(|path| path.exists())?;
        let behind_links = there.canonicalize().ok()?;
        there.ancestors().chain(behind_links.ancestors()).find(|path| self.may_change(path)).map(Path::to_owned)
    }

    fn may_change(&self, directory: &Path) -> bool {
        let Ok(found) = fs::metadata(directory) else { return false };
        // An owner gives itself every right.
        let is_sticky = found.mode() & STICKY != 0;
        found.uid() == self.uid || (!is_sticky && self.is_granted(&found, WRITE))
    }

    fn may_read(&self, path: &Path) -> bool {
        let Ok(path) = path.canonicalize() else { return false };
        let is_allowed = |path: &Path, bit: u32| fs::metadata(path).is_ok_and(|found| self.is_granted(&found, bit));
        path.is_file()
            && is_allowed(&path, READ)
            && path.ancestors().skip(1).all(|on_the_way| is_allowed(on_the_way, ENTER))
    }

    fn is_granted(&self, found: &fs::Metadata, bit: u32) -> bool {
        let shift = match (found.uid() == self.uid, found.gid()) {
            (true, _) => 6,
            (false, gid) if gid == self.gid || self.groups.contains(&gid) => 3,
            (false, _) => 0,
        };
        self.uid == 0 || (found.mode() >> shift) & bit == bit
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const ROOT: (u32, u32) = (0, 0);
    const SOMEBODY: (u32, u32) = (64999, 64999);

    fn chosen(asked: Option<&str>, (uid, gid): (u32, u32)) -> Result<Choice, String> {
        choose(asked, Uid::from_raw(uid), Gid::from_raw(gid))
    }

    #[test]
    fn root_becomes_nobody_unless_told() {
        let Ok(Choice::Default(account)) = chosen(None, ROOT) else { panic!("a default") };
        assert_ne!(account.uid, 0);
        assert_eq!(chosen(None, SOMEBODY), Ok(Choice::Own(64999)));
        for asked in ["root", "0", "root:root", "0:0"] {
            assert_eq!(chosen(Some(asked), ROOT), Ok(Choice::Own(0)), "{asked}");
        }
        for asked in ["64999", "64999:64999"] {
            assert_eq!(chosen(Some(asked), SOMEBODY), Ok(Choice::Own(64999)), "{asked}");
        }
    }

    #[test]
    fn a_user_is_found_by_name_and_by_number() {
        for (asked, uid, gid) in
            [("daemon", 1, 1), ("1", 1, 1), ("daemon:0", 1, 0), ("daemon:root", 1, 0), ("64999:64998", 64999, 64998)]
        {
            let Ok(Choice::Asked(account)) = chosen(Some(asked), ROOT) else { panic!("{asked}") };
            assert_eq!((account.uid, account.gid), (uid, gid), "{asked}");
            assert!(account.groups.contains(&gid), "{account:?}");
        }
        let Ok(Choice::Asked(account)) = chosen(Some("64999:64998"), ROOT) else { panic!("a number") };
        assert_eq!(account.groups, [64998], "nobody knows more of it");
        let mut variables = Environment::from([("HOME".into(), "/root".into()), ("TZ".into(), "UTC".into())]);
        account.fit(&mut variables);
        let shown: Vec<_> =
            variables.iter().map(|(name, value)| format!("{}={}", name.display(), value.display())).collect();
        assert_eq!(shown, ["HOME=/", "LOGNAME=64999", "TZ=UTC", "USER=64999"]);
    }

    #[test]
    fn what_can_not_be_is_refused_with_key_value_and_fix() {
        for (asked, own, words) in [
            ("no-such-user", ROOT, "no user `no-such-user`"),
            ("daemon:no-such-group", ROOT, "no group `no-such-group`"),
            ("", ROOT, "no user ``"),
            ("daemon:", ROOT, "no group ``"),
            ("64999", ROOT, "write it too, as in `64999:64999`"),
            ("4294967295:1", ROOT, "no user `4294967295`"),
            ("-1", ROOT, "no user `-1`"),
            ("root", SOMEBODY, "start it as root, or remove the key"),
            ("64999:0", SOMEBODY, "this one is user 64999 and group 64999"),
        ] {
            let problem = chosen(Some(asked), own).expect_err(asked);
            assert!(problem.starts_with(&format!("`runner.user` is `{asked}`:")), "{problem}");
            assert!(problem.contains(words), "{problem}");
        }
    }

    #[test]
    fn modes_of_files_and_of_the_way_to_them_say_who_reads() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join("secrets");
        fs::create_dir(&directory).expect("a directory");
        let file = directory.join("token");
        fs::write(&file, "hush").expect("a file");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        let stranger = Account::unknown(64999, 64999);
        for (way, own, of_file, is_readable) in [
            (0o755, 0o755, 0o644, true),
            (0o755, 0o711, 0o644, true),
            (0o755, 0o700, 0o644, false),
            (0o700, 0o755, 0o644, false),
            (0o755, 0o755, 0o600, false),
            (0o755, 0o755, 0o640, false),
        ] {
            set(folder.path(), way);
            set(&directory, own);
            set(&file, of_file);
            let found = stranger.readable_file(&directory);
            assert_eq!(found.is_some(), is_readable, "{way:o} {own:o} {of_file:o}");
        }
        let group = fs::metadata(&file).expect("a file").gid();
        let member = Account { groups: vec![64999, group], ..stranger };
        set(&file, 0o640);
        assert_eq!(member.readable_file(&directory), Some(file.canonicalize().expect("a path")));
        assert_eq!(member.readable_file(&directory.join("none")), None);
    }

    #[test]
    fn owners_and_modes_of_the_whole_way_say_who_may_put_something_else_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let (data, behind) = (folder.path().join("data"), folder.path().join("behind"));
        for directory in [&data, &behind] {
            fs::create_dir(directory).expect("a directory");
        }
        let (work, linked) = (data.join("work"), folder.path().join("linked/data/work"));
        std::os::unix::fs::symlink(&behind, folder.path().join("linked")).expect("a link");
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
        let stranger = Account::unknown(64999, 64999);
        set(folder.path(), 0o755);
        if nix::unistd::geteuid().is_root() {
            for mode in [0o555, 0o1755] {
                set(&data, mode);
                std::os::unix::fs::chown(&data, Some(64999), None).expect("an owner");
                assert_eq!(stranger.changeable_directory(&work), Some(data.clone()), "an owner may do all");
            }
            std::os::unix::fs::chown(&data, Some(0), None).expect("an owner");
        } else {
            eprintln!("owners_and_modes: only root can give a directory away, the owner's part is skipped");
        }
        for (way, own, changeable) in [
            (0o755, 0o755, None),
            (0o755, 0o775, None),
            (0o1777, 0o755, None),
            (0o755, 0o1777, None),
            (0o755, 0o757, Some(data.as_path())),
            (0o777, 0o755, Some(folder.path())),
        ] {
            set(folder.path(), way);
            set(&data, own);
            let found = stranger.changeable_directory(&work);
            assert_eq!(found.as_deref(), changeable, "{way:o} {own:o}");
        }
        set(folder.path(), 0o755);
        let member = Account { groups: vec![fs::metadata(&data).expect("a directory").gid()], ..stranger };
        set(&data, 0o775);
        assert_eq!(member.changeable_directory(&work), Some(data), "by its group");
        assert_eq!(member.changeable_directory(&linked), None);
        set(&behind, 0o777);
        assert_eq!(member.changeable_directory(&linked), Some(folder.path().join("linked")), "what a link leads to");
    }
}
