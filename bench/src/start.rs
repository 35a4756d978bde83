//! Run now at a steady rate: from the command's append to the instant its process was started. Invariant: both
//! ends are read from the log on this machine's clock; every run is waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, ReadyAttempt};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::fire::FireDecision;
use orloj_domain::id::{CommandId, JobId, QueueName, RunId};
use orloj_domain::job_event::JobEventType;
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Appender, NewRecord};
use serde_json::json;

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::wait_for_answers;
use crate::in_process::Services;
use crate::usage::{cpu_seconds, percentile};

/// Jobs that the runs are spread over.
const JOBS: u64 = 50;

/// Runs the workload and prints its line.
pub(crate) fn run(bed: &Bed, rate: u64, seconds: u64, warm_seconds: u64) {
    eprintln!("start on {}: calibrating", bed.name);
    let calibration = calibrate(bed);
    let mut services = Services::start(bed, &["trigger", "dispatcher", "runner"]);
    let jobs = define(bed, r#"{"exec":{"command":["/bin/true"]}}"#);
    let mut attempts = bed.reader(topic::ATTEMPT_EVENTS);
    eprintln!("start on {}: warming up for {warm_seconds} s", bed.name);
    let mut appender = bed.log.appender().expect("an appender");
    let warm = send(bed, appender.as_mut(), &jobs, "warm", (rate, warm_seconds));
    wait_for_all(&warm, attempts.as_mut());
    eprintln!("start on {}: {rate} runs/s for {seconds} s", bed.name);
    let (before, children_before) = (cpu(bed), children_seconds());
    let started = Instant::now();
    let sent = send(bed, appender.as_mut(), &jobs, "run", (rate, seconds));
    let stages = wait_for_all(&sent, attempts.as_mut());
    let after = cpu(bed);
    let wall = started.elapsed().as_secs_f64();
    let children = children_seconds() - children_before;
    services.stop();
    let latencies = since_sent(&sent, &stages.started);
    // Read only now, so that reading them costs the measurement nothing.
    let p50 = |at: &BTreeMap<RunId, f64>| percentile(&since_sent(&sent, at), 50.0);
    let stages = json!({
        "decided": p50(&decided_at(bed)), "ready": p50(&ready_at(bed)),
        "claimed": p50(&stages.claimed), "started": p50(&stages.started),
    });
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let runs = sent.len() as f64;
    println!(
        "{}",
        json!({
            "workload": "start", "backend": bed.name, "warm_seconds": warm_seconds, "rate_per_second": rate, "runs": sent.len(),
            "start_p50_ms": percentile(&latencies, 50.0), "start_p99_ms": percentile(&latencies, 99.0),
            "start_max_ms": latencies.last(), "stages_p50_ms": stages, "seconds": wall,
            "cpu_seconds": {"orloj": after.0 - before.0, "broker": after.1 - before.1, "children": children},
            "cpu_ms_per_run": (after.0 - before.0) * 1000.0 / runs,
            "calibration": calibration,
        })
    );
}

/// CPU seconds so far: of this process, and of the broker.
fn cpu(bed: &Bed) -> (f64, f64) {
    (cpu_seconds(std::process::id()), bed.broker_cpu_seconds())
}

/// When each thing happened after its command was sent, sorted.
pub(crate) fn since_sent(sent: &BTreeMap<RunId, f64>, at: &BTreeMap<RunId, f64>) -> Vec<f64> {
    let mut times: Vec<f64> = sent.iter().filter_map(|(run, sent)| at.get(run).map(|at| at - sent)).collect();
    times.sort_by(f64::total_cmp);
    times
}

pub(crate) fn decided_at(bed: &Bed) -> BTreeMap<RunId, f64> {
    let decisions = all::<FireDecision>(bed, topic::FIRES);
    decisions.into_iter().filter_map(|decision| Some((decision.run_id?, millis(decision.decided_at)))).collect()
}

pub(crate) fn ready_at(bed: &Bed) -> BTreeMap<RunId, f64> {
    let ready = all::<ReadyAttempt>(bed, &topic::run_ready(&QueueName::default()));
    ready.into_iter().map(|ready| (ready.run_id, millis(ready.ready_at))).collect()
}

/// Every record of a topic, up to where it ended when this was called.
fn all<T: codec::WireRecord>(bed: &Bed, name: &str) -> Vec<T> {
    let mut reader = bed.reader(name);
    let mut all = Vec::new();
    loop {
        let records = reader.poll(10_000, Duration::from_secs(1)).expect("a readable log");
        if records.is_empty() {
            return all;
        }
        let ours = records.into_iter().filter(|record| !record.key_text().is_some_and(|key| key.starts_with("__")));
        all.extend(ours.filter_map(|record| codec::decode(&record.value?).ok()));
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds")]
pub(crate) fn millis(at: Timestamp) -> f64 {
    at.millis() as f64
}

fn children_seconds() -> f64 {
    nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)
        .map_or(0.0, |usage| seconds_of(usage.user_time()) + seconds_of(usage.system_time()))
}

fn seconds_of(time: nix::sys::time::TimeVal) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let seconds = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds
}

/// Jobs without a schedule that run this, accepted.
pub(crate) fn define(bed: &Bed, run: &str) -> Vec<JobId> {
    let mut appender = bed.log.appender().expect("an appender");
    let mut jobs = Vec::new();
    let mut records = Vec::new();
    for index in 0..JOBS {
        let text = format!(
            r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"bench","name":"job-{index}"}},
                "spec":{{"overlap":{{"policy":"allow"}},"run":{run}}}}}"#
        );
        let definition = manifest::parse_json(&text).expect("a valid manifest");
        let partition = bed.shards.shard_of(&definition.job).0;
        records.push(NewRecord::new(topic::JOBS, partition, definition.job.as_str(), Some(codec::encode(&definition))));
        jobs.push(definition.job);
    }
    appender.append(records).expect("an append");
    wait_for_answers(bed.reader(topic::JOB_EVENTS).as_mut(), jobs.len(), JobEventType::Accepted);
    jobs
}

