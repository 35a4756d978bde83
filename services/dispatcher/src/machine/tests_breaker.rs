//! Breakers of queues and limits: what opens one, who is let through meanwhile, what closes it, through restarts and whatever
//! is late or said twice; and limits of hosts.

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::id::LimitId;
use orloj_domain::job::Delivery;
use orloj_domain::run::RunState;
use orloj_domain::setting::BreakerState;
use orloj_runtime::driver::Machine as _;
use serde_json::json;

use crate::event::{Event, Input};
use crate::testing::{Ask, World, order, outcome, report, words};

const QUEUE: &str = "queue/default";

fn limit(text: &str) -> LimitId {
    text.parse().expect("limit")
}

fn state(world: &World, ask: &Ask) -> Option<RunState> {
    world.machine.run(ask.run_id()).map(|run| run.step.state())
}

/// Ends the attempt that a run is at.
fn finish(world: &mut World, ask: &Ask, kind: OutcomeKind, http_status: Option<i32>) -> Vec<Event> {
    let run = world.machine.run(ask.run_id()).expect("live");
    let mut outcome = outcome(kind);
    outcome.http_status = http_status;
    let events = world.decide(&Input::Finished(report(ask, run.attempt, run.token, "s0"), outcome));
    world.settle();
    world.check_restore();
    events
}

/// A run is asked for, and ends so.
fn run_to_end(world: &mut World, ask: &Ask, kind: OutcomeKind) {
    world.ask(ask);
    world.settle();
    assert_eq!(state(world, ask), Some(RunState::Ready), "it is let through");
    finish(world, ask, kind, None);
}

/// A queue or limit that two failures within a minute open for ten seconds.
fn world(limit: &str) -> World {
    let mut world = World::new();
    let breaker = json!({"failures": 2, "window": "1m", "openFor": "10s", "maxOpenFor": "15s"});
    world.rule(limit, Some(json!({"breaker": breaker})));
    world
}

fn turns(world: &World) -> Vec<(BreakerState, u64)> {
    let began = crate::testing::START;
    world.turns.iter().map(|turn| (turn.state, turn.at.since(began).as_secs())).collect()
}

fn ready(world: &World, asks: &[Ask]) -> usize {
    asks.iter().filter(|ask| state(world, ask) == Some(RunState::Ready)).count()
}

#[test]
fn dead_letters_open_a_queue_and_a_run_that_succeeds_closes_it() {
    let mut world = world(QUEUE);
    let asks: Vec<Ask> = (0..8).map(|number| Ask::of("a/b", number)).collect();
    run_to_end(&mut world, &asks[0], OutcomeKind::Failed);
    run_to_end(&mut world, &asks[1], OutcomeKind::Succeeded);
    assert_eq!(world.turns, []);
    run_to_end(&mut world, &asks[2], OutcomeKind::TimedOut);
    let opened = world.turns.last().expect("it opens").clone();
    assert_eq!((opened.state, opened.failures, opened.ended, opened.window_ms), (BreakerState::Open, 2, 0, 60_000));
    assert_eq!((opened.run_id, opened.job.as_ref()), (Some(asks[2].run_id()), Some(&asks[2].job_id())));
    assert_eq!(opened.until, Some(opened.at.plus(std::time::Duration::from_secs(10))));
    assert_eq!(opened.reason.as_deref(), Some("2 dead letters within 1m"));
    for ask in &asks[3..6] {
        world.ask(ask);
    }
    world.settle();
    world.advance_to(9);
    world.settle();
    assert_eq!((ready(&world, &asks), world.dead.len()), (0, 2), "they wait and do not die");
    world.machine = world.restored();
    assert_eq!(world.machine.breakers(BreakerState::Open), 1);
    world.advance_to(10);
    world.settle();
    assert_eq!((ready(&world, &asks), turns(&world)[1..].to_vec()), (1, vec![(BreakerState::HalfOpen, 10)]));
    world.check_restore();
    world.machine = world.restored();
    world.settle();
    assert_eq!(ready(&world, &asks), 1, "after a restart too there is one that tries");
    let probe = *asks.iter().find(|ask| state(&world, ask) == Some(RunState::Ready)).expect("one");
    finish(&mut world, &probe, OutcomeKind::Succeeded, None);
    assert_eq!((ready(&world, &asks), turns(&world)[2..].to_vec()), (2, vec![(BreakerState::Closed, 10)]));
    assert_eq!((world.machine.breaker(&limit(QUEUE)), world.turns[2].run_id), (None, Some(probe.run_id())));
    // What was counted before is forgotten.
    run_to_end(&mut world, &asks[6], OutcomeKind::Failed);
    assert_eq!(world.turns.len(), 3);
    run_to_end(&mut world, &asks[7], OutcomeKind::Failed);
    assert_eq!(world.turns.len(), 4);
}

