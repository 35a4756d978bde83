//! The live runs of a shard, packed, by their ids. Not here: ways to find them otherwise (`index`). Invariant: a run keeps
//! its handle as long as it is live, step by step; a handle that is free may be given to another run.

use std::hash::BuildHasher;

use hashbrown::{DefaultHashBuilder, HashTable};
use orloj_domain::id::RunId;

use crate::packed::Packed;
use crate::run::Run;
use crate::shares::Shares;

/// The place of a live run.
pub(super) type Handle = u32;

/// Places made at a time: a slab that doubled would hold as much again as it needs.
const CHUNK: usize = 512;

/// The live runs. A place by id is five bytes: the id itself is that of the run.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs {
    chunks: Vec<Vec<Option<Packed>>>,
    free: Vec<Handle>,
    places: HashTable<Handle>,
    /// With keys of its own: ids come from the log, and must not be made to collide.
    hasher: DefaultHashBuilder,
    shares: Shares,
}

/// By the runs, wherever they are.
impl PartialEq for Runs {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(_, run)| other.get(run.request.run_id) == Some(run))
    }
}

impl Runs {
    pub(super) fn new(shares: Shares) -> Self {
        Self { shares, ..Self::default() }
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn contains(&self, run: RunId) -> bool {
        self.handle(run).is_some()
    }

    pub(super) fn get(&self, run: RunId) -> Option<Run> {
        self.handle(run).map(|handle| self.at(handle))
    }

    /// The run of a handle that is in use.
    pub(super) fn at(&self, handle: Handle) -> Run {
        self.packed(handle).run()
    }

    /// Puts a run in the place of the one with its id, if that is live, which is given back.
    pub(super) fn put(&mut self, run: &Run) -> (Handle, Option<Run>) {
        let packed = Packed::of(run, &self.shares);
        if let Some(handle) = self.handle(run.request.run_id) {
            return (handle, self.slot(handle).replace(packed).map(|packed| packed.run()));
        }
        let handle = self.free.pop().unwrap_or_else(|| self.grow());
        *self.slot(handle) = Some(packed);
        let hash = self.hasher.hash_one(run.request.run_id);
        let (chunks, hasher) = (&self.chunks, &self.hasher);
        self.places.insert_unique(hash, handle, |handle| hasher.hash_one(packed_in(chunks, *handle).run_id()));
        (handle, None)
    }

    pub(super) fn take(&mut self, run: RunId) -> Option<(Handle, Run)> {
        let hash = self.hasher.hash_one(run);
        let chunks = &self.chunks;
        let place = self.places.find_entry(hash, |handle| packed_in(chunks, *handle).run_id() == run);
        let handle = place.ok()?.remove().0;
        let packed = self.slot(handle).take()?;
        if self.places.is_empty() && self.chunks.len() > 1 {
            // What a crowd needed is given back once it is gone.
            *self = Self { hasher: self.hasher.clone(), ..Self::new(self.shares.clone()) };
        } else {
            self.free.push(handle);
        }
        Some((handle, packed.run()))
    }

    /// All of them, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Handle, Run)> {
        self.places.iter().map(|handle| (*handle, self.at(*handle)))
    }

    fn handle(&self, run: RunId) -> Option<Handle> {
        let hash = self.hasher.hash_one(run);
        self.places.find(hash, |handle| self.packed(*handle).run_id() == run).copied()
    }

    fn packed(&self, handle: Handle) -> &Packed {
        packed_in(&self.chunks, handle)
    }

    fn slot(&mut self, handle: Handle) -> &mut Option<Packed> {
        &mut self.chunks[handle as usize / CHUNK][handle as usize % CHUNK]
    }

    /// A new place.
    fn grow(&mut self) -> Handle {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let place = (self.chunks.len() - 1) * CHUNK + self.chunks.last().map_or(0, Vec::len);
        self.chunks.last_mut().into_iter().for_each(|chunk| chunk.push(None));
        Handle::try_from(place).unwrap_or_else(|_| unreachable!("so many runs fit no memory"))
    }
}

fn packed_in(chunks: &[Vec<Option<Packed>>], handle: Handle) -> &Packed {
    let packed = chunks[handle as usize / CHUNK][handle as usize % CHUNK].as_ref();
    packed.unwrap_or_else(|| unreachable!("handle {handle} is of no run"))
}
