//! The thread that follows the log: reads every topic from the saved positions, folds, commits, tells. Not here:
//! what a record means (`projections`). Invariant: positions move only with the rows they explain; in doubt about
//! the file it is built anew, in doubt about the log the same records are read again.

mod pauser;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::clock::Clock;
use orloj_runtime::health::Component;
use orloj_runtime::log::{Isolation, Log, LogError, Reader, Record, TopicPartition};
use orloj_runtime::shutdown::Shutdown;

use crate::metrics::QueryMetrics;
use crate::progress::Progress;
use crate::projections::{self, Change};
use crate::store::{Pool, Store, StoreError};
use pauser::Pauser;

/// Most records in one commit.
const BATCH: usize = 5000;
/// A batch below this came live: the next one may gather for a tick.
const BATCH_SMALL: usize = 500;
/// After a small commit the next one waits this many times as long as it took, so that a trickle of records costs
/// a tenth of a core at most; but never longer than a tick.
const REST: u32 = 9;
const TICK: Duration = Duration::from_millis(20);
/// Time between two looks at which topics there are, and at what may be forgotten.
const UPKEEP_EVERY: Duration = Duration::from_secs(60);
/// The same while a queue is known whose dead letters are not.
const RELIST_EVERY: Duration = Duration::from_secs(5);
/// Pause after a failure of the log or of the file.
const BACKOFF: Duration = Duration::from_secs(1);
/// Positions end short of the log's end where its last records are not for readers (commit markers, aborted
/// batches). When nothing came for this long, nothing more is to come.
const QUIET: Duration = Duration::from_secs(2);

/// Why following ended.
#[derive(Debug)]
enum Fault {
    /// The log or the file can't be used now.
    Retriable(String),
    /// The file is to be built anew.
    Rebuild(String),
    /// A person must act.
    Fatal(String),
}

impl From<LogError> for Fault {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Misconfigured(text) => Self::Fatal(text),
            LogError::Unavailable(_)
            | LogError::NoSuchTopic(_)
            | LogError::OutOfRange { .. }
            | LogError::Lost(_)
            | LogError::Busy(_) => Self::Retriable(error.to_string()),
        }
    }
}

impl From<StoreError> for Fault {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Retriable(_) => Self::Retriable(error.to_string()),
            StoreError::Damaged(_) => Self::Rebuild(error.to_string()),
            StoreError::Directory { .. } => Self::Fatal(error.to_string()),
        }
    }
}

/// What a follower works with.
pub(crate) struct Follower {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) shards: ShardCount,
    pub(crate) directory: PathBuf,
    pub(crate) progress: Arc<Progress>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) component: Component,
    pub(crate) metrics: QueryMetrics,
    pub(crate) shutdown: Shutdown,
}

impl Follower {
    /// Follows until shutdown is asked.
    ///
    /// # Errors
    /// What a person must mend, in words.
    pub(crate) fn run(self) -> Result<(), String> {
        let pauser = Pauser::new(&self.shutdown);
        let mut said = String::new();
        while !self.shutdown.is_requested() {
            match self.follow(&pauser, &mut said) {
                Ok(()) => break,
                Err(Fault::Retriable(reason)) => {
                    // Once per reason: a log that is away for an hour needs one line, not thousands.
                    if said != reason {
                        tracing::warn!(reason, "the projection waits");
                        said.clone_from(&reason);
                    }
                    self.component.not_ready(&reason);
                    pauser.pause(BACKOFF);
                }
                Err(Fault::Rebuild(reason)) => {
                    tracing::warn!(reason, "the projection is built anew from the log");
                    self.component.not_ready("the projection is being built from the log");
                    self.pool.switch_to(None);
                    if let Err(error) = Store::discard(&self.directory) {
                        return Err(error.to_string());
                    }
                }
                Err(Fault::Fatal(reason)) => {
                    self.component.not_ready(&reason);
                    return Err(reason);
                }
            }
        }
        self.component.not_ready("shutting down");
        Ok(())
    }

    /// Follows until shutdown or a fault; forgets what was `said` about the last fault once it is over.
    fn follow(&self, pauser: &Pauser, said: &mut String) -> Result<(), Fault> {
        let partitions = topics::partitions(&self.log.topics()?, self.shards)?;
        let store = Store::open(&self.directory)?;
        let (positions, answers) = (store.positions()?, store.answers()?);
        self.check_same_log(&positions, &partitions)?;
        if store.is_building() {
            self.metrics.rebuilds.inc();
        } else {
            self.pool.switch_to(Some(store.file()));
        }
        self.progress.restart(positions.clone(), answers);
        let reader = self.log.reader(Isolation::Committed)?;
        self.shutdown.on_request(reader.waker());
        let mut session = Session {
            follower: self,
            pauser,
            store: Some(store),
            reader,
            next: BTreeMap::new(),
            targets: BTreeMap::new(),
            queues: BTreeSet::new(),
            is_live: false,
            has_new_queue: false,
            busy: Duration::ZERO,
        };
        session.start(partitions, &positions)?;
        session.catch_up()?;
        said.clear();
        session.live()
    }

