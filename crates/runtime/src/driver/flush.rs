//! The work of a turn: due ticks, waiting records, lazy saves, and the atomic appends that say all of it.
//! Invariant: an append covers all that was decided and how far inputs were consumed; when its outcome is in
//! doubt every machine is dropped.

use std::collections::BTreeSet;
use std::time::Duration;

use orloj_domain::owner::POSITIONS_KEY;
use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;

use super::{
    BATCHES_PER_TURN_MAX, CHECKPOINT_INTERVAL, Driver, Inbound, Machine, PATIENCE, RETRY_WAIT, STALL_WAIT, Service,
    ShardRun, Size, WriteContext, quarantined,
};
use crate::log::{AppendError, Appended, NewRecord, Position, Record, TopicPartition};
use crate::topics;

/// Most records of one atomic append, outside of tests.
pub const BATCH_RECORDS_MAX: usize = 10_000;
/// Most bytes of one atomic append.
const BATCH_BYTES_MAX: usize = 8 << 20;
/// Shortest time between two warnings about appends that fail: one that is tried again five times a second on a full
/// disk must not fill what is left of it with complaints.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
/// Most state records saved lazily per shard and turn.
const SAVES_PER_TURN_MAX: usize = 500;

/// What an append is about, beside its records.
#[derive(Debug)]
pub(super) struct Batch {
    shards: Vec<Shard>,
    /// How many of the records are of each shard, in the same order. Where they go does not say so: a shard may write to
    /// the partition of another.
    counts: Vec<usize>,
    /// On the monotonic clock.
    started: Duration,
}

impl<S: Service> Driver<S> {
    /// Runs what is due; false if more is due than fits a turn.
    pub(super) fn run_due(&mut self) -> bool {
        let now = self.parts.clock.now();
        self.end_stalls();
        self.run_shared_due(now);
        for _ in 0..BATCHES_PER_TURN_MAX {
            if !self.tick_until_full(now) {
                return true;
            }
            self.flush_aside();
            if self.retry_at.is_some() || self.shards.is_empty() {
                return false;
            }
        }
        false
    }

    /// Ticks every shard that is due; true if the batch is full and more is due.
    fn tick_until_full(&mut self, now: Timestamp) -> bool {
        // What shards that do not answer hold back is no reason to be silent about the others.
        self.count_waiting(|run| run.stalled_until.is_none());
        let shards: Vec<Shard> = self.shards.keys().copied().collect();
        for shard in shards {
            while self.is_due(shard, now) {
                if self.is_batch_full() {
                    return true;
                }
                self.decide(shard, &S::Machine::tick(), now);
            }
        }
        false
    }

    fn is_due(&self, shard: Shard, now: Timestamp) -> bool {
        let deadline = self.shards.get(&shard).and_then(ShardRun::next_deadline);
        deadline.is_some_and(|deadline| deadline <= now)
    }

    fn is_anything_due(&self, now: Timestamp) -> bool {
        self.shards.values().filter_map(ShardRun::next_deadline).any(|deadline| deadline <= now)
    }

    /// Counts what waits; from here on what is decided is added to it.
    fn count_waiting(&mut self, is_counted: impl Fn(&ShardRun<S::Machine>) -> bool) {
        self.waiting = Size::default();
        for run in self.shards.values().filter(|run| is_counted(run)) {
            self.waiting += run.pending.size();
        }
    }

    fn is_batch_full(&self) -> bool {
        self.waiting.records >= self.parts.batch_records_max || self.waiting.bytes >= BATCH_BYTES_MAX
    }

    /// Handles the records that wait, as many as fit a few batches; what comes due meanwhile goes before the rest.
    pub(super) fn run_backlog(&mut self) {
        for _ in 0..BATCHES_PER_TURN_MAX {
            let now = self.parts.clock.now();
            self.count_waiting(|_| true);
            while !self.is_batch_full() {
                let Some(record) = self.backlog.pop_front() else { break };
                self.take_record(&record, now);
            }
            if self.backlog.is_empty() || self.is_anything_due(now) || self.is_settling_due() {
                break;
            }
            self.flush_aside();
            if self.retry_at.is_some() {
                return;
            }
        }
        if self.backlog.is_empty() {
            self.read_what_waits();
            for run in self.shards.values_mut() {
                run.go_live_if_caught_up();
            }
        }
    }

