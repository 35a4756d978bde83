//! Runs: the state each run is in, as the dispatcher says. Not here: who asked for it (`decisions`), what its
//! runners say (`attempts`). Invariant: the newest record of a run replaces its state; none other does.

use orloj_domain::run::{RunEvent, RunState};
use orloj_runtime::log::Record;

use super::{AttemptEnd, Change, Unreadable, decoded, json_text};

/// A step of a run, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunStep {
    pub(crate) run_id: String,
    pub(crate) job: String,
    pub(crate) version: i64,
    pub(crate) trigger: &'static str,
    pub(crate) fire_time: i64,
    pub(crate) requested_at: i64,
    pub(crate) queue: String,
    pub(crate) state: &'static str,
    pub(crate) attempt: i32,
    pub(crate) token: i64,
    pub(crate) at: i64,
    pub(crate) due_at: Option<i64>,
    pub(crate) runner: Option<String>,
    /// A JSON object.
    pub(crate) outcome: Option<String>,
    pub(crate) disposition: Option<String>,
    pub(crate) finished_at: Option<i64>,
    pub(crate) note: Option<String>,
    pub(crate) redrives: i32,
    /// A JSON list of what it waits for or holds; absent if that is nothing.
    pub(crate) limits: Option<String>,
    /// It waits for a runner that has this handler.
    pub(crate) missing_handler: Option<String>,
    /// It waits for a runner that has these labels and a free slot.
    pub(crate) missing_runner: Option<String>,
}

pub(super) fn fold(record: &Record, changes: &mut Vec<Change>) -> Result<(), Unreadable> {
    let Some(event) = decoded::<RunEvent>(record)? else { return Ok(()) };
    changes.extend(ended_attempts(&event).map(|end| Change::AttemptEnded(Box::new(end))));
    changes.extend(event.hedge.as_ref().map(|hedge| Change::Hedged {
        run_id: event.run_id.to_string(),
        token: hedge.token,
        attempt: hedge.attempt,
    }));
    let finished_at = event.state.is_terminal().then(|| event.at.millis());
    changes.push(Change::Stepped(Box::new(RunStep {
        run_id: event.run_id.to_string(),
        job: event.job.to_string(),
        version: event.version,
        trigger: event.trigger.as_str(),
        fire_time: event.fire_time.millis(),
        requested_at: event.requested_at.millis(),
        queue: event.queue.to_string(),
        state: event.state.as_str(),
        attempt: event.attempt,
        token: event.token,
        at: event.at.millis(),
        due_at: event.due_at.map(|it| it.millis()),
        runner: event.runner.map(|runner| runner.to_string()),
        outcome: event.outcome.as_ref().map(json_text),
        disposition: event.disposition,
        finished_at,
        note: event.note,
        redrives: event.redrives,
        limits: (!event.limits.is_empty()).then(|| json_text(&event.limits)),
        missing_handler: event.missing_handler,
        missing_runner: event.missing_runner,
    })));
    Ok(())
}

/// The attempts that this step ends: where two were live it names them.
fn ended_attempts(event: &RunEvent) -> impl Iterator<Item = AttemptEnd> {
    let named = event.ended_attempts.iter().map(|end| AttemptEnd {
        run_id: event.run_id.to_string(),
        token: end.token,
        attempt: end.attempt,
        at: end.at.millis(),
        outcome: json_text(&end.outcome),
    });
    let told = if event.ended_attempts.is_empty() { ended_attempt(event) } else { None };
    named.chain(told)
}

/// The attempt that this step ends: of a retry the one before, of an end the last; none if none was ever ready.
fn ended_attempt(event: &RunEvent) -> Option<AttemptEnd> {
    let attempt = match event.state {
        RunState::Retrying => event.attempt - 1,
        RunState::Succeeded | RunState::Failed | RunState::Dead | RunState::Cancelled | RunState::Expired => {
            event.attempt
        }
        RunState::Delayed | RunState::Waiting | RunState::Ready | RunState::Running | RunState::Unknown => return None,
    };
    if attempt < 1 || event.token < 1 {
        return None;
    }
    let outcome = json_text(event.outcome.as_ref()?);
    Some(AttemptEnd { run_id: event.run_id.to_string(), token: event.token, attempt, at: event.at.millis(), outcome })
}
