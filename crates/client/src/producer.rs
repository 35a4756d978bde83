//! Publishes jobs and commands as messages and waits for what the trigger makes of them. Not here: whether a job is accepted.
//! Invariant: a record about a job goes to the job's shard, and an answer is taken only for the record it names.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::job::{DEFINITION_BYTES_MAX, JobDefinition};
use orloj_domain::job_event::{FieldError, JobEvent, JobEventType};
use orloj_domain::manifest;
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::codec;
use orloj_runtime::log::{
    AppendError, Appender, Isolation, Log, LogError, NewRecord, Position, Record, TopicPartition,
};

use crate::connection::{ClientError, Connection};

/// Most events taken at once while an answer is looked for.
const EVENTS_MAX: usize = 500;
/// Longest single wait for events.
const POLL_WAIT: Duration = Duration::from_secs(1);

/// Publishes, edits and deletes jobs. All calls block: call them on a plain thread, or in
/// `tokio::task::spawn_blocking`.
///
/// ```no_run
/// use std::time::Duration;
///
/// use orloj_client::{Answer, Connection, Producer};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let producer = Producer::connect(Connection::kafka("localhost:9092"))?;
/// let manifest = r#"{"apiVersion": "orloj/v1", "kind": "Job", "metadata": {"namespace": "billing", "name": "monthly"},
///     "spec": {"schedule": {"cron": "0 6 1 * *"}, "queue": "billing",
///              "run": {"handler": {"name": "send-invoices", "payload": {"tenant": 7}}}}}"#;
/// match producer.publish(manifest)?.accepted(Duration::from_secs(10))? {
///     Answer::Rejected { errors } => eprintln!("{errors:?}"),
///     answer => println!("{answer:?}"),
/// }
/// # Ok(())
/// # }
/// ```
pub struct Producer {
    log: Arc<dyn Log>,
    shards: ShardCount,
    clock: SystemClock,
    /// Opened when it is needed; gone after an append failed.
    appender: Mutex<Option<Box<dyn Appender>>>,
}

/// Why nothing was published, or nobody knows whether it was.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The manifest can't be accepted as it is; nothing was sent. Every complaint is here.
    #[error("the manifest is refused: {}", listed(.0))]
    Invalid(Vec<FieldError>),
    /// The definition is larger than a definition may be; nothing was sent.
    #[error("the definition has {size_bytes} bytes, at most {DEFINITION_BYTES_MAX} are taken")]
    TooLarge {
        /// Its size.
        size_bytes: usize,
    },
    /// The log did not take it, or did not say so. Publishing the same again does no harm: the trigger answers
    /// `Unchanged` to what is in force already.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The log did not say where answers begin; nothing was sent.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// None came in time: no trigger runs, or it is busy. What was sent stays sent; ask again for longer.
    #[error("no trigger answered {position} within {waited:?}; is one running?")]
    TimedOut {
        /// What was sent.
        position: Position,
        /// How long the answer was waited for.
        waited: Duration,
    },
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// What the trigger made of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The definition is in force, as this version of the job.
    Accepted {
        /// The version; 1 is the first.
        version: i64,
    },
    /// Nothing changed: the definition is the one in force, or there was no job to delete.
    Unchanged {
        /// The version in force; 0 if there is none.
        version: i64,
    },
    /// The definition was refused; the one before stays in force.
    Rejected {
        /// Every complaint, each with its field, the value found and how to mend it.
        errors: Vec<FieldError>,
    },
    /// The job is gone.
    Deleted,
}

