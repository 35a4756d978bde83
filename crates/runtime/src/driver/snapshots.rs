//! When snapshots are taken and used: each shard's now and then and when the process leaves, all of them at a takeover.
//! Not here: files (`snapshot`), proofs (`tails`). Invariant: a snapshot is taken of a machine that holds exactly what
//! was committed; trouble with one is a line in the log and nothing more.

use std::collections::BTreeMap;
use std::thread::JoinHandle;
use std::time::Duration;

use orloj_domain::shard::Shard;

use super::Driver;
use super::service::{Machine, Service};
use super::shard_run::ShardRun;
use super::snapshot::{Folder, Head};
use super::tails::{Tails, Trial};
use crate::log::TakenShard;

/// How often a shard that has changed is written. Between two of them a restart reads this much of the log more.
pub(super) const INTERVAL: Duration = Duration::from_secs(300);
/// Most files read or written side by side.
const THREADS_MAX: usize = 4;

/// The snapshots of one service instance.
pub(super) struct Snapshots {
    folder: Folder,
    /// The file that is being written, if any: one at a time.
    writing: Option<JoinHandle<()>>,
}

impl Snapshots {
    pub(super) fn new(folder: Folder) -> Self {
        Self { folder, writing: None }
    }

    /// Puts what is in the folder into fresh runs; how many of them now rest on a snapshot that the log must prove.
    pub(super) fn load<S: Service>(
        &self,
        service: &S,
        taken: &[TakenShard],
        runs: &mut BTreeMap<Shard, ShardRun<S::Machine>>,
    ) -> usize {
        let mut wanted: Vec<_> = runs
            .iter_mut()
            .filter_map(|(shard, run)| Some((taken.iter().find(|taken| taken.shard == *shard)?, run)))
            .collect();
        let share = wanted.len().div_ceil(threads()).max(1);
        let folder = &self.folder;
        std::thread::scope(|scope| {
            let load_all = |chunk: &mut [(&TakenShard, &mut ShardRun<S::Machine>)]| {
                chunk.iter_mut().filter_map(|(taken, run)| load(folder, service, taken, run)).count()
            };
            let threads: Vec<_> = wanted.chunks_mut(share).map(|chunk| scope.spawn(move || load_all(chunk))).collect();
            let loaded = threads.into_iter().map(|thread| match thread.join() {
                Ok(count) => count,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            loaded.sum()
        })
    }

    /// Writes what has changed of all shards; returns when it is done.
    pub(super) fn take_all<S: Service>(&mut self, service: &S, shards: &mut BTreeMap<Shard, ShardRun<S::Machine>>) {
        self.finish_writing();
        let mut wanted: Vec<_> = shards.iter_mut().filter(|(_, run)| run.is_worth_a_snapshot()).collect();
        let share = wanted.len().div_ceil(threads()).max(1);
        let folder = &self.folder;
        std::thread::scope(|scope| {
            for chunk in wanted.chunks_mut(share) {
                scope.spawn(move || {
                    for (shard, run) in chunk {
                        if let Some((head, body)) = taken(folder, service, **shard, run) {
                            write(folder, &head, &body);
                        }
                    }
                });
            }
        });
    }

    fn finish_writing(&mut self) {
        if let Some(writing) = self.writing.take() {
            // It has said by itself what went wrong.
            let _ = writing.join();
        }
    }

    fn is_writing(&self) -> bool {
        self.writing.as_ref().is_some_and(|writing| !writing.is_finished())
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.finish_writing();
    }
}

impl<S: Service> Driver<S> {
    /// Writes the snapshot of one shard, if one is due.
    pub(super) fn take_snapshot(&mut self) {
        let Some(snapshots) = &mut self.snapshots else { return };
        if snapshots.is_writing() || self.retry_at.is_some() {
            return;
        }
        let now = self.parts.clock.monotonic();
        let due = self.shards.iter_mut().find(|(_, run)| run.snapshot_due <= now && run.is_worth_a_snapshot());
        let Some((shard, run)) = due else { return };
        run.snapshot_due = now + INTERVAL;
        let Some((head, body)) = taken(&snapshots.folder, &self.service, *shard, run) else { return };
        snapshots.finish_writing();
        let folder = snapshots.folder.clone();
        let thread = std::thread::Builder::new().name("snapshot".to_owned());
        snapshots.writing = thread.spawn(move || write(&folder, &head, &body)).ok();
    }
}

/// Head and body of a run that holds exactly what was committed; `None` if the service takes no snapshots.
fn taken<S: Service>(
    folder: &Folder,
    service: &S,
    shard: Shard,
    run: &mut ShardRun<S::Machine>,
) -> Option<(Head, Vec<u8>)> {
    let body = service.snapshot(&run.machine)?;
    run.has_changed = false;
    Some((folder.head(shard, run.tails.0.clone(), run.positions.clone()), body))
}

fn write(folder: &Folder, head: &Head, body: &[u8]) {
    if let Err(error) = folder.write(head, body) {
        tracing::info!(service = head.service, shard = head.shard, %error, "no snapshot was written");
    }
}

/// Takes the snapshot of a shard into its run.
fn load<S: Service>(folder: &Folder, service: &S, taken: &TakenShard, run: &mut ShardRun<S::Machine>) -> Option<()> {
    let ignored = |reason: &str| {
        tracing::info!(service = S::NAME, shard = %taken.shard, reason, "ignored a snapshot");
        None
    };
    let (head, body) = match folder.read(taken.shard) {
        Ok(Some(found)) => found,
        Ok(None) => return None,
        Err(reason) => return ignored(&reason),
    };
    // Each topic of the restore must have its proof below the barrier, or it would never be looked at.
    let is_below = |(topic, until): &(String, i64)| head.tails.get(topic).is_some_and(|tail| tail.covered < *until);
    if head.tails.len() != taken.restore_until.len() || !taken.restore_until.iter().all(is_below) {
        return ignored("it is of a longer log");
    }
    let mut machine = service.machine(taken.shard);
    if service.restore_snapshot(&mut machine, &body).is_none() {
        return ignored("its body can't be read");
    }
    run.machine = machine;
    run.positions = head.positions;
    run.tails = Tails(head.tails.clone());
    run.trial = Some(Trial::new(head.tails));
    Some(())
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX)
}

impl<M: Machine> ShardRun<M> {
    /// True if something has changed since the last snapshot and all of it is committed.
    fn is_worth_a_snapshot(&self) -> bool {
        self.has_changed && self.pending.is_empty() && self.is_live() && !self.tails.0.is_empty()
    }
}
