//! The schemas of one record, parsed once: the current one writes and reads, older ones are resolved to it.
//! Not here: framings other than single-object. Invariant: what another schema wrote is first rewritten under the
//! current schema, so that it ends up as the same record; bytes that the fast way does not take are judged by the slow
//! one.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::error::Details;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::NamesRef;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    ALLOCATION_BYTES_MAX, DecodeError, HEADER_BYTES, SINGLE_OBJECT_MAGIC, decoder, encoder, fingerprint, resolve,
    schemas,
};

/// Longest problem text that is passed on, in characters.
const PROBLEM_CHARS_MAX: usize = 200;
/// Room that most records fit in.
const RECORD_BYTES_USUAL: usize = 512;

thread_local! {
    /// Where values are encoded; as large as the largest so far.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(RECORD_BYTES_USUAL));
}

/// A schema that some program wrote values with. It is kept for the life of the process: there are as many
/// as there are schema files, and readers borrow it.
pub struct WriterSchema {
    fingerprint: u64,
    schema: &'static Schema,
    names: NamesRef<'static>,
    reader: GenericDatumReader<'static>,
}

impl WriterSchema {
    /// Parses a self-contained schema.
    ///
    /// # Errors
    /// What is wrong with the schema, for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Before anything is decoded: the crate takes the first answer for the whole process.
        apache_avro::util::max_allocation_bytes(ALLOCATION_BYTES_MAX);
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let schema: &'static Schema = Box::leak(Box::new(Schema::parse(&json).map_err(|error| error.to_string())?));
        let resolved = apache_avro::schema::ResolvedSchema::new(schema).map_err(|error| error.to_string())?;
        let reader = GenericDatumReader::builder(schema).build().map_err(|error| error.to_string())?;
        Ok(Self { fingerprint: fingerprint::of_schema(&json), schema, names: resolved.get_names().clone(), reader })
    }

    /// Its fingerprint, CRC-64-AVRO.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The schema itself.
    #[must_use]
    pub fn schema(&self) -> &'static Schema {
        self.schema
    }

    pub(super) fn names(&self) -> &NamesRef<'static> {
        &self.names
    }
}

/// Everything needed to write and read one record.
pub struct Contract {
    record: &'static str,
    header: [u8; HEADER_BYTES],
    current: WriterSchema,
    writer: GenericDatumWriter<'static>,
    /// Other released schemas, newest first.
    others: Vec<WriterSchema>,
}

impl Contract {
    /// The contract of an embedded record.
    ///
    /// # Panics
    /// When an embedded schema is missing or can't be parsed, which the tests of `schemas` rule out.
    pub(super) fn of_embedded(record: &'static str) -> Self {
        let text = schemas::current(record).expect("every wire record has an embedded schema");
        let current = WriterSchema::parse(text).expect("embedded schemas are valid");
        let mut others: Vec<WriterSchema> = Vec::new();
        for text in schemas::released(record) {
            let schema = WriterSchema::parse(text).expect("embedded schemas are valid");
            let is_known = others.iter().chain([&current]).any(|known| known.fingerprint == schema.fingerprint);
            if !is_known {
                others.push(schema);
            }
        }
        let writer = GenericDatumWriter::builder(current.schema).build().expect("embedded schemas are valid");
        let mut header = [0; HEADER_BYTES];
        header[..2].copy_from_slice(&SINGLE_OBJECT_MAGIC);
        header[2..].copy_from_slice(&current.fingerprint.to_le_bytes());
        Self { record, header, current, writer, others }
    }

