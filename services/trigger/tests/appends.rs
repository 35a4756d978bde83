//! The real driver over the in-memory log, whose appends fail now and then without a trace, or whose shards are taken
//! away while one is under way. What comes back goes before what was decided since. Invariant: every definition is
//! answered once, in the order of their offers.

mod support;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orloj_domain::id::Incarnation;
use orloj_domain::job::JobDefinition;
use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::manifest;
use orloj_domain::shard::{Shard, ShardCount};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::ManualClock;
use orloj_runtime::codec;
use orloj_runtime::driver::Driver;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::log::{
    AppendError, Appended, Appender, BatchWriter, Claimer, ClaimerSpec, Isolation, Log, LogError, NewRecord, Owner,
    OwnerEvent, OwnerSpec, Position, Reader, Record, RestoreRange, TopicPartition, TopicSpec, Waker,
};
use orloj_trigger::TriggerService;

const SHARDS: i32 = 2;
/// More than fit one batch, and than are read in one turn.
const JOBS: usize = 20_000;
/// Most records of one append: a full batch that comes back, and what was decided meanwhile, a full batch too.
const BATCH_MAX: usize = 20_100;

/// What owners have tried to append.
#[derive(Default)]
struct Tries {
    appends: AtomicUsize,
    failures: AtomicUsize,
    largest: AtomicUsize,
    losses: AtomicUsize,
    is_underway: AtomicBool,
}

/// What goes wrong with which append, counted from 0.
#[derive(Clone, Copy)]
struct Faults {
    /// Nothing of it is written.
    fails: fn(usize) -> bool,
    /// Once it has begun, all shards are given away.
    loses: fn(usize) -> bool,
}

/// A log whose owners meet these faults.
struct Flaky {
    log: EmbeddedLog,
    tries: Arc<Tries>,
    faults: Faults,
}

impl Log for Flaky {
    fn topics(&self) -> Result<Vec<TopicSpec>, LogError> {
        self.log.topics()
    }
    fn create_topic(&self, spec: &TopicSpec) -> Result<(), LogError> {
        self.log.create_topic(spec)
    }
    fn end(&self, at: &TopicPartition, isolation: Isolation) -> Result<i64, LogError> {
        self.log.end(at, isolation)
    }
    fn offset_at(&self, at: &TopicPartition, time: Timestamp) -> Result<i64, LogError> {
        self.log.offset_at(at, time)
    }
    fn reader(&self, isolation: Isolation) -> Result<Box<dyn Reader>, LogError> {
        self.log.reader(isolation)
    }
    fn appender(&self) -> Result<Box<dyn Appender>, LogError> {
        self.log.appender()
    }
    fn batch_writer(&self, id: &str) -> Result<Box<dyn BatchWriter>, LogError> {
        self.log.batch_writer(id)
    }
    fn own(&self, spec: OwnerSpec) -> Result<Box<dyn Owner>, LogError> {
        let owner = Mutex::new(self.log.own(spec)?);
        Ok(Box::new(FlakyOwner { owner, tries: Arc::clone(&self.tries), faults: self.faults, failed: None }))
    }
    fn claim(&self, spec: ClaimerSpec) -> Result<Box<dyn Claimer>, LogError> {
        self.log.claim(spec)
    }
}

struct FlakyOwner {
    owner: Mutex<Box<dyn Owner>>,
    tries: Arc<Tries>,
    faults: Faults,
    failed: Option<Vec<NewRecord>>,
}

impl FlakyOwner {
    fn owner(&mut self) -> &mut dyn Owner {
        self.owner.get_mut().expect("nobody panicked").as_mut()
    }

    /// The number of this append, and whether it fails.
    fn count(&self, records: usize) -> (usize, bool) {
        self.tries.largest.fetch_max(records, Ordering::Relaxed);
        let number = self.tries.appends.fetch_add(1, Ordering::Relaxed);
        let fails = (self.faults.fails)(number);
        if fails {
            self.tries.failures.fetch_add(1, Ordering::Relaxed);
        }
        (number, fails)
    }
}

fn no_trace() -> AppendError {
    AppendError::Retriable("this one fails".to_owned())
}

impl Owner for FlakyOwner {
    fn incarnation(&self) -> Incarnation {
        self.owner.lock().expect("nobody panicked").incarnation()
    }
    fn poll(&mut self, max: usize, timeout: Duration) -> Result<Vec<OwnerEvent>, LogError> {
        self.owner().poll(max, timeout)
    }
    fn restore(&mut self, ranges: &[RestoreRange], fold: &mut dyn FnMut(Record)) -> Result<(), LogError> {
        self.owner().restore(ranges, fold)
    }
    fn read_inputs(&mut self, positions: &[(TopicPartition, i64)]) -> Result<(), LogError> {
        self.owner().read_inputs(positions)
    }
    fn append(&mut self, shards: &[Shard], records: &[NewRecord]) -> Result<Vec<Position>, AppendError> {
        if self.count(records.len()).1 { Err(no_trace()) } else { self.owner().append(shards, records) }
    }
    fn start_append(&mut self, shards: &[Shard], records: Vec<NewRecord>) -> Option<Appended> {
        let (number, fails) = self.count(records.len());
        if fails {
            self.failed = Some(records);
            return None;
        }
        let appended = self.owner().start_append(shards, records);
        self.tries.is_underway.store(appended.is_none(), Ordering::Relaxed);
        if appended.is_none() && (self.faults.loses)(number) {
            self.tries.losses.fetch_add(1, Ordering::Relaxed);
            self.owner().abandon("given away in the middle of an append");
        }
        appended
    }
    fn finish_append(&mut self) -> Appended {
        self.tries.is_underway.store(false, Ordering::Relaxed);
        match self.failed.take() {
            Some(records) => Appended { records, outcome: Err(no_trace()) },
            None => self.owner().finish_append(),
        }
    }
    fn release(&mut self, shards: &[Shard]) -> Result<(), LogError> {
        self.owner().release(shards)
    }
    fn abandon(&mut self, reason: &str) {
        self.owner().abandon(reason);
    }
    fn leave(self: Box<Self>) {
        self.owner.into_inner().expect("nobody panicked").leave();
    }
    fn waker(&self) -> Waker {
        self.owner.lock().expect("nobody panicked").waker()
    }
}

