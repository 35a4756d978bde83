//! The dispatcher says how a run ended that somebody here waits for: a backfill, an `afterFinish` rule, the count of failures.
//! Not here: which runs are told of (`Entry::awaits_ends`). Invariant: an end is taken once, by its offset.

use orloj_domain::command::Command;
use orloj_domain::id::RunId;
use orloj_domain::job_event::JobEventType;
use orloj_domain::run::RunState;
use orloj_domain::time::Timestamp;
use orloj_domain::trigger_state::{AfterFinish, Pause, TriggerState};

use super::backfill::backfill_without;
use super::entry::Entry;
use super::{TriggerEvent, TriggerMachine};

/// Who pauses a job that has failed too often.
const ACTOR: &str = "orloj";

impl TriggerMachine {
    /// The end of a run that a backfill waits for makes room for the next; that of the run that the job waits for sets its
    /// next fire time; one failure too many pauses the job; any other end says nothing.
    pub(super) fn run_ended(
        &self,
        entry: &Entry,
        offset: i64,
        at: Timestamp,
        command: &Command,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let before = entry.state();
        let mut state = TriggerState { failures: failures_after(entry, command), ..before.clone() };
        if let Some(backfill) = backfill_without(entry, command.run_id) {
            state.backfill = Some(backfill);
        } else if let Some(fire_time) = awaited(entry, command) {
            let since = command.at.unwrap_or(at).min(now).max(fire_time);
            state.after_finish = Some(AfterFinish { since, awaits: None });
        }
        if state == before {
            return Vec::new();
        }
        state.commands_next = offset + 1;
        let limit = entry.terms().map_or(0, |terms| terms.definition().spec.pause_after_failures);
        if limit > 0 && state.failures >= limit && entry.pause().is_none() {
            return self.pause_failing(entry, (offset, at), command, &state, now);
        }
        vec![TriggerEvent::Kept(Box::new(state))]
    }

    /// Pauses the job as a person would, and takes what else the end changed along.
    fn pause_failing(
        &self,
        entry: &Entry,
        read: (i64, Timestamp),
        command: &Command,
        ended: &TriggerState,
        now: Timestamp,
    ) -> Vec<TriggerEvent> {
        let run = command.run_id.map_or_else(String::new, |run| format!("; the last is {run}"));
        let reason = format!("{} runs in a row failed (`pauseAfterFailures`){run}", ended.failures);
        let actor = Some(ACTOR.to_owned());
        let command = Command { actor: actor.clone(), reason: Some(reason.clone()), ..command.clone() };
        let pause = Pause { at: now, reason, actor };
        let mut events = self.change_pause(entry, JobEventType::Paused, Some(pause), read, &command, now);
        for event in &mut events {
            if let TriggerEvent::Stated { state, .. } = event {
                state.failures = ended.failures;
                state.backfill.clone_from(&ended.backfill);
                // Nobody sent this command: a run that is sent back ends under the same id once more.
                state.recent_commands.clone_from(&ended.recent_commands);
                // Any other end says nothing about the run that the pause has just found due.
                if awaited(entry, &command).is_some() {
                    state.after_finish = ended.after_finish;
                }
            }
        }
        events
    }
}

/// Fire time of the run whose end it is, if the job waits for just that one.
fn awaited(entry: &Entry, command: &Command) -> Option<Timestamp> {
    let awaits = entry.after_finish().and_then(|stand| stand.awaits)?;
    (command.run_id == Some(RunId::of_fire_time(&entry.job, entry.version, awaits))).then_some(awaits)
}

/// Runs that failed in a row, this one included. One that was cancelled says nothing about the job.
fn failures_after(entry: &Entry, command: &Command) -> i32 {
    let is_counted = entry.terms().is_some_and(|terms| terms.definition().spec.pause_after_failures > 0);
    match command.run_state.filter(|_| is_counted) {
        Some(RunState::Succeeded) => 0,
        Some(RunState::Dead | RunState::Failed | RunState::Expired) => entry.failures().saturating_add(1),
        Some(
            RunState::Cancelled
            | RunState::Delayed
            | RunState::Waiting
            | RunState::Ready
            | RunState::Running
            | RunState::Retrying
            | RunState::Unknown,
        )
        | None => entry.failures(),
    }
}
