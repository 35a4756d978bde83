//! The trigger's machine over one shard: which jobs there are, up to where each is decided, what is due. Not
//! here: bytes (`service`), which fire times a rule has (`domain::schedule`). Invariant: only `apply` and the
//! replays change it; `armed` holds exactly one entry for each job that has a next fire time.

mod commanded;
mod due;
mod entry;
mod offered;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::command::Command;
use orloj_domain::fire::{FireDecision, TriggerKind};
use orloj_domain::id::JobId;
use orloj_domain::job::JobDefinition;
use orloj_domain::job_event::{FieldError, JobEvent};
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::TriggerState;
use orloj_runtime::driver::Machine;

use entry::Entry;

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
        definition: Box<JobDefinition>,
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
    /// An answer that changes nothing.
    Answered(Box<JobEvent>),
}

/// The jobs of one shard.
#[derive(Debug)]
pub struct TriggerMachine {
    tzdb: Option<String>,
    jobs: BTreeMap<JobId, Entry>,
    armed: BTreeSet<(Timestamp, JobId)>,
    /// Jobs whose cursor only decisions explain so far.
    unsaved: BTreeSet<JobId>,
    /// Those of them that the running round of saving still has to write.
    saving: BTreeSet<JobId>,
}

impl TriggerMachine {
    /// No jobs; `tzdb` is written into decisions.
    #[must_use]
    pub fn new(tzdb: Option<String>) -> Self {
        Self { tzdb, jobs: BTreeMap::new(), armed: BTreeSet::new(), unsaved: BTreeSet::new(), saving: BTreeSet::new() }
    }

    /// What is known of a job; deleted ones included.
    #[must_use]
    pub fn state(&self, job: &JobId) -> Option<&TriggerState> {
        self.jobs.get(job).map(|entry| &entry.state)
    }

    /// All jobs, deleted ones included, in order.
    pub fn states(&self) -> impl Iterator<Item = &TriggerState> {
        self.jobs.values().map(|entry| &entry.state)
    }

    /// Takes a saved state while restoring.
    pub fn replay_state(&mut self, state: TriggerState) {
        self.put(state);
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
            let Some(job) = self.saving.pop_first() else { break };
            states.extend(self.jobs.get(&job).map(|entry| entry.state.clone()));
        }
        (states, self.saving.is_empty())
    }

    fn put(&mut self, state: TriggerState) {
        let job = state.job.clone();
        self.disarm(&job);
        let entry = Entry::new(state);
        self.arm(&job, &entry);
        self.unsaved.remove(&job);
        self.saving.remove(&job);
        self.jobs.insert(job, entry);
    }

    fn settle(&mut self, decision: &FireDecision) {
        let Some(mut entry) = self.jobs.remove(&decision.job) else {
            return;
        };
        self.disarm_entry(&decision.job, &entry);
        if entry.settle(decision) {
            self.unsaved.insert(decision.job.clone());
        }
        self.arm(&decision.job, &entry);
        self.jobs.insert(decision.job.clone(), entry);
    }

    fn arm(&mut self, job: &JobId, entry: &Entry) {
        if let Some(due) = entry.due() {
            self.armed.insert((due, job.clone()));
        }
    }

    fn disarm(&mut self, job: &JobId) {
        if let Some(due) = self.jobs.get(job).and_then(Entry::due) {
            self.armed.remove(&(due, job.clone()));
        }
    }

    fn disarm_entry(&mut self, job: &JobId, entry: &Entry) {
        if let Some(due) = entry.due() {
            self.armed.remove(&(due, job.clone()));
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
        }
    }

    fn apply(&mut self, event: &TriggerEvent) {
        match event {
            TriggerEvent::Decided(decision) => self.settle(decision),
            TriggerEvent::Stated { state, .. } => self.put((**state).clone()),
            TriggerEvent::Answered(_) => {}
        }
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        self.armed.first().map(|(due, _)| *due)
    }
}

/// A decision with everything but the verdict filled in from the state.
fn decision_of(state: &TriggerState, trigger: TriggerKind, tzdb: Option<&String>, now: Timestamp) -> FireDecision {
    FireDecision {
        job: state.job.clone(),
        version: state.version,
        trigger,
        fire_time: now,
        range_end: None,
        decision: orloj_domain::fire::Decision::Skipped,
        reason: None,
        run_id: None,
        coalesced_into: None,
        decided_at: now,
        definition_offset: state.definition_offset,
        command_offset: None,
        command_id: None,
        actor: None,
        fires: state.fires,
        tzdb: tzdb.cloned(),
        incarnation: None,
        params: BTreeMap::new(),
        spec: None,
    }
}
