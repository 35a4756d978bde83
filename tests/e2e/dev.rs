//! `orloj dev`: a person's first minutes, and `kill -9` under every-second jobs.

use std::fmt::Write as _;
use std::fs;
use std::sync::Arc;

use nix::sys::signal::Signal;
use orloj_domain::topic;
use orloj_runtime::clock::SystemClock;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_tests::fires::{Seen, reader};
use orloj_tests::process::{Orloj, PATIENCE, run};
use orloj_tests::wait;

/// Manifests of `count` jobs that are due every second and do next to nothing.
pub(crate) fn every_second(count: usize) -> String {
    let mut text = String::new();
    for index in 0..count {
        let _ = write!(
            text,
            "---\napiVersion: orloj/v1\nkind: Job\nmetadata: {{namespace: test, name: tick-{index}}}\n\
             spec:\n  schedule: {{every: 1s}}\n  overlap: {{policy: allow}}\n  run: {{exec: {{command: [/bin/true]}}}}\n"
        );
    }
    text
}

pub(crate) fn start(data: &str, more: &[&str]) -> (Orloj, String) {
    let mut arguments = vec!["dev", "--quiet", "--listen", "127.0.0.1:0", "--data", data];
    arguments.extend_from_slice(more);
    let mut orloj = Orloj::start(&arguments);
    let url = orloj.url();
    (orloj, url)
}

/// The document at `url`; waits while the service is still starting.
pub(crate) fn get(url: &str) -> serde_json::Value {
    wait::until(url, PATIENCE, || ureq::get(url).call().ok()?.body_mut().read_json().ok())
}

