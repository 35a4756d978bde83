//! What must hold for any bytes whatever: nothing panics, and what is accepted keeps its promises. Shared by the
//! fuzz targets and the test that runs their corpora.
#![allow(dead_code, reason = "each fuzz target uses one of them")]

use orloj_domain::manifest;
use orloj_domain::schedule::{Dialect, Fold, Gap, Rule, SpreadBy, Written, describe, parse_rule};

const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca"];
/// Fire times asked for; each later than the one before.
const STEPS: usize = 20;

/// The first byte picks dialect, policies and zone; the rest is the expression.
pub(crate) fn cron(bytes: &[u8]) {
    let Some((choice, text)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let dialect = if choice & 1 == 0 { Dialect::Unix } else { Dialect::Quartz };
    let gap = if choice & 2 == 0 { Gap::Shift } else { Gap::Skip };
    let fold = [Fold::First, Fold::Last, Fold::Both, Fold::Both][usize::from(choice >> 2 & 3)];
    let zone = ZONES[usize::from(choice >> 4 & 3)];
    let Ok(rule) = parse_rule(text, dialect, zone, gap, fold, "fuzz/job") else { return };
    walk(&rule, start());
    let written =
        Written { expression: text, dialect, zone, gap, fold, spread_seed: "fuzz/job", spread_by: SpreadBy::Job };
    let described = describe(&written, start()).expect("what parses can be told");
    assert!(!described.sentence.is_empty());
}

fn start() -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_764_000_000).expect("an instant")
}

fn walk(rule: &Rule, start: jiff::Timestamp) {
    let mut after = start;
    for _ in 0..STEPS {
        let Some(next) = rule.next_after(after) else { return };
        assert!(next > after, "{next} does not come after {after}");
        after = next;
    }
}

/// A manifest that is accepted is the same after it was written out and read again.
pub(crate) fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(definition) = manifest::parse_json(text) else { return };
    let errors = manifest::check(&definition);
    if !errors.is_empty() {
        return;
    }
    let rules = manifest::rules_of(&definition).expect("an accepted schedule parses");
    for rule in &rules {
        walk(rule, start());
    }
    let written = serde_json::to_string(&manifest::from_definition(&definition)).expect("a manifest is JSON");
    let again = manifest::parse_json(&written).unwrap_or_else(|errors| panic!("{errors:?}: {written}"));
    assert_eq!(again, definition, "{written}");
}
