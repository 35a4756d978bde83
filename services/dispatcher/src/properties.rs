//! Properties of the whole machine under random legal, illegal and repeated inputs and restarts: each run ends
//! once in each of its lives and can be driven to its end, attempts are 1..k, no job has more live runs than its policy
//! allows, nobody waits beside free room, and the log restores an equal machine.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::id::RunId;
use orloj_domain::job::{Delivery, OverlapKind};
use orloj_domain::run::lifecycle::is_legal;
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::runner::RunnerMessageType;
use proptest::prelude::*;

use crate::event::{Event, Input, Order};
use crate::hedge::Which;
use crate::run::{Run, Step};
use crate::testing::{Ask, World, completion, order, outcome, report};

const SESSIONS: [&str; 3] = ["s0", "s1", "s2"];
type Labels = &'static [(&'static str, &'static str)];
/// What their runners say about themselves, and what runs ask for.
const LABELS: [Labels; 3] = [&[("disk", "ssd"), ("zone", "eu")], &[("zone", "eu")], &[("disk", "ssd")]];
const WANTED: [Labels; 4] = [&[], &[], &[("zone", "eu")], &[("disk", "ssd")]];
const KINDS: [OutcomeKind; 8] = [
    OutcomeKind::Succeeded,
    OutcomeKind::Failed,
    OutcomeKind::Failed,
    OutcomeKind::TimedOut,
    OutcomeKind::Aborted,
    OutcomeKind::HandedBack,
    OutcomeKind::NotStarted,
    OutcomeKind::Cancelled,
];
/// Jobs with their policies, bounds on live runs and the most that takes up room at once.
const JOBS: [(&str, OverlapKind, Option<i32>, usize); 6] = [
    ("a/allow", OverlapKind::Allow, None, usize::MAX),
    ("a/some", OverlapKind::Allow, Some(2), 2),
    ("a/forbid", OverlapKind::Forbid, None, 1),
    ("a/queue", OverlapKind::Queue, None, 1),
    ("a/lanes", OverlapKind::Queue, Some(2), 2),
    ("a/replace", OverlapKind::Replace, None, 1),
];
/// Most that wait.
const WAITING_MAX: usize = 2;

#[derive(Debug, Clone)]
enum Action {
    Request(Ask),
    /// The run asked for as the n-th; attempt and token as in force, of the second one if there is one and it is wanted, plus
    /// these.
    Claim {
        run: usize,
        of_hedge: bool,
        attempt: i32,
        token: i64,
        session: usize,
    },
    Finish {
        run: usize,
        of_hedge: bool,
        attempt: i32,
        token: i64,
        session: usize,
        kind: usize,
    },
    Expire(usize),
    /// A sign of life of a session, with its slots; it may drain.
    Beat(usize, i32, bool),
    /// As a report, from a callback.
    Complete {
        run: usize,
        attempt: i32,
        token: i64,
        is_success: bool,
    },
    /// The run, and which of three commands.
    Cancel(usize, usize),
    Redrive(usize, usize),
    Park(usize, usize),
    Advance(u64),
    Restart,
}

