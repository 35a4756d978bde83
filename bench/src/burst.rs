//! Many one-shots due at the same instant: how long until the last decision is durable and readable. Invariant:
//! counted by an independent reader that sees committed records only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use orloj_domain::fire::FireDecision;
use orloj_domain::job::JobDefinition;
use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Isolation, NewRecord, Reader, TopicPartition};
use serde_json::json;

use crate::bed::Bed;
use crate::calibrate::calibrate;

/// Definitions appended at once.
const CHUNK: usize = 2000;

/// Runs the workload, the rounds for warming up first, and prints the line of the last round.
pub(crate) fn run(bed: &Bed, jobs: usize, warm_rounds: usize) {
    eprintln!("burst on {}: calibrating", bed.name);
    let calibration = calibrate(bed);
    let services = bed.start(&["trigger"]);
    let mut events = reader(bed, topic::JOB_EVENTS);
    let mut fires = reader(bed, topic::FIRES);
    let mut line = json!(null);
    for index in 0..=warm_rounds {
        line = round(bed, index, jobs, events.as_mut(), fires.as_mut());
        eprintln!("burst on {}: round {index}: {line}", bed.name);
    }
    services.stop();
    line["calibration"] = calibration;
    line["warm_rounds"] = warm_rounds.into();
    println!("{line}");
}

/// One burst: definitions, the wait for their instant, and all decisions.
fn round(bed: &Bed, index: usize, jobs: usize, events: &mut dyn Reader, fires: &mut dyn Reader) -> serde_json::Value {
    // Far enough away that all definitions are in force before it.
    let due = bed.clock.now().plus(Duration::from_secs(10 + jobs as u64 / 2000));
    let offered = Instant::now();
    offer(bed, &format!("round-{index}"), jobs, due);
    let accepted = count_accepted(events, jobs);
    let admission = offered.elapsed();
    assert!(bed.clock.now() < due, "admission took too long: more than {admission:?}");
    eprintln!("burst on {}: {accepted} accepted in {admission:?}, waiting for the instant", bed.name);
    let mut before = bed.cpu();
    let mut last = due;
    let mut decided = 0;
    let mut has_begun = false;
    while decided < jobs {
        if !has_begun && bed.clock.now().plus(Duration::from_millis(200)) >= due {
            before = bed.cpu();
            has_begun = true;
        }
        let records = fires.poll(10_000, Duration::from_millis(100)).expect("a readable log");
        for record in records {
            if let Some(value) = record.value.filter(|_| record.key.as_deref() != Some(b"__barrier")) {
                let _: FireDecision = codec::decode(&value).expect("a decision");
                decided += 1;
                last = bed.clock.now();
            }
        }
    }
    let after = bed.cpu();
    let seconds = last.since(due).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = jobs as f64 / seconds;
    json!({
        "workload": "burst", "backend": bed.name, "jobs": jobs,
        "seconds_to_last_decision": seconds, "decisions_per_second": rate.round(),
        "admission_per_second": (jobs as f64 / admission.as_secs_f64()).round(),
        "cpu_seconds": {"orloj_and_reader": after.0 - before.0, "broker": after.1 - before.1},
    })
}

fn definition(name: &str, due: Timestamp) -> JobDefinition {
    let text = format!(
        r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"bench","name":"{name}"}},
            "spec":{{"schedule":{{"at":"{due}"}},"run":{{"exec":{{"command":["/bin/true"]}}}}}}}}"#
    );
    manifest::parse_json(&text).expect("a valid manifest")
}

fn offer(bed: &Bed, prefix: &str, jobs: usize, due: Timestamp) {
    let mut appender = bed.log.appender().expect("an appender");
    let indexes: Vec<usize> = (0..jobs).collect();
    for chunk in indexes.chunks(CHUNK) {
        let records = chunk
            .iter()
            .map(|index| {
                let definition = definition(&format!("{prefix}-job-{index}"), due);
                let partition = bed.shards.shard_of(&definition.job).0;
                NewRecord::new(topic::JOBS, partition, definition.job.as_str(), Some(codec::encode(&definition)))
            })
            .collect();
        appender.append(records).expect("an append");
    }
}

/// A reader of a whole topic from its start.
pub(crate) fn reader(bed: &Bed, name: &str) -> Box<dyn Reader> {
    let mut reader = bed.log.reader(Isolation::Committed).expect("a reader");
    let positions: Vec<_> = bed.shards.all().map(|shard| (TopicPartition::new(name, shard.0), 0)).collect();
    reader.read_from(&positions).expect("an existing topic");
    reader
}

/// Waits until `jobs` definitions were accepted.
pub(crate) fn count_accepted(events: &mut dyn Reader, jobs: usize) -> usize {
    let mut accepted = BTreeMap::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while accepted.len() < jobs {
        assert!(Instant::now() < deadline, "only {} of {jobs} definitions were accepted", accepted.len());
        for record in events.poll(10_000, Duration::from_millis(100)).expect("a readable log") {
            let Some(value) = record.value else { continue };
            let event: JobEvent = codec::decode(&value).expect("an event");
            assert_eq!(event.kind, JobEventType::Accepted, "{event:?}");
            accepted.insert(event.job, ());
        }
    }
    accepted.len()
}
