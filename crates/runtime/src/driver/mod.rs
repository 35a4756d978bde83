//! The loop that drives a service's machines, one per owned shard: wait for the first of records, deadline,
//! rebalance, shutdown; decide; apply; append events and positions in one atomic write. Not here: what is
//! decided (`services/*`), how a shard is owned (`log::Owner`). Invariant: what others can see was committed,
//! and memory that led to an append in doubt is dropped; there is no repair path.

mod clock_guard;
mod flush;
mod inbound;
mod pending;
mod replay;
mod service;
mod shard_run;
mod shared;
mod snapshot;
mod snapshots;
mod tails;
mod take_over;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::shard::{Shard, ShardCount};
use orloj_domain::time::Timestamp;

use crate::clock::Clock;
use crate::health::Component;
use crate::log::{Log, LogError, Owner, OwnerEvent, OwnerSpec, Record};
use crate::metrics::DriverMetrics;
use crate::shutdown::Shutdown;

pub use clock_guard::CLOCK_JUMP_MAX;
use clock_guard::{ClockGuard, ClockSight};
pub use flush::BATCH_RECORDS_MAX;
use flush::Batch;
pub use inbound::{Undecodable, check_partition, quarantined};
pub use service::{Haste, Inbound, Machine, Service, ServiceTopics, SharedInput, SharedStart, WriteContext};
use shard_run::{ShardRun, Size};
use shared::SharedReading;
use snapshot::Folder;
use snapshots::Snapshots;

/// Most records taken from the log in one turn.
const POLL_RECORDS_MAX: usize = 8192;
/// Longest wait in one turn; shutdown and records end it earlier.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// How long to wait before trying an append again that failed without a trace.
const RETRY_WAIT: Duration = Duration::from_millis(200);
/// How long to wait before looking again whether all of the shared inputs was read.
const SHARED_RETRY_WAIT: Duration = Duration::from_millis(20);
/// How long a shard whose partitions do not answer is left out of batches.
const STALL_WAIT: Duration = Duration::from_secs(2);
/// How long to wait before looking at a wall clock again that is wrong.
const CLOCK_WAIT: Duration = Duration::from_secs(1);
/// How often lazily written state and positions are saved.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(5);
/// How long turns may follow each other before one waits for all that it has appended.
const SETTLE_INTERVAL: Duration = Duration::from_millis(500);
/// How long records that nobody waits for wait for others: an append costs the log by the partition, and much the same for
/// one record as for many.
const PATIENCE: Duration = Duration::from_millis(20);
/// Batches of due work, or of records, appended before membership is looked at again.
const BATCHES_PER_TURN_MAX: usize = 8;

/// What ends a driver for good.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// A person must act: wrong partition count, missing topic, missing right.
    #[error("{service} can't go on: {source}")]
    Log {
        /// The service.
        service: &'static str,
        /// What the log said.
        source: LogError,
    },
}

/// What a driver works with, all of it given: nothing is read from the environment.
pub struct DriverParts {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// How far the wall clock may jump forward before nothing is decided any more.
    pub clock_jump_max: Duration,
    /// How many shards the installation has.
    pub shards: ShardCount,
    /// Most records of one atomic append, 1 or more; what one machine answers to one input is never split.
    pub batch_records_max: usize,
    /// Where readiness is reported.
    pub health: Component,
    /// Counters and histograms.
    pub metrics: DriverMetrics,
    /// Folder for snapshots of the machines, which save a restart most of its reading; `None` for none.
    pub snapshots: Option<PathBuf>,
}

/// One service instance: its machines and their share of the log.
pub struct Driver<S: Service> {
    service: S,
    topics: ServiceTopics,
    parts: DriverParts,
    owner: Box<dyn Owner>,
    shards: BTreeMap<Shard, ShardRun<S::Machine>>,
    /// Records that wait until due work is done.
    backlog: VecDeque<Record>,
    /// What waits to be appended, of all shards; counted at the beginning of each batch.
    waiting: Size,
    /// The append that was started and is waited for later.
    underway: Option<Batch>,
    /// The last append has come back without a trace.
    has_come_back: bool,
    /// On the monotonic clock: when none was under way at the end of a turn.
    settled_at: Duration,
    /// Shared inputs (heartbeats, settings) as far as they were read.
    shared: SharedReading,
    /// On the monotonic clock: no append before this.
    retry_at: Option<Duration>,
    /// On the monotonic clock: no look at the shared state before this.
    shared_retry_at: Duration,
    /// On the monotonic clock: no warning about a failed append before this.
    warn_at: Duration,
    clock_guard: ClockGuard,
    snapshots: Option<Snapshots>,
}

