//! What only the embedded log promises: one process, full disks, retention, the same answers every time.
//! Not here: what every back end must do (the conformance suite).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::time::Timestamp;

use super::{EmbeddedLog, EmbeddedOptions, Upkeep};
use crate::clock::{Clock, ManualClock};
use crate::log::{
    AppendError, ClaimerSpec, Isolation, Log, LogError, NewRecord, OwnerEvent, OwnerSpec, Record, TopicPartition,
    TopicSpec,
};

const START: i64 = 1_700_000_000_000;

fn clock() -> ManualClock {
    ManualClock::new(Timestamp::from_millis(START))
}

fn create(log: &EmbeddedLog, name: &str, partitions: i32, settings: &[(&str, &str)]) {
    let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let spec = TopicSpec { name: name.to_owned(), partitions, replication: 1, settings };
    log.create_topic(&spec).expect("created");
}

fn append(log: &EmbeddedLog, topic: &str, values: &[&str]) {
    let records = values.iter().map(|value| NewRecord::new(topic, 0, "key", Some(value.as_bytes().to_vec()))).collect();
    log.appender().expect("an appender").append(records).expect("appended");
}

fn read(log: &EmbeddedLog, topic: &str, from: i64) -> Result<Vec<Record>, LogError> {
    let mut reader = log.reader(Isolation::Committed)?;
    reader.read_from(&[(TopicPartition::new(topic, 0), from)])?;
    reader.poll(usize::MAX, Duration::ZERO)
}

fn open(directory: &Path, clock: &ManualClock) -> EmbeddedLog {
    EmbeddedLog::open(directory, Arc::new(clock.clone())).expect("opened")
}

#[test]
fn a_directory_has_one_process() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = open(directory.path(), &clock());
    let second = EmbeddedLog::open(directory.path(), Arc::new(clock()));
    let text = second.err().map(|error| error.to_string()).unwrap_or_default();
    let wanted = format!(
        "`{}` is in use by another orloj process (pid {}): stop it or choose another --data directory",
        directory.path().display(),
        std::process::id()
    );
    assert_eq!(text, wanted);
    drop(log);
    open(directory.path(), &clock());
}

#[test]
fn a_full_disk_loses_nothing_and_is_overcome() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let options = EmbeddedOptions { file_bytes_max: Some(1024 * 1024), ..EmbeddedOptions::default() };
    let log = EmbeddedLog::open_with(directory.path(), Arc::new(clock.clone()), options).expect("opened");
    create(&log, "events", 1, &[("retention.ms", "1000")]);
    let mut appender = log.appender().expect("an appender");
    let record = |index: i64| NewRecord::new("events", 0, index.to_string(), Some(vec![7; 50_000]));
    let mut acknowledged = 0;
    let error = loop {
        match appender.append(vec![record(acknowledged)]) {
            Ok(positions) => {
                assert_eq!(positions[0].offset, acknowledged);
                acknowledged += 1;
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, AppendError::Full(_)), "{error:?}");
    assert!(error.to_string().contains("free space"), "{error}");
    assert!((5..25).contains(&acknowledged), "{acknowledged}");
    assert_eq!(read(&log, "events", 0).expect("read").len(), usize::try_from(acknowledged).unwrap_or(0));
    clock.advance(Duration::from_secs(2));
    assert_eq!(log.maintain(clock.now()).expect("maintained").expired, u64::try_from(acknowledged).unwrap_or(0));
    let positions = appender.append(vec![record(0)]).expect("there is space again");
    assert_eq!(positions[0].offset, acknowledged);
}

#[test]
fn retention_moves_the_start_and_never_the_end() {
    let directory = tempfile::tempdir().expect("a directory");
    let clock = clock();
    let mut log = open(directory.path(), &clock);
    let at = TopicPartition::new("events", 0);
    create(&log, "events", 1, &[("retention.ms", "60000")]);
    append(&log, "events", &["1", "2"]);
    clock.advance(Duration::from_secs(50));
    append(&log, "events", &["3"]);
    clock.advance(Duration::from_secs(20));
    assert_eq!(log.maintain(clock.now()).expect("maintained"), Upkeep { expired: 2, compacted: 0 });
    let gone = read(&log, "events", 1);
    assert!(matches!(gone, Err(LogError::OutOfRange { wanted: 1, first: 2, .. })), "{gone:?}");
    assert_eq!(read(&log, "events", 2).expect("read").len(), 1);
    assert_eq!(log.offset_at(&at, Timestamp::MIN).expect("an offset"), 2);
    clock.advance(Duration::from_secs(60));
    log.maintain(clock.now()).expect("maintained");
    for _ in 0..2 {
        assert_eq!(log.end(&at, Isolation::Committed).expect("an end"), 3, "offsets are never used twice");
        assert_eq!(log.offset_at(&at, Timestamp::MIN).expect("an offset"), 3);
        drop(log);
        log = open(directory.path(), &clock);
    }
}

