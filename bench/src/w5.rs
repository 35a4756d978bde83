//! W5, no-op runs: requested, made ready, claimed, executed and ended, every step durable. First what is ready is burnt down,
//! then runs are executed as they are asked for. Invariant: every run is counted at its end, once, by a reader of
//! committed records, or the line is marked invalid.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{JobId, RunId};
use orloj_domain::job::{ExecTarget, HandlerTarget, RunSpec, Target};
use orloj_domain::manifest;
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Isolation, NewRecord, Reader, TopicPartition};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::send;
use crate::report::Report;
use crate::served::Served;
use crate::usage::{children_seconds, rounded};

const COLUMNS: &[&str] = &[
    "phase",
    "runs",
    "valid",
    "runs_per_second",
    "dispatcher_cpu_us_per_run",
    "runner_cpu_us_per_run",
    "programs_cpu_us_per_run",
    "broker_cpu_us_per_run",
    "records_per_run",
    "bytes_per_run",
    "dispatcher_peak_mib",
];
/// Jobs that the runs are spread over.
const JOBS: usize = 1000;
/// Attempts that the runner holds at once.
const SLOTS: usize = 2000;
/// Runs before the first that count.
const WARM: usize = 100_000;
const PATIENCE: Duration = Duration::from_secs(900);
const POLL_MAX: usize = 20_000;

/// What a run executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// A handler in the runner's own process, which does nothing.
    Handler,
    /// `/bin/true`, started by the runner that ships.
    Exec,
}

impl Work {
    fn name(self) -> &'static str {
        match self {
            Self::Handler => "W5",
            Self::Exec => "exec",
        }
    }

    /// Runs before the first that count.
    fn warm(self) -> usize {
        match self {
            Self::Handler => WARM,
            Self::Exec => 15_000,
        }
    }

    pub(crate) fn target(self) -> Target {
        match self {
            Self::Handler => {
                Target::HandlerTarget(HandlerTarget { name: "noop".to_owned(), payload: "null".to_owned() })
            }
            Self::Exec => Target::ExecTarget(ExecTarget {
                command: vec!["/bin/true".to_owned()],
                env: Default::default(),
                working_dir: None,
                stdin: String::new(),
                limits: None,
            }),
        }
    }

    fn runner(self, bed: &Bed) -> Served {
        match self {
            Self::Handler => Served::noop_runner(bed, SLOTS),
            Self::Exec => Served::start(bed, "runner", "runner"),
        }
    }
}

/// Executes `runs` runs that are ready, and as many as they are asked for, `rounds` times.
pub(crate) fn run(bed: &Bed, work: Work, runs: usize, rounds: usize) {
    let mut report = Report::new(work.name(), COLUMNS);
    let calibration = calibrate(bed);
    let dispatcher = Served::start(bed, "dispatcher", "dispatcher");
    let mut made = Requests::new(bed, work.target());
    let mut phase = |name: &str, count: usize, is_running: bool| {
        eprintln!("{} on {}: {name}, {count} runs", work.name(), bed.name);
        let mut ready = bed.tail(&topic::run_ready(&Default::default()));
        let mut ends = bed.tail(topic::RUN_EVENTS);
        let records = made.next(count);
        let runner = is_running.then(|| work.runner(bed));
        if let Some(runner) = &runner {
            runner.wait_until_said("the runner is up");
        } else {
            send(bed, records.clone());
            wait_for_ready(ready.as_mut(), count);
        }
        let before = Cost::now(bed, &dispatcher);
        let started = Instant::now();
        let runner = runner.unwrap_or_else(|| work.runner(bed));
        let (last, ended) = std::thread::scope(|scope| {
            if is_running {
                scope.spawn(|| send(bed, records));
            }
            wait_for_ends(ends.as_mut(), count)
        });
        let elapsed = last.duration_since(started).as_secs_f64();
        let mut line = before.line(&Cost::now(bed, &dispatcher), count);
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let runs = count as f64;
        line["phase"] = json!(name);
        line["runs"] = json!(count);
        line["valid"] = json!(ended.is_valid(count));
        line["succeeded"] = json!(ended.succeeded.len());
        line["repeated"] = json!(ended.repeated);
        line["runs_per_second"] = json!((runs / elapsed).round());
        line["runner_cpu_us_per_run"] = json!(rounded(runner.cpu_seconds() * 1e6 / runs));
        line["programs_cpu_us_per_run"] = json!(rounded(children_seconds(runner.process_id()) * 1e6 / runs));
        line["dispatcher_peak_mib"] = json!(dispatcher.high_water_mib().round());
        runner.stop();
        line
    };
    phase("warm", work.warm(), true);
    for _ in 0..rounds {
        for (name, is_running) in [("burn down", false), ("as they come", true)] {
            let line = phase(name, runs, is_running);
            report.add(bed.name, &calibration, line);
        }
    }
    dispatcher.stop();
    report.finish();
}

