//! Ending transactions that nobody will end. Kafka 4.3.1 (KAFKA-20734) takes a partition without a leader for one that was
//! deleted: a transaction that ends at that moment, as when the only replica's broker stops, is done for its
//! coordinator, and for us, but its marker is never written to that partition, which hides everything behind it from
//! then on. The next marker under the same id ends both. Not here: who may still write (`takeover`). Invariant: only ids
//! that were shut out are used, and only partitions of shards that are held are touched.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use orloj_domain::owner::{BARRIER_KEY, Barrier};
use orloj_domain::shard::Shard;

use super::takeover::{STEP_MAX, Setback, doubt};
use super::{KafkaOwner, SERVE_INTERVAL};
use crate::clock::Clock;
use crate::codec;
use crate::kafka::claim_ids;
use crate::kafka::client::Deadline;
use crate::kafka::transaction::TransactionalProducer;
use crate::log::{AppendError, Isolation, LogError, NewRecord, TopicPartition};

/// What is left to a person.
const BY_HAND: &str =
    "transactions that nobody ends, and that can't be ended here: see `kafka-transactions.sh find-hanging`";

/// How a transaction that was left over is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// As far as anybody knows it was committed: its owner was told so, or it is the only word on its records.
    Commit,
    /// Its records were written again later: its owner had been told that they were not.
    Abort,
}

/// Partitions that are held up: from where on, and how far they are to become readable, exclusive.
type Held = BTreeMap<TopicPartition, Range<i64>>;

impl KafkaOwner {
    /// Ends what holds up these partitions of topics that restore reads, each read up to the offset given. To be called once
    /// those who claimed their shards before us are shut out and have still left something open.
    pub(super) fn end_hanging(&mut self, left: &BTreeMap<TopicPartition, i64>) -> Result<(), Setback> {
        let stands = |(at, until): (&TopicPartition, &i64)| {
            let (_, stable) = self.restorer.standing(at);
            (0..*until).contains(&stable).then(|| (at.clone(), stable..*until))
        };
        let held: Held = left.iter().filter_map(stands).collect();
        self.end_under(&held, |owner| Ok(owner.ids_of_former(&held)))
    }

    /// Ends what holds up the partitions that the vigil has found and that no restore reads: what owners wrote with the ids of
    /// former owners, what was claimed with those of claimers.
    pub(super) fn end_hidden(&mut self) -> Result<(), Setback> {
        let mut written = Held::new();
        let mut claimed = Held::new();
        for at in std::mem::take(&mut self.hidden) {
            if !self.claiming.contains(&Shard(at.partition)) {
                continue;
            }
            let end = |isolation| self.log.ends.end(&at, isolation).map_err(Setback::NotYet).map_err(doubt);
            let (end, stable) = (end(Isolation::Uncommitted)?, end(Isolation::Committed)?);
            if stable >= end {
                continue;
            }
            if self.tried.insert(at.clone(), stable) == Some(stable) {
                tracing::error!(service = self.spec.service, %at, offset = stable, "{BY_HAND}");
                self.given_up.insert(at);
            } else if self.claimed_topics().any(|topic| *topic == at.topic) {
                claimed.insert(at, stable..end);
            } else {
                written.insert(at, stable..end);
            }
        }
        self.raise_ends(&mut written)?;
        self.raise_ends(&mut claimed)?;
        self.end_under(&written, |owner| Ok(owner.ids_of_former(&written)))?;
        self.end_under(&claimed, KafkaOwner::ids_of_claimers)
    }

    /// Writes a record behind what is hidden: what is there already may end in marks of transactions, which no reader is shown.
    fn raise_ends(&mut self, held: &mut Held) -> Result<(), Setback> {
        let marks = self.marks(held.keys());
        if marks.is_empty() {
            return Ok(());
        }
        let positions = self.write(&marks).map_err(|error| Setback::Doubt(format!("barrier: {error}")))?;
        for (range, position) in held.values_mut().zip(positions) {
            range.end = position.offset + 1;
        }
        Ok(())
    }