    fn take_record(&mut self, record: &Record, now: Timestamp) {
        if self.topics.is_shared(&record.topic) {
            self.take_shared(record, now);
            return;
        }
        let shard = Shard(record.partition);
        let Some(run) = self.shards.get_mut(&shard) else { return };
        if run.is_repeat(record) || record.key_text().is_some_and(|key| key.starts_with("__")) {
            return;
        }
        match self.service.read(record, now) {
            Inbound::Input(input) => self.decide(shard, &input, now),
            Inbound::Nothing => {}
            Inbound::Bad(reason, input) => {
                tracing::warn!(service = S::NAME, position = %record.position(), %reason, "quarantined a record");
                self.parts.metrics.quarantined.inc();
                if let Some(run) = self.shards.get_mut(&shard) {
                    self.waiting += run.pending.add([quarantined(record, &reason)]);
                    run.rests_on_positions = true;
                }
                if let Some(input) = input {
                    self.decide(shard, &input, now);
                }
            }
        }
    }

    pub(super) fn decide(&mut self, shard: Shard, input: &<S::Machine as Machine>::Input, now: Timestamp) {
        let Some(run) = self.shards.get_mut(&shard) else { return };
        let incarnation = self.owner.incarnation();
        let context = WriteContext { shard, incarnation: &incarnation };
        let monotonic = self.parts.clock.monotonic();
        for event in run.machine.decide(input, now) {
            run.machine.apply(&event);
            run.rests_on_positions |= !self.service.names_its_input(&event);
            let haste = self.service.haste(&event);
            self.waiting += run.pending.add_with(haste, monotonic, |out| self.service.write(&context, event, out));
        }
    }

    /// Saves state that so far only decisions explain, and positions that moved without a decision.
    pub(super) fn save_lazily(&mut self) {
        let now = self.parts.clock.now();
        let decisions = self.topics.decisions.first();
        for (shard, run) in &mut self.shards {
            // A wall clock that went back must not put saving off for as long.
            run.checkpoint_due = run.checkpoint_due.min(now.plus(CHECKPOINT_INTERVAL));
            if run.checkpoint_due > now || !run.is_live() {
                continue;
            }
            let is_round_open = run.save_mark.is_some();
            if !is_round_open && !self.service.has_unsaved(&run.machine) {
                run.must_save_positions = run.has_new_positions;
                run.checkpoint_due = now.plus(CHECKPOINT_INTERVAL);
                continue;
            }
            // A round may only promise to cover decisions that are in the log already.
            if !is_round_open && !run.pending.is_empty() {
                continue;
            }
            let mark = *run.save_mark.get_or_insert(run.decided_next);
            let (records, is_complete) = self.service.save(&mut run.machine, *shard, SAVES_PER_TURN_MAX);
            run.pending.add(records);
            if is_complete {
                if let Some(decisions) = decisions {
                    run.positions.insert(decisions.clone(), mark);
                }
                run.has_new_positions = true;
                run.must_save_positions = true;
                run.save_mark = None;
                run.checkpoint_due = now.plus(CHECKPOINT_INTERVAL);
            }
        }
    }

    /// Appends what waits, of every shard that answers, in one atomic write; nothing if nobody waits for any of it and it
    /// is not long here.
    pub(super) fn flush(&mut self) {
        self.settle();
        let now = self.parts.clock.monotonic();
        let mut answering = self.shards.values().filter(|run| run.stalled_until.is_none());
        if answering.any(|run| run.is_ripe(PATIENCE, now)) {
            // Where there is an append anyway, what would be next goes along.
            self.flush_those(|run| run.is_ripe(PATIENCE / 2, now));
        }
    }

