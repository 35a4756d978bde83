//! Bringing new producers in while the incarnation goes on: opened and claimed on a thread of its own, so that no
//! decision waits. Not here: when a producer is retired (`ring`). Invariants: new ids write nothing before a claim
//! that names them, and the retired ones, was committed for every shard held; no takeover and no release runs
//! beside a re-claim.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use orloj_domain::shard::Shard;

use super::member::Membership;
use super::ring::{RING_SIZE, Recipe, Ring};
use super::takeover::{Claim, claim};
use crate::clock::{Clock, SystemClock};
use crate::kafka::transaction::TransactionalProducer;

/// Re-claims are at least this far apart.
const INTERVAL: Duration = Duration::from_secs(10);

/// At most one re-claim under way.
#[derive(Default)]
pub(super) struct Reclaim {
    clock: SystemClock,
    started_at: Option<Duration>,
    running: Option<Receiver<Result<Vec<TransactionalProducer>, String>>>,
}

impl Reclaim {
    /// True if the ring lacks producers and enough time has passed since the last attempt.
    pub(super) fn is_due(&self, ring: &Ring) -> bool {
        let is_early = self.started_at.is_some_and(|at| self.clock.monotonic().saturating_sub(at) < INTERVAL);
        ring.len() < RING_SIZE && self.running.is_none() && !is_early
    }

    /// Starts a re-claim of `shards`.
    pub(super) fn start(
        &mut self,
        recipe: &Recipe,
        ring: &mut Ring,
        record: Claim,
        shards: BTreeSet<Shard>,
        membership: Arc<Membership>,
    ) {
        self.started_at = Some(self.clock.monotonic());
        let new_ids = ring.new_ids();
        let mut record = record;
        record.producer_ids = ring.ids().iter().chain(&new_ids).cloned().collect();
        let (sender, receiver) = bounded(1);
        let recipe = recipe.clone();
        let work = move || {
            let outcome = reclaim(&recipe, &new_ids, &record, &shards, &membership);
            if let Err(unwanted) = sender.send(outcome) {
                drop(unwanted);
            }
        };
        match std::thread::Builder::new().name("re-claim".to_owned()).spawn(work) {
            Ok(_) => self.running = Some(receiver),
            Err(error) => tracing::warn!(%error, "no thread for a re-claim"),
        }
    }

    /// Takes the outcome in, waiting for it at most `timeout`. After that the new ids are given up for good: they
    /// have written nothing but their own claim, and never will.
    pub(super) fn settle(&mut self, ring: &mut Ring, timeout: Duration, is_giving_up: bool) {
        let Some(running) = &self.running else { return };
        match running.recv_timeout(timeout) {
            Ok(Ok(producers)) => {
                tracing::info!(producers = producers.len(), "claimed again with new producers");
                for producer in producers {
                    ring.add(producer);
                }
                self.running = None;
            }
            Ok(Err(reason)) => {
                tracing::warn!(reason, "could not claim again; the producers that are left go on");
                self.running = None;
            }
            Err(RecvTimeoutError::Timeout) if !is_giving_up => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => self.running = None,
        }
    }

    /// Forgets what is under way: the incarnation is gone.
    pub(super) fn forget(&mut self) {
        self.running = None;
    }
}

fn reclaim(
    recipe: &Recipe,
    ids: &[String],
    record: &Claim,
    shards: &BTreeSet<Shard>,
    membership: &Membership,
) -> Result<Vec<TransactionalProducer>, String> {
    let mut opened = Vec::new();
    for answer in recipe.open(ids).iter().take(ids.len()) {
        opened.push(answer.map_err(|error| error.to_string())?);
    }
    let Some(first) = opened.first_mut() else { return Ok(opened) };
    let claimed = claim(first, &recipe.config, record, shards, membership);
    first.abort_after(&claimed);
    if let Err(error) = claimed {
        opened.into_iter().for_each(TransactionalProducer::retire);
        return Err(error.to_string());
    }
    Ok(opened)
}
