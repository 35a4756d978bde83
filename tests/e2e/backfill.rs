//! Backfills on `orloj dev`: what a person sees of them, through a `kill -9` in the middle.

use std::fs;

use nix::sys::signal::Signal;
use orloj_tests::process::{Orloj, PATIENCE, run};
use orloj_tests::wait;
use serde_json::Value;

use crate::dev::start;

/// Asks with `-o json`; the code, and the document on stdout.
fn ask(url: &str, arguments: &[&str]) -> (Option<i32>, Value, String) {
    let output = run(&[arguments, &["--server", url, "-o", "json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), said)
}

/// Fire times of the job's runs by backfill, sorted, and whether all of them have succeeded.
fn filled(url: &str) -> (Vec<String>, bool) {
    let (_, runs, _) = ask(url, &["runs", "test/minutely"]);
    let by_backfill = |run: &&Value| run["trigger"] == "backfill";
    let items: Vec<&Value> = runs["items"].as_array().into_iter().flatten().filter(by_backfill).collect();
    let mut times: Vec<String> = items.iter().filter_map(|run| run["fireTime"].as_str().map(str::to_owned)).collect();
    times.sort();
    (times, items.iter().all(|run| run["state"] == "succeeded"))
}

/// One job that is due every minute, in force on `orloj dev`. `spec` is what it does, and how.
struct Minutely {
    orloj: Orloj,
    url: String,
    folder: tempfile::TempDir,
}

impl Minutely {
    fn start(spec: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let manifest = folder.path().join("job.yaml");
        let text = format!(
            "apiVersion: orloj/v1\nkind: Job\nmetadata: {{namespace: test, name: minutely}}\n\
             spec: {{schedule: {{every: 1m}}, {spec}}}\n"
        );
        fs::write(&manifest, text).expect("a file");
        let (orloj, url) = start(&data_of(&folder), &["--file", &manifest.display().to_string()]);
        wait::until("the job", PATIENCE, || (ask(&url, &["get", "jobs", "test/minutely"]).0 == Some(0)).then_some(()));
        Self { orloj, url, folder }
    }

    /// Kills the process and starts another on its data.
    fn killed_and_back(self) -> Self {
        self.orloj.kill();
        let (orloj, url) = start(&data_of(&self.folder), &[]);
        Self { orloj, url, ..self }
    }
}

fn data_of(folder: &tempfile::TempDir) -> String {
    folder.path().join("data").display().to_string()
}

#[test]
fn fire_times_of_the_past_run_once_through_a_kill_and_what_was_run_is_not_missed() {
    // It lasts a moment, so that the kill comes amid them.
    let job = Minutely::start("retry: {maxAttempts: 3}, run: {shell: {script: 'sleep 0.1'}}");
    let url = &job.url;
    let (from, to) = ("2026-01-01T00:00:00Z", "2026-01-01T00:20:00Z");
    let range = ["backfill", "test/minutely", "--from", from, "--to", to];

    let (code, preview, said) = ask(url, &[&range[..], &["--dry-run", "--only-missed"]].concat());
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(preview["count"], 20, "{preview}");
    assert_eq!(
        preview["items"][19],
        serde_json::json!({"fireTime": "2026-01-01T00:19:00Z", "was": "never", "reason": null})
    );
    assert!(filled(url).0.is_empty(), "a preview sends nothing");
    let (code, _, said) = ask(url, &[&range[..], &["--max", "19"]].concat());
    assert!(code != Some(0) && said.contains("max: more fire times"), "{code:?} {said}");

    let (code, event, said) = ask(url, &range);
    assert_eq!((code, &event["type"]), (Some(0), &Value::from("backfillStarted")), "{said}");
    wait::until("the first runs", PATIENCE, || (filled(url).0.len() > 2).then_some(()));
    let job = job.killed_and_back();
    let url = &job.url;
    let done = wait::until("the end of the backfill", PATIENCE, || {
        let (_, job, _) = ask(url, &["get", "jobs", "test/minutely"]);
        let (times, have_succeeded) = filled(url);
        (job["status"].is_object() && job["status"]["backfill"].is_null() && have_succeeded).then_some(times)
    });
    let wanted: Vec<String> = (0..20).map(|minute| format!("2026-01-01T00:{minute:02}:00Z")).collect();
    assert_eq!(done, wanted, "each once, in order");

    let (code, preview, said) = ask(url, &[&range[..], &["--dry-run", "--only-missed"]].concat());
    assert_eq!((code, &preview["count"]), (Some(0), &Value::from(0)), "{said}");
    let (_, preview, _) = ask(url, &[&range[..], &["--dry-run"]].concat());
    assert_eq!(preview["items"][0]["was"], "requested", "{preview}");
    assert!(job.orloj.stop().success());
}

#[test]
fn a_backfill_is_cancelled_by_its_id() {
    let job = Minutely::start("run: {shell: {script: 'sleep 1000'}}");
    let url = &job.url;
    let (code, event, said) = ask(
        url,
        &[
            "backfill",
            "test/minutely",
            "--from",
            "2026-01-01T00:00:00Z",
            "--to",
            "2026-01-02T00:00:00Z",
            "--max",
            "2000",
        ],
    );
    assert_eq!(code, Some(0), "{said}");
    let id = event["commandId"].as_str().expect("an id");
    wait::until("the first run", PATIENCE, || (filled(url).0.len() == 1).then_some(()));
    let (code, _, said) = ask(url, &["backfill", "test/minutely", "--cancel", "another"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, event, said) = ask(url, &["backfill", "test/minutely", "--cancel", id]);
    assert_eq!((code, &event["type"]), (Some(0), &Value::from("backfillCancelled")), "{said}");
    // Told twice it does not wait for the run under way.
    job.orloj.signal(Signal::SIGINT);
    let Minutely { mut orloj, .. } = job;
    orloj.wait_for("draining");
    orloj.signal(Signal::SIGINT);
    assert_eq!(orloj.wait_end().code(), Some(130));
}
