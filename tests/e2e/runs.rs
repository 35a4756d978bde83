//! What people do with runs, on `orloj dev` with real processes: cancel, let wait, replace, send back, bound by a deadline.

use std::fs;
use std::path::Path;

use orloj_tests::process::{Orloj, PATIENCE, run};
use orloj_tests::wait;
use serde_json::Value;

use crate::dev::{get, start};

/// An `orloj dev` with these jobs in namespace `test`, given as `name: spec`.
pub(crate) struct Dev {
    pub(crate) orloj: Orloj,
    pub(crate) url: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Dev {
    fn with(jobs: &[(&str, &str)]) -> Self {
        Self::with_started(jobs, |data| start(data, &[]))
    }

    /// The same, with a process that `start` starts on a directory; it answers where its API is too.
    pub(crate) fn with_started(jobs: &[(&str, &str)], start: impl FnOnce(&str) -> (Orloj, String)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data").display().to_string();
        let (orloj, url) = start(&data);
        let dev = Self { orloj, url, folder };
        let ledger = dev.ledger().display().to_string();
        let manifest: String = jobs
            .iter()
            .map(|(name, spec)| {
                let spec = spec.replace("LEDGER", &ledger);
                format!(
                    "---\napiVersion: orloj/v1\nkind: Job\nmetadata: {{namespace: test, name: {name}}}\nspec: {spec}\n"
                )
            })
            .collect();
        let file = dev.folder.path().join("jobs.yaml");
        fs::write(&file, &manifest).expect("a file");
        if manifest.is_empty() {
            return dev;
        }
        dev.done(&["apply", "-f", &file.display().to_string()]);
        dev
    }

    /// Where jobs write what they did.
    pub(crate) fn ledger(&self) -> std::path::PathBuf {
        self.folder.path().join("ledger")
    }

    pub(crate) fn written(&self) -> Vec<String> {
        fs::read_to_string(self.ledger()).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Exit code and all that was said.
    pub(crate) fn cli(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = run(&[arguments, &["--server", &self.url]].concat());
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), said.concat())
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let (code, said) = self.cli(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    }

    /// Asks for a run of a job, and answers its id.
    pub(crate) fn trigger(&self, job: &str, more: &[&str]) -> String {
        let (_, said) = self.cli(&[&["trigger", &format!("test/{job}"), "-o", "json"], more].concat());
        let answer: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        answer["runId"].as_str().or(answer["id"].as_str()).expect("a run id").to_owned()
    }

    pub(crate) fn run(&self, id: &str) -> Value {
        get(&format!("{}/api/v1/runs/{id}", self.url))
    }

    pub(crate) fn wait_state(&self, id: &str, state: &str) -> Value {
        wait::until(&format!("run {id} {state}"), PATIENCE, || Some(self.run(id)).filter(|run| run["state"] == state))
    }

    pub(crate) fn end(self) {
        assert!(self.orloj.stop().success());
    }
}

/// A zombie that nobody has reaped yet has ended too.
pub(crate) fn is_gone(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid).join("stat")).unwrap_or_default();
    stat.is_empty() || stat.contains(") Z ")
}

#[test]
fn a_run_is_cancelled_with_all_its_processes_and_the_next_goes_ahead() {
    let script = "'(setsid sleep 1000 & echo $! >> LEDGER; sleep 1001)'";
    let dev = Dev::with(&[("long", &format!("{{overlap: {{policy: forbid}}, run: {{shell: {{script: {script}}}}}}}"))]);
    let first = dev.trigger("long", &[]);
    let pid = wait::until("a process", PATIENCE, || dev.written().first().cloned());
    let refused = dev.trigger("long", &[]);
    assert_eq!(dev.wait_state(&refused, "cancelled")["outcome"]["kind"], "overlap");
    let said = dev.done(&["cancel", &first, "--reason", "wrong month", "--wait"]);
    assert!(said.contains("cancelled") && said.contains("wrong month"), "{said}");
    assert!(is_gone(&pid), "{pid} is left");
    let (code, said) = dev.cli(&["cancel", &first]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("has ended already"), "{said}");
    let (code, said) = dev.cli(&["cancel", "00000000-0000-8000-8000-000000000000"]);
    assert_eq!(code, Some(3), "{said}");
    let second = dev.trigger("long", &[]);
    dev.wait_state(&second, "running");
    dev.done(&["cancel", &second, "--wait"]);
    dev.end();
}

