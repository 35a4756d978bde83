//! Keeps the lease: one thread says that the runner lives, another watches that it was heard. Two, because an
//! append may hang just when the lease runs out. Not here: what a lease means (`board`). Invariant: when the
//! lease less its margin has passed on our own monotonic clock, every attempt is being killed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::id::{QueueName, RunnerId};
use orloj_domain::runner::RunnerHeartbeat;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::health::Component;
use orloj_runtime::log::{AppendError, Appender, Log, NewRecord};

use crate::board::{Board, Phase, Session};
use crate::executor::process::Abort;
use crate::guard::{self, Guard};
use crate::home::Home;

/// How much earlier than the dispatcher the runner ends its lease: a fifth.
pub(crate) fn margin(lease: Duration) -> Duration {
    lease / 5
}

/// What a runner says about itself.
pub(crate) struct Pulse {
    pub(crate) runner: RunnerId,
    pub(crate) queues: Vec<QueueName>,
    /// Of those that do not weigh 1.
    pub(crate) weights: BTreeMap<String, i32>,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) slots: usize,
    pub(crate) lease: Duration,
    /// Host name and process id.
    pub(crate) host: String,
    pub(crate) health: Option<Component>,
    /// Stands in for a runner that can't end its attempts.
    pub(crate) guard: Guard,
    /// Tells the next runner what to end if the guard can't either.
    pub(crate) home: Option<Home>,
}

impl Pulse {
    fn record(&self, board: &Board, session: &Session, sequence: i64, is_draining: bool) -> NewRecord {
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let heartbeat = RunnerHeartbeat {
            runner: self.runner.clone(),
            session: session.id.clone(),
            sequence,
            at: board.clock.now(),
            since: session.since,
            lease_ms: i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX),
            queues: self.queues.clone(),
            slots: count(self.slots),
            busy: count(board.busy()),
            is_draining,
            host: self.host.clone(),
            queue_weights: self.weights.clone(),
            labels: self.labels.clone(),
        };
        NewRecord::new(topic::RUNNER_HEARTBEATS, 0, self.runner.as_str(), Some(codec::encode(&heartbeat)))
    }

    /// Sends heartbeats until the runner ends.
    pub(crate) fn beat(&self, board: &Board, log: &dyn Log) {
        let interval = self.lease / 3;
        let mut appender = None;
        let (mut session, mut sequence) = (board.session(), 0);
        loop {
            let phase = board.phase();
            if phase == Phase::Ending {
                return;
            }
            if board.session().id != session.id {
                (session, sequence) = (board.session(), 0);
            }
            let sent_at = board.clock.monotonic();
            let is_draining = phase == Phase::Draining;
            let record = self.record(board, &session, sequence + 1, is_draining);
            let next = match append(&mut appender, log, record) {
                Ok(()) => {
                    sequence += 1;
                    // First of all: nothing is claimed before it is watched over.
                    self.tell_guard(board, &session, sent_at);
                    board.confirm(&session, sent_at);
                    self.report(None);
                    sent_at + interval
                }
                Err(error) => {
                    tracing::warn!(%error, session = %session.id, "a heartbeat was not confirmed");
                    self.report(Some(&error.to_string()));
                    appender = None;
                    board.clock.monotonic() + interval / 5
                }
            };
            let current = session.id.clone();
            loop {
                let left = next.saturating_sub(board.clock.monotonic());
                let is_over = |now: &Session, reached: Phase| left.is_zero() || now.id != current || reached != phase;
                board.wait_lease(left, is_over);
                if is_over(&board.session(), board.phase()) || next <= board.clock.monotonic() {
                    break;
                }
            }
        }
    }

    /// The guard comes after the runner, which has half of the margin to end its attempts in order.
    fn tell_guard(&self, board: &Board, session: &Session, sent_at: Duration) {
        if let Some(home) = &self.home {
            home.note(session.id.as_str());
        }
        let asked_at = guard::now();
        let until = sent_at + self.lease - margin(self.lease) / 2;
        let left = until.saturating_sub(board.clock.monotonic());
        if !left.is_zero() {
            self.guard.tell(session.id.as_str(), asked_at, left);
        }
    }

    fn report(&self, problem: Option<&str>) {
        match (&self.health, problem) {
            (Some(health), None) => health.ready(),
            (Some(health), Some(problem)) => health.not_ready(problem),
            (None, _) => {}
        }
    }

    /// Ends the session as soon as it was not confirmed for too long; until the runner ends.
    pub(crate) fn watch(&self, board: &Board) {
        let grace = margin(self.lease) / 3;
        while board.phase() != Phase::Ending {
            let session = board.session();
            let until = session.live_until();
            let left = until.saturating_sub(board.clock.monotonic());
            if !until.is_zero() && left.is_zero() {
                let reason = "the runner could not confirm its lease in time".to_owned();
                board.lose(&session, &Abort { kind: OutcomeKind::Aborted, reason, grace });
                continue;
            }
            let patience = if until.is_zero() { self.lease } else { left };
            board.wait_lease(patience, |now, phase| phase == Phase::Ending || now.live_until() != until);
        }
    }
}

fn append(appender: &mut Option<Box<dyn Appender>>, log: &dyn Log, record: NewRecord) -> Result<(), AppendError> {
    let appender = match appender {
        Some(appender) => appender,
        None => appender.insert(log.appender().map_err(|error| AppendError::Retriable(error.to_string()))?),
    };
    appender.append(vec![record]).map(|_| ())
}

/// Starts both threads.
pub(crate) fn start(pulse: Pulse, board: &Arc<Board>, log: &Arc<dyn Log>) -> std::io::Result<()> {
    let pulse = Arc::new(pulse);
    let (beating, on, counted, log) = (Arc::clone(&pulse), Arc::clone(board), board.thread(), Arc::clone(log));
    std::thread::Builder::new().name("runner-beat".into()).spawn(move || {
        let _counted = counted;
        beating.beat(&on, &*log);
    })?;
    let (on, counted) = (Arc::clone(board), board.thread());
    std::thread::Builder::new().name("runner-lease".into()).spawn(move || {
        let _counted = counted;
        pulse.watch(&on);
    })?;
    Ok(())
}
