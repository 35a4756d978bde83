//! What the log itself can do in the same run: plain appends of 200 B, and the shortest atomic batch. Invariant:
//! measured on the same log, with nothing else running.

use std::time::{Duration, Instant};

use orloj_runtime::log::{NewRecord, TopicSpec};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::usage::percentile;

const RECORDS: usize = 100_000;
const BATCHES: usize = 200;

/// Measures the log of a bed.
pub(crate) fn calibrate(bed: &Bed) -> Value {
    let shards = bed.shards.get();
    let spec = TopicSpec {
        name: "calibration".to_owned(),
        partitions: shards,
        replication: 1,
        settings: std::collections::BTreeMap::new(),
    };
    bed.log.create_topic(&spec).expect("a new topic");
    let record = |partition: i32| NewRecord::new("calibration", partition, "key", Some(vec![7; 200]));
    let mut appender = bed.log.appender().expect("an appender");
    appender.append(vec![record(0)]).expect("an append");
    let started = Instant::now();
    for _ in 0..RECORDS / 10_000 {
        let records = (0..10_000).map(|index| record(index % shards)).collect();
        appender.append(records).expect("an append");
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let append_rate = RECORDS as f64 / started.elapsed().as_secs_f64();
    let mut writer = bed.log.batch_writer("calibration").expect("a writer");
    let mut times = Vec::new();
    for _ in 0..BATCHES {
        let started = Instant::now();
        writer.stage(vec![record(0)]).expect("a batch");
        writer.commit().expect("a commit");
        times.push(started.elapsed().as_secs_f64() * 1000.0);
        // Markers of one id are still written after its commit: what is wanted is a commit that does not wait.
        std::thread::sleep(Duration::from_millis(5));
    }
    times.sort_by(f64::total_cmp);
    json!({
        "append_200B_per_second": append_rate.round(),
        "batch_of_one_p50_ms": percentile(&times, 50.0),
        "batch_of_one_p99_ms": percentile(&times, 99.0),
    })
}