#[test]
fn runs_that_wait_go_one_after_the_other() {
    let script = "'echo start >> LEDGER; sleep 0.2; echo end >> LEDGER'";
    let dev = Dev::with(&[
        ("queue", &format!("{{overlap: {{policy: queue, max: 3}}, run: {{shell: {{script: {script}}}}}}}")),
        ("lanes", "{overlap: {policy: allow}, concurrency: 2, run: {shell: {script: 'sleep 1000'}}}"),
    ]);
    let runs: Vec<String> = (0..4).map(|_| dev.trigger("queue", &[])).collect();
    for run in &runs {
        dev.wait_state(run, "succeeded");
    }
    assert_eq!(dev.written(), ["start", "end"].repeat(4));

    let lanes: Vec<String> = (0..3).map(|_| dev.trigger("lanes", &[])).collect();
    dev.wait_state(&lanes[0], "running");
    dev.wait_state(&lanes[1], "running");
    // A run that the dispatcher has not taken up yet waits as well, and says nothing.
    let why = wait::until("a reason", PATIENCE, || dev.run(&lanes[2])["note"].as_str().map(str::to_owned));
    assert!(why.contains("as it allows"), "{why}");
    dev.done(&["cancel", &lanes[0]]);
    dev.wait_state(&lanes[2], "running");
    // What waits or runs when the process ends goes on, or ends, after the next start: nothing is left to check here.
    dev.done(&["cancel", &lanes[1], "--wait"]);
    dev.done(&["cancel", &lanes[2], "--wait"]);
    dev.end();
}

#[test]
fn a_newer_run_replaces_the_one_that_runs() {
    let script = "'echo $$ >> LEDGER; trap \"sleep 0.3; exit 1\" TERM; for i in $(seq 1000); do sleep 0.05; done'";
    let dev =
        Dev::with(&[("latest", &format!("{{overlap: {{policy: replace}}, run: {{shell: {{script: {script}}}}}}}"))]);
    let first = dev.trigger("latest", &[]);
    let old = wait::until("the first process", PATIENCE, || dev.written().first().cloned());
    let second = dev.trigger("latest", &[]);
    wait::until("the second process", PATIENCE, || dev.written().get(1).cloned());
    assert!(is_gone(&old), "the second started beside the first");
    let replaced = dev.wait_state(&first, "cancelled");
    assert!(replaced["outcome"]["message"].as_str().expect("why").contains(&second), "{replaced}");
    dev.done(&["cancel", &second, "--wait"]);
    dev.end();
}

#[test]
fn a_dead_run_is_sent_back_and_succeeds() {
    let dev = Dev::with(&[("mended", "{run: {shell: {script: 'test -e LEDGER'}}}")]);
    let (code, said) = dev.cli(&["trigger", "test/mended", "--wait"]);
    assert_eq!(code, Some(1), "{said}");
    let dead: Value = serde_json::from_str(&dev.done(&["runs", "test/mended", "-o", "json"])).expect("JSON");
    let run = dead["items"][0]["id"].as_str().expect("an id").to_owned();
    let (code, said) = dev.cli(&["retry", &run, "--wait"]);
    assert_eq!(code, Some(1), "it fails again: {said}");
    fs::write(dev.ledger(), "").expect("a file");
    let said = dev.done(&["retry", &run, "--reason", "mended", "--wait"]);
    assert!(said.contains("succeeded"), "{said}");
    let after = dev.run(&run);
    assert_eq!((&after["redrives"], &after["attempt"]), (&Value::from(2), &Value::from(3)), "{after}");
    assert_eq!(after["attempts"].as_array().expect("attempts").len(), 3);
    assert!(!dev.done(&["dlq", "ls", "-o", "json"]).contains(&run), "it is no dead letter any more");
    let (code, said) = dev.cli(&["dlq", "redrive", &run]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("only dead runs"), "{said}");
    dev.end();
}

