//! W4, create to start: runs asked for at a steady rate, each from the instant it was to be asked for until its handler began.
//! Every service is a process of its own. Invariant: the load is open: who falls behind is measured against the intended
//! instants; every run is waited for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orloj_domain::id::{JobId, RunId};
use orloj_domain::topic;
use orloj_runtime::log::Appender;
use serde_json::json;

use crate::bed::Bed;
use crate::calibrate::calibrate;
use crate::report::Report;
use crate::served::Served;
use crate::start::{Stages, command, decided_at, define, millis, ready_at, since_sent, wait_for_all};
use crate::usage::{percentile, percentiles, rounded};

const COLUMNS: &[&str] = &[
    "rate_per_second",
    "runs",
    "start_ms.p50",
    "start_ms.p99",
    "start_ms.max",
    "stages_p50_ms.decided",
    "stages_p50_ms.ready",
    "stages_p50_ms.claimed",
    "cpu_us_per_run.trigger",
    "cpu_us_per_run.dispatcher",
    "cpu_us_per_run.runner",
    "cpu_us_per_run.broker",
];
/// Programs that ask: one waits for each of its commands to be in the log.
const CLIENTS: usize = 8;
const SLOTS: usize = 500;

/// Asks for `rate` runs a second for `seconds`, `rounds` times.
pub(crate) fn run(bed: &Bed, rate: u64, (seconds, warm_seconds): (u64, u64), rounds: usize) {
    let mut report = Report::new("W4", COLUMNS);
    let calibration = calibrate(bed);
    let services = ["trigger", "dispatcher"].map(|service| Served::start(bed, service, service));
    let runner = Served::noop_runner(bed, SLOTS);
    let jobs = define(bed, r#"{"handler":{"name":"noop"}}"#);
    let mut attempts = bed.reader(topic::ATTEMPT_EVENTS);
    let cpu = || {
        let [trigger, dispatcher] = [&services[0], &services[1]].map(Served::cpu_seconds);
        [trigger, dispatcher, runner.cpu_seconds(), bed.broker_cpu_seconds()]
    };
    // Of all phases: what a client needs for its first append, its connection, is no part of any figure.
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| bed.log.appender().expect("an appender")).collect();
    let mut phase = |name: &str, seconds: u64| -> (BTreeMap<RunId, f64>, Stages) {
        eprintln!("W4 on {}: {name}, {rate} runs/s for {seconds} s", bed.name);
        let sent = send(bed, &mut clients, &jobs, name, (rate, seconds));
        let stages = wait_for_all(&sent, attempts.as_mut());
        (sent, stages)
    };
    phase("warm", warm_seconds);
    for round in 0..rounds {
        let before = cpu();
        let (sent, stages) = phase(&format!("round-{round}"), seconds);
        let after = cpu();
        let (decided, ready) = (decided_at(bed), ready_at(bed));
        let (claimed, started) = (&stages.claimed, &stages.started);
        let p50 = |at: &BTreeMap<RunId, f64>| percentile(&since_sent(&sent, at), 50.0);
        // How long each stage took by itself: sums of medians tell little of where the slow ones were held up.
        let p99 = |from: &BTreeMap<RunId, f64>, to: &BTreeMap<RunId, f64>| percentile(&since_sent(from, to), 99.0);
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let used: Vec<f64> = after
            .iter()
            .zip(before)
            .map(|(after, before)| rounded((after - before) * 1e6 / sent.len() as f64))
            .collect();
        let line = json!({
            "rate_per_second": rate, "runs": sent.len(),
            "start_ms": percentiles(&since_sent(&sent, &stages.started)),
            "stages_p50_ms": {
                "decided": p50(&decided), "ready": p50(&ready), "claimed": p50(claimed), "started": p50(started),
            },
            "each_stage_p99_ms": {
                "decided": p99(&sent, &decided), "ready": p99(&only(&decided, &sent), &ready),
                "claimed": p99(&only(&ready, &sent), claimed), "started": p99(claimed, started),
            },
            "cpu_us_per_run": {"trigger": used[0], "dispatcher": used[1], "runner": used[2], "broker": used[3]},
        });
        report.add(bed.name, &calibration, line);
    }
    runner.stop();
    services.into_iter().for_each(Served::stop);
    report.finish();
}

/// Those of the runs that were asked for in this round.
fn only(at: &BTreeMap<RunId, f64>, sent: &BTreeMap<RunId, f64>) -> BTreeMap<RunId, f64> {
    at.iter().filter(|(run, _)| sent.contains_key(*run)).map(|(run, at)| (*run, *at)).collect()
}

/// Sends at the given rate by absolute instants; answers when each command was to be sent, in ms.
fn send(
    bed: &Bed,
    clients: &mut [Box<dyn Appender>],
    jobs: &[JobId],
    name: &str,
    (rate, seconds): (u64, u64),
) -> BTreeMap<RunId, f64> {
    let (begin, begin_ms) = (Instant::now(), millis(bed.clock.now()));
    let count = usize::try_from(rate * seconds).unwrap_or(0);
    let ask = |client: usize, appender: &mut dyn Appender| {
        let mut sent = Vec::new();
        for index in (client..count).step_by(CLIENTS) {
            #[expect(clippy::cast_precision_loss, reason = "seconds")]
            let after = Duration::from_secs_f64(index as f64 / rate as f64);
            std::thread::sleep((begin + after).saturating_duration_since(Instant::now()));
            let (run, record) = command(bed, &jobs[index % jobs.len()], &format!("{name}-{index}"));
            appender.append(vec![record]).expect("an append");
            sent.push((run, begin_ms + after.as_secs_f64() * 1000.0));
        }
        sent
    };
    std::thread::scope(|scope| {
        let clients = clients.iter_mut().enumerate();
        let clients: Vec<_> =
            clients.map(|(client, appender)| scope.spawn(move || ask(client, &mut **appender))).collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client that lives")).collect()
    })
}
