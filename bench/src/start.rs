//! Run now at a steady rate: from the command's append to the instant its process was started. Invariant: both
//! ends are read from the log on this machine's clock; every run is waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orloj_domain::attempt::{AttemptEvent, AttemptEventType};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::manifest;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::NewRecord;
use serde_json::json;

use crate::bed::Bed;
use crate::burst::{count_accepted, reader};
use crate::calibrate::calibrate;
use crate::usage::percentile;

/// Jobs that the runs are spread over.
const JOBS: u64 = 50;

/// Runs the workload and prints its line.
pub(crate) fn run(bed: &Bed, rate: u64, seconds: u64) {
    eprintln!("start on {}: calibrating", bed.name);
    let calibration = calibrate(bed);
    let services = bed.start(&["trigger", "dispatcher", "runner"]);
    let jobs = define(bed);
    let mut attempts = reader(bed, topic::ATTEMPT_EVENTS);
    warm_up(bed, &jobs, attempts.as_mut());
    eprintln!("start on {}: {rate} runs/s for {seconds} s", bed.name);
    let before = bed.cpu();
    let started = Instant::now();
    let sent = send(bed, &jobs, rate, seconds);
    let ends = wait_for_all(&sent, attempts.as_mut());
    let after = bed.cpu();
    let wall = started.elapsed().as_secs_f64();
    let children = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)
        .map_or(0.0, |usage| seconds_of(usage.user_time()) + seconds_of(usage.system_time()));
    services.stop();
    let mut latencies: Vec<f64> =
        sent.iter().filter_map(|(run, at)| ends.get(run).map(|started| started - at)).collect();
    latencies.sort_by(f64::total_cmp);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let runs = sent.len() as f64;
    println!(
        "{}",
        json!({
            "workload": "start", "backend": bed.name, "rate_per_second": rate, "runs": sent.len(),
            "start_p50_ms": percentile(&latencies, 50.0), "start_p99_ms": percentile(&latencies, 99.0),
            "start_max_ms": latencies.last(), "seconds": wall,
            "cpu_seconds": {"orloj": after.0 - before.0, "broker": after.1 - before.1, "children": children},
            "cpu_ms_per_run": (after.0 - before.0) * 1000.0 / runs,
            "calibration": calibration,
        })
    );
}

fn seconds_of(time: nix::sys::time::TimeVal) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let seconds = time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds
}

fn define(bed: &Bed) -> Vec<JobId> {
    let mut appender = bed.log.appender().expect("an appender");
    let mut jobs = Vec::new();
    let mut records = Vec::new();
    for index in 0..JOBS {
        let text = format!(
            r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"bench","name":"job-{index}"}},
                "spec":{{"overlap":{{"policy":"allow"}},"run":{{"exec":{{"command":["/bin/true"]}}}}}}}}"#
        );
        let definition = manifest::parse_json(&text).expect("a valid manifest");
        let partition = bed.shards.shard_of(&definition.job).0;
        records.push(NewRecord::new(topic::JOBS, partition, definition.job.as_str(), Some(codec::encode(&definition))));
        jobs.push(definition.job);
    }
    appender.append(records).expect("an append");
    count_accepted(reader(bed, topic::JOB_EVENTS).as_mut(), jobs.len());
    jobs
}

fn command(bed: &Bed, job: &JobId, id: &str) -> (RunId, NewRecord) {
    let command_id = CommandId::new(id).expect("a valid id");
    let run = RunId::of_command(job, &command_id);
    let command = Command {
        kind: CommandType::RunNow,
        command_id,
        at: None,
        actor: None,
        reason: None,
        params: BTreeMap::new(),
        run_id: None,
        from: None,
        until: None,
    };
    let partition = bed.shards.shard_of(job).0;
    (run, NewRecord::new(topic::COMMANDS, partition, job.as_str(), Some(codec::encode(&command))))
}

/// One run of each job, so that every connection and page is warm.
fn warm_up(bed: &Bed, jobs: &[JobId], attempts: &mut dyn orloj_runtime::log::Reader) {
    let mut appender = bed.log.appender().expect("an appender");
    let mut sent = BTreeMap::new();
    for job in jobs {
        let (run, record) = command(bed, job, "warm");
        appender.append(vec![record]).expect("an append");
        sent.insert(run, 0.0);
    }
    wait_for_all(&sent, attempts);
}

/// Sends at the given rate by absolute instants; answers when each command was handed to the log, in ms.
fn send(bed: &Bed, jobs: &[JobId], rate: u64, seconds: u64) -> BTreeMap<RunId, f64> {
    let mut appender = bed.log.appender().expect("an appender");
    let begin = Instant::now();
    let mut sent = BTreeMap::new();
    for index in 0..rate * seconds {
        let wanted = begin + Duration::from_secs_f64(index as f64 / rate as f64);
        std::thread::sleep(wanted.saturating_duration_since(Instant::now()));
        let job = &jobs[usize::try_from(index).unwrap_or(0) % jobs.len()];
        let (run, record) = command(bed, job, &format!("run-{index}"));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
        let now = bed.clock.now().millis() as f64;
        appender.append(vec![record]).expect("an append");
        sent.insert(run, now);
    }
    sent
}

/// Waits until each run has finished; answers when its process was started, by the runner's clock, in ms.
fn wait_for_all(sent: &BTreeMap<RunId, f64>, attempts: &mut dyn orloj_runtime::log::Reader) -> BTreeMap<RunId, f64> {
    let mut started = BTreeMap::new();
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
            #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
            let at = event.at.millis() as f64;
            match event.kind {
                AttemptEventType::Started => drop(started.insert(event.run_id, at)),
                AttemptEventType::Finished => finished += 1,
                AttemptEventType::Claimed | AttemptEventType::Progress | AttemptEventType::Unknown => {}
            }
        }
    }
    started
}
