//! Files as data: which days come of an event, and what is said of what can't be taken.

use jiff::civil::Date;

use super::*;

const HOLIDAYS: &str = include_str!("../../tests/ics/public-holidays.ics");

fn horizon() -> Date {
    "2029-12-31".parse().expect("a date")
}

fn file(events: &str) -> String {
    format!("BEGIN:VCALENDAR\nVERSION:2.0\n{events}\nEND:VCALENDAR\n")
}

/// One event with these lines.
fn event(lines: &str) -> String {
    file(&format!("BEGIN:VEVENT\nUID:1\n{lines}\nEND:VEVENT"))
}

/// Dates, ranges and yearly days, in this order.
fn days(text: &str) -> String {
    let import = read(text, horizon()).unwrap_or_else(|refused| panic!("{refused:?}\n{text}"));
    let ranges = import.spec.ranges.iter().map(|range| format!("{}..{}", range.from, range.to));
    let all: Vec<String> = import.spec.dates.iter().cloned().chain(ranges).chain(import.spec.yearly).collect();
    all.join(" ")
}

#[test]
fn a_file_of_holidays_becomes_days() {
    for text in [HOLIDAYS.to_owned(), HOLIDAYS.replace('\n', "\r\n")] {
        assert_eq!(days(&text), "2026-11-26 2027-11-25 2029-11-22 2026-12-11..2026-12-12 2027-03-26..2027-03-29 01-01");
        let notes = read(&text, horizon()).expect("good").notes;
        assert_eq!(notes.len(), 3, "{notes:?}");
        assert!(notes[0].contains("line 25: repeats for ever, and is taken up to 2029-12-31"), "{notes:?}");
        assert!(notes[1].contains("as written: 1") && notes[2].contains("left out: 1"), "{notes:?}");
    }
}

#[test]
fn events_count_for_the_days_they_touch() {
    for (lines, wanted) in [
        ("DTSTART;VALUE=DATE:20261225", "2026-12-25"),
        ("DTSTART:20261225", "2026-12-25"),
        ("DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261225", "2026-12-25"),
        ("DTSTART;VALUE=DATE:20261225\nDTEND;VALUE=DATE:20261227", "2026-12-25..2026-12-26"),
        ("DTSTART;VALUE=DATE:20261225\nDURATION:P1W", "2026-12-25..2026-12-31"),
        ("DTSTART:20261225T220000Z\nDTEND:20261226T000000Z", "2026-12-25"),
        ("DTSTART:20261225T220000\nDURATION:PT3H", "2026-12-25..2026-12-26"),
        ("DTSTART;VALUE=DATE:20261225\nRDATE;VALUE=DATE:20261227,20261229", "2026-12-25 2026-12-27 2026-12-29"),
    ] {
        assert_eq!(days(&event(lines)), wanted, "{lines}");
    }
}

#[test]
fn repetitions_are_expanded() {
    for (start, rule, wanted) in [
        ("20260704", "FREQ=YEARLY", "07-04"),
        ("20260704", "FREQ=YEARLY;INTERVAL=1;BYMONTH=7;BYMONTHDAY=4", "07-04"),
        ("20260704", "FREQ=YEARLY;COUNT=2", "2026-07-04 2027-07-04"),
        ("20240229", "FREQ=YEARLY;UNTIL=20290101", "2024-02-29 2028-02-29"),
        ("20260704", "FREQ=YEARLY;INTERVAL=2", "2026-07-04 2028-07-04"),
        ("20260525", "FREQ=YEARLY;BYMONTH=5;BYDAY=-1MO;COUNT=3", "2026-05-25 2027-05-31 2028-05-29"),
        ("20260601", "FREQ=MONTHLY;BYMONTHDAY=-1;UNTIL=20260831", "2026-06-01 2026-06-30 2026-07-31 2026-08-31"),
        ("20260131", "FREQ=MONTHLY;UNTIL=20260601", "2026-01-31 2026-03-31 2026-05-31"),
        ("20261201", "FREQ=WEEKLY;BYDAY=TU,TH;COUNT=3", "2026-12-01 2026-12-03 2026-12-08"),
        ("20261206", "FREQ=WEEKLY;INTERVAL=2;COUNT=3", "2026-12-06 2026-12-20 2027-01-03"),
        ("20261201", "FREQ=DAILY;INTERVAL=3;UNTIL=20261208T000000Z;WKST=SU", "2026-12-01 2026-12-04 2026-12-07"),
    ] {
        assert_eq!(days(&event(&format!("DTSTART;VALUE=DATE:{start}\nRRULE:{rule}"))), wanted, "{rule}");
    }
    let long = "DTSTART;VALUE=DATE:20261224\nDTEND;VALUE=DATE:20261227\nRRULE:FREQ=YEARLY;COUNT=2";
    assert_eq!(days(&event(long)), "2026-12-24..2026-12-26 2027-12-24..2027-12-26");
}

#[test]
fn what_can_not_be_taken_is_named_with_its_line() {
    for (text, line, part) in [
        (event("DTSTART:20261225\nRRULE:FREQ=YEARLY;BYSETPOS=1"), 6, "`BYSETPOS=1` can't be taken"),
        (event("DTSTART:20261225\nSUMMARY:a\n b\nRRULE:FREQ=HOURLY"), 8, "`FREQ=HOURLY`"),
        (event("DTSTART:20261225\nRRULE:FREQ=YEARLY;BYDAY=1MO"), 6, "without BYMONTH"),
        (event("DTSTART:20261225\nRRULE:COUNT=3"), 6, "no FREQ"),
        (event("DTSTART:20261225\nRRULE:WKST=SU;FREQ=WEEKLY;INTERVAL=2"), 6, "`WKST`"),
        (event("DTSTART:20261225\nRRULE:FREQ=DAILY;COUNT=99999"), 5, "more than 10000 days"),
        (event("DTSTART:2026-12-25"), 5, "DTSTART `2026-12-25` is no date"),
        (event("DTSTART:20261225\nDTEND:20261224"), 6, "ends before it begins"),
        (event("DTSTART:20261225\nDURATION:long"), 6, "DURATION `long`"),
        (event("DTSTART:20261225\nRECURRENCE-ID:20261225"), 6, "RECURRENCE-ID"),
        (event("SUMMARY:nothing"), 3, "without DTSTART"),
        (event("DTSTART:20261225\nwhat is this"), 6, "it has no `:`"),
        (file(""), 1, "has no event"),
        ("BEGIN:VCALENDAR\nVERSION:2.0\n".to_owned(), 1, "has no END"),
        (file("BEGIN:VEVENT\nEND:VTODO"), 4, "ends what was not begun"),
    ] {
        let refused = read(&text, horizon()).expect_err(&text);
        assert!(refused[0].reason.contains(part) && refused[0].line == line, "{refused:?}\n{text}");
    }
    let text = event("DTSTART:x").replace("END:VCALENDAR", "BEGIN:VEVENT\nDTSTART:y\nEND:VEVENT\nEND:VCALENDAR");
    assert_eq!(read(&text, horizon()).expect_err("two").len(), 2, "all of them at once");
}
