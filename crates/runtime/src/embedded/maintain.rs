//! Upkeep: retention and compaction, as the topics' settings say in Kafka's words. Not here: what a setting
//! should be (`topics.yaml`). Invariant: only what is decided is removed; a key keeps its newest committed
//! value; an older value goes before the tombstone that ended it, so nothing comes back after a crash.

use std::collections::HashMap;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use orloj_domain::time::Timestamp;

use super::core::{Core, Submitter};
use super::store::{Marks, Outline, PartitionKey, Range, StoreReader};
use super::write::{Body, Guard, Removal, Reply, Write};
use crate::log::{Isolation, LogError, TopicSpec};

/// Records removed by one write: few enough that an append which waits behind them hardly notices.
const SLICE: usize = 500;
/// Keys that one pass of compaction keeps in memory.
const KEYS_MAX: usize = 200_000;
/// Fewer new records than this are not worth a pass.
const DIRTY_MIN: i64 = 1000;

/// What a round of upkeep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Records that retention removed.
    pub expired: u64,
    /// Records that compaction removed.
    pub compacted: u64,
}

/// Whether a compaction must pay for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thoroughness {
    /// Everything that may go.
    All,
    /// Only partitions where new records are as many as old ones, so that work stays in proportion.
    WhatPays,
}

/// The settings that upkeep follows, with Kafka's defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Time after which records go; `None` keeps them.
    retention: Option<Duration>,
    /// Whether only the newest value of a key is kept.
    is_compacted: bool,
    /// Age below which a record is not compacted.
    lag: Duration,
    /// How long a tombstone stays.
    tombstones: Duration,
}

impl Policy {
    /// Reads the settings of a topic.
    pub(crate) fn of(spec: &TopicSpec) -> Result<Self, LogError> {
        let policies = spec.settings.get("cleanup.policy").map_or("delete", String::as_str);
        let (mut is_deleted, mut is_compacted) = (false, false);
        for policy in policies.split(',').map(str::trim) {
            match policy {
                "delete" => is_deleted = true,
                "compact" => is_compacted = true,
                other => return Err(bad_setting(spec, "cleanup.policy", other)),
            }
        }
        let millis = |name: &str, default: i64| match spec.settings.get(name) {
            Some(text) => text.trim().parse::<i64>().map_err(|_| bad_setting(spec, name, text)),
            None => Ok(default),
        };
        let day = 24 * 60 * 60 * 1000;
        let retention = u64::try_from(millis("retention.ms", 7 * day)?).ok();
        let at_least_zero = |millis: i64| Duration::from_millis(u64::try_from(millis).unwrap_or(0));
        Ok(Self {
            retention: retention.filter(|_| is_deleted).map(Duration::from_millis),
            is_compacted,
            lag: at_least_zero(millis("min.compaction.lag.ms", 0)?),
            tombstones: at_least_zero(millis("delete.retention.ms", day)?),
        })
    }
}

fn bad_setting(spec: &TopicSpec, name: &str, value: &str) -> LogError {
    LogError::Misconfigured(format!("topic `{}`: `{value}` is no value of `{name}`", spec.name))
}

/// Runs rounds of upkeep until `stop` is closed.
pub(crate) fn keep_up(core: &Core, submitter: &Submitter, stop: &Receiver<()>) {
    while let Err(RecvTimeoutError::Timeout) = stop.recv_timeout(core.options.upkeep_pause) {
        let is_stopped = || matches!(stop.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected));
        let write = |write| submitter.write(write);
        match maintain(core, &write, core.clock.now(), Thoroughness::WhatPays, &is_stopped) {
            Ok(upkeep) if upkeep == Upkeep::default() => {}
            Ok(upkeep) => tracing::debug!(upkeep.expired, upkeep.compacted, "upkeep of the embedded log"),
            Err(error) => tracing::warn!(%error, "upkeep of the embedded log stopped half way"),
        }
    }
}

