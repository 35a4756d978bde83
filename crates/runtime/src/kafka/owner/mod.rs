//! `log::Owner` on Kafka: a share in a service's shards by membership in a consumer group, proved by claims and
//! enforced by fencing. Here: the owner's state and its loop; one file beside this one for each part of the protocol.
//! Invariant: whatever is in doubt ends the incarnation; nothing of our own is ever repaired (what Kafka leaves half
//! done is ended before a restore reads it, `hanging`).

mod hanging;
mod history;
mod inputs;
mod member;
mod phases;
mod rebalance;
mod reclaim;
mod restore;
mod ring;
mod tail;
mod takeover;
mod vigil;
mod writer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, select};
use orloj_domain::id::Incarnation;
use orloj_domain::shard::Shard;

use self::history::History;
use self::inputs::Inputs;
use self::member::{Member, Membership};
use self::phases::Phase;
use self::rebalance::Revoking;
use self::reclaim::Reclaim;
use self::ring::{Recipe, Ring};
use self::tail::Tail;
use self::takeover::Setback;
use self::vigil::{Vigil, Watched};
use self::writer::Writer;
use crate::clock::{Clock, SystemClock};
use crate::host;
use crate::kafka::KafkaLog;
use crate::kafka::client::Deadline;
use crate::kafka::config::KafkaConfig;
use crate::kafka::transaction::{TransactionLimits, TransactionalProducer};
use crate::log::{
    AppendError, Appended, Isolation, LogError, NewRecord, Owner, OwnerEvent, OwnerSpec, Position, Record,
    RestoreRange, TopicPartition, Waker,
};

pub use self::phases::TakeoverPhases;

/// The membership is served at least this often, whatever goes on.
const SERVE_INTERVAL: Duration = Duration::from_millis(40);
/// Longest time for giving everything back; then the successor shuts us out. Shorter than the five seconds after which
/// the process is ended: a group that is slow to let go (as amid rebalances) is no reason to end badly.
const LEAVE_MAX: Duration = Duration::from_secs(4);

/// Beyond the longest transaction: what stays hidden for longer is nobody's any more.
const VIGIL_MARGIN: Duration = Duration::from_secs(2);

/// One instance of a service among the owners of its shards.
pub(crate) struct KafkaOwner {
    spec: OwnerSpec,
    /// Input topics that have a partition for each shard; the others are shared by all.
    per_shard_topics: BTreeSet<String>,
    phases: TakeoverPhases,
    clock: SystemClock,
    host: String,
    recipe: Recipe,
    member: Member,
    inputs: Inputs,
    scanner: Tail,
    restorer: Tail,

    incarnation: Incarnation,
    /// The writer of this incarnation; opened by its first takeover.
    ring: Option<Ring>,
    reclaim: Reclaim,
    /// What the group says is ours: assigned = pending + claiming + held, and nothing else is.
    assigned: BTreeSet<Shard>,
    pending: BTreeSet<Shard>,
    claiming: BTreeSet<Shard>,
    /// Taken over and not released; may for a moment hold more than is assigned, while shards are asked back.
    held: BTreeSet<Shard>,
    broker_offset_ms: Option<i64>,
    /// For appends that are started and waited for later; from the first of them on.
    writer: Option<Writer>,
    /// The writer has an append: one of the ring's producers is with it.
    is_writing: bool,
    /// Captured at the last assignment; `None` if it was void.
    membership: Option<Arc<Membership>>,
    /// A claim was refused under this membership: nothing is claimed before the next one.
    is_stale: bool,
    assigned_at: Duration,
    revoking: Option<Revoking>,
    fenced_ids: BTreeSet<String>,
    /// Who had claimed the shards taken last before us.
    history: History,
    vigil: Vigil,
    /// Partitions that no restore reads and that the next takeover is to make readable.
    hidden: BTreeSet<TopicPartition>,
    /// From where on each was hidden when that was tried.
    tried: BTreeMap<TopicPartition, i64>,
    /// Those for which it was of no avail.
    given_up: BTreeSet<TopicPartition>,
    log: KafkaLog,
    failures: u32,
    retry_at: Duration,

    events: VecDeque<OwnerEvent>,
    signal: Sender<()>,
    signals: Receiver<()>,
    is_woken: Arc<AtomicBool>,
}

