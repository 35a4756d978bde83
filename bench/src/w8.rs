//! W8, coming back: from the start of the process until all shards are armed, from the log alone and with what the
//! last process left in its data folder, and how long one shard of 32 takes after its assignment. Invariant: the
//! jobs are the same in all of them.

use std::time::Instant;

use orloj_domain::job_event::JobEventType;
use orloj_domain::topic;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use crate::bed::{Bed, PREFIX};
use crate::calibrate::calibrate;
use crate::definitions::{cron, offer, wait_for_answers};
use crate::report::Report;
use crate::served::Served;
use crate::usage::rounded;

const COLUMNS: &[&str] = &[
    "jobs",
    "updates_per_key",
    "start",
    "seconds_to_armed",
    "takeover_ms",
    "trigger_cpu_seconds",
    "resident_mib",
    "trigger_peak_mib",
];

/// Starts a trigger over `jobs` jobs of `updates` state records each, `runs` times from each kind of start.
pub(crate) fn run(bed: &Bed, jobs: usize, updates: usize, runs: usize) {
    let mut report = Report::new("W8", COLUMNS);
    let calibration = calibrate(bed);
    let first = Served::trigger(bed, "first");
    let mut answers = bed.reader(topic::JOB_EVENTS);
    for update in 0..updates {
        offer(bed, "far", 0..jobs, |index| cron(format!("{} {} {} 1 *", index % 60, index / 60 % 24, update + 1)));
        wait_for_answers(answers.as_mut(), jobs, JobEventType::Accepted);
        eprintln!("W8 on {}: {} of {updates} updates a key", bed.name, update + 1);
    }
    drop(answers);
    first.stop();
    for index in 0..runs {
        // A folder that nobody has written to.
        let cold = started(bed, &format!("data{index}"), "from the log", jobs, updates);
        report.add(bed.name, &calibration, cold);
        let warm = started(bed, &format!("data{index}"), "from its folder", jobs, updates);
        report.add(bed.name, &calibration, warm);
        if let Some(line) = one_shard(bed, &format!("one{index}"), jobs, updates) {
            report.add(bed.name, &calibration, line);
        }
    }
    report.finish();
}

fn started(bed: &Bed, data: &str, start: &str, jobs: usize, updates: usize) -> Value {
    let begun = Instant::now();
    let trigger = Served::trigger(bed, data);
    trigger.wait_until_armed(bed.shards.get(), jobs);
    let elapsed = begun.elapsed().as_secs_f64();
    let line = json!({
        "jobs": jobs, "updates_per_key": updates, "start": start, "seconds_to_armed": rounded(elapsed),
        "trigger_cpu_seconds": trigger.cpu_seconds(), "resident_mib": trigger.resident_mib().round(),
        "trigger_peak_mib": trigger.high_water_mib().round(), "phases_ms": phases(&trigger.said()),
    });
    trigger.stop();
    line
}

/// All shards but one are held by members that do nothing: what is left is one for the trigger.
fn one_shard(bed: &Bed, data: &str, jobs: usize, updates: usize) -> Option<Value> {
    let bootstrap = bed.broker.as_ref()?.bootstrap();
    let members: Vec<BaseConsumer> = (1..bed.shards.get()).map(|_| idle_member(bootstrap)).collect();
    let trigger = Served::trigger(bed, data);
    // Members must be served for the group to go on; assignments settle within a few rounds.
    let has_one = || trigger.metric("orloj_trigger_shards") >= 1.0;
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    while !has_one() && Instant::now() < deadline {
        for member in &members {
            let _ = member.poll(std::time::Duration::ZERO);
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let phases = phases(&trigger.said());
    let total: f64 = phases.as_object()?.values().filter_map(Value::as_f64).sum();
    let line = json!({
        "jobs": jobs, "updates_per_key": updates, "start": "one shard of 32", "takeover_ms": total, "phases_ms": phases,
        "trigger_cpu_seconds": trigger.cpu_seconds(), "trigger_peak_mib": trigger.high_water_mib().round(),
    });
    trigger.stop();
    Some(line)
}

fn idle_member(bootstrap: &str) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", format!("{PREFIX}trigger"));
    config.set("partition.assignment.strategy", "cooperative-sticky").set("heartbeat.interval.ms", "300");
    config.set("session.timeout.ms", "6000").set("queued.max.messages.kbytes", "64");
    config.set("auto.offset.reset", "latest").set("enable.auto.commit", "false");
    let member: BaseConsumer = config.create().expect("valid settings");
    member.subscribe(&[&format!("{PREFIX}{}", topic::JOBS)]).expect("a topic");
    member
}

/// Milliseconds of each phase of the last takeover, by what the trigger says about it.
fn phases(said: &str) -> Value {
    let mut phases = serde_json::Map::new();
    for line in said.lines().filter(|line| line.contains("takeover phase done")) {
        let field = |name: &str| {
            let rest = line.split(&format!("{name}=")).nth(1)?;
            Some(rest.split_whitespace().next().unwrap_or_default().trim_matches('"').to_owned())
        };
        let (Some(phase), Some(duration)) = (field("phase"), field("duration_ms")) else { continue };
        let before = phases.get(&phase).and_then(Value::as_f64).unwrap_or(0.0);
        // State and decisions are two reads of one phase.
        phases.insert(phase, json!(before + duration.parse::<f64>().unwrap_or(0.0)));
    }
    Value::Object(phases)
}
