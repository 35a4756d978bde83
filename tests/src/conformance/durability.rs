//! Cases: what a restart and a killed process leave. Not here: disks that fill up (the embedded log's own tests).

use orloj_runtime::log::{Isolation, TopicPartition};

use super::holder::{ACKNOWLEDGED, PARTITIONS, TOPIC};
use super::{Backend, append, create, read_count, read_to_end, reader_at, record, texts};
use crate::wait;

/// What was acknowledged is there after a restart, at the same offsets, with topics, ends and what was aborted.
pub fn a_restart_loses_nothing(backend: &mut impl Backend) {
    create(&*backend.log(), "events", 2, &[("retention.ms", "86400000")]);
    let at = TopicPartition::new("events", 1);
    let mut offsets = Vec::new();
    for round in 0..3 {
        let log = backend.log();
        offsets.extend(append(&*log, vec![record("events", 1, "key", &format!("{round} whole"))]));
        let mut writer = log.batch_writer("writer").expect("a writer");
        writer.stage(vec![record("events", 1, "key", &format!("{round} aborted"))]).expect("staged");
        writer.abort().expect("aborted");
        writer.stage(vec![record("events", 1, "key", &format!("{round} committed"))]).expect("staged");
        writer.commit().expect("committed");
        drop(writer);
        // A commit is acknowledged before its mark is in every partition, and the mark takes an offset.
        let end = wait::until("the end to settle", backend.patience(), || {
            let end = log.end(&at, Isolation::Committed).expect("an end");
            (end == log.end(&at, Isolation::Uncommitted).expect("an end")).then_some(end)
        });
        drop(log);
        backend.reopen();
        let log = backend.log();
        assert_eq!(log.end(&at, Isolation::Committed).expect("an end"), end);
        let topics = log.topics().expect("topics");
        assert_eq!(topics.len(), 1);
        assert_eq!(topics[0].partitions, 2);
        assert_eq!(topics[0].settings.get("retention.ms").map(String::as_str), Some("86400000"));
    }
    let read = read_to_end(backend, &at, 0, Isolation::Committed);
    let wanted: Vec<String> =
        (0..3).flat_map(|round| [format!("{round} whole"), format!("{round} committed")]).collect();
    assert_eq!(texts(&read), wanted);
    let whole: Vec<i64> = read.iter().step_by(2).map(|record| record.offset).collect();
    assert_eq!(whole, offsets);
}

/// A process killed with a batch open: nothing of the batch is visible, all that was acknowledged is, and readers
/// go on behind it.
pub fn a_killed_process_leaves_what_it_acknowledged(backend: &mut impl Backend) {
    backend.kill_a_holder();
    let log = backend.log();
    for partition in 0..PARTITIONS {
        append(&*log, vec![record(TOPIC, partition, "key", "after")]);
        let at = TopicPartition::new(TOPIC, partition);
        let mut reader = reader_at(&*log, &at, 0, Isolation::Committed);
        let read = texts(&read_count(backend, &mut *reader, ACKNOWLEDGED + 2));
        let mut wanted: Vec<String> = (0..ACKNOWLEDGED).map(|index| format!("acknowledged {index}")).collect();
        wanted.extend(["decided".to_owned(), "after".to_owned()]);
        assert_eq!(read, wanted);
    }
}
