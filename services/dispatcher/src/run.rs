//! A live run in memory: its request, which never changes, and the step it is at, with the data of that step.
//! Not here: which step comes next (`machine`), how it stands in the log (`service`), how it is kept (`packed`). Invariant:
//! the token grows with each ready step and the attempt with each retry; nothing else moves them.

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::Outcome;
use orloj_domain::fire::TriggerKind;
use orloj_domain::id::{CommandId, LimitId, RunnerId, SessionId};
use orloj_domain::job::OverlapKind;
use orloj_domain::limit::Claim;
use orloj_domain::retry::Disposition;
use orloj_domain::run::RunState;
use orloj_domain::time::Timestamp;

use crate::hedge::Hedge;
use crate::request::Request;

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
    /// Until it holds all of its limits, for which it asks one after the other.
    Asking {
        /// How many it holds already: the first ones.
        held: usize,
        /// When it asked last for the next one.
        asked_at: Timestamp,
    },
    /// Until a runner is looked for again that has its handler.
    Unserved {
        /// When that is.
        due_at: Timestamp,
    },
    /// Until a runner that has the labels it asks for has a free slot.
    Unplaced {
        /// Its attempt was offered to one before.
        was_offered: bool,
    },
    /// On its queue.
    Ready,
    /// Offered to one runner that has the labels it asks for.
    Offered {
        /// The runner.
        runner: RunnerId,
        /// Its session.
        session: SessionId,
        /// When that was said last.
        said_at: Timestamp,
    },
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
            Self::Waiting | Self::Asking { .. } | Self::Unserved { .. } | Self::Unplaced { .. } => RunState::Waiting,
            Self::Ready | Self::Offered { .. } => RunState::Ready,
            Self::Running { .. } => RunState::Running,
            Self::Retrying { .. } => RunState::Retrying,
        }
    }
}

/// After how long a run that waits for a limit asks for it again: what it said may have been lost.
const ASK_AGAIN: Duration = Duration::from_secs(600);

