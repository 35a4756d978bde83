//! One job in the machine, as small as it can be: its numbers, and shares of what other jobs have too. Not here:
//! when it is due next (`Wheel`). Invariant: it converts from and to the state on the log without loss.

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::calendar::{CalendarSet, Exclusion};
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::schedule::{self, Bounds, Rule};
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::{AfterFinish, Backfill, Pause, TriggerState};

use super::shared::{SharedRules, SharedTerms, Shares, Terms, Zones};
use super::{RECENT_COMMANDS_MAX, newest};

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
#[derive(Debug, Default, PartialEq)]
struct Rare {
    pause: Option<Pause>,
    recent_commands: Vec<CommandId>,
    after_finish: Option<AfterFinish>,
    backfill: Option<Backfill>,
    failures: i32,
}

impl Rare {
    /// Nothing if the job has none of it.
    fn of(state: &TriggerState) -> Option<Box<Self>> {
        let rare = Self {
            pause: state.pause.clone(),
            recent_commands: state.recent_commands.clone(),
            after_finish: state.after_finish,
            backfill: state.backfill.clone(),
            failures: state.failures,
        };
        (rare != Self::default()).then(|| Box::new(rare))
    }
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
    /// Takes a state; `is_checked` says that its definition was checked by this process.
    pub(super) fn new(state: &TriggerState, is_checked: bool, shares: &Shares) -> Self {
        let (terms, rules) = state.definition.as_ref().map(|definition| shares.take(definition, is_checked)).unzip();
        Self {
            job: state.job.clone(),
            terms,
            rules: rules.flatten(),
            rare: Rare::of(state),
            version: state.version,
            definition_offset: state.definition_offset,
            jobs_next: state.jobs_next,
            commands_next: state.commands_next,
            effective_from: state.effective_from,
            cursor: state.cursor,
            fires: state.fires,
        }
    }

    /// How many numbers a job has.
    pub(super) const NUMBERS: usize = 7;

    /// The numbers, in the order that [`Entry::of_snapshot`] takes them.
    pub(super) fn numbers(&self) -> [i64; Self::NUMBERS] {
        let Self { version, definition_offset, jobs_next, commands_next, effective_from, cursor, fires, .. } = self;
        let (effective_from, cursor) = (effective_from.millis(), cursor.millis());
        [*version, *definition_offset, *jobs_next, *commands_next, effective_from, cursor, *fires]
    }

    /// A job from its parts; `rare` is a state of which only what most jobs don't have counts.
    pub(super) fn of_snapshot(
        job: JobId,
        (terms, rules): (Option<SharedTerms>, Option<SharedRules>),
        numbers: [i64; Self::NUMBERS],
        rare: Option<&TriggerState>,
    ) -> Self {
        let [version, definition_offset, jobs_next, commands_next, effective_from, cursor, fires] = numbers;
        let (effective_from, cursor) = (Timestamp::from_millis(effective_from), Timestamp::from_millis(cursor));
        Self {
            job,
            terms,
            rules,
            rare: rare.and_then(Rare::of),
            version,
            definition_offset,
            jobs_next,
            commands_next,
            effective_from,
            cursor,
            fires,
        }
    }

    /// True if it has what most jobs don't have.
    pub(super) fn is_rare(&self) -> bool {
        self.rare.is_some()
    }

    /// What is shared of its definition; absent when deleted.
    pub(super) fn shared_terms(&self) -> Option<&SharedTerms> {
        self.terms.as_ref()
    }

    /// Gives back what was shared.
    pub(super) fn give_up(self, shares: &Shares) {
        shares.give_up(self.terms, self.rules);
    }

    /// The job as it stands on the log.
    pub(super) fn state(&self) -> TriggerState {
        TriggerState {
            job: self.job.clone(),
            version: self.version,
            definition: self.terms().map(|terms| Arc::new(terms.definition_of(&self.job))),
            definition_offset: self.definition_offset,
            jobs_next: self.jobs_next,
            commands_next: self.commands_next,
            effective_from: self.effective_from,
            cursor: self.cursor,
            fires: self.fires,
            pause: self.pause().cloned(),
            recent_commands: self.recent_commands().to_vec(),
            after_finish: self.after_finish(),
            backfill: self.backfill().cloned(),
            failures: self.failures(),
        }
    }

