//! Up to where a machine covers the topics that a restore reads, with proof: the last record there that no other
//! history has. Not here: files (`snapshot`). Invariant: a snapshot counts only if the log still holds its proof, the
//! same bytes at the same offset, in each topic; what a positions record says may repeat, so it proves nothing.

use std::collections::BTreeMap;

use orloj_domain::owner::POSITIONS_KEY;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// How far one topic is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tail {
    /// Offset of the last record that is no positions record.
    pub(super) proof: i64,
    /// Hash of its key and value.
    pub(super) digest: u64,
    /// Offset of the last record; what stands between the proof and it are positions.
    pub(super) covered: i64,
}

/// The tails of one shard by topic, as they grow.
#[derive(Debug, Clone, Default)]
pub(super) struct Tails(pub(super) BTreeMap<String, Tail>);

impl Tails {
    /// A record of ours, or a barrier, at the end of its partition.
    pub(super) fn extend(&mut self, topic: &str, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) {
        if key == Some(POSITIONS_KEY.as_bytes()) {
            if let Some(tail) = self.0.get_mut(topic) {
                tail.covered = tail.covered.max(offset);
            }
            return;
        }
        let tail = Tail { proof: offset, digest: digest(key, value), covered: offset };
        match self.0.get_mut(topic) {
            // The records of one batch come in any order.
            Some(before) => *before = Tail { covered: before.covered.max(offset), ..tail },
            None => drop(self.0.insert(topic.to_owned(), tail)),
        }
    }
}

/// A snapshot that a restore rests on, while its proofs are being looked up.
#[derive(Debug)]
pub(super) struct Trial {
    tails: BTreeMap<String, Tail>,
    /// Topics whose proof was found.
    proven: Vec<String>,
    is_void: bool,
}

impl Trial {
    pub(super) fn new(tails: BTreeMap<String, Tail>) -> Self {
        Self { tails, proven: Vec::new(), is_void: false }
    }

    /// Where to begin to read a topic: with the proof.
    pub(super) fn start_of(&self, topic: &str) -> Option<i64> {
        self.tails.get(topic).map(|tail| tail.proof)
    }

    /// True if the record comes after what the snapshot covers. The first one of a topic must be its proof.
    pub(super) fn is_behind(&mut self, topic: &str, offset: i64, key: Option<&[u8]>, value: Option<&[u8]>) -> bool {
        let Some(tail) = self.tails.get(topic) else {
            self.is_void = true;
            return false;
        };
        if !self.proven.iter().any(|proven| proven == topic) {
            self.proven.push(topic.to_owned());
            self.is_void |= offset != tail.proof || digest(key, value) != tail.digest;
        }
        !self.is_void && offset > tail.covered
    }

    /// True once every proof was found and none was wrong.
    pub(super) fn has_held(&self) -> bool {
        !self.is_void && self.proven.len() == self.tails.len()
    }
}

/// Eight bytes of SHA-256 over key and value.
fn digest(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let mut hash = Sha256::new();
    for part in [key, value] {
        let length = part.map_or(u64::MAX, |part| part.len() as u64);
        hash.update(length.to_le_bytes());
        hash.update(part.unwrap_or_default());
    }
    let mut first = [0; 8];
    first.copy_from_slice(&hash.finalize()[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: &str = "state";

    fn tails() -> Tails {
        let mut tails = Tails::default();
        tails.extend(STATE, 3, Some(b"a/b"), Some(b"one"));
        tails.extend(STATE, 4, Some(POSITIONS_KEY.as_bytes()), Some(b"positions"));
        tails
    }

    #[test]
    fn positions_are_covered_and_prove_nothing() {
        let tail = tails().0[STATE];
        assert_eq!((tail.proof, tail.covered), (3, 4));
    }

    #[test]
    fn a_snapshot_holds_only_where_its_proof_stands() {
        let check = |records: &[(i64, &[u8])], wanted: (Vec<bool>, bool)| {
            let mut trial = Trial::new(tails().0);
            let key = Some(b"a/b".as_slice());
            let behind =
                records.iter().map(|(offset, value)| trial.is_behind(STATE, *offset, key, Some(value))).collect();
            assert_eq!((behind, trial.has_held()), wanted, "{records:?}");
        };
        check(&[(3, b"one"), (4, b""), (5, b"new")], (vec![false, false, true], true));
        check(&[(3, b"two"), (5, b"new")], (vec![false, false], false));
        check(&[(4, b"one"), (5, b"new")], (vec![false, false], false));
        check(&[], (vec![], false));
    }
}
