//! `limits` of a program or a script: as they are written, read, checked and written again. Not here: how a
//! runner applies them. Invariant: a limit without complaints lets a program start on an ordinary machine, and
//! a size is never rounded.

use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::complaints::Complaints;
use crate::job::ProcessLimits;
use crate::job_event::FieldError;

/// Less holds no shell on some machines; who writes less has most often left out the unit.
const MEMORY_BYTES: RangeInclusive<i64> = 8 * 1024 * 1024..=1024 * 1024 * 1024 * 1024 * 1024;
/// At most as long as an attempt may take.
const CPU_SECONDS: RangeInclusive<i64> = 1..=366 * 86_400;
/// Input, output, errors, progress and what a program opens to start; the most that Linux gives by default.
const OPEN_FILES: RangeInclusive<i64> = 16..=1_048_576;
/// The most numbers for processes that Linux has.
const PROCESSES: RangeInclusive<i64> = 1..=4_194_304;
/// Units of sizes, from the largest.
const UNITS: [(&str, i64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// What the processes of an attempt may use at most.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Address space of each process: bytes, or a size such as `256MiB`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<SizeText>,
    /// Processor time of each process, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_seconds: Option<i64>,
    /// Open files of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_files: Option<i64>,
    /// Processes and threads of the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<i64>,
}

/// A size as written: a number of bytes, or a number with a unit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct SizeText(pub String);

impl<'de> Deserialize<'de> for SizeText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl Visitor<'_> for NumberOrText {
            type Value = SizeText;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a number of bytes, or a size such as 256MiB")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<SizeText, E> {
                Ok(SizeText(bytes.to_string()))
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<SizeText, E> {
                Ok(SizeText(bytes.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<SizeText, E> {
                Ok(SizeText(text.to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// The limits; nothing if none is set.
pub(super) fn read(path: &str, limits: &Limits, complaints: &mut Complaints) -> Option<ProcessLimits> {
    let memory_bytes = limits.memory.as_ref().and_then(|SizeText(text)| match parse_size(text) {
        Ok(bytes) => Some(bytes),
        Err(message) => {
            complaints.add(format!("{path}.memory"), text, message);
            None
        }
    });
    let read = ProcessLimits {
        memory_bytes,
        cpu_seconds: limits.cpu_seconds,
        open_files: limits.open_files,
        processes: limits.processes,
    };
    (read != ProcessLimits::default()).then_some(read)
}

/// The limits as people write them.
pub(super) fn written(limits: &ProcessLimits) -> Limits {
    Limits {
        memory: limits.memory_bytes.map(|bytes| SizeText(size_text(bytes))),
        cpu_seconds: limits.cpu_seconds,
        open_files: limits.open_files,
        processes: limits.processes,
    }
}

/// Complains about limits under which nothing could run, or that no machine has.
pub(super) fn check(path: &str, limits: Option<&ProcessLimits>, errors: &mut Vec<FieldError>) {
    let Some(limits) = limits else { return };
    if let Some(bytes) = limits.memory_bytes.filter(|bytes| !MEMORY_BYTES.contains(bytes)) {
        let message = "must be 8MiB to 1024TiB; a number without a unit is bytes, so write for example `256MiB`";
        errors.push(FieldError::new(format!("{path}.memory"), size_text(bytes), message));
    }
    for (field, value, range) in [
        ("cpuSeconds", limits.cpu_seconds, CPU_SECONDS),
        ("openFiles", limits.open_files, OPEN_FILES),
        ("processes", limits.processes, PROCESSES),
    ] {
        if let Some(value) = value.filter(|value| !range.contains(value)) {
            let message = format!("must be {} to {}; leave it out for no limit", range.start(), range.end());
            errors.push(FieldError::new(format!("{path}.{field}"), value, message));
        }
    }
}

/// Reads a size: bytes, or a whole number of KiB, MiB, GiB or TiB.
///
/// # Errors
/// What is wrong and how to mend it; continues the sentence that the value starts.
fn parse_size(text: &str) -> Result<i64, String> {
    let text = text.trim();
    let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
    let (number, bytes) = unit.unwrap_or((text, 1));
    let number = number.trim_end();
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("is no size; write whole bytes, or a whole number of KiB, MiB, GiB or TiB such as `256MiB`".into());
    }
    let count: Option<i64> = number.parse().ok();
    count.and_then(|count| count.checked_mul(bytes)).ok_or_else(|| "is more than any machine has; write less".into())
}

/// Writes a size in the largest unit of which it is a whole number.
fn size_text(bytes: i64) -> String {
    let whole = |(_, unit): &&(&str, i64)| bytes > 0 && bytes % unit == 0;
    UNITS.iter().find(whole).map_or_else(|| bytes.to_string(), |(name, unit)| format!("{}{name}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_without_rounding() {
        for (text, bytes, again) in [
            ("1048576", 1 << 20, "1MiB"),
            ("256MiB", 256 << 20, "256MiB"),
            (" 1 GiB ", 1 << 30, "1GiB"),
            ("1536MiB", 3 << 29, "1536MiB"),
            ("2TiB", 2 << 40, "2TiB"),
            ("1000001", 1_000_001, "1000001"),
            ("0", 0, "0"),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
            assert_eq!(size_text(bytes), again);
            assert_eq!(parse_size(again), Ok(bytes));
        }
    }

    #[test]
    fn other_sizes_are_refused_with_the_fix() {
        for text in ["", "MiB", "256MB", "256Mi", "256M", "1.5GiB", "-1", "+1MiB", "much", "1e9"] {
            assert!(parse_size(text).expect_err(text).contains("256MiB"), "{text}");
        }
        for text in ["9223372036854775808", "9999999999TiB"] {
            assert!(parse_size(text).expect_err(text).contains("write less"), "{text}");
        }
    }
}
