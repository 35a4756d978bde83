//! The store in memory, for tests and the seeded simulation: fast, and the same calls give the same result.
//! Not here: durability; it ends with the process. Invariant: maps in order only, no clock, no randomness.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orloj_domain::time::Timestamp;

use super::{
    BatchId, Change, Loaded, NO_BATCH, Outline, PartitionKey, Range, Slice, Store, StoreError, StoreReader,
    StoredRecord,
};

type Records = BTreeMap<PartitionKey, BTreeMap<i64, StoredRecord>>;

/// Records in maps.
#[derive(Debug, Clone, Default)]
pub(crate) struct MemoryStore {
    records: Arc<Mutex<Records>>,
}

impl MemoryStore {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    /// A new one is empty; a used one is never loaded again.
    fn load(&self) -> Result<Loaded, StoreError> {
        Ok(Loaded { next_batch: NO_BATCH + 1, ..Loaded::default() })
    }

    /// Topics, batches, positions and marks are the broker's to remember: nothing outlives it here.
    fn commit(&self, changes: Vec<Change>) -> Result<(), StoreError> {
        let mut records = self.records();
        for change in changes {
            match change {
                Change::Put(key, record) => {
                    records.entry(key).or_default().insert(record.offset, record);
                }
                Change::Remove(key, offsets) => {
                    let partition = records.entry(key).or_default();
                    for offset in offsets {
                        partition.remove(&offset);
                    }
                }
                Change::RemoveBelow(key, first) => {
                    let partition = records.entry(key).or_default();
                    *partition = partition.split_off(&first);
                }
                Change::CreateTopic { .. }
                | Change::OpenBatch(_)
                | Change::CloseBatch(_)
                | Change::SetPosition(..)
                | Change::Mark(..) => {}
            }
        }
        Ok(())
    }

    fn reader(&self) -> Result<Box<dyn StoreReader>, StoreError> {
        Ok(Box::new(self.clone()))
    }
}

impl StoreReader for MemoryStore {
    fn read(&mut self, range: Range) -> Result<Slice<StoredRecord>, StoreError> {
        let mut bytes = 0;
        self.slice(range, |record| {
            bytes += record.key.as_ref().map_or(0, Vec::len) + record.value.as_ref().map_or(0, Vec::len);
            (record.clone(), bytes >= range.bytes_max)
        })
    }

    fn outline(&mut self, range: Range) -> Result<Slice<Outline>, StoreError> {
        self.slice(range, |record| {
            let outline = Outline {
                offset: record.offset,
                at: record.at,
                batch: record.batch,
                key: record.key.clone(),
                is_tombstone: record.value.is_none(),
            };
            (outline, false)
        })
    }

    fn offset_at(&mut self, key: PartitionKey, time: Timestamp) -> Result<Option<i64>, StoreError> {
        let records = self.records();
        let partition = records.get(&key);
        Ok(partition.and_then(|records| records.values().find(|record| record.at >= time).map(|record| record.offset)))
    }

    fn has_records_of(&mut self, batch: BatchId) -> Result<bool, StoreError> {
        Ok(self.records().values().flat_map(BTreeMap::values).any(|record| record.batch == batch))
    }
}

impl MemoryStore {
    /// Takes rows until the range is used up or `take` says that this one was the last.
    fn slice<T>(&self, range: Range, mut take: impl FnMut(&StoredRecord) -> (T, bool)) -> Result<Slice<T>, StoreError> {
        let records = self.records();
        let mut rows = Vec::new();
        if let Some(partition) = records.get(&range.key).filter(|_| range.from < range.until) {
            for (offset, record) in partition.range(range.from..range.until) {
                let (row, is_last) = take(record);
                rows.push(row);
                if is_last || rows.len() >= range.records_max {
                    return Ok(Slice { rows, next: offset + 1 });
                }
            }
        }
        Ok(Slice { rows, next: range.until })
    }
}
