//! The newest fire times of a gap, found without a walk through all of it: a year of missed seconds, or a schedule that
//! fell silent months ago, costs little more than the fire times that are wanted. Not here: which fire times there are
//! (`entry`). Invariant: the answer is the one that a walk through the whole gap would give.

use std::collections::VecDeque;
use std::time::Duration;

use orloj_domain::time::Timestamp;

/// So short a stretch has at most one fire time, as they are whole milliseconds.
const STRETCH_MIN: Duration = Duration::from_millis(1);

/// What a look at one stretch of a gap has found.
enum Stretch {
    /// All its fire times, in order.
    Whole(Vec<Timestamp>),
    /// It has more than it was walked through for; this is one of them.
    Crowded(Timestamp),
}

/// The newest fire times in (`after`, `until`], at most `max`, in order, and whether those are all. `next_after` tells
/// the first one after an instant.
///
/// Goes back in stretches, each twice as long as the one before. A crowded one is given up after a bounded number of
/// steps, and the search goes on in short ones from the newest fire time in it. Each time it is given up for one at
/// most half as long, so that there are few of them, however long the gap is.
pub(super) fn between(
    next_after: impl Fn(Timestamp) -> Option<Timestamp>,
    after: Timestamp,
    until: Timestamp,
    max: usize,
) -> (Vec<Timestamp>, bool) {
    // Nearly always few are due, most often one: then a walk asks only once more than there are.
    let one = match walk(&next_after, after, until, max) {
        Stretch::Whole(times) => return (times, true),
        Stretch::Crowded(one) => one,
    };
    let mut newest = VecDeque::with_capacity(max);
    // All that come after `start` are found.
    let mut start = newest_from(&next_after, one, until);
    let mut length = STRETCH_MIN;
    while newest.len() < max && start > after {
        let from = start.minus(length).max(after);
        let missing = max - newest.len();
        // Where they are spread evenly, a stretch holds as many as all later ones together: never too many.
        match walk(&next_after, from, start, missing + max) {
            Stretch::Whole(times) => {
                times.into_iter().rev().take(missing).for_each(|time| newest.push_front(time));
                start = from;
                length *= 2;
            }
            Stretch::Crowded(one) => {
                start = newest_from(&next_after, one, start);
                length = STRETCH_MIN;
            }
        }
    }
    (newest.into(), false)
}

/// Walks through (`after`, `until`], past at most `max` fire times.
fn walk(
    next_after: &impl Fn(Timestamp) -> Option<Timestamp>,
    after: Timestamp,
    until: Timestamp,
    max: usize,
) -> Stretch {
    let mut times = Vec::new();
    let mut cursor = after;
    while let Some(next) = next_after(cursor).filter(|next| *next <= until) {
        if times.len() == max {
            return Stretch::Crowded(next);
        }
        times.push(next);
        cursor = next;
    }
    Stretch::Whole(times)
}

