//! Records to bytes and back: Avro, single-object framed (`C3 01`, fingerprint of the schema, body), by the
//! schemas in `schemas/`. Not here: which topic carries which record (`topics.yaml`), what is asked of people's
//! JSON (`input`). Invariant: what any released version wrote decodes; a writer's schema that is not known is
//! an error and never a guess.

pub mod compatibility;
pub mod confluent;
mod contract;
mod decoder;
mod encoder;
pub mod fingerprint;
pub mod input;
mod resolve;
pub mod schemas;

use std::sync::LazyLock;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use contract::{Contract, WriterSchema};

/// Marks a single-object framed value (Avro specification, "Single-object encoding").
pub const SINGLE_OBJECT_MAGIC: [u8; 2] = [0xC3, 0x01];
/// Bytes before the body: the magic and the fingerprint.
pub const HEADER_BYTES: usize = 10;
/// Most bytes that one length inside a value may claim, inclusive.
pub const ALLOCATION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A type that is written to the log under the schema of the same name.
pub trait WireRecord: Serialize + DeserializeOwned + 'static {
    /// Name of the record and of its schema file.
    const NAME: &'static str;

    /// The schemas of this record, parsed once.
    #[doc(hidden)]
    fn contract() -> &'static Contract;
}

macro_rules! wire_records {
    ($($name:literal => $type:ty),+ $(,)?) => {
        $(
            impl WireRecord for $type {
                const NAME: &'static str = $name;

                fn contract() -> &'static Contract {
                    static CONTRACT: LazyLock<Contract> = LazyLock::new(|| Contract::of_embedded($name));
                    &CONTRACT
                }
            }
        )+
    };
}

wire_records! {
    "JobDefinition" => orloj_domain::job::JobDefinition,
    "JobEvent" => orloj_domain::job_event::JobEvent,
    "TriggerState" => orloj_domain::trigger_state::TriggerState,
    "OwnerRecord" => orloj_domain::owner::OwnerRecord,
    "Barrier" => orloj_domain::owner::Barrier,
    "ShardPositions" => orloj_domain::owner::ShardPositions,
    "Command" => orloj_domain::command::Command,
    "FireDecision" => orloj_domain::fire::FireDecision,
    "LiveRun" => orloj_domain::run::LiveRun,
    "RunEvent" => orloj_domain::run::RunEvent,
    "ReadyAttempt" => orloj_domain::attempt::ReadyAttempt,
    "AttemptEvent" => orloj_domain::attempt::AttemptEvent,
    "RunnerHeartbeat" => orloj_domain::runner::RunnerHeartbeat,
    "AttemptOutput" => orloj_domain::runner::AttemptOutput,
    "RunnerMessage" => orloj_domain::runner::RunnerMessage,
    "Setting" => orloj_domain::setting::Setting,
    "LimitEvent" => orloj_domain::setting::LimitEvent,
    "BreakerEvent" => orloj_domain::setting::BreakerEvent,
}

/// Why a value could not be decoded. The texts are short and hold neither schema nor body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The framing is not one that is read here.
    #[error("no {record}: {problem}")]
    NotFramed {
        /// What was expected.
        record: &'static str,
        /// What stands there instead.
        problem: String,
    },
    /// The fingerprint is of another record.
    #[error("no {record}: the value is a {found}")]
    OtherRecord {
        /// What was expected.
        record: &'static str,
        /// What it is.
        found: &'static str,
    },
    /// The fingerprint is of no released schema: a newer version or a foreign program wrote it.
    #[error("no {record}: its schema, fingerprint {fingerprint:016x}, is not one of this version's")]
    UnknownSchema {
        /// What was expected.
        record: &'static str,
        /// The fingerprint, CRC-64-AVRO.
        fingerprint: u64,
    },
    /// The body ends too early.
    #[error("no {record}: the value ends too early")]
    Truncated {
        /// What was expected.
        record: &'static str,
    },
    /// The body is followed by bytes that belong to nothing.
    #[error("no {record}: {bytes} bytes are left over after the record")]
    LeftOver {
        /// What was expected.
        record: &'static str,
        /// How many.
        bytes: usize,
    },
    /// The body can't be a record of the schema that it names.
    #[error("no {record}: {problem}")]
    Invalid {
        /// What was expected.
        record: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// Encodes a record, single-object framed, under the current schema.
///
/// # Panics
/// When the type and its schema disagree, which the golden tests rule out.
#[must_use]
pub fn encode<T: WireRecord>(record: &T) -> Vec<u8> {
    T::contract().encode(record)
}

/// Decodes a single-object framed value that the current or any released schema of the record wrote.
///
/// # Errors
/// [`DecodeError`] by what is wrong with the bytes.
pub fn decode<T: WireRecord>(bytes: &[u8]) -> Result<T, DecodeError> {
    T::contract().decode(bytes)
}

/// Decodes a body without framing that `writer` describes.
///
/// # Errors
/// [`DecodeError`] by what is wrong with the bytes.
pub fn decode_written_with<T: WireRecord>(writer: &WriterSchema, body: &[u8]) -> Result<T, DecodeError> {
    T::contract().decode_written_with(writer, body)
}