impl KafkaOwner {
    /// Joins the owners of a service of this log; shards come by [`Owner::poll`].
    pub(crate) fn join(log: &KafkaLog, spec: OwnerSpec) -> Result<Self, LogError> {
        let config: &KafkaConfig = &log.config.for_brokers(log.ends.brokers()?);
        let mut scanner = Tail::open(config, Isolation::Uncommitted)?;
        let restorer = Tail::open(config, Isolation::Committed)?;
        // First of all: a member whose topic is not there is given nothing, and never told why.
        let per_shard_topics = check_topics(&mut scanner, &spec)?;
        let (signal, signals) = bounded(1);
        let on_event = signal.clone();
        let member = Member::join(config, &spec.service, &spec.membership_topic, move || ring_bell(&on_event))?;
        // While the group makes up its mind.
        restorer.warm_up(&spec.restore_topics);
        let warm_topic = spec.owners_topic.clone();
        let limits = TransactionLimits::of(config);
        let vigil = Vigil::new(limits.transaction + VIGIL_MARGIN);
        let recipe = Recipe { config: config.clone(), warm_topic, limits };
        Ok(Self {
            spec,
            per_shard_topics,
            phases: TakeoverPhases::of_process(),
            clock: SystemClock::new(),
            host: host::process(),
            recipe,
            member,
            inputs: Inputs::new(config),
            scanner,
            restorer,
            incarnation: new_incarnation(),
            ring: None,
            reclaim: Reclaim::default(),
            assigned: BTreeSet::new(),
            pending: BTreeSet::new(),
            claiming: BTreeSet::new(),
            held: BTreeSet::new(),
            broker_offset_ms: None,
            writer: None,
            is_writing: false,
            membership: None,
            is_stale: false,
            assigned_at: Duration::ZERO,
            revoking: None,
            fenced_ids: BTreeSet::new(),
            history: History::default(),
            vigil,
            hidden: BTreeSet::new(),
            tried: BTreeMap::new(),
            given_up: BTreeSet::new(),
            log: log.clone(),
            failures: 0,
            retry_at: Duration::ZERO,
            events: VecDeque::new(),
            signal,
            signals,
            is_woken: Arc::new(AtomicBool::new(false)),
        })
    }

    fn observe(&self, phase: Phase, shards: &BTreeSet<Shard>, duration: Duration) {
        let shards = shards.iter().copied();
        self.phases.observe(&self.spec.service, phase, shards, &self.incarnation, duration);
    }

    fn is_takeover_due(&self) -> bool {
        !self.pending.is_empty()
            && self.revoking.is_none()
            && self.membership.is_some()
            && !self.is_stale
            && self.clock.monotonic() >= self.retry_at
    }

    /// Takes over what is due; the outcome is an event, or a state that the next turn sees.
    fn try_take_over(&mut self) -> Result<(), LogError> {
        match self.take_over() {
            Ok(taken) => {
                self.failures = 0;
                self.events.push_back(OwnerEvent::Taken(taken));
            }
            Err(Setback::Overtaken) => {}
            Err(Setback::Stale(reason)) => {
                tracing::info!(service = self.spec.service, reason, "claim refused, waiting for the next assignment");
                self.is_stale = true;
            }
            Err(Setback::Doubt(reason)) => {
                self.lose(&reason);
                self.back_off();
            }
            Err(Setback::NotYet(error)) => {
                self.back_off();
                return Err(error);
            }
        }
        Ok(())
    }

    fn renew_producers(&mut self) {
        let Some(ring) = &mut self.ring else { return };
        self.reclaim.settle(ring, Duration::ZERO, false);
        let Some(membership) = &self.membership else { return };
        let is_quiet = self.revoking.is_none() && self.pending.is_empty() && !self.held.is_empty();
        if is_quiet && !self.is_stale && self.reclaim.is_due(ring) {
            let membership = membership.clone();
            let claim = self.claim_record();
            if let Some(ring) = &mut self.ring {
                self.reclaim.start(&self.recipe, ring, claim, self.held.clone(), membership);
            }
        }
    }

