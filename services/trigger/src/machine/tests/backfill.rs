//! Backfills, and pauses whose fire times are made up for.

use orloj_domain::command::{Command, CommandType, PauseMissed};
use orloj_domain::id::RunId;
use orloj_domain::job_event::FieldError;
use orloj_runtime::driver::Machine;

use super::{Bench, TriggerEvent, TriggerInput, TriggerMachine, at, command, job, told};

const EVERY_10S: &str = r#""schedule":{"every":"10s"}"#;

fn backfill(id: &str, from: i64, until: i64) -> Command {
    Command { from: Some(at(from)), until: Some(at(until)), ..command(CommandType::Backfill, id) }
}

impl Bench {
    fn backfill(&mut self, command: Command) -> String {
        told(&self.send(command))
    }

    fn filled(&mut self, id: &str, second: i64) -> String {
        let run = RunId::of_backfill(&job(), &id.parse().expect("an id"), at(second));
        told(&self.send(Command { run_id: Some(run), ..command(CommandType::RunEnded, &format!("ended-{run}")) }))
    }

    fn tick(&mut self) -> String {
        let second = (self.now.millis() - at(0).millis()) / 1000;
        told(&self.jump_to(second))
    }

    fn errors(&mut self, command: Command) -> Vec<FieldError> {
        let mut events = self.send(command);
        let Some(TriggerEvent::Answered(answer)) = events.pop() else { panic!("answered: {events:?}") };
        assert_eq!(answer.kind.as_str(), "commandRejected");
        answer.errors.clone()
    }
}

#[test]
fn fire_times_from_before_the_job_are_requested_one_after_the_other() {
    let mut bench = Bench::new();
    bench.offer(EVERY_10S);
    assert_eq!(bench.backfill(backfill("b", -30, -5)), "backfillStarted:v1");
    let first = bench.jump_to(0);
    assert_eq!(told(&first), "-30:backfill requested");
    let TriggerEvent::Decided(decision) = &first[0] else { panic!("{first:?}") };
    assert!(decision.reports_end, "the dispatcher is asked to tell");
    assert_eq!(decision.spec.as_ref().map(|spec| spec.priority), Some(0), "live runs go first");
    assert_eq!((decision.fires, decision.command_id.as_ref().map(|id| id.as_str())), (0, Some("b")));
    assert_eq!(bench.tick(), "", "one at a time");
    assert_eq!(bench.filled("b", -20), "", "no run that it waits for");
    assert_eq!(bench.filled("b", -30), "kept");
    assert_eq!(bench.filled("b", -30), "", "a repeat says nothing");
    assert_eq!(bench.tick(), "-20:backfill requested");
    bench.filled("b", -20);
    assert_eq!(bench.tick(), "-10:backfill requested");
    assert_eq!(bench.tick(), "", "the last run is waited for");
    bench.filled("b", -10);
    assert_eq!(bench.tick(), "backfillFinished:v1");
    assert_eq!(bench.tick(), "");
    assert_eq!(told(&bench.jump_to(10)), "10:requested", "the schedule was not touched");
}

#[test]
fn as_many_run_at_a_time_as_was_asked_and_live_fire_times_come_first() {
    let mut bench = Bench::new();
    bench.offer(EVERY_10S);
    bench.jump_to(9);
    bench.backfill(Command { concurrency: Some(2), ..backfill("b", -40, 0) });
    assert_eq!(told(&bench.jump_to(10)), "10:requested -40:backfill requested -30:backfill requested");
    bench.filled("b", -30);
    assert_eq!(bench.tick(), "-20:backfill requested");
}

#[test]
fn a_list_is_requested_whether_paused_or_not_and_nothing_ahead_of_the_cursor() {
    let mut bench = Bench::new();
    bench.offer(EVERY_10S);
    bench.jump_to(20);
    bench.command(CommandType::Pause, "p");
    let fire_times = vec![at(20), at(-50), at(10), at(30)];
    bench.backfill(Command { concurrency: Some(9), fire_times, ..command(CommandType::Backfill, "b") });
    assert_eq!(bench.tick(), "-50:backfill requested 10:backfill requested 20:backfill requested");
    for second in [10, 20, -50] {
        assert_eq!(bench.filled("b", second), "kept");
    }
    assert_eq!(bench.tick(), "backfillFinished:v1");
}

