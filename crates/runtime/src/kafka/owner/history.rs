//! Who claimed a shard before us, folded from its owner records. Not here: reading them (`takeover`).
//! Invariant: every id that an incarnation ever named for a shard counts, and only its last word on the shard
//! says whether it has released it.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::owner::OwnerRecord;
use orloj_domain::shard::Shard;

use crate::codec;
use crate::log::Record;

/// Ids of an owner record that can't be read are guessed by how ids are made, up to this many.
const GUESSED_IDS_MAX: u32 = 32;

#[derive(Debug, Default)]
struct Claimant {
    ids: BTreeSet<String>,
    is_released: bool,
}

/// The claimants of some shards, ourselves left out.
#[derive(Debug, Default)]
pub(super) struct History {
    shards: BTreeMap<Shard, BTreeMap<String, Claimant>>,
}

impl History {
    /// Takes the next record of a shard's partition of the owners topic. `id_prefix` is what ids of this service
    /// begin with.
    pub(super) fn read(&mut self, record: &Record, ours: &str, id_prefix: &str) {
        let Some(incarnation) = record.key_text() else { return };
        if incarnation == ours {
            return;
        }
        let claimants = self.shards.entry(Shard(record.partition)).or_default();
        let claimant = claimants.entry(incarnation.to_owned()).or_default();
        claimant.is_released = record.value.is_none();
        let Some(value) = &record.value else { return };
        match codec::decode::<OwnerRecord>(value) {
            Ok(claim) => claimant.ids.extend(claim.producer_ids),
            Err(error) => {
                tracing::error!(position = %record.position(), %error, "an owner record can't be read: guessing its ids");
                let guessed = (0..GUESSED_IDS_MAX).map(|index| format!("{id_prefix}{incarnation}.{index}"));
                claimant.ids.extend(guessed);
            }
        }
    }

    /// Incarnations that have not released one of `shards`, with the shards concerned.
    pub(super) fn unreleased(&self, shards: &BTreeSet<Shard>) -> BTreeMap<String, BTreeSet<Shard>> {
        let mut found: BTreeMap<String, BTreeSet<Shard>> = BTreeMap::new();
        for (shard, claimants) in self.of(shards) {
            for (incarnation, _) in claimants.iter().filter(|(_, claimant)| !claimant.is_released) {
                found.entry(incarnation.clone()).or_default().insert(*shard);
            }
        }
        found
    }

    /// Every id of an incarnation, on whatever shard it named it.
    pub(super) fn ids_of(&self, incarnation: &str) -> BTreeSet<String> {
        let claimants = self.shards.values().filter_map(|claimants| claimants.get(incarnation));
        claimants.flat_map(|claimant| claimant.ids.iter().cloned()).collect()
    }

    /// Every id of the incarnations that ever claimed one of `shards`.
    pub(super) fn all_ids(&self, shards: &BTreeSet<Shard>) -> BTreeSet<String> {
        let claimants = self.of(shards).flat_map(|(_, claimants)| claimants.values());
        claimants.flat_map(|claimant| claimant.ids.iter().cloned()).collect()
    }

    /// Every id of the incarnations that have released one of `shards`.
    pub(super) fn released_ids(&self, shards: &BTreeSet<Shard>) -> BTreeSet<String> {
        let claimants = self.of(shards).flat_map(|(_, claimants)| claimants.values());
        claimants.filter(|claimant| claimant.is_released).flat_map(|claimant| claimant.ids.iter().cloned()).collect()
    }

    fn of(&self, shards: &BTreeSet<Shard>) -> impl Iterator<Item = (&Shard, &BTreeMap<String, Claimant>)> {
        self.shards.iter().filter(|(shard, _)| shards.contains(shard))
    }
}

#[cfg(test)]
mod tests {
    use orloj_domain::id::Incarnation;
    use orloj_domain::time::Timestamp;

    use super::*;

    fn record(shard: i32, incarnation: &str, ids: Option<&[&str]>) -> Record {
        let value = ids.map(|ids| {
            codec::encode(&OwnerRecord {
                incarnation: Incarnation::new(incarnation).expect("incarnation"),
                producer_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
                generation: 1,
                member: "m".to_owned(),
                host: "h".to_owned(),
                since: Timestamp::from_millis(0),
            })
        });
        Record {
            topic: "owners".into(),
            partition: shard,
            offset: 0,
            timestamp: Timestamp::from_millis(0),
            key: Some(incarnation.as_bytes().to_vec()),
            value,
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_last_word_on_a_shard_counts() {
        let mut history = History::default();
        for (shard, incarnation, ids) in [
            (0, "a", Some(&["a.0", "a.1"][..])),
            (1, "a", Some(&["a.0", "a.1"][..])),
            (0, "a", None),
            (0, "b", Some(&["b.0"][..])),
            (0, "b", None),
            (0, "b", Some(&["b.1"][..])),
            (0, "us", Some(&["us.0"][..])),
        ] {
            history.read(&record(shard, incarnation, ids), "us", "x.");
        }
        let both = BTreeSet::from([Shard(0), Shard(1)]);
        let expected = BTreeMap::from([
            ("a".to_owned(), BTreeSet::from([Shard(1)])),
            ("b".to_owned(), BTreeSet::from([Shard(0)])),
        ]);
        assert_eq!(history.unreleased(&both), expected);
        assert_eq!(history.unreleased(&BTreeSet::from([Shard(2)])), BTreeMap::new());
        assert_eq!(history.ids_of("b"), BTreeSet::from(["b.0".to_owned(), "b.1".to_owned()]));
        assert_eq!(history.released_ids(&BTreeSet::from([Shard(0)])).len(), 2);
    }

    #[test]
    fn ids_of_an_unreadable_claim_are_guessed() {
        let mut history = History::default();
        let mut broken = record(0, "a", Some(&[]));
        broken.value = Some(vec![1, 2, 3]);
        history.read(&broken, "us", "x.");
        assert!(history.ids_of("a").contains("x.a.0"));
    }
}
