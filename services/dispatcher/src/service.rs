//! The dispatcher as the driver sees it: its topics, and the runner sessions that all its shards share. Bytes
//! are in `read` and `write`, decisions in `machine`. Invariant: every session that holds an attempt of an owned
//! shard, or is offered one, has a lease here, so silence always ends in a decision.

mod breaker;
mod cancel;
mod haste;
mod limit;
mod live_run;
mod offer;
mod read;
#[cfg(test)]
mod tests;
pub(crate) mod write;

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::fleet::Fleet;
use orloj_domain::lease::{self, Sessions, Touch};
use orloj_domain::limit::LimitRules;
use orloj_domain::runner::RunnerHeartbeat;
use orloj_domain::setting::BreakerState;
use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_domain::{attempt::AttemptEvent, attempt::AttemptEventType, id::SessionId};
use orloj_runtime::claimers;
use orloj_runtime::clock::Clock;
use orloj_runtime::codec;
use orloj_runtime::driver::{
    Haste, Inbound, Service, ServiceTopics, SharedInput, SharedStart, Undecodable, WriteContext,
};
use orloj_runtime::log::{ClaimedInputs, NewRecord, Record, TopicPartition};

use crate::DispatcherConfig;
use crate::event::{Event, Input};
use crate::machine::DispatcherMachine;
use crate::metrics::DispatcherMetrics;
use crate::shares::Shares;

/// The dispatcher over all shards that this instance owns.
pub struct DispatcherService {
    config: DispatcherConfig,
    /// Leases are measured on the monotonic clock: a wall clock that jumps must not end one.
    clock: Arc<dyn Clock>,
    sessions: Sessions,
    /// The longest lease that was heard of; sessions known only from restored attempts get this one.
    lease_longest: Duration,
    rules: Arc<LimitRules>,
    fleet: Arc<Fleet>,
    shares: Shares,
    metrics: DispatcherMetrics,
}

impl DispatcherService {
    pub(crate) fn new(config: DispatcherConfig, clock: Arc<dyn Clock>, metrics: DispatcherMetrics) -> Self {
        let lease_longest = config.lease.clamp(lease::LEASE_MIN, lease::LEASE_MAX);
        Self {
            config,
            clock,
            sessions: Sessions::default(),
            lease_longest,
            rules: Arc::default(),
            fleet: Arc::default(),
            shares: Shares::default(),
            metrics,
        }
    }

    fn touch(&mut self, session: &SessionId, lease: Duration) {
        self.lease_longest = self.lease_longest.max(lease);
        match self.sessions.touch(session, lease, self.clock.monotonic()) {
            Touch::Extended => {}
            Touch::Began => tracing::debug!(%session, "a runner session began"),
            Touch::CameBack => {
                self.metrics.sessions_back.inc();
                tracing::warn!(%session, "a runner session came back after its lease was over");
            }
        }
        self.report_sessions();
    }

    /// Another fleet, as machines are told of it; none if it is the same.
    fn take_fleet(&mut self, fleet: Option<Fleet>) -> Option<Input> {
        self.fleet = Arc::new(fleet?);
        Some(Input::Fleet(Arc::clone(&self.fleet)))
    }

    /// A claim is a sign of life too: without it, a session that claims and dies at once would never be missed.
    fn touch_claimer(&mut self, report: &AttemptEvent) {
        if report.kind == AttemptEventType::Claimed {
            let lease = report.lease_ms.map_or(self.lease_longest, lease::lease_of);
            self.touch(&report.session, lease);
        }
    }

    fn report_sessions(&self) {
        self.metrics.sessions.set(i64::try_from(self.sessions.live()).unwrap_or(i64::MAX));
    }
}

impl Service for DispatcherService {
    type Machine = DispatcherMachine;

    const NAME: &'static str = "dispatcher";

    fn topics(&self) -> ServiceTopics {
        ServiceTopics {
            membership: topic::FIRES.to_owned(),
            owners: topic::DISPATCHER_OWNERS.to_owned(),
            state: [topic::RUN_STATE, topic::RUN_DELAY, topic::RUN_RETRY].map(str::to_owned).to_vec(),
            decisions: Vec::new(),
            inputs: [topic::FIRES, topic::ATTEMPT_EVENTS, topic::COMMANDS, topic::LIMITS].map(str::to_owned).to_vec(),
            shared: vec![
                SharedInput { at: TopicPartition::new(topic::RUNNER_HEARTBEATS, 0), start: SharedStart::Recent },
                SharedInput { at: TopicPartition::new(topic::SETTINGS, 0), start: SharedStart::Beginning },
            ],
            outputs: [
                topic::RUN_EVENTS,
                topic::RUNNER_INBOX,
                topic::COMMANDS,
                topic::LIMITS,
                topic::RUN_READY_PREFIX,
                topic::DLQ_PREFIX,
            ]
            .map(str::to_owned)
            .to_vec(),
            claimed: Some(ClaimedInputs {
                topics: vec![topic::ATTEMPT_EVENTS.to_owned()],
                claimers: claimers::of_heartbeats,
                claim_of: read::claim_of,
            }),
        }
    }

