//! Property: no sentence hides a difference. Expressions that share their sentence fire at the same instants.
//!
//! Random expressions hardly ever share a sentence, so each case takes one at random and all those that differ from
//! it in one field or in the policy: that is where a phrase would swallow a distinction.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::*;

const ZONES: [&str; 6] =
    ["UTC", "Europe/Berlin", "America/New_York", "America/Santiago", "Australia/Lord_Howe", "Asia/Kolkata"];
const POLICIES: [(Gap, Fold); 4] =
    [(Gap::Shift, Fold::First), (Gap::Skip, Fold::First), (Gap::Shift, Fold::Last), (Gap::Skip, Fold::Both)];
/// Second to year.
const POOLS: [&[&str]; 7] = [
    &["0", "*", "15", "0,30", "*/30", "0-59", "*/7", "5/10", "58-2"],
    &["0", "30", "*", "0-59", "*/15", "0/15", "5/15", "*/7", "0,7,14", "10-20", "*/30", "0,30", "H", "H/30", "55-5"],
    &["2", "0", "*", "0-23", "*/2", "0/2", "*/12", "0,12", "22-2", "9-17", "1-3,7", "*/5", "1,2", "8-9,14-15", "H"],
    &["*", "1", "13", "1-31", "*/2", "1/2", "L", "L-3", "L-1", "LW", "15W", "31", "29-31", "1,15", "L-3W", "31W", "?"],
    &["*", "1-12", "2", "3", "10", "NOV-FEB", "*/3", "3,10", "1,3,5,7,8,10,12"],
    &["*", "0-6", "FRI", "MON-FRI", "1-5", "FRI-MON", "5L", "MON#2", "MON#5", "*/2", "SAT,SUN", "7", "MON,5L"],
    &["*", "2026", "2026-2030", "2026/2", "2026,2028,2030"],
];
/// So many fires after each start are compared; those of a second's rule end after minutes, of a day's after weeks.
const FIRES_MAX: usize = 400;

/// Fires in a fortnight from each of several starts, of which most are about to see the clocks of a zone change.
fn fires(rule: &Rule, sampled: i64) -> Vec<Timestamp> {
    let starts = [
        "2026-03-28T23:30:00Z",
        "2026-10-24T23:30:00Z",
        "2026-03-08T05:30:00Z",
        "2026-11-01T04:30:00Z",
        "2026-10-03T14:30:00Z",
        "2026-04-04T13:30:00Z",
        "2028-02-20T00:00:00Z",
    ];
    let starts = starts.iter().map(|start| start.parse().expect("a timestamp"));
    let sampled = Timestamp::from_second(1_767_225_600 + sampled).expect("a timestamp");
    let mut fires = Vec::new();
    for start in starts.chain([sampled]) {
        let end: Timestamp = start + SignedDuration::from_hours(14 * 24);
        let mut after = start;
        for _ in 0..FIRES_MAX {
            let Some(fire) = rule.next_after(after).filter(|fire| *fire < end) else { break };
            fires.push(fire);
            after = fire;
        }
    }
    fires
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_sentence_one_meaning(
        picks in prop::array::uniform7(0usize..1000),
        plain in prop::array::uniform7(prop::bool::weighted(0.7)),
        zone in 0..ZONES.len(),
        policy in 0..POLICIES.len(),
        dialect in prop_oneof![Just(Dialect::Unix), Just(Dialect::Quartz)],
        sampled in 0i64..5 * 366 * 86_400,
    ) {
        let mut base = [""; 7];
        for (index, pool) in POOLS.iter().enumerate() {
            base[index] = if plain[index] { pool[0] } else { pool[picks[index] % pool.len()] };
        }
        let mut variants = vec![(base, POLICIES[policy])];
        variants.extend(POLICIES.iter().map(|policy| (base, *policy)));
        for (index, pool) in POOLS.iter().enumerate() {
            for text in *pool {
                let mut other = base;
                other[index] = text;
                variants.push((other, POLICIES[policy]));
            }
        }
        let zone = ZONES[zone];
        let mut told: BTreeMap<String, (String, Rule, (Gap, Fold))> = BTreeMap::new();
        for (words, (gap, fold)) in variants {
            let expression = words.join(" ");
            let Ok(rule) = parse_rule(&expression, dialect, zone, gap, fold, "a/b") else { continue };
            let written = Written {
                expression: &expression, dialect, zone, gap, fold, spread_seed: "a/b", spread_by: SpreadBy::Job,
            };
            let now = Timestamp::from_second(1_767_225_600).expect("a timestamp");
            let sentence = describe(&written, now).expect("a description").sentence;
            // Where a value came from is no part of when it fires.
            let sentence = sentence.split(';').next().unwrap_or_default().to_owned();
            match told.get(&sentence) {
                Some((_, same, _)) if *same == rule => {}
                Some((other, same, policy)) => prop_assert_eq!(
                    fires(same, sampled), fires(&rule, sampled),
                    "`{}` {:?} and `{}` {:?} in {}: {}", other, policy, expression, (gap, fold), zone, sentence
                ),
                None => {
                    told.insert(sentence, (expression, rule, (gap, fold)));
                }
            }
        }
    }
}

/// "Berlin time" is one time.
#[test]
fn zones_of_one_name_keep_one_time() {
    let mut told: BTreeMap<String, (String, Vec<i32>)> = BTreeMap::new();
    for name in jiff::tz::db().available() {
        let Ok(zone) = jiff::tz::TimeZone::get(name.as_str()) else { continue };
        // Every ten days from 1970 to 2037.
        let offsets: Vec<i32> = (0..2482)
            .filter_map(|count| Timestamp::from_second(count * 864_000).ok())
            .map(|at| zone.to_offset(at).seconds())
            .collect();
        let text = zone_text(name.as_str());
        if let Some((other, kept)) = told.get(&text) {
            assert_eq!(*kept, offsets, "{other} and {} are both {text}", name.as_str());
        } else {
            told.insert(text, (name.as_str().to_owned(), offsets));
        }
    }
}
