//! Runs that ask for a runner with labels: to whom they go, and what becomes of offers that nobody takes.

use std::collections::BTreeMap;

use orloj_domain::attempt::OutcomeKind;
use orloj_domain::job::OverlapKind;
use orloj_domain::run::RunState;
use orloj_domain::runner::RunnerMessageType;
use orloj_runtime::driver::Machine;
use serde_json::json;

use crate::event::{Event, Input};
use crate::run::Step;
use crate::testing::{Ask, START, World, order, outcome, report, words};

const EU: &[(&str, &str)] = &[("zone", "eu")];
const EU_GPU: &[(&str, &str)] = &[("gpu", "true"), ("zone", "eu")];
const US: &[(&str, &str)] = &[("zone", "us")];

fn ask(number: i64) -> Ask {
    Ask { labels: EU, ..Ask::of("a/b", number) }
}

fn said(events: &[Event]) -> Vec<String> {
    events.iter().map(words).collect()
}

/// A tick, which must be due.
fn tick(world: &mut World) -> Vec<String> {
    assert!(world.machine.next_deadline().is_some_and(|due| due <= world.now()), "nothing is due");
    let events = world.decide(&Input::Tick);
    world.check_restore();
    said(&events)
}

/// The session that a run is offered to.
fn addressee(world: &World, ask: &Ask) -> Option<String> {
    world.machine.run(ask.run_id()).and_then(|run| run.addressee().map(ToString::to_string))
}

/// A report of the session under the token in force.
fn claim(world: &mut World, ask: &Ask, session: &str) -> Vec<String> {
    let run = world.machine.run(ask.run_id()).expect("live");
    let events = world.decide(&Input::Claimed(report(ask, run.attempt, run.token, session)));
    world.check_restore();
    said(&events)
}

fn finish(world: &mut World, ask: &Ask, session: &str, kind: OutcomeKind) -> Vec<String> {
    let run = world.machine.run(ask.run_id()).expect("live");
    let report = report(ask, run.attempt, run.token, session);
    let events = world.decide(&Input::Finished(report, outcome(kind)));
    world.check_restore();
    said(&events)
}

#[test]
fn a_run_waits_for_a_runner_with_its_labels_and_goes_at_once_when_one_comes() {
    let mut world = World::new();
    let ask = ask(0);
    assert_eq!(said(&world.ask(&ask)), ["waiting a1 t0 for zone=eu"]);
    let event = world.events.last().expect("an event");
    assert_eq!((event.state, event.missing_runner.as_deref()), (RunState::Waiting, Some("zone=eu")));
    assert_eq!(event.note.as_deref(), Some("it waits for a runner of queue default with zone=eu that has a free slot"));
    world.check_restore();
    world.beat("us-1", US, 4, false);
    world.beat("bare-1", &[], 4, false);
    assert_eq!(world.machine.next_deadline(), None, "nobody of them has what it asks for");
    world.beat("eu-1", EU_GPU, 4, false);
    assert_eq!(tick(&mut world), ["ready a1 t1 for eu-1"]);
    let offer = world.inbox.last().expect("an offer");
    assert_eq!((offer.kind, offer.session.as_str()), (RunnerMessageType::Offer, "eu-1"));
    let ready = offer.ready.as_ref().expect("the attempt");
    assert_eq!((ready.run_id, ready.token, ready.awaits_start), (ask.run_id(), 1, true));
    assert!(world.ready.is_empty(), "nobody else may take it");
    // Another session of it, or another runner, is told to stop.
    assert_eq!(claim(&mut world, &ask, "us-1"), ["stop us-1: other_session"]);
    assert_eq!(claim(&mut world, &ask, "eu-1"), ["running a1 t1 by eu-1"]);
    assert_eq!(world.inbox.last().map(|word| word.kind), Some(RunnerMessageType::Start));
    assert_eq!(finish(&mut world, &ask, "eu-1", OutcomeKind::Succeeded), ["succeeded a1 t1 -run.state"]);
    assert!(world.state.is_empty());
}

#[test]
fn who_asks_for_no_labels_pays_nothing() {
    let mut world = World::new();
    world.beat("eu-1", EU, 4, false);
    let bare = Ask { labels: &[], ..ask(0) };
    assert_eq!(said(&world.ask(&bare)), ["ready a1 t1"]);
    assert!(!world.ready[0].awaits_start);
    assert_eq!(claim(&mut world, &bare, "any-1"), ["running a1 t1 by any-1"]);
    assert!(world.inbox.is_empty());
}

