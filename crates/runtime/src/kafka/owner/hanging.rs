//! Ending transactions that nobody will end. Kafka 4.0 to 4.3 at least (KAFKA-20734) takes a partition without a leader for one
//! that was deleted: a transaction that ends at that moment, as when the only replica's broker stops, is done for its
//! coordinator, and for us, but its marker is never written to that partition, which hides everything behind it from
//! then on. The next marker under the same id ends both. Not here: who may still write (`takeover`). Invariant: only ids
//! that were shut out are used, and only partitions of shards that are held are touched.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::owner::{BARRIER_KEY, Barrier};

use super::takeover::{STEP_MAX, Setback};
use super::{KafkaOwner, SERVE_INTERVAL};
use crate::clock::Clock;
use crate::codec;
use crate::kafka::client::{Deadline, drop_aside};
use crate::kafka::transaction::TransactionalProducer;
use crate::log::{AppendError, LogError, NewRecord, TopicPartition};

/// How a transaction that was left over is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// As far as anybody knows it was committed: its owner was told so, or it is the only word on its records.
    Commit,
    /// Its records were written again later: its owner had been told that they were not.
    Abort,
}

impl KafkaOwner {
    /// Ends what holds up these partitions, each read up to the offset given. To be called once those who claimed their
    /// shards before us are shut out and have still left something open.
    pub(super) fn end_hanging(&mut self, left: &BTreeMap<TopicPartition, i64>) -> Result<(), Setback> {
        let mut endings = BTreeMap::new();
        for (at, until) in left {
            let (_, stable) = self.restorer.standing(at);
            if (0..*until).contains(&stable) {
                let Some(ending) = self.ending_of(at, stable, *until).map_err(Setback::NotYet)? else {
                    let service = self.spec.service.as_str();
                    tracing::error!(service, %at, offset = stable, "several transactions that nobody ends, and not of one kind: see `kafka-transactions.sh find-hanging`");
                    continue;
                };
                tracing::warn!(service = self.spec.service, %at, offset = stable, ?ending, "ending a transaction that nobody ends");
                endings.insert(at.clone(), ending);
            }
        }
        if endings.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = self.claimants.iter().cloned().collect();
        self.with_opened(&ids, |owner, mut producer| {
            for ending in [Ending::Commit, Ending::Abort] {
                let records = owner.marks(&endings, ending);
                if let Err(error) = end_with(&mut producer, &records, ending) {
                    tracing::warn!(producer = producer.id(), %error, "could not end what may be left of it");
                }
            }
            drop_aside(producer);
        })
    }

    /// A record for each partition that is to be ended so: barriers, which every reader of these topics passes over.
    fn marks(&self, endings: &BTreeMap<TopicPartition, Ending>, wanted: Ending) -> Vec<NewRecord> {
        let barrier = codec::encode(&Barrier { incarnation: self.incarnation.clone(), at: self.clock.now() });
        let wanted = endings.iter().filter(|(_, ending)| **ending == wanted);
        wanted
            .map(|(at, _)| NewRecord::new(at.topic.as_str(), at.partition, BARRIER_KEY, Some(barrier.clone())))
            .collect()
    }

    /// Committed if nothing that is hidden was written again behind it, aborted if the first of it was; `None` if only
    /// something later was: then there is more than one transaction, and whose is whose no reader is told.
    fn ending_of(&mut self, at: &TopicPartition, stable: i64, until: i64) -> Result<Option<Ending>, LogError> {
        self.scanner.start(&[(at.clone(), stable)])?;
        let deadline = Deadline::after(STEP_MAX);
        let mut first = None;
        let mut seen = BTreeSet::new();
        let mut is_repeated = false;
        let ending = loop {
            if deadline.has_passed() {
                break Err(LogError::Unavailable(format!("{at}: can't be read beyond {stable}")));
            }
            self.serve_member()?;
            let Some(record) = self.scanner.next(SERVE_INTERVAL)? else { continue };
            let content = (record.key, record.value);
            if first.as_ref() == Some(&content) {
                break Ok(Some(Ending::Abort));
            }
            first.get_or_insert_with(|| content.clone());
            is_repeated |= !seen.insert(content);
            if record.offset >= until - 1 {
                break Ok((!is_repeated).then_some(Ending::Commit));
            }
        };
        self.scanner.stop();
        ending
    }

    /// Opens ids that are not ours, which shuts their owners out, and hands each to `each`.
    pub(super) fn with_opened(
        &mut self,
        ids: &[String],
        mut each: impl FnMut(&mut Self, TransactionalProducer),
    ) -> Result<(), Setback> {
        for batch in ids.chunks(super::takeover::FENCES_MAX) {
            // Whoever slept must not shut out the rightful owner of today.
            self.serve_within_takeover()?;
            let answers = self.recipe.open(batch);
            let deadline = Deadline::after(STEP_MAX);
            let mut left: BTreeSet<&String> = batch.iter().collect();
            while !left.is_empty() {
                match answers.recv_timeout(SERVE_INTERVAL) {
                    Ok(Ok(producer)) => {
                        left.retain(|id| *id != producer.id());
                        each(self, producer);
                    }
                    Ok(Err(error)) => return Err(Setback::Doubt(format!("fence: {error}"))),
                    Err(crossbeam_channel::RecvTimeoutError::Timeout) if !deadline.has_passed() => {
                        self.serve_within_takeover()?;
                    }
                    Err(_) => return Err(Setback::Doubt("an earlier owner could not be shut out".to_owned())),
                }
            }
        }
        Ok(())
    }
}

/// One transaction with these records, ended so.
fn end_with(producer: &mut TransactionalProducer, records: &[NewRecord], ending: Ending) -> Result<(), AppendError> {
    if records.is_empty() {
        return Ok(());
    }
    let written = producer.begin().and_then(|()| producer.enqueue(records)).and_then(|()| producer.acknowledged());
    let outcome = match (written, ending) {
        (Ok(_), Ending::Commit) => producer.commit(),
        (Ok(_), Ending::Abort) => producer.abort(),
        (Err(error), _) => Err(error),
    };
    producer.abort_after(&outcome);
    outcome
}