fn ask() -> impl Strategy<Value = Ask> {
    let policy = (0..JOBS.len(), any::<bool>(), any::<bool>(), 0..WANTED.len());
    let times = (0..3_i64, prop_oneof![4 => Just(None), 1 => (1..30_i64).prop_map(Some)]);
    let hedge = prop_oneof![1 => Just(None), 2 => (1..4_i64).prop_map(Some)];
    (policy, 0..1_000_i64, 1..4_i32, times, hedge).prop_map(
        |((job, is_once, has_callback, wanted), number, max_attempts, (delay_s, deadline_s), hedge_s)| {
            let (job, overlap, concurrency, _) = JOBS[job];
            let delivery = if is_once { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
            let waiting_max = i32::try_from(WAITING_MAX).expect("small");
            Ask {
                version: number / 400,
                overlap,
                delivery,
                delay_s,
                max_attempts,
                deadline_s,
                concurrency,
                waiting_max,
                has_callback,
                hedge_s,
                labels: WANTED[wanted],
                ..Ask::of(job, number)
            }
        },
    )
}

/// Mostly 0.
fn offset() -> impl Strategy<Value = i32> {
    prop_oneof![8 => Just(0), 1 => Just(-1), 1 => Just(1)]
}

fn action() -> impl Strategy<Value = Action> {
    let token = || offset().prop_map(i64::from);
    prop_oneof![
        4 => ask().prop_map(Action::Request),
        6 => (0..30_usize, any::<bool>(), offset(), token(), 0..3_usize).prop_map(
            |(run, of_hedge, attempt, token, session)| Action::Claim { run, of_hedge, attempt, token, session }),
        6 => (0..30_usize, any::<bool>(), offset(), token(), 0..3_usize, 0..KINDS.len()).prop_map(
            |(run, of_hedge, attempt, token, session, kind)| {
                Action::Finish { run, of_hedge, attempt, token, session, kind }
            }),
        3 => (0..30_usize, offset(), token(), any::<bool>())
            .prop_map(|(run, attempt, token, is_success)| Action::Complete { run, attempt, token, is_success }),
        1 => (0..3_usize).prop_map(Action::Expire),
        2 => (0..3_usize, 1..4, any::<bool>()).prop_map(|(session, slots, drains)| Action::Beat(session, slots, drains)),
        1 => (0..30_usize, 0..3_usize).prop_map(|(run, command)| Action::Cancel(run, command)),
        1 => (0..30_usize, 0..3_usize).prop_map(|(run, command)| Action::Redrive(run, command)),
        1 => (0..30_usize, 0..3_usize).prop_map(|(run, command)| Action::Park(run, command)),
        4 => (0..5_u64).prop_map(Action::Advance),
        1 => Just(Action::Restart),
    ]
}

struct Play {
    world: World,
    asked: Vec<Ask>,
    second: u64,
}

impl Play {
    fn act(&mut self, action: &Action) {
        match action {
            Action::Request(ask) => self.request(*ask),
            Action::Claim { run, of_hedge, attempt, token, session } => {
                self.report(*run, *of_hedge, (*attempt, *token), *session, None);
            }
            Action::Finish { run, of_hedge, attempt, token, session, kind } => {
                self.report(*run, *of_hedge, (*attempt, *token), *session, Some(KINDS[*kind]));
            }
            Action::Complete { run, attempt, token, is_success } => {
                self.complete(*run, *attempt, *token, *is_success);
            }
            Action::Expire(session) => {
                self.world.decide(&Input::SessionExpired(SESSIONS[*session].parse().expect("session")));
            }
            Action::Beat(session, slots, is_draining) => {
                self.world.beat(SESSIONS[*session], LABELS[*session], *slots, *is_draining);
            }
            Action::Cancel(run, command) => self.order(*run, *command, Input::Cancel),
            Action::Redrive(run, command) => self.order(*run, *command, Input::Redrive),
            Action::Park(run, command) => self.order(*run, *command, Input::Park),
            Action::Advance(seconds) => {
                self.second += seconds;
                self.world.advance_to(self.second);
                self.world.decide(&Input::Tick);
            }
            Action::Restart => {
                self.world.check_restore();
                self.world.machine = self.world.restored();
            }
        }
    }

    /// A claim, or an end with an outcome. One that is not about an attempt in force, or not from the session
    /// that holds it, changes nothing.
    fn report(&mut self, run: usize, of_hedge: bool, off: (i32, i64), session: usize, kind: Option<OutcomeKind>) {
        let Some((ask, now_attempt, now_token)) = self.pick(run) else { return };
        let live = self.world.machine.run(ask.run_id());
        let hedge = live.as_ref().and_then(Run::live_hedge).filter(|_| of_hedge);
        let (attempt, token) = hedge.map_or((now_attempt, now_token), |hedge| (hedge.attempt, hedge.token));
        let report = report(&ask, attempt + off.0, token + off.1, SESSIONS[session]);
        let is_in_force = live.is_some_and(|live| {
            let is_waiting = live.due_at().is_some() || matches!(live.step, Step::Waiting | Step::Unplaced { .. });
            let holder = |which| live.holder(which).map(|(_, session)| session).or(live.addressee());
            let is_free = |which| holder(which).is_none_or(|holder| *holder == report.session);
            let is_about = |which| live.numbers(which) == (report.attempt, report.token) && is_free(which);
            !is_waiting && is_about(Which::Own) || live.live_hedge().is_some() && is_about(Which::Hedge)
        });
        let input = match kind {
            Some(kind) => Input::Finished(report, outcome(kind)),
            None => Input::Claimed(report),
        };
        let events = self.world.decide(&input);
        let is_ignored = matches!(events.as_slice(), [Event::Ignored(_) | Event::Disowned(..)]);
        assert!(is_in_force || is_ignored, "{input:?} did {events:?}");
    }

    /// Taken once, for the attempt that runs, if it can be called back at all and was not cancelled.
    fn complete(&mut self, run: usize, attempt: i32, token: i64, is_success: bool) {
        let Some((ask, now_attempt, now_token)) = self.pick(run) else { return };
        let kind = if is_success { OutcomeKind::Succeeded } else { OutcomeKind::Failed };
        let completion = completion(&ask, now_attempt + attempt, now_token + token, kind);
        let is_wanted = self.world.machine.run(ask.run_id()).is_some_and(|live| {
            let is_open = live.completion.is_none() && live.cancel_reason.is_none();
            (attempt, token) == (0, 0) && live.session().is_some() && ask.has_callback && is_open
        });
        let events = self.world.decide(&Input::Complete(completion));
        let is_taken = matches!(events.as_slice(), [Event::Stepped { run, .. }] if run.completion.is_some());
        assert_eq!(is_taken, is_wanted, "{ask:?} did {events:?}");
    }

    fn order(&mut self, run: usize, command: usize, input: impl Fn(Order) -> Input) {
        let Some((ask, ..)) = self.pick(run) else { return };
        self.world.decide(&input(order(&ask, &format!("c{command}"))));
    }

    /// A request of a run that ended is never read again: positions move with the decision. One of a live run
    /// may come twice.
    fn request(&mut self, ask: Ask) {
        let is_known = self.asked.iter().any(|known| known.run_id() == ask.run_id());
        let is_live = self.world.machine.run(ask.run_id()).is_some();
        if !is_known || is_live {
            self.world.ask(&ask);
        }
        if !is_known {
            self.asked.push(ask);
        }
    }

    /// A run, live or ended, with the attempt and token in force or last seen.
    fn pick(&self, run: usize) -> Option<(Ask, i32, i64)> {
        let ask = *self.asked.get(run % self.asked.len().max(1))?;
        let id = ask.run_id();
        let seen = self.world.machine.run(id).map(|run| (run.attempt, run.token));
        let last =
            || self.world.events.iter().rfind(|event| event.run_id == id).map(|event| (event.attempt, event.token));
        let (attempt, token) = seen.or_else(last)?;
        Some((ask, attempt, token))
    }

    /// Nobody waits for a runner that has room.
    fn check_places(&self) {
        for ask in &self.asked {
            let run = self.world.machine.run(ask.run_id());
            assert!(!run.is_some_and(|run| matches!(run.step, Step::Unplaced { .. })), "{ask:?} waits");
        }
    }

    /// Fails every attempt until nothing lives.
    fn drain(&mut self) {
        let mut rounds = 0;
        while self.world.machine.live() > 0 {
            rounds += 1;
            assert!(rounds < 20, "runs never end");
            self.second += 3600;
            self.world.advance_to(self.second);
            for session in SESSIONS {
                self.world.decide(&Input::SessionExpired(session.parse().expect("session")));
            }
            self.world.beat(SESSIONS[0], LABELS[0], 100, false);
            self.world.settle();
            self.check_places();
            for ask in self.asked.clone() {
                if let Some(run) = self.world.machine.run(ask.run_id()) {
                    let session = run.addressee().map_or("s0", |session| session.as_str());
                    let report = report(&ask, run.attempt, run.token, session);
                    self.world.decide(&Input::Finished(report, outcome(OutcomeKind::Failed)));
                }
            }
        }
    }
}

/// Answers how often the run was handed out, to all or to one runner.
fn check_run(ask: &Ask, events: &[&RunEvent]) -> usize {
    let mut state = None;
    let mut attempts = Vec::new();
    let (mut token, mut newest) = (0, 0);
    let mut ends = 0;
    let mut ended = BTreeSet::new();
    let (mut lives, mut in_this_life, mut handed_out) = (1, 0, 0);
    for event in events {
        if event.redrives >= lives {
            (lives, in_this_life) = (event.redrives + 1, 0);
        }
        ends += i32::from(event.state.is_terminal() && event.note.is_none());
        assert!(is_legal(state, event.state), "{state:?} to {} of {ask:?}", event.state);
        assert!(event.hedge.is_none() || event.state == RunState::Running, "{event:?}");
        state = Some(event.state);
        let own = (event.state == RunState::Ready).then_some((event.attempt, event.token));
        let hedge = event.hedge.as_ref().map(|hedge| (hedge.attempt, hedge.token));
        // One that was put beside another stays what it is when the run goes on with it.
        for (attempt, given) in own.into_iter().chain(hedge) {
            if given > newest {
                newest = given;
                // An offer that came to nothing is no attempt.
                let is_new = attempts.last() != Some(&attempt);
                assert!(is_new || !ask.labels.is_empty(), "{ask:?}");
                in_this_life += i32::from(is_new);
                attempts.extend(is_new.then_some(attempt));
                handed_out += 1;
            }
        }
        in_this_life -= handed_back(event);
        assert!(in_this_life <= ask.max_attempts, "{ask:?}");
        assert!(event.token >= token && event.token <= newest, "{ask:?}");
        token = event.token;
        for end in &event.ended_attempts {
            assert!(ended.insert(end.token), "{ask:?}: attempt {} ended twice", end.attempt);
        }
    }
    let wanted: Vec<i32> = (1..).take(attempts.len()).collect();
    assert_eq!(attempts, wanted, "{ask:?}");
    assert_eq!(ends, lives, "{ask:?}: an end for each life");
    handed_out
}

/// How many attempts were given back by runners that had to end: they count for nothing.
fn handed_back(event: &RunEvent) -> i32 {
    let is_back = |kind: OutcomeKind| i32::from(kind == OutcomeKind::HandedBack);
    let of_ended: i32 = event.ended_attempts.iter().map(|end| is_back(end.outcome.kind)).sum();
    let is_retrying = event.state == RunState::Retrying && event.ended_attempts.is_empty();
    let of_run = event.outcome.as_ref().filter(|_| is_retrying).map_or(0, |outcome| is_back(outcome.kind));
    of_ended + of_run
}

/// After each batch of events, in log order: no job has more live runs than its policy allows, and nobody waits beside free
/// room. `batches` are the numbers of events after each decision.
fn check_room(events: &[RunEvent], batches: &[usize]) {
    let mut states: BTreeMap<&str, BTreeMap<RunId, RunState>> = BTreeMap::new();
    let mut from = 0;
    for until in batches {
        for event in &events[from..*until] {
            let of_job = states.entry(event.job.as_str()).or_default();
            if event.state.is_terminal() {
                of_job.remove(&event.run_id);
            } else {
                // Who waits for a runner takes up room.
                let is_unplaced = event.missing_runner.is_some();
                of_job.insert(event.run_id, if is_unplaced { RunState::Ready } else { event.state });
            }
        }
        from = *until;
        for (job, of_job) in &states {
            let waiting = of_job.values().filter(|state| **state == RunState::Waiting).count();
            let active = of_job.len() - waiting;
            let (_, policy, _, room) = JOBS.iter().find(|(name, ..)| name == job).expect("one of them");
            assert!(active <= *room, "{job} has {active} live runs");
            assert!(waiting == 0 || active == *room, "{waiting} wait beside {active} of {job}");
            let waiting_max = if *policy == OverlapKind::Replace { 1 } else { WAITING_MAX };
            assert!(waiting <= waiting_max, "{waiting} wait of {job}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn runs_end_once_whatever_comes(actions in proptest::collection::vec(action(), 1..120)) {
        let mut play = Play { world: World::new(), asked: Vec::new(), second: 0 };
        let mut batches = Vec::new();
        for action in &actions {
            play.act(action);
            batches.push(play.world.events.len());
        }
        play.world.check_restore();
        check_room(&play.world.events, &batches);
        prop_assert_eq!(play.world.kept_runs(), play.world.machine.live() + play.world.machine.dead());
        play.drain();
        prop_assert_eq!(play.world.kept_runs(), play.world.machine.dead());
        play.world.check_restore();
        let events = &play.world.events;
        let mut given = 0;
        for ask in &play.asked {
            let of_run: Vec<_> = events.iter().filter(|event| event.run_id == ask.run_id()).collect();
            given += check_run(ask, &of_run);
        }
        let count = |state| events.iter().filter(|event| event.state == state && event.note.is_none()).count();
        let offered: BTreeSet<_> =
            play.world.inbox.iter().filter_map(|word| word.ready.as_ref()).map(|ready| (ready.run_id, ready.token)).collect();
        prop_assert_eq!(play.world.ready.len() + offered.len(), given);
        for word in play.world.inbox.iter().filter(|word| word.kind == RunnerMessageType::Offer) {
            let ask = play.asked.iter().find(|ask| ask.run_id() == word.run_id).expect("asked for");
            let place = SESSIONS.iter().position(|session| *session == word.session.as_str()).expect("one of them");
            prop_assert!(ask.labels.iter().all(|label| LABELS[place].contains(label)), "{:?} for {}", ask, word.session);
        }
        prop_assert_eq!(play.world.dead.len(), count(RunState::Dead));
    }
}
