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

/// True if a cron expression names `H`, so that its fires depend on the seed it is parsed with. Never false for one
/// that does; what is no expression at all may answer either.
pub fn has_spread(expression: &str) -> bool {
    let is_border = |character: char| character.is_ascii_whitespace() || character == ',';
    expression.split(is_border).any(|item| item.starts_with(['H', 'h']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{CronRule, Dialect, Fold, Gap};

    #[test]
    fn fires_depend_on_the_seed_only_where_spread_is_named() {
        for (expression, is_named) in [
            ("0 0 * * THU", false),
            ("@hourly", false),
            ("@monthly", false),
            ("*/5 3,4 1-7 MAR,APR MON#2", false),
            ("0 0 LW * ?", false),
            ("H * * * *", true),
            ("0 h * * *", true),
            ("0,H 3 * * *", true),
            ("H(0-29)/10 * * * *", true),
            ("H/15 * * * *", true),
            ("0 0\tH * *", true),
            ("0 0 * * H", true),
        ] {
            assert_eq!(has_spread(expression), is_named, "{expression}");
            let rule = |seed: &str| {
                CronRule::parse(expression, Dialect::Unix, "UTC", Gap::Shift, Fold::First, seed).expect("a rule")
            };
            let is_same = (0..200).all(|seed| rule(&seed.to_string()) == rule("a/b"));
            assert_eq!(is_same, !is_named, "{expression}");
        }
    }

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
