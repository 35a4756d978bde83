//! What waits to be appended of one shard, in order. Not here: when it is appended (`flush`). Invariant: nothing is left out
//! but what a later record of the same append makes needless.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use super::service::Haste;
use super::shard_run::Size;
use crate::log::NewRecord;

/// Records that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    records: Vec<NewRecord>,
    bytes: usize,
    /// Somebody waits for one of them.
    is_urgent: bool,
    /// On the monotonic clock: when the first of them came, if nobody waits for any.
    since: Option<Duration>,
    /// By subject: records that a later event about it makes needless.
    passing: BTreeMap<u128, Range<usize>>,
    needless: Vec<Range<usize>>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn size(&self) -> Size {
        Size { records: self.records.len(), bytes: self.bytes }
    }

    /// True if somebody waits for what is here.
    pub(super) fn is_urgent(&self) -> bool {
        self.is_urgent
    }

    /// Since when the first of what nobody waits for is here.
    pub(super) fn waits_since(&self) -> Option<Duration> {
        if self.is_urgent { None } else { self.since }
    }

    /// Adds what somebody waits for.
    pub(super) fn add(&mut self, records: impl IntoIterator<Item = NewRecord>) -> Size {
        self.add_with((Haste::Now, None), Duration::ZERO, |out| out.extend(records))
    }

    /// Adds what `write` writes; `now` is on the monotonic clock. Answers how much that was.
    pub(super) fn add_with(
        &mut self,
        (haste, subject): (Haste, Option<u128>),
        now: Duration,
        write: impl FnOnce(&mut Vec<NewRecord>),
    ) -> Size {
        let first = self.records.len();
        write(&mut self.records);
        let added = &self.records[first..];
        if added.is_empty() {
            return Size::default();
        }
        let size = Size { records: added.len(), bytes: added.iter().map(NewRecord::size_bytes).sum() };
        self.bytes += size.bytes;
        self.is_urgent |= haste == Haste::Now;
        self.since.get_or_insert(now);
        if let Some(subject) = subject {
            self.needless.extend(self.passing.remove(&subject));
            if haste == Haste::Passing {
                self.passing.insert(subject, first..self.records.len());
            }
        }
        size
    }

    /// Takes all of it, without what is needless.
    pub(super) fn take(&mut self) -> Vec<NewRecord> {
        let mut taken = std::mem::take(self);
        if !taken.needless.is_empty() {
            taken.needless.sort_unstable_by_key(|range| range.start);
            let mut needless = taken.needless.into_iter().flatten().peekable();
            let mut indexes = 0..;
            taken.records.retain(|_| needless.next_if_eq(&indexes.next().unwrap_or_default()).is_none());
        }
        taken.records
    }

    /// Puts back what was taken and not appended, before what has come since. It has waited long enough.
    pub(super) fn put_back(&mut self, older: Vec<NewRecord>) {
        let newer = self.take();
        self.add(older.into_iter().chain(newer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &str) -> NewRecord {
        NewRecord::new("t", 0, name, None)
    }

    fn keys(records: &[NewRecord]) -> Vec<&str> {
        records.iter().filter_map(|record| std::str::from_utf8(record.key.as_deref()?).ok()).collect()
    }

    fn add(pending: &mut Pending, names: &[&str], haste: Haste, subject: u128, at: u64) {
        let records = names.iter().map(|name| record(name));
        pending.add_with((haste, Some(subject)), Duration::from_secs(at), |out| out.extend(records));
    }

    #[test]
    fn what_passes_is_left_out_when_more_is_said_of_its_subject() {
        let mut pending = Pending::default();
        add(&mut pending, &["a1", "a2"], Haste::Passing, 1, 1);
        add(&mut pending, &["b1"], Haste::Passing, 2, 2);
        add(&mut pending, &["a3", "a4"], Haste::Passing, 1, 3);
        add(&mut pending, &["c1"], Haste::Later, 3, 4);
        add(&mut pending, &["a5"], Haste::Later, 1, 5);
        add(&mut pending, &["a6"], Haste::Later, 1, 6);
        assert_eq!((pending.is_urgent(), pending.waits_since()), (false, Some(Duration::from_secs(1))));
        assert_eq!(keys(&pending.take()), ["b1", "c1", "a5", "a6"]);
        assert_eq!((pending.is_empty(), pending.size().bytes, pending.waits_since()), (true, 0, None));
        // What was appended stands.
        add(&mut pending, &["b2"], Haste::Later, 2, 7);
        assert_eq!(keys(&pending.take()), ["b2"]);
    }

    #[test]
    fn what_somebody_waits_for_takes_all_along_and_comes_back_in_order() {
        let mut pending = Pending::default();
        add(&mut pending, &["a1"], Haste::Passing, 1, 1);
        add(&mut pending, &[], Haste::Now, 9, 1);
        assert!(!pending.is_urgent(), "an event without records is nothing to wait for");
        add(&mut pending, &["b1"], Haste::Now, 2, 2);
        assert_eq!((pending.is_urgent(), pending.waits_since()), (true, None));
        let taken = pending.take();
        add(&mut pending, &["a2"], Haste::Later, 1, 3);
        pending.put_back(taken);
        assert!(pending.is_urgent());
        assert_eq!(pending.size().bytes, 6);
        assert_eq!(keys(&pending.take()), ["a1", "b1", "a2"]);
    }
}
