//! Cases: what compaction keeps. Not here: when it runs; the harness forces it.

use std::collections::BTreeMap;

use orloj_runtime::log::{Isolation, NewRecord, TopicPartition};

use super::{Backend, append, create, read_to_end, record, text};

const EAGER: [(&str, &str); 7] = [
    ("cleanup.policy", "compact"),
    ("min.compaction.lag.ms", "0"),
    ("max.compaction.lag.ms", "1"),
    ("delete.retention.ms", "0"),
    ("min.cleanable.dirty.ratio", "0.001"),
    ("segment.ms", "100"),
    ("segment.bytes", "1048576"),
];

fn latest(backend: &impl Backend, at: &TopicPartition) -> BTreeMap<String, Option<String>> {
    let records = read_to_end(backend, at, 0, Isolation::Committed);
    let mut offsets: Vec<i64> = records.iter().map(|record| record.offset).collect();
    offsets.dedup();
    assert!(offsets.is_sorted() && offsets.len() == records.len(), "offsets grow");
    let value = |record: &orloj_runtime::log::Record| record.value.as_ref().map(|_| text(record));
    records.iter().map(|record| (record.key_text().unwrap_or_default().to_owned(), value(record))).collect()
}

fn expected(pairs: &[(&str, &str)]) -> BTreeMap<String, Option<String>> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), Some((*value).to_owned()))).collect()
}

/// The newest value of each key stays, older ones go, offsets stay what they were.
pub fn keeps_the_newest_of_each_key(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "state", 1, &EAGER);
    let at = TopicPartition::new("state", 0);
    let mut offsets = Vec::new();
    for round in 0..20 {
        let value = round.to_string();
        offsets.extend(append(&*log, vec![record("state", 0, "a", &value), record("state", 0, "b", &value)]));
    }
    append(&*log, vec![record("state", 0, "c", "once")]);
    let end = log.end(&at, Isolation::Committed).expect("an end");
    backend.compact(std::slice::from_ref(&at));
    assert_eq!(latest(backend, &at), expected(&[("a", "19"), ("b", "19"), ("c", "once")]));
    let left = read_to_end(backend, &at, 0, Isolation::Committed);
    assert!(left.len() < 41, "compaction removed something: {} of 41 left", left.len());
    let newest: Vec<i64> = left.iter().rev().take(3).map(|record| record.offset).collect();
    assert_eq!(newest, [offsets[39] + 1, offsets[39], offsets[38]]);
    assert!(log.end(&at, Isolation::Committed).expect("an end") >= end, "the end never goes back");
}

/// A tombstone ends a key; neither it nor a value of before comes back.
pub fn a_tombstone_ends_a_key(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "state", 1, &EAGER);
    let at = TopicPartition::new("state", 0);
    append(&*log, vec![record("state", 0, "gone", "1"), record("state", 0, "kept", "1")]);
    append(&*log, vec![NewRecord::new("state", 0, "gone", None), record("state", 0, "kept", "2")]);
    append(&*log, vec![record("state", 0, "other", "1")]);
    for _ in 0..2 {
        backend.compact(std::slice::from_ref(&at));
        let mut state = latest(backend, &at);
        state.retain(|_, value| value.is_some());
        assert_eq!(state, expected(&[("kept", "2"), ("other", "1")]));
    }
}

/// A key whose newer value was aborted, or is still undecided, keeps its older one.
pub fn an_aborted_value_hides_no_older_one(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "state", 1, &EAGER);
    let at = TopicPartition::new("state", 0);
    append(&*log, vec![record("state", 0, "a", "good"), record("state", 0, "b", "good")]);
    let mut writer = log.batch_writer("writer").expect("a writer");
    writer.stage(vec![record("state", 0, "a", "bad"), NewRecord::new("state", 0, "b", None)]).expect("staged");
    backend.compact(std::slice::from_ref(&at));
    writer.abort().expect("aborted");
    append(&*log, vec![record("state", 0, "c", "good")]);
    backend.compact(std::slice::from_ref(&at));
    let good = expected(&[("a", "good"), ("b", "good"), ("c", "good")]);
    assert_eq!(latest(backend, &at), good);
    drop((writer, log));
    // What was aborted stays invisible after its records, or what is known of them, were cleaned up.
    backend.reopen();
    assert_eq!(latest(backend, &at), good);
}