#[test]
fn a_run_that_fails_while_it_tries_opens_it_again_for_twice_as_long() {
    let mut world = world(QUEUE);
    // Each is tried again, but two.
    let asks: Vec<Ask> = (0..5).map(|number| Ask { max_attempts: 3, ..Ask::of("a/b", number) }).collect();
    let dying: Vec<Ask> = (5..7).map(|number| Ask::of("a/c", number)).collect();
    for ask in &asks {
        world.ask(ask);
    }
    world.settle();
    assert_eq!(ready(&world, &asks), 5);
    let late = asks[4];
    for ask in &asks[..4] {
        finish(&mut world, ask, OutcomeKind::Failed, None);
    }
    assert_eq!(world.turns, [], "a failure after which a run is tried again is no dead letter");
    for ask in &dying {
        run_to_end(&mut world, ask, OutcomeKind::Failed);
    }
    assert_eq!(turns(&world), [(BreakerState::Open, 0)]);
    for (tries_at, opens_for) in [(10, 15), (25, 15)] {
        world.advance_to(tries_at);
        world.settle();
        assert_eq!(ready(&world, &asks[..4]), 1);
        let probe = *asks[..4].iter().find(|ask| state(&world, ask) == Some(RunState::Ready)).expect("one");
        if tries_at == 10 {
            // It was let through before the breaker opened: what it says is not what is asked.
            finish(&mut world, &late, OutcomeKind::Succeeded, None);
            assert_eq!(world.machine.breakers(BreakerState::HalfOpen), 1);
            assert_eq!(ready(&world, &asks[..4]), 1);
        }
        finish(&mut world, &probe, OutcomeKind::Failed, None);
        let opened = world.turns.last().expect("it opens again");
        assert_eq!((opened.state, opened.open_for_ms), (BreakerState::Open, opens_for * 1000));
        assert_eq!(opened.reason.as_deref(), Some("the one that was let through to try has failed"));
        assert_eq!(ready(&world, &asks[..4]), 0);
    }
}

#[test]
fn one_that_tries_and_says_nothing_makes_room_for_another() {
    let mut world = world(QUEUE);
    let asks: Vec<Ask> = (0..8).map(|number| Ask::of("a/b", number)).collect();
    run_to_end(&mut world, &asks[0], OutcomeKind::Failed);
    run_to_end(&mut world, &asks[1], OutcomeKind::Failed);
    for ask in &asks[2..] {
        world.ask(ask);
    }
    world.advance_to(10);
    world.settle();
    let mut tried = Vec::new();
    for kind in [None, Some(OutcomeKind::Cancelled), Some(OutcomeKind::Expired)] {
        let probe = *asks.iter().find(|ask| state(&world, ask) == Some(RunState::Ready)).expect("one tries");
        tried.push(probe.number);
        match kind {
            None => drop(world.decide(&Input::Cancel(order(&probe, "c")))),
            Some(kind) => drop(finish(&mut world, &probe, kind, None)),
        }
        world.settle();
        world.check_restore();
        assert_eq!((ready(&world, &asks), world.machine.breakers(BreakerState::HalfOpen)), (1, 1));
    }
    let left: Vec<_> = asks.iter().filter(|ask| state(&world, ask).is_some()).collect();
    assert_eq!((tried.len(), left.len()), (3, 3));
}

#[test]
fn a_word_that_comes_twice_or_for_nothing_is_counted_once_or_not() {
    let mut world = world(QUEUE);
    let ask = Ask::of("a/b", 0);
    world.ask(&ask);
    world.settle();
    world.decide(&Input::Finished(report(&ask, 1, 1, "s0"), outcome(OutcomeKind::Failed)));
    let said = world.said.front().cloned().expect("it gives back");
    world.said.extend([said.clone(), said]);
    world.settle();
    assert_eq!(world.turns, [], "three words about one end");
    world.check_restore();
    // One that never held it: its word comes before its grant is read, or its grant was lost.
    let lost = Ask::of("a/b", 1);
    world.ask(&lost);
    world.said.clear();
    world.decide(&Input::Cancel(order(&lost, "c")));
    world.settle();
    assert_eq!(world.turns, []);
}

#[test]
fn a_lost_runner_says_nothing_of_a_limit_and_a_dead_letter_counts_for_its_queue() {
    for (name, wanted) in [("limit/db", vec![]), (QUEUE, vec![(BreakerState::Open, 0)])] {
        let mut world = world(name);
        for number in 0..2 {
            let ask = Ask { limits: &["db"], delivery: Delivery::AtMostOnce, ..Ask::of("a/b", number) };
            let ask = if name == QUEUE { Ask { limits: &[], ..ask } } else { ask };
            world.ask(&ask);
            world.settle();
            world.decide(&Input::Claimed(report(&ask, 1, 1, "s0")));
            world.decide(&Input::SessionExpired("s0".parse().expect("session")));
            world.settle();
        }
        assert_eq!(world.dead.len(), 2);
        assert_eq!(turns(&world), wanted, "{name}");
    }
}

