//! What people write: the manifest, its conversion to and from a [`JobDefinition`], and
//! the checks that every definition passes, whoever wrote it. Not here: YAML, files, and where a text came from.
//! Invariant: every complaint is made at once, each with its field, the value found and how to mend it.

mod check;
mod check_http;
mod check_kafka;
mod check_spec;
mod convert;
mod limits;
mod shape;
#[cfg(test)]
mod tests;
mod values;
mod write;

pub use check::{after_finish_of, calendars_of, check, check_ahead, rules_for, rules_of};
pub use convert::to_definition;
pub use limits::{Limits, SizeText};
pub use shape::{
    Backoff, DstRules, ExecRun, HandlerRun, HeaderText, HttpRun, KafkaRun, Manifest, Metadata, Missed, Overlap, Retry,
    Rule, Run, Schedule, ShellRun, Spec, StatusCodes,
};
pub use values::{duration_text, parse_duration, parse_instant};
pub use write::from_definition;

use crate::job::{DEFINITION_BYTES_MAX, JobDefinition};
use crate::job_event::FieldError;

/// The only `apiVersion` there is.
pub const API_VERSION: &str = "orloj/v1";
/// The `kind` of a job's manifest; a calendar's is [`crate::calendar::KIND`].
pub const KIND: &str = "Job";
/// Namespace of a job that names none.
pub const NAMESPACE_DEFAULT: &str = "default";

/// Reads a manifest as JSON and converts it.
///
/// # Errors
/// Every complaint; one that names line and column if the text is no JSON manifest at all.
pub fn parse_json(text: &str) -> Result<JobDefinition, Vec<FieldError>> {
    if text.len() > DEFINITION_BYTES_MAX {
        let message =
            format!("is larger than {DEFINITION_BYTES_MAX} bytes; move scripts and payloads out of the definition");
        return Err(vec![FieldError::new("manifest", format!("{} bytes", text.len()), message)]);
    }
    let manifest: Manifest = serde_json::from_str(text).map_err(|error| vec![no_manifest(&error)])?;
    to_definition(manifest)
}

/// Names the field if the reader did, as in "unknown field `x`, expected ...".
pub(crate) fn no_manifest(error: &serde_json::Error) -> FieldError {
    let text = error.to_string();
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| text.strip_prefix(start)?.split_once('`').map(|(name, _)| name.to_owned()));
    FieldError::new(named.unwrap_or_else(|| "manifest".to_owned()), "", text)
}
