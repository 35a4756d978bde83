//! How far the projection is, shared between the thread that folds and the requests that wait. Not here: the
//! file's own positions (`store`). Invariant: what stands here was committed to the file before.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use orloj_runtime::log::{Position, TopicPartition};
use tokio::sync::watch;

#[derive(Default)]
struct Marks {
    positions: BTreeMap<TopicPartition, i64>,
    answers: BTreeMap<TopicPartition, i64>,
}

/// Positions and answers of the projection.
pub(crate) struct Progress {
    marks: Mutex<Marks>,
    commits: watch::Sender<u64>,
}

impl Progress {
    /// Nothing folded yet.
    pub(crate) fn new() -> Self {
        Self { marks: Mutex::default(), commits: watch::Sender::new(0) }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts over from what a file says.
    pub(crate) fn restart(&self, positions: BTreeMap<TopicPartition, i64>, answers: BTreeMap<TopicPartition, i64>) {
        *self.marks() = Marks { positions, answers };
        self.commits.send_modify(|count| *count += 1);
    }

    /// Says what a commit covers, and wakes whoever waits.
    pub(crate) fn advance(&self, positions: BTreeMap<TopicPartition, i64>, answers: BTreeMap<TopicPartition, i64>) {
        {
            let mut marks = self.marks();
            marks.positions.extend(positions);
            for (at, next) in answers {
                let mark = marks.answers.entry(at).or_insert(next);
                *mark = (*mark).max(next);
            }
        }
        self.commits.send_modify(|count| *count += 1);
    }

    /// Wakes with every commit.
    pub(crate) fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// First offset of a partition that is not folded in; `None` if it is not read at all.
    pub(crate) fn next(&self, at: &TopicPartition) -> Option<i64> {
        self.marks().positions.get(at).copied()
    }

    /// True once the record and, if it asks for something, the answer to it are folded in.
    pub(crate) fn covers(&self, position: &Position, is_question: bool) -> bool {
        let marks = self.marks();
        let of = if is_question { &marks.answers } else { &marks.positions };
        of.get(&position.topic_partition()).is_some_and(|next| *next > position.offset)
    }

    /// Partitions read.
    pub(crate) fn partitions(&self) -> usize {
        self.marks().positions.len()
    }
}
