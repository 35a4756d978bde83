//! Cron rules against `croner`, another crate's reading of the same language, and the list of where they differ.
//!
//! Random expressions are compared on UTC, chosen ones around clock changes. A difference that is ours by choice is
//! in `KNOWN_DIFFERENCES`, with the reason; if one of them disappears, the test says so.

#[path = "oracle/random.rs"]
mod random;

use std::cmp::Ordering;

use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};
use croner::{CivilDate, CivilDateTime, CivilTime, CronDateTime, Resolution, Weekday};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use orloj_domain::schedule::{CronRule, Dialect, Fold, Gap};
use proptest::prelude::*;

/// How many fires of an expression are compared.
const FIRES: usize = 12;
/// Ours ends in 2100; a little more, so that the difference shows.
const LAST_YEAR: i32 = 2104;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_expressions_agree_on_utc(text in random::expression(true).prop_filter("days", |text| joins_days_alike(text)), start in 0i64..2_000_000_000) {
        // An expression without any date is refused by us and searched in vain by croner.
        let Ok(ours) = ours(&text, "UTC", start) else { return Ok(()) };
        let theirs = theirs(&text, "UTC", start).expect("croner reads it");
        prop_assert_eq!(render(&ours), render(&theirs), "`{}`", text);
    }
}

#[test]
fn clock_changes_agree_where_both_mean_the_same() {
    let expressions = [
        "* * * * *",
        "*/15 * * * *",
        "0 * * * *",
        "30 * * * *",
        "30 2 * * *",
        "0 2 * * *",
        "0 3 * * *",
        "30 1 * * *",
        "0 0 * * *",
        "30 23 * * *",
        "45 2 * * 0",
        "15 1 L * *",
        "*/30 * * * * *",
        "0 30 2 * * *",
    ];
    for (zone, change) in [
        ("Europe/Berlin", "2026-03-28T00:00:00Z"),
        ("Europe/Berlin", "2026-10-24T00:00:00Z"),
        ("America/New_York", "2026-03-07T00:00:00Z"),
        ("America/New_York", "2026-10-31T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-04-03T00:00:00Z"),
        ("Australia/Lord_Howe", "2026-10-02T00:00:00Z"),
        ("America/Sao_Paulo", "2018-11-03T00:00:00Z"),
        ("America/Sao_Paulo", "2019-02-16T00:00:00Z"),
        ("Asia/Tokyo", "2026-03-28T00:00:00Z"),
    ] {
        for text in expressions {
            for hour in 0..48 {
                let start = second(change) + hour * 3600;
                let ours = ours(text, zone, start).expect("a rule");
                let theirs = theirs(text, zone, start).expect("croner reads it");
                assert_eq!(render(&ours), render(&theirs), "`{text}` in {zone} after {}", show(start));
            }
        }
    }
}

