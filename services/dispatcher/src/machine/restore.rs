//! The machine from its state topics. Invariant: the order in which the three topics are read does not matter.
//!
//! A run moves between topics by one atomic batch {copy in the new topic, tombstone in the old}. Should a fault
//! of the log tear one apart, two topics hold a copy: the one with the larger (attempt, token, progress) is the
//! later one and counts, because each move makes that triple grow, and a dead one is later than any. The other is
//! kept in mind, and the run's next step or end writes the tombstone that was lost.

use orloj_domain::id::{LimitId, RunId};
use orloj_domain::limit::{Breaker, Claim, Waiter};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;

use super::DispatcherMachine;
use crate::event::Order;
use crate::run::{DeadRun, Run};

impl DispatcherMachine {
    /// Takes the copy that a state topic holds of a run.
    pub fn restore(&mut self, copy: Run) {
        let id = copy.request.run_id;
        let topic = copy.topic();
        if topic == topic::RUN_STATE {
            self.dead.take(id);
        }
        let mut copies = self.take_copies(id);
        copies.retain(|other| other.topic() != topic);
        copies.push(copy);
        self.put_copies(id, copies);
    }

    /// Takes what `run.state` keeps of a dead run.
    pub fn restore_dead(&mut self, dead: DeadRun) {
        let id = dead.request.run_id;
        self.restore_removal(topic::RUN_STATE, id);
        self.dead.put(dead);
        let copies = self.take_copies(id);
        self.put_copies(id, copies);
    }

    /// Takes a tombstone: a state topic holds no copy of a run any longer.
    pub fn restore_removal(&mut self, topic: &str, id: RunId) {
        if topic == topic::RUN_STATE {
            self.dead.take(id);
        }
        let mut copies = self.take_copies(id);
        copies.retain(|other| other.topic() != topic);
        self.put_copies(id, copies);
    }

    /// Takes what `run.state` keeps of a cancel that came before its run, since `at`.
    pub fn restore_cancel(&mut self, order: &Order, at: Timestamp) {
        self.cancels.put(order, at);
    }

    /// Takes a tombstone: the cancel is kept no longer.
    pub fn restore_cancel_dropped(&mut self, run: RunId) {
        self.cancels.take(run);
    }

    /// Takes what `run.state` keeps of a run that waits for a limit of this shard.
    pub fn restore_waiter(&mut self, limit: &LimitId, waiter: &Waiter) {
        // A later word on the same claim replaces the one before.
        self.gates.give_back(limit, waiter.claim);
        self.gates.join(limit, waiter);
    }

    /// Takes what `run.state` keeps of a run that holds a limit of this shard, since `at`.
    pub fn restore_holder(&mut self, limit: &LimitId, waiter: &Waiter, at: Timestamp) {
        self.gates.grant(limit, waiter, at, 0);
    }

    /// Takes what `run.state` keeps of a limit's rate: used at an instant, up to then, in nanoseconds since the Unix epoch.
    pub fn restore_rate(&mut self, limit: &LimitId, used_until_nanos: i64, at: Timestamp) {
        self.gates.use_until(limit, used_until_nanos, at);
    }

    /// Takes what `run.state` keeps of a limit's breaker.
    pub fn restore_breaker(&mut self, limit: &LimitId, breaker: &Breaker) {
        self.gates.turn(limit, breaker);
    }

    /// Takes a tombstone: the claim neither waits nor holds.
    pub fn restore_given_back(&mut self, limit: &LimitId, claim: Claim) {
        self.gates.give_back(limit, claim);
    }

    fn take_copies(&mut self, id: RunId) -> Vec<Run> {
        let mut copies = self.older_copies.remove(&id).unwrap_or_default();
        copies.extend(self.take(id));
        copies
    }

    fn put_copies(&mut self, id: RunId, mut copies: Vec<Run>) {
        copies.sort_by_key(Run::rank);
        if self.dead.get(id).is_none() {
            let Some(newest) = copies.pop() else { return };
            self.put(&newest);
        }
        if !copies.is_empty() {
            self.older_copies.insert(id, copies);
        }
    }
}
