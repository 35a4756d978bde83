//! Live runs as they stand in `run.state`, `run.delay` and `run.retry`, and back. Invariant: what is written
//! reads back as the same run.

use std::sync::Arc;

use orloj_domain::fire::FireDecision;
use orloj_domain::id::{IdError, RunId};
use orloj_domain::retry::Disposition;
use orloj_domain::run::{LiveHedge, LiveRun, RunState};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::driver::Undecodable;
use orloj_runtime::log::Record;

use super::read::decode;
use super::{breaker, cancel, limit};
use crate::hedge::{Hedge, HedgeStep};
use crate::machine::DispatcherMachine;
use crate::request::Request;
use crate::run::{DeadRun, Run, Step};
use crate::shares::Shares;

/// Folds one record of a state topic into a machine that is being restored.
pub(super) fn replay(machine: &mut DispatcherMachine, record: &Record) -> Result<(), Undecodable> {
    if let Some(key) = record.key_text().and_then(|key| key.strip_prefix(cancel::KEY_PREFIX)) {
        return cancel::replay(machine, key, record);
    }
    if let Some(key) = record.key_text().and_then(|key| key.strip_prefix(limit::KEY_PREFIX)) {
        return limit::replay(machine, key, record);
    }
    if breaker::is_about(record) {
        return breaker::replay(machine, record);
    }
    let Some(value) = record.value.as_deref() else {
        let key = record.key_text().unwrap_or_default();
        let id: RunId = key.parse().map_err(|error: IdError| Undecodable::new("key", key, error.rule))?;
        machine.restore_removal(&record.topic, id);
        return Ok(());
    };
    let live: LiveRun = decode(value)?;
    if live.state == RunState::Dead {
        if record.topic != topic::RUN_STATE {
            return Err(Undecodable::new("state", live.state.as_str(), "a dead run is kept in run.state"));
        }
        machine.restore_dead(dead_of_wire(live, machine.shares())?);
        return Ok(());
    }
    let run = of_wire(live, machine.shares())?;
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
    let (runner, session, offered_at) = match &run.step {
        Step::Running { runner, session } => (Some(runner.clone()), Some(session.clone()), None),
        Step::Offered { runner, session, said_at } => (Some(runner.clone()), Some(session.clone()), Some(*said_at)),
        Step::Delayed { .. }
        | Step::Waiting
        | Step::Asking { .. }
        | Step::Unserved { .. }
        | Step::Unplaced { .. }
        | Step::Ready
        | Step::Retrying { .. } => (None, None, None),
    };
    let (limits_held, asked_at) = match run.step {
        Step::Asking { held, asked_at } => (i32::try_from(held).unwrap_or(i32::MAX), Some(asked_at)),
        Step::Delayed { .. }
        | Step::Waiting
        | Step::Unserved { .. }
        | Step::Unplaced { .. }
        | Step::Ready
        | Step::Offered { .. }
        | Step::Running { .. }
        | Step::Retrying { .. } => (0, None),
    };
    LiveRun {
        attempt: run.attempt,
        token: run.token,
        due_at: run.due_at(),
        runner,
        session,
        first_failure: run.first_failure,
        last_outcome: run.last_outcome.as_deref().cloned(),
        redrives: run.redrives,
        recent_commands: run.recent_commands.to_vec(),
        cancel_reason: run.cancel_reason.as_deref().map(str::to_owned),
        redriven_at: run.redriven_at,
        attempts_before: run.attempts_before,
        limits: run.limits.to_vec(),
        limits_held,
        asked_at,
        unserved: run.unserved,
        completion: run.completion.as_deref().cloned(),
        hedge: run.hedge.as_deref().map(hedge_to_wire),
        awaits_runner: matches!(run.step, Step::Unplaced { .. }),
        was_offered: run.step == Step::Unplaced { was_offered: true },
        offered_at,
        ..bare(&run.request, run.step.state(), run.since)
    }
}

/// What is kept of a dead run, as it is written.
pub(super) fn dead_to_wire(dead: &DeadRun) -> LiveRun {
    LiveRun {
        attempt: dead.attempt,
        token: dead.token,
        first_failure: Some(dead.first_failure),
        last_outcome: Some(dead.outcome.clone()),
        redrives: dead.redrives,
        recent_commands: dead.recent_commands.to_vec(),
        disposition: Some(dead.disposition.to_string()),
        ..bare(&dead.request, RunState::Dead, dead.since)
    }
}

fn bare(request: &Request, state: RunState, since: Timestamp) -> LiveRun {
    let (request_headers, value) = request.record();
    LiveRun {
        run_id: request.run_id,
        job: request.job.clone(),
        state,
        attempt: 1,
        token: 0,
        requested_at: request.requested_at,
        since,
        due_at: None,
        runner: None,
        session: None,
        first_failure: None,
        last_outcome: None,
        redrives: 0,
        recent_commands: Vec::new(),
        request_offset: request.offset,
        request_headers,
        request: value,
        cancel_reason: None,
        redriven_at: None,
        attempts_before: 0,
        disposition: None,
        limits: Vec::new(),
        limits_held: 0,
        asked_at: None,
        unserved: 0,
        completion: None,
        hedge: None,
        awaits_runner: false,
        was_offered: false,
        offered_at: None,
    }
}