    /// Where the job stands with its `afterFinish` rule, if it has one.
    pub(super) fn after_finish(&self) -> Option<AfterFinish> {
        self.rare.as_ref().and_then(|rare| rare.after_finish)
    }

    /// Runs that failed in a row.
    pub(super) fn failures(&self) -> i32 {
        self.rare.as_ref().map_or(0, |rare| rare.failures)
    }

    /// True if somebody here waits to hear how its runs end.
    pub(super) fn awaits_ends(&self) -> bool {
        let counts = |terms: &Terms| terms.definition().spec.pause_after_failures > 0;
        self.after_finish().is_some() || self.terms().is_some_and(counts)
    }

    /// The backfill under way.
    pub(super) fn backfill(&self) -> Option<&Backfill> {
        self.rare.as_ref().and_then(|rare| rare.backfill.as_ref())
    }

    /// The fire time that the end of the last run has set, unless the end of another is waited for.
    fn finish_fire_time(&self, terms: &Terms) -> Option<Timestamp> {
        let stand = self.after_finish().filter(|stand| stand.awaits.is_none())?;
        let at = terms.after_finish.map(|delay| stand.since.plus(delay))?;
        Some(terms.definition().not_before.map_or(at, |bound| at.max(bound)))
    }

    /// True if a rule names a calendar.
    pub(super) fn has_calendars(&self) -> bool {
        self.terms().is_some_and(|terms| terms.calendars.is_some())
    }

    /// Why the calendars leave a fire time of this job out; `None` if they do not.
    pub(super) fn exclusion(&self, set: &CalendarSet, fire_time: Timestamp) -> Option<Exclusion> {
        let terms = self.terms()?;
        let calendars = terms.calendars.as_ref()?;
        calendars.exclusion(set, self.rules(), self.finish_fire_time(terms), fire_time)
    }

    /// The terms in force; absent when deleted.
    pub(super) fn terms(&self) -> Option<&Terms> {
        self.terms.as_ref().map(|terms| &terms.value)
    }

    /// Whether its time zones are known; those of a deleted job are nobody's concern.
    pub(super) fn zones(&self) -> Zones {
        self.terms().map_or(Zones::Known, |terms| terms.zones)
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
        next.map(|next| self.due_of(next)).into_iter().chain(self.backfill_due()).min()
    }

    /// When the backfill has something to do: at once, or never before the end of a run that it waits for.
    fn backfill_due(&self) -> Option<Timestamp> {
        let backfill = self.backfill()?;
        let room = usize::try_from(backfill.concurrency).unwrap_or(1) > backfill.awaits.len();
        // With nothing left to request and nothing to wait for, it is to be ended.
        let has_work = room && (backfill.awaits.is_empty() || self.backfill_next().is_some());
        has_work.then_some(backfill.since)
    }

    /// The next fire time that the backfill requests.
    pub(super) fn backfill_next(&self) -> Option<Timestamp> {
        let backfill = self.backfill()?;
        let next = if backfill.fire_times.is_empty() {
            let after = Timestamp::from_millis(backfill.next.millis() - 1);
            schedule::next_within(self.rules(), self.bounds(), after)
        } else {
            backfill.fire_times.iter().copied().find(|time| *time >= backfill.next)
        };
        next.filter(|next| *next < backfill.until)
    }

    /// The same, of those that the calendars let through; a list of fire times is what somebody wants, whatever they say.
    pub(super) fn backfill_next_through(&self, set: &CalendarSet) -> Option<Timestamp> {
        let backfill = self.backfill()?;
        if !backfill.fire_times.is_empty() {
            return self.backfill_next();
        }
        let after = Timestamp::from_millis(backfill.next.millis() - 1);
        self.next_through(set, after).filter(|next| *next < backfill.until)
    }

    /// The first fire time after `after` that a clock names and the calendars let through.
    pub(super) fn next_through(&self, set: &CalendarSet, after: Timestamp) -> Option<Timestamp> {
        let (rules, bounds) = (self.rules(), self.bounds());
        let Some(calendars) = &self.terms()?.calendars else { return schedule::next_within(rules, bounds, after) };
        calendars.next_after(set, rules, bounds.start(after)).filter(|next| bounds.is_before_end(*next))
    }