    /// A file whose positions lie beyond the log's end tells of another log.
    fn check_same_log(
        &self,
        positions: &BTreeMap<TopicPartition, i64>,
        partitions: &BTreeSet<TopicPartition>,
    ) -> Result<(), Fault> {
        for (at, next) in positions.iter().filter(|(at, _)| partitions.contains(*at)) {
            let end = self.log.end(at, Isolation::Uncommitted)?;
            if *next > end {
                return Err(Fault::Rebuild(format!("it covers {at} up to {next}, but the log ends at {end}")));
            }
        }
        Ok(())
    }
}

/// One reader's life.
struct Session<'a> {
    follower: &'a Follower,
    pauser: &'a Pauser,
    /// Taken out only while its file gets its name.
    store: Option<Store>,
    reader: Box<dyn Reader>,
    /// First offset of each followed partition that is not folded in.
    next: BTreeMap<TopicPartition, i64>,
    /// Where the log ended when the session began, for partitions that are not there yet.
    targets: BTreeMap<TopicPartition, i64>,
    /// Queues seen whose topic of dead letters is not followed.
    queues: BTreeSet<String>,
    /// All that was there at the start is folded in.
    is_live: bool,
    /// A queue was seen for the first time: its topic may be there.
    has_new_queue: bool,
    /// How long the last turn took, waiting aside.
    busy: Duration,
}