    /// Appends all that waits, of every shard that answers, in one atomic write.
    pub(super) fn flush_all(&mut self) {
        self.flush_those(|_| true);
    }

    fn flush_those(&mut self, is_meant: impl Fn(&ShardRun<S::Machine>) -> bool) {
        let Some((batch, records)) = self.gather(is_meant) else { return };
        let outcome = self.owner.append(&batch.shards, &records);
        self.appended(batch, Appended { records, outcome });
    }

    /// As [`Driver::flush`], but what comes next is decided while it is written; [`Driver::settle`] waits for its end.
    fn flush_aside(&mut self) {
        if self.has_come_back {
            // While appends fail, no more is decided than one batch holds.
            self.flush_all();
            return;
        }
        let Some((batch, records)) = self.gather(|_| true) else { return };
        match self.owner.start_append(&batch.shards, records) {
            Some(appended) => self.appended(batch, appended),
            None => self.underway = Some(batch),
        }
    }

    /// Waits for the append that is under way. Nothing is asked of the owner, and nothing is saved that rests on it,
    /// before this, but for more records.
    pub(super) fn settle(&mut self) {
        if let Some(batch) = self.underway.take() {
            let appended = self.owner.finish_append();
            self.appended(batch, appended);
        }
    }

    fn appended(&mut self, batch: Batch, Appended { records, outcome }: Appended) {
        match outcome {
            Ok(positions) => {
                self.has_come_back = false;
                let elapsed = self.parts.clock.monotonic().saturating_sub(batch.started);
                self.parts.metrics.appended(records.len(), elapsed);
                self.committed(&records, &positions);
            }
            Err(error) => self.not_appended(&batch, records, error),
        }
    }

    /// The records of the next batch, those of the shards that are meant, in order of shard, with the positions they rest on.
    /// One that is under way comes to its end before.
    fn gather(&mut self, is_meant: impl Fn(&ShardRun<S::Machine>) -> bool) -> Option<(Batch, Vec<NewRecord>)> {
        self.settle();
        if self.retry_at.is_some() {
            return None;
        }
        let state_topic = self.topics.state.first()?.clone();
        let mut batch = Batch { shards: Vec::new(), counts: Vec::new(), started: self.parts.clock.monotonic() };
        let mut records = Vec::with_capacity(self.waiting.records);
        for (shard, run) in &mut self.shards {
            if run.stalled_until.is_some() || !run.is_waiting() || !is_meant(run) {
                continue;
            }
            let first = records.len();
            records.append(&mut run.pending.take());
            if run.has_new_positions && (run.rests_on_positions || run.must_save_positions) {
                records.push(run.positions_record(&state_topic, shard.0));
                run.has_new_positions = false;
            }
            run.must_save_positions = false;
            run.rests_on_positions = false;
            batch.shards.push(*shard);
            batch.counts.push(records.len() - first);
        }
        (!records.is_empty()).then_some((batch, records))
    }

    fn committed(&mut self, records: &[NewRecord], positions: &[Position]) {
        if self.snapshots.is_some() {
            self.extend_tails(records, positions);
        }
        if let Some(decisions) = self.topics.decisions.first() {
            for position in positions.iter().filter(|position| position.topic == *decisions) {
                if let Some(run) = self.shards.get_mut(&Shard(position.partition)) {
                    run.decided_next = run.decided_next.max(position.offset + 1);
                }
            }
        }
    }

    /// Notes the last records of each partition that a restore reads; only those are hashed.
    fn extend_tails(&mut self, records: &[NewRecord], positions: &[Position]) {
        let topics: Vec<&String> = self.topics.state.iter().chain(&self.topics.decisions).collect();
        let mut is_last = BTreeSet::new();
        for (record, position) in records.iter().zip(positions).rev() {
            let Some(topic) = topics.iter().position(|topic| **topic == record.topic) else { continue };
            let is_positions = record.key.as_deref() == Some(POSITIONS_KEY.as_bytes());
            if !is_last.insert((record.partition, topic, is_positions)) {
                continue;
            }
            if let Some(run) = self.shards.get_mut(&Shard(record.partition)) {
                run.has_changed = true;
                run.tails.extend(&record.topic, position.offset, record.key.as_deref(), record.value.as_deref());
            }
        }
    }