#[test]
fn what_cannot_be_filled_is_refused_by_name() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"},"notBefore":"2027-01-15T07:59:00Z""#);
    let field = |errors: Vec<FieldError>| errors[0].field.clone();
    assert_eq!(field(bench.errors(command(CommandType::Backfill, "a"))), "from");
    assert_eq!(field(bench.errors(backfill("b", 5, 100))), "from", "nothing of it has passed");
    assert_eq!(field(bench.errors(backfill("c", -500, -100))), "from", "before notBefore");
    assert_eq!(field(bench.errors(Command { max: Some(2), ..backfill("d", -30, 0) })), "max");
    let fire_times = vec![at(-10), at(-9)];
    let errors = bench.errors(Command { fire_times, ..command(CommandType::Backfill, "e") });
    assert_eq!((errors[0].field.as_str(), errors[0].value.clone()), ("fireTimes", at(-9).to_string()));
    assert_eq!(bench.backfill(backfill("f", -10, 0)), "backfillStarted:v1");
    assert_eq!(bench.backfill(backfill("f", -10, 0)), "", "the same command again");
    let errors = bench.errors(backfill("g", -10, 0));
    assert_eq!((errors[0].field.as_str(), errors[0].value.as_str()), ("type", "f"));
}

#[test]
fn a_backfill_ends_early_by_cancel_edit_and_delete() {
    let cancel =
        |id: &str| Command { backfill_id: id.parse().ok(), ..command(CommandType::Cancel, &format!("cancel-{id}")) };
    let mut bench = Bench::new();
    bench.offer(EVERY_10S);
    bench.backfill(backfill("b", -30, 0));
    bench.tick();
    assert_eq!(bench.errors(cancel("x"))[0].value, "x");
    assert_eq!(bench.backfill(cancel("b")), "backfillCancelled:v1");
    assert_eq!(bench.filled("b", -30), "", "its run goes on, and tells nobody");
    assert_eq!(bench.tick(), "");
    bench.backfill(backfill("c", -30, 0));
    assert_eq!(told(&bench.offer(r#""schedule":{"every":"20s"}"#)), "backfillCancelled:v1 accepted:v2");
    bench.backfill(backfill("d", -40, 0));
    assert_eq!(told(&bench.delete()), "backfillCancelled:v2 deleted:v2");
    assert_eq!(bench.tick(), "");
}

/// Whatever was saved and whatever was decided after it: the machine goes on where it was.
#[test]
fn a_restored_backfill_goes_on_where_it_was() {
    let mut bench = Bench::new();
    bench.offer(EVERY_10S);
    bench.backfill(Command { concurrency: Some(2), fire_times: vec![at(-30), at(-20)], ..backfill("b", -60, 0) });
    let saved = bench.machine.state(&job()).expect("a job");
    let decisions = bench.jump_to(0);
    assert_eq!(decisions.len(), 2);
    let mut restored = TriggerMachine::new(None);
    restored.replay_state(&saved);
    for event in decisions.iter().chain(&decisions) {
        let TriggerEvent::Decided(decision) = event else { panic!("{event:?}") };
        restored.replay_decision(decision);
    }
    assert_eq!(restored.state(&job()), bench.machine.state(&job()));
    assert_eq!(restored.decide(&TriggerInput::Tick, at(1)), bench.machine.decide(&TriggerInput::Tick, at(1)));
    bench.filled("b", -20);
    let saved = bench.machine.state(&job()).expect("a job");
    let mut restored = TriggerMachine::new(None);
    restored.replay_state(&saved);
    for event in &decisions {
        let TriggerEvent::Decided(decision) = event else { panic!("{event:?}") };
        restored.replay_decision(decision);
    }
    assert_eq!(restored.state(&job()), Some(saved), "older decisions say nothing new");
    bench.filled("b", -30);
    assert_eq!(bench.tick(), "backfillFinished:v1");
    assert_eq!(bench.machine.state(&job()).and_then(|state| state.backfill), None);
}

#[test]
fn fire_times_of_a_pause_are_dropped_or_judged_as_after_an_outage() {
    for (missed, wanted) in [
        (None, "120-130.001:skipped(paused) resumed:v1"),
        (Some(PauseMissed::Drop), "120-130.001:skipped(paused) resumed:v1"),
        (Some(PauseMissed::Accumulate), "resumed:v1"),
    ] {
        let mut bench = Bench::new();
        bench.offer(r#""schedule":{"every":"5s"},"missed":{"policy":"latest","window":"12s"}"#);
        bench.jump_to(115);
        bench.command(CommandType::Pause, "p");
        assert_eq!(told(&bench.jump_to(130)), "");
        assert_eq!(told(&bench.send(Command { missed, ..command(CommandType::Resume, "r") })), wanted, "{missed:?}");
        let after = if missed == Some(PauseMissed::Accumulate) {
            "120:coalesced(misfire) 125:coalesced(misfire) 130:requested"
        } else {
            ""
        };
        assert_eq!(bench.tick(), after, "{missed:?}");
        assert_eq!(told(&bench.jump_to(135)), "135:requested");
        assert_eq!(bench.machine.state(&job()).map(|state| state.cursor), Some(at(135)));
    }
}