    /// Ends the incarnation if something that it wrote, or was claimed for it, can't be read: taking the shards over again
    /// sees to that.
    fn watch_over_writes(&mut self) {
        if self.held.is_empty() || !self.events.is_empty() {
            return;
        }
        let (held, spec) = (&self.held, &self.spec);
        let watched = || {
            let claimed = spec.claimed.iter().flat_map(|claimed| &claimed.topics);
            let topics = spec.restore_topics.iter().chain(&spec.outputs).chain(claimed);
            let partitions = held.iter().map(|shard| shard.0);
            Watched { topics: topics.cloned().collect(), partitions: partitions.collect() }
        };
        let mut hidden = self.vigil.tend(&self.log.ends, watched);
        hidden.retain(|at| !self.given_up.contains(at));
        if let Some(at) = hidden.first() {
            self.lose(&format!("{at}: a transaction that nobody ends hides what was written behind it"));
            hidden.retain(|at| !self.spec.restore_topics.iter().any(|topic| *topic == at.topic));
            self.hidden = hidden;
        }
    }

    fn wait(&mut self, max: usize, timeout: Duration) {
        let timeout = timeout.min(SERVE_INTERVAL);
        if max == 0 {
            // Records are not wanted now; whatever else comes is told by a signal.
            let _ = self.signals.recv_timeout(timeout);
            return;
        }
        let mut arrived = None;
        select! {
            recv(self.signals) -> _ => {}
            recv(self.inputs.receiver()) -> arrivals => arrived = arrivals.ok(),
            default(timeout) => {}
        }
        if let Some(arrived) = arrived {
            self.inputs.accept(arrived);
        }
    }

    fn check_held(&self, shards: &[Shard]) -> Result<(), AppendError> {
        match shards.iter().find(|shard| !self.held.contains(shard)) {
            Some(shard) => Err(AppendError::Refused(format!("shard {shard} is not ours"))),
            None => Ok(()),
        }
    }

    /// The producer that writes these records.
    fn writing_producer(&mut self, records: &[NewRecord]) -> Result<TransactionalProducer, AppendError> {
        self.log.ends.require_all(records)?;
        self.take_producer().ok_or_else(|| AppendError::Refused("no producer is left".to_owned()))
    }

    fn written(&mut self, producer: TransactionalProducer) {
        self.broker_offset_ms = producer.broker_offset_ms();
        self.give_back_producer(producer);
    }

    /// Ends the incarnation if the outcome says that it is over, or leaves it in doubt.
    fn judge_append(&mut self, outcome: &Result<Vec<Position>, AppendError>) {
        if let Err(AppendError::Refused(reason) | AppendError::Unknown(reason)) = outcome {
            self.lose(reason);
        }
    }

    fn leave_now(&mut self) {
        let deadline = Deadline::after(LEAVE_MAX);
        self.inputs.stop(|_| true);
        let held: Vec<Shard> = self.held.iter().copied().collect();
        if let Err(error) = self.release_shards(&held) {
            tracing::warn!(service = self.spec.service, %error, "left without releasing");
        }
        self.pending.clear();
        let mut wanted = self.assigned.len();
        self.member.unsubscribe();
        // The group learns it by itself a session later if this does not end in time.
        while wanted > 0 && !deadline.has_passed() {
            let _ = self.signals.recv_timeout(SERVE_INTERVAL);
            if self.serve_member().is_err() {
                break;
            }
            wanted = self.assigned.len();
        }
        self.member.close(deadline.left());
    }
}

impl Owner for KafkaOwner {
    fn incarnation(&self) -> Incarnation {
        self.incarnation.clone()
    }

    fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<OwnerEvent>, LogError> {
        let deadline = Deadline::after(timeout);
        loop {
            self.serve_member()?;
            if !self.is_writing {
                if self.events.is_empty() && self.is_takeover_due() {
                    self.try_take_over()?;
                }
                self.renew_producers();
                self.watch_over_writes();
            }
            if !self.events.is_empty() {
                return Ok(self.events.drain(..).collect());
            }
            let arrived = self.inputs.take(max)?;
            if !arrived.is_empty() {
                return Ok(arrived);
            }
            if self.is_woken.swap(false, Ordering::SeqCst) || deadline.has_passed() {
                return Ok(Vec::new());
            }
            self.wait(max, deadline.left());
        }
    }

    fn restore(&mut self, ranges: &[RestoreRange], fold: &mut dyn FnMut(Record)) -> Result<(), LogError> {
        self.restore_ranges(ranges, fold)
    }

    fn read_inputs(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.inputs.read(positions)
    }

    fn append(&mut self, shards: &[Shard], records: &[NewRecord]) -> Result<Vec<Position>, AppendError> {
        self.check_held(shards)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let outcome = self.writing_producer(records).and_then(|mut producer| {
            let outcome = writer::append(&mut producer, records);
            self.written(producer);
            outcome
        });
        self.judge_append(&outcome);
        outcome
    }

