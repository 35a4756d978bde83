//! Two attempts of one run, with real processes: on the embedded log through a `kill -9` of all, on Kafka through that of one
//! dispatcher after the other. A program ends when the file of its attempt is there, and not before. Not here: every order in
//! which they may end (the dispatcher's own tests).

use std::fs;
use std::net::TcpListener;

use orloj_tests::installation::Installation;
use orloj_tests::process::{PATIENCE, run};
use orloj_tests::wait;
use serde_json::{Value, json};

use crate::dev::{get, start};
use crate::runs::{Dev, is_gone};

/// Says which attempt it is of which process, and waits for the file of that attempt.
pub(crate) const SCRIPT: &str =
    "echo NAME $ORLOJ_ATTEMPT $$ >> LEDGER; while ! test -e LEDGER.NAME-$ORLOJ_ATTEMPT; do sleep 0.05; done";

fn job(name: &'static str, attempts: u32) -> (&'static str, String) {
    let script = SCRIPT.replace("NAME", name);
    let spec = format!(
        "{{overlap: {{policy: allow}}, retry: {{maxAttempts: {attempts}, backoff: {{initial: 100ms}}}}, hedge: {{after: 500ms}}, \
         run: {{shell: {{script: '{script}'}}}}}}"
    );
    (name, spec)
}

/// The attempts of a job's run that have begun, as their numbers and processes.
fn begun(ledger: &str, name: &str) -> Vec<(String, String)> {
    let text = fs::read_to_string(ledger).unwrap_or_default();
    let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let own = lines.filter(|line| line.len() == 3 && line[0] == name);
    own.map(|line| (line[1].to_owned(), line[2].to_owned())).collect()
}

pub(crate) fn wait_begun(ledger: &str, name: &str, count: usize) -> Vec<String> {
    let begun = wait::until(&format!("{count} attempts of {name}"), PATIENCE, || {
        Some(begun(ledger, name)).filter(|begun| begun.len() >= count)
    });
    let numbers: Vec<_> = begun.iter().map(|(attempt, _)| attempt.clone()).collect();
    assert_eq!(numbers, (1..=count).map(|number| number.to_string()).collect::<Vec<_>>(), "of {name}");
    begun.into_iter().map(|(_, process)| process).collect()
}

pub(crate) fn let_end(ledger: &str, name: &str, attempt: u32) {
    fs::write(format!("{ledger}.{name}-{attempt}"), "").expect("a file");
}

pub(crate) fn wait_gone(process: &str) {
    wait::until(&format!("the end of process {process}"), PATIENCE, || is_gone(process).then_some(()));
}

pub(crate) fn of_attempts(run: &Value, path: &str) -> Vec<Value> {
    let attempts = run["attempts"].as_array().expect("attempts");
    attempts.iter().map(|attempt| attempt.pointer(path).cloned().unwrap_or_default()).collect()
}

/// The second attempt was first, and the other one was stopped for that.
fn check_second_was_first(run: &Value) {
    assert_eq!(run["attempt"], 2, "{run}");
    assert_eq!(of_attempts(run, "/attempt"), [json!(1), json!(2)], "{run}");
    assert_eq!(of_attempts(run, "/hedge"), [json!(false), json!(true)], "{run}");
    assert_eq!(of_attempts(run, "/outcome/kind"), [json!("cancelled"), json!("succeeded")], "{run}");
    let why = run["attempts"][0]["outcome"]["message"].as_str().unwrap_or_default();
    assert!(why.contains("another attempt of the run was first"), "{run}");
}

#[test]
fn the_first_of_two_attempts_that_succeeds_ends_the_run_and_the_other_process() {
    let jobs = [job("late", 2), job("early", 2), job("never", 2)];
    let jobs: Vec<_> = jobs.iter().map(|(name, spec)| (*name, spec.as_str())).collect();
    let dev = Dev::with_started(&jobs, |data| start(data, &[]));
    let ledger = dev.ledger().display().to_string();
    let [late, early, never] = ["late", "early", "never"].map(|job| dev.trigger(job, &[]));

    let processes = wait_begun(&ledger, "late", 2);
    assert!(!is_gone(&processes[0]), "nobody has stopped the first");
    let_end(&ledger, "late", 2);
    check_second_was_first(&dev.wait_state(&late, "succeeded"));
    processes.iter().for_each(|process| wait_gone(process));
    let said = dev.done(&["describe", "run", &late]);
    assert!(said.contains("HEDGE") && said.contains("yes"), "{said}");

    let processes = wait_begun(&ledger, "early", 2);
    let_end(&ledger, "early", 1);
    let ended = dev.wait_state(&early, "succeeded");
    assert_eq!(ended["attempt"], 1, "{ended}");
    assert_eq!(of_attempts(&ended, "/outcome/kind"), [json!("succeeded"), json!("cancelled")], "{ended}");
    processes.iter().for_each(|process| wait_gone(process));

    let processes = wait_begun(&ledger, "never", 2);
    let running = dev.run(&never);
    assert_eq!((&running["state"], of_attempts(&running, "/finishedAt")), (&json!("running"), vec![Value::Null; 2]));
    dev.done(&["cancel", &never, "--wait"]);
    assert!(processes.iter().all(|process| is_gone(process)), "{processes:?}");
    let ended = dev.wait_state(&never, "cancelled");
    assert_eq!(of_attempts(&ended, "/outcome/kind"), [json!("cancelled"), json!("cancelled")], "{ended}");
    for (name, count) in [("late", 2), ("early", 2), ("never", 2)] {
        assert_eq!(begun(&ledger, name).len(), count, "of {name}");
    }
    dev.end();
}

