//! One job in the machine, as small as it can be: its numbers, and shares of what other jobs have too. Not here:
//! when it is due next (`Wheel`). Invariant: it converts from and to the state on the log without loss.

use std::time::Duration;

use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::schedule::{self, Rule};
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::{AfterFinish, Pause, TriggerState};

use super::RECENT_COMMANDS_MAX;
use super::shared::{SharedRules, SharedTerms, Shares, Terms};

const _: () = assert!(size_of::<Entry>() == 96, "a job is 96 bytes beside its id, its timer and its place by name");

/// One job. The numbers are those of [`TriggerState`].
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) job: JobId,
    terms: Option<SharedTerms>,
    /// Absent unless the rules depend on the job.
    rules: Option<SharedRules>,
    rare: Option<Box<Rare>>,
    pub(super) version: i64,
    pub(super) definition_offset: i64,
    pub(super) jobs_next: i64,
    pub(super) commands_next: i64,
    effective_from: Timestamp,
    pub(super) cursor: Timestamp,
    pub(super) fires: i64,
}

/// What most jobs don't have.
#[derive(Debug, Default)]
struct Rare {
    pause: Option<Pause>,
    recent_commands: Vec<CommandId>,
    after_finish: Option<AfterFinish>,
}

/// What a decision does to its job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// It was taken before, or is about another version.
    Nothing,
    /// A command is remembered; fire times are as they were.
    Command,
    /// Fire times are settled up to a later instant.
    FireTimes,
}

impl Entry {
    pub(super) fn new(state: &TriggerState, shares: &mut Shares) -> Self {
        let (terms, rules) = state.definition.as_ref().map(|definition| shares.take(definition)).unzip();
        let is_plain = state.pause.is_none() && state.recent_commands.is_empty() && state.after_finish.is_none();
        let rare = || Rare {
            pause: state.pause.clone(),
            recent_commands: state.recent_commands.clone(),
            after_finish: state.after_finish,
        };
        Self {
            job: state.job.clone(),
            terms,
            rules: rules.flatten(),
            rare: (!is_plain).then(|| Box::new(rare())),
            version: state.version,
            definition_offset: state.definition_offset,
            jobs_next: state.jobs_next,
            commands_next: state.commands_next,
            effective_from: state.effective_from,
            cursor: state.cursor,
            fires: state.fires,
        }
    }

    /// Gives back what was shared.
    pub(super) fn give_up(self, shares: &mut Shares) {
        shares.give_up(self.terms, self.rules);
    }

    /// The job as it stands on the log.
    pub(super) fn state(&self) -> TriggerState {
        TriggerState {
            job: self.job.clone(),
            version: self.version,
            definition: self.terms().map(|terms| terms.definition_of(&self.job)),
            definition_offset: self.definition_offset,
            jobs_next: self.jobs_next,
            commands_next: self.commands_next,
            effective_from: self.effective_from,
            cursor: self.cursor,
            fires: self.fires,
            pause: self.pause().cloned(),
            recent_commands: self.recent_commands().to_vec(),
            after_finish: self.after_finish(),
        }
    }

    /// Where the job stands with its `afterFinish` rule, if it has one.
    pub(super) fn after_finish(&self) -> Option<AfterFinish> {
        self.rare.as_ref().and_then(|rare| rare.after_finish)
    }

    /// The fire time that the end of the last run has set, unless the end of another is waited for.
    fn finish_fire_time(&self, terms: &Terms) -> Option<Timestamp> {
        let stand = self.after_finish().filter(|stand| stand.awaits.is_none())?;
        terms.after_finish.map(|delay| stand.since.plus(delay))
    }

    /// The terms in force; absent when deleted.
    pub(super) fn terms(&self) -> Option<&Terms> {
        self.terms.as_ref().map(|terms| &terms.value)
    }

    pub(super) fn pause(&self) -> Option<&Pause> {
        self.rare.as_ref().and_then(|rare| rare.pause.as_ref())
    }

    /// The newest command ids that were carried out, oldest first.
    pub(super) fn recent_commands(&self) -> &[CommandId] {
        self.rare.as_ref().map_or(&[], |rare| &rare.recent_commands)
    }

    /// When the next fire time is due, its jitter included; never while the job is paused, suspended, deleted
    /// or used up.
    pub(super) fn due(&self) -> Option<Timestamp> {
        let next = if self.is_active() { self.next_after(self.cursor) } else { None };
        next.map(|next| self.due_of(next))
    }

