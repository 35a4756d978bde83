//! The trigger's machine over one shard: which jobs there are, up to where each is decided, what is due. Not
//! here: bytes (`service`), which fire times a rule has (`domain::schedule`). Invariant: only `apply` and the
//! replays change it; the wheel holds exactly one timer for each job that has a next fire time.

mod backfill;
mod commanded;
mod due;
mod ended;
mod entry;
mod jobs;
mod newest;
mod offered;
mod shared;
mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orloj_domain::calendar::CalendarSet;
use orloj_domain::command::Command;
use orloj_domain::fire::{FireDecision, TriggerKind};
use orloj_domain::id::JobId;
use orloj_domain::job::JobDefinition;
use orloj_domain::job_event::{FieldError, JobEvent, JobEventType};
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::TriggerState;
use orloj_runtime::driver::Machine;

use crate::wheel::{JOBS_MAX, Wheel};
use entry::{Entry, Settled};
use jobs::Jobs;
pub use shared::Shares;
use shared::{Terms, Zones};

/// Most decisions of one tick; if more is due, the next tick goes on.
const DECISIONS_PER_TICK_MAX: usize = 2000;
/// Command ids remembered per job.
const RECENT_COMMANDS_MAX: usize = 32;

/// What the trigger is asked to decide on. `at` is when the record was appended: an edit counts from then.
#[derive(Debug, Clone)]
pub enum TriggerInput {
    /// Time has passed.
    Tick,
    /// A definition was offered.
    Offered {
        /// The job.
        job: JobId,
        /// Offset in `jobs`.
        offset: i64,
        /// When it was appended.
        at: Timestamp,
        /// The definition, decoded but not checked.
        definition: Arc<JobDefinition>,
    },
    /// A definition was offered that can't be decoded.
    Unusable {
        /// The job.
        job: JobId,
        /// Offset in `jobs`.
        offset: i64,
        /// What is wrong with it.
        errors: Vec<FieldError>,
    },
    /// The job is to be deleted.
    Deleted {
        /// The job.
        job: JobId,
        /// Offset in `jobs`.
        offset: i64,
        /// When it was appended.
        at: Timestamp,
    },
    /// A command about the job.
    Commanded {
        /// The job.
        job: JobId,
        /// Offset in `commands`.
        offset: i64,
        /// When it was appended.
        at: Timestamp,
        /// The command.
        command: Box<Command>,
    },
    /// The calendars are these from now on.
    Calendars(Arc<CalendarSet>),
}

/// What the trigger decides.
#[derive(Debug, Clone, PartialEq)]
pub enum TriggerEvent {
    /// About one fire time, or a range of them.
    Decided(Box<FireDecision>),
    /// About a definition, a pause or a delete: the new state, and the answer that says so.
    Stated {
        /// The answer.
        answer: Box<JobEvent>,
        /// The job from here on.
        state: Box<TriggerState>,
    },
    /// What was learnt of a job that nobody asked about: the new state.
    Kept(Box<TriggerState>),
    /// An answer that changes nothing.
    Answered(Box<JobEvent>),
    /// The calendars are these from now on. On the log they are in `settings`, and nowhere else.
    Calendars(Arc<CalendarSet>),
}

/// Jobs whose time zone the system does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LostZones {
    /// It is in the copy that comes with the program, and taken from there.
    pub bundled: usize,
    /// Nobody knows it: they have no fire times until it is known again.
    pub unknown: usize,
}

impl LostZones {
    fn of(&mut self, zones: Zones) -> Option<&mut usize> {
        match zones {
            Zones::Known => None,
            Zones::Bundled => Some(&mut self.bundled),
            Zones::Unknown => Some(&mut self.unknown),
        }
    }

    fn add(&mut self, zones: Zones) {
        if let Some(count) = self.of(zones) {
            *count += 1;
        }
    }

    fn take_off(&mut self, zones: Zones) {
        if let Some(count) = self.of(zones) {
            *count -= 1;
        }
    }
}

/// The jobs of one shard. A job keeps its index for good: deleted ones stay, for the sake of their versions.
#[derive(Debug)]
pub struct TriggerMachine {
    tzdb: Option<String>,
    jobs: Jobs,
    wheel: Wheel,
    shares: Shares,
    calendars: Arc<CalendarSet>,
    /// Jobs whose time zone the system does not know.
    lost_zones: LostZones,
    /// Jobs whose cursor only decisions explain so far.
    unsaved: BTreeSet<u32>,
    /// Those of them that the running round of saving still has to write.
    saving: BTreeSet<u32>,
}

impl TriggerMachine {
    /// No jobs; `tzdb` is written into decisions.
    #[must_use]
    pub fn new(tzdb: Option<String>) -> Self {
        Self::sharing(tzdb, Shares::default())
    }

    /// The same, holding what its jobs have in common with those of other machines only once.
    #[must_use]
    pub fn sharing(tzdb: Option<String>, shares: Shares) -> Self {
        Self {
            tzdb,
            jobs: Jobs::default(),
            wheel: Wheel::new(),
            shares,
            calendars: Arc::default(),
            lost_zones: LostZones::default(),
            unsaved: BTreeSet::new(),
            saving: BTreeSet::new(),
        }
    }

    /// What is known of a job; deleted ones included. Put together anew at each call.
    #[must_use]
    pub fn state(&self, job: &JobId) -> Option<TriggerState> {
        self.entry(job).map(Entry::state)
    }

    /// All jobs, deleted ones included, in the order in which they came to be known.
    pub fn states(&self) -> impl Iterator<Item = TriggerState> {
        self.jobs.iter().map(|(_, entry)| entry.state())
    }

