//! What a waiting run costs in memory. A program of its own, so that nothing else is in its memory: what is looked at is what
//! the system says is resident. Invariant: a million runs that wait fit the memory that is promised for them.
#![cfg(target_os = "linux")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orloj_dispatcher::{DispatcherMachine, Input, Report, Request, Shares};
use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{JobId, RunId};
use orloj_domain::job::RunSpec;
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use orloj_runtime::codec;
use orloj_runtime::driver::Machine;

const RUNS: usize = 50_000;
/// As many as there are shards on Kafka; each has slack of its own.
const MACHINES: usize = 32;
/// Of 200 MiB for a million, without what the service needs for itself.
const BYTES_MAX: usize = 180;
/// Runs of jobs that have no other.
const ALONE: usize = 5_000;
/// A run that has nothing in common with others: its terms and the whole request are held for it alone.
const BYTES_ALONE_MAX: usize = 1_500;

fn spec(job: &str) -> Arc<RunSpec> {
    let text = format!(
        r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"billing","name":"{job}"}},
        "spec":{{"overlap":{{"policy":"allow"}},"retry":{{"maxAttempts":5,"backoff":{{"initial":"1h","max":"2h","jitter":0.2}}}},
        "run":{{"http":{{"method":"POST","url":"https://billing.internal/invoices/run?of={job}",
        "headers":{{"Authorization":{{"secretRef":"billing-token"}},"X-Team":"billing"}},
        "body":"{{\"run\":\"{{{{run.id}}}}\",\"at\":\"{{{{fireTime}}}}\"}}"}}}}}}}}"#
    );
    Arc::clone(&manifest::parse_json(&text).expect("a manifest").spec)
}

fn decision(job: &JobId, spec: &Arc<RunSpec>, number: usize) -> FireDecision {
    let number = i64::try_from(number).expect("small");
    let fire_time = Timestamp::from_millis(1_790_000_000_000 + number * 60_000);
    FireDecision {
        job: job.clone(),
        version: 3,
        trigger: TriggerKind::Schedule,
        fire_time,
        range_end: None,
        decision: Decision::Requested,
        reason: None,
        run_id: Some(RunId::of_fire_time(job, 3, fire_time)),
        coalesced_into: None,
        decided_at: fire_time.plus(Duration::from_millis(3 + number.unsigned_abs() % 90)),
        definition_offset: 4711,
        command_offset: None,
        command_id: None,
        actor: None,
        fires: number + 1,
        tzdb: Some("2026b".to_owned()),
        calendars: BTreeMap::new(),
        incarnation: Some("trigger-7f3a-0001".parse().expect("incarnation")),
        params: BTreeMap::new(),
        missed: None,
        reports_end: false,
        spec: Some(Arc::clone(spec)),
    }
}

/// Asks for so many runs of each of so many jobs, and fails their first attempts.
fn retrying(machines: &mut [DispatcherMachine], of: &str, jobs: usize, runs: usize, shares: &Shares) {
    for index in 0..jobs {
        let name = format!("{of}-{index}");
        let (job, spec): (JobId, _) = (format!("billing/{name}").parse().expect("job"), spec(&name));
        let machine = &mut machines[index % MACHINES];
        for number in 0..runs {
            let decision = decision(&job, &spec, number);
            let (run_id, now) = (decision.run_id.expect("a run"), decision.decided_at);
            let bytes = codec::encode(&decision);
            let offset = i64::try_from(index * runs + number).expect("small");
            let request = Request::of(&decision, offset, &[], &bytes, shares).expect("a request");
            turn(machine, &Input::Requested(Arc::new(request)), now);
            let report = Report {
                run_id,
                job: job.clone(),
                attempt: 1,
                token: 1,
                runner: "runner-1".parse().expect("runner"),
                session: "session-1".parse().expect("session"),
            };
            let outcome = Outcome { exit_code: Some(1), ..Outcome::new(OutcomeKind::Failed, "exit code 1") };
            turn(machine, &Input::Finished(report, outcome), now.plus(Duration::from_millis(900)));
            let run = machine.run(run_id).expect("live");
            assert!(run.due_at().is_some() && run.request.value() == bytes);
        }
    }
}

fn turn(machine: &mut DispatcherMachine, input: &Input, now: Timestamp) {
    for event in machine.decide(input, now) {
        machine.apply(&event);
    }
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

#[test]
fn runs_that_wait_for_another_attempt_are_small() {
    let shares = Shares::default();
    let mut machines: Vec<_> = (0..MACHINES).map(|_| DispatcherMachine::new(shares.clone())).collect();
    // What is needed once.
    retrying(&mut machines, "first", MACHINES, 1, &shares);
    let before = resident_bytes();
    retrying(&mut machines, "invoice", 1000, RUNS / 1000, &shares);
    let of_few_jobs = (resident_bytes() - before) / RUNS;
    println!("a waiting run costs {of_few_jobs} bytes");
    assert!(of_few_jobs <= BYTES_MAX, "a waiting run costs {of_few_jobs} bytes");
    let before = resident_bytes();
    retrying(&mut machines, "refund", ALONE, 1, &shares);
    let alone = (resident_bytes() - before) / ALONE;
    println!("one of a job of its own costs {alone} bytes");
    assert!(alone <= BYTES_ALONE_MAX, "the only waiting run of its job costs {alone} bytes");
}
