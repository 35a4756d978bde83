//! A live run in memory: its request, which never changes, and the step it is at, with the data of that step.
//! Not here: which step comes next (`machine`), how it stands in the log (`service`). Invariant: the token
//! grows with each ready step and the attempt with each retry; nothing else moves them.

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::Outcome;
use orloj_domain::fire::{Decision, FireDecision, TriggerKind};
use orloj_domain::id::{CommandId, JobId, QueueName, RunId, RunnerId, SessionId};
use orloj_domain::job::{Delivery, OverlapKind, RetryPolicy};
use orloj_domain::run::{RecordHeader, RunState};
use orloj_domain::time::Timestamp;

/// What was asked for, as far as the dispatcher looks at it, and the request's own bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The run.
    pub run_id: RunId,
    /// The job; also the key of the request's record.
    pub job: JobId,
    /// The definition version.
    pub version: i64,
    /// What caused it.
    pub trigger: TriggerKind,
    /// Its nominal instant.
    pub fire_time: Timestamp,
    /// When the trigger decided.
    pub requested_at: Timestamp,
    /// The queue.
    pub queue: QueueName,
    /// Wait between request and first attempt.
    pub start_delay: Duration,
    /// What it does while other runs of the job are live.
    pub overlap: OverlapKind,
    /// When a failed attempt is followed by another.
    pub retry: RetryPolicy,
    /// What a lost attempt means.
    pub delivery: Delivery,
    /// The trigger waits for the end.
    pub reports_end: bool,
    /// Offset in `fires`.
    pub offset: i64,
    /// Headers, byte for byte.
    pub headers: Vec<RecordHeader>,
    /// Value, byte for byte.
    pub bytes: Vec<u8>,
}

impl Request {
    /// The request that a decision makes; `None` if it lacks what a run needs.
    #[must_use]
    pub fn of(decision: FireDecision, offset: i64, headers: Vec<RecordHeader>, bytes: Vec<u8>) -> Option<Self> {
        let (Decision::Requested, Some(run_id), Some(spec)) = (decision.decision, decision.run_id, decision.spec)
        else {
            return None;
        };
        Some(Self {
            run_id,
            job: decision.job,
            version: decision.version,
            trigger: decision.trigger,
            fire_time: decision.fire_time,
            requested_at: decision.decided_at,
            queue: spec.queue.clone(),
            start_delay: Duration::from_millis(u64::try_from(spec.start_delay_ms).unwrap_or(0)),
            overlap: spec.overlap.policy,
            retry: spec.retry.clone(),
            delivery: spec.delivery,
            reports_end: decision.reports_end,
            offset,
            headers,
            bytes,
        })
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
        }
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

    /// When it goes on by itself.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.step {
            Step::Delayed { due_at } | Step::Retrying { due_at } => Some(due_at),
            Step::Ready | Step::Running { .. } => None,
        }
    }

    /// The session that holds its lease.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        match &self.step {
            Step::Running { session, .. } => Some(session),
            Step::Delayed { .. } | Step::Ready | Step::Retrying { .. } => None,
        }
    }

    /// Orders copies of one run: the larger one is the later one.
    #[must_use]
    pub(crate) fn rank(&self) -> (i32, i64, u8) {
        let progress = match self.step {
            Step::Delayed { .. } | Step::Retrying { .. } => 0,
            Step::Ready => 1,
            Step::Running { .. } => 2,
        };
        (self.attempt, self.token, progress)
    }
}
