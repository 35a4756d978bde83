//! `POST /attempts/{id}/complete`: who may say how an attempt ended, when, and what is then on the log. Not here: what comes of
//! it. Invariant: what was refused is not on the log, and no token is.

mod world;

use std::time::Duration;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, OutcomeKind};
use orloj_domain::callback::CallbackToken;
use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::JobId;
use orloj_domain::run::RunState;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Isolation, Log, NewRecord, Position, TopicPartition};
use serde_json::{Value, json};
use world::records::{self, about, ended, job, report, requested, step};
use world::{Answer, World, append, log};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const OTHER: &str = "1123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const SUCCEEDED: &str = r#"{"outcome": "succeeded", "message": "42 invoices"}"#;

fn started(job: &JobId, attempt: i64, token: Option<&str>) -> NewRecord {
    let record = report(job, 0, AttemptEventType::Started, attempt, "s");
    let event: AttemptEvent = codec::decode(record.value.as_deref().expect("a value")).expect("a report");
    let digest = token.map(|token| CallbackToken::new(token).expect("a token").digest().to_string());
    about(topic::ATTEMPT_EVENTS, job, &AttemptEvent { callback_digest: digest, ..event })
}

struct Bed {
    world: World,
    job: JobId,
    _directory: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let world = World::start(&log(), directory.path());
        Self { world, job: job("billing/nightly"), _directory: directory }
    }

    fn run(&self) -> String {
        records::run_of(&self.job, 0).to_string()
    }

    /// The first attempt was claimed and started, with a callback's token or without.
    fn start(&self, token: Option<&str>) {
        self.world.fold(requested(&self.job, 0));
        self.world.fold(about(topic::RUN_EVENTS, &self.job, &step(&self.job, 0, RunState::Running, 1, 1)));
        self.world.fold(report(&self.job, 0, AttemptEventType::Claimed, 1, "s"));
        self.world.fold(started(&self.job, 1, token));
    }

    fn complete(&self, attempt: i32, token: Option<&str>, body: &str) -> Answer {
        let path = format!("/api/v1/attempts/{}.{attempt}/complete?timeout=0s", self.run());
        let bearer = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<(&str, &str)> = bearer.iter().map(|text| ("Authorization", text.as_str())).collect();
        self.world.ask("POST", &path, &headers, Some(body))
    }

    /// Commands on the log.
    fn commands(&self) -> Vec<Command> {
        let mut commands = Vec::new();
        for partition in 0..world::SHARDS {
            let at = TopicPartition::new(topic::COMMANDS, partition);
            let end = self.world.log.end(&at, Isolation::Committed).expect("there");
            let mut reader = self.world.log.reader(Isolation::Committed).expect("a reader");
            reader.read_from(&[(at, 0)]).expect("there");
            let mut next = 0;
            while next < end {
                for record in reader.poll(100, Duration::from_secs(10)).expect("readable") {
                    next = record.offset + 1;
                    commands.push(codec::decode(record.value.as_deref().expect("a value")).expect("a command"));
                }
            }
        }
        commands
    }
}

fn refused(answer: &Answer, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{}", answer.text);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    assert!(!answer.text.contains(TOKEN) && !answer.text.contains(OTHER), "{}", answer.text);
}

