//! Backfills: runs for fire times that have passed, a few at a time, each requested by one decision. Not here: what
//! may be asked (`domain::backfill`). Invariant: the decision is the progress marker, as for fire times of the
//! schedule; a backfill never touches the cursor, nor counts against `maxFires`.

use std::sync::Arc;

use orloj_domain::backfill::{self, Ask};
use orloj_domain::calendar::CalendarSet;
use orloj_domain::command::Command;
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::RunId;
use orloj_domain::job_event::{FieldError, JobEvent, JobEventType};
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::{Backfill, TriggerState};

use super::entry::{Entry, remember};
use super::offered::answer;
use super::{TriggerEvent, TriggerMachine, decision_of};

/// Priority of a backfill's runs: live ones of the same queue go first.
const PRIORITY: i32 = 0;

impl TriggerMachine {
    pub(super) fn start_backfill(
        &self,
        entry: &Entry,
        offset: i64,
        command: &Command,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let backfill = match backfill_of(entry, &self.calendars, offset, command, now) {
            Ok(backfill) => backfill,
            Err(errors) => return self.refuse(&entry.job, offset, command, errors, now),
        };
        self.restate(entry, JobEventType::BackfillStarted, Some(backfill), (offset, command), now)
    }

    pub(super) fn cancel_backfill(
        &self,
        entry: &Entry,
        offset: i64,
        command: &Command,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let wanted = command.backfill_id.as_ref();
        if entry.backfill().map(|backfill| &backfill.command_id) == wanted {
            return self.restate(entry, JobEventType::BackfillCancelled, None, (offset, command), now);
        }
        let message = match entry.backfill() {
            Some(backfill) => format!("is not under way; the one that is has the id {}", backfill.command_id),
            None => "is not under way; it has ended, or never began".to_owned(),
        };
        let error = FieldError::new("backfillId", wanted.map_or("", |id| id.as_str()), message);
        self.refuse(&entry.job, offset, command, vec![error], now)
    }

    fn restate(
        &self,
        entry: &Entry,
        kind: JobEventType,
        backfill: Option<Backfill>,
        (offset, command): (i64, &Command),
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let mut recent_commands = entry.recent_commands().to_vec();
        remember(&mut recent_commands, &command.command_id);
        let state = TriggerState { commands_next: offset + 1, recent_commands, backfill, ..entry.state() };
        let answer = self.command_answer(&entry.job, kind, offset, command, now);
        vec![TriggerEvent::Stated { answer: Box::new(answer), state: Box::new(state) }]
    }

    /// Requests the next fire time of the job's backfill, or ends it. Nothing while as many runs are live as may be.
    pub(super) fn step_backfill(&self, entry: &Entry, now: Timestamp) -> Vec<TriggerEvent> {
        let Some(backfill) = entry.backfill() else { return Vec::new() };
        if let Some(fire_time) = entry.backfill_next_through(&self.calendars) {
            return vec![TriggerEvent::Decided(Box::new(self.request_of(entry, backfill, fire_time, now)))];
        }
        if !backfill.awaits.is_empty() {
            // Calendars leave out all that is left: nothing is requested any more, and the end waits for the runs.
            let backfill = Some(Backfill { next: backfill.until, ..backfill.clone() });
            return vec![TriggerEvent::Kept(Box::new(TriggerState { backfill, ..entry.state() }))];
        }
        let answer = JobEvent {
            command_id: Some(backfill.command_id.clone()),
            actor: backfill.actor.clone(),
            reason: Some(format!("{} runs", backfill.requested)),
            ..answer(&entry.job, entry.version, JobEventType::BackfillFinished, None, now)
        };
        let state = TriggerState { backfill: None, ..entry.state() };
        vec![TriggerEvent::Stated { answer: Box::new(answer), state: Box::new(state) }]
    }

