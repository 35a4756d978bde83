//! The four services on a real broker: two triggers killed and frozen in turn, a dispatcher and a runner killed
//! mid-run. Read back from the topics with a plain reader.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use orloj_domain::id::RunId;
use orloj_domain::run::RunEvent;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::codec;
use orloj_runtime::log::Log as _;
use orloj_tests::fires::{Seen, reader};
use orloj_tests::installation::Installation;
use orloj_tests::process::{Orloj, PATIENCE, run};
use orloj_tests::wait;

/// Reads on until an instant of the monotonic clock.
fn read_until(seen: &mut Seen, fires: &mut dyn orloj_runtime::log::Reader, clock: &dyn Clock, until: Duration) {
    while clock.monotonic() < until {
        seen.read(fires);
    }
}

#[test]
fn two_triggers_decide_every_second_once_while_each_is_killed_and_frozen() {
    const JOBS: usize = 100;
    let Some(installation) = Installation::new("triggers") else { return };
    let mut first = installation.serve("trigger", &[]);
    let mut second = installation.serve("trigger", &[]);
    let spec = r#""schedule":{"every":"1s"},"run":{"exec":{"command":["/bin/true"]}}"#;
    for index in 0..JOBS {
        installation.offer(&format!("tick-{index}"), spec);
    }
    let mut fires = reader(&installation.log, topic::FIRES);
    let mut seen = Seen::default();
    seen.wait_for_all(fires.as_mut(), JOBS, "at the start");
    let clock = SystemClock::new();
    // Five minutes of kills and freezes of 20 s, or two rounds of the shortest that tell.
    let (rounds_min, time_min, freeze) = if orloj_tests::is_long() { (2, 300, 20) } else { (2, 0, 0) };
    let mut round = 0;
    while round < rounds_min || clock.monotonic() < Duration::from_secs(time_min) {
        first.kill();
        seen.wait_for_all(fires.as_mut(), JOBS, &format!("round {round}: after a kill -9"));
        first = installation.serve("trigger", &[]);
        second.signal(Signal::SIGSTOP);
        let frozen_until = clock.monotonic() + Duration::from_secs(freeze);
        // All jobs decided again means that the session of the frozen one has passed.
        seen.wait_for_all(fires.as_mut(), JOBS, &format!("round {round}: with one frozen"));
        read_until(&mut seen, fires.as_mut(), &clock, frozen_until);
        second.signal(Signal::SIGCONT);
        seen.wait_for_all(fires.as_mut(), JOBS, &format!("round {round}: after the thaw"));
        std::mem::swap(&mut first, &mut second);
        round += 1;
    }
    assert!(first.stop().success());
    seen.wait_for_all(fires.as_mut(), JOBS, "after a graceful leave");
    assert!(second.stop().success());
    seen.read(fires.as_mut());
    assert!(seen.count() > JOBS * 10, "only {} decisions", seen.count());
    assert_eq!(seen.findings(), Vec::<String>::new());
    eprintln!("{} decisions in {round} rounds, {:?}: none twice, none missing", seen.count(), clock.monotonic());
}

#[test]
fn every_run_ends_once_although_dispatcher_and_runner_are_killed() {
    const RUNS: usize = 12;
    let Some(installation) = Installation::new("runs") else { return };
    let lease = ["--set", "runner.lease=3s"];
    let _trigger = installation.serve("trigger", &[]);
    let dispatcher = installation.serve("dispatcher", &lease);
    let folder = tempfile::tempdir().expect("a folder");
    let data = format!("data.dir={}", folder.path().display());
    let runner_arguments = ["--set", "runner.lease=3s", "--set", "runner.slots=20", "--set", data.as_str()];
    let runner = installation.serve("runner", &runner_arguments);
    let job = installation.offer(
        "sleeper",
        r#""overlap":{"policy":"allow"},"retry":{"maxAttempts":5,"backoff":{"initial":"100ms"}},
           "run":{"exec":{"command":["/bin/sleep","2"]}}"#,
    );
    installation.wait_accepted(&job);
    let runs: Vec<RunId> = (0..RUNS).map(|index| installation.run_now(&job, &format!("run-{index}"))).collect();
    let mut events = reader(&installation.log, topic::RUN_EVENTS);
    let mut states: BTreeMap<RunId, Vec<RunEvent>> = BTreeMap::new();
    let mut follow = |states: &mut BTreeMap<RunId, Vec<RunEvent>>| {
        for record in events.poll(1000, Duration::from_millis(100)).expect("a readable log") {
            let Some(value) = record.value else { continue };
            let event: RunEvent = codec::decode(&value).expect("an event");
            states.entry(event.run_id).or_default().push(event);
        }
    };
    let has = |states: &BTreeMap<RunId, Vec<RunEvent>>, state: &str| {
        states.values().flatten().any(|event| event.state.as_str() == state)
    };
    wait::until("a running run", PATIENCE, || {
        follow(&mut states);
        has(&states, "running").then_some(())
    });
    dispatcher.kill();
    runner.kill();
    let _dispatcher = installation.serve("dispatcher", &lease);
    let _runner = installation.serve("runner", &runner_arguments);
    let all_ended = wait::within(PATIENCE, || {
        follow(&mut states);
        let ended = states.values().filter(|events| events.iter().any(|event| event.state.is_terminal()));
        (ended.count() == RUNS).then_some(())
    });
    assert!(all_ended.is_some(), "not every run ended: {}", summary(&states));
    for run in runs {
        let events = &states[&run];
        let ends: Vec<_> = events.iter().filter(|event| event.state.is_terminal()).collect();
        assert_eq!(ends.len(), 1, "{run}: {events:?}");
        assert_eq!(ends[0].state.as_str(), "succeeded", "{events:?}");
    }
    let lost = states.values().flatten().filter(|event| event.state.as_str() == "retrying").count();
    assert!(lost > 0, "no attempt was lost with the runner: the test tested nothing");
}

