//! Runs that share limits: they ask, wait, get and give back, whatever is lost, late or said twice.

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::id::LimitId;
use orloj_domain::run::RunState;
use orloj_runtime::driver::Machine as _;
use proptest::prelude::*;
use serde_json::json;

use crate::event::{Event, Input};
use crate::testing::{Ask, World, order, outcome, report, words};

const SESSIONS: [&str; 2] = ["s0", "s1"];

fn limit(text: &str) -> LimitId {
    text.parse().expect("limit")
}

fn all_words(events: &[Event]) -> Vec<String> {
    events.iter().map(words).collect()
}

fn state(world: &World, ask: &Ask) -> Option<RunState> {
    world.machine.run(ask.run_id()).map(|run| run.step.state())
}

fn finish(world: &mut World, ask: &Ask, kind: OutcomeKind) -> Vec<Event> {
    let run = world.machine.run(ask.run_id()).expect("live");
    let report = report(ask, run.attempt, run.token, "s0");
    let events = world.decide(&Input::Finished(report, outcome(kind)));
    world.settle();
    events
}

#[test]
fn a_queue_lets_as_many_through_as_it_may() {
    let mut world = World::new();
    world.rule("queue/default", Some(json!({"maxConcurrent": 1})));
    let (first, second) = (Ask::of("a/first", 0), Ask::of("a/second", 1));
    assert_eq!(all_words(&world.ask(&first)), ["waiting a1 t0 for queue/default with 0"]);
    world.settle();
    assert!(world.ready[0].awaits_start, "one that was cancelled on its queue must not start beside the next holder");
    world.ask(&second);
    world.settle();
    assert_eq!((state(&world, &first), state(&world, &second)), (Some(RunState::Ready), Some(RunState::Waiting)));
    assert_eq!(world.machine.limit(&limit("queue/default")), (1, 1));
    let waits = world.events.last().expect("an event");
    assert_eq!(waits.note.as_deref(), Some("it waits for its turn at queue default"));
    assert_eq!(waits.limits, [limit("queue/default")]);
    world.check_restore();
    assert_eq!(
        all_words(&finish(&mut world, &first, OutcomeKind::Succeeded)),
        ["succeeded a1 t1 -run.state +queue/default"]
    );
    assert_eq!(state(&world, &second), Some(RunState::Ready));
    world.check_restore();
    finish(&mut world, &second, OutcomeKind::Succeeded);
    assert_eq!(world.machine.limit(&limit("queue/default")), (0, 0));
    assert!(world.state.is_empty(), "nothing is left behind: {:?}", world.state.keys());
}

#[test]
fn a_run_without_a_limit_pays_nothing_for_those_of_others() {
    let mut world = World::new();
    world.rule("queue/other", Some(json!({"maxConcurrent": 1})));
    world.rule("limit/db", Some(json!({"maxConcurrent": 1})));
    assert_eq!(all_words(&world.ask(&Ask::of("a/b", 0))), ["ready a1 t1"]);
    assert!(world.said.is_empty());
}

#[test]
fn each_attempt_asks_anew_and_holds_nothing_while_it_waits_for_its_backoff() {
    let mut world = World::new();
    world.rule("limit/db", Some(json!({"maxConcurrent": 1})));
    let ask = Ask { limits: &["db"], max_attempts: 2, ..Ask::of("a/b", 0) };
    world.ask(&ask);
    world.settle();
    let events = finish(&mut world, &ask, OutcomeKind::Failed);
    assert_eq!(all_words(&events), ["retrying a2 t1 due 1 -run.state +limit/db"]);
    assert_eq!(world.machine.limit(&limit("limit/db")), (0, 0));
    world.advance_to(1);
    assert_eq!(all_words(&world.decide(&Input::Tick)), ["waiting a2 t1 for limit/db with 0 -run.retry"]);
    world.settle();
    assert_eq!(world.machine.run(ask.run_id()).map(|run| run.token), Some(2));
    world.check_restore();
}