    /// When a fire time is due: itself plus its stable offset.
    pub(super) fn due_of(&self, fire_time: Timestamp) -> Timestamp {
        let width = self.terms().map_or(0, |terms| terms.definition().jitter_ms);
        fire_time.plus(jitter(&self.job, fire_time, width))
    }

    /// True while fire times are requested.
    pub(super) fn is_active(&self) -> bool {
        self.pause().is_none() && self.terms().is_some_and(|terms| !terms.definition().suspend)
    }

    /// What bounds the fire times.
    pub(super) fn bounds(&self) -> Bounds {
        self.terms().map_or(Bounds::default(), |terms| terms.definition().bounds())
    }

    /// The rules in force, but for `afterFinish`.
    pub(super) fn rules(&self) -> &[Rule] {
        match (&self.rules, self.terms()) {
            (Some(own), _) => &own.value,
            (None, Some(terms)) => terms.rules.as_deref().unwrap_or_default(),
            (None, None) => &[],
        }
    }

    /// The first fire time after `after`, paused or not.
    pub(super) fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let terms = self.terms()?;
        if terms.definition().max_fires.is_some_and(|max| self.fires >= max) {
            return None;
        }
        let bounds = self.bounds();
        let by_clock = schedule::next_within(self.rules(), bounds, after);
        let by_finish = self.finish_fire_time(terms);
        by_clock.into_iter().chain(by_finish.filter(|at| *at > after && bounds.is_before_end(*at))).min()
    }

    /// The newest fire times in (`after`, `until`], at most `max`, in order, and whether those are all.
    pub(super) fn newest_between(&self, after: Timestamp, until: Timestamp, max: usize) -> (Vec<Timestamp>, bool) {
        newest::between(|at| self.next_after(at), after, self.last_before_end(until), max)
    }

    /// The newest fire times in (`after`, `until`] that the calendars let through, at most `max`, in order.
    pub(super) fn newest_through(
        &self,
        set: &CalendarSet,
        after: Timestamp,
        until: Timestamp,
        max: usize,
    ) -> Vec<Timestamp> {
        let is_let_through = |at: &Timestamp| self.exclusion(set, *at).is_none();
        let by_finish = self.terms().and_then(|terms| self.finish_fire_time(terms)).filter(is_let_through);
        let next_after = |at| self.next_through(set, at).into_iter().chain(by_finish.filter(|time| *time > at)).min();
        newest::between(next_after, after, self.last_before_end(until), max).0
    }

    /// The instant itself, or the last one at which there may still be a fire time.
    fn last_before_end(&self, instant: Timestamp) -> Timestamp {
        let end = self.bounds().not_after;
        end.map_or(instant, |end| instant.min(Timestamp::from_millis(end.millis() - 1)))
    }

    /// Takes a decision. Unless it changes nothing, only the decision explains it so far.
    pub(super) fn settle(&mut self, decision: &FireDecision) -> Settled {
        if decision.trigger == TriggerKind::Backfill {
            return self.settle_backfill(decision);
        }
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

impl Entry {
    /// Takes one request of the backfill under way; those of an earlier one change nothing.
    fn settle_backfill(&mut self, decision: &FireDecision) -> Settled {
        let backfill = self.rare.as_mut().and_then(|rare| rare.backfill.as_mut());
        let is_its = |backfill: &&mut Backfill| {
            decision.command_id.as_ref() == Some(&backfill.command_id) && decision.fire_time >= backfill.next
        };
        let Some(backfill) = backfill.filter(is_its) else { return Settled::Nothing };
        backfill.next = Timestamp::from_millis(decision.fire_time.millis() + 1);
        if !backfill.fire_times.is_empty() {
            let next = backfill.next;
            backfill.fire_times.retain(|time| *time >= next);
            // An empty list means all of the range: what remains of it is none.
            if backfill.fire_times.is_empty() {
                backfill.until = next;
            }
        }
        backfill.requested += 1;
        backfill.awaits.push(decision.fire_time);
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
