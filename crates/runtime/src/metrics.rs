//! Counters and histograms shared by services: the process's registry and what every driver counts. Not here:
//! `/metrics`. Invariant: labels come from closed sets, never from jobs or runs.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The process's registry; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Metrics(Arc<Mutex<Registry>>);

impl Metrics {
    /// An empty registry.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers something.
    pub fn with<T>(&self, register: impl FnOnce(&mut Registry) -> T) -> T {
        register(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All metrics as OpenMetrics text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        let registry = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing to a String can't fail; an encoder error would be a bug of the library.
        let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        text
    }
}

/// What every driver counts, named `orloj_<service>_…`.
#[derive(Debug, Clone)]
pub struct DriverMetrics {
    /// Shards that are owned and live.
    pub shards: Gauge,
    /// Times that all shards were lost at once.
    pub lost: Counter,
    /// Records put into quarantine.
    pub quarantined: Counter,
    /// Shards that were restored from a snapshot and what came after it.
    pub snapshots_used: Counter,
    /// Forward jumps of the wall clock that stopped all decisions.
    pub clock_jumps: Counter,
    /// By how much the wall clock runs ahead of what is believed, in seconds; 0 while decisions are made.
    pub clock_ahead_seconds: Gauge,
    /// How far the brokers' clock is ahead of this machine's at least, in seconds; negative if it is behind.
    pub broker_clock_offset_seconds: Gauge<f64, AtomicU64>,
    records: Counter,
    append_seconds: Histogram,
    append_records: Histogram,
}

impl DriverMetrics {
    /// Registers the metrics of a service.
    #[must_use]
    pub fn register(metrics: &Metrics, service: &str) -> Self {
        let this = Self {
            shards: Gauge::default(),
            lost: Counter::default(),
            quarantined: Counter::default(),
            snapshots_used: Counter::default(),
            clock_jumps: Counter::default(),
            clock_ahead_seconds: Gauge::default(),
            broker_clock_offset_seconds: Gauge::default(),
            records: Counter::default(),
            append_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
            append_records: Histogram::new(exponential_buckets(1.0, 2.0, 15)),
        };
        metrics.with(|registry| {
            let registry = registry.sub_registry_with_prefix(format!("orloj_{service}"));
            registry.register("shards", "Shards owned and live", this.shards.clone());
            registry.register("lost", "Times that all shards were lost at once", this.lost.clone());
            registry.register("quarantined", "Records put into quarantine", this.quarantined.clone());
            registry.register(
                "snapshots_used",
                "Shards restored from a snapshot and what came after it",
                this.snapshots_used.clone(),
            );
            registry.register(
                "clock_jumps",
                "Forward jumps of the wall clock that stopped all decisions",
                this.clock_jumps.clone(),
            );
            registry.register(
                "clock_ahead_seconds",
                "How far the wall clock is ahead of what is believed; 0 while decisions are made",
                this.clock_ahead_seconds.clone(),
            );
            registry.register(
                "broker_clock_offset_seconds",
                "How far the brokers' clock is ahead of this machine's at least; negative if it is behind",
                this.broker_clock_offset_seconds.clone(),
            );
            registry.register("appended_records", "Records appended", this.records.clone());
            registry.register("append_seconds", "Time of one atomic append", this.append_seconds.clone());
            registry.register("append_records", "Records of one atomic append", this.append_records.clone());
        });
        this
    }

    /// By how much the wall clock is ahead; nothing while it is believed.
    pub(crate) fn clock_ahead(&self, ahead: Duration) {
        self.clock_ahead_seconds.set(i64::try_from(ahead.as_secs()).unwrap_or(i64::MAX));
    }

    pub(crate) fn broker_clock_offset(&self, offset_ms: i64) {
        let offset_ms = i32::try_from(offset_ms).unwrap_or(if offset_ms < 0 { i32::MIN } else { i32::MAX });
        self.broker_clock_offset_seconds.set(f64::from(offset_ms) / 1000.0);
    }

    pub(crate) fn appended(&self, records: usize, elapsed: Duration) {
        self.records.inc_by(u64::try_from(records).unwrap_or(u64::MAX));
        self.append_seconds.observe(elapsed.as_secs_f64());
        self.append_records.observe(f64::from(u32::try_from(records).unwrap_or(u32::MAX)));
    }
}
