//! Avro body → record, without looking into the schema: the mirror of `encoder`, for what the current schema wrote.
//! Several times as fast as asking the schema for every field, which is most of a restore. Not here: framing, other
//! schemas, what is wrong with bytes that do not fit (`contract` asks the Avro library for all of that). Invariant: it
//! takes no bytes that the library refuses, and makes the same of the others; debug builds compare.

use std::fmt;

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, Visitor};

use super::ALLOCATION_BYTES_MAX;

/// Reads one record from the beginning of `bytes`; the record, and the bytes behind it.
pub(super) fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, &[u8]), Misfit> {
    let mut decoder = Decoder { rest: bytes };
    let record = T::deserialize(&mut decoder)?;
    Ok((record, decoder.rest))
}

/// The bytes are no such record, or the type has something that has no place in our schemas. Which of it, and where,
/// is asked of the Avro library.
#[derive(Debug)]
pub(super) struct Misfit;

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes do not fit the record")
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

struct Decoder<'de> {
    rest: &'de [u8],
}

impl<'de> Decoder<'de> {
    fn byte(&mut self) -> Result<u8, Misfit> {
        let (first, rest) = self.rest.split_first().ok_or(Misfit)?;
        self.rest = rest;
        Ok(*first)
    }

    fn take(&mut self, length: usize) -> Result<&'de [u8], Misfit> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Misfit)?;
        self.rest = rest;
        Ok(taken)
    }

    /// A variable-length zigzag number: Avro's int, long, length and index.
    fn number(&mut self) -> Result<i64, Misfit> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte holds the one bit that is left.
            if shift == 63 && bits > 1 {
                return Err(Misfit);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed());
            }
        }
        Err(Misfit)
    }

    fn length(&mut self) -> Result<usize, Misfit> {
        let length = self.number()?;
        usize::try_from(length).map_err(|_| Misfit)
    }

    fn bytes(&mut self) -> Result<&'de [u8], Misfit> {
        let length = self.length()?;
        if length > ALLOCATION_BYTES_MAX { Err(Misfit) } else { self.take(length) }
    }

    fn text(&mut self) -> Result<&'de str, Misfit> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Misfit)
    }

    /// How many items the next block of an array or a map has; zero ends it. Nothing in our schemas is empty, so that
    /// more items than bytes are a lie.
    fn block(&mut self) -> Result<usize, Misfit> {
        let count = self.number()?;
        if count < 0 {
            // Other writers give the size of a block in bytes too.
            self.length()?;
        }
        let count = usize::try_from(count.unsigned_abs()).map_err(|_| Misfit)?;
        if count > self.rest.len() { Err(Misfit) } else { Ok(count) }
    }
}

