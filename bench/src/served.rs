//! A service under test: the real `orloj serve` on Kafka, a thread of this process on the embedded log. Observed from outside: `/proc`, its metrics and what it says. Invariant: it does not outlive its handle.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bed::{Bed, PREFIX};
use crate::in_process::Services;
use crate::usage::{cpu_seconds, high_water_mib, own_user, resident_mib};

/// Longest wait for a trigger to have all its jobs, or to end.
const PATIENCE: Duration = Duration::from_secs(900);
/// Attempts that a runner holds at once.
const SLOTS: usize = 300;
/// How often its metrics are looked at while it starts.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A running service.
pub(crate) enum Served {
    /// A process of its own.
    Process { child: Child, port: u16, said: PathBuf },
    /// A thread of this process: what it uses can't be told from what the bench uses.
    Thread(Services),
}

impl Served {
    /// Starts a trigger; its files are in `data` below the bed's folder, so that a second start finds those of the first.
    pub(crate) fn trigger(bed: &Bed, data: &str) -> Self {
        Self::start(bed, "trigger", data)
    }

    /// As [`Served::trigger`], any service.
    pub(crate) fn start(bed: &Bed, service: &'static str, data: &str) -> Self {
        let Some(broker) = &bed.broker else { return Self::Thread(Services::start(bed, &[service])) };
        let port = free_port();
        let said = bed.directory().join(format!("{data}.log"));
        let settings = [
            format!("kafka.bootstrap.servers={}", broker.bootstrap()),
            format!("topics.prefix={PREFIX}"),
            format!("shards={}", bed.shards.get()),
            format!("data.dir={}", bed.directory().join(data).display()),
            format!("runner.user={}", own_user()),
            format!("runner.slots={SLOTS}"),
        ];
        let mut command = Command::new(binary("orloj"));
        command.args(["serve", service, "--listen", &format!("127.0.0.1:{port}")]);
        for setting in settings {
            command.args(["--set", &setting]);
        }
        Self::Process { child: spawned(command, &said), port, said }
    }

    /// Starts a runner whose handler `noop` does nothing, with so many slots. Kafka only.
    pub(crate) fn noop_runner(bed: &Bed, slots: usize) -> Self {
        let broker = bed.broker.as_ref().expect("a process of its own needs a log of its own");
        let said = bed.directory().join("noop-runner.log");
        let mut command = Command::new(binary("noop-runner"));
        let (shards, slots) = (bed.shards.get().to_string(), slots.to_string());
        command.args([broker.bootstrap(), PREFIX, &shards, &slots]);
        command.arg(bed.directory().join("noop-runner"));
        Self::Process { child: spawned(command, &said), port: 0, said }
    }

    /// Where `/proc` tells about it.
    pub(crate) fn process_id(&self) -> u32 {
        match self {
            Self::Process { child, .. } => child.id(),
            Self::Thread(_) => std::process::id(),
        }
    }

    pub(crate) fn cpu_seconds(&self) -> f64 {
        cpu_seconds(self.process_id())
    }

    pub(crate) fn resident_mib(&self) -> f64 {
        resident_mib(self.process_id())
    }

    pub(crate) fn high_water_mib(&self) -> f64 {
        high_water_mib(self.process_id())
    }

    /// The value of a metric without labels; 0 until it answers.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let Self::Process { port, .. } = self else { return 0.0 };
        let text = get(*port, "/metrics").unwrap_or_default();
        let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
        text.lines().find_map(of_line).unwrap_or(0.0)
    }

    /// Waits until it owns `shards` shards and holds `jobs` jobs that have a next fire time.
    pub(crate) fn wait_until_armed(&self, shards: i32, jobs: usize) {
        let deadline = Instant::now() + PATIENCE;
        if matches!(self, Self::Thread(_)) {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        while self.metric("orloj_trigger_shards") < f64::from(shards)
            || self.metric("orloj_trigger_armed_jobs") < jobs as f64
        {
            assert!(Instant::now() < deadline, "not armed; it said:\n{}", self.said());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Waits until a dispatcher holds so many live runs.
    pub(crate) fn wait_until_held(&self, runs: usize) {
        let deadline = Instant::now() + PATIENCE;
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        while self.metric("orloj_dispatcher_live_runs") < runs as f64 {
            assert!(Instant::now() < deadline, "not restored; it said:\n{}", self.said());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Waits until it has said this.
    pub(crate) fn wait_until_said(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said().contains(text) {
            assert!(Instant::now() < deadline, "it never said `{text}`:\n{}", self.said());
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// All it has said so far.
    pub(crate) fn said(&self) -> String {
        match self {
            Self::Process { said, .. } => std::fs::read_to_string(said).unwrap_or_default(),
            Self::Thread(_) => String::new(),
        }
    }

    /// Lets it end in order.
    pub(crate) fn stop(mut self) {
        match &mut self {
            Self::Process { child, .. } => {
                let id = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
                kill(id, Signal::SIGTERM).expect("a child of ours");
                child.wait().expect("a child of ours");
            }
            Self::Thread(services) => services.stop(),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Self::Process { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn spawned(mut command: Command, said: &Path) -> Child {
    let output = File::create(said).expect("a file of ours");
    let errors = output.try_clone().expect("a file of ours");
    command.stdin(Stdio::null()).stdout(output).stderr(errors).spawn().expect("it starts")
}

/// A binary beside this one.
fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("this program is a file");
    let binary = own.parent().unwrap_or(Path::new(".")).join(name);
    assert!(binary.exists(), "{} is missing; `make bench` builds it", binary.display());
    binary
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}