/// By its lease, or because it says that it drains: the run goes to the next, with a new token.
#[test]
fn what_a_runner_was_offered_goes_to_another_when_it_goes() {
    for is_draining in [false, true] {
        let mut world = World::new();
        let ask = ask(0);
        world.beat("eu-1", EU, 1, false);
        world.ask(&ask);
        assert_eq!(tick(&mut world), ["ready a1 t1 for eu-1"]);
        if is_draining {
            world.beat("eu-1", EU, 1, true);
        } else {
            world.advance_to(15);
            world.expire();
        }
        world.check_restore();
        let run = world.machine.run(ask.run_id()).expect("live");
        assert_eq!((&run.step, run.attempt, run.token), (&Step::Unplaced { was_offered: true }, 1, 1));
        let last = world.inbox.last().expect("a word");
        assert_eq!((last.kind, last.session.as_str(), last.token), (RunnerMessageType::Cancel, "eu-1", 1));
        assert!(world.machine.next_deadline().is_none_or(|due| due > world.now()), "there is nobody");
        world.beat("new-1", EU, 1, false);
        assert_eq!(tick(&mut world), ["ready a1 t2 for new-1"]);
        // The first one comes back and had it in mind: its token is old.
        let stale = report(&ask, 1, 1, "eu-1");
        assert_eq!(said(&world.decide(&Input::Claimed(stale.clone()))), ["stop eu-1: stale"]);
        let ended = Input::Finished(stale, outcome(OutcomeKind::Cancelled));
        assert_eq!(said(&world.decide(&ended)), ["stale"]);
        assert_eq!(claim(&mut world, &ask, "new-1"), ["running a1 t2 by new-1"]);
    }
}

#[test]
fn a_claim_that_comes_after_the_offer_was_taken_back_is_refused() {
    let mut world = World::new();
    let ask = ask(0);
    world.beat("eu-1", EU, 1, false);
    world.ask(&ask);
    tick(&mut world);
    world.beat("eu-1", EU, 1, true);
    let late = report(&ask, 1, 1, "eu-1");
    assert_eq!(said(&world.decide(&Input::Claimed(late.clone()))), ["stop eu-1: stale"]);
    assert_eq!(said(&world.decide(&Input::Finished(late, outcome(OutcomeKind::Cancelled)))), ["stale"]);
    assert_eq!(world.machine.live(), 1);
}

#[test]
fn several_runners_are_filled_by_their_slots_and_no_further() {
    let mut world = World::new();
    world.beat("big-1", EU, 6, false);
    world.beat("small-1", EU, 2, false);
    world.beat("us-1", US, 8, false);
    let asks: Vec<Ask> = (0..12).map(ask).collect();
    for ask in &asks {
        world.ask(ask);
    }
    assert_eq!(tick(&mut world).len(), 8);
    let mut loads: BTreeMap<String, usize> = BTreeMap::new();
    asks.iter().filter_map(|ask| addressee(&world, ask)).for_each(|session| *loads.entry(session).or_default() += 1);
    assert_eq!(loads, [("big-1".to_owned(), 6), ("small-1".to_owned(), 2)].into());
    assert_eq!(world.machine.next_deadline(), Some(START.plus(crate::offer::OFFER_WAIT)), "the others wait");
    // The oldest first, and one for each that has ended.
    let first = asks[0];
    let session = addressee(&world, &first).expect("the first of all");
    claim(&mut world, &first, &session);
    assert!(world.machine.next_deadline().is_some_and(|due| due > world.now()), "it still has the slot");
    finish(&mut world, &first, &session, OutcomeKind::Succeeded);
    assert_eq!(tick(&mut world), [format!("ready a1 t1 for {session}")]);
    assert_eq!(addressee(&world, &asks[8]), Some(session));
}

#[test]
fn equals_are_chosen_by_chance_of_the_run() {
    let mut sessions = std::collections::BTreeSet::new();
    for number in 0..32 {
        let mut world = World::new();
        world.beat("a-1", EU, 4, false);
        world.beat("b-1", EU, 4, false);
        world.ask(&ask(number));
        tick(&mut world);
        sessions.extend(addressee(&world, &ask(number)));
    }
    assert_eq!(sessions.len(), 2, "shards do not all begin with the same one");
}

#[test]
fn higher_priority_goes_first_and_a_minute_is_worth_a_level() {
    let mut world = World::new();
    let low = Ask { priority: 5, ..ask(0) };
    let (high, late) = (Ask { priority: 6, ..ask(1) }, Ask { priority: 6, ..ask(2) });
    world.ask(&low);
    world.advance_to(59);
    world.ask(&high);
    world.advance_to(61);
    world.ask(&late);
    world.beat("eu-1", EU, 1, false);
    for next in [high, low, late] {
        tick(&mut world);
        assert_eq!(addressee(&world, &next).as_deref(), Some("eu-1"), "{next:?}");
        finish(&mut world, &next, "eu-1", OutcomeKind::Succeeded);
    }
}

