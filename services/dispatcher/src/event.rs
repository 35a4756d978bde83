//! What the dispatcher is asked to decide on, and what it decides. Not here: bytes (`service`). Invariant:
//! every input is answered by name, "nothing to do" included.

use std::sync::Arc;

use orloj_domain::attempt::Outcome;
use orloj_domain::fleet::Fleet;
use orloj_domain::id::{CommandId, JobId, LimitId, RunId, RunnerId, SessionId};
use orloj_domain::limit::{Claim, LimitRules, Turn, Waiter};
use orloj_domain::retry::Disposition;
use orloj_domain::run::{EndedAttempt, RunState};
use orloj_domain::setting::Verdict;
use orloj_domain::time::Timestamp;

use crate::request::Request;
use crate::run::{DeadRun, Run};

/// What asks for a decision.
#[derive(Debug, Clone)]
pub enum Input {
    /// Time has passed.
    Tick,
    /// The trigger asked for a run.
    Requested(Arc<Request>),
    /// A runner has taken an attempt.
    Claimed(Report),
    /// A runner says how an attempt ended.
    Finished(Report, Outcome),
    /// A runner's session was silent for longer than its lease.
    SessionExpired(SessionId),
    /// Somebody wants a run to end.
    Cancel(Order),
    /// Somebody sends a dead run back.
    Redrive(Order),
    /// A run of some shard asks for a limit of this one.
    LimitAsked(LimitId, Waiter),
    /// A run of some shard gives a limit of this one back, or asks for it no longer; what its attempt says.
    LimitGivenBack(LimitId, Claim, Verdict),
    /// A run of this shard has got a limit.
    LimitGranted(LimitId, Waiter),
    /// The rules of limits are these.
    LimitRules(Arc<LimitRules>),
    /// The runners that have labels are these.
    Fleet(Arc<Fleet>),
    /// The callback of a target says how an attempt ended.
    Complete(Completion),
    /// Somebody puts a dead run aside.
    Park(Order),
}

/// What somebody wants of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// The run.
    pub run_id: RunId,
    /// Its job.
    pub job: JobId,
    /// The command that says so.
    pub command: CommandId,
    /// Who sent it.
    pub actor: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// To send back: not if it is parked.
    pub spares_parked: bool,
    /// To send back: it is delayed until then.
    pub not_before: Option<Timestamp>,
}

/// What the callback of a target says of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// The run.
    pub run_id: RunId,
    /// Its job.
    pub job: JobId,
    /// The attempt, from 1.
    pub attempt: i32,
    /// Its fencing token.
    pub token: i64,
    /// How it ended: succeeded or failed.
    pub outcome: Outcome,
}

/// Which attempt a runner reports about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The run.
    pub run_id: RunId,
    /// The job.
    pub job: JobId,
    /// The attempt, from 1.
    pub attempt: i32,
    /// The fencing token of the ready record it answers.
    pub token: i64,
    /// The runner.
    pub runner: RunnerId,
    /// Its session.
    pub session: SessionId,
}

/// What was decided.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "most of them are steps, and each lives for a moment")]
pub enum Event {
    /// A run came into being or took a step.
    Stepped {
        /// The run as it is from here.
        run: Run,
        /// Topics that held it and hold it no longer.
        leaves: Vec<&'static str>,
        /// Limits that it gives back.
        gives_back: GivenBack,
        /// What of it took the step.
        about: About,
        /// Attempts that ended by it, where two were live.
        ended: Vec<EndedAttempt>,
    },
    /// A run ended, or was refused before it began.
    Ended(Box<Ended>),
    /// A runner holds an attempt that it must not go on with.
    Disowned(Report, Ignored),
    /// A dead run was not sent back.
    NotRedriven {
        /// It, with the command among those that were carried out.
        dead: Box<DeadRun>,
        /// Why.
        why: String,
        /// When this was decided.
        at: Timestamp,
    },
    /// A dead run is put aside: only who names it sends it back.
    Parked {
        /// It, with the command among those that were carried out.
        dead: Box<DeadRun>,
        /// Why.
        why: String,
        /// When this was decided.
        at: Timestamp,
    },
    /// A dead run is kept no longer: too old, or too many younger ones have come.
    Forgotten(Box<DeadRun>, Timestamp),
    /// A run that is not known is to end as soon as it is asked for.
    CancelKept(Box<Order>, Timestamp),
    /// That is kept no longer.
    CancelDropped(Box<Order>),
    /// A run waits for a limit of this shard.
    LimitJoined(LimitId, Waiter),
    /// A run has got a limit of this shard.
    LimitHeld {
        /// The limit.
        limit: LimitId,
        /// Who has got it.
        waiter: Waiter,
        /// When this was decided.
        at: Timestamp,
        /// Up to when its rate is used up, in nanoseconds since the Unix epoch; 0 without a rate.
        used_until_nanos: i64,
    },
    /// A run neither waits for a limit of this shard nor holds it any more.
    LimitFree(LimitId, Claim),
    /// The breaker of a limit of this shard counts, lets one through to try, or turns.
    LimitTurned {
        /// The limit.
        limit: LimitId,
        /// What becomes of its breaker.
        turn: Box<Turn>,
        /// When this was decided.
        at: Timestamp,
    },
    /// A run of this shard has got a limit for which it does not ask: it goes back.
    LimitDeclined(LimitId, Waiter),
    /// Other rules of limits are in force.
    LimitRulesTaken(Arc<LimitRules>),
    /// The runners that have labels are others, or other than they were.
    FleetTaken(Arc<Fleet>),
    /// A runner must not claim what it was offered: it is another's, or has ended.
    Withdrawn(Report),
    /// The input changes nothing.
    Ignored(Ignored),
}