    fn request_of(&self, entry: &Entry, backfill: &Backfill, fire_time: Timestamp, now: Timestamp) -> FireDecision {
        let mut decision = decision_of(entry, TriggerKind::Backfill, self.tzdb.as_ref(), now);
        decision.fire_time = fire_time;
        decision.decision = Decision::Requested;
        decision.run_id = Some(RunId::of_backfill(&entry.job, &backfill.command_id, fire_time));
        decision.command_offset = Some(backfill.command_offset);
        decision.command_id = Some(backfill.command_id.clone());
        decision.actor.clone_from(&backfill.actor);
        decision.params.clone_from(&backfill.params);
        decision.reports_end = true;
        let calendars = entry.terms().and_then(|terms| terms.calendars.as_ref());
        if let Some(calendars) = calendars.filter(|_| backfill.fire_times.is_empty()) {
            decision.calendars = calendars.positions(&self.calendars);
        }
        decision.spec = entry.terms().map(|terms| terms.definition().spec.clone());
        if let Some(spec) = &mut decision.spec {
            Arc::make_mut(spec).priority = PRIORITY;
        }
        decision
    }

    /// What is said when an edit or a delete ends the job's backfill.
    pub(super) fn backfill_ended_by(&self, entry: &Entry, what: &str, now: Timestamp) -> Option<TriggerEvent> {
        let backfill = entry.backfill()?;
        let answer = JobEvent {
            command_id: Some(backfill.command_id.clone()),
            reason: Some(format!("{what} after {} runs", backfill.requested)),
            ..answer(&entry.job, entry.version, JobEventType::BackfillCancelled, None, now)
        };
        Some(TriggerEvent::Answered(Box::new(answer)))
    }
}

/// The backfill that a command starts.
fn backfill_of(
    entry: &Entry,
    calendars: &CalendarSet,
    offset: i64,
    command: &Command,
    now: Timestamp,
) -> Result<Backfill, Vec<FieldError>> {
    if let Some(backfill) = entry.backfill() {
        let message = "another backfill of the job is under way; wait for its end, or cancel it";
        return Err(vec![FieldError::new("type", &backfill.command_id, message)]);
    }
    let ask = Ask::of(command)?;
    // What lies ahead of the cursor is the schedule's own to decide.
    let until = ask.until.min(Timestamp::from_millis(entry.cursor.millis() + 1));
    let count = if ask.fire_times.is_empty() {
        let next = |after: &Timestamp| entry.next_through(calendars, *after).filter(|next| *next < until);
        let first = next(&Timestamp::from_millis(ask.from.millis() - 1));
        std::iter::successors(first, next).take(ask.max + 1).count()
    } else {
        backfill::check_fire_times(entry.rules(), entry.bounds(), &ask.fire_times).map_err(|error| vec![error])?;
        ask.fire_times.iter().filter(|time| **time < until).count()
    };
    if count == 0 {
        let left_out = if entry.has_calendars() { " that the calendars let through" } else { "" };
        let message = format!("no fire time{left_out} lies between {} and {until}", ask.from);
        return Err(vec![FieldError::new("from", ask.from, message)]);
    }
    if count > ask.max {
        let message = format!("more fire times lie between {} and {until}: narrow the range or raise `max`", ask.from);
        return Err(vec![FieldError::new("max", ask.max, message)]);
    }
    Ok(Backfill {
        command_id: command.command_id.clone(),
        command_offset: offset,
        actor: command.actor.clone(),
        since: now,
        next: ask.from,
        until,
        fire_times: ask.fire_times,
        concurrency: i32::try_from(ask.concurrency).unwrap_or(1),
        requested: 0,
        awaits: Vec::new(),
        params: command.params.clone(),
    })
}

/// The job's backfill once this run of it has ended; absent if the run is not one that it waits for.
pub(super) fn backfill_without(entry: &Entry, run: Option<RunId>) -> Option<Backfill> {
    let backfill = entry.backfill()?;
    let run = run?;
    let is_it = |fire_time: &Timestamp| RunId::of_backfill(&entry.job, &backfill.command_id, *fire_time) == run;
    let ended = backfill.awaits.iter().position(is_it)?;
    let mut backfill = backfill.clone();
    backfill.awaits.remove(ended);
    Some(backfill)
}
