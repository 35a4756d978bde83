//! Live runs as they stand in `run.state`, `run.delay` and `run.retry`, and back. Invariant: what is written
//! reads back as the same run.

use std::sync::Arc;

use orloj_domain::fire::FireDecision;
use orloj_domain::id::{IdError, RunId};
use orloj_domain::run::{LiveRun, RunState};
use orloj_runtime::driver::Undecodable;
use orloj_runtime::log::Record;

use super::read::decode;
use crate::machine::DispatcherMachine;
use crate::run::{Request, Run, Step};

/// Folds one record of a state topic into a machine that is being restored.
pub(super) fn replay(machine: &mut DispatcherMachine, record: &Record) -> Result<(), Undecodable> {
    let Some(value) = record.value.as_deref() else {
        let key = record.key_text().unwrap_or_default();
        let id: RunId = key.parse().map_err(|error: IdError| Undecodable::new("key", key, error.rule))?;
        machine.restore_removal(&record.topic, id);
        return Ok(());
    };
    let run = of_wire(decode(value)?)?;
    if run.topic() != record.topic {
        let state = run.step.state();
        return Err(Undecodable::new(
            "state",
            state.as_str(),
            format!("a run in this state is kept in {}", run.topic()),
        ));
    }
    machine.restore(run);
    Ok(())
}

/// The run as it is written.
pub(super) fn to_wire(run: &Run) -> LiveRun {
    let request = &run.request;
    let (runner, session) = match &run.step {
        Step::Running { runner, session } => (Some(runner.clone()), Some(session.clone())),
        Step::Delayed { .. } | Step::Ready | Step::Retrying { .. } => (None, None),
    };
    LiveRun {
        run_id: request.run_id,
        job: request.job.clone(),
        state: run.step.state(),
        attempt: run.attempt,
        token: run.token,
        requested_at: request.requested_at,
        since: run.since,
        due_at: run.due_at(),
        runner,
        session,
        first_failure: run.first_failure,
        last_outcome: run.last_outcome.as_deref().cloned(),
        redrives: run.redrives,
        recent_commands: run.recent_commands.to_vec(),
        request_offset: request.offset,
        request_headers: request.headers.clone(),
        request: request.bytes.clone(),
    }
}

fn of_wire(live: LiveRun) -> Result<Run, Undecodable> {
    let step = step_of(&live)?;
    let decision: FireDecision = decode(&live.request)?;
    let request = Request::of(decision, live.request_offset, live.request_headers, live.request);
    let request = request.ok_or_else(|| Undecodable::new("request", "", "it asks for no run"))?;
    if request.run_id != live.run_id {
        return Err(Undecodable::new("request", &request.run_id.to_string(), format!("it is of run {}", live.run_id)));
    }
    Ok(Run {
        request: Arc::new(request),
        step,
        attempt: live.attempt,
        token: live.token,
        since: live.since,
        first_failure: live.first_failure,
        last_outcome: live.last_outcome.map(Arc::new),
        redrives: live.redrives,
        recent_commands: live.recent_commands.into(),
    })
}

fn step_of(live: &LiveRun) -> Result<Step, Undecodable> {
    let state = live.state;
    let step = match state {
        RunState::Delayed => live.due_at.map(|due_at| Step::Delayed { due_at }),
        RunState::Ready => Some(Step::Ready),
        RunState::Running => match (&live.runner, &live.session) {
            (Some(runner), Some(session)) => Some(Step::Running { runner: runner.clone(), session: session.clone() }),
            (None, _) | (_, None) => None,
        },
        RunState::Retrying => live.due_at.map(|due_at| Step::Retrying { due_at }),
        RunState::Waiting
        | RunState::Succeeded
        | RunState::Failed
        | RunState::Dead
        | RunState::Cancelled
        | RunState::Expired
        | RunState::Unknown => None,
    };
    step.ok_or_else(|| Undecodable::new("state", state.as_str(), "no live run of this version is in this state"))
}
