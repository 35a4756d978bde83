//! Attempts of jobs that bound their live runs, under kills and freezes of dispatchers and runners and restarts of the broker.
//! The witness is the kernel: each attempt holds a file lock for as long as any process of it lives. Not here: fire times
//! (`main`). Invariant: nothing here asks a service what it did.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use orloj_domain::id::RunId;
use orloj_domain::owner::BARRIER_KEY;
use orloj_domain::run::RunEvent;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::Record;
use orloj_tests::broker::{Broker, Kafka, kafka_mode};
use orloj_tests::fires::reader;
use orloj_tests::installation::Installation;
use orloj_tests::process::{Orloj, PATIENCE};
use orloj_tests::{is_long, wait};

/// Jobs by their overlap policy, each due every second.
const POLICIES: [&str; 3] = ["forbid", "queue", "replace"];
/// How long attempts last, by policy, in seconds: one kind longer than the lease, so that what a lost runner leaves behind
/// would meet the next attempt.
const LASTS: [&str; 3] = ["6", "0.6", "0.6"];
const LEASE: &str = "runner.lease=3s";
/// Longer than the lease, and longer than a session of the group.
const FREEZE: Duration = Duration::from_secs(8);

/// What attempts wrote, job by job.
struct Ledger {
    folder: tempfile::TempDir,
    seen: BTreeMap<&'static str, usize>,
}

impl Ledger {
    fn path(&self, policy: &str) -> PathBuf {
        self.folder.path().join(policy)
    }

    /// The job of a policy: an attempt that can't have the lock says so, one that has it says when it began and ended.
    fn job(&self, policy: &str) -> String {
        let (ledger, lock) = (self.path(policy), self.folder.path().join(format!("{policy}.lock")));
        let (ledger, lock) = (ledger.display(), lock.display());
        let lasts = POLICIES.iter().zip(LASTS).find(|(known, _)| **known == policy).map_or("1", |(_, lasts)| lasts);
        let script = format!(
            "exec 9>>{lock}; flock -n 9 || {{ echo overlap $ORLOJ_RUN_ID >> {ledger}; exit 9; }}; \
             echo start $ORLOJ_RUN_ID $ORLOJ_FENCING_TOKEN >> {ledger}; (setsid sleep {lasts} & wait); sleep 0.1; \
             echo end $ORLOJ_RUN_ID $ORLOJ_FENCING_TOKEN >> {ledger}"
        );
        format!(
            r#""schedule":{{"every":"1s"}},"overlap":{{"policy":"{policy}","max":5}},
               "retry":{{"maxAttempts":3,"backoff":{{"initial":"100ms"}}}},"run":{{"shell":{{"script":"{script}"}}}}"#
        )
    }

    fn lines(path: &Path) -> Vec<String> {
        fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits until an attempt of every job has begun and ended that had not before.
    fn go_on(&mut self, what: &str) {
        for policy in POLICIES {
            let seen = self.seen.get(policy).copied().unwrap_or(0);
            let path = self.path(policy);
            let count = wait::until(&format!("{policy} goes on, {what}"), 3 * PATIENCE, || {
                let lines = Self::lines(&path);
                let starts = lines.iter().skip(seen).position(|line| line.starts_with("start"))?;
                let is_complete = lines.iter().skip(seen + starts).any(|line| line.starts_with("end"));
                is_complete.then_some(lines.len())
            });
            self.seen.insert(policy, count);
        }
        eprintln!("{what}: every job goes on");
    }

    /// Waits until an attempt of the job whose attempts outlast a lease has just begun.
    fn wait_long_one(&self) {
        let path = self.path(POLICIES[0]);
        let starts = || Self::lines(&path).iter().filter(|line| line.starts_with("start")).count();
        let before = starts();
        wait::until("a long attempt", 3 * PATIENCE, || (starts() > before).then_some(()));
    }

    /// Nobody met another, and the token of a run grew with each of its attempts.
    fn check(&self) {
        for policy in POLICIES {
            let lines = Self::lines(&self.path(policy));
            let mut tokens: BTreeMap<&str, i64> = BTreeMap::new();
            for line in &lines {
                let mut words = line.split(' ');
                let (word, run) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                assert_ne!(word, "overlap", "two attempts of the job {policy} at once, the second of run {run}");
                if word == "start" {
                    let token: i64 = words.next().and_then(|text| text.parse().ok()).expect("a token");
                    let before = tokens.insert(run, token);
                    assert!(before.is_none_or(|before| before < token), "{policy}: {before:?} before {line}");
                }
            }
            eprintln!(
                "{policy}: {} attempts, one at a time",
                lines.iter().filter(|line| line.starts_with("start")).count()
            );
        }
    }
}

/// Two of a service, of which one is hit at a time.
struct Pair<'a> {
    installation: &'a Installation,
    service: &'static str,
    folder: tempfile::TempDir,
    members: Vec<Orloj>,
    started: usize,
}

