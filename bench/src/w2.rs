//! W2, every-second jobs: doubled until p99 lateness passes a second (the knee), then a stretch at 80 % of that.
//! Invariant: all are due at the full second, which is the hardest way to spread them.

use orloj_domain::job_event::JobEventType;
use orloj_domain::topic;
use serde_json::json;

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::{cron, delete, offer, wait_for_answers};
use crate::report::Report;
use crate::served::Served;
use crate::steady::{Stretch, measure};
use crate::usage::percentile;

const COLUMNS: &[&str] = &[
    "step",
    "due_per_second",
    "seconds",
    "verdict.valid",
    "verdict.lateness_ms.p50",
    "verdict.lateness_ms.p99",
    "verdict.lateness_ms.max",
    "trigger_cpu_us_per_fire",
    "broker_cpu_us_per_fire",
    "trigger_peak_mib",
];
/// p99 lateness at the knee.
const KNEE_MS: f64 = 1000.0;
/// Seconds of each step on the way to the knee.
const STEP_SECONDS: u64 = 15;
/// More than this is never asked for.
const JOBS_MAX: usize = 640_000;

/// Begins with `jobs` every-second jobs, measured for `seconds`; without `is_to_knee` that is all.
pub(crate) fn run(bed: &Bed, jobs: usize, seconds: u64, is_to_knee: bool) {
    let mut report = Report::new("W2", COLUMNS);
    let calibration = calibrate(bed);
    let trigger = Served::trigger(bed, "trigger");
    let mut held = 0;
    let mut step = |wanted: usize, name: &str, seconds: u64| -> Stretch {
        eprintln!("W2 on {}: {name}, {wanted} jobs", bed.name);
        resize(bed, &mut held, wanted);
        // A burst of definitions is not what is measured, and the broker shall know this load.
        std::thread::sleep(std::time::Duration::from_secs(10));
        let mut stretch = measure(bed, &trigger, "second", (wanted, seconds), |fire| fire.job < wanted);
        stretch.line["step"] = json!(name);
        report.add(bed.name, &calibration, stretch.line.clone());
        stretch
    };
    let first = step(jobs, "base", seconds);
    if is_to_knee {
        let mut good = jobs;
        let mut bad = None;
        let mut is_good = is_below_knee(&first);
        let mut now = jobs;
        while is_good && now < JOBS_MAX {
            now *= 2;
            is_good = is_below_knee(&step(now, "doubled", STEP_SECONDS));
            if is_good { good = now } else { bad = Some(now) }
        }
        if let Some(bad) = bad {
            let between = usize::midpoint(good, bad);
            if is_below_knee(&step(between, "between", STEP_SECONDS)) {
                good = between;
            }
        }
        step(good * 8 / 10, "80 % of the knee", seconds);
    }
    trigger.stop();
    report.finish();
}

fn is_below_knee(stretch: &Stretch) -> bool {
    stretch.verdict.is_valid() && percentile(&stretch.verdict.lateness_ms, 99.0) <= KNEE_MS
}

fn resize(bed: &Bed, held: &mut usize, wanted: usize) {
    let mut answers = bed.tail(topic::JOB_EVENTS);
    if wanted > *held {
        offer(bed, "second", *held..wanted, |_| cron("* * * * * *".to_owned()));
        wait_for_answers(answers.as_mut(), wanted - *held, JobEventType::Accepted);
    } else {
        delete(bed, "second", wanted..*held);
        wait_for_answers(answers.as_mut(), *held - wanted, JobEventType::Deleted);
    }
    *held = wanted;
}