/// What each run went through, for a failure's message.
fn summary(states: &BTreeMap<RunId, Vec<RunEvent>>) -> String {
    let line = |(run, events): (&RunId, &Vec<RunEvent>)| {
        let steps = events.iter().map(|event| format!("{}#{}@{}", event.state, event.attempt, event.at));
        format!("\n{run}: {}", steps.collect::<Vec<_>>().join(" "))
    };
    states.iter().map(line).collect()
}

#[test]
fn a_queue_that_nobody_serves_holds_up_no_other() {
    let Some(installation) = Installation::new("queues") else { return };
    let _trigger = installation.serve("trigger", &[]);
    let _dispatcher = installation.serve("dispatcher", &[]);
    let folder = tempfile::tempdir().expect("a folder");
    let data = format!("data.dir={}", folder.path().display());
    let _runner = installation.serve("runner", &["--set", &data]);
    let spec = |queue: &str| format!(r#""queue":"{queue}","run":{{"exec":{{"command":["/bin/true"]}}}}"#);
    let other = installation.offer("other", &spec("gpu"));
    let usual = installation.offer("usual", &spec("default"));
    installation.wait_accepted(&other);
    installation.wait_accepted(&usual);
    let waiting = installation.run_now(&other, "first");
    let running = installation.run_now(&usual, "second");
    let mut events = reader(&installation.log, topic::RUN_EVENTS);
    let mut states: BTreeMap<RunId, String> = BTreeMap::new();
    wait::until("the other run's end", PATIENCE, || {
        for record in events.poll(1000, Duration::from_millis(100)).expect("a readable log") {
            let event: RunEvent = codec::decode(&record.value?).expect("an event");
            states.insert(event.run_id, event.state.as_str().to_owned());
        }
        states.get(&running).is_some_and(|state| state == "succeeded").then_some(())
    });
    let queue = topic::run_ready(&"gpu".parse().expect("a queue"));
    let is_there = || installation.log.topics().is_ok_and(|topics| topics.iter().any(|spec| spec.name == queue));
    wait::until("the queue's topic", PATIENCE, || is_there().then_some(()));
    let mut ready = reader(&installation.log, &queue);
    wait::until("the run on its queue", PATIENCE, || {
        let records = ready.poll(1000, Duration::from_millis(100)).expect("a readable log");
        let key = waiting.to_string();
        records.iter().any(|record| record.key_text() == Some(key.as_str())).then_some(())
    });
    assert!(!states.contains_key(&waiting), "{states:?}");
}

#[test]
fn what_is_wrong_with_the_cluster_is_said_by_name() {
    let Some(installation) = Installation::new("wrong") else { return };
    let bootstrap = format!("kafka.bootstrap.servers={}", installation.bootstrap);
    let output = run(&["serve", "trigger", "--set", &bootstrap, "--set", "topics.prefix=wrong.", "--set", "shards=4"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("shards"), "{said}");
    let output = run(&["serve", "trigger", "--set", &bootstrap, "--set", "topics.prefix=none."]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.contains("none.jobs") && said.contains("orloj topics apply"), "{said}");
    // A topic that is made a moment later, or that the broker asked had not heard of, ends nobody.
    let late = ["--set", &bootstrap, "--set", "topics.prefix=late."];
    let mut early = Orloj::start(&[&["serve", "trigger"][..], &late].concat());
    early.wait_for("late.jobs");
    let made = run(&[&["topics", "apply"][..], &late].concat());
    assert!(made.status.success(), "{made:?}");
    early.wait_for("phase=\"restore\"");
    assert!(early.stop().success());
    let mut away =
        Orloj::start(&["serve", "all", "--listen", "127.0.0.1:0", "--set", "kafka.bootstrap.servers=127.0.0.1:1"]);
    away.wait_for("127.0.0.1:1");
    away.wait_for("kafka.bootstrap.servers");
    assert!(away.stop().success());
    let _ = Arc::new(installation);
}
