//! Offers as records: what is said to the one runner that may claim an attempt, and what is told of a run that waits for such a
//! runner. Not here: which runner that is (`machine::place`). Invariant: an offer holds all that a ready record holds.

use orloj_domain::run::RunEvent;
use orloj_domain::runner::{RunnerMessage, RunnerMessageType, labels_text};
use orloj_domain::shard::Shard;
use orloj_runtime::log::NewRecord;

use super::write::{inbox, ready};
use crate::event::Report;
use crate::hedge::Which;
use crate::run::Run;

/// What the runner that a run is offered to is told.
pub(super) fn offered(shard: Shard, run: &Run) -> Option<NewRecord> {
    let offer = run.offer()?;
    let message = RunnerMessage { ready: Some(ready(run, Which::Own)), ..message(RunnerMessageType::Offer, &offer) };
    Some(inbox(shard, &offer.runner, &message))
}

/// What a runner is told whose offer is one no longer.
pub(super) fn withdrawn(shard: Shard, offer: &Report) -> NewRecord {
    let reason = "it is offered to this runner no longer".to_owned();
    let message = RunnerMessage { reason: Some(reason), ..message(RunnerMessageType::Cancel, offer) };
    inbox(shard, &offer.runner, &message)
}

fn message(kind: RunnerMessageType, offer: &Report) -> RunnerMessage {
    RunnerMessage {
        kind,
        session: offer.session.clone(),
        run_id: offer.run_id,
        attempt: offer.attempt,
        token: offer.token,
        reason: None,
        outcome: None,
        ready: None,
    }
}

/// What is told of a run that waits for a runner.
pub(super) fn unplaced_event(run: &Run, event: RunEvent) -> RunEvent {
    let (queue, labels) = (&run.request.queue, labels_text(&run.request.runner_labels));
    let note = Some(format!("it waits for a runner of queue {queue} with {labels} that has a free slot"));
    RunEvent { note, missing_runner: Some(labels), ..event }
}
