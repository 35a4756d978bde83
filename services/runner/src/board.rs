//! What the runner's threads share: slots, the session in force, the phase, the attempts in flight. Not here:
//! what they do about it. Invariant: a session that was lost stays lost, whatever is confirmed later, and
//! nothing is claimed under a session that was not confirmed in time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orloj_domain::id::SessionId;
use orloj_domain::time::Timestamp;
use orloj_runtime::clock::Clock;
use orloj_runtime::log::Waker;

use crate::config::RunnerError;
use crate::executor::process::Abort;
use crate::flight::{AttemptKey, Entered, Flights, Word};
use crate::metrics::RunnerMetrics;
use crate::shares::Shares;

/// One life of a lease.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its id.
    pub(crate) id: SessionId,
    /// When it began, by the wall clock.
    pub(crate) since: Timestamp,
    /// On the monotonic clock, in nanoseconds: live before this. 0: not confirmed yet.
    live_until: AtomicU64,
    is_lost: AtomicBool,
}

impl Session {
    pub(crate) fn new(since: Timestamp) -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        // A UUID follows the rule of the id; were it not so, no session could exist at all.
        let id = SessionId::new(&id).expect("a UUID is a session id");
        Self { id, since, live_until: AtomicU64::new(0), is_lost: AtomicBool::new(false) }
    }

    /// True while attempts may run under it.
    pub(crate) fn is_live(&self, now: Duration) -> bool {
        !self.is_lost.load(Ordering::SeqCst) && now < self.live_until()
    }

    /// Until when it is live; zero if it was never confirmed.
    pub(crate) fn live_until(&self) -> Duration {
        Duration::from_nanos(self.live_until.load(Ordering::SeqCst))
    }

    /// Extends it, unless it is over.
    fn confirm(&self, now: Duration, until: Duration) {
        if self.live_until().is_zero() || self.is_live(now) {
            self.live_until.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }
}

/// How far the runner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It takes attempts.
    Claiming,
    /// It takes no more and waits for those it has.
    Draining,
    /// All attempts have ended, or time is up.
    Ending,
}

/// Attempts that a queue has at hand before there are slots for them, where several queues share the slots: who has none at
/// hand has no part in them. Twice the slots, as slots become free while attempts are being claimed.
const AT_HAND_MAX: usize = 256;

/// For so long after its turn slots are kept for a queue that is claiming, so that short claims don't cost it its part. One that
/// takes longer waits for a broker, and the others go on without it.
const KEPT_FOR: Duration = Duration::from_millis(250);

/// So long after a claim the next one waits for more slots, while less than [`COMPANY_PART`] of all are free: short runs free them one
/// by one, and what a claim costs a broker hardly depends on how many runs it takes.
const COMPANY_WAIT: Duration = Duration::from_millis(40);
const COMPANY_PART: usize = 8;

/// What a claimer may do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Look for so many attempts.
    Look(usize),
    /// Claim so many of those at hand.
    Claim(usize),
    /// Nothing now: only show the group that it is alive.
    Wait,
    /// End.
    Stop,
}

struct State {
    phase: Phase,
    busy: usize,
    session: Arc<Session>,
    threads: usize,
    claimers: usize,
    wakers: Vec<Waker>,
    flights: Flights,
    failure: Option<RunnerError>,
    shares: Shares,
    /// Of each queue whose turn it is: until when slots are kept for it, on the monotonic clock.
    turns: Vec<Option<Duration>>,
    /// Of each queue: when it was its turn last.
    claimed_at: Vec<Option<Duration>>,
}

/// What the runner's threads share.
pub(crate) struct Board {
    state: Mutex<State>,
    /// For who waits for a slot, a live session, or the end of attempts.
    slots_changed: Condvar,
    /// For who keeps the lease, and for pauses.
    lease_changed: Condvar,
    slots: usize,
    live_for: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: RunnerMetrics,
}

