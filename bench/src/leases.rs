//! What attempts cost that are held and do nothing. Every service is a process of its own. Invariant: what is measured begins
//! after the last of them was claimed and seen, and they are all held to its end.

use std::time::{Duration, Instant};

use orloj_domain::job::{HandlerTarget, Target};
use orloj_domain::topic;
use serde_json::json;

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::definitions::send;
use crate::report::Report;
use crate::served::Served;
use crate::usage::rounded;
use crate::w5::Requests;

const COLUMNS: &[&str] =
    &["leases", "seconds", "valid", "core_percent.dispatcher", "core_percent.runner", "core_percent.broker"];
const PATIENCE: Duration = Duration::from_secs(300);
/// Until what the claims have left to do is done.
const SETTLE: Duration = Duration::from_secs(10);

/// Holds nothing, and then `count` attempts, for `seconds` each.
pub(crate) fn run(bed: &Bed, count: usize, seconds: u64) {
    let mut report = Report::new("leases", COLUMNS);
    let calibration = calibrate(bed);
    let dispatcher = Served::start(bed, "dispatcher", "dispatcher");
    let runner = Served::noop_runner(bed, count);
    runner.wait_until_said("the runner is up");
    let target = Target::HandlerTarget(HandlerTarget { name: "hold".to_owned(), payload: "null".to_owned() });
    let mut made = Requests::new(bed, target);
    for leases in [0, count] {
        let mut attempts = bed.tail(topic::ATTEMPT_EVENTS);
        send(bed, made.next(leases));
        let deadline = Instant::now() + PATIENCE;
        let mut heard = 0;
        // A claim and a start of each.
        while heard < 2 * leases {
            assert!(Instant::now() < deadline, "only {heard} reports of {leases} attempts");
            heard += attempts.poll(10_000, Duration::from_millis(100)).expect("a readable log").len();
        }
        drop(attempts);
        std::thread::sleep(SETTLE);
        eprintln!("leases on {}: {leases} for {seconds} s", bed.name);
        let cpu = || [dispatcher.cpu_seconds(), runner.cpu_seconds(), bed.broker_cpu_seconds()];
        let before = cpu();
        std::thread::sleep(Duration::from_secs(seconds));
        let after = cpu();
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        let shares: Vec<f64> = after
            .iter()
            .zip(before)
            .map(|(after, before)| rounded((after - before) * 100.0 / seconds as f64))
            .collect();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let is_valid = dispatcher.metric("orloj_dispatcher_live_runs") == leases as f64;
        let line = json!({
            "leases": leases, "seconds": seconds, "valid": is_valid,
            "core_percent": {"dispatcher": shares[0], "runner": shares[1], "broker": shares[2]},
        });
        report.add(bed.name, &calibration, line);
    }
    // Its handlers never end: it would wait for them.
    drop(runner);
    dispatcher.stop();
    report.finish();
}