/// A command to run a job now, and the run that it asks for.
pub(crate) fn command(bed: &Bed, job: &JobId, id: &str) -> (RunId, NewRecord) {
    let command_id = CommandId::new(id).expect("a valid id");
    let run = RunId::of_command(job, &command_id);
    let command = Command::new(CommandType::RunNow, command_id);
    let partition = bed.shards.shard_of(job).0;
    (run, NewRecord::new(topic::COMMANDS, partition, job.as_str(), Some(codec::encode(&command))))
}

/// Sends at the given rate by absolute instants; answers when each command was handed to the log, in ms.
fn send(
    bed: &Bed,
    appender: &mut dyn Appender,
    jobs: &[JobId],
    name: &str,
    (rate, seconds): (u64, u64),
) -> BTreeMap<RunId, f64> {
    let begin = Instant::now();
    let mut sent = BTreeMap::new();
    for index in 0..rate * seconds {
        let wanted = begin + Duration::from_secs_f64(index as f64 / rate as f64);
        std::thread::sleep(wanted.saturating_duration_since(Instant::now()));
        let job = &jobs[usize::try_from(index).unwrap_or(0) % jobs.len()];
        let (run, record) = command(bed, job, &format!("{name}-{index}"));
        let now = millis(bed.clock.now());
        appender.append(vec![record]).expect("an append");
        sent.insert(run, now);
    }
    sent
}

/// When runs were claimed and started, by the runner's clock, in ms.
#[derive(Default)]
pub(crate) struct Stages {
    pub(crate) claimed: BTreeMap<RunId, f64>,
    pub(crate) started: BTreeMap<RunId, f64>,
}

/// Waits until each run has finished.
pub(crate) fn wait_for_all(sent: &BTreeMap<RunId, f64>, attempts: &mut dyn orloj_runtime::log::Reader) -> Stages {
    let mut stages = Stages::default();
    let mut finished = 0;
    let deadline = Instant::now() + Duration::from_secs(120);
    while finished < sent.len() {
        assert!(Instant::now() < deadline, "{finished} of {} runs finished", sent.len());
        for record in attempts.poll(10_000, Duration::from_millis(100)).expect("a readable log") {
            let Some(value) = record.value else { continue };
            let event: AttemptEvent = codec::decode(&value).expect("an event");
            if !sent.contains_key(&event.run_id) {
                continue;
            }
            let at = millis(event.at);
            match event.kind {
                AttemptEventType::Claimed => drop(stages.claimed.insert(event.run_id, at)),
                AttemptEventType::Started => drop(stages.started.insert(event.run_id, at)),
                AttemptEventType::Finished => {
                    finished += 1;
                    let start = event.started_at.map_or(at, millis);
                    stages.started.entry(event.run_id).or_insert(start);
                }
                AttemptEventType::Progress | AttemptEventType::Unknown => {}
            }
        }
    }
    stages
}