#[test]
fn the_token_of_the_attempt_completes_it() {
    let bed = Bed::new();
    bed.start(Some(TOKEN));
    let attempt = &bed.world.get(&format!("/api/v1/runs/{}", bed.run())).json()["attempts"][0];
    assert_eq!(attempt["awaitsCallback"], true, "{attempt}");
    let done = bed.complete(1, Some(TOKEN), SUCCEEDED);
    assert_eq!(done.status, 202, "{}", done.text);
    let position: Position = done.header("log-position").expect("a position").parse().expect("readable");
    assert_eq!(position.topic, topic::COMMANDS);
    let id = format!("{}.1", bed.run());
    assert_eq!((&done.json()["attemptId"], &done.json()["outcome"]["kind"]), (&json!(id), &json!("succeeded")));
    let failed = r#"{"outcome": "failed", "message": "no such tenant", "final": true, "retryAfter": "30s"}"#;
    assert_eq!(bed.complete(1, Some(TOKEN), failed).status, 202, "the dispatcher decides which was first");
    let commands = bed.commands();
    let facts = |command: &Command| (command.kind, command.run_id, command.attempt, command.token);
    let of_attempt = (CommandType::Complete, Some(records::run_of(&bed.job, 0)), Some(1), Some(1));
    assert!(commands.len() == 2 && commands.iter().all(|command| facts(command) == of_attempt), "{commands:?}");
    let outcomes: Vec<_> = commands.iter().map(|command| command.outcome.clone().expect("an outcome")).collect();
    assert_eq!((outcomes[0].kind, outcomes[0].message.as_deref()), (OutcomeKind::Succeeded, Some("42 invoices")));
    assert_eq!((outcomes[1].kind, outcomes[1].is_final), (OutcomeKind::Failed, true));
    assert_eq!(outcomes[1].retry_after_ms, Some(30_000));
    let careless = format!(r#"{{"outcome": "failed", "message": "sent by {TOKEN}"}}"#);
    assert_eq!(bed.complete(1, Some(TOKEN), &careless).status, 202);
    let path = format!("/api/v1/attempts/{id}/complete");
    let headers = [("Authorization", &*format!("Bearer {TOKEN}")), ("Idempotency-Key", TOKEN)];
    refused(&bed.world.ask("POST", &path, &headers, Some(SUCCEEDED)), 400, "badHeader");
    let commands = bed.commands();
    assert_eq!(commands.len(), 3);
    assert!(!format!("{commands:?}").contains(TOKEN));
}

#[test]
fn whoever_does_not_know_the_token_changes_nothing() {
    let bed = Bed::new();
    bed.start(Some(TOKEN));
    refused(&bed.complete(1, None, SUCCEEDED), 401, "noToken");
    assert_eq!(bed.complete(1, None, SUCCEEDED).header("www-authenticate"), Some("Bearer"));
    for token in [OTHER, "short", &TOKEN[1..], &format!("{TOKEN}0")] {
        refused(&bed.complete(1, Some(token), SUCCEEDED), 403, "wrongToken");
    }
    let path = format!("/api/v1/attempts/{}.1/complete", bed.run());
    let basic = [("Authorization", "Basic dXNlcjpwYXNz")];
    refused(&bed.world.ask("POST", &path, &basic, Some(SUCCEEDED)), 401, "noToken");
    assert!(bed.commands().is_empty());
}

#[test]
fn what_it_says_is_refused_by_the_field_that_is_wrong() {
    let bed = Bed::new();
    bed.start(Some(TOKEN));
    for (body, field) in [
        ("", "outcome"),
        (r#"{"outcome": "done"}"#, "outcome"),
        (r#"{"outcome": "cancelled"}"#, "outcome"),
        (r#"{"outcome": "succeeded", "final": true}"#, "final"),
        (r#"{"outcome": "succeeded", "retryAfter": "1s"}"#, "retryAfter"),
        (r#"{"outcome": "failed", "retryAfter": "soon"}"#, "retryAfter"),
        (r#"{"outcome": "failed", "massage": "x"}"#, "body"),
    ] {
        let answer = bed.complete(1, Some(TOKEN), body);
        refused(&answer, 422, "invalid");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{}", answer.text);
    }
    for id in ["seven", &bed.run(), &format!("{}.0", bed.run())] {
        let bearer = format!("Bearer {TOKEN}");
        let path = format!("/api/v1/attempts/{id}/complete");
        refused(&bed.world.ask("POST", &path, &[("Authorization", &bearer)], Some(SUCCEEDED)), 400, "badPath");
    }
    assert!(bed.commands().is_empty());
}

#[test]
fn a_callback_that_comes_early_may_be_repeated() {
    let bed = Bed::new();
    let early = |code: &str, status: u16| {
        let answer = bed.complete(1, Some(TOKEN), SUCCEEDED);
        refused(&answer, status, code);
        assert_eq!(answer.header("retry-after"), Some("1"), "{}", answer.text);
    };
    early("notFound", 404);
    bed.world.fold(requested(&bed.job, 0));
    early("notFound", 404);
    bed.world.fold(report(&bed.job, 0, AttemptEventType::Claimed, 1, "s"));
    early("notStarted", 409);
    // One that waits is answered as soon as the report is there.
    let path = format!("/api/v1/attempts/{}.1/complete?timeout=30s", bed.run());
    let bearer = format!("Bearer {TOKEN}");
    std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| bed.world.ask("POST", &path, &[("Authorization", &bearer)], Some(SUCCEEDED)).status);
        append(&bed.world.log, vec![started(&bed.job, 1, Some(TOKEN))]);
        assert_eq!(waiting.join().expect("no panic"), 202);
    });
    refused(&bed.complete(2, Some(TOKEN), SUCCEEDED), 404, "notFound");
    assert_eq!(bed.commands().len(), 1);
}

#[test]
fn an_attempt_that_ended_is_not_ended_again() {
    let bed = Bed::new();
    bed.start(Some(TOKEN));
    bed.world.fold(ended(&bed.job, 0, RunState::Succeeded, 1, OutcomeKind::Succeeded));
    let again = bed.complete(1, Some(TOKEN), SUCCEEDED);
    assert_eq!((again.status, &again.json()["outcome"]["kind"]), (200, &json!("succeeded")), "{}", again.text);
    refused(&bed.complete(1, Some(TOKEN), r#"{"outcome": "failed"}"#), 409, "attemptEnded");
    refused(&bed.complete(1, Some(OTHER), SUCCEEDED), 403, "wrongToken");
    let attempt: Value = bed.world.get(&format!("/api/v1/runs/{}", bed.run())).json()["attempts"][0].clone();
    assert_eq!(attempt["awaitsCallback"], false, "{attempt}");
    assert!(bed.commands().is_empty());
}

#[test]
fn a_target_that_ends_by_its_answer_has_no_callback() {
    let bed = Bed::new();
    bed.start(None);
    let answer = bed.complete(1, Some(TOKEN), SUCCEEDED);
    refused(&answer, 409, "noCallback");
    assert_eq!(answer.header("retry-after"), None);
    assert!(bed.commands().is_empty());
}
