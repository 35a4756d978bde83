//! What a process does before it is killed: it appends, waits for the acknowledgement, and leaves a batch open.
//! Not here: the killing (each harness), what must be left of it (`durability`).

use orloj_runtime::log::{BatchWriter, Log};

use super::{append, create, record};

/// Topic of the records.
pub const TOPIC: &str = "held";
/// Partitions of the topic.
pub const PARTITIONS: i32 = 2;
/// How many records are acknowledged in each partition.
pub const ACKNOWLEDGED: usize = 50;
/// What the process prints once everything is in the log.
pub const READY: &str = "READY";

/// Appends what must survive, then stages what must not; the batch is open for as long as the writer lives.
#[must_use]
pub fn hold(log: &dyn Log) -> Box<dyn BatchWriter> {
    create(log, TOPIC, PARTITIONS, &[]);
    for index in 0..ACKNOWLEDGED {
        let value = format!("acknowledged {index}");
        append(log, (0..PARTITIONS).map(|partition| record(TOPIC, partition, "key", &value)).collect());
    }
    let mut writer = log.batch_writer("holder").expect("a writer");
    writer
        .stage((0..PARTITIONS).map(|partition| record(TOPIC, partition, "key", "decided")).collect())
        .expect("staged");
    writer.commit().expect("committed");
    for _ in 0..10 {
        let staged = (0..PARTITIONS).map(|partition| record(TOPIC, partition, "key", "undecided")).collect();
        writer.stage(staged).expect("staged");
    }
    writer
}
