//! Ending transactions that nobody will end. Kafka 4.3.1 (KAFKA-20734) takes a partition without a leader for one that was
//! deleted: a transaction that ends at that moment, as when the only replica's broker stops, is done for its
//! coordinator, and for us, but its marker is never written to that partition, which hides everything behind it from
//! then on. The next marker under the same id ends both. Not here: who may still write (`takeover`). Invariant: only ids
//! that were shut out are used, and only partitions of shards that are held are touched.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::owner::{BARRIER_KEY, Barrier};

use super::restore::shards_of;
use super::takeover::{STEP_MAX, Setback};
use super::{KafkaOwner, SERVE_INTERVAL};
use crate::clock::Clock;
use crate::codec;
use crate::kafka::client::Deadline;
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
                let Some(ending) = self.ending_of(at, stable, *until)? else {
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
        let ids: Vec<String> = self.history.all_ids(&shards_of(left)).into_iter().collect();
        self.with_opened(&ids, |owner, mut producer| {
            for ending in [Ending::Commit, Ending::Abort] {
                let records = owner.marks(&endings, ending);
                if let Err(error) = end_with(&mut producer, &records, ending) {
                    tracing::warn!(producer = producer.id(), %error, "could not end what may be left of it");
                }
            }
            producer.retire();
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

    /// Reads what is hidden of a partition, and judges it.
    fn ending_of(&mut self, at: &TopicPartition, stable: i64, until: i64) -> Result<Option<Ending>, Setback> {
        self.scanner.start(&[(at.clone(), stable)]).map_err(Setback::NotYet)?;
        let deadline = Deadline::after(STEP_MAX);
        let mut hidden = Vec::new();
        let mut is_read = false;
        while !is_read {
            if deadline.has_passed() {
                return Err(Setback::NotYet(LogError::Unavailable(format!("{at}: can't be read beyond {stable}"))));
            }
            // Whoever lost the shards meanwhile must not end anything of them.
            self.serve_within_takeover()?;
            let Some(record) = self.scanner.next(SERVE_INTERVAL).map_err(Setback::NotYet)? else { continue };
            is_read = record.offset >= until - 1;
            // Barriers say nothing that could be said twice.
            if record.key.as_deref() != Some(BARRIER_KEY.as_bytes()) {
                hidden.push((record.key, record.value));
            }
        }
        self.scanner.stop();
        Ok(Ending::of(&hidden))
    }
}

impl Ending {
    /// Committed if nothing of what is hidden, in its order, was written again behind it, aborted if the first of it was;
    /// `None` if only something later was: then there is more than one transaction, and whose is whose no reader is told.
    fn of<T: Ord>(hidden: &[T]) -> Option<Self> {
        let Some((first, rest)) = hidden.split_first() else { return Some(Self::Commit) };
        if rest.contains(first) {
            return Some(Self::Abort);
        }
        let distinct: BTreeSet<&T> = hidden.iter().collect();
        (distinct.len() == hidden.len()).then_some(Self::Commit)
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

#[cfg(test)]
mod tests {
    use super::Ending;

    #[test]
    fn only_what_is_of_one_kind_is_ended() {
        for (hidden, ending) in [
            // Committed, and nobody was told otherwise.
            (&["1", "2", "3"][..], Some(Ending::Commit)),
            (&[], Some(Ending::Commit)),
            // Written again by an owner who was told that it was not.
            (&["1", "1", "2"], Some(Ending::Abort)),
            (&["1", "2", "1", "2", "3"], Some(Ending::Abort)),
            // A commit, and behind it what was aborted and written again: one way or the other is wrong for one of them.
            (&["1", "2", "2", "3"], None),
        ] {
            assert_eq!(Ending::of(hidden), ending, "{hidden:?}");
        }
    }
}
