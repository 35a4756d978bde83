//! The heart that all handles share: store, broker, clock, and how writes reach the store: at once in memory,
//! through one writer thread on disk, which commits all that is waiting as one group. Not here: what a write
//! means (`write`). Invariant: groups are applied one after the other; a reply is sent after its commit.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::broker::Broker;
use super::store::Store;
use super::write::{Body, Plan, Reply, Write};
use super::{EmbeddedOptions, lock::DirectoryLock};
use crate::clock::Clock;
use crate::log::{AppendError, NewRecord};

/// Most writes in one group; keeps a commit, and so the wait for the next one, short.
const GROUP_WRITES_MAX: usize = 4096;
/// Most bytes in one group.
const GROUP_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What all handles share.
pub(crate) struct Core {
    /// Where records are kept.
    pub(crate) store: Box<dyn Store>,
    /// The clocks.
    pub(crate) clock: Arc<dyn Clock>,
    /// Limits and times.
    pub(crate) options: EmbeddedOptions,
    /// Makes names of this life of the log unique; empty in memory, where names must repeat from run to run.
    pub(crate) life: String,
    /// Host and process, for people.
    pub(crate) host: String,
    broker: Mutex<Broker>,
    turn: Mutex<()>,
}

impl Core {
    /// Puts the parts together.
    pub(crate) fn new(
        store: Box<dyn Store>,
        broker: Broker,
        clock: Arc<dyn Clock>,
        options: EmbeddedOptions,
        (life, host): (String, String),
    ) -> Self {
        Self { store, clock, options, life, host, broker: Mutex::new(broker), turn: Mutex::new(()) }
    }

    /// The broker, for as long as the guard lives; never across a call to the store's `commit`.
    pub(crate) fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks, commits and publishes a group; replies in the order of the writes.
    pub(crate) fn apply(&self, writes: Vec<Write>) -> Vec<Reply> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plan = Plan::default();
        let mut replies = Vec::with_capacity(writes.len());
        {
            let broker = self.broker();
            let now = self.clock.now();
            for write in writes {
                let is_abort = matches!(write.body, Body::Decide { is_committed: false, .. });
                replies.push((plan.add(&broker, now, write), is_abort));
            }
        }
        let changes = std::mem::take(&mut plan.changes);
        let outcome = if changes.is_empty() { Ok(()) } else { self.store.commit(changes) };
        if let Err(error) = &outcome {
            tracing::warn!(%error, "the embedded log could not commit");
            plan.keep_aborts();
        }
        plan.publish(&mut self.broker());
        let replies = replies.into_iter().map(|(reply, is_abort)| match &outcome {
            Err(error) if !is_abort => reply.and_then(|_| Err(AppendError::from(error.clone()))),
            Err(_) | Ok(()) => reply,
        });
        replies.collect()
    }

    /// Refuses records that are too large.
    pub(crate) fn check_sizes(&self, records: &[NewRecord]) -> Result<(), AppendError> {
        let limit = self.options.record_bytes_max;
        match records.iter().find(|record| record.size_bytes() > limit) {
            Some(record) => {
                Err(AppendError::TooLarge { topic: record.topic.to_string(), size_bytes: record.size_bytes() })
            }
            None => Ok(()),
        }
    }

    /// Time on the monotonic clock.
    pub(crate) fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

struct Request {
    write: Write,
    bytes: usize,
    reply: Sender<Reply>,
}

/// How writes reach the store.
pub(crate) enum Committer {
    /// In the caller's thread: the memory store, where nothing is gained by waiting for others.
    Inline,
    /// Through the writer thread.
    Thread(Submitter),
}

/// Sends writes to the writer thread.
#[derive(Clone)]
pub(crate) struct Submitter(Sender<Request>);

impl Submitter {
    /// Hands a write over and waits until it is durable or refused.
    pub(crate) fn write(&self, write: Write) -> Reply {
        answered(&self.start(write))
    }

    /// Hands a write over; the channel closes without an answer if the log does.
    fn start(&self, write: Write) -> Receiver<Reply> {
        let bytes = size_bytes(&write.body);
        let (reply, answer) = bounded(1);
        // Dropped if the log is closed, and the channel with it.
        let _ = self.0.send(Request { write, bytes, reply });
        answer
    }
}

fn answered(answer: &Receiver<Reply>) -> Reply {
    answer.recv().unwrap_or_else(|_| Err(AppendError::Refused("the log is closed".to_owned())))
}

