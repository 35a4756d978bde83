//! Jobs that ask for a runner by its labels: on the embedded log through a `kill -9` of all and a restart with other labels, on
//! Kafka with two runners of different labels, through the kill of the one that fits and of the dispatcher. Not here: who is chosen
//! among several.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType};
use orloj_domain::id::RunId;
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_tests::fires::reader;
use orloj_tests::installation::Installation;
use orloj_tests::process::{Orloj, PATIENCE};
use orloj_tests::wait;

use crate::dev::{get, start};
use crate::runs::Dev;

fn spec(zone: &str) -> String {
    format!(
        "{{runnerSelector: {{matchLabels: {{zone: {zone}}}}}, overlap: {{policy: allow}},
           run: {{shell: {{script: \"echo {zone} $ORLOJ_FENCING_TOKEN >> LEDGER\"}}}}}}"
    )
}

#[test]
fn a_run_waits_for_its_runner_through_a_kill_and_says_which_one_is_missing() {
    let in_zone = |zone: &str| ["--set".to_owned(), format!("runner.labels=zone={zone},disk=ssd")];
    let start_in = |data: &str, zone: &str| {
        let more = in_zone(zone);
        start(data, &[&more[0], &more[1], "--set", "runner.lease=2s"])
    };
    let (eu, us) = (spec("eu"), spec("us"));
    let mut dev = Dev::with_started(&[("eu", &eu), ("us", &us)], |data| start_in(data, "eu"));
    let here = dev.trigger("eu", &[]);
    assert_eq!(dev.wait_state(&here, "succeeded")["attempts"].as_array().map(Vec::len), Some(1));
    let away = dev.trigger("us", &[]);
    // A run is shown as waiting before the dispatcher has said anything about it, too.
    wait::until("a run that says for whom it waits", PATIENCE, || {
        let run = dev.run(&away);
        (run["state"] == "waiting" && run["note"].as_str()?.contains("with zone=us")).then_some(())
    });
    let queues = || get(&format!("{}/api/v1/queues", dev.url));
    wait::until("what is missing", PATIENCE, || {
        (queues()["items"][0]["missingRunners"] == serde_json::json!(["zone=us"])).then_some(())
    });
    let said = dev.done(&["get", "queues"]);
    assert!(said.contains("MISSING RUNNERS") && said.contains("zone=us"), "{said}");
    assert!(dev.done(&["describe", "queue", "default"]).contains("a runner with the labels zone=us"));
    assert_eq!(dev.written(), ["eu 1"]);

    // Killed, and started again on the same log as a runner that fits.
    let data = dev.folder.path().join("data").display().to_string();
    let (orloj, url) = {
        let before = std::mem::replace(&mut dev.orloj, Orloj::start(&["version"]));
        before.kill();
        start_in(&data, "us")
    };
    (dev.orloj, dev.url) = (orloj, url);
    dev.wait_state(&away, "succeeded");
    assert_eq!(dev.written(), ["eu 1", "us 1"]);
    dev.end();
}

#[test]
fn only_the_runner_with_the_labels_executes_although_it_and_the_dispatcher_are_killed() {
    const RUNS: usize = 8;
    let Some(installation) = Installation::new("selectors") else { return };
    let lease = ["--set", "runner.lease=3s"];
    let _trigger = installation.serve("trigger", &[]);
    let dispatcher = installation.serve("dispatcher", &lease);
    let folder = tempfile::tempdir().expect("a folder");
    let serve = |zone: &str, id: &str| {
        let data = format!("data.dir={}", folder.path().join(id).display());
        let (labels, id) = (format!("runner.labels=zone={zone}"), format!("runner.id={id}"));
        let own = ["--set", &data, "--set", &labels, "--set", &id, "--set", "runner.slots=4"];
        installation.serve("runner", &[&lease[..], &own].concat())
    };
    let (fits, _other) = (serve("eu", "fits"), serve("us", "other"));
    let job = installation.offer(
        "here",
        r#""overlap":{"policy":"allow"},"retry":{"maxAttempts":9,"backoff":{"initial":"100ms"}},
           "runnerSelector":{"matchLabels":{"zone":"eu"}},"run":{"exec":{"command":["/bin/sleep","2"]}}"#,
    );
    installation.wait_accepted(&job);
    let runs: Vec<RunId> = (0..RUNS).map(|index| installation.run_now(&job, &format!("run-{index}"))).collect();
    let mut events = reader(&installation.log, topic::RUN_EVENTS);
    let mut ends: BTreeMap<RunId, Vec<RunState>> = BTreeMap::new();
    let mut met: BTreeSet<RunState> = BTreeSet::new();
    let mut follow = |ends: &mut BTreeMap<RunId, Vec<RunState>>, met: &mut BTreeSet<RunState>| {
        for record in events.poll(1000, Duration::from_millis(100)).expect("a readable log") {
            // Marks of owners are among them.
            let Ok(event) = codec::decode::<RunEvent>(record.value.as_deref().unwrap_or_default()) else { continue };
            met.insert(event.state);
            if event.state.is_terminal() {
                ends.entry(event.run_id).or_default().push(event.state);
            }
        }
    };
    wait::until("a running run", PATIENCE, || {
        follow(&mut ends, &mut met);
        met.contains(&RunState::Running).then_some(())
    });
    fits.kill();
    dispatcher.kill();
    let _dispatcher = installation.serve("dispatcher", &lease);
    met.clear();
    wait::until("an attempt that was lost with its runner", PATIENCE, || {
        follow(&mut ends, &mut met);
        met.contains(&RunState::Retrying).then_some(())
    });
    let _next = serve("eu", "next");
    wait::until("the end of all runs", PATIENCE, || {
        follow(&mut ends, &mut met);
        (ends.len() == RUNS).then_some(())
    });
    for run in &runs {
        assert_eq!(ends[run], [RunState::Succeeded], "{run}");
    }
    let mut reports = reader(&installation.log, topic::ATTEMPT_EVENTS);
    let mut by_runner: BTreeMap<String, usize> = BTreeMap::new();
    wait::until("all claims", PATIENCE, || {
        for record in reports.poll(1000, Duration::from_millis(100)).expect("a readable log") {
            let Ok(report) = codec::decode::<AttemptEvent>(record.value.as_deref().unwrap_or_default()) else {
                continue;
            };
            if report.kind == AttemptEventType::Claimed {
                *by_runner.entry(report.runner.to_string()).or_default() += 1;
            }
        }
        (by_runner.values().sum::<usize>() >= RUNS).then_some(())
    });
    let runners: Vec<&str> = by_runner.keys().map(String::as_str).collect();
    assert_eq!(runners, ["fits", "next"], "{by_runner:?}");
}