fn listed(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl Producer {
    /// Opens the log and asks it how many shards there are.
    ///
    /// # Errors
    /// [`ClientError::Log`] if it can't be reached now, or its topics are not an installation's.
    pub fn connect(connection: Connection) -> Result<Self, ClientError> {
        let log = connection.open()?;
        let shards = connection.shards(&*log, &[topic::JOB_EVENTS, topic::COMMANDS])?;
        Ok(Self { log, shards, clock: SystemClock::new(), appender: Mutex::new(None) })
    }

    /// Publishes a job by its manifest, which is JSON of at most 256 KiB; the same job again is an edit of it. What is
    /// plainly wrong is refused here, the rest is for the trigger to judge: see [`Published::accepted`].
    ///
    /// # Errors
    /// [`PublishError`]: refused, or not taken by the log.
    pub fn publish(&self, manifest: &str) -> Result<Published, PublishError> {
        self.publish_definition(&manifest::parse_json(manifest).map_err(PublishError::Invalid)?)
    }

    /// Publishes a job by its definition, which nobody checks before the trigger does.
    ///
    /// # Errors
    /// [`PublishError`]: too large, or not taken by the log.
    pub fn publish_definition(&self, definition: &JobDefinition) -> Result<Published, PublishError> {
        let value = codec::encode(definition);
        if value.len() > DEFINITION_BYTES_MAX {
            return Err(PublishError::TooLarge { size_bytes: value.len() });
        }
        self.append(&definition.job, Some(value))
    }

    /// Deletes a job. Its runs under way go on.
    ///
    /// # Errors
    /// [`PublishError`]: not taken by the log.
    pub fn delete(&self, job: &JobId) -> Result<Published, PublishError> {
        self.append(job, None)
    }

    /// Asks for a run of a job now, with these parameters, and names that run. The same command id asks for the same run
    /// once, however often it is sent. The job must have been accepted: a command that is read before its job is refused.
    ///
    /// # Errors
    /// [`PublishError`]: not taken by the log.
    pub fn run_now(
        &self,
        job: &JobId,
        command: &CommandId,
        params: BTreeMap<String, String>,
    ) -> Result<RunId, PublishError> {
        let order =
            Command { at: Some(self.clock.now()), params, ..Command::new(CommandType::RunNow, command.clone()) };
        let partition = self.shards.shard_of(job).0;
        self.send(NewRecord::new(topic::COMMANDS, partition, job.as_str(), Some(codec::encode(&order))))?;
        Ok(RunId::of_command(job, command))
    }

    fn append(&self, job: &JobId, value: Option<Vec<u8>>) -> Result<Published, PublishError> {
        let partition = self.shards.shard_of(job).0;
        let answers = TopicPartition::new(topic::JOB_EVENTS, partition);
        // Before it is sent: the answer can't be earlier than this.
        let from = self.log.end(&answers, Isolation::Committed)?;
        let position = self.send(NewRecord::new(topic::JOBS, partition, job.as_str(), value))?;
        let (log, clock) = (Arc::clone(&self.log), self.clock.clone());
        Ok(Published { job: job.clone(), position, answers, from, log, clock })
    }

    fn send(&self, record: NewRecord) -> Result<Position, PublishError> {
        let mut appender = self.appender.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = match appender.take() {
            Some(open) => open,
            None => self.log.appender()?,
        };
        let mut positions = open.append(vec![record])?;
        *appender = Some(open);
        Ok(positions.pop().ok_or_else(|| AppendError::Unknown("the log named no position".to_owned()))?)
    }
}

impl std::fmt::Debug for Producer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Producer").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// A record that is in the log and that the trigger will answer.
pub struct Published {
    job: JobId,
    position: Position,
    answers: TopicPartition,
    from: i64,
    log: Arc<dyn Log>,
    clock: SystemClock,
}

impl Published {
    /// The job.
    #[must_use]
    pub fn job(&self) -> &JobId {
        &self.job
    }

    /// Where the record is.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Waits for the trigger's answer to this record, `timeout` at most. May be called again.
    ///
    /// # Errors
    /// [`AnswerError`]: none came in time, or the log can't be read.
    pub fn accepted(&self, timeout: Duration) -> Result<Answer, AnswerError> {
        let deadline = self.clock.monotonic() + timeout;
        let mut reader = self.log.reader(Isolation::Committed)?;
        reader.read_from(&[(self.answers.clone(), self.from)])?;
        loop {
            let left = deadline.saturating_sub(self.clock.monotonic());
            let events = reader.poll(EVENTS_MAX, left.min(POLL_WAIT))?;
            if let Some(answer) = events.iter().find_map(|record| self.answer_in(record)) {
                return Ok(answer);
            }
            if left.is_zero() && events.is_empty() {
                return Err(AnswerError::TimedOut { position: self.position.clone(), waited: timeout });
            }
        }
    }

    /// The answer that a record holds, if it is one to what was sent.
    fn answer_in(&self, record: &Record) -> Option<Answer> {
        // Of others' jobs most, and what a newer version wrote in a way of its own is no answer that can be told.
        if record.key_text() != Some(self.job.as_str()) {
            return None;
        }
        let event: JobEvent = codec::decode(record.value.as_deref()?).ok()?;
        if event.definition_offset != Some(self.position.offset) {
            return None;
        }
        match event.kind {
            JobEventType::Accepted => Some(Answer::Accepted { version: event.version }),
            JobEventType::Unchanged => Some(Answer::Unchanged { version: event.version }),
            JobEventType::Rejected => Some(Answer::Rejected { errors: event.errors }),
            JobEventType::Deleted => Some(Answer::Deleted),
            JobEventType::Paused
            | JobEventType::Resumed
            | JobEventType::BackfillStarted
            | JobEventType::BackfillFinished
            | JobEventType::BackfillCancelled
            | JobEventType::CommandRejected
            | JobEventType::Unknown => None,
        }
    }
}

impl std::fmt::Debug for Published {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Published").field("job", &self.job).field("position", &self.position).finish_non_exhaustive()
    }
}
