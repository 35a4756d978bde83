//! What can go wrong with the log, by what the caller must do next. Not here: refused jobs and failed runs,
//! which are data. Invariant: every class has one reaction, so a caller never looks into the text.

use super::record::TopicPartition;

/// What went wrong with a read, a look-up or a membership.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Try again later: the log can't be reached or is busy.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// A topic or partition does not exist.
    #[error("no such topic or partition: {0}")]
    NoSuchTopic(String),
    /// The records wanted are gone: retention took them.
    #[error("{at}: offset {wanted} is gone, the first one kept is {first}")]
    OutOfRange {
        /// The partition.
        at: TopicPartition,
        /// The offset wanted.
        wanted: i64,
        /// The first offset still there.
        first: i64,
    },
    /// The shards concerned are no longer ours.
    #[error("no longer the owner: {0}")]
    Lost(String),
    /// Another process holds what only one may hold.
    #[error("{0}")]
    Busy(String),
    /// The set-up is wrong; a person must act.
    #[error("{0}")]
    Misconfigured(String),
}

/// Why nothing, or nobody knows what, was appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Nothing was appended and we are not (or no longer) allowed to: drop the memory that led to it.
    #[error("refused: {0}")]
    Refused(String),
    /// Nothing was appended; the same batch may be tried again.
    #[error("nothing was appended, try again: {0}")]
    Retriable(String),
    /// Nothing was appended: these partitions do not answer. The rest of the batch may be tried without them.
    #[error("nothing was appended, these partitions do not answer: {0:?}")]
    Stalled(Vec<TopicPartition>),
    /// Nobody knows whether it was appended: drop the memory that led to it and read again.
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// Nothing was appended: a record is larger than the log takes.
    #[error("nothing was appended: a record of {size_bytes} bytes for `{topic}` is larger than the log takes")]
    TooLarge {
        /// The topic.
        topic: String,
        /// Size of key, value and headers.
        size_bytes: usize,
    },
    /// Nothing was appended: the disk is full.
    #[error("nothing was appended: {0}")]
    Full(String),
    /// Nothing was appended: there is no topic of this name, or it lacks a partition.
    #[error("nothing was appended: no such topic or partition: {0}")]
    NoSuchTopic(String),
}
