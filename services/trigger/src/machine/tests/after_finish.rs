//! Jobs whose next fire time is the end of the last run and a delay.

use orloj_domain::command::CommandType;
use orloj_domain::id::RunId;
use orloj_runtime::driver::Machine;

use super::{Bench, TriggerEvent, TriggerInput, TriggerMachine, at, job, told};

const AFTER_10S: &str = r#""schedule":{"afterFinish":"10s"}"#;

impl Bench {
    /// The dispatcher says that the run of this version and fire time has ended.
    fn ended(&mut self, version: i64, second: i64) -> String {
        let run = RunId::of_fire_time(&job(), version, at(second));
        self.run = Some(run);
        told(&self.command(CommandType::RunEnded, &format!("ended-{run}")))
    }
}

#[test]
fn the_delay_counts_from_the_end_of_the_run() {
    let mut bench = Bench::new();
    assert_eq!(told(&bench.offer(AFTER_10S)), "accepted:v1");
    assert_eq!(told(&bench.jump_to(9)), "");
    let first = bench.jump_to(10);
    assert_eq!(told(&first), "10:requested");
    let TriggerEvent::Decided(decision) = &first[0] else { panic!("{first:?}") };
    assert!(decision.reports_end, "the dispatcher is asked to tell");
    // However long the run takes, nothing fires.
    assert_eq!(told(&bench.jump_to(100)), "");
    assert_eq!(bench.ended(1, 11), "", "the end of another run says nothing");
    assert_eq!(bench.ended(2, 10), "", "nor that of another version");
    bench.now = at(120);
    assert_eq!(bench.ended(1, 10), "kept");
    assert_eq!(bench.ended(1, 10), "", "a repeat says nothing");
    assert_eq!(told(&bench.jump_to(129)), "");
    assert_eq!(told(&bench.jump_to(130)), "130:requested");
}

#[test]
fn runs_by_hand_neither_wait_nor_set_the_clock() {
    let mut bench = Bench::new();
    bench.offer(AFTER_10S);
    bench.now = at(5);
    assert_eq!(told(&bench.command(CommandType::RunNow, "r1")), "5:manual requested");
    bench.run = Some(RunId::of_command(&job(), &"r1".parse().expect("a valid id")));
    assert_eq!(told(&bench.command(CommandType::RunEnded, "x")), "");
    assert_eq!(told(&bench.jump_to(10)), "10:requested");
}

#[test]
fn a_pause_ends_with_a_delay_from_its_end() {
    let mut bench = Bench::new();
    bench.offer(AFTER_10S);
    bench.jump_to(10);
    bench.now = at(20);
    assert_eq!(told(&bench.command(CommandType::Pause, "p")), "paused:v1");
    bench.now = at(30);
    assert_eq!(bench.ended(1, 10), "kept", "the end counts although nothing fires now");
    assert_eq!(told(&bench.jump_to(100)), "");
    assert_eq!(told(&bench.command(CommandType::Resume, "r")), "40:skipped(paused) resumed:v1");
    assert_eq!(told(&bench.jump_to(109)), "");
    assert_eq!(told(&bench.jump_to(110)), "110:requested");
}

#[test]
fn a_fire_time_that_was_skipped_is_followed_by_another() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"afterFinish":"10s"},"missed":{"policy":"skip"}"#);
    assert_eq!(told(&bench.jump_to(500)), "10:skipped(misfire)");
    assert_eq!(told(&bench.jump_to(510)), "510:requested");
}

#[test]
fn an_edit_starts_anew_and_a_delete_ends_it() {
    let mut bench = Bench::new();
    bench.offer(AFTER_10S);
    bench.jump_to(10);
    bench.now = at(20);
    assert_eq!(told(&bench.offer(r#""schedule":{"afterFinish":"30s"}"#)), "accepted:v2");
    assert_eq!(bench.ended(1, 10), "");
    assert_eq!(told(&bench.jump_to(50)), "50:requested");
    bench.now = at(60);
    assert_eq!(told(&bench.delete()), "deleted:v2");
    assert_eq!(bench.ended(2, 50), "", "nobody is told of a refusal");
    assert_eq!(told(&bench.jump_to(1000)), "");
}

#[test]
fn a_clock_beside_it_fires_too() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":[{"afterFinish":"10s"},{"every":"1m"}],"overlap":{"policy":"allow"}"#);
    assert_eq!(told(&bench.jump_to(10)), "10:requested");
    assert_eq!(told(&bench.jump_to(60)), "60:requested");
    assert_eq!(bench.ended(1, 10), "", "the newest run is the one that is waited for");
    bench.now = at(61);
    assert_eq!(bench.ended(1, 60), "kept");
    assert_eq!(told(&bench.jump_to(71)), "71:requested");
}

#[test]
fn a_restored_machine_waits_for_the_same_end() {
    let mut bench = Bench::new();
    let mut events = bench.offer(AFTER_10S);
    events.extend(bench.jump_to(10));
    let restore = |events: &[TriggerEvent]| {
        let mut restored = TriggerMachine::new(None);
        let states = events.iter().filter_map(|event| match event {
            TriggerEvent::Stated { state, .. } | TriggerEvent::Kept(state) => Some(state),
            TriggerEvent::Decided(_) | TriggerEvent::Answered(_) | TriggerEvent::Calendars(_) => None,
        });
        states.for_each(|state| restored.replay_state(state));
        for event in events {
            if let TriggerEvent::Decided(decision) = event {
                restored.replay_decision(decision);
            }
        }
        restored
    };
    let waiting = restore(&events);
    assert_eq!((waiting.state(&job()), waiting.next_deadline()), (bench.machine.state(&job()), None));
    bench.now = at(20);
    bench.machine = waiting;
    let before = bench.machine.state(&job());
    assert_eq!(bench.ended(1, 10), "kept");
    assert_ne!(bench.machine.state(&job()), before);
    assert_eq!(bench.machine.next_deadline(), Some(at(30)));
    let tick = bench.machine.decide(&TriggerInput::Tick, at(30));
    assert_eq!(told(&tick), "30:requested");
}

#[test]
fn a_pause_that_finds_a_fire_time_due_waits_for_its_run() {
    let mut bench = Bench::new();
    bench.offer(AFTER_10S);
    bench.now = at(15);
    assert_eq!(told(&bench.command(CommandType::Pause, "p")), "10:requested paused:v1");
    bench.now = at(20);
    assert_eq!(told(&bench.command(CommandType::Resume, "r")), "resumed:v1");
    assert_eq!(told(&bench.jump_to(100)), "", "its run has not ended");
    assert_eq!(bench.ended(1, 10), "kept");
    assert_eq!(told(&bench.jump_to(110)), "110:requested");
}
