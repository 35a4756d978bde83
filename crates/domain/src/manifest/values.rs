//! Durations and instants as people write them. Not here: which durations are allowed where (`check`).
//! Invariant: nothing is rounded silently: what is finer than a millisecond is refused.

use std::time::Duration;

use jiff::fmt::friendly::{Spacing, SpanPrinter};
use jiff::{SignedDuration, Span, SpanRelativeTo};

use crate::time::Timestamp;

/// Reads a duration: friendly (`90s`, `1h30m`, `2d`) or ISO 8601 (`PT1H30M`); a day is 24 hours.
///
/// # Errors
/// What is wrong and how to mend it; continues the sentence that the value starts.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXAMPLES: &str = "write for example `90s`, `1h30m` or `PT90S`";
    let span: Span = text.trim().parse().map_err(|_| format!("is no duration; {EXAMPLES}"))?;
    let duration = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| format!("is no fixed length of time, months and years vary; {EXAMPLES}"))?;
    if duration.subsec_nanos() % 1_000_000 != 0 {
        return Err("is finer than a millisecond; round it to whole milliseconds".to_owned());
    }
    Duration::try_from(duration).map_err(|_| format!("is negative; {EXAMPLES}"))
}

/// Writes a duration as people do: `1h30m`, `90s` as `1m30s`, nothing as `0s`.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let printer = SpanPrinter::new().spacing(Spacing::None);
    SignedDuration::try_from(duration)
        .map_or_else(|_| format!("{}s", duration.as_secs()), |it| printer.duration_to_string(&it))
}

/// Reads an RFC 3339 instant.
///
/// # Errors
/// What is wrong and how to mend it; continues the sentence that the value starts.
pub fn parse_instant(text: &str) -> Result<Timestamp, String> {
    const EXAMPLE: &str =
        "write RFC 3339 with an offset, for example `2026-12-01T09:00:00+01:00` or `2026-12-01T08:00:00Z`";
    let instant: jiff::Timestamp = text.trim().parse().map_err(|_| format!("is no instant; {EXAMPLE}"))?;
    if instant.subsec_nanosecond() % 1_000_000 != 0 {
        return Err("is finer than a millisecond; round it to whole milliseconds".to_owned());
    }
    Ok(Timestamp::from(instant))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_both_formats() {
        for (text, millis) in [
            ("90s", 90_000),
            ("1h30m", 5_400_000),
            ("1 hour 30 minutes", 5_400_000),
            ("PT90S", 90_000),
            ("P1DT1H", 90_000_000),
            ("2d", 172_800_000),
            ("1w", 604_800_000),
            ("250ms", 250),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn other_durations_are_refused_with_the_fix() {
        for (text, said) in [
            ("", "is no duration"),
            ("90", "is no duration"),
            ("tomorrow", "is no duration"),
            ("1mo", "is no fixed length"),
            ("P1Y", "is no fixed length"),
            ("-5s", "is negative"),
            ("5s ago", "is negative"),
            ("1us", "is finer than a millisecond"),
        ] {
            let message = parse_duration(text).expect_err(text);
            assert!(message.starts_with(said), "{text}: {message}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for (millis, text) in [(0, "0s"), (90_000, "1m30s"), (5_400_000, "1h30m"), (172_800_000, "48h"), (250, "250ms")]
        {
            let duration = Duration::from_millis(millis);
            assert_eq!(duration_text(duration), text);
            assert_eq!(parse_duration(text), Ok(duration));
        }
    }

    #[test]
    fn instants_need_an_offset() {
        let eight = Timestamp::from_millis(1_796_112_000_000);
        assert_eq!(parse_instant("2026-12-01T09:00:00+01:00"), Ok(eight));
        assert_eq!(parse_instant("2026-12-01T08:00:00Z"), Ok(eight));
        for text in ["2026-12-01", "2026-12-01T09:00:00", "now", "", "2026-12-01T08:00:00.0001Z"] {
            assert!(parse_instant(text).is_err(), "{text}");
        }
    }
}