#[test]
fn a_person_applies_a_job_runs_it_and_reads_what_it_said() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let manifest = folder.path().join("job.yaml");
    fs::write(
        &manifest,
        "apiVersion: orloj/v1\nkind: Job\nmetadata: {namespace: test, name: hello}\nspec:\n  \
         run: {shell: {script: 'echo hello $ORLOJ_PARAM_WHO; echo oops >&2'}}\n---\n\
         apiVersion: orloj/v1\nkind: Job\nmetadata: {namespace: test, name: fails}\nspec:\n  \
         retry: {maxAttempts: 2, backoff: {initial: 100ms}}\n  run: {exec: {command: [/bin/false]}}\n",
    )
    .expect("a file");
    let (orloj, url) = start(&data, &[]);
    let server = ["--server", url.as_str()];
    let cli = |arguments: &[&str]| {
        let output = run(&[arguments, &server].concat());
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
        )
    };
    let (code, said) = cli(&["apply", "-f", &manifest.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("accepted") && said.contains("job.events/"), "{said}");
    let (code, said) = cli(&["trigger", "test/hello", "--param", "who=world", "--wait"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = cli(&["runs", "test/hello", "-o", "json"]);
    assert_eq!(code, Some(0), "{said}");
    let runs: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let run_id = runs["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
    assert_eq!(runs["items"][0]["state"], "succeeded", "{said}");
    assert_eq!(runs["items"][0]["trigger"], "manual", "{said}");
    let (code, said) = cli(&["logs", &run_id]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("hello world") && said.contains("oops"), "{said}");
    let (code, said) = cli(&["trigger", "test/fails", "--wait"]);
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = cli(&["dlq", "ls", "-o", "json"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("attemptsExhausted") && said.contains("test/fails"), "{said}");
    let (code, said) = cli(&["delete", "job", "test/hello"]);
    assert_eq!(code, Some(0), "{said}");
    let (code, _) = cli(&["get", "jobs", "test/hello"]);
    assert_eq!(code, Some(3), "a deleted job is not found");
    assert!(orloj.stop().success());
}

#[test]
fn every_second_is_decided_once_through_kill_9() {
    const ROUNDS: usize = 20;
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let manifest = folder.path().join("jobs.yaml");
    fs::write(&manifest, every_second(20)).expect("a file");
    let file = manifest.display().to_string();
    for round in 0..ROUNDS {
        let more: &[&str] = if round == 0 { &["--file", &file] } else { &[] };
        let (orloj, url) = start(&data, more);
        let fires = format!("{url}/api/v1/jobs/test/tick-{round}/fires?limit=1");
        let newest = |value: &serde_json::Value| value["items"][0]["fireTime"].as_str().map(str::to_owned);
        // A moment somewhere in the life of the process: after so many further decisions were seen.
        let mut before = None;
        let mut changes = 0;
        wait::until("decisions after a restart", PATIENCE, || {
            let now = ureq::get(&fires).call().ok().and_then(|mut response| response.body_mut().read_json().ok());
            let now = now.as_ref().and_then(newest);
            if now.is_some() && now != before {
                before = now;
                changes += 1;
            }
            (changes > 1 + round % 3).then_some(())
        });
        // And then at some place between two seconds: so many answers later.
        for _ in 0..(round * 7) % 40 {
            let _ = get(&fires);
        }
        orloj.kill();
    }
    let log = EmbeddedLog::open(data.as_ref(), Arc::new(SystemClock::new())).expect("nobody holds it");
    let mut seen = Seen::default();
    seen.read(reader(&log, topic::FIRES).as_mut());
    assert!(seen.count() > 20 * ROUNDS, "only {} decisions", seen.count());
    assert_eq!(seen.findings(), Vec::<String>::new());
}

#[test]
fn told_twice_it_ends_at_once_and_leaves_nothing_running() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let (manifest, told) = (folder.path().join("job.yaml"), folder.path().join("pid"));
    // One that left the session, and one that lost its parent as well.
    let script = format!(
        "setsid sleep 1000 & echo $! > {0}.new; setsid sh -c \"sleep 1001 & echo \\$! >> {0}.new\"; mv {0}.new {0}; sleep 1002",
        told.display()
    );
    fs::write(
        &manifest,
        format!(
            "apiVersion: orloj/v1\nkind: Job\nmetadata: {{namespace: test, name: stays}}\n\
             spec: {{run: {{shell: {{script: '{script}'}}}}}}\n"
        ),
    )
    .expect("a file");
    let (mut orloj, url) = start(&data, &["--file", &manifest.display().to_string()]);
    wait::until("an accepted job", PATIENCE, || {
        let trigger = ureq::post(format!("{url}/api/v1/jobs/test/stays/trigger")).send_empty();
        trigger.is_ok_and(|response| response.status().is_success()).then_some(())
    });
    let pids = wait::until("a running attempt", PATIENCE, || fs::read_to_string(&told).ok());
    let processes: Vec<_> = pids.split_whitespace().map(|pid| format!("/proc/{pid}/stat")).collect();
    assert_eq!(processes.len(), 2, "{pids}");
    for process in &processes {
        assert!(fs::metadata(process).is_ok(), "{process}: a descendant of the attempt runs");
    }
    orloj.signal(Signal::SIGINT);
    orloj.wait_for("draining");
    orloj.signal(Signal::SIGINT);
    assert_eq!(orloj.wait_end().code(), Some(130));
    wait::until("the end of all descendants", PATIENCE, || {
        // A zombie that nobody reaps has ended too.
        let has_ended = |stat: String| stat.is_empty() || stat.contains(") Z ");
        processes.iter().all(|process| has_ended(fs::read_to_string(process).unwrap_or_default())).then_some(())
    });
}

#[test]
fn a_second_process_on_the_same_directory_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let (orloj, _) = start(&data, &[]);
    let second = run(&["dev", "--listen", "127.0.0.1:0", "--data", &data]);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert_eq!(second.status.code(), Some(4), "{said}");
    assert!(said.contains("in use by another orloj process"), "{said}");
    assert!(orloj.stop().success());
}

#[test]
fn the_read_model_is_rebuilt_when_it_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let manifest = folder.path().join("jobs.yaml");
    fs::write(&manifest, every_second(1)).expect("a file");
    let (orloj, url) = start(&data, &["--file", &manifest.display().to_string()]);
    let runs = format!("{url}/api/v1/runs?state=succeeded");
    wait::until("a run", PATIENCE, || {
        get(&runs)["items"].as_array().is_some_and(|items| items.len() >= 2).then_some(())
    });
    let oldest = |url: &str| {
        let items = get(&format!("{url}/api/v1/runs?state=succeeded&limit=500"))["items"].clone();
        items.as_array().and_then(|items| items.last().cloned()).expect("a run")
    };
    let before = oldest(&url);
    assert!(orloj.stop().success());
    for file in fs::read_dir(&data).expect("a folder").flatten() {
        if file.file_name().to_string_lossy().starts_with("query.sqlite") {
            fs::remove_file(file.path()).expect("removable");
        }
    }
    let (orloj, url) = start(&data, &[]);
    wait::until("ready", PATIENCE, || ureq::get(format!("{url}/readyz")).call().ok().map(|_| ()));
    assert_eq!(oldest(&url), before, "the same run, folded again from the log");
    assert!(orloj.stop().success());
}

#[test]
fn a_job_that_follows_its_own_end_goes_on_after_a_kill_9() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let manifest = folder.path().join("job.yaml");
    fs::write(
        &manifest,
        "apiVersion: orloj/v1\nkind: Job\nmetadata: {namespace: test, name: poller}\n\
         spec: {schedule: {afterFinish: 1s}, run: {exec: {command: [/bin/true]}}}\n",
    )
    .expect("a file");
    let file = manifest.display().to_string();
    let ended = |url: &str, count: usize| {
        let runs = format!("{url}/api/v1/runs?job=test/poller&state=succeeded&limit=500");
        wait::until("runs of the job", PATIENCE, || {
            let items = get(&runs)["items"].as_array().cloned().unwrap_or_default();
            (items.len() >= count).then_some(items)
        })
    };
    let (orloj, url) = start(&data, &["--file", &file]);
    let before = ended(&url, 2).len();
    orloj.kill();
    let (orloj, url) = start(&data, &[]);
    let runs = ended(&url, before + 2);
    assert!(orloj.stop().success());
    let time = |run: &serde_json::Value, field: &str| -> orloj_domain::time::Timestamp {
        run[field].as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{run}"))
    };
    // Newest first: each fire time is a second after the end before it.
    for pair in runs.windows(2) {
        let gap = time(&pair[0], "fireTime").since(time(&pair[1], "finishedAt"));
        assert_eq!(gap, std::time::Duration::from_secs(1), "{pair:#?}");
    }
}

