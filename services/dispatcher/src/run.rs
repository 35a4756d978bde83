//! A live run in memory: its request, which never changes, and the step it is at, with the data of that step.
//! Not here: which step comes next (`machine`), how it stands in the log (`service`), how it is kept (`packed`). Invariant:
//! the token grows with each ready step and the attempt with each retry; nothing else moves them.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::Outcome;
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{CommandId, JobId, QueueName, RunId, RunnerId, SessionId};
use orloj_domain::job::{Delivery, OverlapKind, OverlapPolicy, RetryPolicy, RunSpec, Target};
use orloj_domain::overlap;
use orloj_domain::retry::Disposition;
use orloj_domain::run::{RecordHeader, RunState};
use orloj_domain::time::Timestamp;

use crate::bytes::{Packer, Unpacker};
use crate::difference::{self, Known, Pattern};
use crate::shares::Shares;

/// What the requests of one job and version have in common, as far as the dispatcher looks at it. Shared by its runs.
#[derive(Debug)]
pub struct Terms {
    /// The job; also the key of the request's record.
    pub job: JobId,
    /// The definition version.
    pub version: i64,
    /// The queue.
    pub queue: QueueName,
    /// What a run does while other runs of the job are live.
    pub overlap: OverlapPolicy,
    /// Most live runs of the job, where the policy asks for that.
    pub concurrency: Option<i32>,
    /// How long after it was due a run must have ended.
    pub deadline: Option<Duration>,
    /// When a failed attempt is followed by another.
    pub retry: RetryPolicy,
    /// What a lost attempt means.
    pub delivery: Delivery,
    /// It sends a request or a message, which can't be taken back.
    pub is_request: bool,
    /// The fire time of the request that these terms were taken from.
    pub(crate) base: Timestamp,
    /// Headers of that request.
    headers: Vec<u8>,
    /// Value of that request.
    value: Pattern,
}

impl Terms {
    fn of(decision: &FireDecision, spec: &RunSpec, headers: Vec<u8>, value: Pattern) -> Self {
        Self {
            job: decision.job.clone(),
            version: decision.version,
            queue: spec.queue.clone(),
            overlap: spec.overlap.clone(),
            concurrency: spec.concurrency,
            deadline: spec.deadline_ms.map(millis),
            retry: spec.retry.clone(),
            delivery: spec.delivery,
            is_request: is_request(&spec.target),
            base: decision.fire_time,
            headers,
            value,
        }
    }

    /// True if a decision asks under the same terms.
    pub(crate) fn are_of(&self, decision: &FireDecision, spec: &RunSpec) -> bool {
        (&self.job, self.version) == (&decision.job, decision.version)
            && (&self.queue, &self.overlap, self.concurrency) == (&spec.queue, &spec.overlap, spec.concurrency)
            && (self.deadline, self.delivery) == (spec.deadline_ms.map(millis), spec.delivery)
            && (&self.retry, self.is_request) == (&spec.retry, is_request(&spec.target))
    }

    /// True if they say the same, whichever request they were taken from.
    fn say_the_same(&self, other: &Self) -> bool {
        (&self.job, self.version) == (&other.job, other.version)
            && (&self.queue, &self.overlap, self.concurrency) == (&other.queue, &other.overlap, other.concurrency)
            && (self.deadline, self.delivery) == (other.deadline, other.delivery)
            && (&self.retry, self.is_request) == (&other.retry, other.is_request)
    }
}

/// What was asked for: the terms, which read as its own, what is of this request alone, and its record byte for byte.
#[derive(Debug, Clone)]
pub struct Request {
    pub(crate) terms: Arc<Terms>,
    /// The run.
    pub run_id: RunId,
    /// What caused it.
    pub trigger: TriggerKind,
    /// Its nominal instant.
    pub fire_time: Timestamp,
    /// When the trigger decided.
    pub requested_at: Timestamp,
    /// Wait between request and first attempt.
    pub start_delay: Duration,
    /// The trigger waits for the end.
    pub reports_end: bool,
    /// Offset in `fires`.
    pub offset: i64,
    /// What sets its headers and value apart from those of the terms.
    pub(crate) difference: Box<[u8]>,
}

