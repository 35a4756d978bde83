//! For tests only: a machine beside the log that its records would make, through the real edges. Invariant:
//! after every decision a machine restored from that log equals the one that decided.

mod words;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::{Outcome, OutcomeKind, ReadyAttempt};
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{Incarnation, JobId, QueueName, RunId};
use orloj_domain::job::{
    Delivery, ExecTarget, HttpCompletion, HttpTarget, OverlapKind, OverlapPolicy, RetryPolicy, RunSpec, Target,
};
use orloj_domain::lease::LEASE_DEFAULT;
use orloj_domain::run::{RecordHeader, RunEvent};
use orloj_domain::runner::{RunnerHeartbeat, RunnerMessage};
use orloj_domain::setting::BreakerEvent;
use orloj_domain::shard::{Shard, ShardCount};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, ManualClock};
use orloj_runtime::codec;
use orloj_runtime::driver::{CLOCK_JUMP_MAX, Inbound, Machine, Service, WriteContext};
use orloj_runtime::log::{Header, NewRecord, Record};

use crate::DispatcherConfig;
use crate::event::{About, Completion, Event, Input, Order, Report};
use crate::machine::DispatcherMachine;
use crate::metrics::DispatcherMetrics;
use crate::request::Request;
use crate::run::Step;
use crate::service::DispatcherService;
use crate::service::write::step_event;
use crate::shares::Shares;
pub(crate) use words::words;

/// When the world begins.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// How a run is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    pub(crate) job: &'static str,
    /// Tells the runs of one job apart.
    pub(crate) number: i64,
    /// Of the definition.
    pub(crate) version: i64,
    pub(crate) overlap: OverlapKind,
    pub(crate) delivery: Delivery,
    pub(crate) delay_s: i64,
    pub(crate) max_attempts: i32,
    pub(crate) deadline_s: Option<i64>,
    pub(crate) concurrency: Option<i32>,
    /// Most that may wait.
    pub(crate) waiting_max: i32,
    pub(crate) limits: &'static [&'static str],
    pub(crate) priority: i32,
    /// Its target may say later how it ended.
    pub(crate) has_callback: bool,
    /// After how long a second attempt is put beside one that has not ended.
    pub(crate) hedge_s: Option<i64>,
    /// It sends a request.
    pub(crate) is_request: bool,
    /// Labels that it asks a runner for.
    pub(crate) labels: &'static [(&'static str, &'static str)],
}

impl Ask {
    /// A run of a job that allows overlap, with one attempt.
    pub(crate) fn of(job: &'static str, number: i64) -> Self {
        Self {
            job,
            number,
            version: number,
            overlap: OverlapKind::Allow,
            delivery: Delivery::AtLeastOnce,
            delay_s: 0,
            max_attempts: 1,
            deadline_s: None,
            concurrency: None,
            waiting_max: 2,
            limits: &[],
            priority: 5,
            has_callback: false,
            hedge_s: None,
            is_request: false,
            labels: &[],
        }
    }

    pub(crate) fn run_id(&self) -> RunId {
        RunId::of_fire_time(&self.job_id(), self.number, START)
    }

    /// In the order of the numbers.
    fn fire_time(&self) -> Timestamp {
        START.plus(Duration::from_millis(self.number.unsigned_abs()))
    }

    pub(crate) fn job_id(&self) -> JobId {
        self.job.parse().expect("job")
    }

    pub(crate) fn decision(&self, at: Timestamp) -> FireDecision {
        FireDecision {
            job: self.job_id(),
            version: self.version,
            trigger: TriggerKind::Schedule,
            fire_time: self.fire_time(),
            range_end: None,
            decision: Decision::Requested,
            reason: None,
            run_id: Some(self.run_id()),
            coalesced_into: None,
            decided_at: at,
            definition_offset: 0,
            command_offset: None,
            command_id: None,
            actor: None,
            fires: 1,
            tzdb: None,
            incarnation: None,
            params: BTreeMap::new(),
            calendars: BTreeMap::new(),
            missed: None,
            reports_end: false,
            spec: Some(self.spec().into()),
        }
    }

