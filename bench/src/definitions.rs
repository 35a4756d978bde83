//! Jobs to measure with: one manifest, and definitions that differ from it in name and schedule only. Invariant:
//! the number of a job can be told from its id.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use orloj_domain::job::{AtRule, CronRule, Dialect, DstFold, DstGap, JobDefinition, ScheduleRule};
use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{NewRecord, Reader};

use crate::bed::Bed;
use crate::produce::Bulk;

/// Longest wait for the answers to all definitions.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Records of one poll.
const POLL_MAX: usize = 20_000;

/// A job of the bench without a schedule.
fn bare() -> JobDefinition {
    let text = r#"{"apiVersion":"orloj/v1","kind":"Job",
        "metadata":{"namespace":"bench","name":"job","labels":{"team":"billing"}},
        "spec":{"run":{"exec":{"command":["/usr/bin/env","true"]}}}}"#;
    manifest::parse_json(text).expect("a valid manifest")
}

/// One instant.
pub(crate) fn at(at: Timestamp) -> ScheduleRule {
    ScheduleRule::AtRule(AtRule { at, exclude: Vec::new(), only: Vec::new() })
}

/// A cron expression in UTC.
pub(crate) fn cron(expression: String) -> ScheduleRule {
    ScheduleRule::CronRule(CronRule {
        expression,
        time_zone: "UTC".to_owned(),
        dialect: Dialect::Unix,
        gap: DstGap::Shift,
        fold: DstFold::First,
        exclude: Vec::new(),
        only: Vec::new(),
    })
}

/// Once a year, at one of 1,440 minutes of its first day: held, and not due while anything is measured.
pub(crate) fn yearly(index: usize) -> ScheduleRule {
    cron(format!("{} {} 1 1 *", index % 60, index / 60 % 24))
}

/// The key of a job: `bench/<prefix>-<index>`.
pub(crate) fn index_of(key: &[u8]) -> Option<(&str, usize)> {
    let (prefix, index) = std::str::from_utf8(key).ok()?.strip_prefix("bench/")?.rsplit_once('-')?;
    Some((prefix, index.parse().ok()?))
}

/// Offers the jobs `<prefix>-<index>`; on return all are durable.
pub(crate) fn offer(
    bed: &Bed,
    prefix: &str,
    indexes: std::ops::Range<usize>,
    schedule: impl Fn(usize) -> ScheduleRule,
) {
    send(bed, offers(bed, prefix, indexes, schedule));
}

/// The records that offer the jobs `<prefix>-<index>`, each made when it is asked for.
pub(crate) fn offers(
    bed: &Bed,
    prefix: &str,
    indexes: std::ops::Range<usize>,
    schedule: impl Fn(usize) -> ScheduleRule,
) -> impl Iterator<Item = NewRecord> {
    let mut definition = bare();
    indexes.map(move |index| {
        definition.job = format!("bench/{prefix}-{index}").parse().expect("a valid id");
        definition.schedule = vec![schedule(index)];
        let partition = bed.shards.shard_of(&definition.job).0;
        let value = codec::encode(&definition);
        NewRecord::new(topic::JOBS, partition, definition.job.as_str(), Some(value))
    })
}

/// Sends records; on return all are durable.
pub(crate) fn send(bed: &Bed, records: impl IntoIterator<Item = NewRecord>) {
    let mut producer = Bulk::new(bed);
    for record in records {
        producer.send(record);
    }
    producer.flush();
}

/// Deletes jobs.
pub(crate) fn delete(bed: &Bed, prefix: &str, indexes: std::ops::Range<usize>) {
    let mut producer = Bulk::new(bed);
    for index in indexes {
        let key = format!("bench/{prefix}-{index}");
        let partition = bed.shards.shard_of_key(key.as_bytes()).0;
        producer.send(NewRecord::new(topic::JOBS, partition, key, None));
    }
    producer.flush();
}

/// Waits for the answers to `wanted` offers, all of which must be `kind`; when the last of them was there. They are
/// decoded afterwards, so that it costs the measurement little.
pub(crate) fn wait_for_answers(events: &mut dyn Reader, wanted: usize, kind: JobEventType) -> Instant {
    let mut answered = HashSet::new();
    let deadline = Instant::now() + PATIENCE;
    let mut last = Instant::now();
    while answered.len() < wanted {
        let mut records = Vec::new();
        while answered.len() + records.len() < wanted {
            assert!(Instant::now() < deadline, "only {} of {wanted} definitions were answered", answered.len());
            records.extend(events.poll(POLL_MAX, Duration::from_millis(100)).expect("a readable log"));
        }
        last = Instant::now();
        for record in records {
            let Some(value) = record.value else { continue };
            let event: JobEvent = codec::decode(&value).expect("an event");
            assert_eq!(event.kind, kind, "{event:?}");
            answered.insert((record.key, event.version));
        }
    }
    last
}