impl Session<'_> {
    fn start(
        &mut self,
        partitions: BTreeSet<TopicPartition>,
        saved: &BTreeMap<TopicPartition, i64>,
    ) -> Result<(), Fault> {
        let new: Vec<TopicPartition> = partitions.into_iter().filter(|at| !self.next.contains_key(at)).collect();
        for at in &new {
            self.next.insert(at.clone(), saved.get(at).copied().unwrap_or(0));
            if !self.is_live {
                self.targets.insert(at.clone(), self.follower.log.end(at, Isolation::Committed)?);
            }
        }
        self.read_from(&new)?;
        let positions = new.iter().filter_map(|at| Some((at.clone(), *self.next.get(at)?))).collect();
        self.follower.progress.advance(positions, BTreeMap::new());
        self.queues
            .retain(|queue| !self.next.contains_key(&TopicPartition::new(format!("{}{queue}", topic::DLQ_PREFIX), 0)));
        Ok(())
    }

    /// Reads partitions from where they are; one whose records are gone goes on with the first that is left.
    fn read_from(&mut self, partitions: &[TopicPartition]) -> Result<(), Fault> {
        loop {
            let positions: Vec<(TopicPartition, i64)> =
                partitions.iter().filter_map(|at| Some((at.clone(), *self.next.get(at)?))).collect();
            match self.reader.read_from(&positions) {
                Ok(()) => return Ok(()),
                Err(LogError::OutOfRange { at, wanted, first }) => self.skip_to(at, wanted, first)?,
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn skip_to(&mut self, at: TopicPartition, wanted: i64, first: i64) -> Result<(), Fault> {
        if first <= wanted {
            return Err(Fault::Rebuild(format!(
                "{at}: offset {wanted} was folded in, and the log knows nothing of it"
            )));
        }
        if wanted > 0 {
            tracing::warn!(
                topic = %at.topic,
                partition = at.partition,
                wanted,
                first,
                "records were gone before they were folded in"
            );
        }
        self.next.insert(at, first);
        Ok(())
    }

    fn store(&mut self) -> Result<&mut Store, Fault> {
        self.store.as_mut().ok_or_else(|| Fault::Retriable("the projection is closed".to_owned()))
    }

    /// Folds everything that the log holds now, then lets readers in.
    fn catch_up(&mut self) -> Result<(), Fault> {
        let clock = Arc::clone(&self.follower.clock);
        let mut heard_at = clock.monotonic();
        let mut least = i64::MAX;
        loop {
            let lag = self.lag();
            // What is written meanwhile, heartbeats above all, is no reason to wait on.
            if lag < least {
                (least, heard_at) = (lag, clock.monotonic());
            }
            self.follower.metrics.lag.set(lag);
            let is_quiet = clock.monotonic().saturating_sub(heard_at) >= QUIET;
            if lag == 0 || is_quiet || self.follower.shutdown.is_requested() {
                break;
            }
            self.follower.component.not_ready(&format!("the projection is catching up: {lag} records behind"));
            self.turn(Duration::from_millis(200))?;
        }
        if self.follower.shutdown.is_requested() {
            return Ok(());
        }
        self.targets.clear();
        self.is_live = true;
        self.follower.metrics.lag.set(0);
        if let Some(store) = self.store.take_if(|store| store.is_building()) {
            let store = store.finish()?;
            self.follower.pool.switch_to(Some(store.file()));
            self.store = Some(store);
        }
        tracing::info!(partitions = self.next.len(), "the projection follows the log");
        self.follower.component.ready();
        Ok(())
    }

    fn lag(&self) -> i64 {
        let behind = self.targets.iter().map(|(at, end)| end - self.next.get(at).copied().unwrap_or(0));
        behind.map(|records| records.max(0)).sum()
    }

    fn live(&mut self) -> Result<(), Fault> {
        let clock = Arc::clone(&self.follower.clock);
        let mut kept_up_at = clock.monotonic();
        let mut is_forgetting = false;
        while !self.follower.shutdown.is_requested() {
            let every = if self.queues.is_empty() { UPKEEP_EVERY } else { RELIST_EVERY };
            let since = clock.monotonic().saturating_sub(kept_up_at);
            if since >= every || std::mem::take(&mut self.has_new_queue) {
                let partitions = topics::partitions(&self.follower.log.topics()?, self.follower.shards)?;
                self.start(partitions, &BTreeMap::new())?;
                (kept_up_at, is_forgetting) = (clock.monotonic(), true);
                continue;
            }
            if is_forgetting {
                // Slice by slice between records, so that a large clean-up delays none.
                let now = clock.now();
                is_forgetting = self.store()?.forget(now)?;
            }
            let timeout = if is_forgetting { Duration::ZERO } else { every.saturating_sub(since) };
            let records = self.turn(timeout)?;
            // A full batch: there is more, nobody knows how much.
            let known = if records == BATCH { i64::try_from(BATCH).unwrap_or(i64::MAX) } else { 0 };
            self.follower.metrics.lag.set(known);
            if (1..BATCH_SMALL).contains(&records) {
                self.pauser.pause(self.busy.saturating_mul(REST).min(TICK));
            }
        }
        Ok(())
    }

    /// Waits for records, folds and commits them; how many there were.
    fn turn(&mut self, timeout: Duration) -> Result<usize, Fault> {
        let records = match self.reader.poll(BATCH, timeout) {
            Ok(records) => records,
            Err(LogError::OutOfRange { at, wanted, first }) => {
                self.skip_to(at.clone(), wanted, first)?;
                self.read_from(&[at])?;
                return Ok(0);
            }
            Err(error) => return Err(error.into()),
        };
        if records.is_empty() {
            return Ok(0);
        }
        let clock = Arc::clone(&self.follower.clock);
        let started_at = clock.monotonic();
        let (changes, positions) = self.fold(&records);
        self.commit(&changes, &positions)?;
        self.follower.metrics.records.inc_by(u64::try_from(records.len()).unwrap_or(u64::MAX));
        self.next.extend(positions.clone());
        self.follower.progress.advance(positions, answers(&changes));
        self.busy = clock.monotonic().saturating_sub(started_at);
        Ok(records.len())
    }

    fn fold(&mut self, records: &[Record]) -> (Vec<Change>, BTreeMap<TopicPartition, i64>) {
        let mut changes = Vec::with_capacity(records.len() * 2);
        let mut positions = BTreeMap::new();
        for record in records {
            if let Err(reason) = projections::fold(record, self.follower.shards, &mut changes) {
                self.follower.metrics.unreadable.inc();
                let (topic, partition, offset) = (&record.topic, record.partition, record.offset);
                tracing::warn!(
                    %topic,
                    partition,
                    offset,
                    reason = reason.0,
                    "a record can't be read and is passed over"
                );
            }
            positions.insert(record.topic_partition(), record.offset + 1);
        }
        for change in &changes {
            if let Change::Requested(request) = change {
                let letters = TopicPartition::new(format!("{}{}", topic::DLQ_PREFIX, request.queue), 0);
                if !self.next.contains_key(&letters) {
                    self.has_new_queue |= self.queues.insert(request.queue.clone());
                }
            }
        }
        (changes, positions)
    }

    /// Tries again while the disk is full: the records are in memory, and reading them again helps nobody.
    fn commit(&mut self, changes: &[Change], positions: &BTreeMap<TopicPartition, i64>) -> Result<(), Fault> {
        let clock = Arc::clone(&self.follower.clock);
        let mut has_failed = false;
        loop {
            let started_at = clock.monotonic();
            match self.store()?.commit(changes, positions) {
                Ok(()) => {
                    let elapsed = clock.monotonic().saturating_sub(started_at);
                    self.follower.metrics.committed(elapsed);
                    if has_failed && self.is_live {
                        tracing::info!("the projection can be written again");
                        self.follower.component.ready();
                    }
                    return Ok(());
                }
                Err(error @ StoreError::Retriable(_)) if !self.follower.shutdown.is_requested() => {
                    if !has_failed {
                        tracing::error!(%error, "the projection waits until it can be written");
                    }
                    has_failed = true;
                    self.follower.component.not_ready(&error.to_string());
                    self.pauser.pause(BACKOFF);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The marks that the changes move.
fn answers(changes: &[Change]) -> BTreeMap<TopicPartition, i64> {
    let mut answers = BTreeMap::new();
    for change in changes {
        if let Change::Answered { topic, partition, next } = change {
            let mark = answers.entry(TopicPartition::new(*topic, *partition)).or_insert(*next);
            *mark = (*mark).max(*next);
        }
    }
    answers
}
