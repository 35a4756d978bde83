//! Limits that jobs share and bounds of queues, from the files of a person to the programs that run, on the embedded log
//! through a `kill -9` of all, on Kafka through that of a dispatcher. The programs themselves write down when they begin
//! and end. Not here: who is next among those who wait.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;

use orloj_tests::installation::Installation;
use orloj_tests::process::{Orloj, PATIENCE, run};
use orloj_tests::wait;
use serde_json::{Value, json};

use crate::dev::{get, start};

const LEASE: [&str; 2] = ["--set", "runner.lease=3s"];
const JOBS: [&str; 2] = ["first", "second"];
const RUNS_OF_JOB: usize = 4;

const LIMIT: &str = "\
apiVersion: orloj/v1
kind: Limit
metadata: {name: door}
spec: {maxConcurrent: 1}
";

/// It begins, and does not end before the file `open` is there.
const JOB: &str = "\
---
apiVersion: orloj/v1
kind: Job
metadata: {namespace: test, name: NAME}
spec:
  limits: [door]
  retry: {maxAttempts: 10, backoff: {initial: 100ms}}
  overlap: {policy: allow}
  run:
    shell:
      script: >-
        echo begin $ORLOJ_RUN_ID $ORLOJ_FENCING_TOKEN >> FOLDER/ledger;
        while ! test -e FOLDER/open; do sleep 0.05; done; sleep 0.1;
        echo end $ORLOJ_RUN_ID $ORLOJ_FENCING_TOKEN >> FOLDER/ledger
";

const FREE: &str = "\
---
apiVersion: orloj/v1
kind: Job
metadata: {namespace: test, name: free}
spec: {overlap: {policy: allow}, run: {exec: {command: [/bin/true]}}}
";

const QUEUE: &str = "\
apiVersion: orloj/v1
kind: Queue
metadata: {name: default}
spec: {maxConcurrent: 50, paused: true}
";

/// A place that is served, and a folder in which its programs write.
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) folder: tempfile::TempDir,
}

