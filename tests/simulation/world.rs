//! The simulated installation: processes that may be up, frozen or gone, one log, one clock, one sequence of
//! choices. Invariant: everything that happens is a function of the seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use orloj_dispatcher::{DispatcherConfig, DispatcherService};
use orloj_domain::fire::{Decision, FireDecision};
use orloj_domain::id::{QueueName, RunId};
use orloj_domain::overlap;
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::shard::ShardCount;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, ManualClock};
use orloj_runtime::codec;
use orloj_runtime::driver::{CLOCK_JUMP_MAX, Driver, DriverParts};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::log::{Isolation, Log, Record, TopicPartition};
use orloj_runtime::metrics::{DriverMetrics, Metrics};
use orloj_runtime::topics;
use orloj_trigger::{TriggerConfig, TriggerService};

use crate::model_runner::ModelRunner;
use crate::random::Random;
use crate::workload::{self, KnownRun};

const SHARDS: i32 = 4;
const INSTANCES: usize = 2;
/// Virtual time under faults, and then to heal.
const FAULTY: Duration = Duration::from_secs(60);
const HEALING: Duration = Duration::from_secs(120);
/// Until a word to a runner has been heard where all are up.
const WORDS_ARRIVE: Duration = Duration::from_secs(10);
/// So often at most.
const HEALING_MORE: usize = 8;

/// How wrong the clock of a process may be when it starts.
const CLOCK_ERROR_MAX_MS: i64 = 30_000;

enum Process {
    Trigger(Driver<TriggerService>),
    Dispatcher(Driver<DispatcherService>),
    Runner(ModelRunner),
}

struct Slot {
    kind: usize,
    process: Option<Process>,
    frozen_until: Timestamp,
    /// Its machine's: the wall clock may be wrong.
    clock: ManualClock,
    lives: u64,
}

