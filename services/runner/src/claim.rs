//! Takes ready attempts of one queue: one atomic claim, and only then execution. Not here: executing
//! (`attempt`), slots and sessions (`board`). Invariant: what was taken is either claimed or dropped, and what
//! was claimed is executed or reported as ended; a ready record that can't be read is kept in quarantine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::{AttemptEventType, OutcomeKind, ReadyAttempt};
use orloj_domain::fire::FireDecision;
use orloj_domain::id::QueueName;
use orloj_domain::owner::BARRIER_KEY;
use orloj_domain::runner::RunnerHeartbeat;
use orloj_domain::topic;
use orloj_runtime::claimers;
use orloj_runtime::codec;
use orloj_runtime::driver::{Undecodable, quarantined};
use orloj_runtime::log::{
    AppendError, Appender, Claimer, ClaimerPoll, ClaimerSpec, LogError, NewRecord, Record, TopicPartition,
};
use orloj_runtime::topics;

use crate::attempt::{Assignment, Work, report};
use crate::board::{Board, Counted, Phase, Session, Slot, Turn};
use crate::config::RunnerError;
use crate::executor::process::{Abort, GRACE};
use crate::offers::Offer;
use crate::peers::QueuePeers;
use crate::shared::Shared;

/// Longest wait for records; a waker ends it earlier.
const POLL_WAIT: Duration = Duration::from_secs(5);
/// With no free slot: how often the group is shown that this member lives. Well below any session.
const SIGN_OF_LIFE: Duration = Duration::from_secs(2);
/// How soon a queue that is paused no longer is noticed.
const PAUSED_WAIT: Duration = Duration::from_millis(200);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LONGEST: Duration = Duration::from_secs(5);

/// A ready record, read.
enum Candidate {
    /// An attempt, and what it runs or why it can't.
    Attempt(ReadyAttempt, Result<Box<Work>, Undecodable>),
    /// Not even that.
    Broken(Undecodable),
}

fn read(record: &Record) -> Candidate {
    let value = record.value.as_deref().unwrap_or_default();
    let ready = match codec::decode::<ReadyAttempt>(value) {
        Ok(ready) if record.key_text() == Some(ready.run_id.to_string().as_str()) => ready,
        Ok(ready) => {
            let message = format!("the key is not the run id {}", ready.run_id);
            return Candidate::Broken(Undecodable::new("key", record.key_text().unwrap_or_default(), message));
        }
        Err(error) => return Candidate::Broken(Undecodable::new("value", "", error.to_string())),
    };
    let work = work_of(&ready);
    Candidate::Attempt(ready, work)
}

/// What an attempt runs, or why that is not known.
pub(crate) fn work_of(ready: &ReadyAttempt) -> Result<Box<Work>, Undecodable> {
    match codec::decode::<FireDecision>(&ready.request) {
        Ok(FireDecision { spec: Some(spec), fire_time, params, .. }) => Ok(Box::new(Work { spec, fire_time, params })),
        Ok(_) => Err(Undecodable::new("request.spec", "", "the request does not say what to run")),
        Err(error) => Err(Undecodable::new("request", "", error.to_string())),
    }
}

/// Claims attempts of one queue.
pub(crate) struct QueueClaimer {
    shared: Arc<Shared>,
    queue: QueueName,
    /// Its place among the queues of this runner.
    lane: usize,
    pending: VecDeque<Record>,
    pause: Duration,
    /// What offers are claimed with, opened when the first comes.
    appender: Option<Box<dyn Appender>>,
    /// Who gets the odd slot next, where both offers and the queue's own want it.
    is_offers_turn: bool,
}

/// Starts the thread of a queue; `lane` is its place among the queues of this runner.
pub(crate) fn start(shared: &Arc<Shared>, lane: usize, queue: QueueName) -> std::io::Result<()> {
    let (counted, can_claim) = (shared.board.thread(), shared.board.claimer());
    let (shared, pending) = (Arc::clone(shared), VecDeque::new());
    let (appender, is_offers_turn) = (None, true);
    let mut claimer = QueueClaimer { shared, queue, lane, pending, pause: PAUSE_FIRST, appender, is_offers_turn };
    std::thread::Builder::new().name("runner-claim".into()).spawn(move || {
        let _counted = counted;
        claimer.run(can_claim);
    })?;
    Ok(())
}