/// One round over all partitions.
pub(crate) fn maintain(
    core: &Core,
    write: &dyn Fn(Write) -> Reply,
    now: Timestamp,
    thoroughness: Thoroughness,
    is_stopped: &dyn Fn() -> bool,
) -> Result<Upkeep, LogError> {
    let mut round = Round { core, write, now, is_stopped, reader: core.store.reader()?, upkeep: Upkeep::default() };
    let topics: Vec<(i64, TopicSpec)> =
        core.broker().topics.values().map(|topic| (topic.id, topic.spec.clone())).collect();
    for (topic, spec) in topics {
        let policy = Policy::of(&spec)?;
        for partition in 0..spec.partitions {
            let key = PartitionKey { topic, partition };
            if let Some(retention) = policy.retention {
                round.expire(key, now.minus(retention))?;
            }
            if policy.is_compacted && round.pays(key, thoroughness) {
                round.compact(key, policy)?;
            }
            if is_stopped() {
                return Ok(round.upkeep);
            }
        }
    }
    round.forget_batches()?;
    Ok(round.upkeep)
}

/// What one pass of a compaction goes by.
struct Pass {
    /// Newest offset of each key that has records in the part looked at.
    newest: HashMap<Vec<u8>, i64>,
    /// End of that part.
    until: i64,
    /// Whether nothing is left to look at.
    is_last: bool,
}

struct Round<'a> {
    core: &'a Core,
    write: &'a dyn Fn(Write) -> Reply,
    now: Timestamp,
    is_stopped: &'a dyn Fn() -> bool,
    reader: Box<dyn StoreReader>,
    upkeep: Upkeep,
}