/// What of a run took a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// The run, which begins: its first step of all, or the first after it was dead.
    Begun,
    /// The run.
    Run,
    /// A second attempt was put on the queue.
    HedgeReady,
    /// A runner claimed the second attempt.
    HedgeClaimed,
    /// No second attempt was put beside it; that is looked at again later.
    HedgePutOff,
    /// One of two attempts ended, and the run goes on with the other.
    OneEnded,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// What was asked for.
    pub request: Arc<Request>,
    /// How it ended.
    pub end: End,
    /// The attempt it ended with; 0 when none was ever ready.
    pub attempt: i32,
    /// The newest token handed out.
    pub token: i64,
    /// When the first of its attempts failed.
    pub first_failure: Option<Timestamp>,
    /// How often it was sent back from the dead letters.
    pub redrives: i32,
    /// Commands about it that were carried out, oldest first.
    pub recent_commands: Arc<[CommandId]>,
    /// When this was decided.
    pub at: Timestamp,
    /// Topics that held it and hold it no longer.
    pub leaves: Vec<&'static str>,
    /// Limits that it gives back.
    pub gives_back: GivenBack,
    /// Attempts that ended with it, where two were live; the one that ended it first.
    pub ended_attempts: Vec<EndedAttempt>,
    /// An attempt beside the one that ended it, which a runner holds and is told to stop, and why.
    pub stops: Option<(Report, String)>,
}

/// Limits that a run gives back, with what its attempt says of them, and the attempt that they were for.
pub type GivenBack = Option<(Vec<(LimitId, Verdict)>, Claim)>;

impl Ended {
    /// What is kept of it, if it is dead.
    #[must_use]
    pub fn dead(&self) -> Option<DeadRun> {
        let End::Dead(outcome, disposition) = &self.end else { return None };
        Some(DeadRun {
            request: Arc::clone(&self.request),
            attempt: self.attempt,
            token: self.token,
            outcome: outcome.clone(),
            disposition: *disposition,
            first_failure: self.first_failure.unwrap_or(self.at),
            redrives: self.redrives,
            recent_commands: Arc::clone(&self.recent_commands),
            since: self.at,
        })
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// An attempt succeeded.
    Succeeded(Outcome),
    /// It was stopped on request, or refused by the overlap policy.
    Cancelled(Outcome),
    /// No attempt succeeded, and it is parked as a dead letter.
    Dead(Outcome, Disposition),
    /// Its deadline passed.
    Expired(Outcome),
}

impl End {
    /// The terminal state.
    #[must_use]
    pub fn state(&self) -> RunState {
        match self {
            Self::Succeeded(_) => RunState::Succeeded,
            Self::Cancelled(_) => RunState::Cancelled,
            Self::Dead(..) => RunState::Dead,
            Self::Expired(_) => RunState::Expired,
        }
    }

    /// How the last attempt, or the run without one, ended.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        match self {
            Self::Succeeded(outcome) | Self::Cancelled(outcome) | Self::Dead(outcome, _) | Self::Expired(outcome) => {
                outcome
            }
        }
    }
}

/// Why an input changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// The run that is asked for is live already.
    AlreadyLive,
    /// The run that is reported about is not live: it ended, or never was.
    NotLive,
    /// The report is about another attempt or token than the one in force.
    Stale,
    /// Another session holds the attempt: the first claim in the order of the log counts.
    OtherSession,
    /// The same session claimed it before.
    AlreadyClaimed,
    /// Its end was asked for before.
    AlreadyCancelled,
    /// It is not dead, or no longer kept: there is nothing to send back.
    NotDead,
    /// The command was carried out before.
    Repeated,
    /// It neither waits for the limit nor holds it; or it has it already.
    NoClaim,
    /// Its callback has said before how the attempt ended.
    AlreadyCompleted,
    /// Its target ends attempts by its answer alone.
    NoCallback,
    /// It is parked: there is nothing to put aside, and one that spares parked ones leaves it.
    AlreadyParked,
}

impl Ignored {
    /// Every reason, in order.
    pub const ALL: [Self; 12] = [
        Self::AlreadyLive,
        Self::NotLive,
        Self::Stale,
        Self::OtherSession,
        Self::AlreadyClaimed,
        Self::AlreadyCancelled,
        Self::NotDead,
        Self::Repeated,
        Self::NoClaim,
        Self::AlreadyCompleted,
        Self::NoCallback,
        Self::AlreadyParked,
    ];

    /// The reason as a metric's label.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlreadyLive => "already_live",
            Self::NotLive => "not_live",
            Self::Stale => "stale",
            Self::OtherSession => "other_session",
            Self::AlreadyClaimed => "already_claimed",
            Self::AlreadyCancelled => "already_cancelled",
            Self::NotDead => "not_dead",
            Self::Repeated => "repeated",
            Self::NoClaim => "no_claim",
            Self::AlreadyCompleted => "already_completed",
            Self::NoCallback => "no_callback",
            Self::AlreadyParked => "already_parked",
        }
    }
}
