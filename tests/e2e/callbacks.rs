//! Targets that say later how their attempt ended, on the embedded log and on a real broker: with the right token and a wrong
//! one, once and again, while services are killed. Not here: what is said to them (the runner's tests). Invariant: that a run
//! ended once is read back from the log or the API.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use orloj_domain::run::RunEvent;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::Record;
use orloj_tests::fires::reader;
use orloj_tests::installation::Installation;
use orloj_tests::process::{PATIENCE, run};
use orloj_tests::wait;
use serde_json::Value;

use crate::dev::{get, start};

/// What a target was told.
#[derive(Debug)]
struct Told {
    url: String,
    token: String,
}

/// A target that accepts all that comes, and tells what it was told.
fn target() -> (String, Receiver<Told>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/run", listener.local_addr().expect("an address"));
    let (sender, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut found = Told { url: String::new(), token: String::new() };
            for line in BufReader::new(&stream).lines() {
                let line = line.expect("text");
                match line.split_once(": ") {
                    Some((name, value)) if name.eq_ignore_ascii_case("Orloj-Callback-Url") => {
                        value.clone_into(&mut found.url)
                    }
                    Some((name, value)) if name.eq_ignore_ascii_case("Orloj-Callback-Token") => {
                        value.clone_into(&mut found.token);
                    }
                    Some(_) => {}
                    None if line.is_empty() => break,
                    None => {}
                }
            }
            drop(stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
            if sender.send(found).is_err() {
                return;
            }
        }
    });
    (url, told)
}

fn next(told: &Receiver<Told>) -> Told {
    let told = told.recv_timeout(PATIENCE).expect("a request");
    assert!(told.url.starts_with("http://127.0.0.1:") && told.token.len() >= 32, "{told:?}");
    told
}

/// Status and document of the answer to a callback.
fn call_back(url: &str, token: &str, body: &str) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let bearer = format!("Bearer {token}");
    let request = agent.post(url).header("Authorization", &bearer).header("Content-Type", "application/json");
    let mut answer = request.send(body).expect("an answer");
    let document = answer.body_mut().read_json().expect("JSON");
    (answer.status().as_u16(), document)
}

const SUCCEEDED: &str = r#"{"outcome": "succeeded", "message": "42 invoices"}"#;
const FAILED: &str = r#"{"outcome": "failed", "message": "not yet"}"#;
const SETTINGS: [&str; 4] = ["--set", "runner.http.allow=127.0.0.0/8", "--set", "runner.lease=2s"];