impl Round<'_> {
    /// Marks of a partition and the end of what is decided in it.
    fn state(&self, key: PartitionKey) -> (Marks, i64) {
        let broker = self.core.broker();
        let none = (Marks { first: 0, end: 0, cleaned: 0 }, 0);
        broker.partitions.get(&key).map_or(none, |state| (state.marks, state.end(Isolation::Committed)))
    }

    fn outline(&mut self, key: PartitionKey, from: i64, until: i64) -> Result<(Vec<Outline>, i64), LogError> {
        let slice = self.reader.outline(Range { key, from, until, records_max: SLICE, bytes_max: usize::MAX })?;
        Ok((slice.rows, slice.next))
    }

    fn clean(&self, key: PartitionKey, remove: Removal, first: i64, cleaned: i64) -> Result<(), LogError> {
        let body = Body::Clean { key, remove, first, cleaned };
        let reply = (self.write)(Write { guard: Guard::None, body });
        reply.map(drop).map_err(|error| LogError::Unavailable(error.to_string()))
    }

    /// Removes records appended before `oldest`, up to the first that is younger.
    fn expire(&mut self, key: PartitionKey, oldest: Timestamp) -> Result<(), LogError> {
        let (marks, decided) = self.state(key);
        let mut from = marks.first;
        while from < decided && !(self.is_stopped)() {
            let (rows, next) = self.outline(key, from, decided)?;
            let young = rows.iter().position(|row| row.at >= oldest);
            let (count, first) = match young {
                Some(index) => (index, rows[index].offset),
                None => (rows.len(), next),
            };
            if count == 0 {
                return Ok(());
            }
            self.clean(key, Removal::Below, first, marks.cleaned.max(first))?;
            self.upkeep.expired += u64::try_from(count).unwrap_or(0);
            if young.is_some() {
                return Ok(());
            }
            from = first;
        }
        Ok(())
    }

    fn pays(&self, key: PartitionKey, thoroughness: Thoroughness) -> bool {
        let broker = self.core.broker();
        let Some(state) = broker.partitions.get(&key) else { return false };
        let new = state.end(Isolation::Committed) - state.marks.cleaned;
        match thoroughness {
            Thoroughness::All => state.marks.end > state.marks.first,
            Thoroughness::WhatPays => new >= DIRTY_MIN && new >= state.kept,
        }
    }

    /// Leaves the newest value of each key among the records old enough, in passes of bounded memory.
    fn compact(&mut self, key: PartitionKey, policy: Policy) -> Result<(), LogError> {
        let (marks, decided) = self.state(key);
        let youngest = self.now.minus(policy.lag);
        let mut from = marks.cleaned.max(marks.first);
        loop {
            let Pass { newest, until, is_last } = self.next_pass(key, from, decided, youngest)?;
            let kept = self.sweep(key, &newest, until, policy)?;
            if let Some(state) = self.core.broker().partitions.get_mut(&key) {
                state.kept = kept;
            }
            if is_last || (self.is_stopped)() {
                return Ok(());
            }
            from = until;
        }
    }

    /// Looks at records from `from` on, up to the first that is too young or the limit of memory.
    fn next_pass(
        &mut self,
        key: PartitionKey,
        mut from: i64,
        decided: i64,
        youngest: Timestamp,
    ) -> Result<Pass, LogError> {
        let aborted = std::sync::Arc::clone(&self.core.broker().aborted);
        let mut newest = HashMap::new();
        while from < decided {
            let (rows, next) = self.outline(key, from, decided)?;
            for row in rows {
                if row.at > youngest {
                    return Ok(Pass { newest, until: row.offset, is_last: true });
                }
                if let Some(name) = row.key.filter(|_| !aborted.contains(&row.batch)) {
                    newest.insert(name, row.offset);
                }
            }
            from = next;
            if newest.len() >= KEYS_MAX {
                return Ok(Pass { newest, until: from, is_last: from >= decided });
            }
        }
        Ok(Pass { newest, until: decided, is_last: true })
    }

    /// Removes what `newest` makes superfluous below `until`; says how many records are left there.
    fn sweep(
        &mut self,
        key: PartitionKey,
        newest: &HashMap<Vec<u8>, i64>,
        until: i64,
        policy: Policy,
    ) -> Result<i64, LogError> {
        let (marks, _) = self.state(key);
        let aborted = std::sync::Arc::clone(&self.core.broker().aborted);
        let oldest_tombstone = self.now.minus(policy.tombstones);
        let is_superfluous = |row: &Outline| {
            let is_outdated =
                row.key.as_ref().and_then(|name| newest.get(name)).is_some_and(|offset| *offset > row.offset);
            aborted.contains(&row.batch) || is_outdated || (row.is_tombstone && row.at <= oldest_tombstone)
        };
        let mut kept = 0;
        let mut from = marks.first;
        while from < until {
            let (rows, next) = self.outline(key, from, until)?;
            let count = rows.len();
            let gone: Vec<i64> = rows.iter().filter(|row| is_superfluous(row)).map(|row| row.offset).collect();
            kept += i64::try_from(count - gone.len()).unwrap_or(0);
            let is_last = next >= until;
            let cleaned = if is_last { until.max(marks.cleaned) } else { marks.cleaned };
            if !gone.is_empty() || (is_last && cleaned != marks.cleaned) {
                self.upkeep.compacted += u64::try_from(gone.len()).unwrap_or(0);
                self.clean(key, Removal::Offsets(gone), marks.first, cleaned)?;
            }
            if (self.is_stopped)() {
                return Ok(kept);
            }
            from = next;
        }
        Ok(kept)
    }

    /// Forgets aborted batches whose records are all gone.
    fn forget_batches(&mut self) -> Result<(), LogError> {
        let aborted: Vec<i64> = self.core.broker().aborted.iter().copied().collect();
        let mut empty = Vec::new();
        for batch in aborted {
            if !self.reader.has_records_of(batch)? {
                empty.push(batch);
            }
        }
        if !empty.is_empty() {
            let reply = (self.write)(Write { guard: Guard::None, body: Body::Forget(empty) });
            reply.map_err(|error| LogError::Unavailable(error.to_string()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(settings: &[(&str, &str)]) -> TopicSpec {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TopicSpec { name: "t".to_owned(), partitions: 1, replication: 1, settings }
    }

    #[test]
    fn reads_settings_in_kafkas_words() {
        let day = Duration::from_secs(24 * 60 * 60);
        let plain = Policy { retention: Some(7 * day), is_compacted: false, lag: Duration::ZERO, tombstones: day };
        for (settings, policy) in [
            (&[][..], plain),
            (&[("cleanup.policy", "delete"), ("retention.ms", "-1")], Policy { retention: None, ..plain }),
            (&[("cleanup.policy", "compact")], Policy { retention: None, is_compacted: true, ..plain }),
            (
                &[("cleanup.policy", "compact, delete"), ("retention.ms", "1000"), ("min.compaction.lag.ms", "5")],
                Policy {
                    retention: Some(Duration::from_secs(1)),
                    is_compacted: true,
                    lag: Duration::from_millis(5),
                    ..plain
                },
            ),
        ] {
            assert_eq!(Policy::of(&spec(settings)).ok(), Some(policy), "{settings:?}");
        }
        assert!(Policy::of(&spec(&[("cleanup.policy", "compat")])).is_err());
        assert!(Policy::of(&spec(&[("retention.ms", "7d")])).is_err());
    }
}
