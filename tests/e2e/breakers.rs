//! The breaker of a queue, from the manifest to the programs that fail: it opens, runs wait instead of dying, one at a time tries,
//! and once the target is mended all succeed; on the embedded log through a `kill -9` of all while it is open, on Kafka
//! through that of each dispatcher. And the limit of a host, which no job names. Not here: what is counted.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use orloj_tests::installation::Installation;
use orloj_tests::process::{Orloj, PATIENCE};
use orloj_tests::wait;
use serde_json::{Value, json};

use crate::dev::{get, start};
use crate::limits::Place;

const LEASE: [&str; 2] = ["--set", "runner.lease=3s"];
const LATER_RUNS: usize = 6;

/// Its program succeeds once the file `mended` is there.
const MANIFESTS: &str = "\
apiVersion: orloj/v1
kind: Queue
metadata: {name: default}
spec:
  breaker: {failures: 3, window: 1m, openFor: 4s, maxOpenFor: 8s}
---
apiVersion: orloj/v1
kind: Job
metadata: {namespace: test, name: fragile}
spec:
  overlap: {policy: allow}
  run: {shell: {script: test -e FOLDER/mended}}
";

impl Place {
    fn breaker(&self) -> Value {
        self.item("queues", "default")["breaker"].clone()
    }

    fn wait_state(&self, state: &str) {
        wait::until(&format!("a breaker that is {state}"), PATIENCE, || {
            (self.breaker()["state"] == state).then_some(())
        });
    }

    /// Runs fail until the breaker opens; those that come later wait and say why. Answers the later ones.
    fn open(&self) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        let (code, said) = self.apply(&MANIFESTS.replace("FOLDER", &folder));
        assert_eq!(code, Some(0), "{said}");
        let mut died = 0;
        // What was asked for before a dispatcher read of the breaker is not counted.
        wait::until("a breaker that opens", PATIENCE, || {
            let id = self.trigger("fragile");
            wait::until("a run that dies or waits", PATIENCE, || {
                let run = self.run(&id);
                // A run waits for a moment even where nobody keeps it.
                let waits = run["note"].as_str().is_some_and(|note| note.contains("which is"));
                died += usize::from(run["state"] == "dead");
                (waits || run["state"] == "dead").then_some(())
            });
            (self.breaker()["state"] == "open").then_some(())
        });
        assert!(died >= 3, "{died} died, three open it");
        let breaker = self.breaker();
        assert_eq!((&breaker["failures"], &breaker["reason"]), (&json!(3), &json!("3 dead letters within 1m")));
        let runs: Vec<String> = (0..LATER_RUNS).map(|_| self.trigger("fragile")).collect();
        let said = wait::until("a run that says why it waits", PATIENCE, || {
            let shown = runs.iter().map(|id| self.done(&["describe", "run", id]));
            shown.into_iter().find(|shown| shown.contains("which is open until 20"))
        });
        assert!(said.contains("Waits for:\n  queue/default"), "{said}");
        runs
    }

    /// The target is mended: one that tries succeeds, and so do all that waited, but those that had tried before. Answers how
    /// many had.
    fn mend(&self, runs: &[String]) -> usize {
        // At least one has tried in vain: it is open for longer than the first time.
        wait::until("one that tried in vain", PATIENCE, || {
            let turns = self.breaker()["turns"].clone();
            let mut turns = turns.as_array().into_iter().flatten();
            turns.any(|turn| turn["reason"] == "the one that was let through to try has failed").then_some(())
        });
        fs::write(self.folder.path().join("mended"), "").expect("a file");
        for id in runs {
            let ended = wait::within(PATIENCE, || Some(self.run(id)).filter(|run| !run["finishedAt"].is_null()));
            ended.unwrap_or_else(|| panic!("{} does not end: {}", self.run(id), self.breaker()));
        }
        self.wait_state("closed");
        let breaker = self.breaker();
        let turns = breaker["turns"].as_array().expect("turns").clone();
        let states: Vec<&str> = turns.iter().rev().filter_map(|turn| turn["state"].as_str()).collect();
        for pair in states.windows(2) {
            let is_legal = matches!(pair, ["open", "halfOpen"] | ["halfOpen", "open" | "closed"] | ["closed", "open"]);
            assert!(is_legal, "{states:?}");
        }
        let failed = |turn: &&Value| turn["reason"] == "the one that was let through to try has failed";
        let tried = turns.iter().filter(failed).count();
        let dead = runs.iter().filter(|id| self.run(id)["state"] == "dead").count();
        let succeeded = runs.iter().filter(|id| self.run(id)["state"] == "succeeded").count();
        assert_eq!(dead + succeeded, runs.len());
        assert!(dead <= tried && succeeded > 0, "{dead} died of {tried} that tried");
        let said = self.done(&["get", "queues"]);
        assert!(said.contains("BREAKER") && said.contains("closed"), "{said}");
        let said = self.done(&["describe", "queue", "default"]);
        assert!(said.contains("Breaker:        closed") && said.contains("halfOpen"), "{said}");
        tried
    }
}