/// A write that was handed over.
pub(crate) enum Underway {
    /// Its outcome is known.
    Done(Reply),
    /// It is done when it is waited for.
    Waiting(Box<Write>),
    /// The writer thread has it.
    Sent(Receiver<Reply>),
}

impl Underway {
    /// Waits until it is durable or refused.
    pub(crate) fn wait(self, core: &Core) -> Reply {
        match self {
            Self::Done(reply) => reply,
            Self::Waiting(write) => core.apply(vec![*write]).pop().unwrap_or_else(|| Ok(Vec::new())),
            Self::Sent(answer) => answered(&answer),
        }
    }
}

impl Committer {
    /// Applies a write and waits until it is durable or refused.
    pub(crate) fn write(&self, core: &Core, write: Write) -> Reply {
        self.start(write).wait(core)
    }

    /// Hands a write over. In the caller's thread it is put off as long as can be, as a slow disk would.
    pub(crate) fn start(&self, write: Write) -> Underway {
        match self {
            Self::Inline => Underway::Waiting(Box::new(write)),
            Self::Thread(submitter) => Underway::Sent(submitter.start(write)),
        }
    }
}

fn size_bytes(body: &Body) -> usize {
    match body {
        Body::Append { records } | Body::Stage { records, .. } | Body::Claim { records, .. } => {
            records.iter().map(NewRecord::size_bytes).sum()
        }
        Body::Decide { .. } | Body::CreateTopic(_) | Body::Clean { .. } | Body::Forget(_) => 0,
    }
}

/// The threads behind a log on disk; dropping it ends them, then lets the directory go.
pub(crate) struct Threads {
    submitter: Option<Submitter>,
    stop_upkeep: Option<Sender<()>>,
    upkeep: Option<JoinHandle<()>>,
    writer: Option<JoinHandle<()>>,
    _lock: DirectoryLock,
}

impl Threads {
    /// Starts the writer thread and the upkeep thread.
    pub(crate) fn start(core: &Arc<Core>, lock: DirectoryLock, directory: &Path) -> std::io::Result<Self> {
        let (sender, requests) = unbounded();
        let submitter = Submitter(sender);
        let writer = std::thread::Builder::new().name("log-writer".to_owned()).spawn({
            let core = Arc::clone(core);
            move || write_groups(&core, &requests)
        })?;
        let (stop_upkeep, stopped) = bounded(0);
        let upkeep = std::thread::Builder::new().name("log-upkeep".to_owned()).spawn({
            let (core, submitter) = (Arc::clone(core), submitter.clone());
            move || super::maintain::keep_up(&core, &submitter, &stopped)
        })?;
        tracing::debug!(directory = %directory.display(), "the embedded log is open");
        Ok(Self {
            submitter: Some(submitter),
            stop_upkeep: Some(stop_upkeep),
            upkeep: Some(upkeep),
            writer: Some(writer),
            _lock: lock,
        })
    }

    /// What handles send their writes through.
    pub(crate) fn submitter(&self) -> Option<Submitter> {
        self.submitter.clone()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Upkeep first: it sends through the writer.
        drop(self.stop_upkeep.take());
        join(self.upkeep.take());
        drop(self.submitter.take());
        join(self.writer.take());
    }
}

fn join(thread: Option<JoinHandle<()>>) {
    if thread.is_some_and(|thread| thread.join().is_err()) {
        tracing::error!("a thread of the embedded log has panicked");
    }
}

/// Takes all that waits, up to the limits, commits it as one group, and answers; ends when all senders are gone.
fn write_groups(core: &Core, requests: &Receiver<Request>) {
    while let Ok(first) = requests.recv() {
        let mut bytes = first.bytes;
        let mut group = vec![first];
        while group.len() < GROUP_WRITES_MAX && bytes < GROUP_BYTES_MAX {
            let Ok(next) = requests.try_recv() else { break };
            bytes += next.bytes;
            group.push(next);
        }
        let (writes, waiting): (Vec<_>, Vec<_>) =
            group.into_iter().map(|request| (request.write, request.reply)).unzip();
        for (reply, waiting) in core.apply(writes).into_iter().zip(waiting) {
            // Nobody waits any more: the caller's thread is gone, its write stands all the same.
            drop(waiting.send(reply));
        }
    }
}
