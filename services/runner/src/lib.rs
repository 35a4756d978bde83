//! The runner: claims ready attempts, executes them, reports. What lives elsewhere: which attempts there are,
//! and what comes of their ends (the dispatcher). It listens on no port. Invariant: nothing is executed before
//! its claim was committed, and nothing goes on once the lease could not be confirmed in time.

mod account;
mod attempt;
mod board;
mod claim;
mod config;
mod executor;
mod flight;
mod guard;
mod handler;
mod heartbeat;
mod home;
mod inbox;
mod launch;
mod metrics;
mod offers;
mod output;
mod paused;
mod peers;
mod progress;
mod removal;
mod reporter;
mod secrets;
mod shared;
mod shares;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::topic;
use orloj_runtime::clock::Clock;
use orloj_runtime::host;
use orloj_runtime::log::{Log, Waker};
use orloj_runtime::shutdown::Shutdown;
use tokio::runtime::{Handle, Runtime};

pub use account::AttemptUser;
pub use config::{RunnerConfig, RunnerError};
pub use guard::guard;
pub use handler::{
    AttemptFacts, Handler, HandlerContext, HandlerFailure, HandlerFuture, Handlers, PayloadError, Prepared,
};
pub use launch::launch;

use account::Account;
use board::{Board, Phase};
use executor::cgroup::Groups;
use executor::environment::inherited;
use executor::http::Http;
use executor::kafka::Clusters;
use executor::process::{Abort, GRACE, Host};
use guard::Guard;
use heartbeat::{Pulse, margin};
use home::Home;
use launch::Launcher;
use metrics::RunnerMetrics;
use offers::Offers;
use paused::Paused;
use reporter::Reporter;
use secrets::Secrets;
use shared::Shared;

/// Threads that watch processes and pass their output on.
const EXECUTOR_THREADS: usize = 2;
/// Threads for looks at the process table and for removing directories.
const BLOCKING_THREADS_MAX: usize = 8;
/// After attempts were told to end: how much longer than the grace they may take.
const ABORT_PATIENCE: Duration = Duration::from_secs(15);
/// How long threads may take to end after the last attempt.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Runs a runner until a shutdown is asked, then drains: takes no more, waits for what it holds up to the drain
/// timeout, stops the rest, reports it and leaves. Blocks; call it on a plain thread.
///
/// # Errors
/// [`RunnerError`] when it can't start, or had to drain because of something only a person can mend.
pub fn run(
    config: RunnerConfig,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
) -> Result<(), RunnerError> {
    check(&config)?;
    let metrics = RunnerMetrics::register(&config.metrics);
    let live_for = config.lease - margin(config.lease);
    let weights: Vec<u16> = config.queues.iter().map(|queue| config.weight_of(queue)).collect();
    let board = Arc::new(Board::new(config.slots, &weights, live_for, clock, metrics));
    let draining = Arc::clone(&board);
    shutdown.on_request(Waker::new(move || draining.advance(Phase::Draining)));
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(EXECUTOR_THREADS)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("runner-exec")
        .enable_all()
        .build()?;
    let for_handlers = handler_threads(&config)?;
    let handler_runtime = for_handlers.as_ref().map(|own| own.handle().clone());
    let outcome = start(&config, &board, log, (executor.handle().clone(), handler_runtime));
    match outcome {
        Ok(()) => {
            board.wait_draining();
            tracing::info!(runner = %config.runner, busy = board.busy(), "the runner drains");
            drain(&board, config.drain_timeout);
        }
        Err(error) => board.fail(error),
    }
    board.advance(Phase::Ending);
    if !board.wait_threads(END_PATIENCE) {
        tracing::warn!(runner = %config.runner, "a call to the log did not end; the runner leaves it behind");
    }
    executor.shutdown_timeout(Duration::from_secs(1));
    if let Some(own) = for_handlers {
        // A handler that does not await is left behind; an error has named it.
        own.shutdown_timeout(Duration::from_secs(1));
    }
    board.take_failure().map_or(Ok(()), Err)
}

/// Kills every process of every attempt of this process at once, for a process that is about to end without
/// draining. Nothing is reported: the lease runs out, and the attempts are lost.
pub fn kill_attempts() {
    executor::tree::kill_all();
}

fn check(config: &RunnerConfig) -> Result<(), RunnerError> {
    let complain = |text: &str| Err(RunnerError::Config(text.to_owned()));
    if config.queues.is_empty() {
        return complain("`runner.queues` names no queue; name at least one, for example `default`");
    }
    if config.slots == 0 {
        return complain("`runner.slots` is 0; write 1 or more");
    }
    if config.is_handlers_only && config.handlers.is_empty() {
        return complain("the runner executes handlers only and has none; add one");
    }
    if config.lease < Duration::from_millis(300) {
        return complain("`runner.lease` is too short to be kept; write 2s or more");
    }
    Ok(())
}

/// Threads for handlers, unless there is none or the service brings its own. Not those of the executor: a handler that
/// blocks must not keep the others' time limits from being seen.
fn handler_threads(config: &RunnerConfig) -> std::io::Result<Option<Runtime>> {
    if config.handlers.is_empty() || config.handlers.runtime().is_some() {
        return Ok(None);
    }
    tokio::runtime::Builder::new_multi_thread().thread_name("runner-handler").enable_all().build().map(Some)
}

/// Where attempts are looked after, and where handlers are called if the runner has threads for them.
type Executors = (Handle, Option<Handle>);

