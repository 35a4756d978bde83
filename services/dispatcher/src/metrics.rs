//! What the dispatcher counts beside what every driver does, named `orloj_dispatcher_…`. Not here: `/metrics`.
//! Invariant: labels come from closed sets, never from jobs or runs.

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::run::RunState;
use orloj_runtime::metrics::Metrics;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::event::{About, End, Ended, Event, Ignored};

/// Counters of decisions and gauges of sessions; clones share them.
#[derive(Debug, Clone, Default)]
pub struct DispatcherMetrics {
    /// Runs that have not ended.
    pub live_runs: Gauge,
    /// Runs that ended dead and can be sent back.
    pub dead_runs: Gauge,
    /// Runner sessions alive.
    pub sessions: Gauge,
    /// Sessions whose lease ended.
    pub sessions_expired: Counter,
    /// Sessions that came back after their lease had ended.
    pub sessions_back: Counter,
    not_redriven: Counter,
    parked: Counter,
    steps: Family<StateLabel, Counter>,
    overlap_skips: Counter,
    ignored: Family<ReasonLabel, Counter>,
    limit_steps: Family<StateLabel, Counter>,
    /// Breakers that let nobody through.
    pub breakers_open: Gauge,
    /// Breakers that let one at a time through, to try.
    pub breakers_half_open: Gauge,
    breaker_turns: Family<StateLabel, Counter>,
    hedges: Family<StateLabel, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

impl DispatcherMetrics {
    /// Registers the metrics.
    #[must_use]
    pub fn register(metrics: &Metrics) -> Self {
        let this = Self::default();
        metrics.with(|registry| {
            let registry = registry.sub_registry_with_prefix("orloj_dispatcher");
            registry.register("live_runs", "Runs that have not ended", this.live_runs.clone());
            registry.register("dead_runs", "Dead runs that can be sent back", this.dead_runs.clone());
            registry.register("sessions", "Runner sessions alive", this.sessions.clone());
            registry.register("sessions_expired", "Sessions whose lease ended", this.sessions_expired.clone());
            registry.register("sessions_back", "Sessions that came back after expiry", this.sessions_back.clone());
            registry.register("redrives_refused", "Dead runs that were not sent back", this.not_redriven.clone());
            registry.register("overlap_skips", "Runs refused because others were live", this.overlap_skips.clone());
            registry.register("dead_runs_parked", "Dead runs put aside for a person", this.parked.clone());
            registry.register("run_steps", "Steps and ends of runs, by the state reached", this.steps.clone());
            registry.register(
                "limit_steps",
                "Steps of claims on limits, by the state reached",
                this.limit_steps.clone(),
            );
            registry.register("breakers_open", "Breakers that let nobody through", this.breakers_open.clone());
            registry.register(
                "breakers_half_open",
                "Breakers that let one run at a time through",
                this.breakers_half_open.clone(),
            );
            registry.register("breaker_turns", "Turns of breakers, by the state reached", this.breaker_turns.clone());
            registry.register(
                "hedges",
                "Second attempts put beside others (ready), claimed (running), and those that were first (succeeded)",
                this.hedges.clone(),
            );
            registry.register("ignored", "Inputs that changed nothing, by reason", this.ignored.clone());
        });
        this
    }

    /// Counts a decision.
    pub(crate) fn count(&self, event: &Event) {
        match event {
            Event::Stepped { run, about, .. } => match about {
                About::Begun | About::Run | About::OneEnded => self.step(run.step.state()),
                About::HedgeReady => self.hedge(RunState::Ready),
                About::HedgeClaimed => self.hedge(RunState::Running),
                About::HedgePutOff => {}
            },
            Event::Ended(ended) => {
                self.step(ended.end.state());
                if ended.attempt == 0 && ended.end.outcome().kind == OutcomeKind::Overlap {
                    self.overlap_skips.inc();
                }
                if is_of_hedge(ended) {
                    self.hedge(RunState::Succeeded);
                }
            }
            Event::Ignored(reason) | Event::Disowned(_, reason) => self.ignore(*reason),
            Event::NotRedriven { .. } => {
                self.not_redriven.inc();
            }
            Event::Parked { .. } => {
                self.parked.inc();
            }
            Event::LimitJoined(..) => self.limit("waiting"),
            Event::LimitHeld { .. } => self.limit("held"),
            Event::LimitFree(..) => self.limit("free"),
            Event::LimitTurned { turn, .. } if turn.why.is_some() => {
                let state = turn.breaker.state().as_str();
                self.breaker_turns.get_or_create(&StateLabel { state }).inc();
            }
            Event::LimitTurned { .. }
            | Event::Forgotten(..)
            | Event::CancelKept(..)
            | Event::CancelDropped(_)
            | Event::LimitDeclined(..)
            | Event::LimitRulesTaken(_)
            | Event::FleetTaken(_)
            | Event::Withdrawn(_) => {}
        }
    }

    fn step(&self, state: RunState) {
        self.steps.get_or_create(&StateLabel { state: state.as_str() }).inc();
    }

    fn hedge(&self, state: RunState) {
        self.hedges.get_or_create(&StateLabel { state: state.as_str() }).inc();
    }

    fn limit(&self, state: &'static str) {
        self.limit_steps.get_or_create(&StateLabel { state }).inc();
    }

    fn ignore(&self, reason: Ignored) {
        self.ignored.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc();
    }
}

/// True if the second of two attempts succeeded while the first was live.
fn is_of_hedge(ended: &Ended) -> bool {
    let is_newer = matches!(&ended.ended_attempts[..], [first, other] if first.token > other.token);
    is_newer && matches!(ended.end, End::Succeeded(_))
}
