//! What a runner counts, named `orloj_runner_…`. Not here: `/metrics`. Invariant: labels come from closed sets.

use std::time::Duration;

use orloj_domain::attempt::OutcomeKind;
use orloj_runtime::metrics::Metrics;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// What a runner counts.
#[derive(Debug, Clone)]
pub(crate) struct RunnerMetrics {
    /// Attempts held.
    pub(crate) busy: Gauge,
    /// Claims that were committed.
    pub(crate) claims: Counter,
    /// Claims that were refused because the membership was stale.
    pub(crate) claims_refused: Counter,
    /// Sessions whose lease could not be confirmed in time.
    pub(crate) leases_lost: Counter,
    /// Ready records put into quarantine.
    pub(crate) quarantined: Counter,
    /// Bytes of output read.
    pub(crate) output_bytes: Counter,
    /// Reports given up because their lease was lost while the log took nothing.
    pub(crate) reports_dropped: Counter,
    attempts: Family<[(&'static str, &'static str); 1], Counter>,
    start_seconds: Histogram,
}

impl RunnerMetrics {
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let this = Self {
            busy: Gauge::default(),
            claims: Counter::default(),
            claims_refused: Counter::default(),
            leases_lost: Counter::default(),
            quarantined: Counter::default(),
            output_bytes: Counter::default(),
            reports_dropped: Counter::default(),
            attempts: Family::default(),
            start_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        metrics.with(|registry| {
            let registry = registry.sub_registry_with_prefix("orloj_runner");
            registry.register("busy", "Attempts held", this.busy.clone());
            registry.register("claims", "Claims committed", this.claims.clone());
            registry.register("claims_refused", "Claims refused for a stale membership", this.claims_refused.clone());
            registry.register("leases_lost", "Sessions that could not be confirmed in time", this.leases_lost.clone());
            registry.register("quarantined", "Ready records put into quarantine", this.quarantined.clone());
            registry.register("output_bytes", "Bytes of output read", this.output_bytes.clone());
            registry.register("reports_dropped", "Reports given up with their lease", this.reports_dropped.clone());
            registry.register("attempts", "Attempts ended, by outcome", this.attempts.clone());
            registry.register("start_seconds", "From ready to started, by two clocks", this.start_seconds.clone());
        });
        this
    }

    pub(crate) fn ended(&self, kind: OutcomeKind) {
        self.attempts.get_or_create(&[("outcome", kind.as_str())]).inc();
    }

    pub(crate) fn started(&self, waited: Duration) {
        self.start_seconds.observe(waited.as_secs_f64());
    }
}
