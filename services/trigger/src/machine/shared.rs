//! What many jobs have in common, held once by all machines of a process: the terms of definitions that differ only
//! in the job, and the parsed rules. Not here: anything about one job (`entry`). Invariant: what is shared never
//! changes, and is given up with the last job that holds it; it saves time and memory and decides nothing: a wrong
//! hash costs memory, never a wrong answer.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::hash::{BuildHasher, Hash};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use orloj_domain::calendar::ScheduleCalendars;
use orloj_domain::id::JobId;
use orloj_domain::job::{JobDefinition, ScheduleRule};
use orloj_domain::manifest;
use orloj_domain::schedule::{self, Rule};

/// Terms that other jobs may hold too.
pub(super) type SharedTerms = Arc<Shared<Terms>>;
/// Rules that other jobs may hold too.
pub(super) type SharedRules = Arc<Shared<Vec<Rule>>>;

/// Whether the time zones of a definition, which were known when it was accepted, still are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Zones {
    /// By the system.
    Known,
    /// One of them only by the copy that comes with the program.
    Bundled,
    /// One of them nowhere: the job has no fire times until it is known again, and is judged then.
    Unknown,
}

impl Zones {
    fn of(schedule: &[ScheduleRule]) -> Self {
        zones_of(schedule).map(Self::of_one).max().unwrap_or(Self::Known)
    }

    pub(super) fn of_one(name: &str) -> Self {
        match schedule::zone(name) {
            None => Self::Unknown,
            Some(_) if schedule::is_bundled_zone(name) => Self::Bundled,
            Some(_) => Self::Known,
        }
    }
}

fn zones_of(schedule: &[ScheduleRule]) -> impl Iterator<Item = &str> {
    schedule.iter().filter_map(|rule| match rule {
        ScheduleRule::CronRule(rule) => Some(rule.time_zone.as_str()),
        ScheduleRule::EveryRule(_) | ScheduleRule::AtRule(_) | ScheduleRule::AfterFinishRule(_) => None,
    })
}

/// What definitions that differ only in the job have in common, and what was parsed of it.
#[derive(Debug)]
pub(super) struct Terms {
    /// That of whichever job came first.
    definition: Arc<JobDefinition>,
    /// Delay of the `afterFinish` rule, if there is one.
    pub(super) after_finish: Option<Duration>,
    /// Absent if they depend on the job: then each job has its own.
    pub(super) rules: Option<Vec<Rule>>,
    /// The calendars that the rules name; absent if they name none.
    pub(super) calendars: Option<Box<ScheduleCalendars>>,
    pub(super) zones: Zones,
    /// This process has found nothing to complain about in a definition with these terms.
    is_checked: AtomicBool,
}

impl Terms {
    fn new(definition: &Arc<JobDefinition>) -> Self {
        let schedule = &definition.schedule;
        Self {
            definition: Arc::clone(definition),
            after_finish: manifest::after_finish_of(definition),
            rules: (!depends_on_job(schedule)).then(|| parsed(schedule, &definition.job)),
            calendars: ScheduleCalendars::of(schedule).map(Box::new),
            zones: Zones::of(schedule),
            is_checked: AtomicBool::new(false),
        }
    }

    /// A definition that says this. Whose it is, it does not tell.
    pub(super) fn definition(&self) -> &JobDefinition {
        &self.definition
    }

    /// The whole definition, as it was accepted for `job`.
    pub(super) fn definition_of(&self, job: &JobId) -> JobDefinition {
        JobDefinition { job: job.clone(), ..(*self.definition).clone() }
    }

    /// Names of the time zones that the schedule is written for.
    pub(super) fn zone_names(&self) -> impl Iterator<Item = &str> {
        zones_of(&self.definition.schedule)
    }

    /// True if the definition says the same, for whichever job.
    pub(super) fn are_those_of(&self, definition: &JobDefinition) -> bool {
        said_by(&self.definition) == said_by(definition)
    }
}

/// All that a definition says but for the job.
fn said_by(definition: &JobDefinition) -> impl Hash + PartialEq {
    // Taken apart by name, so that a field that is added can't be forgotten here.
    let JobDefinition {
        job: _,
        labels,
        annotations,
        schedule,
        not_before,
        not_after,
        max_fires,
        jitter_ms,
        missed,
        suspend,
        spec,
    } = definition;
    ((not_before, not_after, max_fires, jitter_ms, suspend), (schedule, spec, missed, labels, annotations))
}

/// Terms and rules in use, each once; clones are the same pool.
#[derive(Debug, Clone, Default)]
pub struct Shares {
    pools: Arc<Mutex<Pools>>,
    /// With keys of its own: what is shared is other people's, and must not be made to collide.
    hasher: DefaultHashBuilder,
}

#[derive(Debug, Default)]
struct Pools {
    terms: Pool<Terms>,
    /// What was asked for last, which is what is taken next when it is accepted: two looks at a definition are one.
    last_found: Option<(Arc<JobDefinition>, SharedTerms)>,
    rules: Pool<Vec<Rule>>,
}