    fn claimed_topics(&self) -> impl Iterator<Item = &String> {
        self.spec.claimed.iter().flat_map(|claimed| &claimed.topics)
    }

    fn ids_of_former(&self, held: &Held) -> Vec<String> {
        let shards: BTreeSet<Shard> = held.keys().map(|at| Shard(at.partition)).collect();
        self.history.all_ids(&shards).into_iter().collect()
    }

    fn ids_of_claimers(&mut self) -> Result<Vec<String>, Setback> {
        let Some(claimed) = &self.spec.claimed else { return Ok(Vec::new()) };
        let claimers = (claimed.claimers)(&self.log).map_err(Setback::NotYet).map_err(doubt)?;
        Ok(claimers.iter().flat_map(|claimer| claim_ids::names(&self.recipe.config, claimer)).collect())
    }

    fn end_under(
        &mut self,
        held: &Held,
        ids: impl FnOnce(&mut Self) -> Result<Vec<String>, Setback>,
    ) -> Result<(), Setback> {
        let mut endings = BTreeMap::new();
        for (at, range) in held {
            let service = self.spec.service.clone();
            let Some(ending) = self.ending_of(at, range.clone())? else {
                tracing::error!(service, %at, offset = range.start, "{BY_HAND}");
                continue;
            };
            tracing::warn!(service, %at, offset = range.start, ?ending, "ending a transaction that nobody ends");
            endings.insert(at.clone(), ending);
        }
        if endings.is_empty() {
            return Ok(());
        }
        let ids = ids(self)?;
        self.with_opened(&ids, |owner, mut producer| {
            for ending in [Ending::Commit, Ending::Abort] {
                let wanted = endings.iter().filter(|(_, found)| **found == ending);
                let records = owner.marks(wanted.map(|(at, _)| at));
                if let Err(error) = end_with(&mut producer, &records, ending) {
                    tracing::warn!(producer = producer.id(), %error, "could not end what may be left of it");
                }
            }
            producer.retire();
        })
    }

    /// A record for each partition: barriers, which every reader of these topics passes over.
    fn marks<'a>(&self, partitions: impl Iterator<Item = &'a TopicPartition>) -> Vec<NewRecord> {
        let barrier = codec::encode(&Barrier { incarnation: self.incarnation.clone(), at: self.clock.now() });
        partitions
            .map(|at| NewRecord::new(at.topic.as_str(), at.partition, BARRIER_KEY, Some(barrier.clone())))
            .collect()
    }

    /// Reads what is hidden of a partition, and judges it.
    fn ending_of(&mut self, at: &TopicPartition, hidden: Range<i64>) -> Result<Option<Ending>, Setback> {
        self.scanner.start(&[(at.clone(), hidden.start)]).map_err(Setback::NotYet)?;
        let claimed =
            self.spec.claimed.as_ref().filter(|claimed| claimed.topics.iter().any(|topic| *topic == at.topic));
        let claim_of = claimed.map(|claimed| claimed.claim_of);
        let deadline = Deadline::after(STEP_MAX);
        let mut said = Vec::new();
        let mut is_read = false;
        while !is_read {
            if deadline.has_passed() {
                let start = hidden.start;
                return Err(Setback::NotYet(LogError::Unavailable(format!("{at}: can't be read beyond {start}"))));
            }
            // Whoever lost the shards meanwhile must not end anything of them.
            self.serve_within_takeover()?;
            let Some(record) = self.scanner.next(SERVE_INTERVAL).map_err(Setback::NotYet)? else { continue };
            is_read = record.offset >= hidden.end - 1;
            // Barriers say nothing that could be said twice.
            if record.key.as_deref() == Some(BARRIER_KEY.as_bytes()) {
                continue;
            }
            match claim_of {
                // Claims only: what else is there belongs to no transaction.
                Some(claim_of) => said.extend(claim_of(&record).map(|claim| (Some(claim), None))),
                None => said.push((record.key, record.value)),
            }
        }
        self.scanner.stop();
        Ok(Ending::of(&said))
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
