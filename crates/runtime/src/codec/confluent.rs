//! Confluent framing, read on `jobs` and `commands` only: a zero byte, a 4-byte id of a schema registry, the
//! body. Without a registry the id says nothing, so the body is tried under the current schema and then under
//! older released ones, newest first. Not here: writing it. Invariant: a body that fits no released schema to
//! its last byte is refused; producers with a schema of their own use single-object framing.

use super::{DecodeError, WireRecord};

/// First byte of the framing.
pub const MAGIC: u8 = 0;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 5;

/// True for a value that begins like this framing.
#[must_use]
pub fn is_framed(bytes: &[u8]) -> bool {
    bytes.first() == Some(&MAGIC)
}

/// Decodes a Confluent framed value.
///
/// # Errors
/// What is wrong with the value under the current schema.
pub fn decode<T: WireRecord>(bytes: &[u8]) -> Result<T, DecodeError> {
    let body = match bytes.get(HEADER_BYTES..) {
        Some(body) if is_framed(bytes) => body,
        Some(_) => {
            let problem = "Confluent framing begins with a zero byte".to_owned();
            return Err(DecodeError::NotFramed { record: T::NAME, problem });
        }
        None => return Err(DecodeError::Truncated { record: T::NAME }),
    };
    let contract = T::contract();
    let mut first_error = None;
    for schema in contract.schemas() {
        match contract.decode_written_with(schema, body) {
            Ok(record) => return Ok(record),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    Err(first_error.unwrap_or(DecodeError::Truncated { record: T::NAME }))
}
