//! Runs that wait for their time: what they cost in memory, how long a restart takes with them, and how fast they are made
//! ready once they are due at one instant. Invariant: each is seen delayed, and ready once, by a reader of committed records.

use std::time::{Duration, Instant};

use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use serde_json::json;

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::send;
use crate::report::Report;
use crate::served::Served;
use crate::usage::rounded;
use crate::w5::{Requests, Work, wait_for_ready};

/// Until a process has given back what it does not need.
const SETTLE: Duration = Duration::from_secs(12);
const COLUMNS: &[&str] = &[
    "runs",
    "resident_mib",
    "bytes_per_run",
    "after_restart_mib",
    "restored_seconds",
    "ready_per_second",
    "dispatcher_cpu_us_per_run",
];

/// Holds `runs`, which become due `seconds` after the first is asked for.
pub(crate) fn run(bed: &Bed, runs: usize, seconds: u64) {
    let mut report = Report::new("delayed", COLUMNS);
    let calibration = calibrate(bed);
    let dispatcher = Served::start(bed, "dispatcher", "dispatcher");
    let mut delayed = bed.tail(topic::RUN_DELAY);
    let mut made = Requests::new(bed, Work::Handler.target());
    send(bed, made.delayed(1000, Timestamp::from_millis(bed.clock.now().millis() + 1000)));
    let mut ready = bed.reader(&topic::run_ready(&Default::default()));
    wait_for_ready(ready.as_mut(), 1000);
    let base = dispatcher.resident_mib();
    // What waited and went on left two records each.
    wait_for_ready(delayed.as_mut(), 2000);
    let due_at = Timestamp::from_millis(bed.clock.now().millis() + i64::try_from(seconds * 1000).unwrap_or(0));
    send(bed, made.delayed(runs, due_at));
    wait_for_ready(delayed.as_mut(), runs);
    std::thread::sleep(SETTLE);
    let held = dispatcher.resident_mib();
    dispatcher.stop();
    let started = Instant::now();
    let dispatcher = Served::start(bed, "dispatcher", "dispatcher");
    dispatcher.wait_until_held(runs);
    let restored = started.elapsed().as_secs_f64();
    // What was read and is no longer needed goes back now and then.
    std::thread::sleep(SETTLE);
    let after_restart = dispatcher.resident_mib();
    assert!(bed.clock.now() < due_at, "--seconds: too few to hold that many before they are due");
    let left = u64::try_from(due_at.millis() - bed.clock.now().millis()).unwrap_or(0);
    std::thread::sleep(Duration::from_millis(left));
    let before = dispatcher.cpu_seconds();
    let started = Instant::now();
    wait_for_ready(ready.as_mut(), runs);
    let elapsed = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let count = runs as f64;
    let line = json!({
        "runs": runs, "resident_mib": held.round(), "bytes_per_run": ((held - base) * 1_048_576.0 / count).round(),
        "after_restart_mib": after_restart.round(), "restored_seconds": rounded(restored),
        "ready_per_second": (count / elapsed).round(),
        "dispatcher_cpu_us_per_run": rounded((dispatcher.cpu_seconds() - before) * 1e6 / count),
    });
    report.add(bed.name, &calibration, line);
    dispatcher.stop();
    report.finish();
}
