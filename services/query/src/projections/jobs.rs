//! Jobs: the definition in force with version, pause and cursor, as the trigger keeps them. Not here: the next
//! fire time, which is computed when asked for. Invariant: the newest record of a job replaces the row.

use std::collections::BTreeSet;

use orloj_domain::id::LimitId;
use orloj_domain::job::{JobDefinition, Target};
use orloj_domain::limit::host_of_url;
use orloj_domain::manifest;
use orloj_domain::topic;
use orloj_domain::trigger_state::{Backfill, TriggerState};
use orloj_runtime::codec;
use orloj_runtime::log::Record;

use super::{Change, Unreadable, decoded, json_text};

/// A job as its newest state says.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JobRow {
    pub(crate) job: String,
    pub(crate) shard: i32,
    pub(crate) version: i64,
    /// Encoded as on the log; absent when deleted.
    pub(crate) definition: Option<Vec<u8>>,
    /// A JSON object.
    pub(crate) labels: String,
    pub(crate) queue: Option<String>,
    /// Calendars that its rules name, each once.
    pub(crate) calendars: Vec<String>,
    /// Shared limits that it names, as `limit/NAME`, and the host of its HTTP target as `host/HOST` without and with a port.
    pub(crate) limits: Vec<String>,
    /// A JSON object.
    pub(crate) pause: Option<String>,
    /// The backfill under way, a JSON object.
    pub(crate) backfill: Option<String>,
    pub(crate) definition_offset: i64,
    pub(crate) effective_from: i64,
    pub(crate) cursor: i64,
    pub(crate) fires: i64,
}

fn calendars(definition: &JobDefinition) -> Vec<String> {
    let named = manifest::calendars_of(definition).into_iter().map(|(_, name)| name.to_string());
    named.collect::<BTreeSet<_>>().into_iter().collect()
}

fn limits(definition: &JobDefinition) -> Vec<String> {
    let named = definition.spec.limits.iter().map(|name| LimitId::of_limit(name).to_string());
    let host = match &definition.spec.target {
        Target::HttpTarget(target) => host_of_url(&target.url),
        Target::ExecTarget(_) | Target::ShellTarget(_) | Target::KafkaTarget(_) | Target::HandlerTarget(_) => None,
    };
    let hosts = host.into_iter().flat_map(|host| [host.without_port(), host]);
    named.chain(hosts.map(|host| format!("host/{host}"))).collect()
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(state) = decoded::<TriggerState>(record)? else { return Ok(()) };
    let pause = state.pause.as_ref().map(|pause| {
        let document = serde_json::json!({"at": pause.at.to_string(), "reason": pause.reason, "actor": pause.actor});
        document.to_string()
    });
    let backfill = state.backfill.as_ref().map(|backfill| backfill_json(backfill).to_string());
    let definition = state.definition.as_deref();
    changes.push(Change::Stated(Box::new(JobRow {
        job: state.job.to_string(),
        shard: record.partition,
        version: state.version,
        labels: definition.map_or_else(|| "{}".to_owned(), |definition| json_text(&definition.labels)),
        calendars: definition.map(calendars).unwrap_or_default(),
        limits: definition.map(limits).unwrap_or_default(),
        queue: definition.map(|definition| definition.spec.queue.to_string()),
        definition: definition.map(codec::encode),
        pause,
        backfill,
        definition_offset: state.definition_offset,
        effective_from: state.effective_from.millis(),
        cursor: state.cursor.millis(),
        fires: state.fires,
    })));
    // A definition that took effect is answered once its state is known, not when its event is.
    for (topic, next) in [(topic::JOBS, state.definition_offset + 1), (topic::COMMANDS, state.commands_next)] {
        changes.push(Change::Answered { topic, partition: record.partition, next });
    }
    Ok(())
}

fn backfill_json(backfill: &Backfill) -> serde_json::Value {
    let running: Vec<String> = backfill.awaits.iter().map(ToString::to_string).collect();
    serde_json::json!({
        "id": backfill.command_id,
        "actor": backfill.actor,
        "since": backfill.since.to_string(),
        "next": backfill.next.to_string(),
        "until": backfill.until.to_string(),
        "requested": backfill.requested,
        "concurrency": backfill.concurrency,
        "running": running,
    })
}
