//! What a job costs the trigger in memory: one machine restored from encoded states, then every job decided
//! once. Invariant: measured as resident memory of this process, before anything else has run in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use orloj_domain::id::JobId;
use orloj_domain::job::JobDefinition;
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::TriggerState;
use orloj_runtime::codec;
use orloj_runtime::driver::Machine;
use orloj_trigger::{TriggerInput, TriggerMachine};
use serde_json::json;

use crate::usage::resident_mib;

/// 2027-01-15T08:00:00Z.
const START_MS: i64 = 1_800_000_000_000;
const MIB: f64 = 1024.0 * 1024.0;

/// Runs the workload with jobs of one cron expression and prints its line.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub(crate) fn run(jobs: usize, cron: &str) {
    let start = Timestamp::from_millis(START_MS);
    let mut state = state(cron, start);
    let before = resident_mib(std::process::id());
    let bytes_per_job = |now: f64| ((now - before) * MIB / jobs as f64).round();
    let mut machine = TriggerMachine::new(None);
    let mut restore = Duration::ZERO;
    for index in 0..jobs {
        state.job = JobId::new("bench", &format!("job-{index:08}")).expect("a valid id");
        if let Some(definition) = &mut state.definition {
            Arc::make_mut(definition).job.clone_from(&state.job);
        }
        let restored = codec::decode::<TriggerState>(&codec::encode(&state)).expect("what was encoded");
        let started = Instant::now();
        machine.replay_state(&restored);
        restore += started.elapsed();
    }
    let restored = resident_mib(std::process::id());
    eprintln!("memory: {jobs} jobs restored in {restore:?}, {} bytes a job", bytes_per_job(restored));
    let started = Instant::now();
    let mut decisions = 0;
    // Until the first job would fire again: by then each has fired once.
    while let Some(due) = machine.next_deadline().filter(|_| decisions < jobs) {
        for event in machine.decide(&TriggerInput::Tick, due) {
            machine.apply(&event);
            decisions += 1;
        }
    }
    let decide = started.elapsed();
    let decided = resident_mib(std::process::id());
    println!(
        "{}",
        json!({
            "workload": "memory", "jobs": jobs, "cron": cron,
            "bytes_per_job_restored": bytes_per_job(restored), "bytes_per_job_decided": bytes_per_job(decided),
            "resident_mib_before": before, "resident_mib": decided,
            "replay_seconds_without_decoding": restore.as_secs_f64(),
            "decisions": decisions, "microseconds_per_decision": decide.as_secs_f64() * 1e6 / decisions as f64,
        })
    );
}

/// A job with what it has when it fires for the first time.
fn state(cron: &str, start: Timestamp) -> TriggerState {
    TriggerState {
        job: JobId::new("bench", "job").expect("a valid id"),
        version: 1,
        definition: Some(definition(cron).into()),
        definition_offset: 0,
        jobs_next: 1,
        commands_next: 0,
        effective_from: start,
        cursor: start,
        fires: 0,
        pause: None,
        recent_commands: Vec::new(),
        after_finish: None,
        backfill: None,
        failures: 0,
    }
}

fn definition(cron: &str) -> JobDefinition {
    let text = format!(
        r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"bench","name":"job",
            "labels":{{"team":"billing"}}}},"spec":{{"schedule":{{"cron":{cron}}},
            "run":{{"exec":{{"command":["/usr/bin/env","true"]}}}}}}}}"#,
        cron = json!(cron)
    );
    manifest::parse_json(&text).expect("a valid manifest")
}
