//! Which shard a job belongs to: murmur2 of the key modulo the shard count, as Kafka's Java client partitions,
//! so a stock Java producer lands right. Invariant: a job is in one shard for as long as the count stays.

use std::fmt;

use crate::id::JobId;

/// One partition number across all job-keyed topics; 0-based.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub i32);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How many shards an installation has; fixed for its life. Always 1 or more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardCount(i32);

impl ShardCount {
    /// Takes 1..=4096 shards; anything else is `None`.
    #[must_use]
    pub fn new(count: i32) -> Option<Self> {
        (1..=4096).contains(&count).then_some(Self(count))
    }

    /// The number itself.
    #[must_use]
    pub fn get(self) -> i32 {
        self.0
    }

    /// The shard of a job.
    #[must_use]
    pub fn shard_of(self, job: &JobId) -> Shard {
        self.shard_of_key(job.as_str().as_bytes())
    }

    /// The shard of a raw record key, as the Java client's default partitioner computes it:
    /// `toPositive(murmur2(key)) % count` (`org.apache.kafka.clients.producer.internals.BuiltInPartitioner`).
    #[must_use]
    pub fn shard_of_key(self, key: &[u8]) -> Shard {
        let positive = i32::try_from(murmur2(key) & 0x7fff_ffff).unwrap_or(0);
        Shard(positive % self.0)
    }

    /// All shards, in order.
    pub fn all(self) -> impl Iterator<Item = Shard> {
        (0..self.0).map(Shard)
    }
}

/// 32-bit `MurmurHash2` with the seed that Kafka's Java client uses (`Utils.murmur2`).
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut hash = SEED ^ length;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    let rest = words.remainder();
    for (index, byte) in rest.iter().enumerate() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !rest.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Kafka's own test of `Utils.murmur2` (clients/.../UtilsTest.java, `testMurmur2`).
    #[test]
    fn murmur2_agrees_with_the_java_client() {
        for (key, hash) in [
            ("21", -973_932_308_i32),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }
}