    fn spec(&self) -> RunSpec {
        RunSpec {
            queue: QueueName::default(),
            priority: self.priority,
            start_delay_ms: self.delay_s * 1000,
            timeout_ms: 60_000,
            deadline_ms: self.deadline_s.map(|seconds| seconds * 1000),
            retry: RetryPolicy {
                max_attempts: self.max_attempts,
                initial_ms: 1000,
                factor: 2.0,
                max_ms: 60_000,
                jitter: 0.0,
                non_retryable_exit_codes: vec![2],
            },
            delivery: self.delivery,
            overlap: OverlapPolicy { policy: self.overlap, max: self.waiting_max },
            concurrency: self.concurrency,
            pause_after_failures: 0,
            limits: self.limits.iter().map(|name| name.parse().expect("limit")).collect(),
            hedge_after_ms: self.hedge_s.map(|seconds| seconds * 1000),
            runner_labels: text_map(self.labels),
            target: match (self.has_callback, self.is_request) {
                (false, false) => program(),
                (true, _) => asked(HttpCompletion::Callback),
                (false, true) => asked(HttpCompletion::Response),
            },
        }
    }

    /// The record in `fires` that asks.
    pub(crate) fn record(&self, at: Timestamp) -> Record {
        Record {
            topic: topic::FIRES.into(),
            partition: 0,
            offset: 7,
            timestamp: at,
            key: Some(self.job.as_bytes().to_vec()),
            value: Some(codec::encode(&self.decision(at))),
            headers: vec![Header { key: "traceparent".to_owned(), value: Some(vec![0, 255]) }],
        }
    }
}

fn text_map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn program() -> Target {
    Target::ExecTarget(ExecTarget {
        command: vec!["true".to_owned()],
        env: BTreeMap::new(),
        working_dir: None,
        stdin: String::new(),
        limits: None,
    })
}

fn asked(completion: HttpCompletion) -> Target {
    Target::HttpTarget(HttpTarget {
        method: "POST".to_owned(),
        url: "https://example.com/run".to_owned(),
        headers: BTreeMap::new(),
        body: String::new(),
        success: vec!["200-299".to_owned()],
        completion,
    })
}

/// What the callback of an attempt of the run that `ask` asks for says.
pub(crate) fn completion(ask: &Ask, attempt: i32, token: i64, kind: OutcomeKind) -> Completion {
    Completion { run_id: ask.run_id(), job: ask.job_id(), attempt, token, outcome: Outcome::new(kind, "called back") }
}

/// A request as the dispatcher reads it.
pub(crate) fn request(ask: &Ask, header: &[u8], shares: &Shares) -> Request {
    let headers = [RecordHeader { key: "traceparent".to_owned(), value: header.to_vec() }];
    let decision = ask.decision(START);
    Request::of(&decision, 7, &headers, &codec::encode(&decision), shares).expect("a request")
}

/// A command about the run that `ask` asks for.
pub(crate) fn order(ask: &Ask, command: &str) -> Order {
    Order {
        run_id: ask.run_id(),
        job: ask.job_id(),
        command: command.parse().expect("command"),
        actor: Some("ann".to_owned()),
        reason: None,
        spares_parked: false,
        not_before: None,
    }
}

/// A report about an attempt of the run that `ask` asks for.
pub(crate) fn report(ask: &Ask, attempt: i32, token: i64, session: &str) -> Report {
    Report {
        run_id: ask.run_id(),
        job: ask.job_id(),
        attempt,
        token,
        runner: "r".parse().expect("runner"),
        session: session.parse().expect("session"),
    }
}

pub(crate) fn outcome(kind: OutcomeKind) -> Outcome {
    Outcome::new(kind, kind.as_str())
}

pub(crate) fn service(clock: Arc<dyn Clock>) -> DispatcherService {
    let shards = ShardCount::new(1).expect("one");
    DispatcherService::new(
        DispatcherConfig { shards, lease: LEASE_DEFAULT, clock_jump_max: CLOCK_JUMP_MAX },
        clock,
        DispatcherMetrics::default(),
    )
}