/// What was used so far.
struct Cost {
    dispatcher: f64,
    broker: f64,
    records: i64,
    bytes: u64,
}

impl Cost {
    fn now(bed: &Bed, dispatcher: &Served) -> Self {
        let ready = topic::run_ready(&Default::default());
        let topics = [
            topic::FIRES,
            &ready,
            topic::RUN_STATE,
            topic::RUN_EVENTS,
            topic::ATTEMPT_EVENTS,
            topic::RUNNER_INBOX,
            topic::ATTEMPT_OUTPUT,
        ];
        let of_topic = |name: &&str| -> i64 {
            let at = |shard: orloj_domain::shard::Shard| TopicPartition::new(*name, shard.0);
            bed.shards.all().map(|shard| bed.log.end(&at(shard), Isolation::Uncommitted).unwrap_or(0)).sum()
        };
        Self {
            dispatcher: dispatcher.cpu_seconds(),
            broker: bed.broker_cpu_seconds(),
            records: topics.iter().map(of_topic).sum(),
            bytes: bed.broker.as_ref().map_or(0, |broker| size(&broker.directory().join("data"))),
        }
    }

    fn line(&self, after: &Self, runs: usize) -> Value {
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let (count, records, bytes) =
            (runs as f64, (after.records - self.records) as f64, after.bytes.saturating_sub(self.bytes) as f64);
        json!({
            "dispatcher_cpu_us_per_run": rounded((after.dispatcher - self.dispatcher) * 1e6 / count),
            "broker_cpu_us_per_run": rounded((after.broker - self.broker) * 1e6 / count),
            "records_per_run": rounded(records / count), "bytes_per_run": (bytes / count).round(),
        })
    }
}

/// Bytes of the segments in a folder and those below.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_entry = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size(&entry.path()),
        Ok(data) if entry.path().extension().is_some_and(|end| end == "log") => data.len(),
        Ok(_) | Err(_) => 0,
    };
    entries.map(of_entry).sum()
}

/// Requests as a trigger decides them.
pub(crate) struct Requests<'a> {
    bed: &'a Bed,
    spec: Arc<RunSpec>,
    jobs: Vec<JobId>,
    begin: Timestamp,
    next: usize,
}