impl<S: Service> Driver<S> {
    /// Joins the owners of the service's shards. No shard is owned yet on return.
    ///
    /// # Errors
    /// What joining reports, for example that the log can't be reached.
    pub fn join(service: S, parts: DriverParts) -> Result<Self, LogError> {
        let topics = service.topics();
        let restore = topics.state.iter().chain(&topics.decisions);
        let shared = topics.shared.iter().map(|shared| shared.at.topic.to_string());
        let owner = parts.log.own(OwnerSpec {
            service: S::NAME.to_owned(),
            membership_topic: topics.membership.clone(),
            owners_topic: topics.owners.clone(),
            restore_topics: restore.cloned().collect(),
            input_topics: topics.inputs.clone(),
            shared_topics: shared.collect(),
            outputs: topics.outputs.clone(),
            claimed: topics.claimed.clone(),
            shards: parts.shards.get(),
        })?;
        let clock_guard = ClockGuard::new(parts.clock.now(), parts.clock.monotonic(), parts.clock_jump_max);
        let folder = parts.snapshots.clone().map(|path| Folder::new(path, S::NAME, parts.shards));
        Ok(Self {
            service,
            topics,
            parts,
            owner,
            shards: BTreeMap::new(),
            backlog: VecDeque::new(),
            waiting: Size::default(),
            underway: None,
            has_come_back: false,
            settled_at: Duration::ZERO,
            shared: SharedReading::default(),
            retry_at: None,
            shared_retry_at: Duration::ZERO,
            warn_at: Duration::ZERO,
            clock_guard,
            snapshots: folder.map(Snapshots::new),
        })
    }

    /// Turns until shutdown is asked, then saves, releases and leaves.
    ///
    /// # Errors
    /// Only what needs a person; everything transient is waited out.
    pub fn run(mut self, shutdown: &Shutdown) -> Result<(), DriverError> {
        shutdown.on_request(self.owner.waker());
        while !shutdown.is_requested() {
            self.turn(WAIT_MAX)?;
        }
        self.leave();
        Ok(())
    }

    /// One turn: wait at most `wait_max` for something to do, then do all of it. The last full batch may still be on its
    /// way to the log on return.
    ///
    /// # Errors
    /// Only what needs a person.
    pub fn turn(&mut self, wait_max: Duration) -> Result<(), DriverError> {
        let timeout = self.time_to_next_wake().min(wait_max);
        let records_max = if self.backlog.is_empty() { POLL_RECORDS_MAX } else { 0 };
        match self.owner.poll(records_max, timeout) {
            Ok(events) => {
                for event in events {
                    self.handle(event)?;
                }
            }
            Err(error) => {
                self.settle();
                self.tolerate(error)?;
            }
        }
        if self.is_waiting_to_retry() {
            return Ok(());
        }
        if !self.is_clock_believed() {
            // Neither time nor records are decided on: an edit would count from an instant that is to come.
            self.flush_all();
            return Ok(());
        }
        let had_records = !self.backlog.is_empty();
        let is_drained = self.run_due();
        if is_drained {
            self.run_backlog();
        }
        if had_records && self.may_go_on() {
            return Ok(());
        }
        self.settle();
        self.settled_at = self.parts.clock.monotonic();
        self.save_lazily();
        self.flush();
        self.take_snapshot();
        self.report();
        Ok(())
    }

    /// While a full batch is written and records keep coming, the next batch is filled; now and then a turn comes to its
    /// end all the same.
    fn may_go_on(&self) -> bool {
        self.underway.is_some() && !self.is_settling_due()
    }

