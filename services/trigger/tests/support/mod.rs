//! What the tests of the driver with a trigger in it have in common: a log in memory and a trigger on it.

use std::path::PathBuf;
use std::sync::Arc;

use orloj_domain::shard::ShardCount;
use orloj_runtime::clock::ManualClock;
use orloj_runtime::driver::{BATCH_RECORDS_MAX, CLOCK_JUMP_MAX, Driver, DriverParts};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::log::Log;
use orloj_runtime::metrics::{DriverMetrics, Metrics};
use orloj_runtime::topics;
use orloj_trigger::{TriggerConfig, TriggerService};

/// A log with all topics and nothing in them.
pub(crate) fn empty_log(clock: &ManualClock, shards: i32) -> (EmbeddedLog, ShardCount) {
    let log = EmbeddedLog::in_memory(Arc::new(clock.clone()));
    for spec in topics::declared(shards, 1, &[]) {
        log.create_topic(&spec).expect("in memory");
    }
    (log, ShardCount::new(shards).expect("a valid count"))
}

/// One more trigger joins, with its metrics and its health.
pub(crate) fn join(
    log: impl Log + 'static,
    clock: &ManualClock,
    shards: ShardCount,
    snapshots: Option<PathBuf>,
) -> (Driver<TriggerService>, Metrics, Health) {
    let (metrics, health) = (Metrics::new(), Health::new());
    let parts = DriverParts {
        log: Arc::new(log),
        clock: Arc::new(clock.clone()),
        clock_jump_max: CLOCK_JUMP_MAX,
        batch_records_max: BATCH_RECORDS_MAX,
        shards,
        health: health.component("trigger"),
        metrics: DriverMetrics::register(&metrics, "trigger"),
        snapshots,
    };
    let config = TriggerConfig { shards, tzdb: None, clock_jump_max: CLOCK_JUMP_MAX, snapshots: None };
    let driver = orloj_trigger::driver(config, parts).expect("in memory");
    (driver, metrics, health)
}
