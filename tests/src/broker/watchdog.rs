//! Cleaning up after a test process that can no longer do so itself, because it was killed or left through `exit`.
//! A shell waits at the reading end of a pipe whose writing end only the test process has; end of file wakes it.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

/// A shell that outlives the test process just long enough to kill what it left running and to remove the directory.
pub(super) struct Watchdog {
    shell: Child,
    pipe: Option<ChildStdin>,
}

impl Watchdog {
    /// Reads one process id per line; the last one counts. At end of file it kills that process, if it still is the one
    /// whose command line names the directory (the id may have been given away since), and removes the directory.
    const SCRIPT: &str = r#"
        directory=$1 pid=
        while read -r line; do pid=$line; done
        if [ -n "$pid" ] && grep -aqF "$directory/" "/proc/$pid/cmdline" 2>/dev/null; then
            kill -KILL "$pid"
            rounds=0
            while [ -e "/proc/$pid/exe" ] && [ "$rounds" -lt 100 ]; do sleep 0.05; rounds=$((rounds + 1)); done
        fi
        rm -rf "$directory"
    "#;

    pub(super) fn start(directory: &Path) -> Watchdog {
        let mut shell = Command::new("sh")
            .args(["-c", Watchdog::SCRIPT, "sh"])
            .arg(directory)
            .stdin(Stdio::piped())
            // Not the test's own output: whoever reads that to its end must not wait for the watchdog.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("sh runs");
        let pipe = shell.stdin.take();
        Watchdog { shell, pipe }
    }

    pub(super) fn watch(&mut self, child: &Child) {
        let pipe = self.pipe.as_mut().expect("open until the broker is dropped");
        writeln!(pipe, "{}", child.id()).expect("the watchdog reads until the broker is dropped");
    }

    pub(super) fn finish(&mut self) {
        self.pipe = None;
        let _ = self.shell.wait();
    }
}