#[test]
fn compaction_waits_for_the_lag_and_keeps_tombstones_for_their_time() {
    let clock = clock();
    let log = EmbeddedLog::in_memory(Arc::new(clock.clone()));
    let settings =
        [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "10000"), ("delete.retention.ms", "60000")];
    create(&log, "state", 1, &settings);
    append(&log, "state", &["1", "2"]);
    let tombstone = NewRecord::new("state", 0, "key", None);
    log.appender().expect("an appender").append(vec![tombstone]).expect("appended");
    let left_after = |time: Duration| {
        clock.advance(time);
        log.maintain(clock.now()).expect("maintained");
        read(&log, "state", 0).expect("read").len()
    };
    assert_eq!(left_after(Duration::from_secs(9)), 3, "all too young");
    assert_eq!(left_after(Duration::from_secs(2)), 1, "the tombstone is the newest value");
    assert_eq!(left_after(Duration::from_secs(60)), 0);
}

#[test]
fn what_was_aborted_is_forgotten_with_its_records() {
    let clock = clock();
    let directory = tempfile::tempdir().expect("a directory");
    for log in [EmbeddedLog::in_memory(Arc::new(clock.clone())), open(directory.path(), &clock)] {
        create(&log, "events", 1, &[("retention.ms", "1000")]);
        let mut writer = log.batch_writer("writer").expect("a writer");
        writer.stage(vec![NewRecord::new("events", 0, "key", None)]).expect("staged");
        writer.abort().expect("aborted");
        assert_eq!(log.core().broker().aborted.len(), 1);
        log.maintain(clock.now()).expect("maintained");
        assert_eq!(log.core().broker().aborted.len(), 1, "its record is still there");
        log.maintain(clock.now().plus(Duration::from_secs(2))).expect("maintained");
        assert!(log.core().broker().aborted.is_empty());
        assert!(read(&log, "events", 1).expect("read").is_empty());
    }
}

#[test]
fn memory_gives_the_same_answers_every_time() {
    assert_eq!(a_history(), a_history());
}

/// Owners and claimers that come, fall silent and go; everything they were told, as text.
fn a_history() -> Vec<String> {
    let clock = clock();
    let log = EmbeddedLog::in_memory(Arc::new(clock.clone()));
    for topic in ["input", "state", "owners", "ready"] {
        create(&log, topic, 8, &[]);
    }
    let spec = OwnerSpec {
        service: "trigger".to_owned(),
        membership_topic: "input".to_owned(),
        owners_topic: "owners".to_owned(),
        restore_topics: vec!["state".to_owned()],
        input_topics: vec!["input".to_owned()],
        shared_topics: Vec::new(),
        outputs: Vec::new(),
        claimed: None,
        shards: 8,
    };
    let claimer = ClaimerSpec {
        group: "runners".to_owned(),
        topics: vec!["ready".to_owned()],
        member: "m".to_owned(),
        peers: None,
    };
    let mut owners = BTreeMap::new();
    let mut claimers = BTreeMap::new();
    let mut history = Vec::new();
    for step in 0_u64..200 {
        if step % 20 == 0 {
            owners.insert(step, log.own(spec.clone()).expect("a share"));
            claimers.insert(step, log.claim(claimer.clone()).expect("a share"));
        }
        if step % 50 == 49 {
            owners.pop_first();
            claimers.pop_first();
        }
        for (number, owner) in owners.iter_mut().filter(|(number, _)| (*number + step) % 7 != 0) {
            for event in owner.poll(10, Duration::ZERO).expect("a poll") {
                history.push(format!("{step} {number} {} {event:?}", owner.incarnation()));
                if let OwnerEvent::Revoking(shards) = &event {
                    owner.release(shards).expect("released");
                }
            }
        }
        for (number, claimer) in &mut claimers {
            history.push(format!("{step} {number} {:?}", claimer.poll(10, Duration::ZERO).expect("a poll")));
        }
        append(&log, "ready", &[&step.to_string()]);
        clock.advance(Duration::from_millis(500));
    }
    history
}

#[test]
fn nobody_else_may_read_its_files() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().expect("a directory");
    let log = EmbeddedLog::open(directory.path(), Arc::new(clock())).expect("a log");
    create(&log, "events", 1, &[]);
    append(&log, "events", &["secret"]);
    let mut names = Vec::new();
    for file in std::fs::read_dir(directory.path()).expect("a directory").flatten() {
        let mode = file.metadata().expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?} has mode {mode:o}", file.file_name());
        names.push(file.file_name());
    }
    assert!(names.len() >= 3, "{names:?}");
}
