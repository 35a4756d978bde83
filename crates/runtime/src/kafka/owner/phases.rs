//! How long each phase of a takeover took: one INFO line and one observation each. Not here: the phases
//! themselves (`takeover`, `restore`). Invariant: labels come from closed sets.

use std::sync::LazyLock;
use std::time::Duration;

use orloj_domain::id::Incarnation;
use orloj_domain::shard::Shard;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The phases of taking shards over, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// From the assignment until the claim could begin.
    Wait,
    /// Our owner records, checked against the membership.
    Claim,
    /// Reading who owned the shards before.
    Scan,
    /// Shutting those out that have not released them.
    Fence,
    /// Marking how far a restore must read.
    Barrier,
    /// Reading state and decisions.
    Restore,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Claim => "claim",
            Self::Scan => "scan",
            Self::Fence => "fence",
            Self::Barrier => "barrier",
            Self::Restore => "restore",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    service: String,
    phase: &'static str,
}

/// Histogram `orloj_takeover_phase_seconds{service,phase}`; clones share it.
#[derive(Debug, Clone)]
pub struct TakeoverPhases(Family<Labels, Histogram>);

impl TakeoverPhases {
    /// The one that all owners of this process count in.
    #[must_use]
    pub fn of_process() -> Self {
        static OF_PROCESS: LazyLock<TakeoverPhases> = LazyLock::new(|| {
            TakeoverPhases(Family::new_with_constructor(|| {
                Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
            }))
        });
        OF_PROCESS.clone()
    }

    /// Shows it in a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Time that each phase of taking shards over took";
        registry.register("orloj_takeover_phase_seconds", help, self.0.clone());
    }

    /// Logs and counts one phase.
    pub(super) fn observe(
        &self,
        service: &str,
        phase: Phase,
        shards: impl IntoIterator<Item = Shard>,
        incarnation: &Incarnation,
        duration: Duration,
    ) {
        let shard = shards.into_iter().map(|shard| shard.to_string()).collect::<Vec<_>>().join(",");
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(service, phase = phase.name(), shard, %incarnation, duration_ms, "takeover phase done");
        let labels = Labels { service: service.to_owned(), phase: phase.name() };
        self.0.get_or_create(&labels).observe(duration.as_secs_f64());
    }
}
