//! The schemas, embedded: the current ones and every released version, so that the binary decodes and checks
//! without the source tree. Not here: what is done with them. Invariant: equal to `schemas/` (a test compares).

/// One schema file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchemaFile {
    /// The record it describes.
    pub record: &'static str,
    /// Its text, as it stands in the file.
    pub text: &'static str,
}

macro_rules! files {
    ($folder:literal: $($record:literal),+ $(,)?) => {
        &[$(SchemaFile {
            record: $record,
            text: include_str!(concat!("../../../../schemas/", $folder, $record, ".avsc")),
        }),+]
    };
}

/// The current schemas.
pub const CURRENT: &[SchemaFile] = files!("":
    "JobDefinition", "JobEvent", "TriggerState", "OwnerRecord", "Barrier", "ShardPositions", "Command",
    "FireDecision", "LiveRun", "RunEvent", "ReadyAttempt", "AttemptEvent", "RunnerHeartbeat", "AttemptOutput",
    "RunnerMessage", "Setting", "LimitEvent", "BreakerEvent",
);

/// A set of schemas that was released together and never changes again.
#[derive(Debug, Clone, Copy)]
pub struct Release {
    /// Counted from 1.
    pub version: u32,
    /// Its schemas.
    pub files: &'static [SchemaFile],
}

/// Every released version, oldest first.
pub const RELEASED: &[Release] = &[Release {
    version: 1,
    files: files!("released/1/":
        "JobDefinition", "JobEvent", "TriggerState", "OwnerRecord", "Barrier", "ShardPositions", "Command",
        "FireDecision", "LiveRun", "RunEvent", "ReadyAttempt", "AttemptEvent", "RunnerHeartbeat", "AttemptOutput",
        "RunnerMessage", "Setting", "LimitEvent", "BreakerEvent",
    ),
}];

/// The current schema of a record.
#[must_use]
pub fn current(record: &str) -> Option<&'static str> {
    CURRENT.iter().find(|file| file.record == record).map(|file| file.text)
}

/// Every released schema of a record, newest first.
pub fn released(record: &str) -> impl Iterator<Item = &'static str> {
    RELEASED
        .iter()
        .rev()
        .flat_map(|release| release.files)
        .filter(move |file| file.record == record)
        .map(|file| file.text)
}