impl QueueClaimer {
    fn board(&self) -> &Arc<Board> {
        &self.shared.board
    }

    /// Until the runner drains. `can_claim` is given up before the group is left, which may take a while.
    fn run(&mut self, can_claim: Counted) {
        let mut joined = None;
        while self.board().phase() == Phase::Claiming {
            let claimer = match &mut joined {
                Some(claimer) => claimer,
                None => match self.join() {
                    Ok(claimer) => joined.insert(claimer),
                    Err(error) => {
                        self.trouble(error);
                        continue;
                    }
                },
            };
            match self.work(&mut **claimer) {
                Ok(()) => {}
                Err(RunnerError::Log(error)) => {
                    self.pending.clear();
                    if let Some(claimer) = joined.take() {
                        claimer.leave();
                    }
                    self.trouble(error);
                }
                Err(error) => self.board().fail(error),
            }
        }
        drop(can_claim);
        if let Some(claimer) = joined {
            claimer.leave();
        }
    }

    fn join(&self) -> Result<Box<dyn Claimer>, LogError> {
        self.make_topic()?;
        let claimer = self.shared.log.claim(ClaimerSpec {
            group: claimers::group(&self.queue),
            topics: vec![topic::run_ready(&self.queue)],
            member: RunnerHeartbeat::claimer(&self.shared.runner, &self.shared.host_name),
            peers: Some(Arc::new(QueuePeers {
                log: Arc::clone(&self.shared.log),
                clock: Arc::clone(&self.board().clock),
            })),
        })?;
        self.board().on_phase(claimer.waker());
        self.shared.offers.on_offer(self.lane, claimer.waker());
        Ok(claimer)
    }

    /// Makes the queue's topic if no run has made it yet, so that the first one is not waited for by a member
    /// that the group knows without partitions.
    fn make_topic(&self) -> Result<(), LogError> {
        let name = topic::run_ready(&self.queue);
        if self.shared.log.topics()?.iter().any(|spec| spec.name == name) {
            return Ok(());
        }
        let spec = topics::queue_topic(&name, self.shared.shards.get());
        let spec = spec.ok_or_else(|| LogError::Misconfigured(format!("`{name}` is declared nowhere")))?;
        self.shared.log.create_topic(&spec)
    }

    /// Waits a little, or ends the runner if waiting can't help.
    fn trouble(&mut self, error: LogError) {
        let is_final = match &error {
            LogError::Misconfigured(_) => true,
            LogError::NoSuchTopic(_)
            | LogError::Unavailable(_)
            | LogError::OutOfRange { .. }
            | LogError::Lost(_)
            | LogError::Busy(_) => false,
        };
        if is_final {
            self.board().fail(RunnerError::Log(error));
            return;
        }
        tracing::warn!(queue = %self.queue, %error, "the queue can't be read");
        self.wait();
    }

    fn wait(&mut self) {
        self.board().give_back(self.lane);
        self.board().pause(self.pause, Phase::Draining);
        self.pause = (self.pause * 2).min(PAUSE_LONGEST);
    }

    /// One turn: looks for records, or claims as many of those at hand as there are slots for this queue.
    fn work(&mut self, claimer: &mut dyn Claimer) -> Result<(), RunnerError> {
        if self.shared.paused.contains(&self.queue) {
            self.board().give_back(self.lane);
            self.board().pause(PAUSED_WAIT, Phase::Draining);
            return self.poll(claimer, 0, Duration::ZERO);
        }
        let offered = self.shared.offers.at_hand(self.lane);
        match self.board().wait_turn(self.lane, self.pending.len() + offered, SIGN_OF_LIFE) {
            Turn::Stop => Ok(()),
            Turn::Wait => self.poll(claimer, 0, Duration::ZERO),
            Turn::Look(count) => self.poll(claimer, count, POLL_WAIT),
            Turn::Claim(count) => {
                // So that it goes on having a part in the slots while it is busy claiming.
                let missing = self.board().missing(self.pending.len());
                // What is offered must not keep the queue's own from being looked at.
                let missing = if self.pending.is_empty() { missing.max(count) } else { missing };
                if missing > 0 {
                    self.poll(claimer, missing, Duration::ZERO)?;
                }
                let of_offers = self.share_of_offers(count, offered);
                let are_claimed = self.claim_offers(of_offers)?;
                // The one goes on where the other can't.
                self.claim(claimer, count - of_offers)?;
                if !are_claimed {
                    self.wait();
                }
                Ok(())
            }
        }
    }