    /// How many jobs have a next fire time.
    #[must_use]
    pub fn armed(&self) -> usize {
        self.wheel.len()
    }

    /// How many jobs have a time zone that the system does not know.
    #[must_use]
    pub fn lost_zones(&self) -> LostZones {
        self.lost_zones
    }

    /// The time zones that the system does not know, each with one of the jobs that want it; looks at every job.
    #[must_use]
    pub fn lost_zone_names(&self) -> BTreeMap<&str, &JobId> {
        let lost = self.jobs.iter().map(|(_, entry)| entry).filter(|entry| entry.zones() != Zones::Known);
        let named =
            lost.flat_map(|entry| entry.terms().into_iter().flat_map(Terms::zone_names).map(|zone| (zone, &entry.job)));
        named.filter(|(zone, _)| Zones::of_one(zone) != Zones::Known).collect()
    }

    /// Takes a saved state while restoring.
    pub fn replay_state(&mut self, state: &TriggerState) {
        self.put(state, false);
    }

    /// Takes a decision while restoring.
    pub fn replay_decision(&mut self, decision: &FireDecision) {
        self.settle(decision);
    }

    /// True if a cursor is known only from decisions.
    #[must_use]
    pub fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty() || !self.saving.is_empty()
    }

    /// The next states to save, at most `max`, and whether the round is complete.
    pub fn take_unsaved(&mut self, max: usize) -> (Vec<TriggerState>, bool) {
        if self.saving.is_empty() {
            self.saving = std::mem::take(&mut self.unsaved);
        }
        let mut states = Vec::new();
        while states.len() < max {
            let Some(index) = self.saving.pop_first() else { break };
            states.push(self.jobs.get(index).state());
        }
        (states, self.saving.is_empty())
    }

    fn entry(&self, job: &JobId) -> Option<&Entry> {
        self.jobs.find(job)
    }

    fn put(&mut self, state: &TriggerState, is_checked: bool) {
        let entry = Entry::new(state, is_checked, &self.shares);
        self.lost_zones.add(entry.zones());
        let index = if let Some(index) = self.jobs.index_of(&state.job) {
            let place = self.jobs.get_mut(index);
            // What both share was taken before it is given back, so that it stays.
            let before = std::mem::replace(place, entry);
            self.lost_zones.take_off(before.zones());
            before.give_up(&self.shares);
            self.unsaved.remove(&index);
            self.saving.remove(&index);
            index
        } else {
            let index = self.jobs.push(entry);
            index.unwrap_or_else(|| panic!("a shard holds fewer than {JOBS_MAX} jobs"))
        };
        self.arm(index);
    }

    fn settle(&mut self, decision: &FireDecision) {
        let Some(index) = self.jobs.index_of(&decision.job) else { return };
        match self.jobs.get_mut(index).settle(decision) {
            Settled::Nothing => return,
            Settled::Command => {}
            Settled::FireTimes => self.arm(index),
        }
        self.unsaved.insert(index);
    }

    fn arm(&mut self, index: u32) {
        match self.jobs.get(index).due() {
            Some(due) => self.wheel.arm(index, due.millis()),
            None => self.wheel.disarm(index),
        }
    }
}

impl Machine for TriggerMachine {
    type Input = TriggerInput;
    type Event = TriggerEvent;

    fn tick() -> TriggerInput {
        TriggerInput::Tick
    }

    fn decide(&self, input: &TriggerInput, now: Timestamp) -> Vec<TriggerEvent> {
        match input {
            TriggerInput::Tick => self.decide_due(now),
            TriggerInput::Offered { job, offset, at, definition } => {
                self.decide_offered(job, *offset, *at, definition, now)
            }
            TriggerInput::Unusable { job, offset, errors } => self.decide_unusable(job, *offset, errors.clone(), now),
            TriggerInput::Deleted { job, offset, at } => self.decide_deleted(job, *offset, *at, now),
            TriggerInput::Commanded { job, offset, at, command } => {
                self.decide_commanded(job, *offset, *at, command, now)
            }
            TriggerInput::Calendars(calendars) => vec![TriggerEvent::Calendars(Arc::clone(calendars))],
        }
    }

    fn apply(&mut self, event: &TriggerEvent) {
        match event {
            TriggerEvent::Decided(decision) => self.settle(decision),
            // What was accepted has just been checked, see `decide_offered`.
            TriggerEvent::Stated { answer, state } => self.put(state, answer.kind == JobEventType::Accepted),
            TriggerEvent::Kept(state) => self.put(state, false),
            TriggerEvent::Answered(_) => {}
            // Fire times are the rules'; calendars only judge them when they are due, so nothing is armed anew.
            TriggerEvent::Calendars(calendars) => self.calendars = Arc::clone(calendars),
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        self.wheel.first().map(Timestamp::from_millis)
    }
}

/// A decision with everything but the verdict filled in from the state.
fn decision_of(entry: &Entry, trigger: TriggerKind, tzdb: Option<&String>, now: Timestamp) -> FireDecision {
    FireDecision {
        job: entry.job.clone(),
        version: entry.version,
        trigger,
        fire_time: now,
        range_end: None,
        decision: orloj_domain::fire::Decision::Skipped,
        reason: None,
        run_id: None,
        coalesced_into: None,
        decided_at: now,
        definition_offset: entry.definition_offset,
        command_offset: None,
        command_id: None,
        actor: None,
        fires: entry.fires,
        tzdb: tzdb.cloned(),
        calendars: BTreeMap::new(),
        incarnation: None,
        params: BTreeMap::new(),
        missed: None,
        reports_end: false,
        spec: None,
    }
}
