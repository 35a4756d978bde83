//! A service that links the client, from the job it publishes to the end of its run: trigger, dispatcher and runner in
//! this process, on a log in memory.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orloj_client::{Answer, AnswerError, ClientError, Connection, Context, Failure, Producer, PublishError, Runner};
use orloj_domain::attempt::{AttemptEventType, OutcomeKind};
use orloj_domain::run::RunState;
use serde::Deserialize;
use support::{ANSWER, Installation, manifest};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invoices {
    tenant: u32,
}

async fn send_invoices(context: Context<Invoices>) -> Result<String, Failure> {
    let tenant = context.payload().tenant;
    context.print(format_args!("{} of {} for {tenant}", context.attempt(), context.job()));
    context.progress(50, "half of it");
    match context.params().get("mode").map(String::as_str) {
        // The first attempt meets a server that is busy.
        Some("busy") if context.attempt() == 1 => Err(Failure::retryable("the mail server is busy")),
        Some("broken") => Err("no number".parse::<u32>().expect_err("no number").into()),
        Some("never") => Err(Failure::permanent("there is no such tenant")),
        Some(_) | None => Ok(format!("sent for {tenant}")),
    }
}

#[test]
fn a_published_job_runs_in_the_service() {
    let installation = Installation::start();
    let running = installation.run(Runner::builder().handler("send-invoices", send_invoices));
    let producer = installation.producer();
    let retry = r#"{"maxAttempts": 2, "backoff": {"initial": "1ms", "max": "1ms"}}"#;
    let text = manifest("monthly", r#"{"name": "send-invoices", "payload": {"tenant": 7}}"#, retry);
    let published = producer.publish(&text).expect("sent");
    assert_eq!(published.accepted(ANSWER).expect("an answer"), Answer::Accepted { version: 1 });
    let job = published.job().clone();
    for (mode, state, attempts, message) in [
        ("fine", RunState::Succeeded, 1, "sent for 7"),
        ("busy", RunState::Succeeded, 2, "sent for 7"),
        ("broken", RunState::Dead, 2, "invalid digit found in string"),
        ("never", RunState::Dead, 1, "there is no such tenant"),
    ] {
        let params = BTreeMap::from([("mode".to_owned(), mode.to_owned())]);
        let command = mode.parse().expect("a command id");
        let run = producer.run_now(&job, &command, params.clone()).expect("sent");
        assert_eq!(producer.run_now(&job, &command, params).expect("sent"), run, "the same command, the same run");
        assert_eq!(installation.end_of(run), state, "{mode}");
        let events = installation.attempts(run);
        let finished: Vec<_> = events.iter().filter(|event| event.kind == AttemptEventType::Finished).collect();
        assert_eq!(finished.len(), attempts, "{mode}");
        let last = finished.last().and_then(|event| event.outcome.clone()).expect("an outcome");
        assert_eq!(last.message.as_deref(), Some(message), "{mode}");
        assert_eq!(events.iter().filter(|event| event.percent == Some(50)).count(), attempts, "{mode}");
        let said = installation.output(run);
        assert!(said.starts_with("1 of billing/monthly for 7\nhalf of it\n"), "{mode}: {said}");
    }
    running.end().expect("a clean end");
}

#[test]
fn a_payload_that_does_not_fit_is_told_by_its_field() {
    let installation = Installation::start();
    let running = installation.run(Runner::builder().handler("send-invoices", send_invoices));
    let producer = installation.producer();
    let handlers = [
        ("text", r#"{"name": "send-invoices", "payload": {"tenant": "x"}}"#, "spec.run.handler.payload.tenant: "),
        ("more", r#"{"name": "send-invoices", "payload": {"tenant": 1, "to": 2}}"#, "spec.run.handler.payload.to: "),
        ("none", r#"{"name": "send-invoices"}"#, "spec.run.handler.payload: "),
    ];
    for (name, handler, said) in handlers {
        let published = producer.publish(&manifest(name, handler, r#"{"maxAttempts": 1}"#)).expect("sent");
        assert_eq!(published.accepted(ANSWER).expect("an answer"), Answer::Accepted { version: 1 });
        let run = producer.run_now(published.job(), &name.parse().expect("an id"), BTreeMap::new()).expect("sent");
        assert_eq!(installation.end_of(run), RunState::Dead);
        let outcomes: Vec<_> = installation.attempts(run).into_iter().filter_map(|event| event.outcome).collect();
        assert_eq!(outcomes.len(), 1, "{name}: tried again in vain");
        assert_eq!(outcomes[0].kind, OutcomeKind::NotStarted);
        let message = outcomes[0].message.as_deref().unwrap_or_default();
        assert!(message.starts_with(said), "{name}: {message}");
    }
    running.end().expect("a clean end");
}

#[test]
fn a_run_waits_for_a_service_that_has_its_handler() {
    let installation = Installation::start();
    let other = installation.run(Runner::builder().handler("remind", send_invoices));
    let producer = installation.producer();
    let handler = r#"{"name": "send-invoices", "payload": {"tenant": 7}}"#;
    let published = producer.publish(&manifest("early", handler, r#"{"maxAttempts": 1}"#)).expect("sent");
    assert_eq!(published.accepted(ANSWER).expect("an answer"), Answer::Accepted { version: 1 });
    let run = producer.run_now(published.job(), &"early".parse().expect("an id"), BTreeMap::new()).expect("sent");
    let message = installation.wait_for("an attempt by whom has not got the handler", || {
        let outcomes = installation.attempts(run).into_iter().filter_map(|event| event.outcome);
        outcomes.filter(|outcome| outcome.kind == OutcomeKind::NoHandler).find_map(|outcome| outcome.message)
    });
    assert!(message.starts_with("spec.run.handler.name: ") && message.contains("`remind`"), "{message}");
    let running = installation.run(Runner::builder().handler("send-invoices", send_invoices));
    assert_eq!(installation.end_of(run), RunState::Succeeded);
    assert!(installation.attempts(run).iter().all(|event| event.attempt == 1), "nothing was used up");
    other.end().expect("a clean end");
    running.end().expect("a clean end");
}

#[test]
fn a_stopped_runner_drains_its_handlers() {
    let installation = Installation::start();
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let builder = Runner::builder().drain_timeout(Duration::from_millis(50)).handler("wait", move |context| {
        let over = Arc::clone(&over);
        async move {
            let context: Context<()> = context;
            context.print("here");
            context.cancelled().await;
            over.store(context.is_cancelled(), Ordering::SeqCst);
            Ok(())
        }
    });
    let running = installation.run(builder);
    let producer = installation.producer();
    let published = producer.publish(&manifest("waits", r#"{"name": "wait"}"#, r#"{"maxAttempts": 1}"#)).expect("sent");
    published.accepted(ANSWER).expect("an answer");
    let run = producer.run_now(published.job(), &"c".parse().expect("an id"), BTreeMap::new()).expect("sent");
    installation.wait_for("its word", || (installation.output(run) == "here\n").then_some(()));
    running.end().expect("a clean end");
    assert!(is_over.load(Ordering::SeqCst), "the handler was told");
    let outcomes: Vec<_> = installation.attempts(run).into_iter().filter_map(|event| event.outcome).collect();
    assert_eq!(outcomes.iter().map(|outcome| outcome.kind).collect::<Vec<_>>(), [OutcomeKind::HandedBack]);
}

#[test]
fn answers_are_those_of_the_trigger() {
    let installation = Installation::start();
    let producer = installation.producer();
    let handler = r#"{"name": "send-invoices", "payload": 1}"#;
    let text = manifest("edited", handler, r#"{"maxAttempts": 1}"#);
    let first = producer.publish(&text).expect("sent");
    let again = producer.publish(&text).expect("sent");
    let edit = producer.publish(&text.replace("\"payload\": 1", "\"payload\": 2")).expect("sent");
    // In any order, and more than once.
    assert_eq!(edit.accepted(ANSWER).expect("an answer"), Answer::Accepted { version: 2 });
    assert_eq!(again.accepted(ANSWER).expect("an answer"), Answer::Unchanged { version: 1 });
    assert_eq!(first.accepted(ANSWER).expect("an answer"), Answer::Accepted { version: 1 });
    assert_eq!(edit.accepted(ANSWER).expect("an answer"), Answer::Accepted { version: 2 });

    // Checked by nobody before the trigger.
    let mut wrong = orloj_domain::manifest::parse_json(&text).expect("a definition");
    Arc::make_mut(&mut wrong.spec).timeout_ms = 0;
    Arc::make_mut(&mut wrong.spec).priority = 10;
    let refused = producer.publish_definition(&wrong).expect("sent");
    let Answer::Rejected { errors } = refused.accepted(ANSWER).expect("an answer") else { panic!("not refused") };
    let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
    assert_eq!(fields, ["spec.priority", "spec.timeout"]);

    // Plainly wrong: refused before it is sent.
    let error = producer.publish(&manifest("bad", r#"{"name": "No Label"}"#, "{}")).expect_err("refused");
    let PublishError::Invalid(errors) = &error else { panic!("{error}") };
    assert_eq!(errors[0].field, "spec.run.handler.name");

    let job = first.job();
    assert_eq!(producer.delete(job).expect("sent").accepted(ANSWER).expect("an answer"), Answer::Deleted);
    let twice = producer.delete(job).expect("sent").accepted(ANSWER).expect("an answer");
    assert!(matches!(twice, Answer::Unchanged { .. }), "{twice:?}");
}

#[test]
fn without_a_trigger_there_is_no_answer_and_that_is_said() {
    let installation = Installation::without_services();
    let producer = installation.producer();
    let published = producer.publish(&manifest("alone", r#"{"name": "h"}"#, "{}")).expect("sent");
    let error = published.accepted(Duration::from_millis(20)).expect_err("nobody answers");
    assert!(matches!(&error, AnswerError::TimedOut { position, .. } if position == published.position()), "{error}");
}

#[test]
fn what_cannot_work_is_refused_by_the_call_that_said_it() {
    let installation = Installation::without_services();
    let with_handler = || Runner::builder().log(installation.log()).handler("h", async |_: Context<()>| Ok(()));
    for (builder, call) in [
        (Runner::builder(), "`.handler(…)`"),
        (with_handler().handler("h", async |_: Context<()>| Ok(())), "`.handler(…)`"),
        (with_handler().handler("No Label", async |_: Context<()>| Ok(())), "`.handler(…)`"),
        (with_handler().slots(0), "`.slots(…)`"),
        (with_handler().label("zone", "eu").label("disk size", "1"), "`.label(…)`"),
        (with_handler().label("", "eu"), "`.label(…)`"),
        (with_handler().id(""), "`.id(…)`"),
        (with_handler().queue("Q"), "`.queue(…)`"),
        (with_handler().lease(Duration::from_millis(1)), "`.lease(…)`"),
    ] {
        let error = builder.build().expect_err(call);
        assert!(matches!(&error, ClientError::Settings(text) if text.starts_with(call)), "{call}: {error}");
    }
    let empty = Arc::new(support::empty_log());
    let error = Producer::connect(Connection::log(empty.clone())).expect_err("no topics");
    assert!(error.to_string().contains("orloj topics apply"), "{error}");
    let runner = Runner::builder().log(empty).handler("h", async |_: Context<()>| Ok(())).build().expect("good");
    assert!(runner.run().expect_err("no topics").to_string().contains("orloj topics apply"));
}
