//! From the command that ends a run to the end of its process. Every service is a process of its own. Invariant: the load is
//! open, and what is measured ends with the report that no process of the attempt is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, OutcomeKind};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{NewRecord, Reader};
use serde_json::json;

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::report::Report;
use crate::served::Served;
use crate::start::{command, define, millis, since_sent};
use crate::usage::percentiles;

const COLUMNS: &[&str] = &["rate_per_second", "runs", "valid", "cancel_ms.p50", "cancel_ms.p99", "cancel_ms.max"];
const PATIENCE: Duration = Duration::from_secs(300);

/// Ends `count` runs of `sleep`, `rate` a second.
pub(crate) fn run(bed: &Bed, count: usize, rate: usize) {
    let mut report = Report::new("cancel", COLUMNS);
    let calibration = calibrate(bed);
    let services = ["trigger", "dispatcher", "runner"].map(|service| Served::start(bed, service, service));
    let jobs = define(bed, r#"{"exec":{"command":["/bin/sleep","3600"]}}"#);
    let mut attempts = bed.reader(topic::ATTEMPT_EVENTS);
    let mut appender = bed.log.appender().expect("an appender");
    let asked: Vec<(RunId, &JobId)> = (0..count)
        .map(|index| {
            let job = &jobs[index % jobs.len()];
            let (run, record) = command(bed, job, &format!("run-{index}"));
            appender.append(vec![record]).expect("an append");
            (run, job)
        })
        .collect();
    eprintln!("cancel on {}: waiting for {count} processes", bed.name);
    wait_for(attempts.as_mut(), AttemptEventType::Started, count);
    eprintln!("cancel on {}: {rate} a second", bed.name);
    let begin = Instant::now();
    let begin_ms = millis(bed.clock.now());
    let mut sent = BTreeMap::new();
    for (index, (run, job)) in asked.into_iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let after = Duration::from_secs_f64(index as f64 / rate as f64);
        std::thread::sleep((begin + after).saturating_duration_since(Instant::now()));
        appender.append(vec![cancel(bed, job, run, index)]).expect("an append");
        sent.insert(run, begin_ms + after.as_secs_f64() * 1000.0);
    }
    let ended = wait_for(attempts.as_mut(), AttemptEventType::Finished, count);
    let is_cancelled =
        |event: &AttemptEvent| event.outcome.as_ref().is_some_and(|outcome| outcome.kind == OutcomeKind::Cancelled);
    let is_valid = ended.values().all(is_cancelled);
    let at = ended.iter().map(|(run, event)| (*run, millis(event.at))).collect();
    let line = json!({
        "rate_per_second": rate, "runs": count, "valid": is_valid, "cancel_ms": percentiles(&since_sent(&sent, &at)),
    });
    report.add(bed.name, &calibration, line);
    services.into_iter().for_each(Served::stop);
    report.finish();
}

fn cancel(bed: &Bed, job: &JobId, run: RunId, index: usize) -> NewRecord {
    let id = CommandId::new(&format!("cancel-{index}")).expect("a valid id");
    let command = Command { run_id: Some(run), ..Command::new(CommandType::Cancel, id) };
    NewRecord::new(topic::COMMANDS, bed.shards.shard_of(job).0, job.as_str(), Some(codec::encode(&command)))
}

/// Waits until so many runs have a report of this kind.
fn wait_for(attempts: &mut dyn Reader, kind: AttemptEventType, count: usize) -> BTreeMap<RunId, AttemptEvent> {
    let deadline = Instant::now() + PATIENCE;
    let mut found = BTreeMap::new();
    while found.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} runs are {}", found.len(), kind.as_str());
        for record in attempts.poll(10_000, Duration::from_millis(100)).expect("a readable log") {
            let Some(value) = record.value else { continue };
            let event: AttemptEvent = codec::decode(&value).expect("an event");
            if event.kind == kind {
                found.insert(event.run_id, event);
            }
        }
    }
    found
}
