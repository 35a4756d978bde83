//! Folding what a restore reads into the machines of the shards: side by side on a few threads when it is much, for
//! shards have nothing to do with each other. Not here: what is read (`log::Owner`). Invariant: the records of a
//! shard are folded in the order they were read, and all of them before this returns.

use std::collections::BTreeMap;

use crossbeam_channel::{Receiver, Sender, bounded};
use orloj_domain::shard::Shard;

use super::service::Service;
use super::shard_run::ShardRun;
use crate::log::{LogError, Record, RestoreRange};

/// Most threads that fold; reading and the log itself want processor time too.
const THREADS_MAX: usize = 4;
/// Fewer offsets than this are folded by the thread that reads them: it is done before a thread has started.
const RECORDS_ASIDE_MIN: i64 = 20_000;
/// Records handed over at once, and handovers that may wait.
const BATCH_RECORDS: usize = 256;
const BATCHES_WAITING: usize = 8;

type Runs<S> = BTreeMap<Shard, ShardRun<<S as Service>::Machine>>;
/// How a reader hands out the records of ranges.
pub(super) type Read<'a> = dyn FnMut(&mut dyn FnMut(Record)) -> Result<(), LogError> + 'a;

/// Folds each record that `read` hands out into the run of its shard.
pub(super) fn replay_all<S: Service>(
    service: &S,
    runs: &mut Runs<S>,
    ranges: &[RestoreRange],
    read: &mut Read<'_>,
) -> Result<(), LogError> {
    let offsets: i64 = ranges.iter().map(|range| range.until - range.from).sum();
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    if offsets < RECORDS_ASIDE_MIN || threads == 1 {
        return read(&mut |record| fold(service, runs, &record));
    }
    let mut shares: Vec<Runs<S>> = (0..threads).map(|_| BTreeMap::new()).collect();
    for (index, (shard, run)) in std::mem::take(runs).into_iter().enumerate() {
        shares[index % threads].insert(shard, run);
    }
    let place_of: BTreeMap<Shard, usize> =
        shares.iter().enumerate().flat_map(|(place, share)| share.keys().map(move |shard| (*shard, place))).collect();
    std::thread::scope(|scope| {
        let mut batches = Batches { senders: Vec::new(), waiting: Vec::new() };
        let mut folding = Vec::new();
        for share in shares {
            let (sender, receiver) = bounded(BATCHES_WAITING);
            batches.senders.push(sender);
            batches.waiting.push(Vec::with_capacity(BATCH_RECORDS));
            folding.push(scope.spawn(move || fold_all(service, share, &receiver)));
        }
        let outcome = read(&mut |record| {
            if let Some(place) = place_of.get(&Shard(record.partition)) {
                batches.push(*place, record);
            }
        });
        batches.flush();
        drop(batches);
        for thread in folding {
            match thread.join() {
                Ok(share) => runs.extend(share),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        outcome
    })
}

/// Records on their way to the threads.
struct Batches {
    senders: Vec<Sender<Vec<Record>>>,
    waiting: Vec<Vec<Record>>,
}

impl Batches {
    fn push(&mut self, place: usize, record: Record) {
        self.waiting[place].push(record);
        if self.waiting[place].len() >= BATCH_RECORDS {
            self.hand_over(place);
        }
    }

    fn flush(&mut self) {
        for place in 0..self.senders.len() {
            self.hand_over(place);
        }
    }

    fn hand_over(&mut self, place: usize) {
        let batch = std::mem::replace(&mut self.waiting[place], Vec::with_capacity(BATCH_RECORDS));
        // A thread that is gone has panicked, which the join tells.
        let _ = self.senders[place].send(batch);
    }
}

fn fold_all<S: Service>(service: &S, mut runs: Runs<S>, batches: &Receiver<Vec<Record>>) -> Runs<S> {
    for record in batches.iter().flatten() {
        fold(service, &mut runs, &record);
    }
    runs
}

fn fold<S: Service>(service: &S, runs: &mut Runs<S>, record: &Record) {
    if let Some(run) = runs.get_mut(&Shard(record.partition)) {
        run.replay(service, record);
    }
}
