//! W7, holding: memory and idle CPU of a trigger with many jobs that are not due, after it has accepted them and
//! after it has restored them. Invariant: measured from outside the process.

use std::time::Duration;

use orloj_domain::job_event::JobEventType;
use orloj_domain::topic;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::{offer, wait_for_answers, yearly};
use crate::report::Report;
use crate::served::Served;
use crate::usage::rounded;

const COLUMNS: &[&str] =
    &["jobs", "after", "resident_mib", "peak_mib", "bytes_per_job", "idle_percent_of_a_core", "idle_seconds"];
/// Lazy saves and the broker's housekeeping are over by then.
const SETTLE: Duration = Duration::from_secs(15);
const MIB: f64 = 1024.0 * 1024.0;

/// Measures with `jobs` jobs, each state for `seconds`.
pub(crate) fn run(bed: &Bed, jobs: usize, seconds: u64) {
    let mut report = Report::new("W7", COLUMNS);
    let calibration = calibrate(bed);
    let trigger = Served::trigger(bed, "trigger");
    trigger.wait_until_armed(bed.shards.get(), 0);
    let empty = measured(&trigger, 0, "start", seconds, 0.0);
    let base = empty["resident_mib"].as_f64().unwrap_or(0.0);
    report.add(bed.name, &calibration, empty);
    if jobs > 0 {
        let mut answers = bed.reader(topic::JOB_EVENTS);
        offer(bed, "far", 0..jobs, yearly);
        wait_for_answers(answers.as_mut(), jobs, JobEventType::Accepted);
        drop(answers);
        report.add(bed.name, &calibration, measured(&trigger, jobs, "accepting", seconds, base));
        trigger.stop();
        let again = Served::trigger(bed, "trigger");
        again.wait_until_armed(bed.shards.get(), jobs);
        report.add(bed.name, &calibration, measured(&again, jobs, "restoring", seconds, base));
        again.stop();
    } else {
        trigger.stop();
    }
    report.finish();
}

fn measured(trigger: &Served, jobs: usize, after: &str, seconds: u64, base_mib: f64) -> Value {
    std::thread::sleep(SETTLE);
    let before = trigger.cpu_seconds();
    std::thread::sleep(Duration::from_secs(seconds));
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (length, count) = (seconds as f64, jobs.max(1) as f64);
    let resident = trigger.resident_mib();
    json!({
        "jobs": jobs, "after": after, "resident_mib": rounded(resident), "peak_mib": rounded(trigger.high_water_mib()),
        "bytes_per_job": if jobs == 0 { 0.0 } else { ((resident - base_mib) * MIB / count).round() },
        "idle_percent_of_a_core": rounded((trigger.cpu_seconds() - before) * 100.0 / length), "idle_seconds": seconds,
    })
}
