//! Tables: the notes on fires around clock changes.
//!
//! Not here: which instants those are (`tests_clock.rs`).

use super::*;

pub(super) const SHIFT: (Gap, Fold) = (Gap::Shift, Fold::First);
pub(super) const SKIP: (Gap, Fold) = (Gap::Skip, Fold::First);
pub(super) const LAST: (Gap, Fold) = (Gap::Shift, Fold::Last);
pub(super) const BOTH: (Gap, Fold) = (Gap::Shift, Fold::Both);
pub(super) const BERLIN: &str = "Europe/Berlin";
pub(super) const NONE: &str = "";

/// Expression, zone, policy, start, and the notes on the first fires after it.
type Case = (&'static str, &'static str, (Gap, Fold), &'static str, &'static [&'static str]);

const NOTES: &[Case] = &[
    (
        "30 2 * * *",
        BERLIN,
        SHIFT,
        "2026-03-28T00:00:00Z",
        &[NONE, "clocks went forward at 02:00: 02:30 does not exist here, moved to 03:00", NONE],
    ),
    (
        "5,35 2 * * *",
        BERLIN,
        SHIFT,
        "2026-03-28T12:00:00Z",
        &["clocks went forward at 02:00: 02:05 and 02:35 do not exist here, moved to 03:00"],
    ),
    (
        "0-59/10 2 * * *",
        BERLIN,
        SHIFT,
        "2026-03-28T12:00:00Z",
        &["clocks went forward at 02:00: 02:00, 02:10, 02:20 and more do not exist here, moved to 03:00"],
    ),
    (
        "0 2,3 * * *",
        BERLIN,
        SHIFT,
        "2026-03-28T12:00:00Z",
        &["clocks went forward at 02:00: 02:00 does not exist here, this fire stands for it too"],
    ),
    ("0 3 * * *", BERLIN, SHIFT, "2026-03-28T12:00:00Z", &[NONE, NONE]),
    (
        "30 2 * * *",
        BERLIN,
        SKIP,
        "2026-03-28T12:00:00Z",
        &["02:30 on 2026-03-29 was skipped: clocks went forward from 02:00 to 03:00", NONE],
    ),
    (
        "0,30 2 * * *",
        BERLIN,
        SKIP,
        "2026-03-28T12:00:00Z",
        &["02:00 and 02:30 on 2026-03-29 were skipped: clocks went forward from 02:00 to 03:00", NONE],
    ),
    (
        "0 2,3 * * *",
        BERLIN,
        SKIP,
        "2026-03-28T12:00:00Z",
        &["02:00 on 2026-03-29 was skipped: clocks went forward from 02:00 to 03:00"],
    ),
    // A `*` follows the clock: a step through every hour misses nothing, one within the gap does.
    ("*/30 * * * *", BERLIN, SHIFT, "2026-03-29T00:30:00Z", &[NONE, NONE]),
    (
        "*/30 2 * * *",
        BERLIN,
        SHIFT,
        "2026-03-28T12:00:00Z",
        &["02:00 and 02:30 on 2026-03-29 were skipped: clocks went forward from 02:00 to 03:00", NONE],
    ),
    (
        "30 2 * * *",
        BERLIN,
        SHIFT,
        "2026-10-24T12:00:00Z",
        &["02:30 happens twice: this is the first, the only one that fires", NONE],
    ),
    (
        "30 2 * * *",
        BERLIN,
        LAST,
        "2026-10-24T12:00:00Z",
        &["02:30 happens twice: this is the second, the only one that fires", NONE],
    ),
    (
        "30 2 * * *",
        BERLIN,
        BOTH,
        "2026-10-24T12:00:00Z",
        &["02:30 happens twice: this is the first", "02:30 happens twice: this is the second", NONE],
    ),
    (
        "*/30 2 * * *",
        BERLIN,
        SHIFT,
        "2026-10-25T00:00:00Z",
        &[
            "02:30 happens twice: this is the first",
            "02:00 happens twice: this is the second",
            "02:30 happens twice: this is the second",
            NONE,
        ],
    ),
    (
        "15 2 * * *",
        "Australia/Lord_Howe",
        SHIFT,
        "2026-10-03T12:00:00Z",
        &["clocks went forward at 02:00: 02:15 does not exist here, moved to 02:30", NONE],
    ),
    (
        "0 0 * * *",
        "America/Sao_Paulo",
        SHIFT,
        "2018-11-03T12:00:00Z",
        &["clocks went forward at 00:00: 00:00 does not exist here, moved to 01:00", NONE],
    ),
    (
        "0 9 * * *",
        "Pacific/Apia",
        SHIFT,
        "2011-12-30T00:00:00Z",
        &["clocks went forward at 00:00 on 2011-12-30: 09:00 does not exist here, moved to 00:00 on 2011-12-31", NONE],
    ),
    (
        "0 9 * * *",
        "Pacific/Apia",
        SKIP,
        "2011-12-30T00:00:00Z",
        &["09:00 on 2011-12-30 was skipped: clocks went forward from 00:00 on 2011-12-30 to 00:00 on 2011-12-31", NONE],
    ),
    ("30 2 * * *", "UTC", SHIFT, "2026-03-28T12:00:00Z", &[NONE, NONE]),
];

#[test]
fn fires_around_clock_changes_have_notes() {
    for &(text, zone, (gap, fold), from, wanted) in NOTES {
        let rules = [parse_rule(text, Dialect::Unix, zone, gap, fold, "").expect("a rule")];
        let mut after: Timestamp = from.parse().expect("a timestamp");
        let mut notes = Vec::new();
        for _ in wanted {
            let fire = next_of(&rules, after).expect("a fire");
            notes.push(note(&rules, zone, after, fire).unwrap_or_default());
            after = fire;
        }
        assert_eq!(notes, wanted, "`{text}` in {zone} with {gap:?} and {fold:?}");
    }
}

#[test]
fn notes_of_several_rules_name_another_zone() {
    let rule = |text, zone| parse_rule(text, Dialect::Unix, zone, Gap::Skip, Fold::First, "").expect("a rule");
    let rules = [rule("0 12 * * *", "UTC"), rule("30 2 * * *", BERLIN)];
    let instant = |text: &str| -> Timestamp { text.parse().expect("a timestamp") };
    let note = note(&rules, "UTC", instant("2026-03-28T12:00:00Z"), instant("2026-03-29T12:00:00Z"));
    let wanted = "02:30 on 2026-03-29 was skipped: clocks went forward from 02:00 to 03:00 (Europe/Berlin)";
    assert_eq!(note.as_deref(), Some(wanted));
}
