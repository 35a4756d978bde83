//! A runner inside of a service: what it is built from, and its life. Not here: what it does with attempts
//! (`orloj_runner`). Invariant: unless it is told otherwise, it executes nothing but the handlers it was given.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use orloj_domain::id::{QueueName, RunnerId};
use orloj_domain::runner::{LABEL_RULE, is_label_text};
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runner::{Handler, Handlers, RunnerConfig};
use orloj_runtime::clock::SystemClock;
use orloj_runtime::host;
use orloj_runtime::log::{Log, LogError, Waker};
use orloj_runtime::shutdown::Shutdown;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::connection::{ClientError, Connection};
use crate::context::Context;
use crate::failure::Failure;
use crate::typed::Typed;

/// Pauses between two looks for a log that is away: doubled from the first up to the last.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// A shorter lease can't be kept.
const LEASE_MIN: Duration = Duration::from_millis(300);

/// Runners that this process has made, so that each has a name of its own.
static MADE: AtomicU64 = AtomicU64::new(0);

/// A runner that executes a service's own handlers in the service's process.
///
/// ```no_run
/// use orloj_client::{Context, Failure, Runner};
///
/// #[derive(serde::Deserialize)]
/// struct Invoices {
///     tenant: u32,
/// }
///
/// async fn send_invoices(context: Context<Invoices>) -> Result<String, Failure> {
///     context.progress(50, format!("tenant {}", context.payload().tenant));
///     Ok("sent".to_owned())
/// }
///
/// # fn main() -> Result<(), orloj_client::ClientError> {
/// let runner = Runner::builder()
///     .kafka("localhost:9092")
///     .queue("billing")
///     .handler("send-invoices", send_invoices)
///     .handler("ping", async |_: Context<()>| Ok(()))
///     .build()?;
/// let stop = runner.stop_handle();
/// stop.on_signals().expect("a thread");
/// runner.run() // until SIGINT or SIGTERM, or until somebody calls `stop.stop()`
/// # }
/// ```
#[derive(Debug)]
pub struct Runner {
    connection: Connection,
    config: RunnerConfig,
    stop: StopHandle,
}

/// Ends a runner from another thread. Clones end the same one.
#[derive(Clone, Default)]
pub struct StopHandle(Shutdown);

impl StopHandle {
    /// Asks the runner to drain and end; repeating it changes nothing. Returns at once.
    pub fn stop(&self) {
        self.0.request();
    }

    /// Stops the runner on SIGINT (Ctrl-C) and SIGTERM, which end the process no more from here on; a second one changes
    /// nothing.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupts, mut terminations) = {
            let _guard = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let stop = self.clone();
        std::thread::Builder::new().name("orloj-signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupts.recv() => {}
                    _ = terminations.recv() => {}
                }
            });
            stop.stop();
        })?;
        Ok(())
    }
}

impl std::fmt::Debug for StopHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StopHandle").field("is_stopped", &self.0.is_requested()).finish()
    }
}

impl Runner {
    /// A runner of the queue `default` on Kafka at `localhost:9092`, without handlers yet.
    #[must_use]
    pub fn builder() -> RunnerBuilder {
        RunnerBuilder {
            connection: Connection::kafka("localhost:9092"),
            queues: Vec::new(),
            labels: BTreeMap::new(),
            slots: 16,
            lease: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(30),
            id: None,
            handlers: Vec::new(),
            runtime: None,
            work_dir: None,
            user: None,
        }
    }

    /// Ends this runner; may be asked for before it runs.
    #[must_use]
    pub fn stop_handle(&self) -> StopHandle {
        self.stop.clone()
    }

    /// Runs until it is stopped, then drains: takes no more attempts, waits for those it has up to the drain timeout,
    /// ends the rest, hands them back and leaves. Blocks: call it on a plain thread, or in `tokio::task::spawn_blocking`.
    /// A log that is away at the start is waited for.
    ///
    /// # Errors
    /// [`ClientError`] when a person must act: the topics are missing or not an installation's, a right is missing.
    pub fn run(self) -> Result<(), ClientError> {
        let log = self.connection.open()?;
        let Some(shards) = self.find_shards(&*log)? else { return Ok(()) };
        let config = RunnerConfig { shards, ..self.config };
        Ok(orloj_runner::run(config, log, Arc::new(SystemClock::new()), self.stop.0)?)
    }

