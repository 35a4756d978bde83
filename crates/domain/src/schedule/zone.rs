//! Time zones by name, from the system's database or else a copy that comes along, and a hint for the name that was probably meant.
//!
//! Not here: the version of the database (the runtime reads it) and clock changes (`dst.rs`).
//! Invariant: only names that mean the same on every machine are accepted.

use jiff::tz::{TimeZone, TimeZoneDatabase};

use super::error::ScheduleError;

/// Names in zone databases that mean whatever the machine is set to.
const LOCAL_NAMES: [&str; 3] = ["localtime", "posixrules", "Factory"];
/// So many slips of the pen still let us guess the name.
const SLIPS_MAX: usize = 2;
/// Longer names are not compared: no zone has one.
const NAME_CHARACTERS_MAX: usize = 64;

pub(crate) fn find_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    let refused = |message: String| Err(ScheduleError::new("timeZone", name, None, message));
    if name.trim().is_empty() {
        return refused("is empty; write a name such as Europe/Berlin, or UTC".to_owned());
    }
    if LOCAL_NAMES.iter().any(|local| local.eq_ignore_ascii_case(name)) {
        return refused("depends on the machine; write a name such as Europe/Berlin, or UTC".to_owned());
    }
    if let Some(zone) = self::zone(name) {
        return Ok(zone);
    }
    let meant = meant_name(name).unwrap_or_else(|| "a name such as Europe/Berlin, or UTC".to_owned());
    refused(format!("is not in this system's time zone database; write {meant}"))
}

/// The zone of this name, as rules take it: the system's, or else the one of the copy that comes with the program.
#[must_use]
pub fn zone(name: &str) -> Option<TimeZone> {
    system_zone(name).or_else(|| bundled_zone(name))
}

/// True if the system's time zone database does not have the zone, and the copy that comes with the program does. So
/// a job keeps its rule when an update takes its zone away, as Debian 13 did with `US/Eastern` and its kin.
#[must_use]
pub fn is_bundled_zone(name: &str) -> bool {
    system_zone(name).is_none() && bundled_zone(name).is_some()
}

fn system_zone(name: &str) -> Option<TimeZone> {
    TimeZone::get(name).ok().filter(|zone| !zone.is_unknown())
}

fn bundled_zone(name: &str) -> Option<TimeZone> {
    TimeZoneDatabase::bundled().get(name).ok().filter(|zone| !zone.is_unknown())
}

/// The zone that was probably meant: its city alone was written, or a few letters are wrong.
fn meant_name(name: &str) -> Option<String> {
    if name.len() > NAME_CHARACTERS_MAX {
        return None;
    }
    let written = name.trim().replace(' ', "_");
    let mut best: Option<(usize, String)> = None;
    for candidate in jiff::tz::db().available() {
        let candidate = candidate.as_str();
        let city = candidate.rsplit('/').next().unwrap_or(candidate);
        let slips = slips_between(&written, candidate).min(slips_between(&written, city));
        if slips <= SLIPS_MAX && best.as_ref().is_none_or(|(fewest, _)| slips < *fewest) {
            best = Some((slips, candidate.to_owned()));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// How many letters must be added, dropped or changed to make one of the other, ignoring case.
fn slips_between(one: &str, other: &str) -> usize {
    if one.len().abs_diff(other.len()) > SLIPS_MAX {
        return SLIPS_MAX + 1;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (position, byte) in one.bytes().enumerate() {
        let mut diagonal = position;
        row[0] = position + 1;
        for (column, candidate) in other.bytes().enumerate() {
            let change = diagonal + usize::from(!byte.eq_ignore_ascii_case(&candidate));
            diagonal = row[column + 1];
            row[column + 1] = change.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_name_brings_the_right_one() {
        for (written, meant) in [
            ("Europe/Berln", "write Europe/Berlin"),
            ("berlin", "write Europe/Berlin"),
            ("New York", "write America/New_York"),
            ("America/NewYork", "write America/New_York"),
            ("Nowhere/At/All", "such as Europe/Berlin"),
            ("", "is empty"),
            ("localtime", "depends on the machine"),
            ("+02:00", "such as Europe/Berlin"),
            ("../../etc/passwd", "such as Europe/Berlin"),
        ] {
            let error = find_zone(written).expect_err("refused");
            assert_eq!((error.field.as_str(), error.value.as_str(), error.column), ("timeZone", written, None));
            assert!(error.message.contains(meant), "`{written}`: {}", error.message);
        }
    }

    #[test]
    fn a_zone_that_the_system_lost_is_in_the_copy_that_comes_along() {
        for name in ["US/Eastern", "europe/berlin", "UTC"] {
            assert!(bundled_zone(name).is_some(), "{name}");
        }
        assert!(bundled_zone("Nowhere/At/All").is_none());
        assert!(!is_bundled_zone("Nowhere/At/All"));
    }

    #[test]
    fn names_are_found_in_any_case() {
        for name in ["UTC", "Europe/Berlin", "europe/berlin", "Etc/GMT+5", "America/Argentina/Buenos_Aires"] {
            assert!(find_zone(name).is_ok(), "{name}");
        }
    }
}
