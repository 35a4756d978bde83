//! Backfill: runs for fire times of the past, asked for by command. Here: what may be asked, and which fire times
//! are meant. Not here: which of them were requested before (the read model knows), when each is requested (the
//! trigger's machine). Invariant: nothing ahead of the cursor is meant: what lies there the schedule itself decides.

use crate::command::Command;
use crate::job_event::FieldError;
use crate::schedule::{self, Bounds, Rule};
use crate::time::Timestamp;

/// Most runs of one backfill if nothing is said.
pub const RUNS_DEFAULT: i32 = 1000;
/// Most runs of one backfill.
pub const RUNS_MAX: i32 = 10_000;
/// Most fire times that one command lists: each is kept in the job's state until it is requested.
pub const FIRE_TIMES_MAX: usize = 1000;
/// Most runs of one backfill at a time.
pub const CONCURRENCY_MAX: i32 = 100;
/// Most fire times looked at for one question, those that calendars leave out included.
pub const LOOKED_AT_MAX: usize = 100_000;

/// A backfill that was asked for, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// First fire time that is meant, inclusive.
    pub from: Timestamp,
    /// Last one, exclusive.
    pub until: Timestamp,
    /// Exactly these, in order, each once; empty: all of the range.
    pub fire_times: Vec<Timestamp>,
    /// Most runs, 1 or more.
    pub max: usize,
    /// Most runs at a time, 1 or more.
    pub concurrency: usize,
}

impl Ask {
    /// What a command asks for.
    ///
    /// # Errors
    /// Every complaint about its fields.
    pub fn of(command: &Command) -> Result<Self, Vec<FieldError>> {
        let mut errors = Vec::new();
        let max = bounded(&mut errors, "max", command.max, RUNS_DEFAULT, RUNS_MAX);
        let concurrency = bounded(&mut errors, "concurrency", command.concurrency, 1, CONCURRENCY_MAX);
        let mut fire_times = command.fire_times.clone();
        fire_times.sort_unstable();
        fire_times.dedup();
        if fire_times.len() > FIRE_TIMES_MAX {
            let message = format!("lists too many; at most {FIRE_TIMES_MAX}, the others in another command");
            errors.push(FieldError::new("fireTimes", fire_times.len(), message));
        }
        let listed = fire_times.first().zip(fire_times.last());
        let (first, end) = listed.map(|(first, last)| (*first, Timestamp::from_millis(last.millis() + 1))).unzip();
        let range = (command.from.or(first), command.until.or(end));
        if let (Some(from), Some(until)) = range {
            if from >= until {
                errors.push(FieldError::new("until", until, format!("must be later than `from`, {from}")));
            }
            fire_times.retain(|time| (from..until).contains(time));
        }
        for (field, bound) in [("from", range.0), ("until", range.1)] {
            if bound.is_none() {
                errors.push(FieldError::new(field, "", "is missing; write an instant, or list `fireTimes`"));
            }
        }
        match range {
            (Some(from), Some(until)) if errors.is_empty() => Ok(Self { from, until, fire_times, max, concurrency }),
            _ => Err(errors),
        }
    }
}

fn bounded(errors: &mut Vec<FieldError>, field: &str, found: Option<i32>, default: i32, max: i32) -> usize {
    let found = found.unwrap_or(default);
    if !(1..=max).contains(&found) {
        errors.push(FieldError::new(field, found, format!("must be 1 to {max}")));
    }
    usize::try_from(found).unwrap_or(0)
}

/// The fire times of a job in [`from`, `until`), in order, at most `count`. No fire time is one that `maxFires` has
/// used up: a backfill does not count against it.
pub fn fire_times(
    rules: &[Rule],
    bounds: Bounds,
    from: Timestamp,
    until: Timestamp,
    count: usize,
) -> impl Iterator<Item = Timestamp> {
    let start = Timestamp::from_millis(from.millis() - 1);
    let next = move |after: &Timestamp| schedule::next_within(rules, bounds, *after).filter(|next| *next < until);
    std::iter::successors(next(&start), next).take(count)
}