    /// The number of shards as soon as the log answers; none if the runner was stopped before.
    fn find_shards(&self, log: &dyn Log) -> Result<Option<ShardCount>, ClientError> {
        let (wake, woken) = channel::<()>();
        self.stop.0.on_request(Waker::new(move || {
            // Nobody waits any more once the log was found.
            let _ = wake.send(());
        }));
        let mut pause = RETRY_FIRST;
        while !self.stop.0.is_requested() {
            match self.connection.shards(log, &[topic::ATTEMPT_EVENTS, topic::RUNNER_INBOX]) {
                Ok(shards) => return Ok(Some(shards)),
                Err(LogError::Unavailable(reason)) => {
                    tracing::warn!(reason, again_in = ?pause, "the log is not available");
                }
                Err(error) => return Err(error.into()),
            }
            match woken.recv_timeout(pause) {
                Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => pause = (pause * 2).min(RETRY_LAST),
            }
        }
        Ok(None)
    }
}

/// What a [`Runner`] is built from.
pub struct RunnerBuilder {
    connection: Connection,
    queues: Vec<String>,
    labels: BTreeMap<String, String>,
    slots: usize,
    lease: Duration,
    drain_timeout: Duration,
    id: Option<String>,
    handlers: Vec<(String, Arc<dyn Handler>)>,
    runtime: Option<Handle>,
    work_dir: Option<PathBuf>,
    user: Option<String>,
}

impl RunnerBuilder {
    /// Where the log is; replaces all that was said of it before.
    #[must_use]
    pub fn connection(mut self, connection: Connection) -> Self {
        self.connection = connection;
        self
    }

    /// Kafka at `bootstrap`: `host:port`, several with commas between them.
    #[must_use]
    pub fn kafka(self, bootstrap: &str) -> Self {
        self.setting("bootstrap.servers", bootstrap)
    }

    /// See [`Connection::setting`].
    #[must_use]
    pub fn setting(mut self, key: &str, value: &str) -> Self {
        self.connection = self.connection.setting(key, value);
        self
    }

    /// See [`Connection::prefix`].
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Self {
        self.connection = self.connection.prefix(prefix);
        self
    }

    /// A log that is open already, in place of Kafka.
    #[must_use]
    pub fn log(self, log: Arc<dyn Log>) -> Self {
        self.connection(Connection::log(log))
    }

    /// Takes attempts from this queue; may be called for several. Without any it is `default`, which `orloj` runners
    /// take from too: give the service a queue of its own, for whoever takes a job must have its handler.
    #[must_use]
    pub fn queue(mut self, name: &str) -> Self {
        self.queues.push(name.to_owned());
        self
    }

    /// Says something about this runner, as in `("zone", "eu")`: jobs may ask for it by `runnerSelector`. May be called for several;
    /// of one name the last counts. Each is at most 63 letters, digits, `.`, `_`, `-` and `/`, and a name at least one.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Most attempts at a time, 1 or more; 16 unless it is set here.
    #[must_use]
    pub fn slots(mut self, count: usize) -> Self {
        self.slots = count;
        self
    }

    /// How long the dispatcher waits for a sign of life before it gives the runner's attempts to others, 300 ms or more
    /// and at most the installation's `runner.lease`; 15 s unless it is set here.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long attempts may go on after a stop; 30 s unless it is set here.
    #[must_use]
    pub fn drain_timeout(mut self, timeout: Duration) -> Self {
        self.drain_timeout = timeout;
        self
    }

    /// Its name, 1 to 128 printable characters, which no other live runner has; made of host and process unless it is
    /// set here.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Adds a handler: an `async fn` that takes a [`Context`] of its payload's type, or a closure that returns a future.
    /// The name is what manifests call it in `spec.run.handler.name`: 1 to 63 lower-case letters, digits or `-`.
    ///
    /// What it returns is shown as the message of the outcome: a text as it is, other values as JSON, `()` not at all; at
    /// most 1000 characters. A panic is a failed attempt. A payload that does not fit `P` is an attempt that could not be
    /// started, with the path of the field. Blocking work belongs into `tokio::task::spawn_blocking`.
    #[must_use]
    pub fn handler<F, P, T, Called>(mut self, name: &str, function: F) -> Self
    where
        F: Fn(Context<P>) -> Called + Send + Sync + 'static,
        Called: Future<Output = Result<T, Failure>> + Send + 'static,
        P: DeserializeOwned + Send + 'static,
        T: Serialize,
    {
        self.handlers.push((name.to_owned(), Arc::new(Typed::new(function))));
        self
    }