/// Starts every thread of the runner.
fn start(
    config: &RunnerConfig,
    board: &Arc<Board>,
    log: Arc<dyn Log>,
    (executor, handler_runtime): Executors,
) -> Result<(), RunnerError> {
    let launcher = launcher(config)?;
    let mut variables = inherited(std::env::vars_os());
    if let Some(launcher) = &launcher {
        launcher.account.fit(&mut variables);
    }
    let home = home_of(config, launcher.as_ref())?;
    let work_dir = home.as_ref().map_or_else(|| config.work_dir.clone(), |home| home.path().to_owned());
    let topics = log.topics()?;
    let secrets = Secrets { directory: config.secrets_dir.clone() };
    let http = Http::new(&config.http_allow, secrets, config.callback_url.clone()).map_err(RunnerError::Config)?;
    let groups = config.uses_cgroups.then(Groups::find).flatten();
    tracing::debug!(?groups, "where attempts get control groups");
    let host_name = host::process();
    let quarantine = topics.iter().find(|spec| spec.name == topic::QUARANTINE);
    let shared = Arc::new(Shared {
        runner: config.runner.clone(),
        lease: config.lease,
        shards: config.shards,
        quarantine_partitions: quarantine.map_or(1, |spec| spec.partitions.max(1)),
        work_dir,
        inherited: variables,
        board: Arc::clone(board),
        reporter: Reporter::start(board, &log)?,
        host: Host::start(config.adopts_orphans, groups, launcher)?,
        host_name: host_name.clone(),
        http,
        clusters: Clusters::new(config.kafka.clone(), config.topics_prefix.clone()),
        handlers: config.handlers.clone(),
        handler_runtime: config.handlers.runtime().or(handler_runtime).unwrap_or_else(|| executor.clone()),
        is_handlers_only: config.is_handlers_only,
        executor,
        log: Arc::clone(&log),
        paused: Paused::default(),
        queues: config.queues.clone(),
        offers: Offers::default(),
    });
    let pulse = Pulse {
        runner: config.runner.clone(),
        queues: config.queues.clone(),
        weights: config.weights.iter().map(|(queue, weight)| (queue.to_string(), i32::from(*weight))).collect(),
        labels: config.labels.clone(),
        slots: config.slots,
        lease: config.lease,
        host: host_name,
        health: config.health.clone(),
        guard: Guard::new(config.guard.clone()),
        home,
    };
    // Before anything is claimed: what is said about a claim must not be missed, and what is paused must be known.
    inbox::start(&shared)?;
    paused::start(&shared)?;
    heartbeat::start(pulse, board, &log)?;
    for (lane, queue) in config.queues.iter().enumerate() {
        claim::start(&shared, lane, queue.clone())?;
    }
    tracing::info!(runner = %config.runner, queues = ?config.queues, slots = config.slots, "the runner is up");
    Ok(())
}

/// What makes another user of the processes of attempts, unless they are to run as the runner's own.
fn launcher(config: &RunnerConfig) -> Result<Option<Launcher>, RunnerError> {
    if config.is_handlers_only {
        return Ok(None);
    }
    let user = AttemptUser::of(config.user.as_deref()).map_err(RunnerError::Config)?;
    if user.is_default_of_root() {
        tracing::warn!(
            "this runner is root, and `runner.user` is not set: attempts run as user {user}; set the key to another user, or to `root` \
             if they are to have all rights"
        );
    } else {
        tracing::info!(%user, "attempts run as this user");
    }
    let Some(account) = user.other() else { return Ok(None) };
    if let Some(file) = config.secrets_dir.as_deref().and_then(|directory| account.readable_file(directory)) {
        return Err(RunnerError::Config(format!(
            "`runner.secretsDir`: attempts run as user {user}, who may read `{}`; take that right away, as with `chmod 600`",
            file.display()
        )));
    }
    check_way(&config.work_dir, account)?;
    let program = config.launcher.as_deref().unwrap_or_default();
    Launcher::new(program, account.clone()).map(Some).map_err(RunnerError::Config)
}

/// The user of attempts must not be able to put something else where root makes and removes their directories.
fn check_way(work_dir: &Path, account: &Account) -> Result<(), RunnerError> {
    let Some(directory) = account.changeable_directory(work_dir) else { return Ok(()) };
    Err(RunnerError::Config(format!(
        "`data.dir`: attempts have their directories in `{}` and run as user `{}` (`runner.user`), who owns `{}` or may write to it, and could \
         put something else there; give it and all above it to root with `chown root` and `chmod go-w`, or name another",
        work_dir.display(),
        account.name,
        directory.display()
    )))
}

/// Where attempts have their directories, and that they can have them; handlers have no processes, and so no directories.
fn home_of(config: &RunnerConfig, launcher: Option<&Launcher>) -> Result<Option<Home>, RunnerError> {
    if config.is_handlers_only {
        return Ok(None);
    }
    let work_dir = home::make_work_dir(&config.work_dir, launcher.is_some())?;
    let Some(launcher) = launcher else { return Ok(Some(Home::open(&work_dir)?)) };
    // Somebody may have been quicker where everybody may write. From here on it is what it is.
    check_way(&work_dir, &launcher.account)?;
    let home = Home::open(&work_dir)?;
    launcher.try_out(home.path()).map_err(RunnerError::Config)?;
    Ok(Some(home))
}

/// Waits for the attempts in flight, then stops those that are left, and gives them back.
fn drain(board: &Board, patience: Duration) {
    if board.wait_idle(patience) {
        return;
    }
    let reason = "the runner was asked to end and the attempt took longer than its drain timeout".to_owned();
    board.abort_all(&Abort { kind: OutcomeKind::HandedBack, reason, grace: GRACE });
    if !board.wait_idle(GRACE + ABORT_PATIENCE) {
        tracing::error!(busy = board.busy(), "attempts are left that could not be ended or reported");
    }
}