#[test]
fn limits_are_asked_for_in_one_order_and_given_back_together() {
    let mut world = World::new();
    for name in ["limit/a", "limit/b", "queue/default"] {
        world.rule(name, Some(json!({"maxConcurrent": 1})));
    }
    let (ask, other) = (Ask { limits: &["b", "a"], ..Ask::of("x/y", 0) }, Ask { limits: &["a"], ..Ask::of("x/z", 1) });
    assert_eq!(all_words(&world.ask(&ask)), ["waiting a1 t0 for limit/a with 0"]);
    world.settle();
    let asked: Vec<String> =
        world.events.iter().map(|event| event.limits.iter().map(LimitId::as_str).collect()).collect();
    assert_eq!(asked, ["limit/a", "limit/alimit/b", "limit/alimit/bqueue/default", "limit/alimit/bqueue/default"]);
    world.ask(&other);
    world.settle();
    let events = finish(&mut world, &ask, OutcomeKind::Succeeded);
    assert_eq!(all_words(&events), ["succeeded a1 t1 -run.state +limit/a +limit/b +queue/default"]);
    assert_eq!(state(&world, &other), Some(RunState::Ready));
    world.check_restore();
}

#[test]
fn whoever_ends_while_it_waits_leaves_the_line() {
    let mut world = World::new();
    world.rule("limit/db", Some(json!({"paused": true})));
    let expiring = Ask { limits: &["db"], deadline_s: Some(5), ..Ask::of("a/late", 0) };
    let cancelled = Ask { limits: &["db"], ..Ask::of("a/b", 1) };
    world.ask(&expiring);
    world.ask(&cancelled);
    world.settle();
    assert_eq!(world.machine.limit(&limit("limit/db")), (2, 0));
    let events = world.decide(&Input::Cancel(order(&cancelled, "c")));
    assert_eq!(all_words(&events), ["cancelled a0 t0 cancelled -run.state +limit/db"]);
    world.advance_to(6);
    assert_eq!(all_words(&world.decide(&Input::Tick)), ["expired a0 t0 expired -run.state +limit/db"]);
    world.settle();
    assert_eq!(world.machine.limit(&limit("limit/db")), (0, 0));
    assert!(world.state.is_empty());
}

#[test]
fn a_lost_lease_gives_the_limit_back() {
    let mut world = World::new();
    world.rule("limit/db", Some(json!({"maxConcurrent": 1})));
    let ask = Ask { limits: &["db"], ..Ask::of("a/b", 0) };
    world.ask(&ask);
    world.settle();
    world.decide(&Input::Claimed(report(&ask, 1, 1, "s0")));
    let events = world.decide(&Input::SessionExpired("s0".parse().expect("session")));
    assert!(all_words(&events)[0].ends_with("+limit/db"), "{events:?}");
    world.settle();
    assert_eq!(world.machine.limit(&limit("limit/db")), (0, 0));
}

#[test]
fn a_limit_that_nobody_has_described_keeps_a_run_and_says_which() {
    let mut world = World::new();
    let ask = Ask { limits: &["missing"], ..Ask::of("a/b", 0) };
    world.ask(&ask);
    world.settle();
    assert_eq!(state(&world, &ask), Some(RunState::Waiting));
    let note = world.events.last().and_then(|event| event.note.clone());
    assert_eq!(note.as_deref(), Some("it waits for its turn at limit missing"));
    world.rule("limit/missing", Some(json!({"maxConcurrent": 1})));
    world.settle();
    assert_eq!(state(&world, &ask), Some(RunState::Ready));
}

#[test]
fn a_rule_that_goes_or_grows_lets_those_through_that_wait() {
    let mut world = World::new();
    world.rule("queue/default", Some(json!({"maxConcurrent": 1})));
    let asks: Vec<Ask> = (0..4).map(|number| Ask::of("a/b", number)).collect();
    asks.iter().for_each(|ask| drop(world.ask(ask)));
    world.settle();
    let ready = |world: &World| asks.iter().filter(|ask| state(world, ask) == Some(RunState::Ready)).count();
    assert_eq!(ready(&world), 1);
    world.rule("queue/default", Some(json!({"maxConcurrent": 2})));
    world.settle();
    assert_eq!(ready(&world), 2);
    world.rule("queue/default", None);
    world.settle();
    assert_eq!(ready(&world), 4);
    assert_eq!(all_words(&world.ask(&Ask::of("a/b", 9))), ["ready a1 t1"]);
}

