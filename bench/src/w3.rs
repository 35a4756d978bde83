//! W3, lateness under spread load with many jobs held: some are due each millisecond, most are far away. Invariant:
//! the load is open: fire times are `anchor + k × period`, whatever the trigger does.

use orloj_domain::job::{EveryRule, ScheduleRule};
use orloj_domain::job_event::JobEventType;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::{offer, wait_for_answers, yearly};
use crate::report::Report;
use crate::served::Served;
use crate::steady::measure;

const COLUMNS: &[&str] = &[
    "held",
    "due_per_second",
    "seconds",
    "verdict.valid",
    "verdict.lateness_ms.p50",
    "verdict.lateness_ms.p99",
    "verdict.lateness_ms.max",
    "transactions_per_second",
    "trigger_cpu_ms_per_transaction",
    "trigger_cores",
    "broker_cores",
    "trigger_peak_mib",
];
/// Period of the jobs that are due.
const PERIOD_SECONDS: usize = 10;
/// Load before the first stretch.
const WARM_SECONDS: u64 = 60;

/// Holds `held` jobs, `rate` of which are due each second, and measures `runs` stretches.
pub(crate) fn run(bed: &Bed, held: usize, rate: usize, seconds: u64, runs: usize) {
    let mut report = Report::new("W3", COLUMNS);
    let calibration = calibrate(bed);
    let trigger = Served::trigger(bed, "trigger");
    let mut answers = bed.reader(topic::JOB_EVENTS);
    let far = held.saturating_sub(rate * PERIOD_SECONDS);
    offer(bed, "far", 0..far, yearly);
    offer(bed, "near", 0..rate * PERIOD_SECONDS, |index| every(bed, index, rate));
    wait_for_answers(answers.as_mut(), far + rate * PERIOD_SECONDS, JobEventType::Accepted);
    eprintln!("W3 on {}: {held} jobs held, warming up for {WARM_SECONDS} s", bed.name);
    std::thread::sleep(std::time::Duration::from_secs(WARM_SECONDS));
    for _ in 0..runs {
        let mut line = measure(bed, &trigger, "near", (rate, seconds), |_| true).line;
        line["held"] = held.into();
        report.add(bed.name, &calibration, line);
    }
    trigger.stop();
    report.finish();
}

/// Every ten seconds, each job a little later than the one before.
fn every(bed: &Bed, index: usize, rate: usize) -> ScheduleRule {
    let second = bed.clock.now().millis() / 10_000 * 10_000;
    let offset = i64::try_from(index * 1000 / rate).unwrap_or(0);
    let period_ms = i64::try_from(PERIOD_SECONDS * 1000).unwrap_or(0);
    let anchor = Timestamp::from_millis(second - period_ms + offset);
    ScheduleRule::EveryRule(EveryRule { period_ms, anchor, exclude: Vec::new(), only: Vec::new() })
}