    fn start_append(&mut self, shards: &[Shard], records: Vec<NewRecord>) -> Option<Appended> {
        if self.writer.is_none() {
            match Writer::start() {
                Ok(writer) => self.writer = Some(writer),
                Err(error) => tracing::warn!(%error, "no thread to write with: what comes next waits for each append"),
            }
        }
        let is_ready = self.writer.is_some() && !records.is_empty() && self.check_held(shards).is_ok();
        let producer = match is_ready.then(|| self.writing_producer(&records)).transpose() {
            Ok(producer) => producer,
            Err(error) => {
                let outcome = Err(error);
                self.judge_append(&outcome);
                return Some(Appended { records, outcome });
            }
        };
        let refused = match (&self.writer, producer) {
            (Some(writer), Some(producer)) => match writer.write(producer, records) {
                None => {
                    self.is_writing = true;
                    return None;
                }
                Some((producer, records)) => {
                    self.writer = None;
                    self.give_back_producer(producer);
                    records
                }
            },
            (_, _) => records,
        };
        // Nothing to wait for, or nobody to do it aside: what is wrong, if anything, is found here.
        let outcome = self.append(shards, &refused);
        Some(Appended { records: refused, outcome })
    }

    fn finish_append(&mut self) -> Appended {
        if !std::mem::take(&mut self.is_writing) {
            let outcome = Err(AppendError::Refused("no append was started".to_owned()));
            return Appended { records: Vec::new(), outcome };
        }
        let appended = match self.writer.as_ref().and_then(Writer::wait) {
            Some((producer, appended)) => {
                self.written(producer);
                appended
            }
            None => {
                self.writer = None;
                Appended { records: Vec::new(), outcome: Err(AppendError::Unknown("the writer is gone".to_owned())) }
            }
        };
        self.judge_append(&appended.outcome);
        appended
    }

    fn release(&mut self, shards: &[Shard]) -> Result<(), LogError> {
        self.release_shards(shards)
    }

    fn broker_offset_ms(&self) -> Option<i64> {
        self.broker_offset_ms
    }

    fn abandon(&mut self, reason: &str) {
        self.lose(reason);
        self.back_off();
    }

    fn leave(mut self: Box<Self>) {
        let (done, is_done) = bounded::<()>(1);
        let leave = move || {
            self.leave_now();
            drop(done);
            // The rest is clients, which may take as long as the broker is away.
            drop(self);
        };
        let thread = std::thread::Builder::new().name("owner-leave".to_owned()).spawn(leave);
        if thread.is_ok() {
            let _ = is_done.recv_timeout(LEAVE_MAX);
        }
    }

    fn waker(&self) -> Waker {
        let (signal, is_woken) = (self.signal.clone(), self.is_woken.clone());
        Waker::new(move || {
            is_woken.store(true, Ordering::SeqCst);
            ring_bell(&signal);
        })
    }
}

/// Wakes whoever waits; a bell that rings already needs no second pull.
fn ring_bell(signal: &Sender<()>) {
    let _ = signal.try_send(());
}

/// Checks that every topic is there; answers the input topics that have a partition for each shard.
fn check_topics(tail: &mut Tail, spec: &OwnerSpec) -> Result<BTreeSet<String>, LogError> {
    let of_shards = [&spec.membership_topic, &spec.owners_topic];
    for topic in of_shards.into_iter().chain(&spec.restore_topics) {
        let partitions = tail.partitions(topic)?;
        if partitions != spec.shards {
            let shards = spec.shards;
            return Err(LogError::Misconfigured(format!("topic `{topic}` has {partitions} partitions, not {shards}")));
        }
    }
    let mut per_shard = BTreeSet::new();
    for topic in &spec.input_topics {
        if tail.partitions(topic)? == spec.shards {
            per_shard.insert(topic.clone());
        }
    }
    Ok(per_shard)
}

#[allow(clippy::disallowed_methods, reason = "an incarnation must be unlike any other there ever was")]
fn new_incarnation() -> Incarnation {
    let id = uuid::Uuid::new_v4().simple().to_string();
    Incarnation::new(&id).unwrap_or_else(|error| unreachable!("32 hexadecimal digits are an incarnation: {error}"))
}
