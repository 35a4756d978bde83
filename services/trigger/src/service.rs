//! The trigger's edges: records to inputs, events to records. Not here: decisions (`machine`). Invariant: each
//! decision is one record of `fires`; a definition that takes effect is one record of `trigger.state`.

use std::sync::Arc;

use orloj_domain::calendar::CalendarSet;
use orloj_domain::fire::FireDecision;
use orloj_domain::id::JobId;
use orloj_domain::job_event::FieldError;
use orloj_domain::schedule;
use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_domain::trigger_state::TriggerState;
use orloj_runtime::codec;
use orloj_runtime::driver::{
    Inbound, Service, ServiceTopics, SharedInput, SharedStart, Undecodable, WriteContext, check_partition,
};
use orloj_runtime::log::{NewRecord, Record, TopicName, TopicPartition};

use crate::TriggerConfig;
use crate::machine::{LostZones, Shares, TriggerEvent, TriggerInput, TriggerMachine};
use crate::metrics::TriggerMetrics;

/// The trigger as the driver sees it.
#[derive(Debug)]
pub struct TriggerService {
    config: TriggerConfig,
    metrics: TriggerMetrics,
    /// As far as `settings` was read.
    calendars: Arc<CalendarSet>,
    /// What jobs of all shards have in common.
    shares: Shares,
}

impl TriggerService {
    pub(crate) fn new(config: TriggerConfig, metrics: TriggerMetrics) -> Self {
        Self { config, metrics, calendars: Arc::default(), shares: Shares::default() }
    }

    fn read_definition(&self, record: &Record) -> Inbound<TriggerInput> {
        let job = match job_of(record) {
            Ok(job) => job,
            Err(reason) => return Inbound::Bad(reason, None),
        };
        if let Err(reason) = check_partition(record, self.config.shards) {
            // The rightful owner of the job is another shard: answering here would break the order there.
            return Inbound::Bad(reason, None);
        }
        let Some(value) = record.value.as_deref() else {
            return Inbound::Input(TriggerInput::Deleted { job, offset: record.offset, at: record.timestamp });
        };
        match codec::input::decode_definition(record.key.as_deref(), value) {
            Ok(definition) => Inbound::Input(TriggerInput::Offered {
                job,
                offset: record.offset,
                at: record.timestamp,
                definition: Arc::new(definition),
            }),
            Err(reason) => {
                let errors = reason.errors.clone();
                Inbound::Bad(reason, Some(TriggerInput::Unusable { job, offset: record.offset, errors }))
            }
        }
    }

    /// Takes a record of `settings`; true if it changed a calendar. Every trigger reads it, so that one that can't be
    /// used is not put into quarantine, once by each: the warning says where it is, and the calendar before it stays.
    fn take_setting(&mut self, record: &Record) -> bool {
        let name = match codec::input::calendar_of_key(record.key.as_deref()) {
            Ok(Some(name)) => name,
            Ok(None) => return false,
            Err(reason) => {
                tracing::warn!(position = %record.position(), %reason, "a calendar's key can't be used");
                return false;
            }
        };
        let Some(value) = record.value.as_deref() else { return Arc::make_mut(&mut self.calendars).remove(&name) };
        match codec::input::decode_calendar(&name, value) {
            Ok(setting) => {
                Arc::make_mut(&mut self.calendars).put(setting.calendar, record.offset);
                true
            }
            Err(reason) => {
                let position = record.position();
                tracing::warn!(%position, %name, %reason, "a calendar can't be used: the one before it stays in force");
                false
            }
        }
    }

    fn read_command(&self, record: &Record) -> Inbound<TriggerInput> {
        let checked = job_of(record).and_then(|job| {
            check_partition(record, self.config.shards)?;
            let value = record.value.as_deref().unwrap_or_default();
            Ok((job, codec::input::decode_command(value)?))
        });
        match checked {
            Ok((job, command)) => Inbound::Input(TriggerInput::Commanded {
                job,
                offset: record.offset,
                at: record.timestamp,
                command: Box::new(command),
            }),
            Err(reason) => Inbound::Bad(reason, None),
        }
    }
}

fn job_of(record: &Record) -> Result<JobId, Undecodable> {
    let key = record.key_text().unwrap_or_default();
    key.parse().map_err(|error: orloj_domain::id::IdError| {
        Undecodable::new("key", key, format!("the key must be `namespace/name`: {}", error.rule))
    })
}

impl Service for TriggerService {
    type Machine = TriggerMachine;

    const NAME: &'static str = "trigger";

    fn topics(&self) -> ServiceTopics {
        ServiceTopics {
            membership: topic::JOBS.to_owned(),
            owners: topic::TRIGGER_OWNERS.to_owned(),
            state: vec![topic::TRIGGER_STATE.to_owned()],
            decisions: vec![topic::FIRES.to_owned()],
            inputs: vec![topic::JOBS.to_owned(), topic::COMMANDS.to_owned()],
            shared: vec![SharedInput { at: TopicPartition::new(topic::SETTINGS, 0), start: SharedStart::Beginning }],
            outputs: vec![topic::JOB_EVENTS.to_owned()],
            claimed: None,
        }
    }