/// One machine and what the log holds of its decisions.
pub(crate) struct World {
    pub(crate) machine: DispatcherMachine,
    service: DispatcherService,
    pub(crate) clock: ManualClock,
    /// (topic, key) → value of the three state topics.
    pub(crate) state: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    pub(crate) events: Vec<RunEvent>,
    pub(crate) ready: Vec<ReadyAttempt>,
    pub(crate) dead: Vec<NewRecord>,
    /// Dead letters that stand once more.
    pub(crate) parked: Vec<NewRecord>,
    pub(crate) inbox: Vec<RunnerMessage>,
    /// What shards said to each other about limits, not read yet.
    pub(crate) said: VecDeque<NewRecord>,
    /// What breakers did.
    pub(crate) turns: Vec<BreakerEvent>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::new(START);
        let service = service(Arc::new(clock.clone()));
        Self {
            machine: service.machine(Shard(0)),
            service,
            clock,
            state: BTreeMap::new(),
            events: Vec::new(),
            ready: Vec::new(),
            dead: Vec::new(),
            parked: Vec::new(),
            inbox: Vec::new(),
            said: VecDeque::new(),
            turns: Vec::new(),
        }
    }

    /// Puts a rule in force, by its manifest; `None` takes it out.
    pub(crate) fn rule(&mut self, limit: &str, spec: Option<serde_json::Value>) {
        let (kind, name) = limit.split_once('/').expect("a limit");
        let kind = if kind == "queue" { "Queue" } else { "Limit" };
        let manifest = |spec| serde_json::json!({"apiVersion": "orloj/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
        let value = spec.map(|spec| manifest(spec).to_string().into_bytes());
        let record = state_record(topic::SETTINGS, limit.as_bytes(), value);
        let inputs = self.service.read_shared(&record, self.now());
        assert!(!inputs.is_empty(), "the rule is taken");
        for input in inputs {
            self.decide(&input);
        }
    }

    /// A runner gives a sign of life: `name` is its id, and begins its session's.
    pub(crate) fn beat(&mut self, session: &str, labels: &[(&str, &str)], slots: i32, is_draining: bool) {
        let runner = session.split('-').next().unwrap_or(session);
        let heartbeat = RunnerHeartbeat {
            runner: runner.parse().expect("runner"),
            session: session.parse().expect("session"),
            sequence: 1,
            at: START,
            since: START,
            lease_ms: 15_000,
            queues: vec![QueueName::default()],
            slots,
            busy: 0,
            is_draining,
            host: String::new(),
            queue_weights: BTreeMap::new(),
            labels: text_map(labels),
        };
        let record = state_record(topic::RUNNER_HEARTBEATS, runner.as_bytes(), Some(codec::encode(&heartbeat)));
        for input in self.service.read_shared(&record, self.now()) {
            self.decide(&input);
        }
    }

    /// Another dispatcher takes the shard over, and has read nothing but its state yet.
    pub(crate) fn take_over(&mut self) {
        self.service.forget_shared();
        self.machine = self.restored();
        self.service.restored(&self.machine, self.now());
    }

    /// Leases that are over by now end.
    pub(crate) fn expire(&mut self) {
        for input in self.service.shared_tick(self.now()) {
            self.decide(&input);
        }
    }

    /// Reads the oldest that was said about limits; false if there is nothing.
    pub(crate) fn hear(&mut self) -> bool {
        let Some(said) = self.said.pop_front() else { return false };
        let record = Record { key: said.key, value: said.value, ..state_record(topic::LIMITS, b"", None) };
        self.read(&record);
        true
    }

    /// Until nobody has anything more to say about limits, and nothing is due.
    pub(crate) fn settle(&mut self) {
        loop {
            let is_due = self.machine.next_deadline().is_some_and(|due| due <= self.now());
            if is_due {
                self.decide(&Input::Tick);
            }
            if !self.hear() && !is_due {
                return;
            }
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) fn advance_to(&self, second: u64) {
        self.clock.advance(START.plus(Duration::from_secs(second)).since(self.now()));
    }

    /// Reads the record that asks for a run and decides on it.
    pub(crate) fn ask(&mut self, ask: &Ask) -> Vec<Event> {
        self.read(&ask.record(self.now()))
    }

    /// Reads a record of an input and decides on it.
    pub(crate) fn read(&mut self, record: &Record) -> Vec<Event> {
        let now = self.now();
        let read = self.service.read(record, now);
        let Inbound::Input(input) = read else { panic!("{read:?}") };
        self.decide(&input)
    }

    pub(crate) fn decide(&mut self, input: &Input) -> Vec<Event> {
        let incarnation = Incarnation::new("i").expect("incarnation");
        let context = WriteContext { shard: Shard(0), incarnation: &incarnation };
        let events = self.machine.decide(input, self.now());
        for event in &events {
            self.machine.apply(event);
            let mut records = Vec::new();
            self.service.write(&context, event.clone(), &mut records);
            for record in records {
                self.append(record);
            }
            // The request says it already; here every step is seen.
            if let Event::Stepped { run, about: About::Begun, .. } = event
                && run.step == Step::Ready
                && run.redriven_at.is_none()
            {
                self.events.push(step_event(run, About::Begun, &[]));
            }
        }
        events
    }

    fn append(&mut self, record: NewRecord) {
        let key = record.key.clone().expect("every record has a key");
        match record.topic.as_str() {
            topic::RUN_STATE | topic::RUN_DELAY | topic::RUN_RETRY => match record.value {
                Some(value) => {
                    self.state.insert((record.topic.to_string(), key), value);
                }
                None => {
                    let gone = self.state.remove(&(record.topic.to_string(), key));
                    assert!(gone.is_some(), "a tombstone in {} for nothing", record.topic);
                }
            },
            topic::RUN_EVENTS => self.events.push(codec::decode(&record.value.expect("value")).expect("run event")),
            "run.ready.default" => self.ready.push(codec::decode(&record.value.expect("value")).expect("ready")),
            "dlq.default" if record.value.is_none() => {}
            topic::LIMITS if key.starts_with(b"breaker:") => {
                let own =
                    Record { key: Some(key), value: record.value.clone(), ..state_record(topic::LIMITS, b"", None) };
                assert!(matches!(self.service.read(&own, START), Inbound::Nothing), "it asks nobody for anything");
                self.turns.push(codec::decode(&record.value.expect("value")).expect("breaker event"));
            }
            topic::LIMITS => self.said.push_back(NewRecord { key: Some(key), ..record }),
            "dlq.default" => {
                let is_parked = record.headers.iter().any(|header| header.key == "orloj-parked-reason");
                let letters = if is_parked { &mut self.parked } else { &mut self.dead };
                letters.push(record);
            }
            topic::RUNNER_INBOX => self.inbox.push(codec::decode(&record.value.expect("value")).expect("message")),
            other => panic!("nothing is written to {other}"),
        }
    }

    /// A machine restored from the log.
    pub(crate) fn restored(&self) -> DispatcherMachine {
        let mut machine = DispatcherMachine::default();
        for ((topic, key), value) in &self.state {
            let record = state_record(topic, key, Some(value.clone()));
            self.service.replay(&mut machine, &record).expect("replayable");
        }
        for input in self.service.shared_state() {
            machine.decide(&input, self.now()).iter().for_each(|event| machine.apply(event));
        }
        machine
    }

    /// How many runs the three state topics hold.
    pub(crate) fn kept_runs(&self) -> usize {
        self.state.keys().filter(|(_, key)| !key.starts_with(b"cancel:")).count()
    }

    /// How many distinct terms and outcomes are held.
    pub(crate) fn shared(&self) -> (usize, usize) {
        self.machine.shares().counts()
    }

    pub(crate) fn check_restore(&self) {
        let restored = self.restored();
        assert!(self.machine.is_index_right() && restored.is_index_right());
        assert_eq!(restored, self.machine);
    }
}

pub(crate) fn state_record(topic: &str, key: &[u8], value: Option<Vec<u8>>) -> Record {
    Record {
        topic: topic.into(),
        partition: 0,
        offset: 0,
        timestamp: START,
        key: Some(key.to_vec()),
        value,
        headers: Vec::new(),
    }
}
