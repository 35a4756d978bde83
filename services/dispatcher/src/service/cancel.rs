//! Cancels that came before their runs, as they stand in `run.state`. Not here: which are kept, and for how long (`machine`).
//! Invariant: each key is of one run, and its last record is what is so.

use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::{IdError, JobId, RunId};
use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::driver::Undecodable;
use orloj_runtime::log::{NewRecord, Record};

use super::read::decode;
use crate::event::Order;
use crate::machine::DispatcherMachine;

/// What keys of `run.state` begin with that are about such cancels: no run id does.
pub(super) const KEY_PREFIX: &str = "cancel:";

/// What is kept of a cancel since `at`.
pub(super) fn kept(shard: Shard, order: &Order, at: Timestamp) -> NewRecord {
    let command = Command {
        at: Some(at),
        actor: order.actor.clone(),
        reason: order.reason.clone(),
        run_id: Some(order.run_id),
        ..Command::new(CommandType::Cancel, order.command.clone())
    };
    NewRecord::new(topic::RUN_STATE, shard.0, key(order), Some(codec::encode(&command)))
}

/// It is kept no longer.
pub(super) fn dropped(shard: Shard, order: &Order) -> NewRecord {
    NewRecord::new(topic::RUN_STATE, shard.0, key(order), None)
}

fn key(order: &Order) -> String {
    format!("{KEY_PREFIX}{}:{}", order.run_id, order.job)
}

/// Folds such a record into a machine that is being restored; `key` is without its prefix.
pub(super) fn replay(machine: &mut DispatcherMachine, key: &str, record: &Record) -> Result<(), Undecodable> {
    let bad = |error: IdError| Undecodable::new("key", key, format!("is no key of a cancel: {}", error.rule));
    let (run, job) = key.split_once(':').unwrap_or((key, ""));
    let run_id: RunId = run.parse().map_err(bad)?;
    let job: JobId = job.parse().map_err(bad)?;
    let Some(value) = record.value.as_deref() else {
        machine.restore_cancel_dropped(run_id);
        return Ok(());
    };
    let command: Command = decode(value)?;
    let at = command.at.unwrap_or(record.timestamp);
    let Command { command_id, actor, reason, .. } = command;
    let order = Order { run_id, job, command: command_id, actor, reason, spares_parked: false, not_before: None };
    machine.restore_cancel(&order, at);
    Ok(())
}