    /// Calls handlers on this executor, for example that of the service; without it on threads made for them.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Executes `exec`, `shell` and `http` targets too, whoever may write them; attempts get directories in `work_dir`.
    /// Nothing ends their processes if the service is killed: `orloj serve runner` has a guard for that, this has none.
    /// Without it they are refused by name: commands of others have no place in a service's process. They run as the service's own
    /// user; a service that is root has to say so with [`RunnerBuilder::commands_as`].
    #[must_use]
    pub fn every_target(mut self, work_dir: PathBuf) -> Self {
        self.work_dir = Some(work_dir);
        self
    }

    /// Names the user that `exec` and `shell` targets run as: the service's own, by name or number; only a service that is root
    /// needs this. Nothing but `orloj serve runner` can make another user of them.
    #[must_use]
    pub fn commands_as(mut self, user: &str) -> Self {
        self.user = Some(user.to_owned());
        self
    }

    /// Checks all of it. Nothing is opened yet.
    ///
    /// # Errors
    /// [`ClientError::Settings`] that names the call to mend.
    pub fn build(self) -> Result<Runner, ClientError> {
        let wrong = |call: &str, why: &dyn std::fmt::Display| ClientError::Settings(format!("`.{call}(…)`: {why}"));
        let mut handlers = Handlers::default();
        for (name, handler) in self.handlers {
            handlers.add(&name, handler).map_err(|error| wrong("handler", &error))?;
        }
        if handlers.is_empty() && self.work_dir.is_none() {
            return Err(wrong("handler", &"add at least one, there is nothing to execute"));
        }
        if let Some(runtime) = self.runtime {
            handlers.call_on(runtime);
        }
        let is_label =
            |(name, value): (&String, &String)| !name.is_empty() && is_label_text(name) && is_label_text(value);
        if let Some((name, value)) = self.labels.iter().find(|label| !is_label(*label)) {
            return Err(wrong("label", &format_args!("`{name}={value}` is no label; write {LABEL_RULE}")));
        }
        if self.slots == 0 {
            return Err(wrong("slots", &"is 0; write 1 or more"));
        }
        if self.lease < LEASE_MIN {
            return Err(wrong(
                "lease",
                &format_args!("is {:?}; write {LEASE_MIN:?} or more, 2s or more on Kafka", self.lease),
            ));
        }
        let id = self.id.unwrap_or_else(own_name);
        let id = RunnerId::new(&id).map_err(|error| wrong("id", &error))?;
        let mut queues = Vec::with_capacity(self.queues.len().max(1));
        for queue in &self.queues {
            let queue = QueueName::new(queue).map_err(|error| wrong("queue", &error))?;
            if !queues.contains(&queue) {
                queues.push(queue);
            }
        }
        if queues.is_empty() {
            queues.push(QueueName::default());
        }
        // The number is put in once the log has told it.
        let shards = ShardCount::new(1).expect("1 is a number of shards");
        let config = RunnerConfig {
            queues,
            labels: self.labels,
            slots: self.slots,
            lease: self.lease,
            drain_timeout: self.drain_timeout,
            // The service's own children are its own.
            adopts_orphans: false,
            is_handlers_only: self.work_dir.is_none(),
            user: self.user,
            handlers,
            ..RunnerConfig::new(id, shards, self.work_dir.unwrap_or_default())
        };
        Ok(Runner { connection: self.connection, config, stop: StopHandle::default() })
    }
}

/// Host, process and a number: two live runners need two names.
fn own_name() -> String {
    let number = MADE.fetch_add(1, Ordering::Relaxed);
    format!("{}-{}-handlers-{number}", host::name(), std::process::id())
}