impl<'a> Requests<'a> {
    pub(crate) fn new(bed: &'a Bed, target: Target) -> Self {
        let text = r#"{"apiVersion":"orloj/v1","kind":"Job","metadata":{"namespace":"bench","name":"job"},
            "spec":{"overlap":{"policy":"allow"},"run":{"exec":{"command":["true"]}}}}"#;
        let mut spec = manifest::parse_json(text).expect("a valid manifest").spec.as_ref().clone();
        spec.target = target;
        let job = |index| format!("bench/noop-{index}").parse().expect("a valid id");
        let jobs = (0..JOBS).map(job).collect();
        Self { bed, spec: Arc::new(spec), jobs, begin: bed.clock.now(), next: 0 }
    }

    pub(crate) fn next(&mut self, count: usize) -> Vec<NewRecord> {
        let from = self.next;
        self.next += count;
        (from..self.next).map(|index| self.one(index)).collect()
    }

    /// So many that are to begin at an instant, and not before.
    pub(crate) fn delayed(&mut self, count: usize, due_at: Timestamp) -> impl Iterator<Item = NewRecord> {
        let from = self.next;
        self.next += count;
        (from..from + count).map(move |index| {
            let mut spec = RunSpec::clone(&self.spec);
            spec.start_delay_ms = due_at.millis() - self.bed.clock.now().millis();
            self.spec = Arc::new(spec);
            self.one(index)
        })
    }

    fn one(&self, index: usize) -> NewRecord {
        let job = &self.jobs[index % self.jobs.len()];
        let now = self.bed.clock.now();
        // One of its own for each request, so that no run has the id of another.
        let fire_time = Timestamp::from_millis(self.begin.millis() + i64::try_from(index).unwrap_or(0));
        let decision = FireDecision {
            job: job.clone(),
            version: 1,
            trigger: TriggerKind::Schedule,
            fire_time,
            range_end: None,
            decision: Decision::Requested,
            reason: None,
            run_id: Some(RunId::of_fire_time(job, 1, fire_time)),
            coalesced_into: None,
            decided_at: now,
            definition_offset: 0,
            command_offset: None,
            command_id: None,
            actor: None,
            fires: 1,
            tzdb: None,
            calendars: Default::default(),
            incarnation: None,
            params: Default::default(),
            missed: None,
            reports_end: false,
            spec: Some(Arc::clone(&self.spec)),
        };
        let partition = self.bed.shards.shard_of(job).0;
        NewRecord::new(topic::FIRES, partition, job.as_str(), Some(codec::encode(&decision)))
    }
}

pub(crate) fn wait_for_ready(ready: &mut dyn Reader, wanted: usize) {
    let deadline = Instant::now() + PATIENCE;
    let mut count = 0;
    while count < wanted {
        assert!(Instant::now() < deadline, "only {count} of {wanted} runs were made ready");
        count += ready.poll(POLL_MAX, Duration::from_millis(100)).expect("a readable log").len();
    }
}

#[derive(Default)]
struct Ends {
    succeeded: BTreeSet<RunId>,
    repeated: usize,
    other: usize,
}

impl Ends {
    fn is_valid(&self, runs: usize) -> bool {
        self.succeeded.len() == runs && self.repeated == 0 && self.other == 0
    }
}

/// Waits for so many ends. They are decoded afterwards, so that it costs the measurement little; several steps of a run are
/// in this topic, and how many is not known before.
fn wait_for_ends(events: &mut dyn Reader, runs: usize) -> (Instant, Ends) {
    let deadline = Instant::now() + PATIENCE;
    let (mut last, mut ends) = (Instant::now(), Ends::default());
    let mut unread = Vec::new();
    while ends.succeeded.len() + ends.other < runs {
        assert!(Instant::now() < deadline, "only {} of {runs} runs have ended", ends.succeeded.len());
        let records = events.poll(POLL_MAX, Duration::from_millis(100)).expect("a readable log");
        let is_quiet = records.is_empty();
        if !is_quiet {
            last = Instant::now();
            unread.extend(records);
        }
        // Each run has more steps than its end: before there are so many, not all can have ended.
        if is_quiet || unread.len() > runs {
            read(&mut ends, std::mem::take(&mut unread));
        }
    }
    (last, ends)
}

fn read(ends: &mut Ends, records: Vec<orloj_runtime::log::Record>) {
    for value in records.into_iter().filter_map(|record| record.value) {
        let event: RunEvent = codec::decode(&value).expect("an event");
        if event.state == RunState::Succeeded {
            ends.repeated += usize::from(!ends.succeeded.insert(event.run_id));
        } else if event.state.is_terminal() {
            ends.other += 1;
        }
    }
}
