//! Numbers and texts in few bytes: integers in groups of seven bits, small ones in one byte, and signs folded in, as Avro
//! and Protocol Buffers have it. Only for memory: nothing of it reaches the log. Not here: what is packed. Invariant: what is unpacked in the
//! order in which it was packed is the same.

use orloj_domain::time::Timestamp;

/// Sets the bit that says that another byte follows.
const MORE: u8 = 0x80;
/// Bits of a number in one byte.
const BITS: u32 = 7;

/// Collects what is packed.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    bytes: Vec<u8>,
}

impl Packer {
    pub(crate) fn unsigned(&mut self, mut number: u64) {
        while number >= u64::from(MORE) {
            self.bytes.push(number.to_le_bytes()[0] | MORE);
            number >>= BITS;
        }
        self.bytes.push(number.to_le_bytes()[0]);
    }

    pub(crate) fn signed(&mut self, number: i64) {
        self.unsigned(((number << 1) ^ (number >> 63)).cast_unsigned());
    }

    /// As the time since another instant, which must be known to whoever unpacks it.
    pub(crate) fn instant(&mut self, instant: Timestamp, since: Timestamp) {
        self.signed(instant.millis() - since.millis());
    }

    /// With their length before them.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.unsigned(bytes.len() as u64);
        self.rest(bytes);
    }

    /// Without a length: nothing follows, or whoever unpacks it knows where it ends.
    pub(crate) fn rest(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Takes out what a [`Packer`] collected.
#[derive(Debug)]
pub(crate) struct Unpacker<'a> {
    left: &'a [u8],
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { left: bytes }
    }

    pub(crate) fn unsigned(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let Some((byte, left)) = self.left.split_first() else { unreachable!("a packed number is whole") };
            self.left = left;
            number |= u64::from(byte & !MORE) << shift;
            if byte & MORE == 0 {
                return number;
            }
            shift += BITS;
        }
    }

    pub(crate) fn signed(&mut self) -> i64 {
        let number = self.unsigned();
        (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
    }

    pub(crate) fn instant(&mut self, since: Timestamp) -> Timestamp {
        Timestamp::from_millis(since.millis() + self.signed())
    }

    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::try_from(self.unsigned()).unwrap_or(usize::MAX);
        let Some((bytes, left)) = self.left.split_at_checked(length) else { unreachable!("packed bytes are whole") };
        self.left = left;
        bytes
    }

    pub(crate) fn text(&mut self) -> &'a str {
        std::str::from_utf8(self.bytes()).unwrap_or_else(|_| unreachable!("it was text when it was packed"))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_numbers_take_one_byte_and_the_largest_ten() {
        for (number, length) in [(0, 1), (-1, 1), (63, 1), (64, 2), (-65, 2), (i64::MAX, 10), (i64::MIN, 10)] {
            let mut packer = Packer::default();
            packer.signed(number);
            let bytes = packer.into_bytes();
            assert_eq!((bytes.len(), Unpacker::new(&bytes).signed()), (length, number));
        }
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back(unsigned in any::<u64>(), signed in any::<i64>(), text in ".{0,20}", rest in "[a-z]*") {
            let mut packer = Packer::default();
            packer.unsigned(unsigned);
            packer.bytes(text.as_bytes());
            packer.signed(signed);
            packer.rest(rest.as_bytes());
            let bytes = packer.into_bytes();
            let mut unpacker = Unpacker::new(&bytes);
            prop_assert_eq!(unpacker.unsigned(), unsigned);
            prop_assert_eq!(unpacker.text(), text);
            prop_assert_eq!(unpacker.signed(), signed);
            prop_assert_eq!(unpacker.rest(), rest.as_bytes());
            prop_assert_eq!(unpacker.rest(), b"");
        }
    }
}
