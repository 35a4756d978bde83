//! Jobs that are paused after some failed runs in a row.

use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::RunId;
use orloj_domain::run::RunState;

use super::{Bench, TriggerEvent, at, command, job, told};

const PAUSED_AFTER_3: &str = r#""schedule":{"every":"10s"},"missed":{"policy":"all"},"pauseAfterFailures":3"#;

impl Bench {
    /// The dispatcher says how the run of a fire time has ended.
    fn ended_as(&mut self, second: i64, state: RunState) -> Vec<TriggerEvent> {
        let run = RunId::of_fire_time(&job(), 1, at(second));
        let ended = command(CommandType::RunEnded, &format!("ended-{run}"));
        self.send(Command { run_id: Some(run), run_state: Some(state), ..ended })
    }
}

#[test]
fn three_failures_in_a_row_pause_it_and_a_success_begins_the_count_anew() {
    use RunState::{Cancelled, Dead, Expired, Succeeded};
    let mut bench = Bench::new();
    bench.offer(PAUSED_AFTER_3);
    let TriggerEvent::Decided(decision) = &bench.jump_to(10)[0] else { panic!("a decision") };
    assert!(decision.reports_end, "the dispatcher is asked to tell");
    for (state, wanted) in [(Dead, "kept"), (Expired, "kept"), (Cancelled, ""), (Succeeded, "kept"), (Succeeded, "")] {
        assert_eq!(told(&bench.ended_as(10, state)), wanted, "{state}");
    }
    assert_eq!(told(&bench.ended_as(10, Dead)), "kept");
    assert_eq!(told(&bench.ended_as(20, Dead)), "kept");
    bench.now = at(35);
    let events = bench.ended_as(30, Dead);
    assert_eq!(told(&events), "20:requested(misfire) 30:requested paused:v1");
    let Some(TriggerEvent::Stated { answer, state }) = events.last() else { panic!("{events:?}") };
    assert_eq!(answer.actor.as_deref(), Some("orloj"));
    let reason = answer.reason.as_deref().expect("a reason");
    assert!(reason.starts_with("3 runs in a row failed (`pauseAfterFailures`); the last is "), "{reason}");
    assert_eq!(state.pause.as_ref().map(|pause| pause.reason.as_str()), Some(reason));
    assert_eq!(told(&bench.jump_to(100)), "");
    // One that was under way fails too, or is sent back and succeeds: the pause stays.
    assert_eq!(told(&bench.ended_as(10, Dead)), "kept");
    assert_eq!(told(&bench.ended_as(10, Succeeded)), "kept");
    assert_eq!(told(&bench.command(CommandType::Resume, "r")), "40-100.001:skipped(paused) resumed:v1");
    assert_eq!(told(&bench.ended_as(10, Dead)), "kept", "one failure of three");
    assert_eq!(told(&bench.jump_to(110)), "110:requested");
}

#[test]
fn other_jobs_count_nothing_and_an_edit_forgets() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"}"#);
    let TriggerEvent::Decided(decision) = &bench.jump_to(10)[0] else { panic!("a decision") };
    assert!(!decision.reports_end);
    assert_eq!(told(&bench.ended_as(10, RunState::Dead)), "");

    let mut bench = Bench::new();
    let once = |count| format!(r#""schedule":{{"every":"10s"}},"pauseAfterFailures":{count}"#);
    bench.offer(&once(2));
    assert_eq!(told(&bench.ended_as(10, RunState::Dead)), "kept");
    bench.now = at(5);
    bench.offer(&once(3));
    assert_eq!(told(&bench.ended_as(10, RunState::Dead)), "kept");
    assert_eq!(told(&bench.ended_as(10, RunState::Dead)), "kept");
    assert_eq!(told(&bench.ended_as(10, RunState::Dead)), "paused:v2");
}