macro_rules! unsupported {
    ($($method:ident),+ $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Misfit> { Err(Misfit) })+
    };
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = Misfit;

    // What the encoder refuses to write has no form to be read from.
    unsupported!(
        deserialize_any,
        deserialize_i8,
        deserialize_i16,
        deserialize_i128,
        deserialize_u8,
        deserialize_u16,
        deserialize_u32,
        deserialize_u64,
        deserialize_u128,
        deserialize_f32,
        deserialize_char,
        deserialize_identifier,
        deserialize_ignored_any,
    );

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.byte()? {
            0 => visitor.visit_bool(false),
            1 => visitor.visit_bool(true),
            _ => Err(Misfit),
        }
    }

    fn deserialize_i32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_i32(i32::try_from(self.number()?).map_err(|_| Misfit)?)
    }

    fn deserialize_i64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_i64(self.number()?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let bytes = self.take(8)?.try_into().map_err(|_| Misfit)?;
        visitor.visit_f64(f64::from_le_bytes(bytes))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_borrowed_str(self.text()?)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_borrowed_bytes(self.bytes()?)
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self.number()? {
            0 => visitor.visit_none(),
            1 => visitor.visit_some(self),
            _ => Err(Misfit),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_unit()
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, Misfit> {
        Err(Misfit)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, Misfit> {
        Err(Misfit)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let left = self.block()?;
        visitor.visit_seq(Blocks { decoder: self, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Misfit> {
        Err(Misfit)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(self, _: &'static str, _: usize, _: V) -> Result<V::Value, Misfit> {
        Err(Misfit)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        let left = self.block()?;
        visitor.visit_map(Blocks { decoder: self, left })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_seq(Fields { decoder: self, left: fields.len() })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_enum(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The fields of a record, in the order of the type.
struct Fields<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Fields<'_, 'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        seed.deserialize(&mut *self.decoder).map(Some)
    }
}

/// The items of an array or a map, block by block.
struct Blocks<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    /// Of the block that is being read; zero once the last one was.
    left: usize,
}

impl Blocks<'_, '_> {
    /// True if there is one more item.
    fn advance(&mut self) -> Result<bool, Misfit> {
        if self.left == 0 {
            return Ok(false);
        }
        self.left -= 1;
        Ok(true)
    }

    /// After an item: goes on to the next block if this one is done.
    fn settle(&mut self) -> Result<(), Misfit> {
        if self.left == 0 {
            self.left = self.decoder.block()?;
        }
        Ok(())
    }
}

impl<'de> de::SeqAccess<'de> for Blocks<'_, 'de> {
    type Error = Misfit;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Misfit> {
        if !self.advance()? {
            return Ok(None);
        }
        let item = seed.deserialize(&mut *self.decoder)?;
        self.settle()?;
        Ok(Some(item))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for Blocks<'_, 'de> {
    type Error = Misfit;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Misfit> {
        if !self.advance()? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Misfit> {
        let value = seed.deserialize(&mut *self.decoder)?;
        self.settle()?;
        Ok(value)
    }
}

/// A word of an enum or a branch of a union: both are an index.
impl<'de> de::EnumAccess<'de> for &mut Decoder<'de> {
    type Error = Misfit;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Misfit> {
        let index = u32::try_from(self.number()?).map_err(|_| Misfit)?;
        let index: U32Deserializer<Misfit> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Decoder<'de> {
    type Error = Misfit;

    fn unit_variant(self) -> Result<(), Misfit> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Misfit> {
        seed.deserialize(self)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Misfit> {
        Err(Misfit)
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Misfit> {
        Err(Misfit)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::read;
    use crate::codec::{self, HEADER_BYTES, WireRecord};

    /// Golden vectors of a record, as many as there are: each is read without the schema; and whatever one byte is
    /// changed to, what is taken is what the library takes, as `decode` asserts in builds like this one.
    fn check<T: WireRecord>() -> usize {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/golden");
        let mut found = 0;
        for entry in fs::read_dir(folder).expect("vectors") {
            let path = entry.expect("a vector").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            if path.extension().is_none_or(|extension| extension != "bin") || name.split('.').next() != Some(T::NAME) {
                continue;
            }
            found += 1;
            let bytes = fs::read(&path).expect("a vector");
            let read = read::<T>(&bytes[HEADER_BYTES..]);
            assert!(read.is_ok_and(|(_, rest)| rest.is_empty()), "{name}");
            for position in HEADER_BYTES..bytes.len() {
                for byte in [0x00, 0x01, 0x02, 0x03, 0x7F, 0x80, 0xFF] {
                    let mut changed = bytes.clone();
                    changed[position] = byte;
                    drop(codec::decode::<T>(&changed));
                }
                assert!(codec::decode::<T>(&bytes[..position]).is_err(), "{name}: cut at {position}");
            }
        }
        found
    }

    #[test]
    fn every_record_is_read_without_its_schema() {
        macro_rules! check_all {
            ($($name:path),+ $(,)?) => { [$(check::<$name>()),+] };
        }
        let found = check_all!(
            orloj_domain::job::JobDefinition,
            orloj_domain::job_event::JobEvent,
            orloj_domain::trigger_state::TriggerState,
            orloj_domain::owner::OwnerRecord,
            orloj_domain::owner::Barrier,
            orloj_domain::owner::ShardPositions,
            orloj_domain::command::Command,
            orloj_domain::fire::FireDecision,
            orloj_domain::run::LiveRun,
            orloj_domain::run::RunEvent,
            orloj_domain::attempt::ReadyAttempt,
            orloj_domain::attempt::AttemptEvent,
            orloj_domain::runner::RunnerHeartbeat,
            orloj_domain::runner::AttemptOutput,
            orloj_domain::runner::RunnerMessage,
            orloj_domain::setting::Setting,
            orloj_domain::setting::LimitEvent,
            orloj_domain::setting::BreakerEvent,
        );
        assert_eq!(found.len(), codec::schemas::CURRENT.len(), "a record is not checked");
        assert!(found.iter().all(|count| *count > 0), "{found:?}");
    }

    #[test]
    fn numbers_are_read_to_their_limits() {
        for (bytes, number) in [
            (&[0x00][..], 0),
            (&[0x01], -1),
            (&[0x80, 0x01], 64),
            (&[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], i64::MAX),
            (&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01], i64::MIN),
        ] {
            assert_eq!(read::<i64>(bytes).ok(), Some((number, &[][..])), "{bytes:02X?}");
        }
        for bytes in [&[0x80; 9][..], &[0xFF; 10], &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x02], &[]] {
            assert!(read::<i64>(bytes).is_err(), "{bytes:02X?}");
        }
        assert!(read::<i32>(&[0x80, 0x80, 0x80, 0x80, 0x10]).is_err(), "beyond an int");
    }

    #[test]
    fn arrays_come_in_blocks() {
        // Two items, then one in a block that tells its size, then the end.
        let bytes = [0x04, 0x02, 0x04, 0x01, 0x02, 0x06, 0x00, 0x09];
        assert_eq!(read::<Vec<i64>>(&bytes).ok(), Some((vec![1, 2, 3], &[0x09][..])));
        assert!(read::<Vec<i64>>(&[0x80, 0x80, 0x80, 0x40, 0x02]).is_err(), "more items than bytes");
    }
}
