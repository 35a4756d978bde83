//! What producers put on `jobs` and `commands`: Avro in either framing, or JSON. Not here: whether a definition
//! or command makes sense, which its owner decides. Invariant: whatever can't be read is refused with complaints
//! that a person can act on, and nothing of the value but the field at fault is repeated.

mod settings;

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use orloj_domain::command::{Command, CommandType, PauseMissed};
use orloj_domain::job::{DEFINITION_BYTES_MAX, JobDefinition};
use orloj_domain::job_event::FieldError;
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use serde_json::{Map, Value};

use super::{WireRecord, confluent, decode};
pub use settings::{SettingOfCalendar, SettingOfLimit, calendar_of_key, decode_calendar, decode_limit, limit_of_key};

/// Largest command in bytes, inclusive.
pub const COMMAND_BYTES_MAX: usize = 256 * 1024;

/// A value that can't be read, with every complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecodable {
    /// The complaints; one or more.
    pub errors: Vec<FieldError>,
}

impl Undecodable {
    fn one(error: FieldError) -> Self {
        Self { errors: vec![error] }
    }
}

impl Display for Undecodable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for Undecodable {}

/// Reads a record of `jobs`: Avro, or a manifest as JSON. The key must name the same job.
///
/// # Errors
/// Every complaint about the key or the value.
pub fn decode_definition(key: Option<&[u8]>, value: &[u8]) -> Result<JobDefinition, Undecodable> {
    check_size(value, DEFINITION_BYTES_MAX)?;
    let definition: JobDefinition = match json_text(value)? {
        Some(text) => manifest::parse_json(text).map_err(|errors| Undecodable { errors })?,
        None => decode_avro(value)?,
    };
    let job = definition.job.as_str();
    match key {
        Some(key) if key == job.as_bytes() => Ok(definition),
        Some(key) => Err(Undecodable::one(FieldError::new(
            "key",
            String::from_utf8_lossy(key),
            format!("must be the job that the value defines, `{job}`"),
        ))),
        None => Err(Undecodable::one(FieldError::new("key", "", format!("is missing; it must be `{job}`")))),
    }
}

/// Reads a record of `commands`: Avro or JSON.
///
/// # Errors
/// Every complaint about the value.
pub fn decode_command(value: &[u8]) -> Result<Command, Undecodable> {
    check_size(value, COMMAND_BYTES_MAX)?;
    match json_text(value)? {
        Some(text) => command_of_json(text).map_err(|errors| Undecodable { errors }),
        None => decode_avro(value),
    }
}

fn check_size(value: &[u8], bytes_max: usize) -> Result<(), Undecodable> {
    if value.len() <= bytes_max {
        return Ok(());
    }
    let found = format!("{} bytes", value.len());
    Err(Undecodable::one(FieldError::new("value", found, format!("must be at most {bytes_max} bytes"))))
}

/// The value as text if its first byte, white space aside, is `{`.
fn json_text(value: &[u8]) -> Result<Option<&str>, Undecodable> {
    if value.trim_ascii_start().first() != Some(&b'{') {
        return Ok(None);
    }
    std::str::from_utf8(value).map(Some).map_err(|error| {
        let found = format!("byte {}", error.valid_up_to());
        Undecodable::one(FieldError::new("value", found, "is no UTF-8 text; JSON must be"))
    })
}

fn decode_avro<T: WireRecord>(value: &[u8]) -> Result<T, Undecodable> {
    let decoded = if confluent::is_framed(value) { confluent::decode(value) } else { decode(value) };
    decoded.map_err(|error| {
        let found = format!("{} bytes", value.len());
        let message =
            format!("{error}; send Avro in single-object or Confluent framing, or JSON that begins with `{{`");
        Undecodable::one(FieldError::new("value", found, message))
    })
}

/// How an instant is written; continues what names the field.
const INSTANT: &str = "must be an instant as RFC 3339 writes it, for example 2026-12-01T09:00:00+01:00";

