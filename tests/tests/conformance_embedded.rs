//! The conformance suite on the embedded log on disk, with real time and processes that are really killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::embedded::{EmbeddedLog, EmbeddedOptions};
use orloj_runtime::log::{Log, TopicPartition};
use orloj_tests::conformance::{Backend, holder};
use orloj_tests::wait;

const SESSION: Duration = Duration::from_millis(1500);

struct OnDisk {
    directory: tempfile::TempDir,
    log: Option<EmbeddedLog>,
}

fn open(directory: &Path) -> EmbeddedLog {
    let options = EmbeddedOptions { session: SESSION, ..EmbeddedOptions::default() };
    // The last handle of before may be in a thread that is just ending.
    wait::until("the directory to be free", Duration::from_secs(10), || {
        EmbeddedLog::open_with(directory, Arc::new(SystemClock::new()), options.clone()).ok()
    })
}

impl OnDisk {
    fn embedded(&self) -> &EmbeddedLog {
        self.log.as_ref().expect("the log is open")
    }
}

impl Backend for OnDisk {
    fn fresh() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let log = Some(open(directory.path()));
        Self { directory, log }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.embedded().clone())
    }

    /// One process has all members.
    fn other(&self) -> Arc<dyn Log> {
        self.log()
    }

    fn reopen(&mut self) {
        self.log = None;
        self.log = Some(open(self.directory.path()));
    }

    fn kill_a_holder(&mut self) {
        self.log = None;
        let mut process = Command::new(env!("CARGO_BIN_EXE_batch_holder"))
            .arg("embedded")
            .arg(self.directory.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let mut line = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), holder::READY);
        let id = i32::try_from(process.id()).expect("a process id");
        kill(Pid::from_raw(id), Signal::SIGKILL).expect("killed");
        process.wait().expect("it ended");
        self.log = Some(open(self.directory.path()));
    }

    fn compact(&self, _partitions: &[TopicPartition]) {
        self.embedded().maintain(SystemClock::new().now()).expect("maintained");
    }

    fn outlast_session(&self, alive: &mut dyn FnMut()) {
        let _ = wait::within(SESSION + SESSION / 4, || {
            alive();
            None::<()>
        });
    }

    fn tick(&self) {
        wait::while_it_lasts(Duration::from_millis(2));
    }
}

orloj_tests::conformance!(OnDisk);
