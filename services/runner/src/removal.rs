//! Removing a directory with all that a job has put there. `std::fs::remove_dir_all` takes a frame of the stack and a descriptor for each
//! level, and a job may make more levels than there is of either. Not here: which directory, and when. Invariant: what it takes of the stack
//! and of descriptors is the same for every tree; no link is followed, and nothing is removed outside of the tree.

use std::ffi::CString;
use std::io;
use std::path::Path;

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// Names that are read at once: a directory may hold more than there is memory for.
const NAMES_MAX: usize = 256;

/// A directory that is being emptied.
struct Level {
    /// Device and number, by which it is known again on the way up.
    identity: (u64, u64),
    /// Its name in the one above; none of the first.
    name: Option<CString>,
    /// Directories in it that are not empty.
    full: Vec<CString>,
    /// It holds more names than were read.
    has_more: bool,
}

/// Removes a directory and all that is in it.
///
/// # Errors
/// The first thing that can't be removed, or a directory that somebody moves meanwhile. What is left is a smaller tree.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    let mut here = Dir::open(path, flags(), Mode::empty())?;
    let mut levels = vec![Level::clear(&mut here, None)?];
    while let Some(level) = levels.last_mut() {
        if let Some(name) = level.full.pop() {
            match Dir::openat(&here, name.as_c_str(), flags(), Mode::empty()) {
                Ok(below) => {
                    here = below;
                    levels.push(Level::clear(&mut here, Some(name))?);
                }
                Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
        } else if level.has_more {
            level.read(&mut here)?;
        } else {
            let name = levels.pop().and_then(|level| level.name);
            let (Some(name), Some(above)) = (name, levels.last()) else { break };
            here = Dir::openat(&here, c"..", flags(), Mode::empty())?;
            if identity(&here)? != above.identity {
                return Err(io::Error::other("a directory was moved while its tree was removed"));
            }
            remove(&here, &name, UnlinkatFlags::RemoveDir)?;
        }
    }
    std::fs::remove_dir(path)
}

fn flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn identity(directory: &Dir) -> Result<(u64, u64), Errno> {
    fstat(directory).map(|found| (found.st_dev, found.st_ino))
}

impl Level {
    fn clear(directory: &mut Dir, name: Option<CString>) -> Result<Self, Errno> {
        let mut level = Self { identity: identity(directory)?, name, full: Vec::new(), has_more: false };
        level.read(directory)?;
        Ok(level)
    }

    /// Removes what is no full directory, of as many names as are read at once.
    fn read(&mut self, directory: &mut Dir) -> Result<(), Errno> {
        let is_own = |name: &CString| name.as_c_str() != c"." && name.as_c_str() != c"..";
        let names = directory.iter().map(|entry| entry.map(|entry| entry.file_name().to_owned()));
        let names = names.filter(|name| name.as_ref().map_or(true, is_own)).take(NAMES_MAX);
        let names: Vec<CString> = names.collect::<Result<_, _>>()?;
        self.has_more = names.len() == NAMES_MAX;
        for name in names {
            match remove(directory, &name, UnlinkatFlags::NoRemoveDir) {
                Err(Errno::EISDIR) => match remove(directory, &name, UnlinkatFlags::RemoveDir) {
                    Err(Errno::ENOTEMPTY | Errno::EEXIST) => self.full.push(name),
                    other => other?,
                },
                other => other?,
            }
        }
        Ok(())
    }
}

/// Somebody may have done it already.
fn remove(directory: &Dir, name: &CString, how: UnlinkatFlags) -> Result<(), Errno> {
    match unlinkat(directory, name.as_c_str(), how) {
        Err(Errno::ENOENT) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::fcntl::openat;
    use nix::sys::stat::mkdirat;

    use super::*;

    const LEVELS: usize = 5_000;
    const STACK_BYTES: usize = 128 << 10;

    /// No path leads to the end of it.
    fn dig(top: &Path) {
        let mut here = Dir::open(top, flags(), Mode::empty()).expect("a directory");
        for _ in 0..LEVELS {
            mkdirat(&here, c"deeper", Mode::S_IRWXU).expect("a directory");
            openat(&here, c"file", OFlag::O_CREAT | OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::S_IRWXU).expect("a file");
            here = Dir::openat(&here, c"deeper", flags(), Mode::empty()).expect("a directory");
        }
    }

    #[test]
    fn a_tree_is_removed_however_deep_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let top = folder.path().join("top");
        fs::create_dir(&top).expect("a directory");
        dig(&top);
        let path = top.clone();
        let removing = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || remove_tree(&path));
        removing.expect("a thread").join().expect("room on the stack").expect("nothing stays");
        assert!(!top.exists());
    }

    #[test]
    fn a_tree_is_removed_however_wide_it_is_and_links_lead_nowhere() {
        let folder = tempfile::tempdir().expect("a folder");
        let (top, other) = (folder.path().join("top"), folder.path().join("other"));
        fs::create_dir_all(other.join("kept")).expect("a directory");
        for name in 0..3 * NAMES_MAX {
            let full = top.join(format!("full-{name}"));
            fs::create_dir_all(full.join("in it")).expect("a directory");
            fs::write(full.join("file"), "").expect("a file");
            fs::write(top.join(format!("file-{name}")), "").expect("a file");
        }
        symlink(&other, top.join("link")).expect("a link");
        symlink("nowhere", top.join("full-0/link")).expect("a link");
        nix::unistd::mkfifo(&top.join("fifo"), Mode::S_IRWXU).expect("a pipe");
        remove_tree(&top).expect("nothing stays");
        assert!(!top.exists());
        assert!(other.join("kept").exists(), "what a link names is somebody else's");

        let link = folder.path().join("link");
        symlink(&other, &link).expect("a link");
        assert!(remove_tree(&link).is_err());
        assert!(remove_tree(&folder.path().join("none")).is_err());
        assert!(other.join("kept").exists());
    }
}
