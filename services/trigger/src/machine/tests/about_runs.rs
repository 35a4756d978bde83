//! Commands about runs, which the dispatcher answers: the trigger lets them be, unless they do not say which run is meant.

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::RunId;

use super::{Bench, at, command, job, told};

#[test]
fn the_end_of_an_attempt_is_left_to_the_dispatcher() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"1h"}"#);
    let whole = Command {
        run_id: Some(RunId::of_fire_time(&job(), 1, at(10))),
        attempt: Some(1),
        token: Some(1),
        outcome: Some(Outcome::new(OutcomeKind::Succeeded, "")),
        ..command(CommandType::Complete, "c")
    };
    assert_eq!(told(&bench.send(whole.clone())), "");
    assert_eq!(told(&bench.send(Command { outcome: None, ..whole.clone() })), "commandRejected:v1");
    assert_eq!(told(&bench.send(Command { attempt: None, ..whole })), "commandRejected:v1");
}
