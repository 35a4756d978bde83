//! Names of the topics, without the installation's prefix, as `topics.yaml` declares them. Not here: their
//! settings. Invariant: a topic that code names is declared (a test compares).

use crate::id::QueueName;

/// Definitions offered by producers, API and CLI.
pub const JOBS: &str = "jobs";
/// What became of definitions and pauses.
pub const JOB_EVENTS: &str = "job.events";
/// The trigger's memory.
pub const TRIGGER_STATE: &str = "trigger.state";
/// Who owns a shard of the trigger.
pub const TRIGGER_OWNERS: &str = "trigger.owners";
/// Who owns a shard of the dispatcher.
pub const DISPATCHER_OWNERS: &str = "dispatcher.owners";
/// Installation-wide settings, one partition.
pub const SETTINGS: &str = "settings";
/// The ledger of shared limits.
pub const LIMITS: &str = "limits";
/// What people and programs ask.
pub const COMMANDS: &str = "commands";
/// One decision per fire time.
pub const FIRES: &str = "fires";
/// Runs that wait for their start delay.
pub const RUN_DELAY: &str = "run.delay";
/// Runs that wait for their backoff.
pub const RUN_RETRY: &str = "run.retry";
/// Runs that are waiting, ready or running.
pub const RUN_STATE: &str = "run.state";
/// Every step of a run.
pub const RUN_EVENTS: &str = "run.events";
/// Messages to one runner.
pub const RUNNER_INBOX: &str = "runner.inbox";
/// What runners report about attempts.
pub const ATTEMPT_EVENTS: &str = "attempt.events";
/// Signs of life of runners, one partition.
pub const RUNNER_HEARTBEATS: &str = "runner.heartbeats";
/// Captured output.
pub const ATTEMPT_OUTPUT: &str = "attempt.output";
/// Records that could not be used.
pub const QUARANTINE: &str = "quarantine";
/// Prefix of the topics of attempts that runners may claim.
pub const RUN_READY_PREFIX: &str = "run.ready.";
/// Prefix of the topics of dead letters.
pub const DLQ_PREFIX: &str = "dlq.";

/// Topic of a queue's ready attempts.
#[must_use]
pub fn run_ready(queue: &QueueName) -> String {
    format!("{RUN_READY_PREFIX}{queue}")
}

/// Topic of a queue's dead letters.
#[must_use]
pub fn dead_letters(queue: &QueueName) -> String {
    format!("{DLQ_PREFIX}{queue}")
}
