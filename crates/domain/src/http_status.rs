//! Which answers of an HTTP target count as success: codes and ranges, as `204` and `200-299`. Not here: sending (runner).
//! Invariant: what [`parse`] takes holds codes from 100 to 599 only, the first of a range not behind its last.

use std::ops::RangeInclusive;

/// Reads one code or range.
///
/// # Errors
/// What is wrong with it, to be put behind its name.
pub fn parse(text: &str) -> Result<RangeInclusive<u16>, String> {
    let code = |text: &str| text.trim().parse::<u16>().ok().filter(|code| (100..=599).contains(code));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (code(first), code(last)) {
        (Some(first), Some(last)) if first <= last => Ok(first..=last),
        _ => Err("is no status code or range of them; write for example `204` or `200-299`".to_owned()),
    }
}

/// True if `status` is one of `success`; what can't be read of that counts for nothing.
#[must_use]
pub fn is_success(success: &[String], status: u16) -> bool {
    success.iter().filter_map(|text| parse(text).ok()).any(|range| range.contains(&status))
}

/// True if the same request may well be answered otherwise later: 408, 425, 429 and server errors but 501 and 505 (RFC 9110,
/// RFC 6585, RFC 8470).
#[must_use]
pub fn is_retryable(status: u16) -> bool {
    matches!(status, 408 | 425 | 429) || ((500..=599).contains(&status) && !matches!(status, 501 | 505))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_ranges() {
        for (text, wanted) in [
            ("204", Some(204..=204)),
            ("200-299", Some(200..=299)),
            (" 200 - 204 ", Some(200..=204)),
            ("299-200", None),
            ("99", None),
            ("600", None),
            ("2xx", None),
            ("", None),
            ("200-", None),
        ] {
            assert_eq!(parse(text).ok(), wanted, "{text}");
        }
        let success = ["200-202".to_owned(), "409".to_owned()];
        let found: Vec<u16> =
            [199, 200, 202, 203, 409, 500].into_iter().filter(|code| is_success(&success, *code)).collect();
        assert_eq!(found, [200, 202, 409]);
        let retried: Vec<u16> = [200, 301, 400, 404, 408, 409, 425, 429, 500, 501, 503, 505]
            .into_iter()
            .filter(|code| is_retryable(*code))
            .collect();
        assert_eq!(retried, [408, 425, 429, 500, 503]);
    }
}