/// The newest fire time up to `until`; `one` is one of them. Halves what is left, so that a year takes forty questions.
fn newest_from(next_after: &impl Fn(Timestamp) -> Option<Timestamp>, one: Timestamp, until: Timestamp) -> Timestamp {
    // None comes after `end`.
    let (mut newest, mut end) = (one, until);
    while newest < end {
        let middle = Timestamp::from_millis(newest.millis() + (end.millis() - newest.millis()) / 2);
        match next_after(middle).filter(|next| *next <= end) {
            Some(next) => newest = next,
            None => end = middle,
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::collections::BTreeSet;
    use std::ops::Bound;

    use orloj_domain::schedule::{self, Bounds, Dialect, Fold, Gap, Rule};
    use proptest::prelude::*;

    use super::*;

    fn instant(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn rules(expressions: &str) -> Vec<Rule> {
        let parse = |text| schedule::parse_rule(text, Dialect::Unix, "Europe/Berlin", Gap::Shift, Fold::First, "");
        expressions.split("; ").map(|text| parse(text).expect("a rule")).collect()
    }

    /// What a walk through the whole gap finds.
    fn walked(
        next_after: impl Fn(Timestamp) -> Option<Timestamp>,
        after: Timestamp,
        until: Timestamp,
    ) -> Vec<Timestamp> {
        std::iter::successors(next_after(after), |at| next_after(*at)).take_while(|at| *at <= until).collect()
    }

    fn newest_of(all: &[Timestamp], max: usize) -> (Vec<Timestamp>, bool) {
        (all[all.len().saturating_sub(max)..].to_vec(), all.len() <= max)
    }

    #[test]
    fn the_newest_of_a_gap_are_those_that_a_walk_finds() {
        for (expressions, after, until) in [
            ("* * * * * *", "2026-05-01T12:00:00Z", "2026-05-01T12:20:00.5Z"),
            ("*/30 * 3 * * *", "2026-05-01T12:00:00Z", "2026-05-06T01:02:03Z"),
            ("0 0 1 * *", "2016-05-01T12:00:00Z", "2026-05-01T12:00:00Z"),
            ("*/4 * 0 1 1 *", "2025-06-01T00:00:00Z", "2026-12-15T08:00:00Z"),
            ("*/4 * 0 1 1 * 2026", "2025-06-01T00:00:00Z", "2030-12-15T08:00:00Z"),
            ("*/4 * 0 1 1 * 2026; 0 0 1 * *", "2025-06-01T00:00:00Z", "2026-12-15T08:00:00Z"),
            ("@every 1ms", "2026-05-01T12:00:00Z", "2026-05-01T12:00:03Z"),
            ("@every 7s; @every 100ms", "2026-05-01T12:00:00Z", "2026-05-01T12:02:00Z"),
            ("*/20 * * * *", "2026-10-24T12:00:00Z", "2026-10-27T12:00:00Z"),
            ("30 2 * * *", "2026-03-01T12:00:00Z", "2026-11-01T12:00:00Z"),
            ("30 2 * * *", "2026-03-01T12:00:00Z", "2026-03-01T12:00:00Z"),
            ("0 0 0 1 1 * 1999", "2026-03-01T12:00:00Z", "2026-11-01T12:00:00Z"),
        ] {
            let rules = rules(expressions);
            let next_after = |at: Timestamp| schedule::next_within(&rules, Bounds::default(), at);
            let (after, until) = (instant(after), instant(until));
            let all = walked(next_after, after, until);
            for max in [1, 2, 7, 100, 500, all.len().max(1), all.len() + 1] {
                let found = between(next_after, after, until, max);
                assert_eq!(found, newest_of(&all, max), "{expressions} from {after} to {until}, at most {max}");
            }
        }
    }

    #[test]
    fn a_long_gap_costs_a_few_times_what_is_wanted() {
        const MAX: usize = 1000;
        let open = Bounds::default();
        let ended = Bounds { not_before: None, not_after: Some(instant("2026-06-01T00:00:00Z")) };
        for (expressions, bounds, newest) in [
            ("* * * * * *", open, "2026-12-31T12:00:00Z"),
            ("* * * * * *", ended, "2026-05-31T23:59:59Z"),
            ("* * * * 1 *", open, "2026-01-31T22:59:59Z"),
            ("* * * * 1 *; 0 0 1 * *", open, "2026-11-30T23:00:00Z"),
        ] {
            let rules = rules(expressions);
            let questions = Cell::new(0);
            let next_after = |at: Timestamp| {
                questions.set(questions.get() + 1);
                schedule::next_within(&rules, bounds, at)
            };
            let (after, until) = (instant("2026-01-01T00:00:00Z"), instant("2026-12-31T12:00:00Z"));
            let (times, is_complete) = between(next_after, after, until, MAX);
            assert_eq!((times.len(), is_complete), (MAX, false), "{expressions}");
            assert_eq!(times.last().copied(), Some(instant(newest)), "{expressions}");
            assert!(questions.get() < 10 * MAX, "{expressions}: {} questions", questions.get());
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn random_gaps_agree_with_a_walk(
            bursts in proptest::collection::vec((0..100_000_000_i64, 1..200_i64, 1..60_000_i64), 0..8),
            after in 0..100_000_000_i64,
            length in 0..100_000_000_i64,
            max in 1..150_usize,
        ) {
            let instants: BTreeSet<Timestamp> = bursts
                .iter()
                .flat_map(|&(first, count, step)| (0..count).map(move |index| first + index * step))
                .map(Timestamp::from_millis)
                .collect();
            let next_after = |at: Timestamp| instants.range((Bound::Excluded(at), Bound::Unbounded)).next().copied();
            let (after, until) = (Timestamp::from_millis(after), Timestamp::from_millis(after + length));
            let all = walked(next_after, after, until);
            prop_assert_eq!(between(next_after, after, until, max), newest_of(&all, max));
        }
    }
}