#[test]
fn a_queue_that_nobody_serves_holds_up_no_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let manifest = folder.path().join("jobs.yaml");
    let job = |name: &str, queue: &str| {
        format!(
            "---\napiVersion: orloj/v1\nkind: Job\nmetadata: {{namespace: test, name: {name}}}\n\
             spec: {{queue: {queue}, run: {{exec: {{command: [/bin/true]}}}}}}\n"
        )
    };
    fs::write(&manifest, job("other", "gpu") + &job("usual", "default")).expect("a file");
    let (orloj, url) = start(&data, &["--file", &manifest.display().to_string()]);
    let trigger = |name: &str| {
        wait::until("an accepted job", PATIENCE, || {
            let answer = ureq::post(format!("{url}/api/v1/jobs/test/{name}/trigger")).send_empty();
            answer.is_ok_and(|response| response.status().is_success()).then_some(())
        });
    };
    let state = |job: &str| get(&format!("{url}/api/v1/runs?job=test/{job}"))["items"][0]["state"].clone();
    trigger("other");
    wait::until("a ready run on the other queue", PATIENCE, || (state("other") == "ready").then_some(()));
    trigger("usual");
    wait::until("the end of the usual run", PATIENCE, || (state("usual") == "succeeded").then_some(()));
    assert!(orloj.stop().success());
}