#[test]
fn a_parked_run_is_left_alone_until_it_is_named() {
    let dev = Dev::with(&[("odd", "{overlap: {policy: allow}, run: {shell: {script: 'test -e LEDGER'}}}")]);
    let runs: Vec<String> = (0..2).map(|_| dev.trigger("odd", &[])).collect();
    for run in &runs {
        dev.wait_state(run, "dead");
    }
    let listed = |state: &str| dev.done(&["dlq", "ls", "--state", state, "-o", "name"]);
    wait::until("the dead letters", PATIENCE, || (listed("dead").lines().count() == 2).then_some(()));
    let said = dev.done(&["dlq", "park", &runs[0], "--reason", "ann looks into it"]);
    assert!(said.contains(&runs[0]) && said.contains("put aside"), "{said}");
    wait::until("the parked one", PATIENCE, || listed("parked").contains(&runs[0]).then_some(()));
    assert!(!listed("dead").contains(&runs[0]), "it is no work that waits");
    let parked = wait::until("the note", PATIENCE, || Some(dev.run(&runs[0])).filter(|run| !run["note"].is_null()));
    assert_eq!((&parked["state"], &parked["disposition"]), (&"dead".into(), &"parked".into()), "{parked}");
    assert!(parked["note"].as_str().is_some_and(|note| note.contains("ann looks into it")), "{parked}");

    fs::write(dev.ledger(), "").expect("a file");
    let preview = dev.done(&["dlq", "redrive", "--job", "test/odd", "--dry-run"]);
    assert!(preview.contains(&runs[1]) && !preview.contains(&runs[0]), "{preview}");
    dev.done(&["dlq", "redrive", "--job", "test/odd"]);
    dev.wait_state(&runs[1], "succeeded");
    assert_eq!(dev.run(&runs[0])["state"], "dead", "one of all is not named");
    let (code, said) = dev.cli(&["dlq", "park", &runs[1]]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("is no dead letter"), "{said}");
    dev.done(&["dlq", "redrive", &runs[0]]);
    dev.wait_state(&runs[0], "succeeded");
    wait::until("no letter", PATIENCE, || listed("all").trim().is_empty().then_some(()));
    dev.end();
}

#[test]
fn a_run_ends_at_its_deadline_with_all_attempts() {
    let dev = Dev::with(&[
        ("slow", "{deadline: 1s, run: {shell: {script: 'sleep 1000'}}}"),
        (
            "flaky",
            "{deadline: 5s, retry: {maxAttempts: 50, backoff: {initial: 1s, factor: 1, jitter: 0}}, run: {exec: {command: [/bin/false]}}}",
        ),
    ]);
    let [slow, flaky] = ["slow", "flaky"].map(|job| dev.trigger(job, &[]));
    assert_eq!(dev.wait_state(&slow, "expired")["attempts"][0]["outcome"]["kind"], "expired");
    let ended = dev.wait_state(&flaky, "expired");
    let attempts = ended["attempts"].as_array().expect("attempts");
    assert!((2..=5).contains(&attempts.len()), "{ended}");
    assert!(attempts.iter().all(|attempt| attempt["outcome"]["kind"] == "failed"), "{ended}");
    dev.end();
}

#[test]
fn no_process_outlives_a_runner_that_is_killed() {
    // One that left the session, one that lost its parent as well, and one with an environment of its own.
    let script = "'setsid sleep 1000 & echo $! >> LEDGER; setsid sh -c \"sleep 1001 & echo \\$! >> LEDGER\"; \
                  env -i sleep 1002 & echo $! >> LEDGER; sleep 1003'";
    let dev = Dev::with(&[("long", &format!("{{run: {{shell: {{script: {script}}}}}}}"))]);
    dev.trigger("long", &[]);
    let pids = wait::until("three processes", PATIENCE, || Some(dev.written()).filter(|pids| pids.len() == 3));
    assert!(pids.iter().all(|pid| !is_gone(pid)), "{pids:?}");
    dev.orloj.kill();
    wait::until("the end of all of them", PATIENCE, || pids.iter().all(|pid| is_gone(pid)).then_some(()));
}

#[test]
fn a_job_that_keeps_failing_is_paused_and_says_why() {
    let dev = Dev::with(&[(
        "broken",
        "{schedule: {every: 1s}, overlap: {policy: allow}, pauseAfterFailures: 2, run: {exec: {command: [/bin/false]}}}",
    )]);
    let job = format!("{}/api/v1/jobs/test/broken", dev.url);
    let paused = wait::until("a paused job", PATIENCE, || {
        Some(get(&job)).filter(|job| job["status"]["pause"]["reason"].is_string())
    });
    let reason = paused["status"]["pause"]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("2 runs in a row failed"), "{reason}");
    assert_eq!(paused["status"]["pause"]["actor"], "orloj");
    dev.end();
}

#[test]
fn a_runner_shows_its_queues_with_weights_and_its_labels() {
    let more = ["--set", "runner.queues=reports,default=3", "--set", "runner.labels=zone=eu-1,gpu="];
    let dev = Dev::with_started(&[], |data| start(data, &more));
    let said = wait::until("a runner", PATIENCE, || {
        let said = dev.done(&["get", "runners", "-o", "wide"]);
        said.contains("online").then_some(said)
    });
    assert!(said.contains("default=3,reports") && said.contains("gpu=,zone=eu-1"), "{said}");
    let runner = get(&format!("{}/api/v1/runners", dev.url))["items"][0].clone();
    assert_eq!(runner["queues"], serde_json::json!(["default", "reports"]), "{runner}");
    assert_eq!(runner["queueWeights"], serde_json::json!({"default": 3}), "{runner}");
    dev.end();
}