    fn is_settling_due(&self) -> bool {
        self.parts.clock.monotonic() >= self.settled_at + SETTLE_INTERVAL
    }

    /// Stops as a crash would: nothing is saved, nothing is released.
    pub fn crash(self) {
        drop(self);
    }

    /// The machine of a shard that is owned and live, for tests and for status.
    #[must_use]
    pub fn machine(&self, shard: Shard) -> Option<&S::Machine> {
        self.shards.get(&shard).map(|run| &run.machine)
    }

    /// The earliest instant at which there is work without new records.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.underway.is_some() {
            return Some(Timestamp::MIN);
        }
        // Without shards there is nobody to tell what became of the shared state.
        let shared = if self.shards.is_empty() { None } else { self.service.shared_deadline() };
        self.shards.values().filter_map(ShardRun::next_deadline).chain(shared).min()
    }

    /// Saves, gives all shards back and leaves the group.
    pub fn leave(mut self) {
        if !self.is_waiting_to_retry() {
            self.flush_all();
            for run in self.shards.values_mut() {
                run.checkpoint_due = Timestamp::MIN;
            }
            self.save_lazily();
            self.flush_all();
        }
        self.owner.leave();
        // Behind the release: whoever comes next need not wait for it.
        if let Some(snapshots) = &mut self.snapshots {
            snapshots.take_all(&self.service, &mut self.shards);
        }
    }

    fn time_to_next_wake(&self) -> Duration {
        if self.underway.is_some() {
            return Duration::ZERO;
        }
        if let Some(retry_at) = self.retry_at {
            return retry_at.saturating_sub(self.parts.clock.monotonic());
        }
        if self.clock_guard.is_ahead() {
            return CLOCK_WAIT;
        }
        if !self.backlog.is_empty() {
            return Duration::ZERO;
        }
        if self.clock_guard.is_behind() {
            // What is due in an hour may be due now, once the clock is put right.
            return CLOCK_WAIT;
        }
        let saves = self.shards.values().filter_map(|run| run.next_save(&self.service));
        let now = self.parts.clock.now();
        let wait = self.next_deadline().into_iter().chain(saves).min().map_or(WAIT_MAX, |due| due.since(now));
        let wait = wait.min(self.time_to_patience_end());
        let is_shared_put_off = self.shared_retry_at > self.parts.clock.monotonic();
        if is_shared_put_off { wait.max(SHARED_RETRY_WAIT) } else { wait }
    }

    /// Until the first of what waits for company has waited long enough.
    fn time_to_patience_end(&self) -> Duration {
        let waiting = self.shards.values().filter(|run| run.stalled_until.is_none());
        let since = waiting.filter_map(|run| run.pending.waits_since()).min();
        since.map_or(WAIT_MAX, |since| (since + PATIENCE).saturating_sub(self.parts.clock.monotonic()))
    }

    /// Looks at the clocks and says what is new about them.
    fn is_clock_believed(&mut self) -> bool {
        let sight = self.clock_guard.look(self.parts.clock.now(), self.parts.clock.monotonic());
        match sight {
            ClockSight::Sound => {}
            ClockSight::JumpedForward(ahead) => {
                self.parts.metrics.clock_jumps.inc();
                self.parts.metrics.clock_ahead(ahead);
                self.parts.health.not_ready("the wall clock jumped forward");
                tracing::error!(
                    service = S::NAME,
                    ahead_seconds = ahead.as_secs(),
                    "the wall clock jumped forward: nothing is decided until it is put right, or this process is restarted to accept it"
                );
            }
            ClockSight::StillAhead(ahead) => self.parts.metrics.clock_ahead(ahead),
            ClockSight::Recovered => {
                self.parts.metrics.clock_ahead(Duration::ZERO);
                tracing::info!(service = S::NAME, "the wall clock has come back, going on");
            }
            ClockSight::WentBack(behind) => {
                tracing::warn!(
                    service = S::NAME,
                    behind_seconds = behind.as_secs(),
                    "the wall clock went back: what was decided stays decided, the next fire times wait for it"
                );
            }
        }
        !self.clock_guard.is_ahead()
    }

    fn is_waiting_to_retry(&mut self) -> bool {
        match self.retry_at {
            Some(retry_at) if self.parts.clock.monotonic() < retry_at => true,
            Some(_) => {
                self.retry_at = None;
                false
            }
            None => false,
        }
    }

    fn tolerate(&mut self, error: LogError) -> Result<(), DriverError> {
        match error {
            LogError::Unavailable(_) | LogError::NoSuchTopic(_) | LogError::Busy(_) => {
                tracing::warn!(service = S::NAME, %error, "the log does not answer, trying again");
                self.parts.health.not_ready(&error.to_string());
                self.retry_at = Some(self.parts.clock.monotonic() + RETRY_WAIT);
                Ok(())
            }
            LogError::OutOfRange { .. } => {
                tracing::error!(service = S::NAME, %error, "records were removed before they were read");
                self.skip_to_first(&error);
                Ok(())
            }
            LogError::Lost(reason) => {
                self.drop_all(&reason);
                Ok(())
            }
            LogError::Misconfigured(_) => Err(DriverError::Log { service: S::NAME, source: error }),
        }
    }

    /// Retention overtook us: what is left is read, and the error above tells a person.
    fn skip_to_first(&mut self, error: &LogError) {
        let LogError::OutOfRange { at, first, .. } = error else { return };
        if let Err(error) = self.owner.read_inputs(&[(at.clone(), *first)]) {
            tracing::warn!(service = S::NAME, %error, "can't go on reading");
        }
    }

    fn handle(&mut self, event: OwnerEvent) -> Result<(), DriverError> {
        if !matches!(event, OwnerEvent::Records(_) | OwnerEvent::CaughtUp(_)) {
            self.settle();
        }
        match event {
            OwnerEvent::Taken(taken) => match self.take_over(&taken) {
                Ok(()) => Ok(()),
                Err(error) => {
                    // Half-restored shards have no machine; under a new incarnation they come again.
                    let reason = format!("restore failed: {error}");
                    self.drop_all(&reason);
                    self.owner.abandon(&reason);
                    self.tolerate(error)
                }
            },
            OwnerEvent::Revoking(revoked) => {
                self.flush_all();
                for shard in &revoked {
                    self.shards.remove(shard);
                }
                let topics = &self.topics;
                let is_kept = |topic: &str, partition| topics.is_shared(topic) || !revoked.contains(&Shard(partition));
                self.backlog.retain(|record| is_kept(&record.topic, record.partition));
                self.shared.waiting.retain(|(at, _)| is_kept(&at.topic, at.partition));
                self.owner.release(&revoked).or_else(|error| self.tolerate(error))
            }
            OwnerEvent::Lost { reason } => {
                self.drop_all(&reason);
                Ok(())
            }
            OwnerEvent::Records(records) => {
                self.backlog.extend(records);
                Ok(())
            }
            OwnerEvent::CaughtUp(at) => {
                // The records before this event may still wait in the backlog; `run_backlog` notices.
                if self.topics.is_shared(&at.topic) {
                    self.shared.behind.remove(&at);
                } else if let Some(run) = self.shards.get_mut(&Shard(at.partition)) {
                    run.caught_up(&at.topic);
                }
                Ok(())
            }
        }
    }

    fn drop_all(&mut self, reason: &str) {
        tracing::warn!(service = S::NAME, reason, shards = self.shards.len(), "dropped all shards");
        self.shards.clear();
        self.backlog.clear();
        self.shared = SharedReading::default();
        self.service.forget_shared();
        self.parts.metrics.lost.inc();
    }

    fn report(&mut self) {
        let live = self.shards.values().filter(|run| run.is_live()).count();
        self.parts.metrics.shards.set(i64::try_from(live).unwrap_or(i64::MAX));
        if let Some(offset_ms) = self.owner.broker_offset_ms() {
            self.parts.metrics.broker_clock_offset(offset_ms);
        }
        self.service.observe(&mut self.shards.values().map(|run| &run.machine));
        if self.retry_at.is_none() && live == self.shards.len() {
            self.parts.health.ready();
        }
    }
}
