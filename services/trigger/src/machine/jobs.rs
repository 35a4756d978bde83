//! The jobs of a shard, found by their names. Not here: what a job is (`entry`). Invariant: a job keeps its index for
//! good, and each name has one; the order of a walk is that in which the jobs came.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use orloj_domain::id::JobId;

use super::entry::Entry;
use crate::wheel::JOBS_MAX;

/// The jobs. A place by name is five bytes: the name itself is that of the job.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    entries: Vec<Entry>,
    places: HashTable<u32>,
    /// With keys of its own: names are other people's, and must not be made to collide.
    hasher: DefaultHashBuilder,
}

impl Jobs {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn index_of(&self, job: &JobId) -> Option<u32> {
        let hash = self.hasher.hash_one(job);
        self.places.find(hash, |index| self.entries[*index as usize].job == *job).copied()
    }

    pub(super) fn find(&self, job: &JobId) -> Option<&Entry> {
        self.index_of(job).map(|index| self.get(index))
    }

    /// The job of an index that was given out.
    pub(super) fn get(&self, index: u32) -> &Entry {
        &self.entries[index as usize]
    }

    /// As [`Jobs::get`], to change anything but its name.
    pub(super) fn get_mut(&mut self, index: u32) -> &mut Entry {
        &mut self.entries[index as usize]
    }

    /// Adds a job whose name is new; `None` if there are too many.
    pub(super) fn push(&mut self, entry: Entry) -> Option<u32> {
        let index = u32::try_from(self.entries.len()).ok().filter(|index| *index < JOBS_MAX)?;
        let hash = self.hasher.hash_one(&entry.job);
        self.entries.push(entry);
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.places.insert_unique(hash, index, |index| hasher.hash_one(&entries[*index as usize].job));
        Some(index)
    }

    /// All of them with their indexes, in the order in which they came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &Entry)> {
        (0..).zip(&self.entries)
    }
}
