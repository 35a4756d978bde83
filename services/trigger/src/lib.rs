//! The trigger: owns time. It admits definitions, decides each fire time exactly once, and answers commands
//! about jobs. Not here: running anything. Invariant: the decision record in `fires` is the progress marker;
//! everything else about a cursor is a checkpoint of it.

mod machine;
mod metrics;
mod service;
mod wheel;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::shard::ShardCount;
use orloj_runtime::clock::Clock;
use orloj_runtime::driver::{BATCH_RECORDS_MAX, Driver, DriverError, DriverParts};
use orloj_runtime::health::Health;
use orloj_runtime::log::{Log, LogError};
use orloj_runtime::metrics::{DriverMetrics, Metrics};
use orloj_runtime::shutdown::Shutdown;

pub use machine::{LostZones, Shares, TriggerEvent, TriggerInput, TriggerMachine};
pub use metrics::TriggerMetrics;
pub use service::TriggerService;

/// What a trigger is told.
#[derive(Debug, Clone)]
pub struct TriggerConfig {
    /// How many shards the installation has.
    pub shards: ShardCount,
    /// Version of the time zone database in use, written into each decision.
    pub tzdb: Option<String>,
    /// How far the wall clock may jump forward before nothing is decided any more.
    pub clock_jump_max: Duration,
    /// Folder for snapshots of the jobs held, which make a restart fast; `None` for none.
    pub snapshots: Option<PathBuf>,
}

/// Runs a trigger on the calling thread until shutdown is asked.
///
/// # Errors
/// Only what needs a person: a missing topic, a wrong partition count, a missing right.
pub fn run(
    config: TriggerConfig,
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
        health: health.component("trigger"),
        metrics: DriverMetrics::register(metrics, "trigger"),
        snapshots: config.snapshots.clone(),
    };
    let service = TriggerService::new(config, TriggerMetrics::register(metrics));
    Driver::join(service, parts).map_err(|source| DriverError::Log { service: "trigger", source })?.run(shutdown)
}

/// A trigger to be turned step by step; what it counts beside its driver nobody sees.
///
/// # Errors
/// What joining the owners reports.
pub fn driver(config: TriggerConfig, parts: DriverParts) -> Result<Driver<TriggerService>, LogError> {
    Driver::join(TriggerService::new(config, TriggerMetrics::register(&Metrics::new())), parts)
}