impl Deref for Request {
    type Target = Terms;

    fn deref(&self) -> &Terms {
        &self.terms
    }
}

/// By what it says: requests whose bytes were taken apart differently are the same.
impl PartialEq for Request {
    fn eq(&self, other: &Self) -> bool {
        let own = |request: &Self| {
            let instants = (request.fire_time, request.requested_at, request.start_delay);
            (request.run_id, request.trigger, instants, request.reports_end, request.offset)
        };
        let is_same_record = || {
            let is_same = Arc::ptr_eq(&self.terms, &other.terms) && self.difference == other.difference;
            is_same || self.record() == other.record()
        };
        own(self) == own(other) && self.terms.say_the_same(&other.terms) && is_same_record()
    }
}

impl Request {
    /// The request that a decision makes, with the headers and the value of its record; `None` if it lacks what a run needs.
    #[must_use]
    pub fn of(
        decision: &FireDecision,
        offset: i64,
        headers: &[RecordHeader],
        value: &[u8],
        shares: &Shares,
    ) -> Option<Self> {
        let (Decision::Requested, Some(run_id), Some(spec)) = (decision.decision, decision.run_id, &decision.spec)
        else {
            return None;
        };
        let known = Known::of(run_id, decision.fire_time, decision.decided_at);
        let headers = packed_headers(headers);
        let terms =
            shares.terms(decision, spec, || Terms::of(decision, spec, headers.clone(), Pattern::of(value, &known)));
        let mut difference = Packer::default();
        difference::pack(&mut difference, &headers, &terms.headers);
        difference::pack(&mut difference, value, &terms.value.expected(&known));
        Some(Self {
            terms,
            run_id,
            trigger: decision.trigger,
            fire_time: decision.fire_time,
            requested_at: decision.decided_at,
            start_delay: millis(spec.start_delay_ms),
            reports_end: decision.reports_end,
            offset,
            difference: difference.into_bytes().into(),
        })
    }

    /// Headers and value of its record, byte for byte.
    #[must_use]
    pub fn record(&self) -> (Vec<RecordHeader>, Vec<u8>) {
        let known = Known::of(self.run_id, self.fire_time, self.requested_at);
        let mut difference = Unpacker::new(&self.difference);
        let headers = difference::unpack(&mut difference, self.terms.headers.clone());
        let value = difference::unpack(&mut difference, self.terms.value.expected(&known));
        (unpacked_headers(&headers), value)
    }

    /// The value of its record, byte for byte.
    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        self.record().1
    }
}

fn packed_headers(headers: &[RecordHeader]) -> Vec<u8> {
    let mut packer = Packer::default();
    for header in headers {
        packer.bytes(header.key.as_bytes());
        packer.bytes(&header.value);
    }
    packer.into_bytes()
}

fn unpacked_headers(packed: &[u8]) -> Vec<RecordHeader> {
    let mut unpacker = Unpacker::new(packed);
    let mut headers = Vec::new();
    while !unpacker.is_empty() {
        headers.push(RecordHeader { key: unpacker.text().to_owned(), value: unpacker.bytes().to_vec() });
    }
    headers
}

fn millis(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}

fn is_request(target: &Target) -> bool {
    matches!(target, Target::HttpTarget(_) | Target::KafkaTarget(_))
}

impl Request {
    /// Most runs of the job that take up room beside and with this one.
    #[must_use]
    pub fn room(&self) -> usize {
        overlap::room(self.overlap.policy, self.concurrency)
    }

    /// True if it matters whether this run is executed although it was cancelled on its queue: to others of its job, or because
    /// it can't be taken back.
    #[must_use]
    pub fn awaits_start(&self) -> bool {
        self.overlap.policy != OverlapKind::Allow || self.concurrency.is_some() || self.is_request
    }
}

/// Where a live run is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Until its start delay is over.
    Delayed {
        /// When that is.
        due_at: Timestamp,
    },
    /// Until other runs of its job make room.
    Waiting,
    /// On its queue.
    Ready,
    /// Claimed.
    Running {
        /// The runner.
        runner: RunnerId,
        /// The session that holds the lease.
        session: SessionId,
    },
    /// Until its backoff is over.
    Retrying {
        /// When that is.
        due_at: Timestamp,
    },
}

