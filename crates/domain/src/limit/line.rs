//! Those who wait for a limit, and who of them is next: by priority, within a level by turns between jobs, within a job in
//! the order in which they came. Not here: when the next may go (`gate`). Invariant: whoever has waited for
//! [`AGING`] times the levels between, and once more, goes before all that came later at any level.

use std::collections::{BTreeSet, HashMap};

use super::{AGING, Claim};
use crate::id::JobId;
use crate::time::Timestamp;

/// Levels of priority.
const LEVELS: usize = 10;

/// A run that waits, as far as a limit looks at it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiter {
    /// The run and its attempt.
    pub claim: Claim,
    /// Its job.
    pub job: JobId,
    /// 0 lowest ..= 9 highest; what is beyond counts as the nearest.
    pub priority: i32,
    /// Since when it waits.
    pub since: Timestamp,
}

impl Waiter {
    fn level(&self) -> usize {
        usize::try_from(self.priority).unwrap_or(0).min(LEVELS - 1)
    }
}

/// Those of one job at one level.
#[derive(Debug, Clone, Default)]
struct OfJob {
    /// When the job had its last turn, counted in turns.
    turn: u64,
    waiting: BTreeSet<(Timestamp, Claim)>,
}

#[derive(Debug, Clone, Default)]
struct Level {
    jobs: HashMap<JobId, OfJob>,
    turns: BTreeSet<(u64, JobId)>,
    oldest: BTreeSet<(Timestamp, Claim)>,
}

/// The line before one limit. Two are equal if the same wait in them: whose turn it is among jobs is not kept.
#[derive(Debug, Clone, Default)]
pub struct Line {
    places: HashMap<Claim, Waiter>,
    levels: [Level; LEVELS],
    turn: u64,
}

impl PartialEq for Line {
    fn eq(&self, other: &Self) -> bool {
        self.places == other.places
    }
}

impl Line {
    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// True if nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// True if this one waits.
    #[must_use]
    pub fn contains(&self, claim: Claim) -> bool {
        self.places.contains_key(&claim)
    }

    /// Joins the line; who waits already keeps its place.
    pub fn join(&mut self, waiter: &Waiter) {
        let Waiter { claim, job, since, .. } = waiter;
        if self.places.contains_key(claim) {
            return;
        }
        self.places.insert(*claim, waiter.clone());
        let turn = self.turn;
        let level = &mut self.levels[waiter.level()];
        level.oldest.insert((*since, *claim));
        let of_job = level.jobs.entry(job.clone()).or_insert_with(|| OfJob { turn, waiting: BTreeSet::new() });
        level.turns.insert((of_job.turn, job.clone()));
        of_job.waiting.insert((*since, *claim));
    }

    /// Leaves the line, without having had its turn. True if it was in it.
    pub fn leave(&mut self, claim: Claim) -> bool {
        let Some(place) = self.places.remove(&claim) else { return false };
        let level = &mut self.levels[place.level()];
        level.oldest.remove(&(place.since, claim));
        if let Some(of_job) = level.jobs.get_mut(&place.job) {
            of_job.waiting.remove(&(place.since, claim));
            if of_job.waiting.is_empty() {
                level.turns.remove(&(of_job.turn, place.job.clone()));
                level.jobs.remove(&place.job);
            }
        }
        true
    }

    /// Leaves the line because its turn has come: the next turn is another job's.
    pub fn serve(&mut self, claim: Claim) -> bool {
        if let Some(waiter) = self.places.get(&claim) {
            self.turn += 1;
            let (job, level) = (&waiter.job, &mut self.levels[waiter.level()]);
            if let Some(of_job) = level.jobs.get_mut(job) {
                level.turns.remove(&(of_job.turn, job.clone()));
                of_job.turn = self.turn;
                level.turns.insert((of_job.turn, job.clone()));
            }
        }
        self.leave(claim)
    }

