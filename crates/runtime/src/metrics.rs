//! Counters and histograms shared by services: the process's registry and what every driver counts. Not here:
//! `/metrics`. Invariant: labels come from closed sets, never from jobs or runs.

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
    records: Counter,
    append_seconds: Histogram,
}

impl DriverMetrics {
    /// Registers the metrics of a service.
    #[must_use]
    pub fn register(metrics: &Metrics, service: &str) -> Self {
        let this = Self {
            shards: Gauge::default(),
            lost: Counter::default(),
            quarantined: Counter::default(),
            records: Counter::default(),
            append_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
        };
        metrics.with(|registry| {
            let registry = registry.sub_registry_with_prefix(format!("orloj_{service}"));
            registry.register("shards", "Shards owned and live", this.shards.clone());
            registry.register("lost", "Times that all shards were lost at once", this.lost.clone());
            registry.register("quarantined", "Records put into quarantine", this.quarantined.clone());
            registry.register("appended_records", "Records appended", this.records.clone());
            registry.register("append_seconds", "Time of one atomic append", this.append_seconds.clone());
        });
        this
    }

    pub(crate) fn appended(&self, records: usize, elapsed: Duration) {
        self.records.inc_by(u64::try_from(records).unwrap_or(u64::MAX));
        self.append_seconds.observe(elapsed.as_secs_f64());
    }
}
