//! Cases: what is appended is what is read, and what cannot be appended is refused by name.
//! Not here: batches (`batch`).

use std::time::{Duration, Instant};

use orloj_domain::time::Timestamp;
use orloj_runtime::log::{AppendError, Header, Isolation, LogError, NewRecord, TopicPartition};

use super::{Backend, MAX, append, create, read_count, read_to_end, reader_at, record, texts};

/// Records come back as they were, in order: no key, no value, an empty value, headers, 900 kB.
pub fn reads_back_what_was_appended(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "events", 2, &[]);
    let headers = vec![
        Header::text("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        Header { key: "empty".to_owned(), value: Some(Vec::new()) },
        Header { key: "bytes".to_owned(), value: Some(vec![0, 255, 10]) },
        Header::text("traceparent", "twice"),
    ];
    let large: Vec<u8> = (0..900_000_u32).map(|index| u8::try_from(index % 251).unwrap_or(0)).collect();
    let whole = |partition, key: Option<&[u8]>, value: Option<Vec<u8>>, headers| NewRecord {
        topic: "events".into(),
        partition,
        key: key.map(<[u8]>::to_vec),
        value,
        headers,
    };
    let sent = vec![
        whole(0, Some(b"a"), Some(b"1".to_vec()), vec![]),
        whole(0, Some(b"a"), None, headers.clone()),
        whole(1, Some(&[0xff, 0, 0xfe]), Some(large), headers),
        whole(0, None, Some(Vec::new()), vec![]),
        whole(1, Some(b"b"), Some(b"2".to_vec()), vec![]),
    ];
    let mut appender = log.appender().expect("an appender");
    let positions = appender.append(sent.clone()).expect("records are appended");
    let partitions: Vec<i32> = positions.iter().map(|position| position.partition).collect();
    assert_eq!(partitions, [0, 0, 1, 0, 1], "positions come in the order of the records");
    for partition in [0, 1] {
        let at = TopicPartition::new("events", partition);
        let read = read_to_end(backend, &at, 0, Isolation::Committed);
        let wanted: Vec<&NewRecord> = sent.iter().filter(|record| record.partition == partition).collect();
        assert_eq!(read.len(), wanted.len());
        for (read, wanted) in read.iter().zip(wanted) {
            assert_eq!((&read.key, &read.value, &read.headers), (&wanted.key, &wanted.value, &wanted.headers));
            assert_eq!(read.topic, "events", "no prefix");
        }
        let offsets: Vec<i64> = read.iter().map(|record| record.offset).collect();
        let acknowledged = positions.iter().filter(|position| position.partition == partition);
        assert_eq!(offsets, acknowledged.map(|position| position.offset).collect::<Vec<_>>());
        assert!(read.iter().all(|record| record.timestamp > Timestamp::from_millis(0)));
    }
}

/// Several appenders at once: every record once, each appender's own in its order.
pub fn keeps_the_order_of_each_appender(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "events", 1, &[]);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c"] {
            let log = backend.log();
            scope.spawn(move || {
                for index in 0..50 {
                    append(&*log, vec![record("events", 0, name, &format!("{index:03}"))]);
                }
            });
        }
    });
    let read = read_to_end(backend, &TopicPartition::new("events", 0), 0, Isolation::Committed);
    assert_eq!(read.len(), 150);
    for name in ["a", "b", "c"] {
        let own: Vec<_> = read.iter().filter(|record| record.key_text() == Some(name)).cloned().collect();
        assert_eq!(texts(&own), (0..50).map(|index| format!("{index:03}")).collect::<Vec<_>>());
    }
}

