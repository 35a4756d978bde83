//! Records and where they are. Not here: what their bytes mean (`codec`). Invariant: key, value and headers
//! are bytes as they came; nothing between writer and reader changes them.

use std::fmt;

use orloj_domain::time::Timestamp;

/// Name of a topic, without the installation's prefix. Each record carries it, and it is copied again and again on the
/// way: those of up to 23 bytes, which are all but long queues', are copied without memory of their own.
pub type TopicName = smol_str::SmolStr;

/// One partition of one topic; the topic's name is without the installation's prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic without prefix.
    pub topic: TopicName,
    /// Partition, 0-based.
    pub partition: i32,
}

impl TopicPartition {
    /// Names a partition.
    pub fn new(topic: impl Into<TopicName>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Where a record is: `topic/partition@offset`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Topic without prefix.
    pub topic: TopicName,
    /// Partition, 0-based.
    pub partition: i32,
    /// Offset within the partition.
    pub offset: i64,
}

impl Position {
    /// The partition of this position.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.partition)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.topic, self.partition, self.offset)
    }
}

impl std::str::FromStr for Position {
    type Err = String;

    /// Reads `topic/partition@offset`.
    fn from_str(text: &str) -> Result<Self, String> {
        let complaint = || format!("`{text}` is no position: write `topic/partition@offset`");
        let (topic, rest) = text.rsplit_once('/').ok_or_else(complaint)?;
        let (partition, offset) = rest.split_once('@').ok_or_else(complaint)?;
        Ok(Self {
            topic: topic.into(),
            partition: partition.parse().map_err(|_| complaint())?,
            offset: offset.parse().map_err(|_| complaint())?,
        })
    }
}

/// A header: a name and any bytes, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

impl Header {
    /// A header with a text value.
    pub fn text(key: impl Into<String>, value: impl fmt::Display) -> Self {
        Self { key: key.into(), value: Some(value.to_string().into_bytes()) }
    }
}

/// A record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Topic without prefix.
    pub topic: TopicName,
    /// Partition, 0-based.
    pub partition: i32,
    /// Offset within the partition; grows, with holes.
    pub offset: i64,
    /// When it was appended (or, on foreign topics, as its producer says).
    pub timestamp: Timestamp,
    /// Key; absent for records without one.
    pub key: Option<Vec<u8>>,
    /// Value; absent for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<Header>,
}

impl Record {
    /// Where it is.
    #[must_use]
    pub fn position(&self) -> Position {
        Position { topic: self.topic.clone(), partition: self.partition, offset: self.offset }
    }

    /// Its partition.
    #[must_use]
    pub fn topic_partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic.clone(), self.partition)
    }

    /// Its key as text, if it is UTF-8.
    #[must_use]
    pub fn key_text(&self) -> Option<&str> {
        self.key.as_deref().and_then(|key| std::str::from_utf8(key).ok())
    }
}

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// Topic without prefix.
    pub topic: TopicName,
    /// Partition; always explicit, never left to a partitioner.
    pub partition: i32,
    /// Key.
    pub key: Option<Vec<u8>>,
    /// Value; absent for a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order.
    pub headers: Vec<Header>,
}

impl NewRecord {
    /// A record without headers.
    pub fn new(topic: impl Into<TopicName>, partition: i32, key: impl Into<Vec<u8>>, value: Option<Vec<u8>>) -> Self {
        Self { topic: topic.into(), partition, key: Some(key.into()), value, headers: Vec::new() }
    }

    /// Bytes of key, value and headers.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|header| header.key.len() + header.value.as_ref().map_or(0, Vec::len)).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}