/// The fields of a JSON object, taken out one by one, and the complaints so far.
struct Fields {
    object: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    fn complain(&mut self, field: &str, value: impl Display, message: impl Into<String>) {
        self.errors.push(FieldError::new(field, value, message));
    }

    fn text(&mut self, field: &str) -> Option<String> {
        match self.object.remove(field) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text),
            Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_))) => {
                self.complain(field, other, "must be a text");
                None
            }
        }
    }

    fn parsed<T: FromStr>(&mut self, field: &str, expected: &str) -> Option<T> {
        let text = self.text(field)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.complain(field, text, expected);
        }
        parsed
    }

    fn instant(&mut self, field: &str) -> Option<Timestamp> {
        self.parsed(field, INSTANT)
    }

    fn params(&mut self) -> BTreeMap<String, String> {
        let mut params = BTreeMap::new();
        match self.object.remove("params") {
            None | Some(Value::Null) => {}
            Some(Value::Object(object)) => {
                for (name, value) in object {
                    if let Value::String(text) = value {
                        params.insert(name, text);
                    } else {
                        self.complain(&format!("params.{name}"), value, "must be a text; put it in quotes");
                    }
                }
            }
            Some(other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::String(_))) => {
                self.complain("params", other, "must be an object of texts");
            }
        }
        params
    }

    fn number(&mut self, field: &str) -> Option<i32> {
        let value = self.object.remove(field).filter(|value| !value.is_null())?;
        let number = value.as_i64().and_then(|number| number.try_into().ok());
        if number.is_none() {
            self.complain(field, value, "must be a whole number");
        }
        number
    }

    fn instants(&mut self, field: &str) -> Vec<Timestamp> {
        let items = match self.object.remove(field) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(items)) => items,
            Some(other @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_))) => {
                self.complain(field, other, "must be a list of instants");
                return Vec::new();
            }
        };
        let mut instants = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            match item.as_str().and_then(|text| text.parse().ok()) {
                Some(instant) => instants.push(instant),
                None => self.complain(&format!("{field}[{index}]"), item, INSTANT),
            }
        }
        instants
    }

    fn pause_missed(&mut self) -> Option<PauseMissed> {
        let text = self.text("missed")?;
        let found = [PauseMissed::Drop, PauseMissed::Accumulate].into_iter().find(|word| word.as_str() == text);
        if found.is_none() {
            self.complain("missed", text, "must be drop or accumulate");
        }
        found
    }

    fn command_type(&mut self) -> Option<CommandType> {
        // The dispatcher's own word, and that of the API, which checks a token, are not for people to send.
        let known =
            |word: &CommandType| !matches!(word, CommandType::Unknown | CommandType::RunEnded | CommandType::Complete);
        let text = self.text("type")?;
        let found = CommandType::ALL.iter().copied().filter(known).find(|word| word.as_str() == text);
        if found.is_none() {
            let words: Vec<&str> =
                CommandType::ALL.iter().filter(|word| known(word)).map(|word| word.as_str()).collect();
            self.complain("type", text, format!("must be one of {}", words.join(", ")));
        }
        found
    }

    /// Takes a field that must be there; complains unless something else was said about it.
    fn required<T>(&mut self, field: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && !self.errors.iter().any(|error| error.field == field) {
            self.complain(field, "", "is missing");
        }
        value
    }
}

