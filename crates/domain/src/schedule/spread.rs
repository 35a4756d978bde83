//! `H`: the stable spread of jobs over a field's values, so that a thousand `H * * * *` do not start together.
//!
//! Not here: the syntax of `H` (`fields.rs`). Invariant: the value depends on the seed and the field alone, so it is
//! the same on every machine, in every build and after every restart.

use sha2::{Digest, Sha256};

/// One 32-bit number per field, all drawn from one digest of the seed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spread([u8; 32]);

impl Spread {
    /// Hashes the seed; any text will do, usually the job's id.
    pub(super) fn new(seed: &str) -> Spread {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(&Sha256::digest(seed.as_bytes()));
        Spread(bytes)
    }

    /// A number in `0..count` for the field at `slot` (0 is the second, 6 the year). `count` is at least 1.
    pub(super) fn pick(&self, slot: usize, count: u16) -> u16 {
        let word = self.0.iter().skip(slot * 4).take(4).fold(0u64, |word, byte| (word << 8) | u64::from(*byte));
        // Scaling by multiplication instead of a remainder: the quotient always fits, it is below `count`.
        ((word * u64::from(count)) >> 32) as u16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_pinned_across_builds() {
        let spread = Spread::new("billing/nightly-invoice");
        let picks: Vec<u16> = (0..7).map(|slot| spread.pick(slot, 60)).collect();
        // Published behaviour, computed by another program: a change here moves every job that uses `H`.
        assert_eq!(picks, [20, 16, 24, 12, 33, 50, 20]);
    }

    #[test]
    fn picks_cover_the_range_evenly() {
        let mut hits = [0u32; 60];
        for job in 0..6000 {
            hits[usize::from(Spread::new(&format!("ns/job-{job}")).pick(1, 60))] += 1;
        }
        assert!(hits.iter().all(|hits| (50..=150).contains(hits)), "{hits:?}");
    }
}
