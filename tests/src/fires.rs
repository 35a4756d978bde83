//! Reading `fires` back from outside: for each job and version every second exactly once. Not here: the trigger.
//! Invariant: knows only the record's schema; what it expects follows from the job being due every second.

use std::collections::BTreeMap;
use std::time::Duration;

use orloj_domain::fire::{FireDecision, TriggerKind};
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::codec;
use orloj_runtime::log::{Isolation, Log, Reader, Record, TopicPartition};

use crate::process::PATIENCE;
use crate::wait;

/// A reader of all of a topic's partitions from their starts.
///
/// # Panics
/// If the topic does not exist.
#[must_use]
pub fn reader(log: &dyn Log, name: &str) -> Box<dyn Reader> {
    let topics = log.topics().expect("a readable log");
    let spec = topics.iter().find(|spec| spec.name == name).expect("the topic exists");
    let positions: Vec<_> = (0..spec.partitions).map(|partition| (TopicPartition::new(name, partition), 0)).collect();
    let mut reader = log.reader(Isolation::Committed).expect("a reader");
    reader.read_from(&positions).expect("the topic exists");
    reader
}

/// Decisions seen so far.
#[derive(Default)]
pub struct Seen {
    /// (job, version) → second of the fire time → how often it was decided.
    by_version: BTreeMap<(String, i64), BTreeMap<i64, u32>>,
    /// Job → the newest instant at which something was decided, in milliseconds.
    pub decided_at: BTreeMap<String, i64>,
    /// Partition → the longest time from a fire time to its decision, in milliseconds.
    latest_ms: BTreeMap<i32, i64>,
}

impl Seen {
    /// Reads what there is to read.
    ///
    /// # Panics
    /// If a record can't be decoded.
    pub fn read(&mut self, reader: &mut dyn Reader) {
        loop {
            let records = reader.poll(10_000, Duration::from_millis(200)).expect("a readable log");
            if records.is_empty() {
                return;
            }
            for record in records {
                self.take(&record);
            }
        }
    }

    fn take(&mut self, record: &Record) {
        debug_assert_eq!(record.topic, topic::FIRES);
        if record.key_text().is_some_and(|key| key.starts_with("__")) {
            return;
        }
        let Some(value) = record.value.as_deref() else { return };
        let decision: FireDecision = codec::decode(value).expect("a decision");
        if decision.trigger != TriggerKind::Schedule {
            return;
        }
        let newest = self.decided_at.entry(decision.job.to_string()).or_default();
        *newest = (*newest).max(decision.decided_at.millis());
        let latest_ms = self.latest_ms.entry(record.partition).or_default();
        *latest_ms = (*latest_ms).max(decision.decided_at.millis() - decision.fire_time.millis());
        let version = self.by_version.entry((decision.job.to_string(), decision.version)).or_default();
        let first = decision.fire_time.millis() / 1000;
        let last = decision.settled_until().millis().div_euclid(1000);
        for second in first..=last {
            *version.entry(second).or_default() += 1;
        }
    }

    /// Waits until something was decided about each of `jobs` jobs after now.
    ///
    /// # Panics
    /// If that does not happen in time; `what` says when it was.
    pub fn wait_for_all(&mut self, reader: &mut dyn Reader, jobs: usize, what: &str) {
        let now = SystemClock::new().now().millis();
        let waited = wait::within(PATIENCE, || {
            self.read(reader);
            let fresh = self.decided_at.values().filter(|at| **at > now).count();
            (fresh == jobs).then_some(())
        });
        assert!(waited.is_some(), "{what}: not every job was decided on again");
    }

    /// For each partition, the longest time from a fire time to its decision since this was last asked.
    pub fn take_latest(&mut self) -> BTreeMap<i32, Duration> {
        let latest = std::mem::take(&mut self.latest_ms).into_iter();
        latest.map(|(partition, ms)| (partition, Duration::from_millis(u64::try_from(ms).unwrap_or(0)))).collect()
    }

    /// Number of decisions.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_version.values().map(BTreeMap::len).sum()
    }

    /// What is wrong: seconds that were decided twice, or not at all between the first and the last.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for ((job, version), seconds) in &self.by_version {
            let (Some((first, _)), Some((last, _))) = (seconds.first_key_value(), seconds.last_key_value()) else {
                continue;
            };
            for second in *first..=*last {
                let count = seconds.get(&second).copied().unwrap_or(0);
                if count != 1 {
                    findings.push(format!("{job} v{version} second {second}: decided {count} times"));
                }
            }
        }
        findings
    }
}