#[test]
fn what_was_lost_is_said_again_and_what_nobody_wants_goes_back() {
    let mut world = World::new();
    world.rule("limit/db", Some(json!({"maxConcurrent": 1})));
    let ask = Ask { limits: &["db"], ..Ask::of("a/b", 0) };
    world.ask(&ask);
    world.said.clear();
    world.advance_to(600);
    world.settle();
    assert_eq!(state(&world, &ask), Some(RunState::Ready), "it asked again");
    let history = world.events.len();
    // The word that it gives back is lost.
    let report = report(&ask, 1, 1, "s0");
    world.decide(&Input::Finished(report, outcome(OutcomeKind::Succeeded)));
    world.said.clear();
    assert_eq!(world.machine.limit(&limit("limit/db")), (0, 1));
    world.advance_to(1200);
    world.settle();
    assert_eq!(world.machine.limit(&limit("limit/db")), (0, 0), "it was told again, and declined");
    assert_eq!(world.events.len(), history + 1, "no event says that anything was said again");
    world.check_restore();
}

#[test]
fn a_rate_is_kept_through_a_restart() {
    let mut world = World::new();
    world.rule("limit/mail", Some(json!({"ratePerSecond": 0.1, "burst": 1})));
    let asks: Vec<Ask> = (0..2).map(|number| Ask { limits: &["mail"], ..Ask::of("a/b", number) }).collect();
    world.ask(&asks[0]);
    world.settle();
    finish(&mut world, &asks[0], OutcomeKind::Succeeded);
    world.check_restore();
    world.machine = world.restored();
    world.ask(&asks[1]);
    world.settle();
    assert_eq!(state(&world, &asks[1]), Some(RunState::Waiting));
    world.advance_to(10);
    world.settle();
    assert_eq!(state(&world, &asks[1]), Some(RunState::Ready));
}

#[derive(Debug, Clone)]
enum Action {
    Ask {
        job: usize,
        number: i64,
    },
    Claim {
        run: usize,
        session: usize,
    },
    Finish {
        run: usize,
        kind: usize,
    },
    Expire(usize),
    Cancel(usize),
    /// Reads what was said next, this many times.
    Hear(usize),
    /// What was said next is said twice.
    Repeat,
    Advance(u64),
    Restart,
}

/// Jobs with their limits, all of them on the same queue.
const JOBS: [(&str, &[&str], i32); 4] =
    [("a/free", &[], 5), ("a/one", &["one"], 0), ("a/both", &["two", "one"], 9), ("a/two", &["two"], 5)];
const KINDS: [OutcomeKind; 3] = [OutcomeKind::Succeeded, OutcomeKind::Failed, OutcomeKind::LeaseLost];

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => (0..JOBS.len(), 0..100_i64).prop_map(|(job, number)| Action::Ask { job, number }),
        4 => (0..20_usize, 0..2_usize).prop_map(|(run, session)| Action::Claim { run, session }),
        4 => (0..20_usize, 0..KINDS.len()).prop_map(|(run, kind)| Action::Finish { run, kind }),
        1 => (0..2_usize).prop_map(Action::Expire),
        1 => (0..20_usize).prop_map(Action::Cancel),
        8 => (1..4_usize).prop_map(Action::Hear),
        1 => Just(Action::Repeat),
        3 => (0..3_u64).prop_map(Action::Advance),
        1 => Just(Action::Restart),
    ]
}

struct Play {
    world: World,
    asked: Vec<Ask>,
    second: u64,
}