    /// Reacts to each class of failure; only a batch that certainly left no trace is tried again.
    fn not_appended(&mut self, batch: &Batch, records: Vec<NewRecord>, error: AppendError) {
        let now = self.parts.clock.monotonic();
        match &error {
            AppendError::Refused(_) | AppendError::Unknown(_) => {
                self.drop_all(&error.to_string());
                self.owner.abandon(&error.to_string());
                return;
            }
            AppendError::Stalled(partitions) => self.stall(batch, &records, partitions),
            // The first run of a new queue: nothing has failed.
            AppendError::NoSuchTopic(name) if self.create_queue_topic(name) => {
                self.retry_at = Some(now + RETRY_WAIT / 10);
                self.put_back(batch, records);
                return;
            }
            // Shards that write to it wait; the others must not.
            AppendError::NoSuchTopic(name) => {
                let waiting = records.iter().filter(|record| record.topic == *name);
                let waiting: Vec<_> = waiting.map(|record| TopicPartition::new(name, record.partition)).collect();
                self.stall(batch, &records, &waiting);
            }
            AppendError::Retriable(_) | AppendError::Full(_) | AppendError::TooLarge { .. } => {
                self.retry_at = Some(now + RETRY_WAIT);
            }
        }
        if now >= self.warn_at {
            self.warn_at = now + WARNING_INTERVAL;
            tracing::warn!(service = S::NAME, %error, records = records.len(), "append failed, trying again");
        }
        self.parts.health.not_ready(&error.to_string());
        self.put_back(batch, records);
    }

    /// What was gathered waits again, in the order it had and before what was decided since.
    fn put_back(&mut self, batch: &Batch, records: Vec<NewRecord>) {
        self.has_come_back = true;
        let mut records = records.into_iter();
        for (shard, count) in batch.shards.iter().zip(&batch.counts) {
            let older: Vec<NewRecord> = records.by_ref().take(*count).collect();
            if let Some(run) = self.shards.get_mut(shard) {
                run.pending.put_back(older);
            }
        }
    }

    /// Leaves the shards out for a while that have written to partitions that do not answer.
    fn stall(&mut self, batch: &Batch, records: &[NewRecord], partitions: &[TopicPartition]) {
        let until = self.parts.clock.monotonic() + STALL_WAIT;
        let mut first = 0;
        for (shard, count) in batch.shards.iter().zip(&batch.counts) {
            let of_shard = &records[first..first + count];
            first += count;
            let is_held_up = of_shard
                .iter()
                .any(|record| partitions.iter().any(|at| at.partition == record.partition && at.topic == record.topic));
            if let Some(run) = self.shards.get_mut(shard).filter(|_| is_held_up) {
                run.stalled_until = Some(until);
            }
        }
    }

    fn end_stalls(&mut self) {
        let now = self.parts.clock.monotonic();
        for run in self.shards.values_mut() {
            if run.stalled_until.is_some_and(|until| until <= now) {
                run.stalled_until = None;
            }
        }
    }

    /// A queue comes into being with the first run on it. True if its topic is there now.
    fn create_queue_topic(&self, name: &str) -> bool {
        let created = topics::queue_topic(name, self.parts.shards.get()).map(|spec| self.parts.log.create_topic(&spec));
        match &created {
            Some(Ok(())) => tracing::info!(service = S::NAME, topic = name, "created a queue's topic"),
            Some(Err(error)) => {
                tracing::error!(service = S::NAME, topic = name, %error, "can't create a queue's topic: create it by `orloj topics apply`")
            }
            None => tracing::error!(
                service = S::NAME,
                topic = name,
                "a topic is missing: create it by `orloj topics apply`"
            ),
        }
        matches!(created, Some(Ok(())))
    }
}
