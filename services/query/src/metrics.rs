//! What the query service counts, named `orloj_query_…`. Not here: `/metrics` itself (`http`). Invariant: labels
//! are from closed sets.

use std::time::Duration;

use orloj_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Class of an HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answer {
    method: &'static str,
    status: &'static str,
}

/// Metrics of the projection and of HTTP.
#[derive(Debug, Clone)]
pub(crate) struct QueryMetrics {
    /// Records folded in.
    pub(crate) records: Counter,
    /// Records that could not be read.
    pub(crate) unreadable: Counter,
    /// Times that the file was built anew.
    pub(crate) rebuilds: Counter,
    /// Records known to be there and not folded in yet.
    pub(crate) lag: Gauge,
    commit_seconds: Histogram,
    requests: Family<Answer, Counter>,
    request_seconds: Histogram,
}

impl QueryMetrics {
    /// Registers them.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        let this = Self {
            records: Counter::default(),
            unreadable: Counter::default(),
            rebuilds: Counter::default(),
            lag: Gauge::default(),
            commit_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 14)),
            requests: Family::default(),
            request_seconds: Histogram::new(exponential_buckets(0.0005, 2.0, 16)),
        };
        metrics.with(|registry| {
            let registry = registry.sub_registry_with_prefix("orloj_query");
            registry.register("records", "Records folded into the projection", this.records.clone());
            registry.register("unreadable_records", "Records that could not be read", this.unreadable.clone());
            registry.register("rebuilds", "Times that the projection was built anew", this.rebuilds.clone());
            registry.register("lag_records", "Records known and not folded in yet", this.lag.clone());
            registry.register("commit_seconds", "Time of one commit of the projection", this.commit_seconds.clone());
            registry.register("http_requests", "HTTP requests answered", this.requests.clone());
            registry.register("http_request_seconds", "Time to the head of an answer", this.request_seconds.clone());
        });
        this
    }

    pub(crate) fn committed(&self, elapsed: Duration) {
        self.commit_seconds.observe(elapsed.as_secs_f64());
    }

    pub(crate) fn answered(&self, method: &str, status: u16, elapsed: Duration) {
        let method = ["GET", "HEAD", "PUT", "POST", "DELETE", "PATCH"].into_iter().find(|known| *known == method);
        let status = match status {
            0..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        };
        self.requests.get_or_create(&Answer { method: method.unwrap_or("other"), status }).inc();
        self.request_seconds.observe(elapsed.as_secs_f64());
    }
}
