//! Commands about jobs: run now, pause, resume. Not here: backfills (`backfill`), ends of runs (`ended`), cancel and redrive
//! of runs, which are the dispatcher's. Invariant: a command
//! id is carried out once; a repeat changes nothing and asks for nothing.

use orloj_domain::command::{Command, CommandType, PauseMissed};
use orloj_domain::fire::{Decision, TriggerKind};
use orloj_domain::id::{JobId, RunId};
use orloj_domain::job_event::{FieldError, JobEvent, JobEventType};
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::{AfterFinish, Pause, TriggerState};

use super::entry::{Entry, remember};
use super::offered::answer;
use super::offered::{effective_from, settled_until};
use super::{TriggerEvent, TriggerMachine, decision_of};

impl TriggerMachine {
    pub(super) fn decide_commanded(
        &self,
        job: &JobId,
        offset: i64,
        at: Timestamp,
        command: &Command,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        if is_about_a_run(command) {
            return Vec::new();
        }
        let Some(entry) = self.entry(job).filter(|entry| entry.terms().is_some()) else {
            // The end of a run of a deleted job is no question that wants an answer.
            if command.kind == CommandType::RunEnded {
                return Vec::new();
            }
            let error = FieldError::new("job", job, "no such job: apply its definition first");
            return self.refuse(job, offset, command, vec![error], now);
        };
        if offset < entry.commands_next || entry.recent_commands().contains(&command.command_id) {
            return Vec::new();
        }
        match command.kind {
            CommandType::RunNow => self.run_now(entry, offset, command, now),
            CommandType::Pause => self.pause(entry, offset, at, command, now),
            CommandType::Resume => self.resume(entry, offset, at, command, now),
            CommandType::RunEnded => self.run_ended(entry, offset, at, command, now),
            CommandType::Backfill => self.start_backfill(entry, offset, command, now),
            CommandType::Cancel if command.backfill_id.is_some() => self.cancel_backfill(entry, offset, command, now),
            CommandType::Cancel | CommandType::Redrive | CommandType::Park => {
                let message = "is missing: it says which run is meant";
                self.refuse(job, offset, command, vec![FieldError::new("runId", "", message)], now)
            }
            CommandType::Complete => {
                let message = "`runId`, `attempt`, `token` and `outcome` say which attempt has ended, and how";
                self.refuse(job, offset, command, vec![FieldError::new("outcome", "", message)], now)
            }
            CommandType::Unknown => {
                let message = "is no command: send RunNow, Backfill, Cancel, Redrive, Park, Pause or Resume";
                self.refuse(job, offset, command, vec![FieldError::new("type", command.kind, message)], now)
            }
        }
    }

    fn run_now(&self, entry: &Entry, offset: i64, command: &Command, now: Timestamp) -> Vec<TriggerEvent> {
        let mut decision = decision_of(entry, TriggerKind::Manual, self.tzdb.as_ref(), now);
        decision.decision = Decision::Requested;
        decision.run_id = Some(RunId::of_command(&entry.job, &command.command_id));
        decision.command_offset = Some(offset);
        decision.command_id = Some(command.command_id.clone());
        decision.actor.clone_from(&command.actor);
        decision.params.clone_from(&command.params);
        decision.reports_end = entry.awaits_ends();
        decision.spec = entry.terms().map(|terms| terms.definition().spec.clone());
        vec![TriggerEvent::Decided(Box::new(decision))]
    }

    fn pause(&self, entry: &Entry, offset: i64, at: Timestamp, command: &Command, now: Timestamp) -> Vec<TriggerEvent> {
        let reason = command.reason.clone().unwrap_or_default();
        let pause = Pause { at: now, reason, actor: command.actor.clone() };
        self.change_pause(entry, JobEventType::Paused, Some(pause), (offset, at), command, now)
    }

    fn resume(
        &self,
        entry: &Entry,
        offset: i64,
        at: Timestamp,
        command: &Command,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        if command.missed == Some(PauseMissed::Accumulate) {
            return self.resume_from_pause(entry, offset, command, now);
        }
        self.change_pause(entry, JobEventType::Resumed, None, (offset, at), command, now)
    }

