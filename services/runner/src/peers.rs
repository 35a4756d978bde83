//! What a claimer can learn about other claimers of its queue. Not here: what it does with that (`orloj_runtime::kafka`).
//! Invariant: an attempt counts as claimed if and only if the log says so, to everybody.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, ReadyAttempt};
use orloj_domain::topic;
use orloj_runtime::claimers;
use orloj_runtime::clock::Clock;
use orloj_runtime::codec;
use orloj_runtime::log::{ClaimerName, Isolation, Log, LogError, Peers, Record, TopicPartition};

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
        // What was claimed may still be hidden: all of it must have become readable.
        let end = self.log.end(&at, Isolation::Uncommitted)?;
        let mut reader = self.log.reader(Isolation::Committed)?;
        reader.read_from(&[(at.clone(), from)])?;
        let started = self.clock.monotonic();
        let mut claimed = BTreeSet::new();
        while self.log.end(&at, Isolation::Committed)? < end {
            if self.clock.monotonic().saturating_sub(started) > READ_MAX {
                return Err(LogError::Unavailable(format!("{at}: not all of it can be read")));
            }
            claimed.extend(reader.poll(RECORDS_MAX, POLL_WAIT)?.iter().filter_map(claim));
        }
        loop {
            let reports = reader.poll(RECORDS_MAX, POLL_WAIT)?;
            claimed.extend(reports.iter().filter_map(claim));
            let is_over = reports.last().is_none_or(|last| last.offset + 1 >= end);
            if is_over {
                break;
            }
        }
        // Claims are made in order, so whatever is before one that was made is done with too.
        let is_claimed = |record: &Record| attempt(record).is_some_and(|attempt| claimed.contains(&attempt));
        Ok(records.iter().rposition(is_claimed).map_or(0, |last| last + 1))
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