/// How long after the first runner without its handler took a run another is looked for; doubled each time.
const UNSERVED_WAIT: Duration = Duration::from_secs(1);
/// The longest of these waits.
const UNSERVED_WAIT_MAX: Duration = Duration::from_secs(30);

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
    /// When it was sent back last, or until when it was delayed then.
    pub redriven_at: Option<Timestamp>,
    /// Attempts that do not count: those it had used when it was sent back last, and those that were handed back since.
    pub attempts_before: i32,
    /// Asking, ready and running: limits that its attempt asks for or holds.
    pub limits: Arc<[LimitId]>,
    /// How often a runner took it that has not got its handler.
    pub unserved: i32,
    /// Running: how the attempt ended, as its callback said.
    pub completion: Option<Arc<Outcome>>,
    /// Running: the attempt that was put beside this one last.
    pub hedge: Option<Arc<Hedge>>,
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
            limits: Arc::default(),
            unserved: 0,
            completion: None,
            hedge: None,
        }
    }

    /// A new run that waits until others of its job make room.
    #[must_use]
    pub fn waiting(request: Arc<Request>, now: Timestamp) -> Self {
        Self { step: Step::Waiting, ..Self::delayed(request, now, now) }
    }

    /// It waits until `due_at`, its start delay, is over.
    #[must_use]
    pub fn put_off(&self, due_at: Timestamp, now: Timestamp) -> Self {
        Self { step: Step::Delayed { due_at }, since: now, ..self.clone() }
    }

    /// It asks for the first of its limits, one or more.
    #[must_use]
    pub fn asking(&self, limits: Arc<[LimitId]>, now: Timestamp) -> Self {
        Self { step: Step::Asking { held: 0, asked_at: now }, since: now, limits, ..self.clone() }
    }

    /// It holds the first `held` of its limits and asks for the next one.
    #[must_use]
    pub fn asking_on(&self, held: usize, now: Timestamp) -> Self {
        Self { step: Step::Asking { held, asked_at: now }, since: now, ..self.clone() }
    }

    /// It holds the first `held` of its limits and asks for the next one again.
    #[must_use]
    pub fn asked_again(&self, held: usize, now: Timestamp) -> Self {
        Self { step: Step::Asking { held, asked_at: now }, ..self.clone() }
    }

    /// Its end was asked for; the runner that holds it is told.
    #[must_use]
    pub fn cancelling(&self, reason: &str) -> Self {
        Self { cancel_reason: Some(reason.into()), ..self.clone() }
    }

    /// Its callback has said how its attempt ended; the runner that holds it is told.
    #[must_use]
    pub fn completed(&self, outcome: Outcome) -> Self {
        Self { completion: Some(Arc::new(outcome)), ..self.clone() }
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

    /// The runner that took it has not got its handler: another one is looked for after a while, as the same attempt.
    #[must_use]
    pub fn found_unserved(&self, outcome: Outcome, now: Timestamp) -> Self {
        let doubled = u32::try_from(self.unserved).unwrap_or(0).min(5);
        let due_at = now.plus((UNSERVED_WAIT * 2_u32.pow(doubled)).min(UNSERVED_WAIT_MAX));
        Self {
            step: Step::Unserved { due_at },
            since: now,
            last_outcome: Some(Arc::new(outcome)),
            limits: Arc::default(),
            unserved: self.unserved.saturating_add(1),
            ..self.clone()
        }
    }

    /// The limit that it waits for.
    #[must_use]
    pub fn asks_for(&self) -> Option<&LimitId> {
        match self.step {
            Step::Asking { held, .. } => self.limits.get(held),
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Ready
            | Step::Offered { .. }
            | Step::Running { .. }
            | Step::Retrying { .. } => None,
        }
    }

    /// What it asks for or holds of limits is for this attempt.
    #[must_use]
    pub fn claim(&self) -> Claim {
        match self.step {
            // The token that it will have.
            Step::Asking { .. } => (self.request.run_id, self.token + 1),
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Ready
            | Step::Offered { .. }
            | Step::Running { .. }
            | Step::Retrying { .. } => (self.request.run_id, self.token),
        }
    }

    /// Limits that it asks for or holds.
    #[must_use]
    pub fn claimed_limits(&self) -> &[LimitId] {
        match self.step {
            Step::Asking { held, .. } => &self.limits[..self.limits.len().min(held + 1)],
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Ready
            | Step::Offered { .. }
            | Step::Running { .. }
            | Step::Retrying { .. } => &self.limits,
        }
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
            attempt: self.newest_attempt() + 1,
            token: self.newest_token(),
            since: now,
            first_failure: self.first_failure.or(Some(now)),
            last_outcome: Some(Arc::new(outcome)),
            limits: Arc::default(),
            completion: None,
            hedge: None,
            ..self.clone()
        }
    }

    /// A runner that had to end has given its attempt back: the next one comes at once, and counts in its place.
    #[must_use]
    pub fn handed_back(&self, outcome: Outcome, now: Timestamp) -> Self {
        Self { first_failure: self.first_failure, ..self.without_counting_one().failed_once(outcome, now, now) }
    }

    /// One of its attempts, which has a number, does not count.
    #[must_use]
    pub fn without_counting_one(&self) -> Self {
        Self { attempts_before: self.attempts_before + 1, ..self.clone() }
    }

    /// True if it matters whether it is executed although it was cancelled on its queue: to others of its job or of its limits,
    /// or because it can't be taken back.
    #[must_use]
    pub fn awaits_start(&self) -> bool {
        let request = &self.request;
        let is_bounded = request.overlap.policy != OverlapKind::Allow || request.concurrency.is_some();
        // An offer may be read long after it was given to another.
        let is_offered = !request.runner_labels.is_empty();
        is_bounded || is_offered || request.is_request || !self.limits.is_empty()
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
            Step::Ready | Step::Offered { .. } | Step::Running { .. } | Step::Unplaced { was_offered: true } => {
                self.newest_attempt()
            }
            // The number of the one that found no handler is that of the next.
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Asking { .. }
            | Step::Unserved { .. }
            | Step::Unplaced { was_offered: false }
            | Step::Retrying { .. } => self.attempt - 1,
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

    /// When something has to be decided about it although nothing is heard. A runner ends a running attempt by itself; another
    /// may be put beside it.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Timestamp> {
        match &self.step {
            Step::Running { .. } => self.hedges_at(),
            Step::Delayed { due_at } | Step::Retrying { due_at } | Step::Unserved { due_at } => {
                Some(self.deadline().map_or(*due_at, |deadline| deadline.min(*due_at)))
            }
            Step::Asking { asked_at, .. } => {
                let again = asked_at.plus(ASK_AGAIN);
                Some(self.deadline().map_or(again, |deadline| deadline.min(again)))
            }
            Step::Offered { .. } => {
                let again = self.offered_again_at();
                Some(self.deadline().map_or(again, |deadline| deadline.min(again)))
            }
            Step::Waiting | Step::Unplaced { .. } | Step::Ready => self.deadline(),
        }
    }

    /// When it goes on by itself.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.step {
            Step::Delayed { due_at } | Step::Retrying { due_at } | Step::Unserved { due_at } => Some(due_at),
            Step::Waiting
            | Step::Asking { .. }
            | Step::Unplaced { .. }
            | Step::Ready
            | Step::Offered { .. }
            | Step::Running { .. } => None,
        }
    }

    /// The session that holds its lease.
    #[must_use]
    pub fn session(&self) -> Option<&SessionId> {
        match &self.step {
            Step::Running { session, .. } => Some(session),
            Step::Delayed { .. }
            | Step::Waiting
            | Step::Asking { .. }
            | Step::Unserved { .. }
            | Step::Unplaced { .. }
            | Step::Ready
            | Step::Offered { .. }
            | Step::Retrying { .. } => None,
        }
    }

    /// Orders copies of one run: the larger one is the later one.
    #[must_use]
    pub(crate) fn rank(&self) -> (i32, i64, u8) {
        let progress = match self.step {
            Step::Waiting => 0,
            Step::Delayed { .. } | Step::Retrying { .. } => 1,
            Step::Asking { .. } | Step::Unplaced { .. } => 2,
            Step::Ready | Step::Offered { .. } => 3,
            Step::Running { .. } => 4,
            Step::Unserved { .. } => 5,
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
    /// The next generation of it: waits for room, with all attempts of its policy before it. Its deadline counts from
    /// `not_before`, if that is later.
    #[must_use]
    pub fn redriven(&self, command: &CommandId, not_before: Option<Timestamp>, now: Timestamp) -> Run {
        Run {
            attempt: self.attempt + 1,
            token: self.token,
            first_failure: Some(self.first_failure),
            last_outcome: Some(Arc::new(self.outcome.clone())),
            redrives: self.redrives + 1,
            recent_commands: remembered(&self.recent_commands, command),
            redriven_at: Some(not_before.map_or(now, |due_at| due_at.max(now))),
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
