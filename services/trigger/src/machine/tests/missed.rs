//! Outages that are long beside what is judged one by one: how much of it `all` asks for, and over how many ticks.

use orloj_runtime::driver::Machine;

use super::{Bench, Decision, TriggerEvent, TriggerInput, at, told};

#[test]
fn all_asks_for_as_many_as_it_says() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"1m"},"missed":{"policy":"all","window":"24h","max":5000}"#);
    let events = bench.jump_to(86_400);
    assert_eq!(events.len(), 1440);
    for (minute, event) in (1..).zip(&events) {
        let TriggerEvent::Decided(decision) = event else { panic!("{event:?}") };
        assert_eq!((decision.fire_time, decision.decision), (at(minute * 60), Decision::Requested));
    }
}

#[test]
fn very_many_are_asked_for_over_some_ticks_and_what_is_older_is_one_range() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"1s"},"missed":{"policy":"all","window":"24h","max":5000}"#);
    bench.now = at(8000);
    let (mut sizes, mut events) = (Vec::new(), Vec::new());
    while bench.machine.next_deadline().is_some_and(|due| due <= bench.now) {
        let some = bench.give(&TriggerInput::Tick);
        assert!(!some.is_empty(), "due, but nothing was decided");
        sizes.push(some.len());
        events.extend(some);
    }
    assert_eq!(sizes, [2000, 2000, 1003]);
    assert_eq!(told(&events[..2]), "1-2998.001:skipped(misfire) 2999:requested(misfire)");
    assert_eq!(told(&events[5000..]), "7998:requested(misfire) 7999:requested 8000:requested");
}

/// Wide jitter keeps thousands waiting at a time: what is due first is among the oldest of them, not the newest.
#[test]
fn thousands_that_wait_for_their_jitter_hold_up_nothing() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"},"jitter":"24h","missed":{"policy":"all","window":"24h","max":10000}"#);
    let mut decided = 0;
    while let Some(due) = bench.machine.next_deadline().filter(|due| *due <= at(59 * 3600)) {
        bench.now = due;
        let events = bench.give(&TriggerInput::Tick);
        assert!(!events.is_empty(), "due at {due}, but nothing was decided");
        for event in events {
            let TriggerEvent::Decided(decision) = event else { panic!("{event:?}") };
            decided += 1;
            assert_eq!(decision.fire_time, at(decided * 10), "one after the other, and none left out");
            assert_eq!(decision.decision, Decision::Requested);
        }
    }
    bench.now = at(59 * 3600);
    // All but those of the last day, more or less: each waits for those before it.
    assert!((8640..21_000).contains(&decided), "{decided}");
    let events = bench.offer(r#""schedule":{"every":"1h"}"#);
    assert_eq!(told(&events), format!("{}-212400.001:skipped(superseded) accepted:v2", (decided + 1) * 10));
}

/// What a fire time became part of was requested, and by the same version.
#[test]
fn nothing_becomes_part_of_a_fire_time_beyond_the_last() {
    for policy in ["skip", "latest", "all"] {
        for (max, until) in [(1, 3), (2, 3), (1, 90), (2, 90), (3, 3000), (40, 3000)] {
            let mut bench = Bench::new();
            let missed = format!(r#""missed":{{"policy":"{policy}","window":"1h","max":7}}"#);
            bench.offer(&format!(r#""schedule":{{"every":"1s"}},"maxFires":{max},{missed}"#));
            let events = bench.jump_to(until);
            let mut decisions = Vec::new();
            for event in &events {
                let TriggerEvent::Decided(decision) = event else { panic!("{event:?}") };
                decisions.push(decision);
            }
            let is_requested = |at| decisions.iter().any(|it| it.fire_time == at && it.decision == Decision::Requested);
            let parts = decisions.iter().filter_map(|it| it.coalesced_into);
            let lost: Vec<_> = parts.filter(|into| !is_requested(*into)).collect();
            assert!(lost.is_empty(), "{policy}, {max} until {until}: {}", told(&events));
            let requested = decisions.iter().filter(|it| it.decision == Decision::Requested).count();
            assert!((1..=max).contains(&requested), "{policy}, {max} until {until}: {}", told(&events));
        }
    }
}

#[test]
fn an_edit_settles_all_that_is_asked_for_at_once() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"1s"},"missed":{"policy":"all","window":"24h","max":5000}"#);
    bench.now = at(8000);
    let events = bench.offer(r#""schedule":{"every":"1h"}"#);
    assert_eq!(events.len(), 5004);
    assert_eq!(told(&events[5001..]), "7999:requested 8000:requested accepted:v2");
}

#[test]
fn what_a_schedule_owed_when_it_ended_is_found_however_long_ago_that_was() {
    for policy in ["skip", "latest", "all"] {
        let mut bench = Bench::new();
        let missed = format!(r#""missed":{{"policy":"{policy}","window":"1h","max":7}}"#);
        bench.offer(&format!(r#""schedule":{{"every":"1s"}},"notAfter":"{}",{missed}"#, at(5000)));
        assert_eq!(told(&bench.jump_to(365 * 86_400)), "1-4999.001:skipped(misfire)", "{policy}");
        assert_eq!(bench.machine.next_deadline(), None);
    }
}
