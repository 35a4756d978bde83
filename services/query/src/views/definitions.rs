//! Definitions ready for use: decoded, with rules parsed and the manifest written out. Kept in a cache, since
//! lists of jobs ask for the same ones again and again. Invariant: the key holds the version and the offset, so
//! an entry can be too old for nobody; nothing is decided by what is in the cache.

use std::sync::Arc;

use moka::sync::Cache;
use orloj_domain::job::JobDefinition;
use orloj_domain::manifest;
use orloj_domain::schedule::Rule;
use orloj_runtime::codec;
use serde_json::Value;

/// Most definitions kept; the largest are 256 KiB, the usual ones 1 KiB.
const KEPT_MAX: u64 = 4096;
/// Most bytes of encoded definitions kept.
const KEPT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A definition and what is derived from it.
#[derive(Debug)]
pub(crate) struct Definition {
    /// As it is on the log.
    pub(crate) definition: JobDefinition,
    /// Its rules; none if they no longer parse, as after an update of the time zone data.
    pub(crate) rules: Vec<Rule>,
    /// As people write it.
    pub(crate) manifest: Value,
}

type Key = (String, i64, i64);

/// The cache.
pub(crate) struct Definitions(Cache<Key, Arc<Definition>>);

impl Definitions {
    /// An empty cache.
    pub(crate) fn new() -> Self {
        let weight = u32::try_from(KEPT_BYTES_MAX / KEPT_MAX).unwrap_or(1);
        let weigher = move |_: &Key, kept: &Arc<Definition>| {
            weight.max(u32::try_from(kept.manifest.to_string().len()).unwrap_or(u32::MAX))
        };
        Self(Cache::builder().max_capacity(KEPT_BYTES_MAX).weigher(weigher).build())
    }

    /// The definition in `encoded`, which is that of this job, version and offset.
    pub(crate) fn of(&self, job: &str, version: i64, offset: i64, encoded: &[u8]) -> Option<Arc<Definition>> {
        let key = (job.to_owned(), version, offset);
        if let Some(kept) = self.0.get(&key) {
            return Some(kept);
        }
        let definition: JobDefinition = codec::decode(encoded).ok()?;
        let rules = manifest::rules_of(&definition).unwrap_or_default();
        let manifest = serde_json::to_value(manifest::from_definition(&definition)).ok()?;
        let made = Arc::new(Definition { definition, rules, manifest });
        self.0.insert(key, Arc::clone(&made));
        Some(made)
    }
}