impl Step {
    /// The state as others see it.
    #[must_use]
    pub fn state(&self) -> RunState {
        match self {
            Self::Delayed { .. } => RunState::Delayed,
            Self::Waiting => RunState::Waiting,
            Self::Ready => RunState::Ready,
            Self::Running { .. } => RunState::Running,
            Self::Retrying { .. } => RunState::Retrying,
        }
    }
}

/// A live run. Cheap to clone.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What was asked for.
    pub request: Arc<Request>,
    /// Where it is.
    pub step: Step,
    /// The attempt it is at or waits for, from 1.
    pub attempt: i32,
    /// The newest token handed out; 0 before the first.
    pub token: i64,
    /// Since when it is at this step.
    pub since: Timestamp,
    /// When the first of its attempts failed.
    pub first_failure: Option<Timestamp>,
    /// How the last attempt ended.
    pub last_outcome: Option<Arc<Outcome>>,
    /// How often it was sent back from the dead letters.
    pub redrives: i32,
    /// Commands about it that were carried out, oldest first.
    pub recent_commands: Arc<[CommandId]>,
    /// Running: why its end was asked for.
    pub cancel_reason: Option<Arc<str>>,
    /// When it was sent back last.
    pub redriven_at: Option<Timestamp>,
    /// Attempts that it had used when it was sent back last.
    pub attempts_before: i32,
}

impl Run {
    /// A new run that waits for its start delay.
    #[must_use]
    pub fn delayed(request: Arc<Request>, due_at: Timestamp, now: Timestamp) -> Self {
        Self {
            request,
            step: Step::Delayed { due_at },
            attempt: 1,
            token: 0,
            since: now,
            first_failure: None,
            last_outcome: None,
            redrives: 0,
            recent_commands: Arc::default(),
            cancel_reason: None,
            redriven_at: None,
            attempts_before: 0,
        }
    }

    /// A new run that waits until others of its job make room.
    #[must_use]
    pub fn waiting(request: Arc<Request>, now: Timestamp) -> Self {
        Self { step: Step::Waiting, ..Self::delayed(request, now, now) }
    }

    /// It goes on: ready, or delayed if its start delay is not over. The delay counts from the trigger's decision, so that
    /// a dispatcher that was away does not add to it; a run that was sent back has had it.
    #[must_use]
    pub fn begun(&self, now: Timestamp) -> Self {
        let due_at = self.request.requested_at.plus(self.request.start_delay);
        if !self.request.start_delay.is_zero() && due_at > now && self.redriven_at.is_none() {
            Self { step: Step::Delayed { due_at }, since: now, ..self.clone() }
        } else {
            self.made_ready(now)
        }
    }

    /// Its end was asked for; the runner that holds it is told.
    #[must_use]
    pub fn cancelling(&self, reason: &str) -> Self {
        Self { cancel_reason: Some(reason.into()), ..self.clone() }
    }

    /// A new run that any runner may claim.
    #[must_use]
    pub fn ready(request: Arc<Request>, now: Timestamp) -> Self {
        Self::delayed(request, now, now).made_ready(now)
    }

    /// It waited long enough: any runner may claim it, with a new token.
    #[must_use]
    pub fn made_ready(&self, now: Timestamp) -> Self {
        Self { step: Step::Ready, token: self.token + 1, since: now, ..self.clone() }
    }

    /// A runner has claimed it.
    #[must_use]
    pub fn claimed(&self, runner: RunnerId, session: SessionId, now: Timestamp) -> Self {
        Self { step: Step::Running { runner, session }, since: now, ..self.clone() }
    }

    /// Its attempt failed, and the next one waits for its backoff.
    #[must_use]
    pub fn failed_once(&self, outcome: Outcome, due_at: Timestamp, now: Timestamp) -> Self {
        Self {
            step: Step::Retrying { due_at },
            attempt: self.attempt + 1,
            since: now,
            first_failure: self.first_failure.or(Some(now)),
            last_outcome: Some(Arc::new(outcome)),
            ..self.clone()
        }
    }