    /// How many of `count` slots offers get: half, where both they and the queue's own attempts could use all of them.
    fn share_of_offers(&mut self, count: usize, offered: usize) -> usize {
        let half = (count + usize::from(self.is_offers_turn)) / 2;
        self.is_offers_turn ^= count % 2 == 1 && offered > 0 && !self.pending.is_empty();
        offered.min(half.max(count.saturating_sub(self.pending.len())))
    }

    /// Claims attempts that were offered to this runner, at most `count`. There is nothing to consume, and all of them wait for the
    /// dispatcher's word: each claim is a record by itself, and one that is made twice is the same claim. False if the log did not
    /// take them.
    fn claim_offers(&mut self, count: usize) -> Result<bool, RunnerError> {
        if count == 0 {
            return Ok(true);
        }
        let (session, mut slots) = self.board().take_slots(self.lane, count);
        let mut offers = self.shared.offers.take(self.lane, &session.id, slots.len());
        slots.truncate(offers.len());
        if offers.is_empty() {
            self.board().settle(self.lane, false);
            return Ok(true);
        }
        let claims = offers.iter().map(|offer| self.claimed(&offer.ready, &session)).collect();
        let outcome = self.append(claims);
        self.board().settle(self.lane, outcome.is_ok());
        let Err(error) = outcome else {
            self.pause = PAUSE_FIRST;
            self.board().metrics.claims.inc();
            for (Offer { ready, work, .. }, slot) in offers.into_iter().zip(slots) {
                self.spawn(Assignment { ready, work, session: Arc::clone(&session), slot });
            }
            return Ok(true);
        };
        tracing::warn!(queue = %self.queue, %error, "a claim of what was offered was not taken");
        self.appender = None;
        drop(slots);
        if let AppendError::TooLarge { .. } | AppendError::NoSuchTopic(_) = &error {
            return Err(RunnerError::Claim(error));
        }
        // Some of them may stand in the log: they are claimed again until that is certain, or the session is over.
        offers.iter_mut().for_each(|offer| offer.is_doubtful = true);
        self.shared.offers.put_back(self.lane, offers);
        Ok(false)
    }

    fn append(&mut self, records: Vec<NewRecord>) -> Result<(), AppendError> {
        let appender = match &mut self.appender {
            Some(appender) => appender,
            None => {
                let opened = self.shared.log.appender().map_err(|error| AppendError::Retriable(error.to_string()))?;
                self.appender.insert(opened)
            }
        };
        appender.append(records).map(drop)
    }

    fn claimed(&self, ready: &ReadyAttempt, session: &Session) -> NewRecord {
        report(&self.shared, ready, session, AttemptEventType::Claimed, |event| {
            event.lease_ms = i64::try_from(self.shared.lease.as_millis()).ok();
        })
    }

    fn spawn(&self, assignment: Assignment) {
        self.shared.executor.spawn(assignment.run(Arc::clone(&self.shared)));
    }

    fn poll(&mut self, claimer: &mut dyn Claimer, max: usize, timeout: Duration) -> Result<(), RunnerError> {
        match claimer.poll(max, timeout)? {
            // Marks of owners are no attempts; the next claim passes them.
            ClaimerPoll::Records(records) => {
                let is_mark = |record: &Record| record.key.as_deref() == Some(BARRIER_KEY.as_bytes());
                self.pending.extend(records.into_iter().filter(|record| !is_mark(record)));
            }
            ClaimerPoll::Rebalanced => self.pending.clear(),
        }
        Ok(())
    }

