//! What the trigger counts beside what every driver does, named `orloj_trigger_…`. Not here: `/metrics`.
//! Invariant: labels come from closed sets, never from jobs.

use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::machine::TriggerEvent;

/// Counters of decisions and answers; clones share them.
#[derive(Debug, Clone)]
pub struct TriggerMetrics {
    decisions: Family<DecisionLabel, Counter>,
    answers: Family<AnswerLabel, Counter>,
    lateness_seconds: Histogram,
    /// Jobs of all owned shards that have a next fire time.
    pub(crate) armed_jobs: Gauge,
    /// Jobs whose time zone is taken from the copy that comes with the program.
    pub(crate) bundled_zone_jobs: Gauge,
    /// Jobs that have no fire times because nobody knows their time zone.
    pub(crate) unknown_zone_jobs: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabel {
    decision: &'static str,
    trigger: &'static str,
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabel {
    answer: &'static str,
}

impl TriggerMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self {
            decisions: Family::default(),
            answers: Family::default(),
            lateness_seconds: Histogram::new(exponential_buckets(0.001, 2.0, 18)),
            armed_jobs: Gauge::default(),
            bundled_zone_jobs: Gauge::default(),
            unknown_zone_jobs: Gauge::default(),
        };
        metrics.with(|registry| {
            let registry = registry.sub_registry_with_prefix("orloj_trigger");
            registry.register("decisions", "Decisions about fire times, by what and why", this.decisions.clone());
            registry.register("answers", "Answers to definitions and commands", this.answers.clone());
            registry.register(
                "lateness_seconds",
                "From a fire time of a schedule to the decision to request it; its append comes on top",
                this.lateness_seconds.clone(),
            );
            registry.register("armed_jobs", "Jobs that have a next fire time", this.armed_jobs.clone());
            let help = "Jobs whose time zone the system has lost, taken from the copy that comes with the program";
            registry.register("bundled_zone_jobs", help, this.bundled_zone_jobs.clone());
            let help = "Jobs that do not fire because nobody knows their time zone any more";
            registry.register("unknown_zone_jobs", help, this.unknown_zone_jobs.clone());
        });
        this
    }

    /// Counts what was decided.
    pub(crate) fn count(&self, event: &TriggerEvent) {
        match event {
            TriggerEvent::Decided(decision) => self.decided(decision),
            TriggerEvent::Stated { answer, .. } | TriggerEvent::Answered(answer) => {
                self.answers.get_or_create(&AnswerLabel { answer: answer.kind.as_str() }).inc();
            }
            TriggerEvent::Kept(_) | TriggerEvent::Calendars(_) => {}
        }
    }

    fn decided(&self, decision: &FireDecision) {
        let label = DecisionLabel {
            decision: decision.decision.as_str(),
            trigger: decision.trigger.as_str(),
            reason: decision.reason.map_or("none", |reason| reason.as_str()),
        };
        self.decisions.get_or_create(&label).inc();
        if decision.trigger == TriggerKind::Schedule && decision.decision == Decision::Requested {
            self.lateness_seconds.observe(decision.decided_at.since(decision.fire_time).as_secs_f64());
        }
    }
}
