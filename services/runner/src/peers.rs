//! What a claimer can learn about other claimers of its queue. Not here: what it does with that (`orloj_runtime::kafka`).
//! Invariant: an attempt counts as claimed if and only if the log says so, to everybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, ReadyAttempt};
use orloj_domain::id::Incarnation;
use orloj_domain::owner::{BARRIER_KEY, Barrier};
use orloj_domain::topic;
use orloj_runtime::claimers;
use orloj_runtime::clock::Clock;
use orloj_runtime::codec;
use orloj_runtime::log::{ClaimerName, Isolation, Log, LogError, NewRecord, Peers, Record, TopicPartition};

/// Records taken at once.
const RECORDS_MAX: usize = 5000;
/// Longest time for reading the reports from the first attempt in question on: whoever wants to know asks again.
const READ_MAX: Duration = Duration::from_secs(20);
const POLL_WAIT: Duration = Duration::from_secs(1);

/// The log as a claimer sees it.
pub(crate) struct QueuePeers {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for QueuePeers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("QueuePeers")
    }
}

impl Peers for QueuePeers {
    fn claimers(&self) -> Result<Vec<ClaimerName>, LogError> {
        claimers::of_heartbeats(&*self.log)
    }

    fn claimed(&self, records: &[Record]) -> Result<usize, LogError> {
        let Some(first) = records.first() else { return Ok(0) };
        let at = TopicPartition::new(topic::ATTEMPT_EVENTS, first.partition);
        let from = self.log.offset_at(&at, first.timestamp)?;
        let claimed = self.claims(&at, from)?;
        let attempts: Vec<Option<Attempt>> = records.iter().map(attempt).collect();
        // Claims are made in order, so whatever is before one that was made is done with too.
        let is_claimed = |attempt: &Option<Attempt>| attempt.as_ref().is_some_and(|attempt| claimed.contains(attempt));
        let count = attempts.iter().rposition(is_claimed).map_or(0, |last| last + 1);
        // What can't be read is claimed without a word in the log.
        let is_told = attempts[count..].iter().any(Option::is_some);
        Ok(if is_told { count } else { records.len() })
    }
}

impl QueuePeers {
    /// Everything that was claimed in a partition from an offset on. A mark of our own behind it tells when all of it was
    /// read: silence does not, and what a transaction still hides it waits for.
    fn claims(&self, at: &TopicPartition, from: i64) -> Result<BTreeSet<Attempt>, LogError> {
        let unavailable = |error: &dyn std::fmt::Display| LogError::Unavailable(format!("{at}: {error}"));
        let incarnation = uuid::Uuid::new_v4().simple().to_string();
        let incarnation = Incarnation::new(&incarnation).map_err(|error| unavailable(&error))?;
        let barrier = codec::encode(&Barrier { incarnation, at: self.clock.now() });
        let mark = NewRecord::new(at.topic.clone(), at.partition, BARRIER_KEY, Some(barrier));
        let written = self.log.appender()?.append(vec![mark]).map_err(|error| unavailable(&error))?;
        let Some(mark) = written.first() else { return Err(unavailable(&"the log named no position")) };
        let mut reader = self.log.reader(Isolation::Committed)?;
        reader.read_from(&[(at.clone(), from)])?;
        let started = self.clock.monotonic();
        let mut claimed = BTreeSet::new();
        loop {
            let records = reader.poll(RECORDS_MAX, POLL_WAIT)?;
            claimed.extend(records.iter().filter_map(claim));
            if records.last().is_some_and(|last| last.offset >= mark.offset) {
                return Ok(claimed);
            }
            if self.clock.monotonic().saturating_sub(started) > READ_MAX {
                return Err(unavailable(&"not all of it can be read"));
            }
        }
    }
}

/// An attempt by its run and token.
type Attempt = (String, i64);

fn attempt(record: &Record) -> Option<Attempt> {
    let ready: ReadyAttempt = codec::decode(record.value.as_deref()?).ok()?;
    Some((ready.run_id.to_string(), ready.token))
}

fn claim(record: &Record) -> Option<Attempt> {
    let report: AttemptEvent = codec::decode(record.value.as_deref()?).ok()?;
    (report.kind == AttemptEventType::Claimed).then(|| (report.run_id.to_string(), report.token))
}

#[cfg(test)]
mod tests {
    use orloj_domain::id::{JobId, RunId};
    use orloj_domain::time::Timestamp;
    use orloj_runtime::clock::SystemClock;
    use orloj_runtime::embedded::EmbeddedLog;
    use orloj_runtime::topics;

    use super::*;

    fn job() -> JobId {
        JobId::new("test", "job").expect("a job")
    }

    fn run(index: i64) -> RunId {
        RunId::of_fire_time(&job(), 1, Timestamp::from_millis(index))
    }

    /// A ready attempt as it is read from a queue; one that can't be read, without a number.
    fn ready(offset: i64, index: Option<i64>) -> Record {
        let attempt = |index| ReadyAttempt {
            run_id: run(index),
            job: job(),
            attempt: 1,
            token: 1,
            ready_at: Timestamp::from_millis(0),
            request: Vec::new(),
            deadline: None,
            awaits_start: false,
        };
        Record {
            topic: "run.ready.default".into(),
            partition: 0,
            offset,
            timestamp: Timestamp::from_millis(0),
            key: None,
            value: Some(index.map_or_else(|| vec![1, 2, 3], |index| codec::encode(&attempt(index)))),
            headers: Vec::new(),
        }
    }

    fn event(kind: AttemptEventType, index: i64) -> NewRecord {
        let event = AttemptEvent {
            kind,
            run_id: run(index),
            job: job(),
            attempt: 1,
            token: 1,
            runner: "r".parse().expect("a runner"),
            session: "s".parse().expect("a session"),
            at: Timestamp::from_millis(0),
            lease_ms: None,
            isolation: None,
            percent: None,
            outcome: None,
            callback_digest: None,
            started_at: None,
            has_output: None,
        };
        NewRecord::new(topic::ATTEMPT_EVENTS, 0, job().as_str(), Some(codec::encode(&event)))
    }

    #[test]
    fn what_was_claimed_is_told_by_the_log_and_only_where_something_waits_behind_it() {
        use AttemptEventType::{Claimed, Finished};
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let log: Arc<dyn Log> = Arc::new(EmbeddedLog::in_memory(Arc::clone(&clock)));
        for spec in topics::declared(1, 1, &[]) {
            log.create_topic(&spec).expect("a topic");
        }
        let events = [(Claimed, 1), (Finished, 1), (Claimed, 2), (Finished, 5)].map(|(kind, index)| event(kind, index));
        log.appender().expect("an appender").append(events.to_vec()).expect("appended");
        let peers = QueuePeers { log, clock };
        for (attempts, count) in [
            (&[Some(1), Some(2), Some(3)][..], 2),
            (&[Some(3), Some(4)], 0),
            // Only what is claimed counts, not what was reported of it.
            (&[Some(5), Some(6)], 0),
            // What can't be read has no claim, and is done with if something behind it is.
            (&[Some(1), None, Some(2), None, Some(3)], 3),
            // Nobody can tell whether more was claimed than was read.
            (&[Some(1), Some(2)], 2),
            (&[Some(1), Some(2), None], 3),
            (&[None], 1),
            (&[], 0),
        ] {
            let records: Vec<Record> = (0..).zip(attempts).map(|(offset, index)| ready(offset, *index)).collect();
            assert_eq!(peers.claimed(&records).expect("a readable log"), count, "{attempts:?}");
        }
    }
}