/// Offers of the jobs, each to its shard.
fn offer(log: &EmbeddedLog, shards: ShardCount) {
    let text = r#"{"apiVersion":"orloj/v1","kind":"Job","metadata":{"namespace":"a","name":"b"},
        "spec":{"run":{"exec":{"command":["true"]}}}}"#;
    let definition = manifest::parse_json(text).expect("a valid manifest");
    let offers = (0..JOBS).map(|index| {
        let job = format!("a/job-{index}").parse().expect("an id");
        let definition = JobDefinition { job, ..definition.clone() };
        let partition = shards.shard_of(&definition.job).0;
        NewRecord::new(topic::JOBS, partition, definition.job.as_str(), Some(codec::encode(&definition)))
    });
    log.appender().expect("in memory").append(offers.collect()).expect("in memory");
}

/// Offsets of the definitions that were accepted, in the order of the answers of a shard.
fn accepted(log: &EmbeddedLog, shard: i32) -> Vec<i64> {
    let mut reader = log.reader(Isolation::Committed).expect("in memory");
    reader.read_from(&[(TopicPartition::new(topic::JOB_EVENTS, shard), 0)]).expect("an existing topic");
    let records = reader.poll(JOBS * 2, Duration::ZERO).expect("in memory");
    let events = records.iter().map(|record| {
        let event: JobEvent = codec::decode(record.value.as_deref().unwrap_or_default()).expect("an event");
        assert_eq!(event.kind, JobEventType::Accepted, "{event:?}");
        event.definition_offset.expect("of a definition")
    });
    events.collect()
}

/// A trigger, or two, over one log that has the offers of all jobs.
struct Field {
    clock: ManualClock,
    log: EmbeddedLog,
    shards: ShardCount,
    tries: Arc<Tries>,
    faults: Faults,
    drivers: Vec<Driver<TriggerService>>,
}

impl Field {
    fn new(faults: Faults) -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_800_000_000_000));
        let (log, shards) = support::empty_log(&clock, SHARDS);
        offer(&log, shards);
        let mut field = Self { clock, log, shards, tries: Arc::default(), faults, drivers: Vec::new() };
        field.join();
        field
    }

    fn join(&mut self) {
        let flaky = Flaky { log: self.log.clone(), tries: Arc::clone(&self.tries), faults: self.faults };
        let (driver, _, _) = support::join(flaky, &self.clock, self.shards, None);
        self.drivers.push(driver);
    }

    fn turn(&mut self) {
        for driver in &mut self.drivers {
            driver.turn(Duration::ZERO).expect("nothing needs a person");
        }
        self.clock.advance(Duration::from_millis(100));
    }

    /// Lets everything be answered, and checks the answers.
    fn check(&mut self) {
        for _ in 0..100 {
            self.turn();
        }
        let answers: Vec<Vec<i64>> = (0..SHARDS).map(|shard| accepted(&self.log, shard)).collect();
        assert_eq!(answers.iter().map(Vec::len).sum::<usize>(), JOBS, "each is answered");
        for (shard, offsets) in answers.iter().enumerate() {
            assert!(
                offsets.is_sorted_by(|left, right| left < right),
                "shard {shard}: once each, in the order of the offers"
            );
        }
        let largest = self.tries.largest.load(Ordering::Relaxed);
        assert!(largest <= BATCH_MAX, "{largest} records at once: more was decided while nothing could be written");
    }
}

const NEVER: fn(usize) -> bool = |_| false;

/// The second append is a full batch, which is written while the next is decided.
#[test]
fn what_comes_back_goes_before_what_was_decided_since() {
    let mut field = Field::new(Faults { fails: |append| append % 2 == 1, loses: NEVER });
    field.check();
    assert!(field.tries.failures.load(Ordering::Relaxed) > 0, "no append has failed");
}

#[test]
fn while_appends_fail_no_more_is_decided_than_fits() {
    let mut field = Field::new(Faults { fails: |append| (1..20).contains(&append), loses: NEVER });
    field.check();
    assert!(field.tries.failures.load(Ordering::Relaxed) > 0, "no append has failed");
}

#[test]
fn shards_that_are_lost_in_the_middle_of_an_append_are_decided_on_once() {
    let mut field = Field::new(Faults { fails: NEVER, loses: |append| append < 3 });
    field.check();
    assert!(field.tries.losses.load(Ordering::Relaxed) > 0, "nothing was lost");
}

#[test]
fn shards_that_are_asked_back_in_the_middle_of_an_append_are_decided_on_once() {
    let mut field = Field::new(Faults { fails: NEVER, loses: NEVER });
    for _ in 0..100 {
        field.turn();
        if field.tries.is_underway.load(Ordering::Relaxed) {
            field.join();
            break;
        }
    }
    assert_eq!(field.drivers.len(), 2, "no turn ended while an append was under way");
    field.check();
    let held =
        |driver: &Driver<TriggerService>| field.shards.all().filter(|shard| driver.machine(*shard).is_some()).count();
    assert_eq!(field.drivers.iter().map(held).collect::<Vec<_>>(), [1, 1]);
}
