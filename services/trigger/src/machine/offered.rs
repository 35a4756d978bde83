//! Admission: a definition that is offered is accepted, unchanged or rejected; a delete ends the job. Not here:
//! what makes a definition valid (`domain::manifest::check`). Invariant: an edit counts from the instant its
//! record was appended; what the older version owes up to then is settled before, nothing of it after.

use std::sync::Arc;

use orloj_domain::id::JobId;
use orloj_domain::job::{JobDefinition, ScheduleRule};
use orloj_domain::job_event::{FieldError, JobEvent, JobEventType};
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::{AfterFinish, TriggerState};

use super::entry::Entry;
use super::{TriggerEvent, TriggerMachine};

impl TriggerMachine {
    pub(super) fn decide_offered(
        &self,
        job: &JobId,
        offset: i64,
        at: Timestamp,
        definition: &Arc<JobDefinition>,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let entry = self.entry(job);
        if entry.is_some_and(|entry| offset < entry.jobs_next) {
            return Vec::new();
        }
        // Of a million definitions most say the same for another job, and a check costs more than all else here.
        let errors = if self.shares.is_checked(definition) { Vec::new() } else { manifest::check(definition) };
        if !errors.is_empty() {
            return self.decide_unusable(job, offset, errors, now);
        }
        if entry.and_then(Entry::terms).is_some_and(|terms| terms.are_those_of(definition)) {
            let version = entry.map_or(0, |entry| entry.version);
            let answer = answer(job, version, JobEventType::Unchanged, Some(offset), now);
            return vec![TriggerEvent::Answered(Box::new(answer))];
        }
        // Not for what is in force already: it was ahead once.
        let errors = manifest::check_ahead(definition, effective_from(entry, at, now));
        if !errors.is_empty() {
            return self.decide_unusable(job, offset, errors, now);
        }
        self.accept(entry, (job, offset), at, definition, now)
    }

    fn accept(
        &self,
        before: Option<&Entry>,
        (job, offset): (&JobId, i64),
        at: Timestamp,
        definition: &Arc<JobDefinition>,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let from = effective_from(before, at, now);
        let mut events = before.map(|entry| self.close_interval(entry, from, now)).unwrap_or_default();
        let cursor = settled_until(&events).unwrap_or(from).max(from);
        let version = before.map_or(0, |entry| entry.version) + 1;
        let state = TriggerState {
            job: job.clone(),
            version,
            definition: Some(Arc::clone(definition)),
            definition_offset: offset,
            jobs_next: offset + 1,
            commands_next: before.map_or(0, |entry| entry.commands_next),
            effective_from: cursor,
            cursor: if before.is_none() { before_instants(definition, cursor) } else { cursor },
            fires: 0,
            pause: before.and_then(Entry::pause).cloned(),
            after_finish: manifest::after_finish_of(definition).map(|_| AfterFinish { since: cursor, awaits: None }),
            recent_commands: before.map(|entry| entry.recent_commands().to_vec()).unwrap_or_default(),
            backfill: None,
            failures: 0,
        };
        events.extend(before.and_then(|entry| self.backfill_ended_by(entry, "an edit", now)));
        let answer = answer(job, version, JobEventType::Accepted, Some(offset), now);
        events.push(TriggerEvent::Stated { answer: Box::new(answer), state: Box::new(state) });
        events
    }

    pub(super) fn decide_unusable(
        &self,
        job: &JobId,
        offset: i64,
        errors: Vec<FieldError>,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let entry = self.entry(job);
        if entry.is_some_and(|entry| offset < entry.jobs_next) {
            return Vec::new();
        }
        let version = entry.map_or(0, |entry| entry.version);
        let mut answer = answer(job, version, JobEventType::Rejected, Some(offset), now);
        answer.errors = errors;
        vec![TriggerEvent::Answered(Box::new(answer))]
    }

    pub(super) fn decide_deleted(&self, job: &JobId, offset: i64, at: Timestamp, now: Timestamp) -> Vec<TriggerEvent> {
        let entry = self.entry(job);
        let version = entry.map_or(0, |entry| entry.version);
        let Some(entry) = entry.filter(|entry| entry.terms().is_some()) else {
            let answer = answer(job, version, JobEventType::Unchanged, Some(offset), now);
            return vec![TriggerEvent::Answered(Box::new(answer))];
        };
        if offset < entry.jobs_next {
            return Vec::new();
        }
        let until = effective_from(Some(entry), at, now);
        let mut events = self.close_interval(entry, until, now);
        let cursor = settled_until(&events).unwrap_or(until).max(until);
        let state = TriggerState {
            definition: None,
            definition_offset: offset,
            jobs_next: offset + 1,
            effective_from: cursor,
            cursor,
            pause: None,
            after_finish: None,
            backfill: None,
            ..entry.state()
        };
        events.extend(self.backfill_ended_by(entry, "a delete", now));
        let answer = answer(job, version, JobEventType::Deleted, Some(offset), now);
        events.push(TriggerEvent::Stated { answer: Box::new(answer), state: Box::new(state) });
        events
    }
}

/// An answer about a job of this version; 0 if there is no such job.
pub(super) fn answer(
    job: &JobId,
    version: i64,
    kind: JobEventType,
    definition_offset: Option<i64>,
    now: Timestamp,
) -> JobEvent {
    JobEvent {
        kind,
        job: job.clone(),
        version,
        at: now,
        definition_offset,
        command_offset: None,
        command_id: None,
        actor: None,
        reason: None,
        errors: Vec::new(),
        incarnation: None,
    }
}

/// From when an edit counts: from the instant its record was appended, but never before what is already
/// decided and never in the future, whatever the clock that stamped it said.
pub(super) fn effective_from(before: Option<&Entry>, at: Timestamp, now: Timestamp) -> Timestamp {
    let decided = before.map_or(Timestamp::MIN, |entry| entry.cursor);
    at.min(now).max(decided)
}

/// The instant up to which the decisions among `events` settle their job.
pub(super) fn settled_until(events: &[TriggerEvent]) -> Option<Timestamp> {
    let settled = events.iter().map(|event| match event {
        TriggerEvent::Decided(decision) => Some(decision.settled_until()),
        TriggerEvent::Stated { .. }
        | TriggerEvent::Kept(_)
        | TriggerEvent::Answered(_)
        | TriggerEvent::Calendars(_) => None,
    });
    settled.flatten().max()
}

/// A new job that only names instants owes those that have passed already to its misfire policy.
fn before_instants(definition: &JobDefinition, cursor: Timestamp) -> Timestamp {
    let mut earliest = cursor;
    for rule in &definition.schedule {
        match rule {
            ScheduleRule::AtRule(rule) => {
                earliest = earliest.min(Timestamp::from_millis(rule.at.millis() - 1));
            }
            ScheduleRule::CronRule(_) | ScheduleRule::EveryRule(_) | ScheduleRule::AfterFinishRule(_) => {
                return cursor;
            }
        }
    }
    earliest
}
