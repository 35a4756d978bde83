//! Which queues are paused (`kind: Queue` in `settings`): nothing is claimed from them, although it is ready. One thread. Not
//! here: what is kept from becoming ready (dispatcher). Invariant: a setting that can't be read changes nothing; attempts that
//! were claimed go on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orloj_domain::id::{LimitId, QueueName};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec::input;
use orloj_runtime::log::{Isolation, Log, LogError, Reader, Record, TopicPartition};

use crate::board::Phase;
use crate::config::RunnerError;
use crate::shared::Shared;

/// Most settings taken at once.
const RECORDS_MAX: usize = 500;
/// Longest wait for settings; a waker ends it earlier.
const POLL_WAIT: Duration = Duration::from_secs(5);
/// Longest wait for those that are there at the start.
const FIRST_WAIT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_secs(1);

/// Limits of queues that are paused; clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Paused(Arc<Mutex<BTreeSet<LimitId>>>);

impl Paused {
    /// True if nothing is to be claimed from a queue.
    pub(crate) fn contains(&self, queue: &QueueName) -> bool {
        let paused = self.limits();
        !paused.is_empty() && paused.contains(&LimitId::of_queue(queue))
    }

    fn take(&self, record: &Record) {
        // Whatever else is wrong with it, the query service and the dispatcher say.
        let Ok(Some(limit)) = input::limit_of_key(record.key.as_deref()) else { return };
        let is_paused = match record.value.as_deref().map(|value| input::decode_limit(&limit, value)) {
            None => false,
            Some(Ok(setting)) => setting.rule.is_paused,
            Some(Err(_)) => return,
        };
        if !is_paused {
            self.limits().remove(&limit);
        } else if limit.is_of_queue() {
            self.limits().insert(limit);
        }
    }

    fn limits(&self) -> MutexGuard<'_, BTreeSet<LimitId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what is there, then starts the thread that follows it.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<(), RunnerError> {
    let at = TopicPartition::new(topic::SETTINGS, 0);
    let next = shared.log.offset_at(&at, Timestamp::MIN)?;
    let mut follower = Follower { reader: open(&*shared.log, &at, next)?, at, next };
    shared.board.on_phase(follower.reader.waker());
    let end = shared.log.end(&follower.at, Isolation::Committed)?;
    // The end may be the mark of a transaction, which no reader is shown: what is not there in time comes later.
    while follower.next < end && follower.read(&shared.paused, FIRST_WAIT)? > 0 {}
    let (shared, counted) = (Arc::clone(shared), shared.board.thread());
    std::thread::Builder::new().name("runner-settings".into()).spawn(move || {
        let _counted = counted;
        follow(&shared, follower);
    })?;
    Ok(())
}

struct Follower {
    reader: Box<dyn Reader>,
    at: TopicPartition,
    next: i64,
}

impl Follower {
    /// How many records there were.
    fn read(&mut self, paused: &Paused, timeout: Duration) -> Result<usize, LogError> {
        let records = self.reader.poll(RECORDS_MAX, timeout)?;
        for record in &records {
            self.next = record.offset + 1;
            paused.take(record);
        }
        Ok(records.len())
    }
}

fn open(log: &dyn Log, at: &TopicPartition, next: i64) -> Result<Box<dyn Reader>, LogError> {
    let mut reader = log.reader(Isolation::Committed)?;
    reader.read_from(&[(at.clone(), next)])?;
    Ok(reader)
}

/// Until the runner drains: then it claims nothing anyway.
fn follow(shared: &Shared, mut follower: Follower) {
    while shared.board.phase() == Phase::Claiming {
        let Err(error) = follower.read(&shared.paused, POLL_WAIT) else { continue };
        tracing::warn!(runner = %shared.runner, %error, "the settings of queues can't be read, trying again");
        shared.board.pause(PAUSE, Phase::Draining);
        let next = match &error {
            LogError::OutOfRange { first, .. } => *first,
            LogError::Misconfigured(_)
            | LogError::NoSuchTopic(_)
            | LogError::Unavailable(_)
            | LogError::Lost(_)
            | LogError::Busy(_) => follower.next,
        };
        match open(&*shared.log, &follower.at, next) {
            Ok(reader) => {
                shared.board.on_phase(reader.waker());
                follower = Follower { reader, next, ..follower };
            }
            Err(error) => tracing::debug!(%error, "no reader for the settings"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(key: &str, value: Option<&str>) -> Record {
        Record {
            topic: topic::SETTINGS.into(),
            partition: 0,
            offset: 0,
            timestamp: Timestamp::MIN,
            key: Some(key.as_bytes().to_vec()),
            value: value.map(|spec| {
                let head = r#""apiVersion":"orloj/v1","kind":"Queue","metadata":{"name":"mail"}"#;
                format!("{{{head},\"spec\":{spec}}}").into_bytes()
            }),
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_last_setting_that_can_be_read_counts() {
        let (paused, mail) = (Paused::default(), "mail".parse().expect("a queue"));
        for (key, value, is_paused) in [
            ("queue/mail", Some(r#"{"paused":true}"#), true),
            ("queue/mail", Some(r#"{"paused":"no"}"#), true),
            ("queue/other", None, true),
            ("calendar/mail", None, true),
            ("queue/mail", Some(r#"{"maxConcurrent":1}"#), false),
            ("queue/mail", Some(r#"{"paused":true}"#), true),
            ("queue/mail", None, false),
        ] {
            paused.take(&record(key, value));
            assert_eq!(paused.contains(&mail), is_paused, "{key} {value:?}");
        }
    }
}