impl Play {
    fn new() -> Self {
        let mut world = World::new();
        let breaker = json!({"failures": 2, "window": "10s", "openFor": "2s", "maxOpenFor": "5s"});
        world.rule("queue/default", Some(json!({"maxConcurrent": 3, "breaker": breaker})));
        world.rule("limit/one", Some(json!({"maxConcurrent": 1})));
        let breaker = json!({"failures": 2, "ratio": 0.5, "window": "5s", "openFor": "1s"});
        let two = json!({"maxConcurrent": 2, "ratePerSecond": 5, "burst": 2, "breaker": breaker});
        world.rule("limit/two", Some(two));
        Self { world, asked: Vec::new(), second: 0 }
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Ask { job, number } => {
                let (job, limits, priority) = JOBS[*job];
                let ask = Ask { limits, priority, max_attempts: 2, ..Ask::of(job, *number) };
                if !self.asked.iter().any(|known| known.run_id() == ask.run_id()) {
                    self.world.ask(&ask);
                    self.asked.push(ask);
                }
            }
            Action::Claim { run, session } => self.report(*run, *session, None),
            Action::Finish { run, kind } => self.report(*run, 0, Some(KINDS[*kind])),
            Action::Expire(session) => {
                self.world.decide(&Input::SessionExpired(SESSIONS[*session].parse().expect("session")));
            }
            Action::Cancel(run) => {
                if let Some(ask) = self.asked.get(run % self.asked.len().max(1)).copied() {
                    self.world.decide(&Input::Cancel(order(&ask, "c")));
                }
            }
            Action::Hear(times) => (0..*times).for_each(|_| {
                self.world.hear();
            }),
            Action::Repeat => {
                let first = self.world.said.front().cloned();
                self.world.said.extend(first);
            }
            Action::Advance(seconds) => {
                self.second += seconds;
                self.world.advance_to(self.second);
                while self.world.machine.next_deadline().is_some_and(|due| due <= self.world.now()) {
                    self.world.decide(&Input::Tick);
                }
            }
            Action::Restart => {
                self.world.check_restore();
                self.world.machine = self.world.restored();
            }
        }
        self.check_bounds();
    }

    fn report(&mut self, run: usize, session: usize, kind: Option<OutcomeKind>) {
        let Some(ask) = self.asked.get(run % self.asked.len().max(1)).copied() else { return };
        let Some(live) = self.world.machine.run(ask.run_id()) else { return };
        let session = live.session().map_or(SESSIONS[session].to_owned(), ToString::to_string);
        let report = report(&ask, live.attempt, live.token, &session);
        self.world.decide(&kind.map_or(Input::Claimed(report.clone()), |kind| Input::Finished(report, outcome(kind))));
    }

    /// Whatever was said late or twice: no more attempts are ready or running than the limits allow.
    fn check_bounds(&self) {
        for (name, most) in [("queue/default", 3), ("limit/one", 1), ("limit/two", 2)] {
            let name = limit(name);
            let runs = self.asked.iter().filter_map(|ask| self.world.machine.run(ask.run_id()));
            let holding = runs.filter(|run| matches!(run.step.state(), RunState::Ready | RunState::Running));
            let holding = holding.filter(|run| run.limits.contains(&name)).count();
            assert!(holding <= most, "{holding} hold {name}");
        }
    }

    /// Everything that waits goes on, and ends.
    fn drain(&mut self) {
        for round in 0.. {
            self.second += 1;
            self.world.advance_to(self.second);
            self.world.settle();
            self.check_bounds();
            if self.world.machine.live() == 0 {
                return;
            }
            assert!(round < 500, "runs wait for ever");
            for ask in self.asked.clone() {
                let state = state(&self.world, &ask);
                if matches!(state, Some(RunState::Ready | RunState::Running)) {
                    let run = self.world.machine.run(ask.run_id()).expect("live");
                    let session = run.session().map_or("s0".to_owned(), ToString::to_string);
                    let report = report(&ask, run.attempt, run.token, &session);
                    self.world.decide(&Input::Finished(report, outcome(OutcomeKind::Succeeded)));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn limits_hold_whatever_comes_and_nobody_waits_for_ever(actions in proptest::collection::vec(action(), 1..120)) {
        let mut play = Play::new();
        for action in &actions {
            play.act(action);
        }
        play.world.check_restore();
        play.drain();
        play.world.settle();
        for name in ["queue/default", "limit/one", "limit/two"] {
            prop_assert_eq!(play.world.machine.limit(&limit(name)), (0, 0), "{}", name);
        }
        play.world.check_restore();
    }
}
