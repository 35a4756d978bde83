//! Tables: why an instant near a clock change is no fire.
//!
//! Not here: which instants are fires (`tests_clock.rs`).

use super::tests_notes::{BERLIN, BOTH, LAST, NONE, SHIFT, SKIP};
use super::*;

/// Expression, zone, policy, instant, and what is said.
type Case = (&'static str, &'static str, (Gap, Fold), &'static str, &'static str);

const ABSENCES: &[Case] = &[
    // Berlin repeats 02:00-03:00 on October 25 2026.
    ("30 2 * * *", BERLIN, SHIFT, "2026-10-25T00:30:00Z", NONE),
    (
        "30 2 * * *",
        BERLIN,
        SHIFT,
        "2026-10-25T01:30:00Z",
        "the clocks of Europe/Berlin show 02:30 twice on 2026-10-25, and `fold: first` takes the first time, \
         2026-10-25T00:30:00Z, not this second one; write `fold: last` for this one or `fold: both` for both",
    ),
    (
        "30 2 * * *",
        BERLIN,
        LAST,
        "2026-10-25T00:30:00Z",
        "the clocks of Europe/Berlin show 02:30 twice on 2026-10-25, and `fold: last` takes the last time, \
         2026-10-25T01:30:00Z, not this first one; write `fold: first` for this one or `fold: both` for both",
    ),
    ("30 2 * * *", BERLIN, LAST, "2026-10-25T01:30:00Z", NONE),
    ("30 2 * * *", BERLIN, BOTH, "2026-10-25T00:30:00Z", NONE),
    ("30 2 * * *", BERLIN, BOTH, "2026-10-25T01:30:00Z", NONE),
    ("30 2 * * *", BERLIN, SHIFT, "2026-10-25T01:31:00Z", NONE),
    ("30 2 * * *", BERLIN, SHIFT, "2026-10-25T01:30:00.5Z", NONE),
    ("30 2 * * MON", BERLIN, SHIFT, "2026-10-25T01:30:00Z", NONE),
    (
        "45 1 * * *",
        "Australia/Lord_Howe",
        SHIFT,
        "2026-04-04T15:15:00Z",
        "the clocks of Australia/Lord_Howe show 01:45 twice on 2026-04-05, and `fold: first` takes the first time, \
         2026-04-04T14:45:00Z, not this second one; write `fold: last` for this one or `fold: both` for both",
    ),
    // It leaves them out on March 29.
    ("30 2 * * *", BERLIN, SHIFT, "2026-03-29T01:00:00Z", NONE),
    (
        "30 2 * * *",
        BERLIN,
        SKIP,
        "2026-03-29T01:00:00Z",
        "the clocks of Europe/Berlin go forward from 02:00 to 03:00 at this instant: 02:30 does not exist on 2026-03-29, \
         and `gap: skip` leaves it out; write `gap: shift` to move it here",
    ),
    (
        "0,30 2 * * *",
        BERLIN,
        SKIP,
        "2026-03-29T01:00:00Z",
        "the clocks of Europe/Berlin go forward from 02:00 to 03:00 at this instant: 02:00 and 02:30 do not exist on \
         2026-03-29, and `gap: skip` leaves them out; write `gap: shift` to move them here",
    ),
    ("0 2,3 * * *", BERLIN, SKIP, "2026-03-29T01:00:00Z", NONE),
    // Where the clocks would have shown 02:30.
    (
        "30 2 * * *",
        BERLIN,
        SKIP,
        "2026-03-29T01:30:00Z",
        "the clocks of Europe/Berlin go forward from 02:00 to 03:00 at 2026-03-29T01:00:00Z: 02:30 does not exist on \
         2026-03-29, and `gap: skip` leaves it out; write `gap: shift` to move it there",
    ),
    (
        "30 2 * * *",
        BERLIN,
        SHIFT,
        "2026-03-29T01:30:00Z",
        "the clocks of Europe/Berlin go forward from 02:00 to 03:00 at 2026-03-29T01:00:00Z: 02:30 does not exist on \
         2026-03-29, and `gap: shift` moves it there",
    ),
    ("30 2 * * *", BERLIN, SKIP, "2026-03-29T01:31:00Z", NONE),
    ("30 2 * * *", BERLIN, SKIP, "2026-03-29T02:30:00Z", NONE),
    (
        "0 9 * * *",
        "Pacific/Apia",
        SKIP,
        "2011-12-30T10:00:00Z",
        "the clocks of Pacific/Apia go forward from 00:00 on 2011-12-30 to 00:00 on 2011-12-31 at this instant: 09:00 \
         does not exist on 2011-12-30, and `gap: skip` leaves it out; write `gap: shift` to move it here",
    ),
    ("0 9 * * *", "Pacific/Apia", SKIP, "2011-12-30T19:00:00Z", NONE),
    // A `*` follows the clock, so it only ever lacks what the clocks never show.
    ("*/10 * * * *", BERLIN, SKIP, "2026-10-25T01:30:00Z", NONE),
    ("*/10 * * * *", BERLIN, SKIP, "2026-03-29T01:00:00Z", NONE),
    ("*/10 * * * *", BERLIN, SKIP, "2026-03-29T01:05:00Z", NONE),
    ("30 * * * *", BERLIN, SKIP, "2026-03-29T01:00:00Z", NONE),
    (
        "*/30 2 * * *",
        BERLIN,
        SHIFT,
        "2026-03-29T01:00:00Z",
        "the clocks of Europe/Berlin go forward from 02:00 to 03:00 at this instant: 02:00 and 02:30 do not exist on \
         2026-03-29, and a `*` in minute or hour follows the clock, which leaves them out",
    ),
    // Clocks that never change, and days on which they don't.
    ("30 2 * * *", "UTC", SKIP, "2026-03-29T01:00:00Z", NONE),
    ("30 2 * * *", "Asia/Kolkata", SKIP, "2026-10-25T01:30:00Z", NONE),
    ("30 2 * * *", BERLIN, SKIP, "2026-07-01T00:31:00Z", NONE),
];

fn instant(text: &str) -> Timestamp {
    text.parse().expect("a timestamp")
}

#[test]
fn a_clock_change_that_took_a_fire_is_told() {
    for &(text, zone, (gap, fold), at, wanted) in ABSENCES {
        let rules = [parse_rule(text, Dialect::Unix, zone, gap, fold, "").expect("a rule")];
        let said = absence(&rules, instant(at)).unwrap_or_default();
        assert_eq!(said, wanted, "`{text}` in {zone} with {gap:?} and {fold:?} at {at}");
    }
}

#[test]
fn of_several_rules_each_reason_is_told_once_and_a_fire_has_none() {
    let rule = |text| parse_rule(text, Dialect::Unix, BERLIN, Gap::Skip, Fold::First, "").expect("a rule");
    let at = instant("2026-03-29T01:00:00Z");
    let said = absence(&[rule("30 2 * * *"), rule("45 2 * * *"), rule("30 2 * * *")], at).expect("a reason");
    assert_eq!((said.matches("02:30 does").count(), said.matches("02:45 does").count()), (1, 1), "{said}");
    for other in [rule("0 3 * * *"), Rule::At(AtRule::new(at).expect("a rule"))] {
        assert_eq!(absence(&[rule("30 2 * * *"), other], at), None);
    }
    assert_eq!(absence(&[Rule::At(AtRule::new(at).expect("a rule"))], instant("2026-03-29T02:00:00Z")), None);
}
