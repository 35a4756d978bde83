//! What the log itself can do in the same run: plain records of 200 B, and the shortest atomic batch. Invariant:
//! measured on the same log, with nothing else running.

use std::time::Instant;

use orloj_runtime::log::{NewRecord, TopicSpec};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::produce::Bulk;
use crate::usage::{percentile, rounded};

const RECORDS: usize = 500_000;
const BATCHES: usize = 300;

/// Measures the log of a bed.
pub(crate) fn calibrate(bed: &Bed) -> Value {
    eprintln!("calibrating {}", bed.name);
    let shards = bed.shards.get();
    let spec = TopicSpec {
        name: "calibration".to_owned(),
        partitions: shards,
        replication: 1,
        settings: std::collections::BTreeMap::new(),
    };
    bed.log.create_topic(&spec).expect("a new topic");
    let record = |partition: i32| NewRecord::new("calibration", partition, "key", Some(vec![7; 200]));
    let mut producer = Bulk::new(bed);
    let mut rate = 0.0;
    // Once for the broker to warm up, once for the figure.
    for _ in 0..2 {
        let started = Instant::now();
        for index in 0..RECORDS {
            producer.send(record(i32::try_from(index % 32).unwrap_or(0) % shards));
        }
        producer.flush();
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let measured = RECORDS as f64 / started.elapsed().as_secs_f64();
        rate = measured;
    }
    // Two ids in turn, as the product does: the markers of one are still written while the other begins.
    let mut writers = [0, 1].map(|index| bed.log.batch_writer(&format!("calibration-{index}")).expect("a writer"));
    let mut times = Vec::new();
    for index in 0..BATCHES {
        let writer = &mut writers[index % 2];
        let started = Instant::now();
        writer.stage(vec![record(0)]).expect("a batch");
        writer.commit().expect("a commit");
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    // The first ones meet a broker that has never done this.
    let mut times = times.split_off(BATCHES / 3);
    times.sort_by(f64::total_cmp);
    json!({
        "produce_200B_per_second": rate.round(),
        "transaction_of_one_p50_ms": rounded(percentile(&times, 50.0)),
        "transaction_of_one_p99_ms": rounded(percentile(&times, 99.0)),
        "transaction_of_one_max_ms": rounded(percentile(&times, 100.0)),
    })
}