/// The offer may have been lost, or its runner is busy with what this shard does not know of.
#[test]
fn an_offer_that_nobody_takes_is_repeated_or_goes_to_another() {
    let mut world = World::new();
    let ask = ask(0);
    world.beat("eu-1", EU, 1, false);
    world.ask(&ask);
    tick(&mut world);
    let told = world.events.len();
    for second in [30, 60, 120, 240, 360, 480] {
        world.advance_to(second - 1);
        assert_eq!(world.machine.next_deadline(), Some(START.plus(std::time::Duration::from_secs(second))));
        world.advance_to(second);
        assert_eq!(tick(&mut world), ["ready a1 t1 for eu-1 again"]);
        let offer = world.inbox.last().expect("an offer");
        assert_eq!((offer.kind, offer.token), (RunnerMessageType::Offer, 1));
    }
    assert_eq!(world.events.len(), told, "that is news to nobody else");
    world.beat("free-1", EU, 1, false);
    world.advance_to(600);
    assert_eq!(tick(&mut world), ["ready a1 t2 for free-1", "no longer for eu-1"]);
    assert_eq!(claim(&mut world, &ask, "eu-1"), ["stop eu-1: other_session"]);
    assert_eq!(claim(&mut world, &ask, "free-1"), ["running a1 t2 by free-1"]);
}

#[test]
fn an_order_ends_an_offer_and_its_runner_hears_of_it() {
    let mut world = World::new();
    let ask = Ask { deadline_s: Some(20), ..ask(0) };
    world.beat("eu-1", EU, 1, false);
    world.ask(&ask);
    tick(&mut world);
    assert_eq!(
        said(&world.decide(&Input::Cancel(order(&ask, "c")))),
        ["cancelled a1 t1 cancelled -run.state", "no longer for eu-1"]
    );
    let expiring = Ask { number: 1, version: 1, ..ask };
    world.ask(&expiring);
    tick(&mut world);
    world.advance_to(21);
    assert_eq!(tick(&mut world), ["expired a1 t1 expired -run.state", "no longer for eu-1"]);
    // One that waits for a runner expires too, though nobody has ever had it.
    let lost = Ask { number: 2, version: 2, labels: US, deadline_s: Some(40), ..ask };
    world.ask(&lost);
    world.advance_to(41);
    assert_eq!(tick(&mut world), ["expired a0 t0 expired -run.state"]);
    assert!(world.state.is_empty());
}

#[test]
fn overlap_retries_and_missing_handlers_are_as_for_other_runs() {
    let mut world = World::new();
    world.beat("eu-1", EU, 4, false);
    let first = Ask { overlap: OverlapKind::Queue, max_attempts: 2, ..ask(0) };
    let second = Ask { number: 1, ..first };
    world.ask(&first);
    assert_eq!(said(&world.ask(&second)), ["waiting a1 t0"], "for the first, not for a runner");
    tick(&mut world);
    claim(&mut world, &first, "eu-1");
    assert_eq!(finish(&mut world, &first, "eu-1", OutcomeKind::Failed), ["retrying a2 t1 due 1 -run.state"]);
    world.advance_to(1);
    assert_eq!(tick(&mut world), ["waiting a2 t1 for zone=eu -run.retry"]);
    assert_eq!(tick(&mut world), ["ready a2 t2 for eu-1"]);
    claim(&mut world, &first, "eu-1");
    assert_eq!(finish(&mut world, &first, "eu-1", OutcomeKind::NoHandler), ["waiting a2 t2 due 2"]);
    world.advance_to(2);
    assert_eq!(tick(&mut world), ["waiting a2 t2 for zone=eu"]);
    assert_eq!(tick(&mut world), ["ready a2 t3 for eu-1"]);
    // Its claim was not seen.
    assert_eq!(
        finish(&mut world, &first, "eu-1", OutcomeKind::Succeeded),
        ["succeeded a2 t3 -run.state", "waiting a1 t0 for zone=eu"]
    );
    assert_eq!(tick(&mut world), ["ready a1 t1 for eu-1"]);
}