impl<'a> Pair<'a> {
    fn new(installation: &'a Installation, service: &'static str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut this = Self { installation, service, folder, members: Vec::new(), started: 0 };
        this.start();
        this.start();
        this
    }

    fn start(&mut self) {
        self.started += 1;
        let data = format!("data.dir={}", self.folder.path().join(self.started.to_string()).display());
        self.members.push(self.installation.serve(self.service, &["--set", LEASE, "--set", &data]));
    }

    /// Both are killed, and others come in their place.
    fn kill(&mut self) {
        for member in std::mem::take(&mut self.members) {
            member.kill();
            self.start();
        }
    }

    fn freeze(&self, member: usize) {
        self.members[member].signal(Signal::SIGSTOP);
        wait::while_it_lasts(FREEZE);
        self.members[member].signal(Signal::SIGCONT);
    }
}

#[test]
fn attempts_of_bounded_jobs_never_meet() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let mut broker = Broker::start();
    let installation = Installation::on(broker.bootstrap(), "attempts");
    let mut ledger = Ledger { folder: tempfile::tempdir().expect("a folder"), seen: BTreeMap::new() };
    let trigger = installation.serve("trigger", &[]);
    let mut dispatchers = Pair::new(&installation, "dispatcher");
    let mut runners = Pair::new(&installation, "runner");
    for policy in POLICIES {
        installation.offer(policy, &ledger.job(policy));
    }
    ledger.go_on("at the start");
    for round in 0..if is_long() { 10 } else { 1 } {
        ledger.wait_long_one();
        runners.kill();
        ledger.go_on(&format!("round {round}: the runners were killed"));
        dispatchers.kill();
        ledger.go_on(&format!("round {round}: the dispatchers were killed"));
        for member in [0, 1] {
            ledger.wait_long_one();
            runners.freeze(member);
            ledger.go_on(&format!("round {round}: runner {member} froze for longer than its lease"));
        }
        dispatchers.freeze(0);
        ledger.go_on(&format!("round {round}: a dispatcher froze for longer than its session"));
        // With one copy of everything, a stop may lose the end of what is committed at that moment (ADR 0019).
        broker.restart();
        ledger.go_on(&format!("round {round}: the broker restarted"));
    }
    // Nothing is written from here on.
    trigger.kill();
    for member in dispatchers.members.into_iter().chain(runners.members) {
        member.kill();
    }
    ledger.check();
    check_ends(&installation);
}

/// Each run has at most one end, and nothing comes after it.
fn check_ends(installation: &Installation) {
    let mut events = reader(&installation.log, topic::RUN_EVENTS);
    let mut last: BTreeMap<RunId, RunEvent> = BTreeMap::new();
    let mut ended = 0;
    loop {
        let records = events.poll(5000, Duration::from_secs(2)).expect("a readable log");
        if records.is_empty() {
            break;
        }
        let is_event = |record: &Record| record.key_text() != Some(BARRIER_KEY);
        for value in records.into_iter().filter(is_event).filter_map(|record| record.value) {
            let event: RunEvent = codec::decode(&value).expect("an event");
            if let Some(before) = last.get(&event.run_id) {
                assert!(!before.state.is_terminal(), "{}: {} after {}", event.run_id, event.state, before.state);
            }
            ended += usize::from(event.state.is_terminal());
            last.insert(event.run_id, event);
        }
    }
    eprintln!("{ended} of {} runs have ended, each once", last.len());
}
