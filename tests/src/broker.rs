//! A real Apache Kafka broker for tests: one KRaft node on loopback in a directory of its own, never a mock.
//! Lives here: start, stop, kill, freeze and restart. The jars come from `tests/kafka` (`fetch.sh`).
//! Invariant: no broker and no directory outlives the test process, however that ends (see `watchdog`).

mod cluster;
mod settings;
mod watchdog;

pub use cluster::Cluster;

use crate::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use settings::{Manner, free_ports, new_cluster_id, settings};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Once, OnceLock};
use std::time::Duration;
use tempfile::TempDir;
use watchdog::Watchdog;

const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
const FORMAT_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(30);
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);
const START_ATTEMPTS_MAX: u32 = 5;
const LOG_ERRORS_MAX: usize = 10;
const LOG_TAIL_LINES_MAX: usize = 30;

/// A running (or stopped, or frozen) broker. Dropping it kills the process and removes its directory.
pub struct Broker {
    java: Option<Child>,
    watchdog: Watchdog,
    bootstrap: String,
    cluster: String,
    /// Brokers of its cluster, itself included.
    nodes: usize,
    manner: Manner,
    directory: TempDir,
}

impl Broker {
    /// The one broker that all tests of this test binary share; started by the first caller, gone when the process ends.
    pub fn shared() -> &'static Broker {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(Broker::start)
    }

    /// Starts a fresh broker and returns when it answers (about 3 s). Panics with what to install, or with the end of its log.
    pub fn start() -> Broker {
        Broker::start_as(Manner::Hasty)
    }

    /// As [`Broker::start`], with the memory, the collector and the intervals that Kafka comes with: for figures.
    pub fn start_stock() -> Broker {
        Broker::start_as(Manner::Stock)
    }

    fn start_as(manner: Manner) -> Broker {
        for _ in 0..START_ATTEMPTS_MAX {
            match Broker::try_start(manner) {
                Ok(broker) => return broker,
                Err(Failure::PortTaken) => continue,
                Err(Failure::Other(message)) => panic!("{message}"),
            }
        }
        panic!("no free ports for a Kafka broker after {START_ATTEMPTS_MAX} attempts")
    }

    /// The address for `bootstrap.servers`; stays the same over restarts.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The process id of the running broker.
    pub fn process_id(&self) -> u32 {
        self.java.as_ref().expect("only a running broker has a process id").id()
    }

    /// Where the broker keeps its settings, data and log.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The first errors and the last lines of the broker's log, for the message of a failed test.
    pub fn log_excerpt(&self) -> String {
        excerpt(&read_from(&self.log_path(), 0))
    }

    /// Lets the broker shut down cleanly and waits for that. A frozen broker is thawed first; a stopped one stays stopped.
    pub fn stop(&mut self) {
        let Some(java) = self.java.as_mut() else {
            return;
        };
        let pid = pid_of(java);
        for signal in [Signal::SIGCONT, Signal::SIGTERM] {
            kill(pid, signal).expect("the broker is our own child, not yet reaped");
        }
        if wait_for_exit(java, STOP_DEADLINE).is_none() {
            panic!("the broker did not stop within {STOP_DEADLINE:?}\n{}", self.log_excerpt());
        }
        self.java = None;
    }

    /// Kills the broker on the spot, as a power cut would (what it wrote stays with the operating system).
    pub fn kill(&mut self) {
        let Some(mut java) = self.java.take() else {
            return;
        };
        java.kill().expect("the broker is our own child");
        java.wait().expect("the broker is our own child");
    }

    /// Freezes the broker: connections stay open and nothing answers.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Thaws a frozen broker.
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Starts the broker again in the same directory and on the same ports, stopping it cleanly first if it still runs.
    /// Returns when it answers and each partition has its leader.
    pub fn restart(&mut self) {
        self.stop();
        match self.launch() {
            Ok(()) => {}
            Err(Failure::PortTaken) => panic!("another process took {} from the stopped broker", self.bootstrap),
            Err(Failure::Other(message)) => panic!("{message}"),
        }
    }

    fn try_start(manner: Manner) -> Result<Broker, Failure> {
        let [port, controller_port] = free_ports();
        let content = |data: &Path| settings(data, port, controller_port, manner);
        let mut broker = Broker::prepare(port, &new_cluster_id(), 1, content)?;
        broker.manner = manner;
        broker.format(&["--standalone"])?;
        broker.launch()?;
        Ok(broker)
    }

    /// A broker with a directory and settings, not formatted yet.
    fn prepare(
        port: u16,
        cluster: &str,
        nodes: usize,
        settings: impl FnOnce(&Path) -> String,
    ) -> Result<Broker, Failure> {
        let directory = tempfile::Builder::new()
            .prefix("orloj-kafka-")
            .tempdir()
            .map_err(|error| Failure::Other(format!("cannot make a directory for the broker: {error}")))?;
        let broker = Broker {
            java: None,
            watchdog: Watchdog::start(directory.path()),
            bootstrap: format!("127.0.0.1:{port}"),
            cluster: cluster.to_owned(),
            nodes,
            manner: Manner::Hasty,
            directory,
        };
        let settings = settings(&broker.directory.path().join("data"));
        fs::write(broker.settings_path(), settings)
            .map_err(|error| Failure::Other(format!("cannot write the broker's settings: {error}")))?;
        Ok(broker)
    }

    /// Gives the data directory its cluster id, and its voters if the settings do not name them.
    fn format(&mut self, voters: &[&str]) -> Result<(), Failure> {
        let settings = self.settings_path();
        let cluster = self.cluster.clone();
        let mut command = java_command(&["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"], "kafka.tools.StorageTool")?;
        command.arg("format").args(voters).args(["--cluster-id", &cluster, "--config"]).arg(settings);
        self.spawn(command)?;
        let Some(java) = self.java.as_mut() else {
            return Ok(());
        };
        let status = wait_for_exit(java, FORMAT_DEADLINE);
        if status.is_some_and(|status| status.success()) {
            self.java = None;
            return Ok(());
        }
        let fate = status.map_or("it hung".to_owned(), |status| status.to_string());
        Err(Failure::Other(format!("formatting the broker's directory failed: {fate}\n{}", self.log_excerpt())))
    }

    /// Starts the server process and waits until it answers.
    fn launch(&mut self) -> Result<(), Failure> {
        let log_start = self.launch_aside()?;
        self.wait_for_answer(log_start)
    }

    /// Starts the server process; answers where its log begins.
    fn launch_aside(&mut self) -> Result<u64, Failure> {
        let log_start = fs::metadata(self.log_path()).map_or(0, |metadata| metadata.len());
        let settings = self.settings_path();
        let mut command = java_command(self.manner.java_options(), "kafka.Kafka")?;
        command.arg(settings);
        self.spawn(command)?;
        Ok(log_start)
    }

    /// Waits until the server answers and knows all brokers of its cluster.
    fn wait_for_answer(&mut self, log_start: u64) -> Result<(), Failure> {
        let Some(java) = self.java.as_mut() else {
            return Ok(());
        };
        let probe = Probe::new(&self.bootstrap, &self.cluster, self.nodes);
        let answer = wait::within(ANSWER_DEADLINE, || match java.try_wait() {
            Ok(Some(status)) => Some(Err(status.to_string())),
            Ok(None) => probe.is_answered().then_some(Ok(())),
            Err(error) => Some(Err(error.to_string())),
        });
        let fate = match answer {
            Some(Ok(())) => return Ok(()),
            Some(Err(fate)) => fate,
            None => format!("no answer within {ANSWER_DEADLINE:?}"),
        };
        self.kill();
        let log = read_from(&self.log_path(), log_start);
        if log.contains("Address already in use") {
            return Err(Failure::PortTaken);
        }
        Err(Failure::Other(format!("the Kafka broker did not start: {fate}\n{}", excerpt(&log))))
    }

    /// Runs a command as this broker's process, under the watchdog, with its output in the broker's log.
    fn spawn(&mut self, mut command: Command) -> Result<(), Failure> {
        let log = self.open_log().and_then(|log| Ok((log.try_clone()?, log)));
        let (output, errors) = log.map_err(|error| Failure::Other(format!("cannot open the broker's log: {error}")))?;
        // A group of its own: Ctrl-C in a terminal reaches the tests only, and the watchdog does the rest.
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let java = command.spawn().map_err(|error| {
            let is_missing = error.kind() == ErrorKind::NotFound;
            let cause =
                if is_missing { missing("Java (java, 17 or newer)") } else { format!("cannot run java: {error}") };
            Failure::Other(cause)
        })?;
        self.watchdog.watch(&java);
        self.java = Some(java);
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        let java = self.java.as_ref().expect("only a running broker can be frozen or thawed");
        kill(pid_of(java), signal).expect("the broker is our own child, not yet reaped");
    }

    fn settings_path(&self) -> PathBuf {
        self.directory.path().join("server.properties")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("broker.log")
    }

    fn open_log(&self) -> io::Result<File> {
        OpenOptions::new().create(true).append(true).open(self.log_path())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut java) = self.java.take() {
            // Nothing is left to do about an error here; the watchdog tries once more.
            let _ = java.kill();
            let _ = java.wait();
        }
        self.watchdog.finish();
    }
}