#[test]
fn a_breaker_that_is_taken_out_of_the_manifest_lets_all_through() {
    for rule in [None, Some(json!({"maxConcurrent": 50}))] {
        let mut world = world(QUEUE);
        let asks: Vec<Ask> = (0..5).map(|number| Ask::of("a/b", number)).collect();
        run_to_end(&mut world, &asks[0], OutcomeKind::Failed);
        run_to_end(&mut world, &asks[1], OutcomeKind::Failed);
        for ask in &asks[2..] {
            world.ask(ask);
        }
        world.settle();
        // Another edit keeps it open.
        world.rule(QUEUE, Some(json!({"maxConcurrent": 2, "breaker": {"failures": 5, "openFor": "10s"}})));
        world.settle();
        assert_eq!((ready(&world, &asks), world.machine.breakers(BreakerState::Open)), (0, 1));
        world.rule(QUEUE, rule);
        world.settle();
        assert_eq!((ready(&world, &asks), world.machine.breaker(&limit(QUEUE))), (3, None));
        let closed = world.turns.last().expect("a turn");
        assert_eq!((closed.state, closed.run_id), (BreakerState::Closed, None));
        world.check_restore();
        assert!(!world.state.keys().any(|(_, key)| key.starts_with(b"breaker:")), "nothing is kept of it");
    }
}

#[test]
fn runs_with_a_target_at_a_host_need_its_limit() {
    let mut world = World::new();
    world.rule("limit/api", Some(json!({"host": "example.com", "breaker": {"failures": 2, "openFor": "10s"}})));
    world.rule("limit/tls", Some(json!({"host": "example.com:443", "maxConcurrent": 1})));
    world.rule("limit/other", Some(json!({"host": "example.org", "maxConcurrent": 1})));
    let called = |number| Ask { has_callback: true, max_attempts: 9, ..Ask::of("a/http", number) };
    let (first, program) = (called(0), Ask::of("a/exec", 7));
    world.ask(&program);
    assert_eq!(world.said.len(), 0, "a program is at no host");
    world.ask(&first);
    world.settle();
    let limits = world.machine.run(first.run_id()).expect("live").limits;
    assert_eq!(limits.iter().map(LimitId::as_str).collect::<Vec<_>>(), ["limit/api", "limit/tls"]);
    // An answer that refuses the request shows that the host works.
    finish(&mut world, &first, OutcomeKind::Failed, Some(404));
    for (number, status) in [(1, None), (2, Some(503))] {
        world.ask(&called(number));
        world.settle();
        assert_eq!(world.turns, []);
        finish(&mut world, &called(number), OutcomeKind::Failed, status);
    }
    assert_eq!(turns(&world), [(BreakerState::Open, 0)]);
    assert_eq!(world.turns[0].reason.as_deref(), Some("2 failed attempts within 1m"));
    world.ask(&called(3));
    world.advance_to(10);
    world.settle();
    let probe = (0..4).map(called).find(|ask| state(&world, ask) == Some(RunState::Ready)).expect("one tries");
    finish(&mut world, &probe, OutcomeKind::Failed, Some(400));
    assert_eq!(turns(&world)[1..], [(BreakerState::HalfOpen, 10), (BreakerState::Closed, 10)]);
}

#[test]
fn a_run_goes_on_whose_host_has_a_limit_no_more() {
    let mut world = World::new();
    world.rule("limit/api", Some(json!({"host": "example.com", "paused": true})));
    let (by_host, by_name) =
        (Ask { has_callback: true, ..Ask::of("a/b", 0) }, Ask { limits: &["api"], ..Ask::of("a/c", 1) });
    world.ask(&by_host);
    world.ask(&by_name);
    world.settle();
    world.rule("limit/api", None);
    world.settle();
    assert_eq!((state(&world, &by_host), state(&world, &by_name)), (Some(RunState::Waiting), Some(RunState::Waiting)));
    world.advance_to(600);
    world.settle();
    assert_eq!((state(&world, &by_host), state(&world, &by_name)), (Some(RunState::Ready), Some(RunState::Waiting)));
    world.check_restore();
    finish(&mut world, &by_host, OutcomeKind::Succeeded, None);
    assert_eq!(world.machine.limit(&limit("limit/api")), (1, 0), "it leaves the line that it left behind");
}

#[test]
fn a_turn_is_told_in_words() {
    let mut world = world(QUEUE);
    for number in 0..2 {
        run_to_end(&mut world, &Ask::of("a/b", number), OutcomeKind::Failed);
    }
    world.advance_to(10);
    let events: Vec<String> = world.decide(&Input::Tick).iter().map(words).collect();
    let wanted = "queue/default is halfOpen: it was open for long enough: one at a time is let through to try";
    assert_eq!(events, [wanted]);
    assert_eq!(world.machine.next_deadline(), world.restored().next_deadline());
}
