//! How the service is put together: listener, the thread that folds, the thread that appends, the HTTP runtime.
//! Not here: what any of them does. Invariant: whichever ends first, the others are asked to end and waited for.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use orloj_runtime::clock::Clock;
use orloj_runtime::health::Health;
use orloj_runtime::log::{Log, Waker};
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use tokio::sync::watch;

use crate::appends::Appends;
use crate::follower::Follower;
use crate::http::{Api, operations};
use crate::metrics::QueryMetrics;
use crate::progress::Progress;
use crate::store::Pool;
use crate::{QueryConfig, QueryError, VersionInfo};

/// How long open requests may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(3);
/// Threads for reads of the projection; the pool allows fewer at a time.
const BLOCKING_THREADS_MAX: usize = 8;

/// An address that is listened on but not served yet.
#[derive(Debug)]
pub struct Listener {
    inner: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// The address; with its real port if port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Listens on an address.
///
/// # Errors
/// [`QueryError::Exposed`] if it is off loopback and that was not allowed, [`QueryError::Listen`] if it is taken.
pub fn bind(listen: SocketAddr, is_insecure_allowed: bool) -> Result<Listener, QueryError> {
    if !listen.ip().is_loopback() && !is_insecure_allowed {
        return Err(QueryError::Exposed(listen));
    }
    let failed = |source| QueryError::Listen { address: listen, source };
    let inner = TcpListener::bind(listen).map_err(failed)?;
    inner.set_nonblocking(true).map_err(failed)?;
    let address = inner.local_addr().map_err(failed)?;
    Ok(Listener { inner, address })
}

/// Runs the query service on the calling thread until shutdown is asked.
///
/// # Errors
/// What needs a person: the address, the data directory, a topic of another size.
pub fn run(
    config: QueryConfig,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    health: &Health,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), QueryError> {
    let listener = bind(config.listen, config.is_insecure_allowed)?;
    run_on(listener, config, log, clock, health, metrics, shutdown)
}

/// The same on an address that is listened on already, for callers that want to know it first.
///
/// # Errors
/// As [`run`].
pub fn run_on(
    listener: Listener,
    config: QueryConfig,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    health: &Health,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), QueryError> {
    let counted = QueryMetrics::register(metrics);
    let (progress, pool) = (Arc::new(Progress::new()), Arc::new(Pool::new()));
    // Ours ends also when only one half of the service does.
    let ending = Shutdown::new();
    shutdown.on_request(Waker::new({
        let ending = ending.clone();
        move || ending.request()
    }));
    let follower = Follower {
        log: Arc::clone(&log),
        clock: Arc::clone(&clock),
        shards: config.shards,
        directory: config.data_dir.clone(),
        progress: Arc::clone(&progress),
        pool: Arc::clone(&pool),
        component: health.component("query"),
        metrics: counted.clone(),
        shutdown: ending.clone(),
    };
    let folding = start_following(follower, ending.clone())?;
    let appends = Appends::start(log)?;
    let api = Api {
        progress,
        pool,
        appends,
        clock,
        health: health.clone(),
        metrics: metrics.clone(),
        counted,
        shards: config.shards,
        queues: config.queues,
        version: config.version,
        listen: listener.address(),
        definitions: crate::views::Definitions::new(),
        ending: stopped(&ending),
    };
    let served = serve(listener, crate::http::router(Arc::new(api)), &ending);
    ending.request();
    let followed = folding.join().unwrap_or_else(|_| Err("the thread that folds has panicked".to_owned()));
    followed.map_err(QueryError::Projection)?;
    served
}

fn start_following(follower: Follower, ending: Shutdown) -> std::io::Result<JoinHandle<Result<(), String>>> {
    std::thread::Builder::new().name("query-fold".to_owned()).spawn(move || {
        let followed = follower.run();
        ending.request();
        followed
    })
}

/// Serves only `/livez /readyz /version /metrics`, for processes without the query service.
///
/// # Errors
/// What needs a person: the address.
pub fn serve_operations(
    listen: SocketAddr,
    health: &Health,
    metrics: &Metrics,
    version: VersionInfo,
    shutdown: &Shutdown,
) -> Result<(), QueryError> {
    serve_operations_on(bind(listen, false)?, health, metrics, version, shutdown)
}

/// The same on an address that is listened on already.
///
/// # Errors
/// When the HTTP server fails.
pub fn serve_operations_on(
    listener: Listener,
    health: &Health,
    metrics: &Metrics,
    version: VersionInfo,
    shutdown: &Shutdown,
) -> Result<(), QueryError> {
    let address = listener.address();
    serve(listener, operations::only(health.clone(), metrics.clone(), version, address), shutdown)
}

/// Turns true when shutdown is asked.
fn stopped(shutdown: &Shutdown) -> watch::Receiver<bool> {
    let (sender, receiver) = watch::channel(false);
    shutdown.on_request(Waker::new(move || {
        sender.send_replace(true);
    }));
    receiver
}

fn serve(listener: Listener, router: Router, shutdown: &Shutdown) -> Result<(), QueryError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("query-http")
        .enable_all()
        .build()?;
    let (mut asked, mut over) = (stopped(shutdown), stopped(shutdown));
    let served = runtime.block_on(async move {
        let listener = tokio::net::TcpListener::from_std(listener.inner)?;
        let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
            // The sender lives as long as the shutdown; if it is gone, so is everything.
            let _ = asked.wait_for(|is_asked| *is_asked).await;
        });
        let cut_off = async move {
            let _ = over.wait_for(|is_asked| *is_asked).await;
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = serving => served,
            () = cut_off => Ok(()),
        }
    });
    runtime.shutdown_timeout(DRAIN);
    Ok(served?)
}