    /// When a fire time is due: itself plus its stable offset.
    pub(super) fn due_of(&self, fire_time: Timestamp) -> Timestamp {
        let width = self.terms().map_or(0, |terms| terms.jitter_ms);
        fire_time.plus(jitter(&self.job, fire_time, width))
    }

    /// True while fire times are requested.
    pub(super) fn is_active(&self) -> bool {
        self.pause().is_none() && self.terms().is_some_and(|terms| !terms.suspend)
    }

    fn rules(&self) -> &[Rule] {
        match (&self.rules, self.terms()) {
            (Some(own), _) => &own.value,
            (None, Some(terms)) => terms.rules.as_deref().unwrap_or_default(),
            (None, None) => &[],
        }
    }

    /// The first fire time after `after`, paused or not.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let terms = self.terms()?;
        if terms.max_fires.is_some_and(|max| self.fires >= max) {
            return None;
        }
        let earliest = terms.not_before.map_or(Timestamp::MIN, |bound| bound.minus(Duration::from_millis(1)));
        let by_clock = schedule::next_of(self.rules(), after.max(earliest).to_jiff()).map(Timestamp::from);
        let by_finish = self.finish_fire_time(terms).map(|at| terms.not_before.map_or(at, |bound| at.max(bound)));
        let next = by_clock.into_iter().chain(by_finish.filter(|at| *at > after)).min()?;
        let is_over = terms.not_after.is_some_and(|bound| next >= bound);
        (!is_over).then_some(next)
    }

    /// The newest fire times in (`after`, `until`], at most `max`, in order, and whether those are all.
    /// Looks back from `until` in growing steps, so that a year of missed seconds costs no more than a minute.
    pub(super) fn newest_between(&self, after: Timestamp, until: Timestamp, max: usize) -> (Vec<Timestamp>, bool) {
        // Nearly always one fire time is due: two questions settle it.
        let Some(first) = self.next_after(after).filter(|first| *first <= until) else {
            return (Vec::new(), true);
        };
        if self.next_after(first).is_none_or(|second| second > until) {
            return (vec![first], true);
        }
        let mut step = Duration::from_secs(64);
        loop {
            let start = until.minus(step).max(after);
            let mut times = std::collections::VecDeque::new();
            let mut cursor = start;
            let mut is_complete = start == after;
            while let Some(next) = self.next_after(cursor).filter(|next| *next <= until) {
                times.push_back(next);
                if times.len() > max {
                    times.pop_front();
                    is_complete = false;
                }
                cursor = next;
            }
            if is_complete || times.len() == max || start == after {
                return (times.into(), is_complete);
            }
            step *= 4;
        }
    }

    /// Takes a decision. Unless it changes nothing, only the decision explains it so far.
    pub(super) fn settle(&mut self, decision: &FireDecision) -> Settled {
        if let (Some(offset), Some(command)) = (decision.command_offset, &decision.command_id) {
            if offset < self.commands_next {
                return Settled::Nothing;
            }
            self.commands_next = offset + 1;
            remember(&mut self.rare.get_or_insert_default().recent_commands, command);
            return Settled::Command;
        }
        let is_ours = decision.version == self.version && decision.trigger == TriggerKind::Schedule;
        if !is_ours || decision.settled_until() <= self.cursor {
            return Settled::Nothing;
        }
        self.cursor = decision.settled_until();
        let is_requested = decision.decision == Decision::Requested;
        if is_requested {
            self.fires = self.fires.max(decision.fires);
        }
        if let Some(stand) = self.rare.as_mut().and_then(|rare| rare.after_finish.as_mut()) {
            *stand = if is_requested {
                AfterFinish { awaits: Some(decision.fire_time), ..*stand }
            } else {
                // No run, so no end: the delay counts from when that was decided.
                AfterFinish { since: decision.decided_at.max(self.cursor), awaits: None }
            };
        }
        Settled::FireTimes
    }
}

/// Adds a command id to the newest ones, and drops the oldest beyond the limit.
pub(super) fn remember(recent_commands: &mut Vec<CommandId>, command: &CommandId) {
    recent_commands.push(command.clone());
    let surplus = recent_commands.len().saturating_sub(RECENT_COMMANDS_MAX);
    recent_commands.drain(..surplus);
}

/// Stable offset of a fire time: a hash of (job, fire time) modulo the width.
fn jitter(job: &JobId, fire_time: Timestamp, width_ms: i64) -> Duration {
    let Ok(width @ 1..) = u64::try_from(width_ms) else { return Duration::ZERO };
    let hash = RunId::of_fire_time(job, 0, fire_time).hash64();
    Duration::from_millis(hash % width)
}