impl Board {
    /// `live_for` is how long a confirmed heartbeat keeps a session live: lease less margin. `weights` are those of the
    /// queues, in their order.
    pub(crate) fn new(
        slots: usize,
        weights: &[u16],
        live_for: Duration,
        clock: Arc<dyn Clock>,
        metrics: RunnerMetrics,
    ) -> Self {
        let state = State {
            phase: Phase::Claiming,
            busy: 0,
            session: Arc::new(Session::new(clock.now())),
            threads: 0,
            claimers: 0,
            wakers: Vec::new(),
            flights: Flights::default(),
            failure: None,
            shares: Shares::new(weights),
            turns: vec![None; weights.len()],
            claimed_at: vec![None; weights.len()],
        };
        let (slots_changed, lease_changed) = (Condvar::new(), Condvar::new());
        Self { state: Mutex::new(state), slots_changed, lease_changed, slots, live_for, clock, metrics }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the runner is.
    pub(crate) fn phase(&self) -> Phase {
        self.lock().phase
    }

    /// Attempts held.
    pub(crate) fn busy(&self) -> usize {
        self.lock().busy
    }

    /// Goes on to a later phase; going back is not possible.
    pub(crate) fn advance(&self, phase: Phase) {
        let mut state = self.lock();
        state.phase = state.phase.max(phase);
        let wakers = state.wakers.clone();
        drop(state);
        self.slots_changed.notify_all();
        self.lease_changed.notify_all();
        for waker in wakers {
            waker.wake();
        }
    }

    /// Ends the runner because of something only a person can mend; the first failure counts.
    pub(crate) fn fail(&self, failure: RunnerError) {
        self.lock().failure.get_or_insert(failure);
        self.advance(Phase::Draining);
    }

    /// The failure that ended the runner, if any.
    pub(crate) fn take_failure(&self) -> Option<RunnerError> {
        self.lock().failure.take()
    }

    /// Wakes `waker` when the phase changes.
    pub(crate) fn on_phase(&self, waker: Waker) {
        self.lock().wakers.push(waker);
    }

    /// Waits until the claimer of a queue may do something, at most `patience`, whatever it is woken for meanwhile. It has so
    /// many attempts `at_hand`.
    pub(crate) fn wait_turn(&self, lane: usize, at_hand: usize, patience: Duration) -> Turn {
        let deadline = self.clock.monotonic() + patience;
        let mut state = self.lock();
        state.turns[lane] = None;
        loop {
            if state.phase != Phase::Claiming {
                return Turn::Stop;
            }
            let now = self.clock.monotonic();
            let alone = self.alone(&state, lane, now);
            if state.session.is_live(now) && alone.is_none() {
                state.shares.want(lane, at_hand);
                self.share_out(&mut state);
                let (granted, wanted) = (state.shares.granted_to(lane), self.wanted(&state));
                match (granted, at_hand, wanted) {
                    (1.., _, _) => {
                        state.turns[lane] = Some(now + KEPT_FOR);
                        state.claimed_at[lane] = Some(now);
                        return Turn::Claim(granted);
                    }
                    (0, 0, 1..) => return Turn::Look(wanted),
                    (0, _, _) => {}
                }
            }
            let left = deadline.saturating_sub(now);
            if left.is_zero() {
                return Turn::Wait;
            }
            // What is kept for another queue is free when that takes too long, and nobody would say so.
            let kept =
                state.turns.iter().flatten().map(|until| until.saturating_sub(now)).filter(|kept| !kept.is_zero());
            let at_most = kept.chain(alone).min().map_or(left, |soonest| soonest.min(left));
            state = self.slots_changed.wait_timeout(state, at_most).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// How long a queue waits for more slots, if it does.
    fn alone(&self, state: &State, lane: usize, now: Duration) -> Option<Duration> {
        let is_few = self.slots.saturating_sub(state.busy) < self.slots / COMPANY_PART;
        let left = (state.claimed_at[lane]? + COMPANY_WAIT).saturating_sub(now);
        (is_few && !left.is_zero()).then_some(left)
    }

    /// How many more attempts than `at_hand` a queue should have at hand.
    pub(crate) fn missing(&self, at_hand: usize) -> usize {
        let state = self.lock();
        if state.shares.has_rivals() { self.wanted(&state).saturating_sub(at_hand) } else { 0 }
    }

    /// How many attempts a queue looks for that has none.
    fn wanted(&self, state: &State) -> usize {
        let free = self.slots.saturating_sub(state.busy);
        if state.shares.has_rivals() { free.max((self.slots * 2).min(AT_HAND_MAX)) } else { free }
    }

    /// A queue is not served for a while: what is kept for it is for others.
    pub(crate) fn give_back(&self, lane: usize) {
        let mut state = self.lock();
        state.turns[lane] = None;
        state.shares.want(lane, 0);
        self.share_out(&mut state);
    }

    /// Keeps what is free for the queues whose turn it is.
    fn share_out(&self, state: &mut State) {
        let now = self.clock.monotonic();
        for (lane, turn) in state.turns.iter().enumerate() {
            if turn.is_some_and(|until| until <= now) {
                state.shares.send_away(lane);
            }
        }
        let free = self.slots.saturating_sub(state.busy + state.shares.granted());
        if state.shares.share(free) > 0 {
            self.slots_changed.notify_all();
        }
    }

    /// Takes at most `wanted` of the slots kept for a queue under the session in force; none if it is not live.
    pub(crate) fn take_slots(self: &Arc<Self>, lane: usize, wanted: usize) -> (Arc<Session>, Vec<Slot>) {
        let mut state = self.lock();
        let session = Arc::clone(&state.session);
        let is_open = state.phase == Phase::Claiming && session.is_live(self.clock.monotonic());
        let count = if is_open { state.shares.take(lane, wanted) } else { 0 };
        state.busy += count;
        self.metrics.busy.set(i64::try_from(state.busy).unwrap_or(i64::MAX));
        (session, (0..count).map(|_| Slot(Arc::clone(self))).collect())
    }

    /// The claim for which a queue took slots has ended; those of one that was not made are not charged.
    pub(crate) fn settle(&self, lane: usize, is_claimed: bool) {
        self.lock().shares.settle(lane, is_claimed);
    }

    /// The session in force, live or not.
    pub(crate) fn session(&self) -> Arc<Session> {
        Arc::clone(&self.lock().session)
    }

    /// A heartbeat of `session` that was sent at `sent_at` is in the log.
    pub(crate) fn confirm(&self, session: &Session, sent_at: Duration) {
        let _state = self.lock();
        // From when it was sent: the dispatcher can't have seen it earlier.
        session.confirm(self.clock.monotonic(), sent_at + self.live_for);
        self.slots_changed.notify_all();
        self.lease_changed.notify_all();
    }

    /// Ends a session for good and begins the next; its attempts are stopped.
    pub(crate) fn lose(&self, session: &Session, abort: &Abort) {
        let mut state = self.lock();
        if session.is_lost.swap(true, Ordering::SeqCst) {
            return;
        }
        self.metrics.leases_lost.inc();
        if state.session.id == session.id {
            state.session = Arc::new(Session::new(self.clock.now()));
        }
        let attempts = state.flights.stop_session(&session.id, abort);
        tracing::warn!(session = %session.id, attempts, reason = abort.reason, "the lease is lost");
        drop(state);
        self.lease_changed.notify_all();
        self.slots_changed.notify_all();
    }

    /// Stops all attempts, those entered from now on too.
    pub(crate) fn abort_all(&self, abort: &Abort) {
        self.lock().flights.stop_all(abort);
    }

    /// A word for one attempt of a session has come.
    pub(crate) fn hear(&self, session: &SessionId, key: AttemptKey, word: Word) {
        let mut state = self.lock();
        // What was said to an earlier session of ours is about attempts that it has stopped by itself.
        let is_of_use = matches!(word, Word::Stop(_)) || state.session.is_live(self.clock.monotonic());
        if state.session.id == *session && is_of_use {
            state.flights.hear(key, word);
        }
    }

    /// Enters an attempt in flight.
    pub(crate) fn enter(&self, session: &Arc<Session>, key: AttemptKey) -> Entered {
        self.lock().flights.enter(session, key)
    }

    /// Takes an attempt off the list.
    pub(crate) fn leave(&self, number: u64) {
        self.lock().flights.leave(number);
    }

    /// Waits for a change of lease or phase, at most `patience`, unless `is_over` holds already.
    pub(crate) fn wait_lease(&self, patience: Duration, is_over: impl Fn(&Session, Phase) -> bool) {
        let state = self.lock();
        if !is_over(&state.session, state.phase) {
            drop(self.lease_changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Waits for `pause`, or less if the phase goes on to `until`.
    pub(crate) fn pause(&self, pause: Duration, until: Phase) {
        let deadline = self.clock.monotonic() + pause;
        let mut state = self.lock();
        while state.phase < until {
            let left = deadline.saturating_sub(self.clock.monotonic());
            let (woken, waited) = self.lease_changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            if waited.timed_out() {
                return;
            }
            state = woken;
        }
    }

    /// Waits until a shutdown was asked or something failed.
    pub(crate) fn wait_draining(&self) {
        let mut state = self.lock();
        while state.phase == Phase::Claiming {
            state = self.slots_changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until no attempt is held and none can be claimed, at most `patience`. True if so.
    pub(crate) fn wait_idle(&self, patience: Duration) -> bool {
        let is_busy = |state: &mut State| state.busy > 0 || state.claimers > 0;
        let (state, _) = self
            .slots_changed
            .wait_timeout_while(self.lock(), patience, is_busy)
            .unwrap_or_else(PoisonError::into_inner);
        state.busy == 0 && state.claimers == 0
    }

    /// Waits until all threads ended, at most `patience`.
    pub(crate) fn wait_threads(&self, patience: Duration) -> bool {
        let (state, _) = self
            .slots_changed
            .wait_timeout_while(self.lock(), patience, |state| state.threads > 0)
            .unwrap_or_else(PoisonError::into_inner);
        state.threads == 0
    }

    /// Counts a thread that can claim, until what is returned is dropped.
    pub(crate) fn claimer(self: &Arc<Self>) -> Counted {
        self.lock().claimers += 1;
        Counted { board: Arc::clone(self), is_claimer: true }
    }

    /// Counts a thread until what is returned is dropped.
    pub(crate) fn thread(self: &Arc<Self>) -> Counted {
        self.lock().threads += 1;
        Counted { board: Arc::clone(self), is_claimer: false }
    }
}

/// One slot; free again when dropped.
pub(crate) struct Slot(Arc<Board>);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy = state.busy.saturating_sub(1);
        self.0.metrics.busy.set(i64::try_from(state.busy).unwrap_or(i64::MAX));
        self.0.share_out(&mut state);
        drop(state);
        self.0.slots_changed.notify_all();
    }
}

/// A thread on the board.
pub(crate) struct Counted {
    board: Arc<Board>,
    is_claimer: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut state = self.board.lock();
        let count = if self.is_claimer { &mut state.claimers } else { &mut state.threads };
        *count = count.saturating_sub(1);
        drop(state);
        self.board.slots_changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