/// Complains about the first of `times` that the schedule does not name.
///
/// # Errors
/// That complaint.
pub fn check_fire_times(rules: &[Rule], bounds: Bounds, times: &[Timestamp]) -> Result<(), FieldError> {
    let is_named = |time: &&Timestamp| {
        schedule::next_within(rules, bounds, Timestamp::from_millis(time.millis() - 1)) == Some(**time)
    };
    match times.iter().find(|time| !is_named(time)) {
        None => Ok(()),
        Some(time) => {
            let message = "is no fire time of the job; `orloj next NAMESPACE/NAME --from INSTANT` lists them";
            Err(FieldError::new("fireTimes", time, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::CommandType;

    fn at(text: &str) -> Timestamp {
        text.parse().expect("an instant")
    }

    fn command() -> Command {
        Command::new(CommandType::Backfill, "b-1".parse().expect("an id"))
    }

    #[test]
    fn what_is_asked_is_checked_field_by_field() {
        let errors = |command: &Command| -> Vec<String> {
            Ask::of(command).expect_err("refused").iter().map(|error| error.field.clone()).collect()
        };
        assert_eq!(errors(&command()), ["from", "until"]);
        let from = Some(at("2026-03-01T00:00:00Z"));
        assert_eq!(errors(&Command { from, ..command() }), ["until"]);
        assert_eq!(errors(&Command { from, until: from, ..command() }), ["until"]);
        let until = Some(at("2026-03-02T00:00:00Z"));
        let whole = Command { from, until, ..command() };
        assert_eq!(errors(&Command { max: Some(0), concurrency: Some(101), ..whole.clone() }), ["max", "concurrency"]);
        assert_eq!(errors(&Command { max: Some(RUNS_MAX + 1), ..whole.clone() }), ["max"]);
        let ask = Ask::of(&whole).expect("complete");
        assert_eq!((ask.max, ask.concurrency, ask.fire_times.len()), (1000, 1, 0));
    }

    #[test]
    fn a_list_is_sorted_and_gives_its_own_range() {
        let fire_times = vec![at("2026-03-03T00:00:00Z"), at("2026-03-01T00:00:00Z"), at("2026-03-03T00:00:00Z")];
        let ask = Ask::of(&Command { fire_times: fire_times.clone(), ..command() }).expect("complete");
        assert_eq!(ask.fire_times, [fire_times[1], fire_times[0]]);
        assert_eq!((ask.from, ask.until), (fire_times[1], at("2026-03-03T00:00:00.001Z")));
        let until = Some(at("2026-03-02T00:00:00Z"));
        let ask = Ask::of(&Command { fire_times: fire_times.clone(), until, ..command() }).expect("complete");
        assert_eq!(ask.fire_times, [fire_times[1]]);
        let many = (0..=1000).map(Timestamp::from_millis).collect();
        assert_eq!(Ask::of(&Command { fire_times: many, ..command() }).expect_err("too many")[0].field, "fireTimes");
    }

    #[test]
    fn fire_times_are_those_of_the_rules_within_range_and_bounds() {
        let rules = [schedule::parse_rule(
            "0 6 * * *",
            schedule::Dialect::Unix,
            "UTC",
            schedule::Gap::Shift,
            schedule::Fold::First,
            "a/b",
        )
        .expect("a rule")];
        let bounds = Bounds { not_before: Some(at("2026-03-02T00:00:00Z")), not_after: None };
        let (from, until) = (at("2026-03-01T06:00:00Z"), at("2026-03-05T06:00:00Z"));
        let found: Vec<String> = fire_times(&rules, bounds, from, until, 10).map(|at| at.to_string()).collect();
        assert_eq!(found, ["2026-03-02T06:00:00Z", "2026-03-03T06:00:00Z", "2026-03-04T06:00:00Z"]);
        assert_eq!(fire_times(&rules, bounds, from, until, 2).count(), 2);
        assert_eq!(fire_times(&rules, Bounds::default(), from, until, 10).count(), 4);
        assert!(check_fire_times(&rules, bounds, &[at("2026-03-03T06:00:00Z")]).is_ok());
        let wrong = check_fire_times(&rules, bounds, &[from]).expect_err("before notBefore");
        assert_eq!(wrong.value, "2026-03-01T06:00:00Z");
    }
}
