//! Cases: a batch over several topics and partitions is visible whole or never. Not here: batches with
//! positions (`claims`), with ownership (`ownership`).

use orloj_runtime::log::{AppendError, Isolation, LogError, TopicPartition};

use super::{Backend, append, create, read_count, read_nothing, read_to_end, reader_at, record, texts};
use crate::wait;

fn partitions() -> [TopicPartition; 3] {
    [TopicPartition::new("left", 0), TopicPartition::new("left", 1), TopicPartition::new("right", 0)]
}

fn everywhere(value: &str) -> Vec<orloj_runtime::log::NewRecord> {
    partitions().iter().map(|at| record(&at.topic, at.partition, "key", value)).collect()
}

fn create_both(backend: &impl Backend) {
    create(&*backend.log(), "left", 2, &[]);
    create(&*backend.log(), "right", 1, &[]);
}

/// Nothing of an open batch is visible; after the commit all of it is, in all partitions.
pub fn a_batch_appears_as_a_whole(backend: &mut impl Backend) {
    create_both(backend);
    let log = backend.log();
    let mut writer = log.batch_writer("writer").expect("a writer");
    writer.stage(everywhere("1")).expect("staged");
    writer.stage(everywhere("2")).expect("staged");
    let mut committed = log.reader(Isolation::Committed).expect("a reader");
    let starts: Vec<_> = partitions().into_iter().map(|at| (at, 0)).collect();
    committed.read_from(&starts).expect("positions");
    read_nothing(&mut *committed);
    let mut uncommitted = log.reader(Isolation::Uncommitted).expect("a reader");
    uncommitted.read_from(&starts).expect("positions");
    read_count(backend, &mut *uncommitted, 6);
    writer.commit().expect("committed");
    read_count(backend, &mut *committed, 6);
    for at in partitions() {
        assert_eq!(texts(&read_to_end(backend, &at, 0, Isolation::Committed)), ["1", "2"], "{at}");
    }
}

/// Nothing of an aborted batch is ever visible, and what comes after it is.
pub fn an_aborted_batch_stays_invisible(backend: &mut impl Backend) {
    create_both(backend);
    let log = backend.log();
    let mut writer = log.batch_writer("writer").expect("a writer");
    writer.stage(everywhere("kept")).expect("staged");
    writer.commit().expect("committed");
    writer.stage(everywhere("dropped")).expect("staged");
    writer.abort().expect("aborted");
    writer.stage(everywhere("after")).expect("staged");
    writer.commit().expect("committed");
    for at in partitions() {
        assert_eq!(texts(&read_to_end(backend, &at, 0, Isolation::Committed)), ["kept", "after"], "{at}");
        let all = read_to_end(backend, &at, 0, Isolation::Uncommitted);
        assert_eq!(texts(&all), ["kept", "dropped", "after"], "{at}");
    }
}

/// Deciding when nothing is open is no error.
pub fn an_empty_batch_can_be_decided(backend: &mut impl Backend) {
    create_both(backend);
    let mut writer = backend.log().batch_writer("writer").expect("a writer");
    writer.abort().expect("nothing to abort");
    writer.commit().expect("nothing to commit");
    writer.stage(everywhere("1")).expect("staged");
    writer.commit().expect("committed");
    assert_eq!(texts(&read_to_end(backend, &partitions()[2], 0, Isolation::Committed)), ["1"]);
}

/// A batch whose writer was dropped is aborted; readers go on past it.
pub fn a_dropped_writer_leaves_nothing(backend: &mut impl Backend) {
    create_both(backend);
    let log = backend.log();
    let mut writer = log.batch_writer("writer").expect("a writer");
    writer.stage(everywhere("dropped")).expect("staged");
    drop(writer);
    append(&*log, everywhere("after"));
    for at in partitions() {
        let mut reader = reader_at(&*log, &at, 0, Isolation::Committed);
        assert_eq!(texts(&read_count(backend, &mut *reader, 1)), ["after"], "{at}");
    }
}

/// A reader stops before the first open batch and goes on once it is decided, either way; other partitions and
/// plain appends are not held up.
pub fn readers_go_on_past_an_open_batch(backend: &mut impl Backend) {
    create_both(backend);
    let log = backend.log();
    let [blocked, free, _] = partitions();
    let mut first = log.batch_writer("first").expect("a writer");
    let mut second = log.batch_writer("second").expect("a writer");
    append(&*log, vec![record("left", 0, "key", "before")]);
    first.stage(vec![record("left", 0, "key", "first")]).expect("staged");
    append(&*log, vec![record("left", 0, "key", "between"), record("left", 1, "key", "free")]);
    second.stage(vec![record("left", 0, "key", "second")]).expect("staged");
    let mut reader = reader_at(&*log, &blocked, 0, Isolation::Committed);
    assert_eq!(texts(&read_count(backend, &mut *reader, 1)), ["before"]);
    second.commit().expect("committed");
    read_nothing(&mut *reader);
    assert_eq!(texts(&read_to_end(backend, &free, 0, Isolation::Committed)), ["free"]);
    first.abort().expect("aborted");
    assert_eq!(texts(&read_count(backend, &mut *reader, 2)), ["between", "second"]);
}

/// Opening a writer's id again ends what it had open and shuts the former writer out.
pub fn an_id_opened_again_shuts_out(backend: &mut impl Backend) {
    create_both(backend);
    let mut former = backend.log().batch_writer("writer").expect("a writer");
    former.stage(everywhere("former")).expect("staged");
    let other = backend.other();
    let mut latter = other.batch_writer("writer").expect("the same id");
    let outcome = former.commit();
    assert!(matches!(outcome, Err(AppendError::Refused(_))), "{outcome:?}");
    let outcome = former.stage(everywhere("former again")).and_then(|_| former.commit());
    assert!(matches!(outcome, Err(AppendError::Refused(_))), "{outcome:?}");
    drop(former);
    latter.stage(everywhere("latter")).expect("staged");
    latter.commit().expect("committed");
    for at in partitions() {
        assert_eq!(texts(&read_to_end(backend, &at, 0, Isolation::Committed)), ["latter"], "{at}");
    }
}

/// The end counts an open batch or not, as asked.
pub fn ends_differ_by_isolation(backend: &mut impl Backend) {
    create_both(backend);
    let log = backend.log();
    let at = TopicPartition::new("left", 0);
    let ends = || -> Result<(i64, i64), LogError> {
        Ok((log.end(&at, Isolation::Committed)?, log.end(&at, Isolation::Uncommitted)?))
    };
    assert_eq!(ends().expect("ends"), (0, 0));
    append(&*log, vec![record("left", 0, "key", "1"), record("left", 0, "key", "2")]);
    assert_eq!(ends().expect("ends"), (2, 2));
    let mut writer = log.batch_writer("writer").expect("a writer");
    let staged = writer.stage(vec![record("left", 0, "key", "3"), record("left", 0, "key", "4")]).expect("staged");
    assert_eq!(staged.iter().map(|position| position.offset).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(ends().expect("ends"), (2, 4));
    writer.commit().expect("committed");
    wait::until("the end to move", backend.patience(), || {
        let (committed, uncommitted) = ends().expect("ends");
        (committed == uncommitted && committed >= 4).then_some(())
    });
}
