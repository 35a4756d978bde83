//! W1, the due burst: many one-shots at one instant, until the last of their decisions is durable and readable.
//! Invariant: the rate is that of the witness, from the instant itself.

use std::time::Duration;

use orloj_domain::job_event::JobEventType;
use orloj_domain::topic;
use orloj_runtime::log::Reader;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::{at, offer, wait_for_answers};
use crate::report::Report;
use crate::served::Served;
use crate::usage::{percentile, rounded};
use crate::watch::{Watch, judge};

const COLUMNS: &[&str] = &[
    "jobs",
    "verdict.valid",
    "seconds_to_last",
    "decisions_per_second",
    "share_of_plain_produce",
    "verdict.lateness_ms.p50",
    "verdict.lateness_ms.p99",
    "trigger_cpu_us_per_fire",
    "broker_cpu_us_per_fire",
    "trigger_peak_mib",
];

/// Runs `runs` bursts of `jobs` after `warm_rounds` of 20,000.
pub(crate) fn run(bed: &Bed, jobs: usize, runs: usize, warm_rounds: usize) {
    let mut report = Report::new("W1", COLUMNS);
    let calibration = calibrate(bed);
    let trigger = Served::trigger(bed, "trigger");
    let mut answers = bed.reader(topic::JOB_EVENTS);
    for index in 0..warm_rounds {
        let line = round(bed, &trigger, &format!("warm{index}"), 20_000, answers.as_mut());
        eprintln!("W1 on {}: warm-up {index}: {line}", bed.name);
    }
    for index in 0..runs {
        let mut line = round(bed, &trigger, &format!("run{index}"), jobs, answers.as_mut());
        let plain = calibration["produce_200B_per_second"].as_f64().unwrap_or(1.0);
        line["share_of_plain_produce"] = rounded(line["decisions_per_second"].as_f64().unwrap_or(0.0) / plain).into();
        line["warm_rounds"] = warm_rounds.into();
        report.add(bed.name, &calibration, line);
    }
    trigger.stop();
    report.finish();
}

fn round(bed: &Bed, trigger: &Served, prefix: &str, jobs: usize, answers: &mut dyn Reader) -> Value {
    // Far enough away that all definitions are in force before it, on a whole second.
    let seconds = bed.clock.now().millis() / 1000 + 8 + i64::try_from(jobs / 15_000).unwrap_or(0);
    let due = orloj_domain::time::Timestamp::from_millis(seconds * 1000);
    offer(bed, prefix, 0..jobs, |_| at(due));
    wait_for_answers(answers, jobs, JobEventType::Accepted);
    assert!(bed.clock.now().plus(Duration::from_secs(1)) < due, "definitions took too long to be accepted");
    let watch = Watch::start(bed);
    std::thread::sleep(due.since(bed.clock.now()).saturating_sub(Duration::from_millis(200)));
    let before = (trigger.cpu_seconds(), bed.broker_cpu_seconds());
    watch.wait_for(jobs, Duration::from_secs(120));
    let after = (trigger.cpu_seconds(), bed.broker_cpu_seconds());
    // Time for what should not come.
    std::thread::sleep(Duration::from_secs(1));
    let fires = watch.finish(prefix);
    let verdict = judge(&fires, jobs, |fire| fire.intended_ms == due.millis());
    let last_ms = percentile(&verdict.lateness_ms, 100.0);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let count = jobs as f64;
    json!({
        "jobs": jobs, "seconds_to_last": last_ms / 1000.0, "decisions_per_second": (count * 1000.0 / last_ms).round(),
        "trigger_cpu_us_per_fire": rounded((after.0 - before.0) * 1e6 / count),
        "broker_cpu_us_per_fire": rounded((after.1 - before.1) * 1e6 / count),
        "trigger_peak_mib": trigger.high_water_mib().round(),
        "verdict": verdict.json(),
    })
}
