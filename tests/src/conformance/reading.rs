//! Cases: where a reader starts, moves and stops. Not here: what it may see (`batch`).

use orloj_domain::time::Timestamp;
use orloj_runtime::log::{Isolation, TopicPartition};

use super::{Backend, append, create, read_count, read_nothing, reader_at, record, texts};
use crate::wait;

fn fill(backend: &impl Backend) -> (TopicPartition, Vec<i64>) {
    let log = backend.log();
    create(&*log, "events", 2, &[]);
    let records = (0..10).map(|index| record("events", 1, "key", &index.to_string())).collect();
    (TopicPartition::new("events", 1), append(&*log, records))
}

/// From the start, from a position, and from the end.
pub fn reads_from_a_position(backend: &mut impl Backend) {
    let (at, offsets) = fill(backend);
    let log = backend.log();
    let mut reader = reader_at(&*log, &at, 0, Isolation::Committed);
    assert_eq!(read_count(backend, &mut *reader, 10).len(), 10);
    let mut reader = reader_at(&*log, &at, offsets[7], Isolation::Committed);
    assert_eq!(texts(&read_count(backend, &mut *reader, 3)), ["7", "8", "9"]);
    let mut reader = reader_at(&*log, &at, log.end(&at, Isolation::Committed).expect("an end"), Isolation::Committed);
    append(&*log, vec![record("events", 1, "key", "new")]);
    assert_eq!(texts(&read_count(backend, &mut *reader, 1)), ["new"]);
}

/// From a time: the first record that is not older.
pub fn reads_from_a_time(backend: &mut impl Backend) {
    let log = backend.log();
    let (at, offsets) = fill(backend);
    assert_eq!(log.offset_at(&at, Timestamp::from_millis(0)).expect("an offset"), offsets[0]);
    let mut reader = reader_at(&*log, &at, 0, Isolation::Committed);
    let first = read_count(backend, &mut *reader, 10)[9].timestamp;
    // Clocks are coarse: records are appended until one is later than those.
    let later = wait::until("a later timestamp", backend.patience(), || {
        backend.tick();
        append(&*log, vec![record("events", 1, "key", "later")]);
        let newest = read_count(backend, &mut *reader, 1).pop().expect("a record");
        (newest.timestamp > first).then_some(newest)
    });
    let just_after = Timestamp::from_millis(first.millis() + 1);
    assert_eq!(log.offset_at(&at, just_after).expect("an offset"), later.offset);
    assert_eq!(log.offset_at(&at, later.timestamp).expect("an offset"), later.offset);
    let end = log.end(&at, Isolation::Uncommitted).expect("an end");
    let never = Timestamp::from_millis(later.timestamp.millis() + 3_600_000);
    assert_eq!(log.offset_at(&at, never).expect("an offset"), end);
}

/// A reader that is moved starts there, drops what it had, and reads nothing of what it stopped.
pub fn a_reader_can_be_moved(backend: &mut impl Backend) {
    let (at, offsets) = fill(backend);
    let log = backend.log();
    let mut reader = reader_at(&*log, &at, 0, Isolation::Committed);
    let first = wait::until("records", backend.patience(), || {
        let records = reader.poll(3, super::POLL).expect("a poll");
        (!records.is_empty()).then_some(records)
    });
    assert!(first.len() <= 3, "at most as many as asked for");
    reader.read_from(&[(at.clone(), offsets[8])]).expect("moved");
    assert_eq!(texts(&read_count(backend, &mut *reader, 2)), ["8", "9"]);
    reader.read_from(&[(at.clone(), offsets[9])]).expect("moved");
    reader.stop(std::slice::from_ref(&at));
    read_nothing(&mut *reader);
    append(&*log, vec![record("events", 1, "key", "unseen"), record("events", 0, "key", "seen")]);
    reader.read_from(&[(TopicPartition::new("events", 0), 0)]).expect("another partition");
    assert_eq!(texts(&read_count(backend, &mut *reader, 1)), ["seen"]);
}