#[test]
fn a_queue_that_fails_waits_until_one_succeeds_through_a_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let (orloj, url) = start(&data, &LEASE);
    let mut place = Place { url, folder };
    let runs = place.open();
    orloj.kill();
    let (orloj, url) = start(&data, &LEASE);
    place.url = url;
    assert!(place.mend(&runs) > 0);
    assert!(orloj.stop().success());
}

#[test]
fn a_queue_that_fails_waits_on_a_broker_although_dispatchers_are_killed() {
    let Some(installation) = Installation::new("breakers") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| format!("data.dir={}", folder.path().join(name).display());
    let (of_runner, of_query) = (data("runner"), data("query"));
    let _trigger = installation.serve("trigger", &[]);
    let first: Orloj = installation.serve("dispatcher", &LEASE);
    let _runner = installation.serve("runner", &[&LEASE[..], &["--set", &of_runner]].concat());
    // `serve` does not say where it listens: a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let _query = installation.serve("query", &["--listen", &free.to_string(), "--set", &of_query]);
    let place = Place { url: format!("http://{free}"), folder };
    wait::until("a query service", PATIENCE, || ureq::get(format!("{}/readyz", place.url)).call().ok().map(drop));
    let runs = place.open();
    // All that it knew is on the log.
    first.kill();
    let _second = installation.serve("dispatcher", &LEASE);
    assert!(place.mend(&runs) > 0);
}

const HOST: &str = "\
apiVersion: orloj/v1
kind: Limit
metadata: {name: api}
spec:
  host: HOST
  breaker: {failures: 2, window: 1m, openFor: 2s}
---
apiVersion: orloj/v1
kind: Job
metadata: {namespace: test, name: call}
spec:
  overlap: {policy: allow}
  retry: {maxAttempts: 30, backoff: {initial: 100ms, factor: 1}}
  run: {http: {method: POST, url: \"http://HOST/run\"}}
";

/// A target that answers 503 until it is mended.
fn serve(listener: TcpListener, is_mended: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            // A request of this test fits one piece.
            let _ = connection.read(&mut [0; 8192]);
            let status = if is_mended.load(Ordering::SeqCst) { "200 OK" } else { "503 Service Unavailable" };
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            let _ = connection.write_all(answer.as_bytes());
        }
    });
}

#[test]
fn a_host_that_fails_is_left_alone_by_all_jobs_that_call_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    let is_mended = Arc::new(AtomicBool::new(false));
    serve(listener, Arc::clone(&is_mended));
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let (orloj, url) = start(&data, &[&LEASE[..], &["--set", "runner.http.allow=127.0.0.0/8"]].concat());
    let place = Place { url, folder };
    let (code, said) = place.apply(&HOST.replace("HOST", &host));
    assert_eq!(code, Some(0), "{said}");
    let run = place.trigger("call");
    let limit = || get(&format!("{}/api/v1/limits/api", place.url));
    wait::until("a breaker that opens", PATIENCE, || (limit()["breaker"]["state"] == "open").then_some(()));
    assert_eq!(limit()["status"]["jobsOfHost"], json!(["test/call"]));
    let said = place.done(&["get", "limits", "-o", "wide"]);
    assert!(said.contains(&host) && said.contains("open"), "{said}");
    wait::until("a run that waits for it", PATIENCE, || {
        (place.run(&run)["limits"] == json!(["limit/api"])).then_some(())
    });
    is_mended.store(true, Ordering::SeqCst);
    wait::until("a run that succeeds", PATIENCE, || (place.run(&run)["state"] == "succeeded").then_some(()));
    wait::until("a breaker that closes", PATIENCE, || (limit()["breaker"]["state"] == "closed").then_some(()));
    assert!(orloj.stop().success());
}