impl Place {
    /// Exit code, and all that was said.
    fn cli(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = run(&[arguments, &["--server", &self.url]].concat());
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), said.concat())
    }

    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let (code, said) = self.cli(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        said
    }

    pub(crate) fn apply(&self, text: &str) -> (Option<i32>, String) {
        let file = self.folder.path().join("manifests.yaml");
        fs::write(&file, text).expect("a file");
        self.cli(&["apply", "-f", &file.display().to_string()])
    }

    pub(crate) fn trigger(&self, job: &str) -> String {
        let said = self.done(&["trigger", &format!("test/{job}"), "-o", "json"]);
        let answer: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        answer["runId"].as_str().or(answer["id"].as_str()).expect("a run id").to_owned()
    }

    pub(crate) fn run(&self, id: &str) -> Value {
        get(&format!("{}/api/v1/runs/{id}", self.url))
    }

    /// The one item of a list of the command line with this name.
    pub(crate) fn item(&self, kind: &str, name: &str) -> Value {
        let said = self.done(&["get", kind, name, "-o", "json"]);
        serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
    }

    fn wait_uses(&self, held: usize, waiting: usize) {
        wait::until(&format!("a limit held by {held} with {waiting} waiting"), PATIENCE, || {
            let limit = self.item("limits", "door");
            (limit["held"] == json!(held) && limit["waiting"] == json!(waiting)).then_some(())
        });
    }

    /// Two jobs of several runs each that share a limit: one runs, the others wait and say why.
    fn begin(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let jobs: String = JOBS.iter().map(|job| JOB.replace("NAME", job).replace("FOLDER", &folder)).collect();
        let (code, said) = self.apply(&jobs);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("spec.limits[0]: is no limit; apply it first"), "{said}");
        let (code, said) = self.apply(&format!("{jobs}---\n{LIMIT}{FREE}"));
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains("limit door written at settings/0@"), "{said}");
        let runs: Vec<String> =
            JOBS.iter().flat_map(|job| (0..RUNS_OF_JOB).map(|_| self.trigger(job)).collect::<Vec<_>>()).collect();
        self.wait_uses(1, runs.len() - 1);
        let waiting = |id: &&String| self.run(id)["state"] == "waiting";
        let waiting = runs.iter().find(waiting).expect("one that waits");
        let shown = self.run(waiting);
        assert_eq!(
            (&shown["note"], &shown["limits"]),
            (&json!("it waits for its turn at limit door"), &json!(["limit/door"]))
        );
        let said = self.done(&["describe", "run", waiting]);
        assert!(said.contains("Waits for:\n  limit/door"), "{said}");
        let said = self.done(&["describe", "limit", "door"]);
        assert!(said.contains("Named by jobs:\n  test/first\n  test/second") && said.contains(waiting), "{said}");
        let (code, said) = self.cli(&["delete", "limit", "door"]);
        assert!(code == Some(4) && said.contains("named by jobs test/first, test/second"), "{said}");
        wait::until("a program that has begun", PATIENCE, || self.ledger().first().map(drop));
        runs
    }

    /// All of them end well, one after the other. Answers how many attempts were cut off.
    fn end(&self, runs: &[String]) -> usize {
        fs::write(self.folder.path().join("open"), "").expect("a file");
        for id in runs {
            let ended = wait::within(PATIENCE, || Some(self.run(id)).filter(|run| !run["finishedAt"].is_null()));
            let ended = ended.unwrap_or_else(|| panic!("{} does not end: {:?}", self.run(id), self.ledger()));
            assert_eq!(ended["state"], "succeeded", "{ended}");
            assert_eq!(ended["limits"], json!([]));
        }
        self.wait_uses(0, 0);
        let cut_off = self.cut_off();
        for (id, token) in &cut_off {
            let run = self.run(id);
            let attempts = run["attempts"].as_array().into_iter().flatten();
            let mut lost = attempts.filter(|attempt| attempt["outcome"]["kind"] == "leaseLost");
            assert!(lost.any(|attempt| attempt["token"].as_i64() == token.parse().ok()), "{token} was not lost: {run}");
        }
        let ended: BTreeSet<String> =
            self.ledger().iter().filter(|line| line[0] == "end").map(|line| line[1].clone()).collect();
        assert_eq!(ended, runs.iter().cloned().collect(), "every run came to its end");
        cut_off.len()
    }

    fn ledger(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(self.folder.path().join("ledger")).unwrap_or_default();
        text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }

    /// Attempts, as run and token, that began and never came to their end. None ends after another one began.
    fn cut_off(&self) -> Vec<(String, String)> {
        let (mut cut_off, mut open) = (Vec::new(), None);
        for line in self.ledger() {
            let [what, run, token] = line.try_into().expect("three words");
            let attempt = (run, token);
            if what == "begin" {
                cut_off.extend(open.replace(attempt));
            } else {
                assert_eq!(open.take(), Some(attempt), "it overlapped with another: {:?}", self.ledger());
            }
        }
        cut_off.extend(open);
        cut_off
    }

    /// A queue that is paused keeps its runs until it is applied again as it was read.
    fn pause_and_go_on(&self) {
        let (code, said) = self.apply(QUEUE);
        assert_eq!(code, Some(0), "{said}");
        // What was asked for before a dispatcher read of it may still pass.
        let kept = wait::until("a run that is kept", PATIENCE, || {
            let id = self.trigger("free");
            let is_kept = wait::until("a run that waits or ends", PATIENCE, || {
                let run = self.run(&id);
                let waits = run["note"] == "it waits for its turn at queue default";
                (waits || run["state"] == "succeeded").then_some(waits)
            });
            is_kept.then_some(id)
        });
        let queue = wait::until("a queue with one that waits", PATIENCE, || {
            Some(self.item("queues", "default")).filter(|queue| queue["waitingForLimit"] == 1)
        });
        assert_eq!((&queue["paused"], &queue["maxConcurrent"], &queue["held"]), (&json!(true), &json!(50), &json!(0)));
        let said = self.done(&["get", "queues"]);
        assert!(said.lines().any(|line| line.contains("default") && line.contains("yes")), "{said}");
        let said = self.done(&["describe", "queue", "default"]);
        assert!(said.contains("paused: true") && said.contains(&kept), "{said}");
        assert_eq!(self.run(&kept)["state"], "waiting");
        let yaml = self.done(&["get", "queues", "default", "-o", "yaml"]);
        let (code, said) = self.apply(&yaml.replace("paused: true", "paused: false"));
        assert_eq!(code, Some(0), "{yaml}{said}");
        wait::until("the end of what was kept", PATIENCE, || (self.run(&kept)["state"] == "succeeded").then_some(()));
        wait::until("nobody at the queue", PATIENCE, || {
            let queue = self.item("queues", "default");
            (queue["held"] == 0 && queue["waitingForLimit"] == 0).then_some(())
        });
        self.done(&["delete", "queue", "default"]);
        wait::until("a queue without bounds", PATIENCE, || {
            (self.cli(&["get", "queues", "default", "-o", "yaml"]).0 == Some(3)).then_some(())
        });
    }
}

#[test]
fn jobs_share_a_limit_and_a_queue_is_paused_through_a_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let (orloj, url) = start(&data, &LEASE);
    let mut place = Place { url, folder };
    let runs = place.begin();
    orloj.kill();
    let (orloj, url) = start(&data, &LEASE);
    place.url = url;
    assert_eq!(place.end(&runs), 1, "the kill cut off the one that ran");
    place.pause_and_go_on();
    assert!(orloj.stop().success());
}

#[test]
fn jobs_share_a_limit_on_a_broker_although_a_dispatcher_is_killed() {
    let Some(installation) = Installation::new("limits") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| format!("data.dir={}", folder.path().join(name).display());
    let (of_runner, of_query) = (data("runner"), data("query"));
    let _trigger = installation.serve("trigger", &[]);
    let dispatchers: [Orloj; 2] = std::array::from_fn(|_| installation.serve("dispatcher", &LEASE));
    let slots = ["--set", "runner.slots=20", "--set", &of_runner];
    let _runner = installation.serve("runner", &[&LEASE[..], &slots].concat());
    // `serve` does not say where it listens: a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let _query = installation.serve("query", &["--listen", &free.to_string(), "--set", &of_query]);
    let place = Place { url: format!("http://{free}"), folder };
    wait::until("a query service", PATIENCE, || ureq::get(format!("{}/readyz", place.url)).call().ok().map(drop));
    let runs = place.begin();
    let [killed, _left] = dispatchers;
    killed.kill();
    place.end(&runs);
    place.pause_and_go_on();
}