/// A record that is too large is refused, and what came with it is not appended.
pub fn refuses_what_is_too_large(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "events", 1, &[]);
    let mut appender = log.appender().expect("an appender");
    let huge = NewRecord::new("events", 0, "huge", Some(vec![7; 2 * 1024 * 1024]));
    let outcome = appender.append(vec![huge.clone()]);
    assert!(matches!(outcome, Err(AppendError::TooLarge { .. })), "{outcome:?}");
    let mut writer = log.batch_writer("large").expect("a writer");
    writer.stage(vec![record("events", 0, "small", "hidden")]).expect("staged");
    let outcome = writer.stage(vec![huge]);
    assert!(matches!(outcome, Err(AppendError::TooLarge { .. })), "{outcome:?}");
    writer.abort().expect("aborted");
    append(&*log, vec![record("events", 0, "small", "seen")]);
    let read = read_to_end(backend, &TopicPartition::new("events", 0), 0, Isolation::Committed);
    assert_eq!(texts(&read), ["seen"]);
}

/// Topics and partitions that do not exist are named.
pub fn names_a_missing_topic(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "events", 1, &[]);
    for (topic, partition) in [("missing", 0), ("events", 1)] {
        let at = TopicPartition::new(topic, partition);
        let end = log.end(&at, Isolation::Committed);
        assert!(matches!(end, Err(LogError::NoSuchTopic(_))), "{at}: {end:?}");
        let outcome = log.appender().expect("an appender").append(vec![record(topic, partition, "a", "1")]);
        assert!(matches!(outcome, Err(AppendError::NoSuchTopic(_))), "{at}: {outcome:?}");
    }
}

/// A topic that exists stays as it is, and is listed with its settings.
pub fn lists_topics(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "b", 3, &[("cleanup.policy", "compact")]);
    create(&*log, "a", 1, &[]);
    create(&*log, "b", 5, &[]);
    let topics = backend.log().topics().expect("topics");
    let found: Vec<(&str, i32)> = topics.iter().map(|topic| (topic.name.as_str(), topic.partitions)).collect();
    assert_eq!(found, [("a", 1), ("b", 3)]);
    assert_eq!(topics[1].settings.get("cleanup.policy").map(String::as_str), Some("compact"));
}

/// A read that waits sees a new record within 50 ms; the best of some tries, for the machine may be busy.
#[allow(clippy::disallowed_methods, reason = "this measures real time")]
pub fn wakes_a_waiting_read(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "events", 2, &[]);
    let at = TopicPartition::new("events", 1);
    let mut reader = reader_at(&*log, &at, 0, Isolation::Committed);
    append(&*log, vec![record("events", 1, "a", "first")]);
    read_count(backend, &mut *reader, 1);
    let mut best = Duration::MAX;
    for _ in 0..10 {
        let (ready, is_ready) = std::sync::mpsc::channel();
        let log = backend.log();
        let appending = std::thread::spawn(move || {
            is_ready.recv().expect("the reader is about to wait");
            append(&*log, vec![record("events", 1, "a", "next")]);
            Instant::now()
        });
        ready.send(()).expect("the appender waits");
        let read = reader.poll(MAX, Duration::from_secs(10)).expect("a poll");
        let woken = Instant::now();
        assert_eq!(texts(&read), ["next"]);
        best = best.min(woken.saturating_duration_since(appending.join().expect("appended")));
    }
    assert!(best <= Duration::from_millis(50), "woken after {best:?} at best");
}

/// A waker ends a wait, also when it is used just before.
#[allow(clippy::disallowed_methods, reason = "this measures real time")]
pub fn a_waker_ends_a_wait(backend: &mut impl Backend) {
    let log = backend.log();
    create(&*log, "events", 1, &[]);
    let mut reader = reader_at(&*log, &TopicPartition::new("events", 0), 0, Isolation::Committed);
    let waker = reader.waker();
    let started = Instant::now();
    let waking = std::thread::spawn(move || waker.wake());
    assert!(reader.poll(MAX, Duration::from_secs(30)).expect("a poll").is_empty());
    assert!(started.elapsed() < Duration::from_secs(10), "woken after {:?}", started.elapsed());
    waking.join().expect("woken");
}
