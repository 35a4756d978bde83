//! What the read routes answer of runs that had two attempts at once. Invariant: as in `reads`.

mod world;

use std::io::{BufRead as _, BufReader};

use orloj_domain::attempt::{AttemptEventType, Outcome, OutcomeKind};
use orloj_domain::run::{EndedAttempt, RunEvent, RunHedge, RunState};
use orloj_domain::topic;
use serde_json::{Value, json};
use world::records::{self, about, at, job, run_of};
use world::{World, log};

fn world() -> (World, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (World::start(&log(), directory.path()), directory)
}

#[test]
fn two_attempts_side_by_side_show_how_each_of_them_ended() {
    let (world, _directory) = world();
    let job = job("billing/nightly");
    let id = run_of(&job, 0);
    let hedged = RunEvent {
        hedge: Some(RunHedge { attempt: 2, token: 2, runner: None }),
        ..records::step(&job, 0, RunState::Running, 1, 1)
    };
    for record in [
        records::requested(&job, 0),
        records::report(&job, 0, AttemptEventType::Claimed, 1, "s-1"),
        about(topic::RUN_EVENTS, &job, &hedged),
    ] {
        world.fold(record);
    }
    let run = world.get(&format!("/api/v1/runs/{id}")).json();
    let shown = |run: &Value, path: &str| -> Vec<Value> {
        let attempts = run["attempts"].as_array().expect("a list");
        attempts.iter().map(|attempt| attempt.pointer(path).cloned().unwrap_or_default()).collect()
    };
    assert_eq!(shown(&run, "/hedge"), [json!(false), json!(true)], "one on its queue is shown");
    assert_eq!(shown(&run, "/runner"), [json!("runner-1"), json!(null)]);

    let end = |attempt, kind, message| EndedAttempt {
        attempt,
        token: i64::from(attempt),
        at: at(20),
        outcome: Outcome::new(kind, message),
    };
    let first = "another attempt of the run was first";
    let succeeded = RunEvent {
        outcome: Some(Outcome::new(OutcomeKind::Succeeded, "")),
        ended_attempts: vec![end(2, OutcomeKind::Succeeded, ""), end(1, OutcomeKind::Cancelled, first)],
        ..records::step(&job, 0, RunState::Succeeded, 2, 2)
    };
    world.fold(about(topic::RUN_EVENTS, &job, &succeeded));
    let run = world.get(&format!("/api/v1/runs/{id}")).json();
    assert_eq!(shown(&run, "/outcome/kind"), [json!("cancelled"), json!("succeeded")]);
    assert_eq!(run["attempts"][0]["outcome"]["message"], first);
    assert_eq!(shown(&run, "/finishedAt"), [json!(at(20).to_string()), json!(at(20).to_string())]);
    assert_eq!((&run["state"], &run["attempt"]), (&json!("succeeded"), &json!(2)));
    // The claim of the second one comes from another topic, and may come last.
    world.fold(records::report(&job, 0, AttemptEventType::Claimed, 2, "s-2"));
    let run = world.get(&format!("/api/v1/runs/{id}")).json();
    assert_eq!(shown(&run, "/session"), [json!("s-1"), json!("s-2")]);
    assert_eq!(shown(&run, "/hedge"), [json!(false), json!(true)]);
    // What the other one's runner says of it in the end is known best there.
    world.fold(records::report(&job, 0, AttemptEventType::Finished, 1, "s-1"));
    let run = world.get(&format!("/api/v1/runs/{id}")).json();
    assert_eq!(shown(&run, "/outcome/kind"), [json!("failed"), json!("succeeded")]);
}

#[test]
fn one_of_two_attempts_that_failed_has_ended_although_the_run_goes_on() {
    let (world, _directory) = world();
    let job = job("billing/nightly");
    let outcome = Outcome::new(OutcomeKind::LeaseLost, "silent");
    let goes_on = RunEvent {
        ended_attempts: vec![EndedAttempt { attempt: 1, token: 1, at: at(20), outcome }],
        ..records::step(&job, 0, RunState::Running, 2, 2)
    };
    for record in [
        records::requested(&job, 0),
        records::report(&job, 0, AttemptEventType::Claimed, 1, "s-1"),
        records::report(&job, 0, AttemptEventType::Claimed, 2, "s-2"),
        about(topic::RUN_EVENTS, &job, &goes_on),
        records::report(&job, 0, AttemptEventType::Finished, 1, "s-1"),
    ] {
        world.fold(record);
    }
    let run = world.get(&format!("/api/v1/runs/{}", run_of(&job, 0))).json();
    assert_eq!((&run["state"], &run["attempt"]), (&json!("running"), &json!(2)));
    assert_eq!(run["attempts"][0]["outcome"]["kind"], "leaseLost");
    assert_eq!(run["attempts"][0]["lateResult"]["kind"], "failed");
    assert_eq!(run["attempts"][1]["finishedAt"], json!(null));
}

#[test]
fn a_stream_has_what_two_attempts_write_side_by_side() {
    let (world, _directory) = world();
    let job = job("a/b");
    let path = format!("/api/v1/runs/{}/output", run_of(&job, 0));
    for record in [
        records::requested(&job, 0),
        records::report(&job, 0, AttemptEventType::Started, 1, "s-1"),
        records::report(&job, 0, AttemptEventType::Started, 2, "s-2"),
        records::output(&job, 0, 2, 0, &[b"second\n"], false),
    ] {
        world.fold(record);
    }
    let follow = |last_seen: Option<&str>| {
        let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
        let mut request = agent.get(format!("{}{path}", world.address)).header("Accept", "text/event-stream");
        if let Some(seen) = last_seen {
            request = request.header("Last-Event-ID", seen);
        }
        let lines = BufReader::new(request.call().expect("a stream").into_body().into_reader()).lines();
        lines.map(|line| line.expect("a line")).filter(|line| line.starts_with("id: "))
    };
    let mut ids = follow(None);
    assert_eq!(ids.next().as_deref(), Some("id: 2.0.0"));
    world.append(records::output(&job, 0, 1, 0, &[b"first, later\n"], false));
    assert_eq!(ids.next().as_deref(), Some("id: 1.0.0,2.0.0"));
    world.append(records::output(&job, 0, 2, 1, &[b"second\n"], true));
    assert_eq!(ids.next().as_deref(), Some("id: 1.0.0,2.1.0"));
    world.append(records::output(&job, 0, 1, 1, &[b"first\n"], true));
    assert_eq!(ids.next().as_deref(), Some("id: 1.1.0,2.1.0"));
    world.append(records::ended(&job, 0, RunState::Succeeded, 1, OutcomeKind::Succeeded));
    assert_eq!(ids.next(), None, "it ends with the run");
    let again: Vec<String> = follow(Some("1.0.0,2.0.0")).collect();
    assert_eq!(again, ["id: 1.1.0,2.0.0", "id: 1.1.0,2.1.0"], "who comes back gets the rest");
}