/// Who waits for a runner holds no limit, and who waits for a limit is offered to nobody.
#[test]
fn limits_are_asked_for_when_there_is_a_runner_and_given_back_with_it() {
    let mut world = World::new();
    world.rule("limit/one", Some(json!({"maxConcurrent": 1})));
    let (first, second) = (Ask { limits: &["one"], ..ask(0) }, Ask { limits: &["one"], ..ask(1) });
    world.ask(&first);
    world.ask(&second);
    world.settle();
    let limit = "limit/one".parse().expect("a limit");
    assert_eq!(world.machine.limit(&limit), (0, 0));
    world.beat("eu-1", EU, 4, false);
    world.settle();
    world.check_restore();
    assert_eq!(world.machine.limit(&limit), (1, 1));
    assert_eq!(addressee(&world, &first).as_deref(), Some("eu-1"));
    assert_eq!(addressee(&world, &second), None);
    // The limit is held for the token: it is told again, whoever else there is.
    world.beat("eu2-1", EU, 4, false);
    world.advance_to(30);
    world.beat("eu-1", EU, 4, false);
    assert_eq!(tick(&mut world), ["ready a1 t1 for eu-1 again"]);
    // Its runner goes: the limit goes back, and the next in line has it while the first asks again.
    world.beat("eu-1", EU, 4, true);
    world.settle();
    world.check_restore();
    assert_eq!(world.machine.limit(&limit), (1, 1));
    assert_eq!(addressee(&world, &first), None);
    assert_eq!(addressee(&world, &second).as_deref(), Some("eu2-1"));
    // Nobody is left when the first gets its turn: it gives the limit back at once.
    claim(&mut world, &second, "eu2-1");
    world.beat("eu2-1", EU, 4, true);
    finish(&mut world, &second, "eu2-1", OutcomeKind::Succeeded);
    world.settle();
    world.check_restore();
    assert_eq!(world.machine.limit(&limit), (0, 0));
    assert_eq!(world.machine.run(first.run_id()).map(|run| run.step), Some(Step::Unplaced { was_offered: false }));
}

#[test]
fn who_holds_limits_moves_after_a_while_and_asks_anew() {
    let mut world = World::new();
    world.rule("limit/one", Some(json!({"maxConcurrent": 1})));
    let ask = Ask { limits: &["one"], ..ask(0) };
    world.beat("eu-1", EU, 4, false);
    world.ask(&ask);
    world.settle();
    world.beat("free-1", EU, 4, false);
    for second in [30, 60, 120, 240] {
        world.advance_to(second);
        assert_eq!(tick(&mut world), ["ready a1 t1 for eu-1 again"]);
    }
    world.advance_to(360);
    assert_eq!(tick(&mut world), ["waiting a1 t1 for zone=eu +limit/one", "no longer for eu-1"]);
    world.settle();
    world.check_restore();
    let run = world.machine.run(ask.run_id()).expect("live");
    assert_eq!((run.token, run.step.state(), run.limits.len()), (2, RunState::Ready, 1));
    assert_eq!(world.machine.limit(&"limit/one".parse().expect("a limit")), (0, 1));
}

/// After a takeover nothing is known of runners before their signs of life are read: offers stand until a lease is over.
#[test]
fn a_restored_machine_leaves_offers_alone_until_it_hears_of_their_runners() {
    let mut world = World::new();
    let ask = ask(0);
    world.beat("eu-1", EU, 1, false);
    world.ask(&ask);
    tick(&mut world);
    world.take_over();
    assert_eq!(addressee(&world, &ask).as_deref(), Some("eu-1"));
    assert_eq!(world.machine.sessions().map(ToString::to_string).collect::<Vec<_>>(), ["eu-1"]);
    let waits = Ask { number: 1, version: 1, ..ask };
    world.ask(&waits);
    assert!(world.machine.next_deadline().is_some_and(|due| due > world.now()), "nobody is known");
    assert_eq!(claim(&mut world, &ask, "eu-1"), ["running a1 t1 by eu-1"]);
    world.beat("eu-1", EU, 2, false);
    assert_eq!(tick(&mut world), ["ready a1 t1 for eu-1"]);
    // Nothing is heard of it any more.
    world.take_over();
    world.advance_to(15);
    world.expire();
    assert_eq!(world.machine.run(waits.run_id()).map(|run| run.step), Some(Step::Unplaced { was_offered: true }));
    assert_eq!(world.machine.run(ask.run_id()), None, "its attempt was its last");
    world.check_restore();
}

/// A runner that goes with an offer says nothing of the target, whatever the attempt before has said.
#[test]
fn an_offer_that_is_taken_back_tells_a_breaker_nothing() {
    let mut world = World::new();
    world.rule("limit/one", Some(json!({"breaker": {"failures": 2}})));
    let ask = Ask { limits: &["one"], max_attempts: 3, ..ask(0) };
    world.beat("eu-1", EU, 4, false);
    world.ask(&ask);
    world.settle();
    claim(&mut world, &ask, "eu-1");
    finish(&mut world, &ask, "eu-1", OutcomeKind::Failed);
    world.advance_to(2);
    world.beat("eu-1", EU, 4, false);
    world.settle();
    assert_eq!(addressee(&world, &ask).as_deref(), Some("eu-1"), "the second attempt is offered");
    world.beat("eu-1", EU, 4, true);
    world.settle();
    assert_eq!(addressee(&world, &ask), None);
    let limit = "limit/one".parse().expect("a limit");
    let state = world.machine.breaker(&limit).map(orloj_domain::limit::Breaker::state);
    assert_ne!(state, Some(orloj_domain::setting::BreakerState::Open), "one failure of two");
    world.check_restore();
}
