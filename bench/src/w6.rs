//! W6, accepting: bulk definitions as messages, from the first one sent until the last answer could be read.
//! Invariant: every definition is answered, by a reader of committed records.

use std::time::Instant;

use orloj_domain::job_event::JobEventType;
use orloj_domain::topic;
use serde_json::json;

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::{offer, offers, send, wait_for_answers, yearly};
use crate::report::Report;
use crate::served::Served;
use crate::usage::rounded;

/// Definitions before the first that count: as many as the broker takes to compile what it runs.
const WARM: usize = 200_000;
const COLUMNS: &[&str] = &[
    "jobs",
    "accepted_per_second",
    "sent_seconds",
    "trigger_cpu_us_per_definition",
    "broker_cpu_us_per_definition",
    "trigger_resident_mib",
    "trigger_peak_mib",
];

/// Offers `jobs` new definitions, `runs` times.
pub(crate) fn run(bed: &Bed, jobs: usize, runs: usize) {
    let mut report = Report::new("W6", COLUMNS);
    let calibration = calibrate(bed);
    let trigger = Served::trigger(bed, "trigger");
    let mut answers = bed.reader(topic::JOB_EVENTS);
    offer(bed, "warm", 0..WARM, yearly);
    wait_for_answers(answers.as_mut(), WARM, JobEventType::Accepted);
    for index in 0..runs {
        // Whoever offers them has them: making them up is not what is measured.
        let records: Vec<_> = offers(bed, &format!("run{index}"), 0..jobs, yearly).collect();
        let before = (trigger.cpu_seconds(), bed.broker_cpu_seconds());
        let started = Instant::now();
        let sent = std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                send(bed, records);
                started.elapsed()
            });
            let last = wait_for_answers(answers.as_mut(), jobs, JobEventType::Accepted);
            (sender.join().expect("a sender that lives"), last)
        });
        let (sent, last) = sent;
        let elapsed = last.duration_since(started).as_secs_f64();
        let after = (trigger.cpu_seconds(), bed.broker_cpu_seconds());
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let count = jobs as f64;
        let line = json!({
            "jobs": jobs, "accepted_per_second": (count / elapsed).round(), "sent_seconds": rounded(sent.as_secs_f64()),
            "trigger_cpu_us_per_definition": rounded((after.0 - before.0) * 1e6 / count),
            "broker_cpu_us_per_definition": rounded((after.1 - before.1) * 1e6 / count),
            "trigger_resident_mib": trigger.resident_mib().round(),
            "trigger_peak_mib": trigger.high_water_mib().round(),
        });
        report.add(bed.name, &calibration, line);
    }
    trigger.stop();
    report.finish();
}