/// Applies a job whose target is at `target`, and asks for a run of it.
fn begin(server: &str, folder: &std::path::Path, target: &str) -> String {
    let file = folder.join("job.yaml");
    let manifest = format!(
        "apiVersion: orloj/v1\nkind: Job\nmetadata: {{namespace: test, name: later}}\nspec:\n  \
         overlap: {{policy: allow}}\n  retry: {{maxAttempts: 3, backoff: {{initial: 100ms}}}}\n  \
         run: {{http: {{url: '{target}', completion: callback}}}}\n"
    );
    fs::write(&file, manifest).expect("a file");
    let applied = run(&["apply", "-f", &file.display().to_string(), "--server", server]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    trigger(server)
}

fn trigger(server: &str) -> String {
    let asked = run(&["trigger", "test/later", "-o", "json", "--server", server]);
    let answer: Value = serde_json::from_slice(&asked.stdout).expect("JSON");
    answer["runId"].as_str().expect("a run id").to_owned()
}

fn wait_state(server: &str, id: &str, state: &str) -> Value {
    let url = format!("{server}/api/v1/runs/{id}");
    wait::until(&format!("run {id} {state}"), PATIENCE, || Some(get(&url)).filter(|run| run["state"] == state))
}

#[test]
fn a_target_says_later_how_each_attempt_ended() {
    let folder = tempfile::tempdir().expect("a folder");
    let (orloj, server) = start(&folder.path().join("data").display().to_string(), &SETTINGS);
    let (url, told) = target();
    let id = begin(&server, folder.path(), &url);
    let first = next(&told);
    let (status, problem) = call_back(&first.url, &first.token.replace(|_| true, "0"), SUCCEEDED);
    assert_eq!((status, problem["code"].as_str()), (403, Some("wrongToken")), "{problem}");
    let described = run(&["describe", "run", &id, "--server", &server]);
    let described = String::from_utf8_lossy(&described.stdout).into_owned();
    assert!(described.contains("for the callback of attempt 1"), "{described}");

    let (status, taken) = call_back(&first.url, &first.token, FAILED);
    assert_eq!(status, 202, "{taken}");
    let second = next(&told);
    assert_ne!((&first.url, &first.token), (&second.url, &second.token));
    let (status, problem) = call_back(&second.url, &first.token, SUCCEEDED);
    assert_eq!((status, problem["code"].as_str()), (403, Some("wrongToken")), "{problem}");
    let (status, problem) = call_back(&first.url, &first.token, SUCCEEDED);
    assert_eq!((status, problem["code"].as_str()), (409, Some("attemptEnded")), "{problem}");
    assert_eq!(call_back(&second.url, &second.token, SUCCEEDED).0, 202);
    let ended = wait_state(&server, &id, "succeeded");
    assert_eq!(ended["outcome"]["message"], "42 invoices", "{ended}");
    let kinds: Vec<_> =
        ended["attempts"].as_array().expect("attempts").iter().map(|of| &of["outcome"]["kind"]).collect();
    assert_eq!(kinds, ["failed", "succeeded"], "{ended}");
    let (status, again) = call_back(&second.url, &second.token, SUCCEEDED);
    assert_eq!((status, again["outcome"]["kind"].as_str()), (200, Some("succeeded")), "{again}");

    // One that waits is cancelled like any other.
    let cancelled = trigger(&server);
    let third = next(&told);
    let output = run(&["cancel", &cancelled, "--wait", "--server", &server]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (status, problem) = call_back(&third.url, &third.token, SUCCEEDED);
    assert_eq!((status, problem["code"].as_str()), (409, Some("attemptEnded")), "{problem}");
    assert_eq!(wait_state(&server, &cancelled, "cancelled")["attempts"].as_array().map(Vec::len), Some(1));
    assert!(orloj.stop().success());
}

#[test]
fn what_was_said_before_everything_was_killed_counts() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let (orloj, server) = start(&data, &SETTINGS);
    let (url, told) = target();
    let id = begin(&server, folder.path(), &url);
    let only = next(&told);
    assert_eq!(call_back(&only.url, &only.token, SUCCEEDED).0, 202);
    orloj.kill();
    let (orloj, server) = start(&data, &SETTINGS);
    let ended = wait_state(&server, &id, "succeeded");
    assert_eq!(ended["attempts"].as_array().map(Vec::len), Some(1), "{ended}");
    assert_eq!(ended["outcome"]["message"], "42 invoices", "{ended}");
    assert!(told.try_recv().is_err(), "there was another attempt");
    assert!(orloj.stop().success());
}

/// All records of a topic.
fn records(installation: &Installation, name: &str) -> Vec<Record> {
    let mut reader = reader(&installation.log, name);
    let mut records = Vec::new();
    loop {
        let some = reader.poll(1000, Duration::from_secs(1)).expect("a readable log");
        if some.is_empty() {
            return records;
        }
        records.extend(some);
    }
}

#[test]
fn a_completion_outlives_dispatcher_and_runner_on_a_broker() {
    let Some(installation) = Installation::new("callbacks") else { return };
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a free port").port();
    let server = format!("http://127.0.0.1:{port}");
    let (listen, back) = (format!("127.0.0.1:{port}"), format!("runner.callbackUrl={server}"));
    let folder = tempfile::tempdir().expect("a folder");
    let data = |of: &str| format!("data.dir={}", folder.path().join(of).display());
    let lease = ["--set", "runner.lease=3s"];
    let _trigger = installation.serve("trigger", &[]);
    let dispatcher = installation.serve("dispatcher", &lease);
    let _query = installation.serve("query", &["--listen", &listen, "--set", &data("query")]);
    let settings = [&lease[..], &["--set", "runner.http.allow=127.0.0.0/8", "--set", &back, "--set", &data("runner")]];
    let runner = installation.serve("runner", &settings.concat());
    let (url, told) = target();
    let job = installation.offer(
        "later",
        &format!(r#""retry":{{"maxAttempts":3}},"run":{{"http":{{"url":"{url}","completion":"callback"}}}}"#),
    );
    installation.wait_accepted(&job);
    let id = installation.run_now(&job, "first");
    let only = next(&told);
    wait_state(&server, &id.to_string(), "running");
    dispatcher.kill();
    let (status, problem) = call_back(&only.url, &only.token.replace(|_| true, "0"), FAILED);
    assert_eq!((status, problem["code"].as_str()), (403, Some("wrongToken")), "{problem}");
    let (status, taken) = call_back(&only.url, &only.token, SUCCEEDED);
    assert_eq!(status, 202, "{taken}");
    runner.kill();
    let _dispatcher = installation.serve("dispatcher", &lease);
    wait_state(&server, &id.to_string(), "succeeded");
    let again = call_back(&only.url, &only.token, SUCCEEDED);
    assert_eq!(again.0, 200, "{}", again.1);

    let steps: Vec<RunEvent> = records(&installation, topic::RUN_EVENTS)
        .iter()
        .filter_map(|record| codec::decode(record.value.as_deref()?).ok())
        .filter(|event: &RunEvent| event.run_id == id)
        .collect();
    let ends: Vec<_> = steps.iter().filter(|event| event.state.is_terminal()).collect();
    assert_eq!(ends.len(), 1, "{steps:?}");
    assert_eq!((ends[0].state.as_str(), ends[0].attempt), ("succeeded", 1), "{steps:?}");
    let names = [topic::COMMANDS, topic::ATTEMPT_EVENTS, topic::RUNNER_INBOX, topic::RUN_STATE, topic::RUN_EVENTS];
    for name in names {
        for record in records(&installation, name) {
            let value = record.value.unwrap_or_default();
            assert!(!String::from_utf8_lossy(&value).contains(&only.token), "a token is in {name}");
        }
    }
    assert!(told.try_recv().is_err(), "there was another attempt");
}