    /// Claims as many of the records at hand as there are slots for them, at most `count`, in one batch.
    fn claim(&mut self, claimer: &mut dyn Claimer, count: usize) -> Result<(), RunnerError> {
        let (session, slots) = self.board().take_slots(self.lane, count.min(self.pending.len()));
        let taken: Vec<Record> = self.pending.drain(..slots.len()).collect();
        if taken.is_empty() {
            return Ok(());
        }
        let candidates: Vec<Candidate> = taken.iter().map(read).collect();
        let mut consumed: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        for record in &taken {
            consumed.insert(record.topic_partition(), record.offset + 1);
        }
        let consumed: Vec<_> = consumed.into_iter().collect();
        let mut outcome = claimer.claim(self.events(&taken, &candidates, &session, true), &consumed);
        if let Err(AppendError::TooLarge { .. }) = &outcome {
            // A copy in quarantine is larger than the original by its headers. Where it is, they still tell.
            tracing::error!(queue = %self.queue, "a ready record is too large for quarantine: only its place is kept");
            outcome = claimer.claim(self.events(&taken, &candidates, &session, false), &consumed);
        }
        self.board().settle(self.lane, outcome.is_ok());
        match outcome {
            Ok(_) => {
                self.pause = PAUSE_FIRST;
                self.board().metrics.claims.inc();
                self.execute(candidates, slots, &session);
                Ok(())
            }
            Err(error) => {
                drop(slots);
                self.not_claimed(error, taken, &session)
            }
        }
    }

    fn events(
        &self,
        taken: &[Record],
        candidates: &[Candidate],
        session: &Session,
        keeps_values: bool,
    ) -> Vec<NewRecord> {
        let mut records = Vec::with_capacity(taken.len());
        for (record, candidate) in taken.iter().zip(candidates) {
            let problem = match candidate {
                Candidate::Attempt(_, Ok(_)) => None,
                Candidate::Attempt(_, Err(problem)) | Candidate::Broken(problem) => Some(problem),
            };
            if let Some(problem) = problem {
                tracing::warn!(position = %record.position(), %problem, "a ready record can't be used");
                self.board().metrics.quarantined.inc();
                let mut copy = quarantined(record, problem);
                copy.partition = record.partition % self.shared.quarantine_partitions;
                copy.value = copy.value.filter(|_| keeps_values);
                records.push(copy);
            }
            if let Candidate::Attempt(ready, _) = candidate {
                records.push(self.claimed(ready, session));
            }
        }
        records
    }

    fn execute(&self, candidates: Vec<Candidate>, slots: Vec<Slot>, session: &Arc<Session>) {
        for (candidate, slot) in candidates.into_iter().zip(slots) {
            match candidate {
                Candidate::Broken(_) => drop(slot),
                Candidate::Attempt(ready, work) => {
                    let work = work.map_err(|problem| format!("the request can't be used: {problem}"));
                    self.spawn(Assignment { ready, work, session: Arc::clone(session), slot });
                }
            }
        }
    }

    fn not_claimed(&mut self, error: AppendError, taken: Vec<Record>, session: &Session) -> Result<(), RunnerError> {
        match error {
            AppendError::Refused(reason) => {
                tracing::info!(queue = %self.queue, reason, "a claim was refused: its records go to another member");
                self.board().metrics.claims_refused.inc();
                self.pending.clear();
                self.wait();
                Ok(())
            }
            AppendError::Unknown(reason) => {
                // It may stand in the log under our session, and then nobody runs it: give the session up, so
                // that the dispatcher takes back whatever it holds.
                self.pending.clear();
                let reason = format!("the outcome of a claim is unknown ({reason})");
                self.board().lose(session, &Abort { kind: OutcomeKind::Aborted, reason, grace: GRACE });
                Ok(())
            }
            AppendError::Retriable(_) | AppendError::Stalled(_) | AppendError::Full(_) => {
                tracing::warn!(queue = %self.queue, %error, "a claim was not taken");
                for record in taken.into_iter().rev() {
                    self.pending.push_front(record);
                }
                self.wait();
                Ok(())
            }
            AppendError::TooLarge { .. } | AppendError::NoSuchTopic(_) => Err(RunnerError::Claim(error)),
        }
    }
}