    /// The topic that holds it.
    #[must_use]
    pub fn topic(&self) -> &'static str {
        // Every step is a live state, and every live state has a topic.
        self.step.state().topic().unwrap_or(orloj_domain::topic::RUN_STATE)
    }

    /// The attempt that was ready last; 0 if none ever was.
    #[must_use]
    pub fn last_attempt(&self) -> i32 {
        match self.step {
            Step::Ready | Step::Running { .. } => self.attempt,
            Step::Delayed { .. } | Step::Waiting | Step::Retrying { .. } => self.attempt - 1,
        }
    }

    /// When it must have ended: from the fire time on, or from when it was asked for where that came later by intent.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let request = &self.request;
        let since = match (self.redriven_at, request.trigger) {
            (Some(redriven_at), _) => redriven_at,
            (None, TriggerKind::Backfill) => request.requested_at,
            (None, _) => request.fire_time,
        };
        request.deadline.map(|deadline| since.plus(deadline))
    }

    /// When something has to be decided about it although nothing is heard. A runner ends a running attempt by itself.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Timestamp> {
        match &self.step {
            Step::Running { .. } => None,
            Step::Delayed { due_at } | Step::Retrying { due_at } => {
                Some(self.deadline().map_or(*due_at, |deadline| deadline.min(*due_at)))
            }
            Step::Waiting | Step::Ready => self.deadline(),
        }
    }

    /// When it goes on by itself.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.step {
            Step::Delayed { due_at } | Step::Retrying { due_at } => Some(due_at),
            Step::Waiting | Step::Ready | Step::Running { .. } => None,
        }
    }

    /// The session that holds its lease.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        match &self.step {
            Step::Running { session, .. } => Some(session),
            Step::Delayed { .. } | Step::Waiting | Step::Ready | Step::Retrying { .. } => None,
        }
    }

    /// Orders copies of one run: the larger one is the later one.
    #[must_use]
    pub(crate) fn rank(&self) -> (i32, i64, u8) {
        let progress = match self.step {
            Step::Waiting => 0,
            Step::Delayed { .. } | Step::Retrying { .. } => 1,
            Step::Ready => 2,
            Step::Running { .. } => 3,
        };
        (self.attempt, self.token, progress)
    }
}

/// A run that ended dead and can be sent back.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadRun {
    /// What was asked for.
    pub request: Arc<Request>,
    /// The attempt it ended with.
    pub attempt: i32,
    /// The newest token handed out.
    pub token: i64,
    /// How its last attempt ended.
    pub outcome: Outcome,
    /// Why it is a dead letter.
    pub disposition: Disposition,
    /// When the first of its attempts failed.
    pub first_failure: Timestamp,
    /// How often it was sent back before.
    pub redrives: i32,
    /// Commands about it that were carried out, oldest first.
    pub recent_commands: Arc<[CommandId]>,
    /// Since when it is dead.
    pub since: Timestamp,
}

impl DeadRun {
    /// The next generation of it: waits for room, with all attempts of its policy before it.
    #[must_use]
    pub fn redriven(&self, command: &CommandId, now: Timestamp) -> Run {
        Run {
            attempt: self.attempt + 1,
            token: self.token,
            first_failure: Some(self.first_failure),
            last_outcome: Some(Arc::new(self.outcome.clone())),
            redrives: self.redrives + 1,
            recent_commands: remembered(&self.recent_commands, command),
            redriven_at: Some(now),
            attempts_before: self.attempt,
            ..Run::waiting(Arc::clone(&self.request), now)
        }
    }

    /// It, with a command among those that were carried out.
    #[must_use]
    pub fn having_answered(&self, command: &CommandId) -> Self {
        Self { recent_commands: remembered(&self.recent_commands, command), ..self.clone() }
    }

    /// It, put aside by a command.
    #[must_use]
    pub fn parked(&self, command: &CommandId) -> Self {
        Self { disposition: Disposition::Parked, ..self.having_answered(command) }
    }
}

/// Commands kept of one run: more than a person sends about it.
const COMMANDS_MAX: usize = 16;

fn remembered(commands: &[CommandId], command: &CommandId) -> Arc<[CommandId]> {
    let surplus = (commands.len() + 1).saturating_sub(COMMANDS_MAX);
    commands[surplus.min(commands.len())..].iter().chain([command]).cloned().collect()
}
