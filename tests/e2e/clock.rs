//! A real process whose wall clock is set wrong while it runs, by libfaketime. Not here: clocks that only move when
//! told (`simulation`, the trigger's own tests). Invariant: the monotonic clock is the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_tests::fires::{Seen, reader};
use orloj_tests::process::{Orloj, PATIENCE};
use orloj_tests::wait;

use crate::dev::{every_second, get};

/// The library of Debian's package `faketime`.
fn library() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("a Linux").filter_map(Result::ok).map(|entry| entry.path());
    folders
        .map(|folder| folder.join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("libfaketimeMT.so.1 is missing: `make test` installs Debian's package faketime")
}

/// Sets the clock of the processes that look at this file, in one step.
fn set(file: &Path, offset: &str) {
    let new = file.with_extension("new");
    fs::write(&new, offset).expect("a file");
    fs::rename(&new, file).expect("a file");
}

/// The newest fire time that was decided.
fn newest(url: &str) -> Timestamp {
    wait::until("a decision", PATIENCE, || {
        let fires = get(&format!("{url}/api/v1/jobs/test/tick-0/fires?limit=1"));
        fires["items"][0]["fireTime"].as_str()?.parse().ok()
    })
}

fn wait_for_more(url: &str, what: &str) -> Timestamp {
    let before = newest(url);
    wait::until(what, PATIENCE, || Some(newest(url)).filter(|now| *now > before))
}

#[test]
fn a_wall_clock_that_is_set_wrong_fires_nothing_early_and_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let (data, offset) = (folder.path().join("data"), folder.path().join("offset"));
    let manifest = folder.path().join("jobs.yaml");
    fs::write(&manifest, every_second(5)).expect("a file");
    set(&offset, "+0");
    let arguments = ["dev", "--quiet", "--listen", "127.0.0.1:0", "--data", &data.display().to_string(), "--file"];
    let variables = [
        ("LD_PRELOAD", library().display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", offset.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut orloj = Orloj::start_with(&[&arguments[..], &[&manifest.display().to_string()]].concat(), &variables);
    let url = orloj.url();
    wait_for_more(&url, "decisions at first");

    set(&offset, "+3600");
    orloj.wait_for("the wall clock jumped forward");
    let metrics = || ureq::get(format!("{url}/metrics")).call().ok()?.body_mut().read_to_string().ok();
    wait::until("an alarm", PATIENCE, || metrics()?.contains("orloj_trigger_clock_jumps_total 1").then_some(()));
    let readyz = ureq::get(format!("{url}/readyz")).call();
    assert!(readyz.is_err(), "not ready while nothing is decided: {readyz:?}");
    let real_now = SystemClock::new().now();
    assert!(newest(&url) <= real_now, "{} was decided at {real_now}", newest(&url));
    set(&offset, "+0");
    wait_for_more(&url, "decisions after the clock came back");

    set(&offset, "-3600");
    orloj.wait_for("the wall clock went back");
    set(&offset, "+0");
    wait_for_more(&url, "decisions after the clock was put right");
    orloj.kill();

    let log = EmbeddedLog::open(&data, Arc::new(SystemClock::new())).expect("nobody holds it");
    let mut seen = Seen::default();
    seen.read(reader(&log, topic::FIRES).as_mut());
    assert_eq!(seen.findings(), Vec::<String>::new());
}
