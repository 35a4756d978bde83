//! A thread that carries an append out while the owner's thread decides what comes next. Not here: which producer
//! writes (`ring`), what follows from the outcome (the owner). Invariant: one append at a time, so that batches are in
//! the log in the order in which they were decided.

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::kafka::transaction::TransactionalProducer;
use crate::log::{AppendError, Appended, NewRecord, Position};
use crate::pause;

/// The thread; it ends with its handle.
pub(super) struct Writer {
    jobs: Sender<(TransactionalProducer, Vec<NewRecord>)>,
    done: Receiver<(TransactionalProducer, Appended)>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start() -> std::io::Result<Self> {
        let (jobs, waiting) = bounded::<(TransactionalProducer, Vec<NewRecord>)>(1);
        let (out, done) = bounded(1);
        std::thread::Builder::new().name("owner-writer".to_owned()).spawn(move || {
            for (mut producer, records) in waiting {
                let outcome = append(&mut producer, &records);
                if out.send((producer, Appended { records, outcome })).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { jobs, done })
    }

    /// Hands an append over; answers what it was given if the thread is gone.
    pub(super) fn write(
        &self,
        producer: TransactionalProducer,
        records: Vec<NewRecord>,
    ) -> Option<(TransactionalProducer, Vec<NewRecord>)> {
        self.jobs.send((producer, records)).err().map(|refused| refused.0)
    }

    /// Waits for the end of the append; `None` if the thread is gone, and with it all that it was given.
    pub(super) fn wait(&self) -> Option<(TransactionalProducer, Appended)> {
        self.done.recv().ok()
    }
}

/// One transaction with everything in it; aborted by itself after an error.
pub(super) fn append(
    producer: &mut TransactionalProducer,
    records: &[NewRecord],
) -> Result<Vec<Position>, AppendError> {
    let outcome = try_append(producer, records);
    producer.abort_after(&outcome);
    outcome
}

fn try_append(producer: &mut TransactionalProducer, records: &[NewRecord]) -> Result<Vec<Position>, AppendError> {
    pause::point("before-produce");
    producer.begin()?;
    producer.enqueue(records)?;
    pause::point("after-produce");
    let positions = producer.acknowledged()?;
    pause::point("before-commit");
    producer.commit()?;
    pause::point("after-commit");
    Ok(positions)
}