impl Shares {
    /// True if a definition that says the same for another job was checked by this process and found good, and the
    /// check does not look at the job.
    pub(super) fn is_checked(&self, definition: &Arc<JobDefinition>) -> bool {
        let (hash, is_same) =
            (self.hasher.hash_one(said_by(definition)), |terms: &Terms| terms.are_those_of(definition));
        let mut pools = self.pools();
        let Some(terms) = pools.terms.find(hash, is_same) else { return false };
        let is_checked = terms.value.rules.is_some() && terms.value.is_checked.load(Ordering::Relaxed);
        pools.last_found = Some((Arc::clone(definition), terms));
        is_checked
    }

    /// The terms of a definition, and the rules if they are those of its job alone. `is_checked` says that the
    /// definition was checked by this process.
    pub(super) fn take(&self, definition: &Arc<JobDefinition>, is_checked: bool) -> (SharedTerms, Option<SharedRules>) {
        let last_found = self.pools().last_found.take().filter(|(found, _)| Arc::ptr_eq(found, definition));
        let terms = last_found.map_or_else(|| self.terms_of(definition), |(_, terms)| terms);
        if is_checked {
            terms.value.is_checked.store(true, Ordering::Relaxed);
        }
        if terms.value.rules.is_some() {
            return (terms, None);
        }
        let rules = self.own_rules(&definition.schedule, &definition.job);
        (terms, Some(rules))
    }

    fn terms_of(&self, definition: &Arc<JobDefinition>) -> SharedTerms {
        let (hash, is_same) =
            (self.hasher.hash_one(said_by(definition)), |terms: &Terms| terms.are_those_of(definition));
        let found = self.pools().terms.find(hash, is_same);
        // Parsed without the lock: other shards are restored meanwhile.
        found.unwrap_or_else(|| {
            let made = Terms::new(definition);
            self.pools().terms.keep(hash, is_same, made)
        })
    }

    /// The rules of one more job that holds `terms`, if they are its own.
    pub(super) fn rules_of(&self, terms: &Terms, job: &JobId) -> Option<SharedRules> {
        terms.rules.is_none().then(|| self.own_rules(&terms.definition.schedule, job))
    }

    /// Rules that depend on the job. Many jobs, but few distinct rules: `H * * * *` is one of sixty.
    fn own_rules(&self, schedule: &[ScheduleRule], job: &JobId) -> SharedRules {
        let rules = parsed(schedule, job);
        let hash = self.hasher.hash_one(&rules);
        let mut pools = self.pools();
        let found = pools.rules.find(hash, |shared| *shared == rules);
        found.unwrap_or_else(|| pools.rules.keep(hash, |_| false, rules))
    }

    /// A job no longer holds these.
    pub(super) fn give_up(&self, terms: Option<SharedTerms>, rules: Option<SharedRules>) {
        let mut pools = self.pools();
        // Not a job that holds it.
        pools.last_found = None;
        if let Some(terms) = terms {
            pools.terms.give_up(&terms);
        }
        if let Some(rules) = rules {
            pools.rules.give_up(&rules);
        }
    }

    /// How many distinct terms and sets of rules are held.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (usize, usize) {
        let pools = self.pools();
        (pools.terms.shared.len(), pools.rules.shared.len())
    }

    /// Whoever panicked with the lock held has left both pools whole.
    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A value under the hash that it is found by.
#[derive(Debug)]
pub(super) struct Shared<T> {
    hash: u64,
    pub(super) value: T,
}

#[derive(Debug)]
struct Pool<T> {
    shared: BTreeMap<u64, Arc<Shared<T>>>,
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self { shared: BTreeMap::new() }
    }
}

impl<T> Pool<T> {
    /// The value of this hash, if it is the same.
    fn find(&self, hash: u64, is_same: impl Fn(&T) -> bool) -> Option<Arc<Shared<T>>> {
        self.shared.get(&hash).filter(|shared| is_same(&shared.value)).cloned()
    }

    /// Keeps a value that was not found, unless another thread has kept the same meanwhile.
    fn keep(&mut self, hash: u64, is_same: impl Fn(&T) -> bool, value: T) -> Arc<Shared<T>> {
        match self.shared.entry(hash) {
            Place::Occupied(place) if is_same(&place.get().value) => Arc::clone(place.get()),
            // Two values of one hash: the second one stays with its job, unshared.
            Place::Occupied(_) => Arc::new(Shared { hash, value }),
            Place::Vacant(place) => Arc::clone(place.insert(Arc::new(Shared { hash, value }))),
        }
    }

    /// Forgets the value if nobody but the pool and the caller holds it.
    fn give_up(&mut self, value: &Arc<Shared<T>>) {
        let is_last = Arc::strong_count(value) == 2;
        if is_last && self.shared.get(&value.hash).is_some_and(|shared| Arc::ptr_eq(shared, value)) {
            self.shared.remove(&value.hash);
        }
    }
}

/// The rules of a definition. Those that no longer parse, as it was valid when it was accepted, have lost their time
/// zone: the job has no fire times meanwhile (`Zones::Unknown`), and its cursor waits.
fn parsed(schedule: &[ScheduleRule], job: &JobId) -> Vec<Rule> {
    manifest::rules_for(schedule, job).unwrap_or_default()
}

/// True if another job with the same schedule may have other fire times.
fn depends_on_job(schedule: &[ScheduleRule]) -> bool {
    schedule.iter().any(|rule| match rule {
        ScheduleRule::CronRule(rule) => schedule::has_spread(&rule.expression),
        ScheduleRule::EveryRule(_) | ScheduleRule::AtRule(_) | ScheduleRule::AfterFinishRule(_) => false,
    })
}
