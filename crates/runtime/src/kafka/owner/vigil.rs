//! Watches whether what an owner writes, and what is claimed for it, becomes readable. A partition whose last stable offset stands still though more
//! was written hides a shard's decisions from everybody, and its owner, who reads nothing of its own, would never know.
//! Not here: what is done about it (`hanging`). Invariant: nobody waits for an answer; without one nothing is concluded.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, TryRecvError, bounded};

use crate::clock::{Clock, SystemClock};
use crate::kafka::ends::Ends;
use crate::log::{Isolation, LogError, TopicPartition};

/// Last stable offset and end of partitions.
type Sight = BTreeMap<TopicPartition, (i64, i64)>;

/// What is watched: these partitions of each of these topics.
#[derive(Debug, Clone)]
pub(super) struct Watched {
    /// Names, or what names begin with, if they end in a dot.
    pub(super) topics: Vec<String>,
    pub(super) partitions: Vec<i32>,
}

/// Rounds of questions, one at a time.
pub(super) struct Vigil {
    clock: SystemClock,
    /// Longer than any transaction of ours may stay open.
    interval: Duration,
    due: Duration,
    asked: Option<Receiver<Result<Sight, LogError>>>,
    last: Sight,
}

impl Vigil {
    /// Nothing is known yet; `interval` is more than the time-out of transactions.
    pub(super) fn new(interval: Duration) -> Self {
        Self { clock: SystemClock::new(), interval, due: interval, asked: None, last: Sight::new() }
    }

    /// Starts a round if one is due, and takes in what one that is under way has seen: the partitions where something
    /// was hidden a whole interval ago and still is.
    pub(super) fn tend(&mut self, ends: &Arc<Ends>, watched: impl FnOnce() -> Watched) -> BTreeSet<TopicPartition> {
        if let Some(asked) = &self.asked {
            let seen = match asked.try_recv() {
                Ok(seen) => seen.unwrap_or_default(),
                Err(TryRecvError::Empty) => return BTreeSet::new(),
                Err(TryRecvError::Disconnected) => Sight::new(),
            };
            self.asked = None;
            let hidden = hidden(&self.last, &seen);
            self.last = seen;
            return hidden;
        }
        let now = self.clock.monotonic();
        if now < self.due {
            return BTreeSet::new();
        }
        self.due = now + self.interval;
        let (ends, watched) = (Arc::clone(ends), watched());
        let (answer, asked) = bounded(1);
        let ask = move || {
            // Nobody listens any more if the owner is gone.
            let _ = answer.send(look(&ends, &watched));
        };
        match std::thread::Builder::new().name("owner-vigil".to_owned()).spawn(ask) {
            Ok(_) => self.asked = Some(asked),
            Err(error) => tracing::warn!(%error, "no thread to watch what becomes readable"),
        }
        BTreeSet::new()
    }

    /// Forgets what was seen: what was hidden is dealt with, or others write now.
    pub(super) fn begin_anew(&mut self) {
        self.asked = None;
        self.last.clear();
        self.due = self.clock.monotonic() + self.interval;
    }
}

fn look(ends: &Ends, watched: &Watched) -> Result<Sight, LogError> {
    let topics = ends.named(&watched.topics)?;
    let all = topics.iter().flat_map(|topic| watched.partitions.iter().map(move |partition| (topic, *partition)));
    let all: Vec<_> = all.map(|(topic, partition)| TopicPartition::new(topic.as_str(), partition)).collect();
    // In this order: what is committed between the two questions is not taken for hidden.
    let behind = ends.of_all(&all, Isolation::Uncommitted)?;
    let mut stable = ends.of_all(&all, Isolation::Committed)?;
    Ok(behind.into_iter().filter_map(|(at, end)| Some((at.clone(), (stable.remove(&at)?, end)))).collect())
}

/// The partitions where what was behind the last stable offset `before` is behind the same one `now`.
fn hidden(before: &Sight, now: &Sight) -> BTreeSet<TopicPartition> {
    let stands = |(at, (stable, end)): &(&TopicPartition, &(i64, i64))| {
        stable < end && now.get(*at).is_some_and(|(stable_now, _)| stable_now == stable)
    };
    before.iter().filter(stands).map(|(at, _)| at.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_still_with_something_behind_it_is_hidden() {
        let at = TopicPartition::new("t", 0);
        let sight = |stable, end| Sight::from([(at.clone(), (stable, end))]);
        for (before, now, is_hidden) in [
            (sight(5, 9), sight(5, 12), true),
            (sight(5, 9), sight(5, 9), true),
            (sight(5, 9), sight(9, 9), false),
            (sight(5, 9), sight(6, 12), false),
            (sight(5, 5), sight(5, 9), false),
            (sight(5, 9), Sight::new(), false),
            (Sight::new(), sight(5, 9), false),
        ] {
            assert_eq!(!hidden(&before, &now).is_empty(), is_hidden, "{before:?} {now:?}");
        }
    }
}