/// Expression, zone, start, our first fire and croner's; none where it is refused or not found.
type Difference = (&'static str, &'static str, &'static str, Option<&'static str>, Option<&'static str>);

const KNOWN_DIFFERENCES: &[Difference] = &[
    // A list or a range of times is a list of fixed times: shifted in a gap, once in a fold. croner takes any field
    // with several values for a wildcard, so adding a second time to a job would change what its first one does.
    (
        "5,35 2 * * *",
        "Europe/Berlin",
        "2026-03-28T12:00:00Z",
        Some("2026-03-29T01:00:00Z"),
        Some("2026-03-30T00:05:00Z"),
    ),
    (
        "30 2,14 * * *",
        "Europe/Berlin",
        "2026-03-28T18:00:00Z",
        Some("2026-03-29T01:00:00Z"),
        Some("2026-03-29T12:30:00Z"),
    ),
    (
        "0,30 2 * * *",
        "Europe/Berlin",
        "2026-10-25T00:30:00Z",
        Some("2026-10-26T01:00:00Z"),
        Some("2026-10-25T01:00:00Z"),
    ),
    (
        "0-59 2 * * *",
        "Europe/Berlin",
        "2026-10-25T00:59:00Z",
        Some("2026-10-26T01:00:00Z"),
        Some("2026-10-25T01:00:00Z"),
    ),
    // Only the minute and the hour decide, as in Debian's cron, which has no seconds.
    (
        "* 30 2 * * *",
        "Europe/Berlin",
        "2026-10-25T00:59:00Z",
        Some("2026-10-26T01:30:00Z"),
        Some("2026-10-25T01:30:00Z"),
    ),
    // A field that starts with `*` joins the day fields by AND, as in Debian's cron.
    ("0 0 */2 * MON", "UTC", "2026-06-01T00:00:00Z", Some("2026-06-15T00:00:00Z"), Some("2026-06-03T00:00:00Z")),
    ("0 0 5 * */2", "UTC", "2026-06-01T00:00:00Z", Some("2026-07-05T00:00:00Z"), Some("2026-06-02T00:00:00Z")),
    // A day that a zone left out is a gap like any other; croner searches two hours for its end and gives up.
    ("0 9 * * *", "Pacific/Apia", "2011-12-29T20:00:00Z", Some("2011-12-30T10:00:00Z"), None),
    // Ours alone.
    ("5/15 * * * *", "UTC", "2026-06-01T00:00:00Z", Some("2026-06-01T00:05:00Z"), None),
    ("0 0 * * FRI-MON", "UTC", "2026-06-01T00:00:00Z", Some("2026-06-05T00:00:00Z"), None),
    ("0 22-2 * * *", "UTC", "2026-06-01T00:00:00Z", Some("2026-06-01T01:00:00Z"), None),
    ("0 0 * * 7-2", "UTC", "2026-04-30T00:00:00Z", Some("2026-05-03T00:00:00Z"), None),
    ("0 0 L-3 * *", "UTC", "2026-04-30T00:00:00Z", Some("2026-05-28T00:00:00Z"), None),
    ("0 0 L-3W * *", "UTC", "2026-04-30T00:00:00Z", Some("2026-05-28T00:00:00Z"), None),
    ("0 0 * * MONDAY", "UTC", "2026-04-30T00:00:00Z", Some("2026-05-04T00:00:00Z"), None),
    ("0 0 5,* * MON", "UTC", "2026-06-01T00:00:00Z", Some("2026-06-02T00:00:00Z"), None),
    ("@midnight", "UTC", "2026-06-01T00:00:00Z", Some("2026-06-02T00:00:00Z"), None),
    ("H 0 * * *", "UTC", "2026-04-30T00:00:00Z", Some("2026-04-30T00:52:00Z"), None),
    // croner's alone: `5L` and `dialect: quartz` say the same; the list of five and `*/60` are likelier slips.
    ("0 0 * * 5#L", "UTC", "2026-04-30T00:00:00Z", None, Some("2026-05-29T00:00:00Z")),
    ("0 0 1 * +MON", "UTC", "2026-04-30T00:00:00Z", None, Some("2026-06-01T00:00:00Z")),
    ("0 0 * * MON-FRI#2", "UTC", "2026-04-30T00:00:00Z", None, Some("2026-05-08T00:00:00Z")),
    ("*/60 * * * *", "UTC", "2026-04-30T00:00:00Z", None, Some("2026-04-30T01:00:00Z")),
    // Our time ends with the year 2100, that of the `cron` crate.
    ("0 0 29 2 *", "UTC", "2104-02-28T00:00:00Z", None, Some("2104-02-29T00:00:00Z")),
];

#[test]
fn known_differences_are_still_there() {
    for (text, zone, start, ours_first, theirs_first) in KNOWN_DIFFERENCES {
        let first = |fires: Option<Vec<i64>>| fires.and_then(|fires| fires.first().map(|fire| show(*fire)));
        let ours = first(ours(text, zone, second(start)).ok());
        let theirs = first(theirs(text, zone, second(start)));
        assert_eq!(ours.as_deref(), *ours_first, "ours of `{text}`");
        assert_eq!(theirs.as_deref(), *theirs_first, "croner's of `{text}`");
        assert_ne!(ours, theirs, "no difference any more for `{text}`");
    }
}

/// Known difference: a field that starts with `*` makes the day fields AND.
fn joins_days_alike(text: &str) -> bool {
    let mut words = text.split(' ').rev();
    let weekday = words.next();
    let day = words.nth(1);
    ![weekday, day].into_iter().flatten().any(|word| word.starts_with("*/"))
}

fn ours(text: &str, zone: &str, start: i64) -> Result<Vec<i64>, String> {
    let rule = CronRule::parse(text, Dialect::Unix, zone, Gap::Shift, Fold::First, "seed")
        .map_err(|error| error.to_string())?;
    let mut at = Timestamp::from_second(start).expect("in range");
    let mut fires = Vec::new();
    while fires.len() < FIRES {
        let Some(next) = rule.next_after(at) else {
            break;
        };
        fires.push(next.as_second());
        at = next;
    }
    Ok(fires)
}

/// None if croner refuses the expression or fails to find a fire before the last year.
fn theirs(text: &str, zone: &str, start: i64) -> Option<Vec<i64>> {
    let cron = CronParser::builder().seconds(Seconds::Optional).year(Year::Optional).build().parse(text).ok()?;
    let mut moment = Moment { at: start, zone: TimeZone::get(zone).expect("a zone") };
    let mut fires = Vec::new();
    while fires.len() < FIRES {
        let Ok(next) = cron.find_next_occurrence(&moment, false) else {
            break;
        };
        if next.to_civil().year() > LAST_YEAR {
            break;
        }
        fires.push(next.at);
        moment = next;
    }
    if fires.is_empty() { None } else { Some(fires) }
}

fn render(fires: &[i64]) -> Vec<String> {
    fires.iter().copied().map(show).collect()
}

fn show(at: i64) -> String {
    Timestamp::from_second(at).expect("in range").to_string()
}

fn second(text: &str) -> i64 {
    text.parse::<Timestamp>().expect("a timestamp").as_second()
}

/// An instant in a zone of the system's database, so that croner and we read the same clocks.
#[derive(Clone)]
struct Moment {
    at: i64,
    zone: TimeZone,
}

impl Moment {
    fn shown(&self) -> DateTime {
        self.zone.to_datetime(Timestamp::from_second(self.at).expect("in range"))
    }

    fn with_offset(&self, civil: DateTime, offset: jiff::tz::Offset) -> Moment {
        Moment { at: offset.to_timestamp(civil).expect("in range").as_second(), zone: self.zone.clone() }
    }
}

impl CronDateTime for Moment {
    fn to_civil(&self) -> CivilDateTime {
        let shown = self.shown();
        let date = CivilDate::from_ymd(i32::from(shown.year()), shown.month() as u32, shown.day() as u32);
        let time = CivilTime::from_hms_opt(shown.hour() as u32, shown.minute() as u32, shown.second() as u32);
        CivilDateTime::new(date.expect("a date"), time.expect("a time"))
    }

    fn civil_weekday(&self) -> Weekday {
        Weekday::from_days_from_sunday(self.shown().weekday().to_sunday_zero_offset() as u32)
    }

    fn resolve_civil(&self, civil: CivilDateTime) -> Result<Resolution<Self>, CronError> {
        let year = i16::try_from(civil.year()).map_err(|_| CronError::InvalidDate)?;
        let (month, day) = (civil.month() as i8, civil.day() as i8);
        let (hour, minute, second) = (civil.hour() as i8, civil.minute() as i8, civil.second() as i8);
        let civil = DateTime::new(year, month, day, hour, minute, second, 0).map_err(|_| CronError::InvalidDate)?;
        Ok(match self.zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => Resolution::Single(self.with_offset(civil, offset)),
            AmbiguousOffset::Gap { .. } => Resolution::Gap,
            AmbiguousOffset::Fold { before, after } => {
                Resolution::Ambiguous(self.with_offset(civil, before), self.with_offset(civil, after))
            }
        })
    }

    fn checked_add_seconds(&self, seconds: i64) -> Option<Self> {
        Some(Moment { at: self.at.checked_add(seconds)?, zone: self.zone.clone() })
    }

    fn cmp_instant(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}
