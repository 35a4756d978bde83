//! A control group (cgroup v2) for each attempt, below the runner's own, where it may make some. Not here: who else
//! belongs to an attempt (`tree`). Invariant: a process is in its group before its program begins, so that nothing it
//! starts is outside; and a group is gone when its attempt has ended.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, Pid, access};
use orloj_domain::job::ProcessLimits;

/// What names of groups begin with.
const PREFIX: &str = "orloj-";

/// Where groups are made.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    own: PathBuf,
}

impl Groups {
    /// The group of this process, if others can be made below it. Removes what a killed runner left there.
    pub(crate) fn find() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let cgroup = fs::read_to_string("/proc/self/cgroup").ok()?;
        let groups = Self { own: own_group(&mounts, &cgroup)? };
        // Whoever moves a process out of a group needs the right to write here too.
        access(&groups.own.join("cgroup.procs"), AccessFlags::W_OK).ok()?;
        groups.remove_empty();
        // The only way to know is to do it; `cgroup.kill` is there since Linux 5.14.
        let probe = groups.make(&format!("{PREFIX}probe-{}", std::process::id()), None).ok()?;
        probe.path.join("cgroup.kill").exists().then_some(groups)
    }

    /// Makes a group. Limits hold for it as a whole where the kernel's controllers are at hand.
    pub(super) fn make(&self, name: &str, limits: Option<&ProcessLimits>) -> io::Result<Group> {
        let path = self.own.join(name);
        fs::create_dir(&path)?;
        let group = Group { path, bounds_processes: false };
        let Some(limits) = limits else { return Ok(group) };
        group.limit("memory.max", limits.memory_bytes)?;
        let bounds_processes = group.limit("pids.max", limits.processes)?;
        Ok(group.bounding(bounds_processes))
    }

    fn remove_empty(&self) {
        let Ok(entries) = fs::read_dir(&self.own) else { return };
        let is_ours = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(PREFIX.as_bytes());
        for name in entries.filter_map(|entry| Some(entry.ok()?.file_name())).filter(is_ours) {
            // One with processes in it is another runner's, and stays.
            let _ = fs::remove_dir(self.own.join(name));
        }
    }
}

/// The group of one attempt; removed with the last who knows it.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    bounds_processes: bool,
}

impl Group {
    /// Moves a process into the group.
    pub(super) fn place(&self, pid: Pid) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    /// Whoever is in it and runs.
    pub(super) fn members(&self) -> Vec<i32> {
        let list = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
        list.lines().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// Kills all that are in it at one blow, those too that are being made.
    pub(super) fn kill(&self) {
        // Refused only when it is gone.
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
    }

    /// True if it bounds how many processes it has, root's too.
    pub(super) fn bounds_processes(&self) -> bool {
        self.bounds_processes
    }

    fn bounding(mut self, bounds_processes: bool) -> Self {
        self.bounds_processes = bounds_processes;
        self
    }

    /// True if the limit holds; it does not where its controller is not at hand.
    fn limit(&self, file: &str, value: Option<i64>) -> io::Result<bool> {
        let file = self.path.join(file);
        match value {
            Some(value) if file.exists() => fs::write(file, value.to_string()).map(|()| true),
            Some(_) | None => Ok(false),
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A process that the kernel can't end now keeps it; the next start of a runner removes it.
        if let Err(error) = fs::remove_dir(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the group of an attempt was not removed");
        }
    }
}

/// The folder of this process's group: the mount of cgroup v2 and what lies below its root.
fn own_group(mounts: &str, cgroup: &str) -> Option<PathBuf> {
    let path = Path::new(cgroup.lines().find_map(|line| line.strip_prefix("0::"))?);
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        let below = path.strip_prefix(root).ok()?;
        after.starts_with("cgroup2 ").then(|| Path::new(mount).join(below))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_what_the_kernel_tells() {
        const UNIFIED: &str =
            "24 30 0:22 / /proc rw - proc proc rw\n29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw";
        const HYBRID: &str = "40 31 0:37 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        const INSIDE: &str = "41 31 0:38 /box/7 /sys/fs/cgroup ro - cgroup2 cgroup2 rw";
        for (mounts, cgroup, expected) in [
            (UNIFIED, "0::/system.slice/orloj.service\n", Some("/sys/fs/cgroup/system.slice/orloj.service")),
            (HYBRID, "8:pids:/a\n0::/\n", Some("/sys/fs/cgroup/unified")),
            (INSIDE, "0::/box/7/b\n", Some("/sys/fs/cgroup/b")),
            (INSIDE, "0::/other\n", None),
            (UNIFIED, "8:pids:/a\n", None),
            ("", "0::/\n", None),
        ] {
            assert_eq!(own_group(mounts, cgroup), expected.map(PathBuf::from), "{cgroup}");
        }
    }

    /// Files of a folder stand for those of the kernel.
    #[test]
    fn a_group_is_limited_where_there_are_controllers() {
        let folder = tempfile::tempdir().expect("folder");
        let group = Group { path: folder.path().join("g"), bounds_processes: false };
        fs::create_dir(&group.path).expect("group");
        fs::write(group.path.join("pids.max"), "max").expect("file");
        assert!(group.limit("pids.max", Some(20)).expect("limit"));
        assert_eq!(fs::read_to_string(group.path.join("pids.max")).expect("file"), "20");
        assert!(!group.limit("memory.max", Some(20)).expect("no controller"));
        assert!(!group.limit("pids.max", None).expect("no limit"));
        fs::remove_file(group.path.join("pids.max")).expect("file");
    }
}