/// Whether the tests that need a Kafka broker run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kafka {
    /// They run; without Java or the jars they fail.
    On,
    /// They are skipped, and said to be.
    Off,
}

/// Reads `ORLOJ_TEST_KAFKA`. Only `off` switches off, and says so on stderr once per test binary, past the test runner's capture.
#[allow(clippy::disallowed_methods, reason = "the one switch of the tests comes from the environment")]
pub fn kafka_mode() -> Kafka {
    static NOTICE: Once = Once::new();
    if std::env::var("ORLOJ_TEST_KAFKA").as_deref() != Ok("off") {
        return Kafka::On;
    }
    NOTICE.call_once(|| {
        // A closed stderr is no reason to fail.
        let _ = writeln!(io::stderr(), "Kafka tests skipped: ORLOJ_TEST_KAFKA=off");
    });
    Kafka::Off
}

enum Failure {
    PortTaken,
    Other(String),
}

/// A client that only asks whether this very broker is ready; another broker on the same port is told by its cluster id.
struct Probe<'a> {
    consumer: BaseConsumer<Silent>,
    cluster: &'a str,
    nodes: usize,
}

impl<'a> Probe<'a> {
    fn new(bootstrap: &str, cluster: &'a str, nodes: usize) -> Probe<'a> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("reconnect.backoff.ms", "20")
            .set("reconnect.backoff.max.ms", "100")
            .create_with_context(Silent)
            .expect("a consumer of these settings can be made");
        Probe { consumer, cluster, nodes }
    }