    fn machine(&self, _shard: Shard) -> TriggerMachine {
        TriggerMachine::sharing(self.config.tzdb.clone(), self.shares.clone())
    }

    fn replay(&self, machine: &mut TriggerMachine, record: &Record) -> Result<(), Undecodable> {
        let Some(value) = record.value.as_deref() else { return Ok(()) };
        if record.topic == topic::FIRES {
            machine.replay_decision(&decode::<FireDecision>(value)?);
        } else {
            machine.replay_state(&decode::<TriggerState>(value)?);
        }
        Ok(())
    }

    fn read(&mut self, record: &Record, _now: Timestamp) -> Inbound<TriggerInput> {
        if record.topic == topic::JOBS { self.read_definition(record) } else { self.read_command(record) }
    }

    fn read_shared(&mut self, record: &Record, _now: Timestamp) -> Vec<TriggerInput> {
        if self.take_setting(record) { self.shared_state() } else { Vec::new() }
    }

    fn shared_state(&self) -> Vec<TriggerInput> {
        vec![TriggerInput::Calendars(Arc::clone(&self.calendars))]
    }

    fn forget_shared(&mut self) {
        self.calendars = Arc::default();
    }

    fn write(&self, context: &WriteContext<'_>, event: TriggerEvent, out: &mut Vec<NewRecord>) {
        self.metrics.count(&event);
        let partition = context.shard.0;
        let (answer, state) = match event {
            TriggerEvent::Decided(mut decision) => {
                decision.incarnation = Some(context.incarnation.clone());
                out.push(record(topic::FIRES, partition, &decision.job, &*decision));
                return;
            }
            TriggerEvent::Stated { answer, state } => (Some(answer), Some(state)),
            TriggerEvent::Kept(state) => (None, Some(state)),
            TriggerEvent::Answered(answer) => (Some(answer), None),
            TriggerEvent::Calendars(_) => (None, None),
        };
        if let Some(state) = state {
            out.push(record(topic::TRIGGER_STATE, partition, &state.job, &*state));
        }
        if let Some(mut answer) = answer {
            answer.incarnation = Some(context.incarnation.clone());
            out.push(record(topic::JOB_EVENTS, partition, &answer.job, &*answer));
        }
    }

    fn names_its_input(&self, event: &TriggerEvent) -> bool {
        match event {
            TriggerEvent::Decided(_) | TriggerEvent::Calendars(_) => true,
            TriggerEvent::Stated { .. } | TriggerEvent::Kept(_) | TriggerEvent::Answered(_) => false,
        }
    }

    fn restored(&mut self, machine: &TriggerMachine, _now: Timestamp) {
        if machine.lost_zones() == LostZones::default() {
            return;
        }
        for (zone, job) in machine.lost_zone_names() {
            if schedule::is_bundled_zone(zone) {
                tracing::warn!(zone, %job, "the system's time zone data has no such zone: taken from the copy that comes along");
            } else {
                tracing::error!(
                    zone,
                    %job,
                    "nobody knows this time zone any more: its jobs do not fire until the time zone data has it again; what \
                     they miss is judged by their misfire policy then"
                );
            }
        }
    }

    fn observe(&self, machines: &mut dyn Iterator<Item = &TriggerMachine>) {
        let (mut armed, mut lost) = (0, LostZones::default());
        for machine in machines {
            let zones = machine.lost_zones();
            armed += machine.armed();
            lost = LostZones { bundled: lost.bundled + zones.bundled, unknown: lost.unknown + zones.unknown };
        }
        let gauges = [
            (&self.metrics.armed_jobs, armed),
            (&self.metrics.bundled_zone_jobs, lost.bundled),
            (&self.metrics.unknown_zone_jobs, lost.unknown),
        ];
        for (gauge, count) in gauges {
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn has_unsaved(&self, machine: &TriggerMachine) -> bool {
        machine.has_unsaved()
    }

    fn snapshot(&self, machine: &TriggerMachine) -> Option<Vec<u8>> {
        Some(machine.snapshot())
    }

    fn restore_snapshot(&self, machine: &mut TriggerMachine, bytes: &[u8]) -> Option<()> {
        machine.restore_snapshot(bytes)
    }

    fn save(&self, machine: &mut TriggerMachine, shard: Shard, max: usize) -> (Vec<NewRecord>, bool) {
        let (states, is_complete) = machine.take_unsaved(max);
        let records = states.iter().map(|state| record(topic::TRIGGER_STATE, shard.0, &state.job, state)).collect();
        (records, is_complete)
    }
}

fn record<T: codec::WireRecord>(topic: &'static str, partition: i32, job: &JobId, value: &T) -> NewRecord {
    NewRecord::new(TopicName::new_static(topic), partition, job.as_str(), Some(codec::encode(value)))
}

fn decode<T: codec::WireRecord>(value: &[u8]) -> Result<T, Undecodable> {
    codec::decode(value)
        .map_err(|error| Undecodable { errors: vec![FieldError::new("value", T::NAME, error.to_string())] })
}
