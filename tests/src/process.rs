//! The real `orloj` binary as a child process: started, watched, stopped, killed, frozen. Not here: what it must
//! do (`e2e`, `faults`). Invariant: a child dies with its handle, and what it printed is shown when a test fails.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// How long a start, a stop or an answer may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The binary of this build.
///
/// # Panics
/// If it was not built: `make test` and `cargo test --workspace` build it.
#[must_use]
pub fn binary() -> PathBuf {
    let own = std::env::current_exe().expect("this test is a file");
    let folder = own.parent().and_then(|deps| deps.parent()).expect("target/debug/deps/test");
    let binary = folder.join("orloj");
    assert!(binary.exists(), "{} is missing: run `make test`, or `cargo build` first", binary.display());
    binary
}

/// Runs `orloj` with these arguments to its end, with nothing of the environment's configuration.
#[must_use]
pub fn run(arguments: &[&str]) -> Output {
    command(arguments).output().expect("orloj starts")
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("ORLOJ_SERVER").env_remove("RUST_LOG").stdin(Stdio::null());
    // Jobs of tests write into folders of whoever runs the tests.
    command.env("ORLOJ_RUNNER_USER", nix::unistd::geteuid().to_string());
    // For whoever looks into a failure: `ORLOJ_TEST_LOG=debug cargo test …`.
    if let Some(level) = std::env::var_os("ORLOJ_TEST_LOG") {
        command.env("RUST_LOG", level);
    }
    command
}

/// A running `orloj`.
pub struct Orloj {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Orloj {
    /// Starts it with these arguments.
    ///
    /// # Panics
    /// If the process can't be started.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// Starts it with these arguments and variables.
    ///
    /// # Panics
    /// If the process can't be started.
    #[must_use]
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = command(arguments);
        child.envs(variables.iter().copied());
        Self::watch(child)
    }

    /// Starts it as people do, who say nothing about the user of attempts. `wrapper` is a program with its arguments that
    /// becomes `orloj`; empty: none.
    ///
    /// # Panics
    /// If the process can't be started.
    #[must_use]
    pub fn start_plainly(wrapper: &[&str], arguments: &[&str]) -> Self {
        let plain = command(arguments);
        let mut child = match wrapper.split_first() {
            None => plain,
            Some((program, rest)) => {
                let mut wrapped = Command::new(program);
                wrapped.args(rest).arg(binary()).args(arguments).stdin(Stdio::null()).env_remove("ORLOJ_SERVER");
                wrapped
            }
        };
        child.env_remove("ORLOJ_RUNNER_USER");
        Self::watch(child)
    }

    fn watch(mut child: Command) -> Self {
        let mut child = child.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("orloj starts");
        let said = Arc::new(Mutex::new(String::new()));
        listen(child.stdout.take().expect("piped"), Arc::clone(&said));
        listen(child.stderr.take().expect("piped"), Arc::clone(&said));
        Self { child, said }
    }

    /// All it has printed so far.
    #[must_use]
    pub fn said(&self) -> String {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until it has printed `text`.
    pub fn wait_for(&mut self, text: &str) {
        let what = format!("`{text}` from orloj");
        let found = wait::within(PATIENCE, || self.said().contains(text).then_some(()));
        assert!(found.is_some(), "no {what}; it said:\n{}", self.said());
    }

    /// Waits until it says where its API is.
    pub fn url(&mut self) -> String {
        self.wait_for("API    http://");
        let said = self.said();
        let rest = said.split("API    ").nth(1).unwrap_or_default();
        rest.split("/api/").next().unwrap_or_default().to_owned()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        kill(id, signal).expect("the process is there");
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().expect("the process is there");
        self.child.wait().expect("it ends");
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        let status = self.wait_end();
        if !status.success() {
            eprintln!("--- orloj ended with {status}; it said:\n{}", self.said());
        }
        status
    }

    /// Waits for the end.
    pub fn wait_end(&mut self) -> ExitStatus {
        let ended = wait::within(PATIENCE, || self.child.try_wait().expect("a child of ours"));
        ended.unwrap_or_else(|| panic!("orloj does not end; it said:\n{}", self.said()))
    }
}

impl Drop for Orloj {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- orloj said:\n{}", self.said());
        }
    }
}

fn listen(stream: impl Read + Send + 'static, said: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            said.push_str(&line);
            said.push('\n');
        }
    });
}