    /// Fingerprint of the current schema.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.current.fingerprint
    }

    /// The current schema first, then the other released ones, newest first.
    pub(super) fn schemas(&self) -> impl Iterator<Item = &WriterSchema> {
        [&self.current].into_iter().chain(&self.others)
    }

    pub(super) fn encode<T: Serialize>(&self, record: &T) -> Vec<u8> {
        // Thousands of values wait for their append at a time: each is as large as it is, and not as it was feared.
        let out = SCRATCH.with_borrow_mut(|scratch| {
            scratch.clear();
            scratch.extend_from_slice(&self.header);
            if let Err(error) = encoder::write(record, scratch) {
                panic!("{} does not encode: {error}", self.record);
            }
            scratch.as_slice().to_vec()
        });
        // The encoder trusts the order of fields; builds for tests ask the schema as well.
        debug_assert!(
            self.writer.write_ser_to_vec(record).is_ok_and(|checked| checked == out[HEADER_BYTES..]),
            "{} and its schema disagree",
            self.record
        );
        out
    }

    pub(super) fn decode<T: Serialize + DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, DecodeError> {
        let (fingerprint, body) = self.unframe(bytes)?;
        if fingerprint == self.current.fingerprint {
            return self.decode_current(body);
        }
        match self.others.iter().find(|other| other.fingerprint == fingerprint) {
            Some(writer) => self.decode_written_with(writer, body),
            None => Err(self.unknown(fingerprint)),
        }
    }

    pub(super) fn decode_written_with<T: Serialize + DeserializeOwned>(
        &self,
        writer: &WriterSchema,
        body: &[u8],
    ) -> Result<T, DecodeError> {
        if writer.fingerprint == self.current.fingerprint {
            return self.decode_current(body);
        }
        let mut rest = body;
        let value = writer.reader.read_value(&mut rest).map_err(|error| self.refused(&error))?;
        self.check_rest(rest)?;
        let value = resolve::resolve(value, writer, &self.current)
            .map_err(|problem| DecodeError::Invalid { record: self.record, problem })?;
        let mut rewritten = Vec::with_capacity(body.len() + RECORD_BYTES_USUAL);
        self.writer.write_value_ref(&mut rewritten, &value).map_err(|error| self.refused(&error))?;
        self.decode_current(&rewritten)
    }

    fn decode_current<T: Serialize + DeserializeOwned>(&self, body: &[u8]) -> Result<T, DecodeError> {
        if let Ok((record, [])) = decoder::read::<T>(body) {
            debug_assert!(self.is_read_alike(body, &record), "{} and its schema disagree", self.record);
            return Ok(record);
        }
        self.read_by_schema(body)
    }

    /// The slow way, which looks at the schema for every field and knows what is wrong.
    fn read_by_schema<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, DecodeError> {
        let mut rest = body;
        let record = self.current.reader.read_deser(&mut rest).map_err(|error| self.refused(&error))?;
        self.check_rest(rest)?;
        Ok(record)
    }

    /// True if the slow way makes the same of the bytes.
    fn is_read_alike<T: Serialize + DeserializeOwned>(&self, body: &[u8], record: &T) -> bool {
        let Ok(again) = self.read_by_schema::<T>(body) else { return false };
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        encoder::write(record, &mut ours).is_ok() && encoder::write(&again, &mut theirs).is_ok() && ours == theirs
    }

    fn unframe<'a>(&self, bytes: &'a [u8]) -> Result<(u64, &'a [u8]), DecodeError> {
        let not_framed = |problem: &str| DecodeError::NotFramed { record: self.record, problem: problem.to_owned() };
        let rest = match bytes {
            [] => return Err(not_framed("the value is empty")),
            [0xC3, 0x01, rest @ ..] => rest,
            [first, ..] => {
                return Err(not_framed(&format!(
                    "Avro single-object framing begins with C3 01, this with {first:02X}"
                )));
            }
        };
        match rest.split_first_chunk::<8>() {
            Some((fingerprint, body)) => Ok((u64::from_le_bytes(*fingerprint), body)),
            None => Err(DecodeError::Truncated { record: self.record }),
        }
    }

    fn check_rest(&self, rest: &[u8]) -> Result<(), DecodeError> {
        match rest.len() {
            0 => Ok(()),
            bytes => Err(DecodeError::LeftOver { record: self.record, bytes }),
        }
    }

    fn unknown(&self, fingerprint: u64) -> DecodeError {
        match FINGERPRINTS.get(&fingerprint) {
            Some(found) => DecodeError::OtherRecord { record: self.record, found },
            None => DecodeError::UnknownSchema { record: self.record, fingerprint },
        }
    }

    /// The crate's own texts print whole schemas and values: only what is known to be short is passed on.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a hundred ways of the crate to say that bytes do not fit")]
    fn refused(&self, error: &apache_avro::Error) -> DecodeError {
        let problem = match error.details() {
            Details::ReadBytes(_) | Details::ReadVariableIntegerBytes(_) | Details::ReadBoolean(_) => {
                return DecodeError::Truncated { record: self.record };
            }
            Details::DeserializeValue(text) => text.chars().take(PROBLEM_CHARS_MAX).collect(),
            Details::MemoryAllocation { .. } => {
                format!("it claims a length of more than {ALLOCATION_BYTES_MAX} bytes")
            }
            Details::ConvertToUtf8(_) | Details::ConvertToUtf8Error(_) => "a text in it is not UTF-8".to_owned(),
            Details::EnumSymbolIndex { .. } | Details::GetUnionVariant { .. } => {
                "it names a symbol or branch that its schema does not have".to_owned()
            }
            _ => "its bytes do not fit its schema".to_owned(),
        };
        DecodeError::Invalid { record: self.record, problem }
    }
}

/// Which record each shipped fingerprint belongs to; only asked when something is wrong.
static FINGERPRINTS: LazyLock<HashMap<u64, &'static str>> = LazyLock::new(|| {
    let released = schemas::RELEASED.iter().flat_map(|release| release.files);
    schemas::CURRENT
        .iter()
        .chain(released)
        .filter_map(|file| {
            serde_json::from_str(file.text).ok().map(|json| (fingerprint::of_schema(&json), file.record))
        })
        .collect()
});
