//! The bytes of a request as what sets them apart from those of another request of the same job: most of a request is
//! the job's, and many runs of a job wait at once. Not here: what the bytes mean. Invariant: what is rebuilt is what was
//! given, byte for byte, whatever it was: expectations save memory and decide nothing.

use orloj_domain::id::RunId;
use orloj_domain::time::Timestamp;

use crate::bytes::{Packer, Unpacker};

/// How many texts of a request are known beside its bytes.
const KNOWN: usize = 3;
/// Length of a run id as text.
const RUN_ID_BYTES: usize = 36;
/// Stands for a text that the bytes do not hold.
const ABSENT: u32 = u32::MAX;
/// Bytes compared at a time.
const STRIDE: usize = 32;

/// What is known of a request without its bytes, as it stands in them, in their order: fire time, run id, time of the
/// decision.
#[derive(Debug)]
pub(crate) struct Known([Vec<u8>; KNOWN]);

impl Known {
    pub(crate) fn of(run: RunId, fire_time: Timestamp, requested_at: Timestamp) -> Self {
        // As Avro writes a long.
        let instant = |instant: Timestamp| {
            let mut packer = Packer::default();
            packer.signed(instant.millis());
            packer.into_bytes()
        };
        Self([instant(fire_time), run.to_string().into_bytes(), instant(requested_at)])
    }
}

/// The bytes of some request with holes where those of others differ.
#[derive(Debug)]
pub(crate) struct Pattern {
    /// Without what is known.
    bytes: Box<[u8]>,
    /// Where in `bytes` each known text was, in order.
    holes: [u32; KNOWN],
}

impl Pattern {
    /// The pattern of these bytes. Where something known does not stand in them there is no hole.
    pub(crate) fn of(bytes: &[u8], known: &Known) -> Self {
        let mut kept = Vec::with_capacity(bytes.len());
        let mut holes = [ABSENT; KNOWN];
        let mut rest = bytes;
        for (hole, text) in holes.iter_mut().zip(&known.0) {
            let place = rest.windows(text.len()).position(|window| window == text);
            let Some(place) = place.filter(|place| kept.len() + place < ABSENT as usize) else { continue };
            kept.extend_from_slice(&rest[..place]);
            *hole = u32::try_from(kept.len()).unwrap_or(ABSENT);
            rest = &rest[place + text.len()..];
        }
        kept.extend_from_slice(rest);
        Self { bytes: kept.into(), holes }
    }

    /// What a request is expected to look like.
    pub(crate) fn expected(&self, known: &Known) -> Vec<u8> {
        let mut expected = Vec::with_capacity(self.bytes.len() + RUN_ID_BYTES + 2 * size_of::<u64>());
        let mut from = 0;
        for (hole, text) in self.holes.iter().zip(&known.0).filter(|(hole, _)| **hole != ABSENT) {
            let hole = *hole as usize;
            expected.extend_from_slice(&self.bytes[from..hole]);
            expected.extend_from_slice(text);
            from = hole;
        }
        expected.extend_from_slice(&self.bytes[from..]);
        expected
    }
}

/// Writes what sets `bytes` apart from what was expected: how many bytes at both ends are the same, and those between.
pub(crate) fn pack(packer: &mut Packer, bytes: &[u8], expected: &[u8]) {
    if bytes == expected {
        packer.unsigned(0);
        return;
    }
    let same_before = same(bytes, expected);
    let shorter = bytes.len().min(expected.len()) - same_before;
    let ends = bytes.iter().rev().zip(expected.iter().rev()).take(shorter);
    let same_after = ends.take_while(|(one, other)| one == other).count();
    packer.unsigned(same_before as u64 + 1);
    packer.unsigned(same_after as u64);
    packer.bytes(&bytes[same_before..bytes.len() - same_after]);
}

/// Rebuilds the bytes from what was expected and the difference that [`pack`] wrote.
pub(crate) fn unpack(unpacker: &mut Unpacker<'_>, expected: Vec<u8>) -> Vec<u8> {
    let Some(same_before) = unpacker.unsigned().checked_sub(1) else { return expected };
    let same_before = index(same_before);
    let same_after = index(unpacker.unsigned());
    let between = unpacker.bytes();
    let (before, after) = (&expected[..same_before], &expected[expected.len() - same_after..]);
    [before, between, after].concat()
}

/// How many bytes at the beginning are the same.
fn same(one: &[u8], other: &[u8]) -> usize {
    let strides = one.chunks_exact(STRIDE).zip(other.chunks_exact(STRIDE));
    let from = STRIDE * strides.take_while(|(one, other)| one == other).count();
    from + one[from..].iter().zip(&other[from..]).take_while(|(one, other)| one == other).count()
}

fn index(number: u64) -> usize {
    usize::try_from(number).unwrap_or_else(|_| unreachable!("it was the length of something in memory"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(number: i64) -> Known {
        let at = Timestamp::from_millis;
        let job = "a/b".parse().expect("job");
        Known::of(RunId::of_fire_time(&job, 1, at(number)), at(number), at(number.wrapping_mul(7)))
    }

    /// Rebuilds bytes from their difference to a pattern, and says how long that is.
    fn rebuild(bytes: &[u8], known: &Known, pattern: &Pattern) -> usize {
        let mut packer = Packer::default();
        pack(&mut packer, bytes, &pattern.expected(known));
        let packed = packer.into_bytes();
        let mut unpacker = Unpacker::new(&packed);
        assert_eq!(unpack(&mut unpacker, pattern.expected(known)), bytes);
        packed.len()
    }

    fn request(known: &Known, texts: [&[u8]; 2]) -> Vec<u8> {
        let [fire_time, run_id, requested_at] = &known.0;
        [b"job".as_slice(), fire_time, b"requested", run_id, requested_at, texts[0], &[b'x'; 400], texts[1]].concat()
    }

    #[test]
    fn a_request_like_the_others_costs_a_few_bytes() {
        let first = request(&known(1), [b"1", b"spec"]);
        let pattern = Pattern::of(&first, &known(1));
        for (number, texts, bytes_max) in [
            (1, [b"1".as_slice(), b"spec".as_slice()], 1),
            (1_700_000_000_000, [b"1", b"spec"], 1),
            (9, [b"12", b"spec"], 8),
            (9, [b"", b"spec"], 8),
            (9, [b"1", b"other"], 10),
            (9, [b"1", b""], 10),
        ] {
            let bytes = request(&known(number), texts);
            let cost = rebuild(&bytes, &known(number), &pattern);
            assert!(cost <= bytes_max, "{number} {texts:?} costs {cost}");
        }
    }

    proptest! {
        #[test]
        fn whatever_it_is_it_comes_back(
            first in proptest::collection::vec(0..3_u8, 0..200),
            bytes in proptest::collection::vec(0..3_u8, 0..200),
            number in any::<i64>(), is_known in any::<bool>(), place in 0..100_usize,
        ) {
            let mut first = first;
            if is_known {
                for text in known(5).0 {
                    let place = place.min(first.len());
                    first.splice(place..place, text);
                }
            }
            let pattern = Pattern::of(&first, &known(5));
            prop_assert_eq!(&pattern.expected(&known(5)), &first);
            rebuild(&bytes, &known(number), &pattern);
            rebuild(&first, &known(number), &pattern);
            rebuild(&first, &known(5), &pattern);
        }
    }
}
