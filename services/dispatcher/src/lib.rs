//! The dispatcher: owns runs. It decides which are ready, wait, are tried again or end, and judges the leases of
//! runners. Not here: schedules (trigger), executing (runner), the rule of retries (`orloj_domain::retry`).
//! Invariant: each run ends once, and no attempt is ready before the one before it has ended.

mod bytes;
mod difference;
mod event;
mod hedge;
mod machine;
mod metrics;
mod offer;
mod packed;
#[cfg(test)]
mod properties;
mod request;
mod run;
mod service;
mod shares;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::shard::ShardCount;
use orloj_runtime::clock::Clock;
use orloj_runtime::driver::{BATCH_RECORDS_MAX, Driver, DriverError, DriverParts};
use orloj_runtime::health::Health;
use orloj_runtime::log::{Log, LogError};
use orloj_runtime::metrics::{DriverMetrics, Metrics};
use orloj_runtime::shutdown::Shutdown;

pub use event::{About, End, Ended, Event, GivenBack, Ignored, Input, Report};
pub use hedge::{Hedge, HedgeStep, Which};
pub use machine::DispatcherMachine;
pub use metrics::DispatcherMetrics;
pub use request::{Request, Terms};
pub use run::{Run, Step};
pub use service::DispatcherService;
pub use shares::Shares;

/// What a dispatcher is told.
#[derive(Debug, Clone)]
pub struct DispatcherConfig {
    /// How many shards the installation has.
    pub shards: ShardCount,
    /// The longest lease that a runner of this installation is configured with (`runner.lease`). A session that
    /// is known only from a restored attempt gets this one; a shorter value than a runner's could let a second
    /// attempt begin beside a live one after a takeover.
    pub lease: Duration,
    /// How far the wall clock may jump forward before nothing is decided any more.
    pub clock_jump_max: Duration,
}

/// Runs a dispatcher on the calling thread until shutdown is asked.
///
/// # Errors
/// Only what needs a person: a missing topic, a wrong partition count, a missing right.
pub fn run(
    config: DispatcherConfig,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    health: &Health,
    metrics: &Metrics,
    shutdown: &Shutdown,
) -> Result<(), DriverError> {
    let parts = DriverParts {
        log,
        clock,
        clock_jump_max: config.clock_jump_max,
        batch_records_max: BATCH_RECORDS_MAX,
        shards: config.shards,
        health: health.component("dispatcher"),
        metrics: DriverMetrics::register(metrics, "dispatcher"),
        snapshots: None,
    };
    join(config, parts, DispatcherMetrics::register(metrics))
        .map_err(|source| DriverError::Log { service: "dispatcher", source })?
        .run(shutdown)
}

/// A dispatcher to be turned step by step; its own counters go nowhere.
///
/// # Errors
/// What joining the owners reports.
pub fn driver(config: DispatcherConfig, parts: DriverParts) -> Result<Driver<DispatcherService>, LogError> {
    join(config, parts, DispatcherMetrics::default())
}

fn join(
    config: DispatcherConfig,
    parts: DriverParts,
    metrics: DispatcherMetrics,
) -> Result<Driver<DispatcherService>, LogError> {
    Driver::join(DispatcherService::new(config, Arc::clone(&parts.clock), metrics), parts)
}