fn command_of_json(text: &str) -> Result<Command, Vec<FieldError>> {
    let object: Map<String, Value> = serde_json::from_str(text).map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        vec![FieldError::new("value", place, format!("is no JSON object: {error}"))]
    })?;
    let mut fields = Fields { object, errors: Vec::new() };
    let kind = fields.command_type();
    let kind = fields.required("type", kind);
    let command_id = fields.parsed("commandId", "must be 1 to 128 printable characters");
    let command_id = fields.required("commandId", command_id);
    let at = fields.instant("at");
    let actor = fields.text("actor");
    let reason = fields.text("reason");
    let params = fields.params();
    let run_id = fields.parsed("runId", "must be a UUID, as `orloj runs` shows it");
    let (from, until) = (fields.instant("from"), fields.instant("until"));
    let fire_times = fields.instants("fireTimes");
    let (max, concurrency) = (fields.number("max"), fields.number("concurrency"));
    let backfill_id = fields.parsed("backfillId", "must be 1 to 128 printable characters");
    let missed = fields.pause_missed();
    let unknown: Vec<String> = fields.object.keys().cloned().collect();
    for field in unknown {
        fields.complain(&field, "", "is no field of a command");
    }
    match (kind, command_id) {
        (Some(kind), Some(command_id)) if fields.errors.is_empty() => Ok(Command {
            kind,
            command_id,
            at,
            actor,
            reason,
            params,
            run_id,
            from,
            until,
            fire_times,
            max,
            concurrency,
            backfill_id,
            missed,
            // Only the dispatcher and the API send ends, and not as JSON.
            run_state: None,
            attempt: None,
            token: None,
            outcome: None,
            spares_parked: false,
            not_before: None,
        }),
        _ => Err(fields.errors),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::encode;

    fn run_now() -> Command {
        Command {
            at: Some(Timestamp::from_millis(1_764_547_200_000)),
            reason: Some("by hand".to_owned()),
            params: BTreeMap::from([("tenant".to_owned(), "7".to_owned())]),
            ..Command::new(CommandType::RunNow, "c-1".parse().expect("id"))
        }
    }

    #[test]
    fn a_command_is_read_from_avro_in_both_framings_and_from_json() {
        let command = run_now();
        let single_object = encode(&command);
        let confluent = [&[0, 0, 0, 0, 9], &single_object[crate::codec::HEADER_BYTES..]].concat();
        let json = br#" {"type":"RunNow","commandId":"c-1","at":"2025-12-01T01:00:00+01:00","reason":"by hand",
            "params":{"tenant":"7"},"runId":null}"#;
        for value in [&single_object[..], &confluent, json] {
            assert_eq!(decode_command(value).expect("readable"), command);
        }
    }

    fn complaints(value: &str) -> Vec<String> {
        let refused = decode_command(value.as_bytes()).expect_err("refused");
        refused.errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
    }

    #[test]
    fn every_complaint_about_a_json_command_is_listed() {
        assert_eq!(complaints("{}"), ["type: is missing", "commandId: is missing"]);
        assert_eq!(
            complaints(
                r#"{"type":"Run","commandId":7,"params":{"a":1},"from":"tomorrow","runId":"x","parms":{},
                "fireTimes":["2026-03-01T00:00:00Z",7],"max":1.5,"missed":"all"}"#
            ),
            [
                "type: must be one of RunNow, Backfill, Cancel, Redrive, Park, Pause, Resume",
                "commandId: must be a text",
                "params.a: must be a text; put it in quotes",
                "runId: must be a UUID, as `orloj runs` shows it",
                "from: must be an instant as RFC 3339 writes it, for example 2026-12-01T09:00:00+01:00",
                "fireTimes[1]: must be an instant as RFC 3339 writes it, for example 2026-12-01T09:00:00+01:00",
                "max: must be a whole number",
                "missed: must be drop or accumulate",
                "parms: is no field of a command",
            ]
        );
        assert!(complaints("{\"type\": ")[0].starts_with("value: is no JSON object: EOF"));
        assert!(complaints("{\"type\":\"Unknown\",\"commandId\":\"a\"}")[0].starts_with("type: must be one of"));
    }

    #[test]
    fn what_is_no_command_is_refused_by_name() {
        for (value, part) in [
            (&b""[..], "the value is empty"),
            (b"[1]", "begins with C3 01, this with 5B"),
            (b"\x00\x00", "ends too early"),
            (b"\xC3\x01\x00\x00\x00\x00\x00\x00\x00\x00", "fingerprint 0000000000000000"),
            (b"{\xFF}", "no UTF-8 text"),
        ] {
            let text = decode_command(value).expect_err("refused").to_string();
            assert!(text.contains(part), "{text}");
        }
        let too_large = vec![b' '; COMMAND_BYTES_MAX + 1];
        assert!(decode_command(&too_large).expect_err("refused").to_string().contains("at most 262144 bytes"));
    }
}