#[test]
fn a_hedge_beside_what_it_would_break_is_refused_with_the_way_out() {
    let dev = Dev::with_started(&[], |data| start(data, &[]));
    let file = dev.folder.path().join("bad.yaml");
    let manifest = "apiVersion: orloj/v1\nkind: Job\nmetadata: {name: bad}\nspec: {hedge: {after: 30s}, run: {exec: {command: [x]}}}\n";
    fs::write(&file, manifest).expect("a file");
    let (code, said) = dev.cli(&["apply", "-f", &file.display().to_string()]);
    assert_eq!(code, Some(2), "{said}");
    for part in ["spec.overlap.policy", "`overlap: {policy: allow}`", "spec.retry.maxAttempts", "must be 2 or more"] {
        assert!(said.contains(part), "no {part} in: {said}");
    }
    dev.end();
}

#[test]
fn both_attempts_are_lost_with_their_runner_and_a_third_goes_on() {
    let lease = ["--set", "runner.lease=3s"];
    let (name, spec) = job("lost", 4);
    let dev = Dev::with_started(&[(name, &spec)], |data| start(data, &lease));
    let ledger = dev.ledger().display().to_string();
    let id = dev.trigger("lost", &[]);
    let processes = wait_begun(&ledger, "lost", 2);
    let Dev { orloj, folder, .. } = dev;
    orloj.kill();
    processes.iter().for_each(|process| wait_gone(process));
    (3..=4).for_each(|attempt| let_end(&ledger, "lost", attempt));
    let data = folder.path().join("data").display().to_string();
    let (orloj, url) = start(&data, &lease);
    let dev = Dev { orloj, url, folder };
    let ended = dev.wait_state(&id, "succeeded");
    let kinds = of_attempts(&ended, "/outcome/kind");
    assert_eq!(kinds[..3], [json!("leaseLost"), json!("leaseLost"), json!("succeeded")], "{ended}");
    dev.end();
}

#[test]
fn dispatchers_that_are_killed_on_a_broker_leave_both_attempts_to_the_next() {
    let Some(installation) = Installation::new("hedge") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().join("ledger").display().to_string();
    let data = |of: &str| format!("data.dir={}", folder.path().join(of).display());
    // `serve` does not say where it listens: a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let server = format!("http://{free}");
    let _trigger = installation.serve("trigger", &[]);
    let _runner = installation.serve("runner", &["--set", &data("runner")]);
    let _query = installation.serve("query", &["--listen", &free.to_string(), "--set", &data("query")]);
    let dispatcher = installation.serve("dispatcher", &[]);
    let script = SCRIPT.replace("NAME", "slow").replace("LEDGER", &ledger);
    let job = installation.offer(
        "slow",
        &format!(
            r#""overlap":{{"policy":"allow"}},"retry":{{"maxAttempts":2}},"hedge":{{"after":"2s"}},"run":{{"shell":{{"script":"{script}"}}}}"#
        ),
    );
    installation.wait_accepted(&job);
    let id = installation.run_now(&job, "first").to_string();
    wait_begun(&ledger, "slow", 1);
    // Before or after it has put the second one beside it: the next one knows.
    dispatcher.kill();
    let dispatcher = installation.serve("dispatcher", &[]);
    let processes = wait_begun(&ledger, "slow", 2);
    dispatcher.kill();
    let_end(&ledger, "slow", 2);
    let _dispatcher = installation.serve("dispatcher", &[]);
    let url = format!("{server}/api/v1/runs/{id}");
    let ended = wait::until("the run succeeds", PATIENCE, || Some(get(&url)).filter(|run| run["state"] == "succeeded"));
    check_second_was_first(&ended);
    processes.iter().for_each(|process| wait_gone(process));
    assert_eq!(begun(&ledger, "slow").len(), 2, "no other attempt began");
    let said = run(&["describe", "run", &id, "--server", &server]);
    assert!(String::from_utf8_lossy(&said.stdout).contains("HEDGE"), "{said:?}");
}