pub(crate) struct World {
    pub(crate) log: EmbeddedLog,
    pub(crate) clock: ManualClock,
    pub(crate) shards: ShardCount,
    random: Random,
    slots: Vec<Slot>,
    appended: u64,
    trace: u64,
    has_faults: bool,
    pub(crate) overlaps: Vec<String>,
    /// Changes made by hand to test the checker.
    pub(crate) forged: VecDeque<Record>,
    pub(crate) forgotten: Option<Record>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
        let log = EmbeddedLog::in_memory(Arc::new(clock.clone()));
        let shards = ShardCount::new(SHARDS).expect("a valid count");
        for spec in topics::declared(SHARDS, 1, &[QueueName::default(), workload::free_queue()]) {
            log.create_topic(&spec).expect("in memory");
        }
        let slots = (0..3 * INSTANCES)
            .map(|index| Slot {
                kind: index % 3,
                process: None,
                frozen_until: Timestamp::MIN,
                clock: clock.beside(),
                lives: 0,
            })
            .collect();
        let mut world = Self {
            log,
            clock,
            shards,
            random: Random::new(seed),
            slots,
            appended: 0,
            trace: 0xcbf2_9ce4_8422_2325,
            has_faults: true,
            overlaps: Vec::new(),
            forged: VecDeque::new(),
            forgotten: None,
        };
        world.append(workload::rules());
        world
    }

    pub(crate) fn run_faulty(&mut self) {
        self.steps_for(FAULTY);
    }

    /// Everything is up and stays up until all is decided and ended.
    pub(crate) fn heal(&mut self) {
        self.has_faults = false;
        for slot in &mut self.slots {
            slot.frozen_until = Timestamp::MIN;
            slot.clock.jump(-slot.clock.jumped());
        }
        self.stop_schedules();
        self.append(workload::rules());
        // Runs that share a limit of one end one after the other: as long as some are left they get more time.
        for _ in 0..HEALING_MORE {
            self.steps_for(HEALING);
            if crate::check::left(self).is_empty() {
                // Whoever still executes is told that by now.
                self.steps_for(WORDS_ARRIVE);
                return;
            }
        }
    }

    fn steps_for(&mut self, time: Duration) {
        let until = self.clock.now().plus(time);
        while self.clock.now() < until {
            self.step();
        }
    }

    /// Deletes every job, so that no new run begins while the last ones end.
    fn stop_schedules(&mut self) {
        for index in 0..workload::JOBS {
            let job = format!("sim/job-{index}");
            let partition = self.shards.shard_of_key(job.as_bytes()).0;
            let record = orloj_runtime::log::NewRecord::new(topic::JOBS, partition, job, None);
            self.append(vec![record]);
        }
    }

    fn append(&mut self, records: Vec<orloj_runtime::log::NewRecord>) {
        let mut appender = self.log.appender().expect("in memory");
        appender.append(records).expect("appending never fails in memory");
    }

    fn step(&mut self) {
        let index = usize::try_from(self.random.below(self.slots.len() as u64)).expect("small");
        if self.has_faults {
            self.inject(index);
            if self.random.chance(4) {
                let mut random = self.random.clone();
                let now = self.clock.now();
                let records = workload::next_records(&mut random, self.shards, now, self.appended, || self.runs());
                self.random = random;
                self.appended += 1;
                self.append(records);
            }
        }
        self.turn(index);
        self.witness();
        let millis = if self.random.chance(1) { self.random.below(2000) } else { self.random.below(60) };
        self.clock.advance(Duration::from_millis(millis));
        self.trace(index as u64 ^ (millis << 8));
    }

    fn inject(&mut self, index: usize) {
        let now = self.clock.now();
        let slot = &mut self.slots[index];
        match self.random.below(400) {
            // A crash: nothing is saved, nothing is released.
            0 | 1 => match slot.process.take() {
                Some(Process::Trigger(driver)) => driver.crash(),
                Some(Process::Dispatcher(driver)) => driver.crash(),
                Some(Process::Runner(runner)) => drop(runner),
                None => {}
            },
            // A freeze, often past the session.
            2 | 3 => slot.frozen_until = now.plus(Duration::from_millis(self.random.below(15_000))),
            // A planned restart.
            4 => match slot.process.take() {
                Some(Process::Trigger(driver)) => driver.leave(),
                Some(Process::Dispatcher(driver)) => driver.leave(),
                Some(Process::Runner(runner)) => slot.process = Some(Process::Runner(runner)),
                None => {}
            },
            // A wall clock that is wrong, within what is believed and far beyond, and one that is put right.
            5 => slot.clock.jump(i64::try_from(self.random.below(10_000)).expect("small")),
            6 => slot.clock.jump(-i64::try_from(self.random.below(10_000)).expect("small")),
            7 => slot.clock.jump(3_600_000),
            8 | 9 => slot.clock.jump(-slot.clock.jumped()),
            _ => {}
        }
    }

    fn turn(&mut self, index: usize) {
        let now = self.clock.now();
        if self.slots[index].frozen_until > now {
            return;
        }
        if self.slots[index].process.is_none() {
            self.start(index);
        }
        let random = &mut self.random;
        match self.slots[index].process.as_mut() {
            Some(Process::Trigger(driver)) => driver.turn(Duration::ZERO).expect("nothing needs a person"),
            Some(Process::Dispatcher(driver)) => driver.turn(Duration::ZERO).expect("nothing needs a person"),
            Some(Process::Runner(runner)) => runner.turn(random),
            None => {}
        }
    }

    fn start(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.lives += 1;
        // A process believes the clock that it finds: one that is an hour ahead would leave retries due in an hour.
        if slot.clock.jumped() > CLOCK_ERROR_MAX_MS {
            slot.clock.jump(-slot.clock.jumped());
        }
        let clock = slot.clock.clone();
        let parts = |service: &str| DriverParts {
            log: Arc::new(self.log.clone()),
            clock: Arc::new(clock.clone()),
            clock_jump_max: CLOCK_JUMP_MAX,
            // So few that batches go aside, as thousands do outside.
            batch_records_max: 3,
            shards: self.shards,
            health: Health::new().component(service),
            metrics: DriverMetrics::register(&Metrics::new(), service),
            snapshots: None,
        };
        slot.process = Some(match slot.kind {
            0 => {
                let config =
                    TriggerConfig { shards: self.shards, tzdb: None, clock_jump_max: CLOCK_JUMP_MAX, snapshots: None };
                Process::Trigger(orloj_trigger::driver(config, parts("trigger")).expect("in memory"))
            }
            1 => {
                let lease = crate::model_runner::LEASE;
                let config = DispatcherConfig { shards: self.shards, lease, clock_jump_max: CLOCK_JUMP_MAX };
                Process::Dispatcher(orloj_dispatcher::driver(config, parts("dispatcher")).expect("in memory"))
            }
            _ => Process::Runner(ModelRunner::new(
                Arc::new(self.log.clone()),
                // Real runners measure by the monotonic clock; the model has one clock for both.
                self.clock.clone(),
                self.shards,
                (&format!("runner-{index}"), slot.lives),
                workload::label_map(workload::RUNNERS[index / 3 % workload::RUNNERS.len()]),
            )),
        });
    }

    /// The runs that were asked for, job by job.
    fn runs(&self) -> Vec<KnownRun> {
        let records = self.read(topic::RUN_EVENTS);
        let events = records.iter().filter_map(|record| record.value.as_deref());
        let events = events.map(|value| codec::decode::<RunEvent>(value).expect("our own records decode"));
        let states: BTreeMap<RunId, RunState> = events.map(|event| (event.run_id, event.state)).collect();
        let records = self.read(topic::FIRES);
        let decisions = records.iter().filter(|record| record.key_text().is_some_and(|key| key.contains('/')));
        let decisions = decisions.filter_map(|record| record.value.as_deref());
        let decisions = decisions.map(|value| codec::decode::<FireDecision>(value).expect("our own records decode"));
        let requested = decisions.filter(|decision| decision.decision == Decision::Requested);
        let known = requested.filter_map(|decision| {
            let (job, run) = (decision.job, decision.run_id?);
            Some(KnownRun { job, run, state: states.get(&run).copied() })
        });
        known.collect()
    }

    /// Attempts that runners hold, executed or not.
    pub(crate) fn busy(&self) -> impl Iterator<Item = String> {
        let runners = self.slots.iter().filter_map(|slot| match &slot.process {
            Some(Process::Runner(runner)) => Some(runner),
            Some(Process::Trigger(_) | Process::Dispatcher(_)) | None => None,
        });
        let busy = runners.flat_map(ModelRunner::busy);
        busy.map(|ready| format!("attempt {} of run {} is still held by a runner", ready.attempt, ready.run_id))
    }

    /// What an outsider sees: two attempts at once, under live leases, of a job that allows one, or of a run that has not two;
    /// or three.
    fn witness(&mut self) {
        let now = self.clock.now();
        let mut live = BTreeMap::new();
        let mut attempts: BTreeMap<RunId, usize> = BTreeMap::new();
        let mut holders: BTreeMap<String, BTreeSet<RunId>> = BTreeMap::new();
        for slot in &self.slots {
            let Some(Process::Runner(runner)) = &slot.process else { continue };
            if slot.frozen_until > now {
                continue;
            }
            for (ready, is_valid) in runner.live().filter(|(_, is_valid)| *is_valid) {
                let decision: FireDecision = codec::decode(&ready.request).expect("a request");
                let spec = decision.spec.expect("a request has one");
                let shared = spec.limits.iter().map(|limit| format!("limit/{limit}"));
                for limit in shared.chain([format!("queue/{}", spec.queue)]) {
                    holders.entry(limit).or_default().insert(ready.run_id);
                }
                let count = attempts.entry(ready.run_id).or_default();
                *count += 1;
                if *count > 1 + usize::from(spec.hedge_after_ms.is_some()) {
                    self.overlaps.push(format!("{}: run {} has {count} attempts at once", ready.job, ready.run_id));
                }
                let wanted = spec.runner_labels.iter();
                if !wanted.clone().all(|(name, value)| runner.labels().get(name) == Some(value)) {
                    let has = runner.labels();
                    self.overlaps.push(format!("{}: run {} is at a runner with {has:?}", ready.job, ready.run_id));
                }
                let room = Some(overlap::room(spec.overlap.policy, spec.concurrency));
                let is_alone = is_valid && room == Some(1);
                if is_alone && let Some(other) = live.insert(ready.job.clone(), ready.run_id) {
                    self.overlaps.push(format!("{}: runs {other} and {} at once", ready.job, ready.run_id));
                }
            }
        }
        for (limit, most) in workload::LIMITS {
            let holding = holders.get(limit).filter(|holding| holding.len() > most);
            self.overlaps.extend(holding.map(|holding| format!("{limit}: at {now} it is held by {holding:?}")));
        }
    }

    fn trace(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.trace = (self.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    /// Hash over every step and every committed record.
    pub(crate) fn trace_hash(&mut self) -> u64 {
        for spec in self.log.topics().expect("in memory") {
            for record in self.read(&spec.name) {
                self.trace(record.offset.cast_unsigned());
                self.trace(record.timestamp.millis().cast_unsigned());
                for byte in record.value.iter().flatten() {
                    self.trace = (self.trace ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
                }
            }
        }
        self.trace
    }

    /// Every committed record of a topic, partition by partition.
    pub(crate) fn read(&self, name: &str) -> Vec<Record> {
        let partitions = self.log.topics().expect("in memory");
        let count = partitions.iter().find(|spec| spec.name == name).map_or(0, |spec| spec.partitions);
        let mut records = Vec::new();
        for partition in 0..count {
            let at = TopicPartition::new(name, partition);
            let mut reader = self.log.reader(Isolation::Committed).expect("in memory");
            reader.read_from(&[(at, 0)]).expect("in memory");
            loop {
                let some = reader.poll(10_000, Duration::ZERO).expect("in memory");
                if some.is_empty() {
                    break;
                }
                records.extend(some);
            }
        }
        if name == topic::FIRES {
            records.extend(self.forged.iter().cloned());
            records.retain(|record| Some(record) != self.forgotten.as_ref());
        }
        records
    }

    pub(crate) fn repeat_a_decision(&mut self) {
        let decision = self.a_decision();
        self.forged.push_back(decision);
    }

    pub(crate) fn forget_a_decision(&mut self) {
        self.forgotten = Some(self.a_decision());
    }

    fn a_decision(&self) -> Record {
        let records = self.read(topic::FIRES);
        records.into_iter().find(|record| record.key_text().is_some_and(|key| key.contains('/'))).expect("a decision")
    }
}
