//! Bad input on the embedded log: malformed manifests, and records that can't be used, of every kind there is.
//! What is kept, what is said, and that nothing else stops.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::clock::SystemClock;
use orloj_runtime::codec;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::log::{Header, Log, NewRecord, Record};
use orloj_tests::fires::reader;
use orloj_tests::process::{Orloj, PATIENCE, run};
use orloj_tests::wait;

#[test]
fn a_malformed_manifest_is_refused_with_its_place_and_nothing_is_sent() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("job.yaml");
    for (text, wanted) in [
        (
            "apiVersion: orloj/v1\nkind: Job\nmetadata: {namespace: a, name: b}\nspec:\n  shedule: {every: 1m}\n",
            ["shedule", "5"],
        ),
        (
            "apiVersion: orloj/v1\nkind: Job\nmetadata: {namespace: a, name: B}\nspec: {run: {exec: {command: [x]}}}\n",
            ["metadata.name", "B"],
        ),
        (
            "apiVersion: orloj/v1\nkind: Job\nmetadata: {namespace: a, name: b}\nspec: {schedule: {cron: '61 * * * *'}, run: {exec: {command: [x]}}}\n",
            ["minute", "61"],
        ),
        ("kind: [\n", ["job.yaml:1", "bracket"]),
    ] {
        fs::write(&file, text).expect("a file");
        // Nobody listens there: were anything sent, the answer would be another one.
        let output = run(&["apply", "-f", &file.display().to_string(), "--server", "http://127.0.0.1:9"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{text}\n{said}");
        for word in wanted {
            assert!(said.contains(word), "`{word}` is not in:\n{said}");
        }
    }
}

/// Records that a careless producer may leave in the directory while nothing runs.
fn poison(shards: ShardCount) -> Vec<NewRecord> {
    let partition = |key: &str| shards.shard_of_key(key.as_bytes()).0;
    let at = |key: &str, value: Vec<u8>| NewRecord::new(topic::JOBS, partition(key), key, Some(value));
    let mut wrong_partition = at("bad/partition", b"{}".to_vec());
    wrong_partition.partition = (wrong_partition.partition + 1) % shards.get();
    let mut with_header = at("bad/bytes", vec![0xC3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    with_header.headers = vec![Header { key: "origin".to_owned(), value: Some(vec![0, 159, 146, 150]) }];
    let no_key = NewRecord { key: None, ..at("no/key", b"{}".to_vec()) };
    vec![
        with_header,
        at("bad/json", b"{\"kind\": 7}".to_vec()),
        at("bad/empty", Vec::new()),
        at("bad/large", vec![b'{'; 300 * 1024]),
        at("not a job id", b"{}".to_vec()),
        wrong_partition,
        NewRecord { partition: partition(""), ..no_key },
        NewRecord::new(topic::COMMANDS, partition("bad/command"), "bad/command", Some(b"\x00\x00".to_vec())),
        NewRecord::new(topic::FIRES, partition("bad/fire"), "bad/fire", Some(b"no avro".to_vec())),
        NewRecord::new(topic::ATTEMPT_EVENTS, partition("bad/attempt"), "bad/attempt", Some(vec![0xC3, 0x01])),
    ]
}

#[test]
fn what_cannot_be_used_is_kept_byte_for_byte_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().display().to_string();
    let manifest = folder.path().join("good.yaml");
    fs::write(
        &manifest,
        "apiVersion: orloj/v1\nkind: Job\nmetadata: {namespace: good, name: job}\nspec:\n  \
         schedule: {every: 1s}\n  run: {exec: {command: [/bin/true]}}\n",
    )
    .expect("a file");
    let arguments = ["dev", "--quiet", "--listen", "127.0.0.1:0", "--data", &data];
    let mut first = Orloj::start(&arguments);
    first.url();
    assert!(first.stop().success());
    let shards = ShardCount::new(8).expect("a valid count");
    let poison = poison(shards);
    let log = EmbeddedLog::open(data.as_ref(), Arc::new(SystemClock::new())).expect("nobody holds it");
    log.appender().expect("an appender").append(poison.clone()).expect("an append");
    drop(log);

    let mut second = Orloj::start(&[&arguments[..], &["--file", &manifest.display().to_string()]].concat());
    let url = second.url();
    wait::until("a good run in spite of it all", PATIENCE, || {
        let mut response = ureq::get(format!("{url}/api/v1/runs?state=succeeded")).call().ok()?;
        let runs: serde_json::Value = response.body_mut().read_json().ok()?;
        runs["items"].as_array().is_some_and(|items| !items.is_empty()).then_some(())
    });
    assert!(second.stop().success());

    let log = EmbeddedLog::open(data.as_ref(), Arc::new(SystemClock::new())).expect("nobody holds it");
    let quarantine = all(&log, topic::QUARANTINE);
    for record in &poison {
        let kept = quarantine.iter().find(|kept| kept.key == record.key && kept.value == record.value);
        let kept = kept.unwrap_or_else(|| panic!("not kept: {:?} of {}", record.key, record.topic));
        assert!(kept.headers.starts_with(&record.headers), "headers changed: {kept:?}");
        let said = |name: &str| {
            let header = kept.headers.iter().find(|header| header.key == name);
            let value = header.and_then(|header| header.value.clone()).unwrap_or_else(|| panic!("no header {name}"));
            String::from_utf8(value).expect("text")
        };
        assert_eq!(said("orloj-quarantine-topic"), record.topic);
        assert_eq!(said("orloj-quarantine-partition"), record.partition.to_string());
        assert!(said("orloj-quarantine-offset").parse::<i64>().is_ok());
        assert!(!said("orloj-quarantine-error").is_empty());
    }
    assert_eq!(quarantine.len(), poison.len(), "nothing else, and nothing twice");
    let rejected: Vec<String> = all(&log, topic::JOB_EVENTS)
        .iter()
        .filter_map(|record| codec::decode::<JobEvent>(record.value.as_deref()?).ok())
        .filter(|event| event.kind == JobEventType::Rejected)
        .map(|event| event.job.to_string())
        .collect();
    for job in ["bad/bytes", "bad/json", "bad/empty", "bad/large"] {
        assert!(rejected.iter().any(|rejected| rejected == job), "no answer about {job}: {rejected:?}");
    }
}

fn all(log: &dyn Log, name: &str) -> Vec<Record> {
    let mut reader = reader(log, name);
    let mut records = Vec::new();
    loop {
        let some = reader.poll(1000, Duration::from_millis(100)).expect("a readable log");
        if some.is_empty() {
            return records;
        }
        records.extend(some);
    }
}