    /// Goes on where the pause began: what came due meanwhile is judged by the misfire policy, as after an outage.
    fn resume_from_pause(&self, entry: &Entry, offset: i64, command: &Command, now: Timestamp) -> Vec<TriggerEvent> {
        let mut recent_commands = entry.recent_commands().to_vec();
        remember(&mut recent_commands, &command.command_id);
        let state =
            TriggerState { commands_next: offset + 1, pause: None, recent_commands, failures: 0, ..entry.state() };
        let answer = self.command_answer(&entry.job, JobEventType::Resumed, offset, command, now);
        vec![TriggerEvent::Stated { answer: Box::new(answer), state: Box::new(state) }]
    }

    /// Settles what came before and moves the cursor: a resumed job goes on from now, it does not catch up.
    pub(super) fn change_pause(
        &self,
        entry: &Entry,
        kind: JobEventType,
        pause: Option<Pause>,
        (offset, at): (i64, Timestamp),
        command: &Command,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let from = effective_from(Some(entry), at, now);
        let mut events = self.close_interval(entry, from, now);
        let cursor = settled_until(&events).unwrap_or(from).max(from);
        let fires = fires_after(&events).unwrap_or(entry.fires);
        let mut recent_commands = entry.recent_commands().to_vec();
        remember(&mut recent_commands, &command.command_id);
        let before = entry.state();
        // What the end of a pause finds waiting for nothing counts from there, as the cursor does.
        let requested = requested_last(&events);
        let after_finish = before.after_finish.map(|stand| match stand.awaits {
            None if requested.is_some() => AfterFinish { awaits: requested, ..stand },
            None => AfterFinish { since: stand.since.max(cursor), ..stand },
            Some(_) => stand,
        });
        // A person has looked: what failed before does not count any more.
        let failures = if pause.is_some() { before.failures } else { 0 };
        let state = TriggerState {
            commands_next: offset + 1,
            cursor,
            fires,
            pause,
            recent_commands,
            after_finish,
            failures,
            ..before
        };
        let answer = self.command_answer(&entry.job, kind, offset, command, now);
        events.push(TriggerEvent::Stated { answer: Box::new(answer), state: Box::new(state) });
        events
    }

    pub(super) fn refuse(
        &self,
        job: &JobId,
        offset: i64,
        command: &Command,
        errors: Vec<FieldError>,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let mut answer = self.command_answer(job, JobEventType::CommandRejected, offset, command, now);
        answer.errors = errors;
        vec![TriggerEvent::Answered(Box::new(answer))]
    }

    pub(super) fn command_answer(
        &self,
        job: &JobId,
        kind: JobEventType,
        offset: i64,
        command: &Command,
        now: Timestamp,
    ) -> JobEvent {
        let version = self.entry(job).map_or(0, |entry| entry.version);
        let mut answer = answer(job, version, kind, None, now);
        answer.command_offset = Some(offset);
        answer.command_id = Some(command.command_id.clone());
        answer.actor.clone_from(&command.actor);
        answer.reason.clone_from(&command.reason);
        answer
    }
}

/// The newest fire time that these decisions request.
fn requested_last(events: &[TriggerEvent]) -> Option<Timestamp> {
    events.iter().rev().find_map(|event| match event {
        TriggerEvent::Decided(decision) => (decision.decision == Decision::Requested
            && decision.trigger == TriggerKind::Schedule)
            .then_some(decision.fire_time),
        TriggerEvent::Stated { .. }
        | TriggerEvent::Kept(_)
        | TriggerEvent::Answered(_)
        | TriggerEvent::Calendars(_) => None,
    })
}

/// Fire times requested after the decisions among `events`.
fn fires_after(events: &[TriggerEvent]) -> Option<i64> {
    events.iter().rev().find_map(|event| match event {
        TriggerEvent::Decided(decision) => Some(decision.fires),
        TriggerEvent::Stated { .. }
        | TriggerEvent::Kept(_)
        | TriggerEvent::Answered(_)
        | TriggerEvent::Calendars(_) => None,
    })
}

/// What the dispatcher answers, by what becomes of the run: the job may be gone by then.
fn is_about_a_run(command: &Command) -> bool {
    match command.kind {
        CommandType::Cancel => command.run_id.is_some() && command.backfill_id.is_none(),
        CommandType::Redrive | CommandType::Park => command.run_id.is_some(),
        CommandType::Complete => {
            let Command { run_id, attempt, token, outcome, .. } = command;
            run_id.is_some() && attempt.is_some() && token.is_some() && outcome.is_some()
        }
        CommandType::RunNow
        | CommandType::Backfill
        | CommandType::Pause
        | CommandType::Resume
        | CommandType::RunEnded
        | CommandType::Unknown => false,
    }
}
