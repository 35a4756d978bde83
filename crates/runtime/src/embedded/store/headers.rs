//! Headers as bytes in one column: for each its name and value, each behind its length. Not here: what they
//! mean. Invariant: decoding what was encoded gives the same headers; no headers are no bytes.

use crate::log::Header;

/// Length that stands for an absent value.
const ABSENT: u32 = u32::MAX;

/// Bytes of the headers; none if there are none.
pub(crate) fn encode(headers: &[Header]) -> Option<Vec<u8>> {
    if headers.is_empty() {
        return None;
    }
    let mut bytes = Vec::new();
    let mut put = |part: Option<&[u8]>| {
        let length = part.map_or(ABSENT, |part| u32::try_from(part.len()).unwrap_or(ABSENT));
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(part.unwrap_or_default());
    };
    for header in headers {
        put(Some(header.key.as_bytes()));
        put(header.value.as_deref());
    }
    Some(bytes)
}

/// Headers of the bytes; `None` if they are damaged.
pub(crate) fn decode(bytes: Option<&[u8]>) -> Option<Vec<Header>> {
    let mut rest = bytes.unwrap_or_default();
    let mut headers = Vec::new();
    while !rest.is_empty() {
        let key = String::from_utf8(take(&mut rest)??.to_vec()).ok()?;
        let value = take(&mut rest)?.map(<[u8]>::to_vec);
        headers.push(Header { key, value });
    }
    Some(headers)
}

/// The next part: damaged (`None`), absent (`Some(None)`) or there.
fn take<'a>(rest: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let (length, after) = rest.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    if length == ABSENT {
        *rest = after;
        return Some(None);
    }
    let (part, after) = after.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = after;
    Some(Some(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back() {
        let header = |key: &str, value: Option<&[u8]>| Header { key: key.to_owned(), value: value.map(<[u8]>::to_vec) };
        for headers in [
            vec![],
            vec![header("a", Some(b"1"))],
            vec![header("", Some(b"")), header("traceparent", None), header("a", Some(&[0, 255]))],
        ] {
            let bytes = encode(&headers);
            assert_eq!(bytes.is_none(), headers.is_empty());
            assert_eq!(decode(bytes.as_deref()), Some(headers));
        }
        assert_eq!(decode(Some(&[1, 0, 0])), None);
        assert_eq!(decode(Some(&[9, 0, 0, 0, b'a'])), None);
    }
}
