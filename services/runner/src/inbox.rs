//! Reads what the dispatcher says to this runner: stop an attempt, start one that waits for it, end one that ended elsewhere, claim
//! one. One thread. Not here: what an attempt does about it (`flight`), claiming (`offers`, `claim`). Invariant: everything said after the runner began is read, in order, and however
//! long the log is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::runner::{RunnerMessage, RunnerMessageType};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Isolation, LogError, Reader, Record, TopicPartition};

use crate::board::Phase;
use crate::claim::work_of;
use crate::config::RunnerError;
use crate::executor::process::{Abort, GRACE};
use crate::flight::Word;
use crate::offers::Offer;
use crate::shared::Shared;

/// Most messages taken at once.
const RECORDS_MAX: usize = 500;
/// Longest wait for messages; a waker ends it earlier.
const POLL_WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// Where this runner is in each partition: the first offset that was not read.
type Positions = BTreeMap<TopicPartition, i64>;

/// Starts the thread, which reads from here on.
pub(crate) fn start(shared: &Arc<Shared>) -> Result<(), RunnerError> {
    let mut positions = Positions::new();
    for shard in shared.shards.all() {
        let at = TopicPartition::new(topic::RUNNER_INBOX, shard.0);
        let end = shared.log.end(&at, Isolation::Committed)?;
        positions.insert(at, end);
    }
    let reader = open(shared, &positions)?;
    let (shared, counted) = (Arc::clone(shared), shared.board.thread());
    std::thread::Builder::new().name("runner-inbox".into()).spawn(move || {
        let _counted = counted;
        read(&shared, reader, positions);
    })?;
    Ok(())
}

fn open(shared: &Shared, positions: &Positions) -> Result<Box<dyn Reader>, LogError> {
    let mut reader = shared.log.reader(Isolation::Committed)?;
    let from: Vec<_> = positions.iter().map(|(at, offset)| (at.clone(), *offset)).collect();
    reader.read_from(&from)?;
    shared.board.on_phase(reader.waker());
    Ok(reader)
}

/// Until the runner ends: attempts are told to stop while it drains, too.
fn read(shared: &Shared, mut reader: Box<dyn Reader>, mut positions: Positions) {
    while shared.board.phase() != Phase::Ending {
        match reader.poll(RECORDS_MAX, POLL_WAIT) {
            Ok(records) => {
                for record in records {
                    positions.insert(record.topic_partition(), record.offset + 1);
                    take(shared, &record);
                }
            }
            Err(error) => {
                if let LogError::OutOfRange { at, first, .. } = &error {
                    positions.insert(at.clone(), *first);
                    lose(shared, "messages to this runner are gone before they were read");
                }
                tracing::warn!(runner = %shared.runner, %error, "the inbox can't be read, trying again");
                shared.board.pause(PAUSE, Phase::Ending);
                match open(shared, &positions) {
                    Ok(fresh) => reader = fresh,
                    Err(error) => tracing::debug!(%error, "no reader for the inbox"),
                }
            }
        }
    }
}

/// An attempt may wait for a word that will not come: all of them go back to the dispatcher.
fn lose(shared: &Shared, reason: &str) {
    let abort = Abort { kind: OutcomeKind::Aborted, reason: reason.to_owned(), grace: GRACE };
    shared.board.lose(&shared.board.session(), &abort);
}

fn take(shared: &Shared, record: &Record) {
    if record.key_text() != Some(shared.runner.as_str()) {
        return;
    }
    let Some(value) = record.value.as_deref() else { return };
    let message: RunnerMessage = match codec::decode(value) {
        Ok(message) => message,
        Err(error) => {
            tracing::warn!(position = %record.position(), %error, "a message to this runner can't be read");
            lose(shared, "a message to this runner can't be read");
            return;
        }
    };
    let key = (message.run_id, message.token);
    let word = match message.kind {
        RunnerMessageType::Start => Word::Start,
        RunnerMessageType::Offer => return offered(shared, message),
        // Nothing of it has begun.
        RunnerMessageType::Cancel if shared.offers.withdraw(key) => return,
        RunnerMessageType::Cancel => {
            let reason = message.reason.unwrap_or_else(|| "stopped on request".to_owned());
            Word::Stop(Abort { kind: OutcomeKind::Cancelled, reason, grace: GRACE })
        }
        RunnerMessageType::Complete => match message.outcome {
            Some(outcome) => Word::Complete(outcome),
            // The dispatcher, which wrote it, keeps how the attempt ended.
            None => {
                tracing::warn!(position = %record.position(), "a message that an attempt has ended does not say how");
                return;
            }
        },
        RunnerMessageType::Unknown => return,
    };
    shared.board.hear(&message.session, key, word);
}

/// Keeps an attempt for the thread of its queue. One that is meant for an earlier session of this runner is another's by now, or will
/// be once that session's lease is over.
fn offered(shared: &Shared, message: RunnerMessage) {
    let RunnerMessage { session, ready: Some(ready), .. } = message else { return };
    if shared.board.session().id != session {
        return;
    }
    let work = work_of(&ready).map_err(|problem| format!("the request can't be used: {problem}"));
    let offer = Offer { session, ready, work, is_doubtful: false };
    let queue = offer.spec().map(|spec| &spec.queue);
    // What can't be read is claimed too, by anybody: the dispatcher must hear that it can't.
    let lane = queue.map_or(Some(0), |queue| shared.queues.iter().position(|served| served == queue));
    match lane {
        Some(lane) => shared.offers.put(lane, offer),
        None => {
            tracing::warn!(run = %offer.ready.run_id, ?queue, "an attempt of a queue that is not served is offered")
        }
    }
}
