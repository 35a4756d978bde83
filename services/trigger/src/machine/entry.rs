//! One job in the machine: its state, its parsed rules and its next fire time. Invariant: `next` is the first
//! fire time after the cursor, or nothing while the job is paused, suspended, deleted or used up.

use std::time::Duration;

use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{JobId, RunId};
use orloj_domain::job::JobDefinition;
use orloj_domain::manifest;
use orloj_domain::schedule::{self, Rule};
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::TriggerState;

use super::RECENT_COMMANDS_MAX;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: TriggerState,
    rules: Vec<Rule>,
    next: Option<Timestamp>,
}

impl Entry {
    pub(super) fn new(state: TriggerState) -> Self {
        let rules = state.definition.as_ref().map(parsed).unwrap_or_default();
        let mut entry = Self { state, rules, next: None };
        entry.rearm();
        entry
    }

    /// When the next fire time is due, its jitter included.
    pub(super) fn due(&self) -> Option<Timestamp> {
        self.next.map(|next| self.due_of(next))
    }

    /// When a fire time is due: itself plus its stable offset.
    pub(super) fn due_of(&self, fire_time: Timestamp) -> Timestamp {
        let width = self.state.definition.as_ref().map_or(0, |definition| definition.jitter_ms);
        fire_time.plus(jitter(&self.state.job, fire_time, width))
    }

    /// True while fire times are requested.
    pub(super) fn is_active(&self) -> bool {
        let is_suspended = self.state.definition.as_ref().is_none_or(|definition| definition.suspend);
        self.state.pause.is_none() && !is_suspended
    }

    /// The first fire time after `after`, paused or not.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let definition = self.state.definition.as_ref()?;
        if definition.max_fires.is_some_and(|max| self.state.fires >= max) {
            return None;
        }
        let earliest = definition.not_before.map_or(Timestamp::MIN, |bound| bound.minus(Duration::from_millis(1)));
        let next = schedule::next_of(&self.rules, after.max(earliest).to_jiff()).map(Timestamp::from)?;
        let is_over = definition.not_after.is_some_and(|bound| next >= bound);
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

    /// Takes a decision; true if the cursor moved and is not saved by it.
    pub(super) fn settle(&mut self, decision: &FireDecision) -> bool {
        if let (Some(offset), Some(command)) = (decision.command_offset, &decision.command_id) {
            if offset < self.state.commands_next {
                return false;
            }
            self.state.commands_next = offset + 1;
            self.state.recent_commands.push(command.clone());
            let surplus = self.state.recent_commands.len().saturating_sub(RECENT_COMMANDS_MAX);
            self.state.recent_commands.drain(..surplus);
            return true;
        }
        let is_ours = decision.version == self.state.version && decision.trigger == TriggerKind::Schedule;
        if !is_ours || decision.settled_until() <= self.state.cursor {
            return false;
        }
        self.state.cursor = decision.settled_until();
        if decision.decision == Decision::Requested {
            self.state.fires = self.state.fires.max(decision.fires);
        }
        self.rearm();
        true
    }

    fn rearm(&mut self) {
        self.next = if self.is_active() { self.next_after(self.state.cursor) } else { None };
    }
}

/// The rules of a definition. Those that no longer parse (a time zone that an update removed) leave the job
/// without fire times, and say so: its definition was valid when it was accepted.
fn parsed(definition: &JobDefinition) -> Vec<Rule> {
    manifest::rules_of(definition).unwrap_or_default()
}

/// Stable offset of a fire time: a hash of (job, fire time) modulo the width.
fn jitter(job: &JobId, fire_time: Timestamp, width_ms: i64) -> Duration {
    let Ok(width @ 1..) = u64::try_from(width_ms) else { return Duration::ZERO };
    let hash = RunId::of_fire_time(job, 0, fire_time).hash64();
    Duration::from_millis(hash % width)
}