    fn machine(&self, _shard: Shard) -> DispatcherMachine {
        DispatcherMachine::new(self.shares.clone())
    }

    fn replay(&self, machine: &mut DispatcherMachine, record: &Record) -> Result<(), Undecodable> {
        live_run::replay(machine, record)
    }

    fn read(&mut self, record: &Record, _now: Timestamp) -> Inbound<Input> {
        let read = match record.topic.as_str() {
            topic::FIRES => read::fire(record, self.config.shards, &self.shares),
            topic::ATTEMPT_EVENTS => read::report(record, self.config.shards).map(|report| {
                self.touch_claimer(&report);
                read::input_of(report)
            }),
            topic::COMMANDS => Ok(read::command(record, self.config.shards)),
            topic::LIMITS => limit::read(record),
            other => Err(Undecodable::new("topic", other, "is no input of the dispatcher")),
        };
        match read {
            Ok(Some(input)) => Inbound::Input(input),
            Ok(None) => Inbound::Nothing,
            Err(reason) => Inbound::Bad(reason, None),
        }
    }

    fn observe(&self, machines: &mut dyn Iterator<Item = &DispatcherMachine>) {
        let (mut live, mut dead, mut open, mut half_open) = (0, 0, 0, 0);
        for machine in machines {
            live += machine.live();
            dead += machine.dead();
            open += machine.breakers(BreakerState::Open);
            half_open += machine.breakers(BreakerState::HalfOpen);
        }
        self.shares.tidy(live + dead);
        let metrics = &self.metrics;
        for (gauge, count) in [
            (&metrics.live_runs, live),
            (&metrics.dead_runs, dead),
            (&metrics.breakers_open, open),
            (&metrics.breakers_half_open, half_open),
        ] {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn write(&self, context: &WriteContext<'_>, event: Event, out: &mut Vec<NewRecord>) {
        self.metrics.count(&event);
        out.extend(write::records(context.shard, self.config.shards, &event));
    }

    fn haste(&self, event: &Event) -> (Haste, Option<u128>) {
        haste::of(event)
    }

    fn restored(&mut self, machine: &DispatcherMachine, _now: Timestamp) {
        for session in machine.sessions() {
            self.touch(session, self.lease_longest);
        }
    }

    fn read_shared(&mut self, record: &Record, _now: Timestamp) -> Vec<Input> {
        if record.topic.as_str() == topic::SETTINGS {
            let has_changed = limit::take_setting(&mut self.rules, record);
            return if has_changed { self.shared_state() } else { Vec::new() };
        }
        // A runner that left for good may have tombstoned its key.
        let Some(value) = record.value.as_deref() else { return Vec::new() };
        match codec::decode::<RunnerHeartbeat>(value) {
            Ok(heartbeat) => {
                self.touch(&heartbeat.session, lease::lease_of(heartbeat.lease_ms));
                self.take_fleet(self.fleet.after(&heartbeat)).into_iter().collect()
            }
            Err(error) => {
                tracing::warn!(position = %record.position(), %error, "a heartbeat can't be read");
                Vec::new()
            }
        }
    }

    fn shared_state(&self) -> Vec<Input> {
        vec![Input::LimitRules(Arc::clone(&self.rules)), Input::Fleet(Arc::clone(&self.fleet))]
    }

    fn shared_deadline(&self) -> Option<Timestamp> {
        let left = self.sessions.next_expiry()?.saturating_sub(self.clock.monotonic());
        if left.is_zero() { Some(Timestamp::MIN) } else { Some(self.clock.now().plus(left)) }
    }

    fn shared_tick(&mut self, _now: Timestamp) -> Vec<Input> {
        let expired = self.sessions.expired(self.clock.monotonic());
        for session in &expired {
            self.metrics.sessions_expired.inc();
            tracing::info!(%session, "a runner session was silent for longer than its lease");
        }
        self.report_sessions();
        // First of all: nothing is offered to them any more.
        let fleet = self.take_fleet(self.fleet.without(&expired));
        fleet.into_iter().chain(expired.into_iter().map(Input::SessionExpired)).collect()
    }

    fn forget_shared(&mut self) {
        self.sessions = Sessions::default();
        self.rules = Arc::default();
        self.fleet = Arc::default();
        self.report_sessions();
    }
}
