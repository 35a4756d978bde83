//! The folds: each turns one record of the log into changes of rows, as a pure function. Not here: SQL (`store`),
//! reading the log (`follower`). Invariant: topics come in no order among each other, so a change holds whatever
//! was or was not folded before from other topics; within a partition order is the log's.

mod attempts;
mod breakers;
mod dead_letters;
mod decisions;
mod history;
mod jobs;
mod offers;
mod output;
mod quarantine;
mod runners;
mod runs;
mod settings;
mod shards;
#[cfg(test)]
mod tests;

use orloj_domain::owner::POSITIONS_KEY;
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::codec::{self, WireRecord};
use orloj_runtime::log::Record;

pub(crate) use attempts::{AttemptEnd, AttemptReport};
pub(crate) use breakers::BreakerRow;
pub(crate) use dead_letters::DeadLetter;
pub(crate) use decisions::{DecisionRow, RunRequest};
pub(crate) use history::HistoryRow;
pub(crate) use jobs::JobRow;
pub(crate) use offers::Offer;
pub(crate) use output::OutputRow;
pub(crate) use quarantine::QuarantineRow;
pub(crate) use runners::RunnerRow;
pub(crate) use runs::RunStep;
pub(crate) use settings::SettingRow;
pub(crate) use shards::{OwnerRow, OwnerService};

/// Topics that every installation has and that are folded; dead letters come on top, queue by queue.
pub(crate) const TOPICS: [&str; 13] = [
    topic::JOBS,
    topic::JOB_EVENTS,
    topic::TRIGGER_STATE,
    topic::FIRES,
    topic::RUN_EVENTS,
    topic::ATTEMPT_EVENTS,
    topic::ATTEMPT_OUTPUT,
    topic::RUNNER_HEARTBEATS,
    topic::TRIGGER_OWNERS,
    topic::DISPATCHER_OWNERS,
    topic::QUARANTINE,
    topic::SETTINGS,
    topic::LIMITS,
];

/// Topics with one partition per shard, because their records are about jobs, or about limits of shards.
pub(crate) const SHARDED_TOPICS: [&str; 8] = [
    topic::JOBS,
    topic::JOB_EVENTS,
    topic::TRIGGER_STATE,
    topic::FIRES,
    topic::RUN_EVENTS,
    topic::ATTEMPT_EVENTS,
    topic::COMMANDS,
    topic::LIMITS,
];

/// A change of rows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Change {
    /// A definition or a delete was offered.
    Offered(Offer),
    /// What the trigger keeps of a job.
    Stated(Box<JobRow>),
    /// What became of a definition or a pause.
    Told(Box<HistoryRow>),
    /// Everything of `topic`/`partition` before `next` has its answer.
    Answered { topic: &'static str, partition: i32, next: i64 },
    /// A decision about a fire time.
    Decided(Box<DecisionRow>),
    /// A decision asks for a run.
    Requested(Box<RunRequest>),
    /// A run took a step or ended.
    Stepped(Box<RunStep>),
    /// The dispatcher says how an attempt ended.
    AttemptEnded(Box<AttemptEnd>),
    /// An attempt was put beside another one of its run.
    Hedged {
        /// The run.
        run_id: String,
        /// Its fencing token.
        token: i64,
        /// Its number.
        attempt: i32,
    },
    /// A runner says something about an attempt.
    Reported(Box<AttemptReport>),
    /// A piece of output.
    Wrote(OutputRow),
    /// A run was parked.
    Parked(Box<DeadLetter>),
    /// A dead letter is gone.
    Unparked(String),
    /// A runner gave a sign of life.
    Seen(Box<RunnerRow>),
    /// A runner is gone for good.
    RunnerGone(String),
    /// A shard was claimed.
    Owned(OwnerRow),
    /// A shard was released.
    Released { service: OwnerService, shard: i32, incarnation: String },
    /// A calendar is in force.
    Calendar(Box<SettingRow>),
    /// A calendar was removed.
    CalendarGone(String),
    /// The bounds of a queue or a shared limit are in force.
    Limit(Box<SettingRow>),
    /// They were removed.
    LimitGone(String),
    /// A breaker turned.
    BreakerTurned(Box<BreakerRow>),
    /// A record was put aside.
    Quarantined(Box<QuarantineRow>),
}

/// A record that says nothing to a projection, and why. The service that owns the topic puts it aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unreadable(pub(crate) String);

/// Folds one record.
pub(crate) fn fold(record: &Record, shards: ShardCount, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    if record.topic == topic::TRIGGER_STATE && record.key_text() == Some(POSITIONS_KEY) {
        return shards::fold_positions(record, changes);
    }
    // Barriers, and positions that others save, are the owners' own business.
    if record.key.as_deref().is_some_and(|key| key.starts_with(b"__")) {
        return Ok(());
    }
    match record.topic.as_str() {
        topic::JOBS => offers::fold(record, shards, changes),
        topic::JOB_EVENTS => history::fold(record, changes),
        topic::TRIGGER_STATE => jobs::fold(record, changes),
        topic::FIRES => decisions::fold(record, changes),
        topic::RUN_EVENTS => runs::fold(record, changes),
        topic::ATTEMPT_EVENTS => attempts::fold(record, changes),
        topic::ATTEMPT_OUTPUT => output::fold(record, changes),
        topic::RUNNER_HEARTBEATS => runners::fold(record, changes),
        topic::TRIGGER_OWNERS => shards::fold(OwnerService::Trigger, record, changes),
        topic::DISPATCHER_OWNERS => shards::fold(OwnerService::Dispatcher, record, changes),
        topic::SETTINGS => settings::fold(record, changes),
        topic::LIMITS => breakers::fold(record, changes),
        topic::QUARANTINE => {
            quarantine::fold(record, changes);
            Ok(())
        }
        other => match other.strip_prefix(topic::DLQ_PREFIX) {
            Some(queue) => dead_letters::fold(queue, record, changes),
            None => Ok(()),
        },
    }
}

/// The record's value; nothing for a tombstone.
fn decoded<T: WireRecord>(record: &Record) -> Result<Option<T>, Unreadable> {
    let Some(value) = record.value.as_deref() else { return Ok(None) };
    codec::decode(value).map(Some).map_err(|error| Unreadable(error.to_string()))
}

/// JSON of something that has a schema of its own and so can't fail to be written.
fn json_text<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned())
}