    /// Who is next; `None` if nobody waits.
    #[must_use]
    pub fn first(&self, now: Timestamp) -> Option<&Waiter> {
        let (mut best, mut highest) = (None, None);
        for (index, level) in self.levels.iter().enumerate().rev() {
            let Some((since, oldest)) = level.oldest.first() else { continue };
            let aged = now.since(*since).as_secs() / AGING.as_secs();
            let reached = index as u64 + aged;
            match highest {
                // Nobody above: whose turn it is.
                None => (best, highest) = (level.next(), Some(reached)),
                Some(above) if reached > above => (best, highest) = (Some(*oldest), Some(reached)),
                Some(_) => {}
            }
        }
        self.places.get(&best?)
    }
}

impl Level {
    fn next(&self) -> Option<Claim> {
        let (_, job) = self.turns.first()?;
        self.jobs.get(job)?.waiting.first().map(|(_, claim)| *claim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::RunId;

    fn claim(job: &str, number: i64) -> Claim {
        (RunId::of_fire_time(&job.parse().expect("job"), number, Timestamp::MIN), 1)
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::MIN.plus(std::time::Duration::from_secs(second))
    }

    fn waiter(job: &str, number: i64, priority: i32, since: Timestamp) -> Waiter {
        Waiter { claim: claim(job, number), job: job.parse().expect("job"), priority, since }
    }

    /// Who is served, one after the other, at an instant.
    fn order(line: &mut Line, now: Timestamp) -> Vec<Claim> {
        let mut served = Vec::new();
        while let Some(claim) = line.first(now).map(|waiter| waiter.claim) {
            assert!(line.serve(claim));
            served.push(claim);
        }
        served
    }

    #[test]
    fn jobs_take_turns_and_each_keeps_its_order() {
        let mut line = Line::default();
        for number in 0..4 {
            line.join(&waiter("a/many", number, 5, at(0)));
        }
        line.join(&waiter("a/few", 0, 5, at(9)));
        let mut many: Vec<Claim> = (0..4).map(|number| claim("a/many", number)).collect();
        many.sort_unstable();
        let served = order(&mut line, at(10));
        let few = served.iter().position(|served| *served == claim("a/few", 0)).expect("served");
        assert!(few <= 1, "the job with one run waits for one run of the other at most");
        let of_many: Vec<Claim> = served.into_iter().filter(|served| *served != claim("a/few", 0)).collect();
        assert_eq!(of_many, many);
        assert!(line.is_empty());
    }

    #[test]
    fn a_higher_level_goes_first_until_the_lower_one_has_waited_long_enough() {
        let mut line = Line::default();
        line.join(&waiter("a/low", 0, 3, at(0)));
        line.join(&waiter("a/low", 1, 3, at(100)));
        for number in 0..3 {
            line.join(&waiter("a/high", number, 5, at(170 + number.unsigned_abs())));
        }
        let first = |line: &Line, second| line.first(at(second)).map(|waiter| (waiter.priority, waiter.claim));
        assert_eq!(first(&line, 179).map(|(level, _)| level), Some(5), "two levels are two minutes");
        assert_eq!(first(&line, 180), Some((3, claim("a/low", 0))), "and one more to go before them");
        assert!(line.serve(claim("a/low", 0)));
        assert_eq!(first(&line, 180).map(|(level, _)| level), Some(5), "the other one is younger");
        assert!(line.leave(claim("a/low", 1)));
        assert_eq!(order(&mut line, at(1000)).len(), 3);
    }

    #[test]
    fn whoever_waits_keeps_its_place_and_leaves_nothing_behind() {
        let mut line = Line::default();
        line.join(&waiter("a/b", 0, 5, at(1)));
        line.join(&waiter("a/b", 0, 9, at(0)));
        assert_eq!((line.len(), line.places[&claim("a/b", 0)].priority), (1, 5));
        assert!(line.leave(claim("a/b", 0)));
        assert!(!line.leave(claim("a/b", 0)));
        assert_eq!(line, Line::default());
        assert!(line.levels.iter().all(|level| level.jobs.is_empty() && level.turns.is_empty()));
    }
}