fn hedge_to_wire(hedge: &Hedge) -> LiveHedge {
    let (runner, session) = hedge.holder().map(|(runner, session)| (runner.clone(), session.clone())).unzip();
    let (attempt, token, since, is_over) = (hedge.attempt, hedge.token, hedge.since, !hedge.is_live());
    LiveHedge { attempt, token, since, runner, session, is_over }
}

fn hedge_of_wire(hedge: LiveHedge) -> Hedge {
    let LiveHedge { attempt, token, since, runner, session, is_over } = hedge;
    let step = match (runner, session) {
        _ if is_over => HedgeStep::Over,
        (Some(runner), Some(session)) => HedgeStep::Running { runner, session },
        (None, _) | (_, None) => HedgeStep::Ready,
    };
    Hedge { attempt, token, since, step }
}

/// What was asked for, from the copy that is kept with the run.
fn request_of(live: &LiveRun, shares: &Shares) -> Result<Arc<Request>, Undecodable> {
    let decision: FireDecision = decode(&live.request)?;
    let request = Request::of(&decision, live.request_offset, &live.request_headers, &live.request, shares);
    let request = request.ok_or_else(|| Undecodable::new("request", "", "it asks for no run"))?;
    if request.run_id != live.run_id {
        return Err(Undecodable::new("request", &request.run_id.to_string(), format!("it is of run {}", live.run_id)));
    }
    Ok(Arc::new(request))
}

fn dead_of_wire(live: LiveRun, shares: &Shares) -> Result<DeadRun, Undecodable> {
    let word = live.disposition.as_deref().unwrap_or_default();
    let disposition = Disposition::ALL.iter().copied().find(|disposition| disposition.as_str() == word);
    let lacks = |field: &str, value: &str| Undecodable::new(field, value, "a dead run has one");
    let disposition = disposition.ok_or_else(|| lacks("disposition", word))?;
    Ok(DeadRun {
        request: request_of(&live, shares)?,
        attempt: live.attempt,
        token: live.token,
        outcome: live.last_outcome.ok_or_else(|| lacks("lastOutcome", ""))?,
        disposition,
        first_failure: live.first_failure.unwrap_or(live.since),
        redrives: live.redrives,
        recent_commands: live.recent_commands.into(),
        since: live.since,
    })
}

fn of_wire(live: LiveRun, shares: &Shares) -> Result<Run, Undecodable> {
    let step = step_of(&live)?;
    Ok(Run {
        request: request_of(&live, shares)?,
        step,
        attempt: live.attempt,
        token: live.token,
        since: live.since,
        first_failure: live.first_failure,
        last_outcome: live.last_outcome.map(Arc::new),
        redrives: live.redrives,
        recent_commands: live.recent_commands.into(),
        cancel_reason: live.cancel_reason.map(Into::into),
        redriven_at: live.redriven_at,
        attempts_before: live.attempts_before,
        limits: live.limits.into(),
        unserved: live.unserved,
        completion: live.completion.map(Arc::new),
        hedge: live.hedge.map(hedge_of_wire).map(Arc::new),
    })
}

fn step_of(live: &LiveRun) -> Result<Step, Undecodable> {
    let state = live.state;
    let step = match state {
        RunState::Delayed => live.due_at.map(|due_at| Step::Delayed { due_at }),
        RunState::Waiting => Some(match (live.asked_at, live.due_at) {
            (Some(asked_at), _) => {
                let held = usize::try_from(live.limits_held).ok().filter(|held| *held < live.limits.len());
                let bad =
                    || Undecodable::new("limitsHeld", &live.limits_held.to_string(), "is not below those it asks for");
                Step::Asking { held: held.ok_or_else(bad)?, asked_at }
            }
            (None, Some(due_at)) => Step::Unserved { due_at },
            (None, None) if live.awaits_runner => Step::Unplaced { was_offered: live.was_offered },
            (None, None) => Step::Waiting,
        }),
        RunState::Ready => match (&live.runner, &live.session, live.offered_at) {
            (Some(runner), Some(session), Some(said_at)) => {
                Some(Step::Offered { runner: runner.clone(), session: session.clone(), said_at })
            }
            (None, _, _) | (_, None, _) | (_, _, None) => Some(Step::Ready),
        },
        RunState::Running => match (&live.runner, &live.session) {
            (Some(runner), Some(session)) => Some(Step::Running { runner: runner.clone(), session: session.clone() }),
            (None, _) | (_, None) => None,
        },
        RunState::Retrying => live.due_at.map(|due_at| Step::Retrying { due_at }),
        RunState::Succeeded
        | RunState::Failed
        | RunState::Dead
        | RunState::Cancelled
        | RunState::Expired
        | RunState::Unknown => None,
    };
    step.ok_or_else(|| Undecodable::new("state", state.as_str(), "no live run of this version is in this state"))
}