    fn is_answered(&self) -> bool {
        let Ok(metadata) = self.consumer.fetch_metadata(None, PROBE_TIMEOUT) else {
            return false;
        };
        let is_led = metadata.topics().iter().all(|topic| {
            topic.error().is_none()
                && topic.partitions().iter().all(|part| part.error().is_none() && part.leader() >= 0)
        });
        is_led
            && metadata.brokers().len() == self.nodes
            && self.consumer.client().fetch_cluster_id(PROBE_TIMEOUT).as_deref() == Some(self.cluster)
    }
}

/// While a broker starts its clients complain; that is expected and not reported.
struct Silent;

impl ClientContext for Silent {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {}
    fn error(&self, _error: KafkaError, _reason: &str) {}
}

impl ConsumerContext for Silent {}

fn java_command(options: &[&str], class: &str) -> Result<Command, Failure> {
    let jars = Path::new(env!("CARGO_MANIFEST_DIR")).join("kafka/lib");
    // fetch.sh writes this file last, so a set that is not whole counts as missing.
    if !jars.join(".complete").is_file() {
        return Err(Failure::Other(missing("the Kafka broker's jars (tests/kafka/fetch.sh; needs Maven)")));
    }
    let mut command = Command::new("java");
    command.args(["-Xshare:auto", "-Dorg.slf4j.simpleLogger.showDateTime=true"]);
    command.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
    command.arg("-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn");
    command.args(options).arg("-cp").arg(jars.join("*")).arg(class);
    Ok(command)
}

fn missing(what: &str) -> String {
    format!("missing for the Kafka tests: {what}. `make test` installs it; ORLOJ_TEST_KAFKA=off skips these tests")
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a process id fits"))
}

/// The exit status, or `None` when the deadline passed first.
fn wait_for_exit(child: &mut Child, deadline: Duration) -> Option<ExitStatus> {
    wait::within(deadline, || child.try_wait().expect("the broker is our own child"))
}

/// What the file holds from byte `start` on.
fn read_from(path: &Path, start: u64) -> String {
    let content = fs::read(path).unwrap_or_default();
    let start = usize::try_from(start).map_or(content.len(), |start| start.min(content.len()));
    String::from_utf8_lossy(&content[start..]).into_owned()
}

/// The first errors of a log, which the notices of the shutdown that follows would hide, and its last lines.
fn excerpt(log: &str) -> String {
    let errors = log.lines().filter(|line| line.contains(" ERROR ") || line.contains("Exception: "));
    let mut lines: Vec<&str> = errors.take(LOG_ERRORS_MAX).collect();
    lines.push("...");
    let last = log.lines().count().saturating_sub(LOG_TAIL_LINES_MAX);
    lines.extend(log.lines().skip(last));
    lines.join("\n")
}
