//! What the write routes put on the log, and what they refuse. Not here: what comes of it, which the trigger
//! decides. Invariant: what was refused is not on the log.

mod world;

use orloj_domain::command::CommandType;
use orloj_domain::id::RunId;
use orloj_domain::job_event::JobEventType;
use orloj_domain::topic;
use orloj_runtime::codec::{self, input};
use orloj_runtime::log::{Header, Isolation, Log, Position, Record, TopicPartition};
use serde_json::json;
use std::time::Duration;
use world::records::{self, about, job};
use world::{World, append, eventually, log, shard};

fn world() -> (World, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (World::start(&log(), directory.path()), directory)
}

fn record_at(world: &World, position: &Position) -> Record {
    let mut reader = world.log.reader(Isolation::Committed).expect("a reader");
    reader.read_from(&[(position.topic_partition(), position.offset)]).expect("there");
    reader.poll(1, Duration::from_secs(10)).expect("readable").remove(0)
}

fn position_of(answer: &world::Answer) -> Position {
    assert_eq!(answer.status, 202, "{}", answer.text);
    let position = answer.header("log-position").expect("a position");
    assert_eq!(answer.json()["position"], json!(position));
    position.parse().expect("readable")
}

const DAILY: &str = r#"{"cron": "30 2 * * *"}"#;

#[test]
fn a_definition_is_written_and_read_back_once_it_was_answered() {
    let (world, _directory) = world();
    let job = job("billing/nightly");
    let body = records::manifest(&job, DAILY);
    let position = position_of(&world.ask("PUT", "/api/v1/jobs/billing/nightly", &[], Some(&body)));
    assert_eq!(position.topic_partition(), TopicPartition::new("jobs", shard(&job)));
    let record = record_at(&world, &position);
    let written = input::decode_definition(record.key.as_deref(), record.value.as_deref().expect("a value"));
    assert_eq!(written.expect("readable").job, job);
    // Nobody has answered: the wait runs out and says how far it is.
    let early = world.get(&format!("/api/v1/jobs/billing/nightly?wait={position}&timeout=50ms"));
    assert_eq!(early.status, 404);

    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| world.get(&format!("/api/v1/jobs/billing/nightly?wait={position}&timeout=20s")));
        let answer =
            scope.spawn(|| world.get(&format!("/api/v1/jobs/billing/nightly/history?position={position}&timeout=20s")));
        append(&world.log, records::accepted(&job, 1, &position));
        let found = waiting.join().expect("no panic");
        assert_eq!((found.status, found.header("etag")), (200, Some("\"1\"")), "{}", found.text);
        assert_eq!(found.header("log-position"), Some(&*position.to_string()));
        assert_eq!(found.json()["spec"]["schedule"]["cron"], "30 2 * * *");
        assert_eq!(found.json()["status"]["position"], json!(position.to_string()));
        assert_eq!(answer.join().expect("no panic").items()[0]["type"], "accepted");
    });

    for (name, value, status) in [("If-Match", "\"2\"", 412), ("If-None-Match", "*", 412), ("If-Match", "\"1\"", 202)] {
        let answer = world.ask("PUT", "/api/v1/jobs/billing/nightly", &[(name, value)], Some(&body));
        assert_eq!(answer.status, status, "{name}: {value}: {}", answer.text);
    }
    let deleted = position_of(&world.ask("DELETE", "/api/v1/jobs/billing/nightly", &[], None));
    assert_eq!(record_at(&world, &deleted).value, None);
}

#[test]
fn what_can_not_be_a_definition_is_refused_with_every_complaint() {
    let (world, _directory) = world();
    let path = "/api/v1/jobs/a/b";
    let good = records::manifest(&job("a/b"), DAILY);
    let large = format!("{{\"apiVersion\": \"{}\"}}", "x".repeat(600 * 1024));
    for (body, status, code, field) in [
        ("{", 400, "notJson", "manifest"),
        ("", 400, "notJson", "manifest"),
        ("{\"apiVersion\": \"orloj/v1\", \"kynd\": 1}", 422, "invalid", "kynd"),
        (&good.replace("30 2", "61 2"), 422, "invalid", "spec.schedule.cron"),
        (&good.replace("\"b\"", "\"c\""), 422, "invalid", "metadata"),
        (&large, 413, "bodyTooLarge", ""),
    ] {
        let answer = world.ask("PUT", path, &[], Some(body));
        let problem = answer.json();
        assert_eq!((answer.status, &problem["code"]), (status, &json!(code)), "{}", answer.text);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!((&problem["status"], &problem["instance"]), (&json!(status), &json!(path)));
        assert_eq!(problem["errors"][0]["field"].as_str().unwrap_or_default(), field, "{}", answer.text);
    }
    let form = world.ask("PUT", path, &[("Content-Type", "application/x-www-form-urlencoded")], Some(&good));
    assert_eq!(form.status, 415);
    assert_eq!(world.ask("DELETE", path, &[], None).status, 404);
    for partition in 0..world::SHARDS {
        let end = world.log.end(&TopicPartition::new("jobs", partition), Isolation::Committed).expect("there");
        assert_eq!(end, 0, "nothing was sent");
    }
}

#[test]
fn a_command_names_its_run_and_asks_once_per_key() {
    let (world, _directory) = world();
    let job = job("a/b");
    assert_eq!(world.ask("POST", "/api/v1/jobs/a/b/trigger", &[], None).status, 404);
    world.fold(about(topic::TRIGGER_STATE, &job, &records::state(&job, 1, Some(records::definition(&job)), 0)));
    let key = [("Idempotency-Key", "k-1")];
    let answer = world.ask("POST", "/api/v1/jobs/a/b/trigger", &key, Some(r#"{"params": {"tenant": "7"}}"#));
    let position = position_of(&answer);
    let expected = RunId::of_command(&job, &"k-1".parse().expect("an id"));
    assert_eq!((&answer.json()["commandId"], &answer.json()["runId"]), (&json!("k-1"), &json!(expected)));
    let command: orloj_domain::command::Command =
        codec::decode(record_at(&world, &position).value.as_deref().expect("a value")).expect("readable");
    assert_eq!((command.kind, command.params["tenant"].as_str()), (CommandType::RunNow, "7"));
    let again = world.ask("POST", "/api/v1/jobs/a/b/trigger", &key, None);
    assert_eq!(again.json()["runId"], json!(expected));

    let paused = world.ask("POST", "/api/v1/jobs/a/b/pause", &[], Some(r#"{"reason": "lunch", "actor": "ana"}"#));
    let command: orloj_domain::command::Command =
        codec::decode(record_at(&world, &position_of(&paused)).value.as_deref().expect("a value")).expect("readable");
    assert_eq!((command.kind, command.reason.as_deref()), (CommandType::Pause, Some("lunch")));
    assert_eq!(command.actor.as_deref(), Some("ana"));
    for (path, headers, body, status) in [
        ("resume", &[][..], Some(r#"{"params": {"a": "b"}}"#), 422),
        ("trigger", &[], Some(r#"{"params": {"a": 1}}"#), 422),
        ("trigger", &[], Some("nothing"), 400),
        ("trigger", &[("Idempotency-Key", "")], None, 400),
        ("trigger?x=1", &[], None, 400),
        ("pause", &[], Some(r#"{"missed": "drop"}"#), 422),
        ("resume", &[], Some(r#"{"missed": "unknown"}"#), 422),
        ("resume", &[], Some(r#"{"missed": "accumulate", "actor": " "}"#), 202),
        ("pause", &[], Some(r#"{"actor": "a\nb"}"#), 422),
        ("resume", &[], None, 202),
    ] {
        let answer = world.ask("POST", &format!("/api/v1/jobs/a/b/{path}"), headers, body);
        assert_eq!(answer.status, status, "{path} {body:?}: {}", answer.text);
    }
}

#[test]
fn dead_letters_are_parked_and_sent_back_by_name_or_all_of_a_job() {
    let (world, _directory) = world();
    let job = job("a/b");
    for (seconds, disposition) in [(1, "attemptsExhausted"), (2, "leaseLost"), (3, "parked")] {
        let mut letter = records::dead_letter(&job, seconds, "default");
        letter.headers.push(Header::text("orloj-disposition", disposition));
        world.fold(letter);
    }
    let ids = [1, 2, 3].map(|seconds| records::run_of(&job, seconds));
    let ask = |what: &str, body: &str| world.ask("POST", &format!("/api/v1/dead-letters/{what}"), &[], Some(body));
    for (body, field) in [
        ("{}".to_owned(), "ids"),
        (r#"{"job": "a"}"#.to_owned(), "job"),
        (r#"{"queue": "A"}"#.to_owned(), "queue"),
        (r#"{"job": "a/b", "max": 0}"#.to_owned(), "max"),
        (r#"{"job": "a/b", "max": 501}"#.to_owned(), "max"),
        (format!(r#"{{"job": "a/b", "ids": ["{}"]}}"#, ids[0]), "ids"),
        (format!(r#"{{"ids": ["{}", "{}"]}}"#, ids[0], records::run_of(&job, 9)), "ids[1]"),
        (r#"{"ids": ["nine"]}"#.to_owned(), "ids[0]"),
        (r#"{"job": "a/b", "ratePerSecond": 5}"#.to_owned(), "ratePerSecond"),
    ] {
        let refused = ask("park", &body);
        assert_eq!((refused.status, &refused.json()["errors"][0]["field"]), (422, &json!(field)), "{}", refused.text);
    }
    for rate in ["0", "-1", "0.009", "10001"] {
        let refused = ask("redrive", &format!(r#"{{"job": "a/b", "ratePerSecond": {rate}}}"#));
        assert_eq!(refused.json()["errors"][0]["field"], "ratePerSecond", "{}", refused.text);
    }
    let preview = ask("redrive", r#"{"job": "a/b", "max": 1, "dryRun": true}"#);
    assert_eq!((preview.status, &preview.json()["count"]), (200, &json!(1)), "{}", preview.text);
    assert_eq!(preview.json()["isMore"], true);
    assert_eq!(ask("redrive", r#"{"job": "a/c"}"#).json()["count"], 0);

    let commands = |answer: &world::Answer| {
        let last = position_of(answer);
        let count = answer.json()["count"].as_i64().expect("a count");
        let at = |back| Position { offset: last.offset - back, ..last.clone() };
        let read = |back| codec::decode(record_at(&world, &at(back)).value.as_deref().expect("a value"));
        (0..count).rev().map(|back| read(back).expect("readable")).collect::<Vec<orloj_domain::command::Command>>()
    };
    let all = commands(&ask("redrive", r#"{"job": "a/b", "queue": "default", "reason": "it is back"}"#));
    let mut found: Vec<_> = all.iter().map(|command| command.run_id.expect("a run")).collect();
    found.sort();
    let mut wanted = ids[..2].to_vec();
    wanted.sort();
    assert_eq!(found, wanted, "the parked one stays");
    let is_one_order = |command: &orloj_domain::command::Command| {
        command.kind == CommandType::Redrive && command.spares_parked && command.command_id == all[0].command_id
    };
    assert!(all.iter().all(is_one_order), "{all:?}");
    assert!(all.iter().all(|command| command.not_before.is_none()), "{all:?}");

    let paced = commands(&ask("redrive", r#"{"job": "a/b", "ratePerSecond": 0.5}"#));
    let after = |command: &orloj_domain::command::Command| {
        command.not_before.expect("a time").since(command.at.expect("a time"))
    };
    let apart: Vec<_> = paced.iter().map(|command| after(command).as_secs()).collect();
    assert_eq!(apart, [0, 2], "{paced:?}");

    let named = commands(&ask("redrive", &format!(r#"{{"ids": ["{}"]}}"#, ids[2])));
    assert_eq!((named[0].run_id, named[0].spares_parked), (Some(ids[2]), false));
    let parked = commands(&ask("park", &format!(r#"{{"ids": ["{}"], "reason": "odd", "actor": "ann"}}"#, ids[0])));
    assert_eq!((parked[0].kind, parked[0].run_id), (CommandType::Park, Some(ids[0])));
    assert_eq!((parked[0].reason.as_deref(), parked[0].actor.as_deref()), (Some("odd"), Some("ann")));
}

#[test]
fn a_backfill_is_refused_by_the_field_that_is_wrong() {
    let (world, _directory) = world();
    let job = job("a/b");
    let ask = |body: &str| world.ask("POST", "/api/v1/jobs/a/b/backfill", &[], Some(body));
    let range = r#""from": "2026-11-01T00:00:00Z", "until": "2026-11-08T00:00:00Z""#;
    assert_eq!(ask(&format!("{{{range}}}")).status, 404);
    world.fold(about(topic::TRIGGER_STATE, &job, &records::state(&job, 1, Some(records::definition(&job)), 0)));
    for (body, field) in [
        ("{}".to_owned(), "from"),
        (r#"{"from": "yesterday"}"#.to_owned(), "from"),
        (r#"{"from": "2026-11-08T00:00:00Z", "until": "2026-11-01T00:00:00Z"}"#.to_owned(), "until"),
        (r#"{"fireTimes": ["2026-11-01T02:31:00Z"]}"#.to_owned(), "fireTimes"),
        (format!(r#"{{{range}, "max": 6}}"#), "max"),
        (format!(r#"{{{range}, "concurrency": 0}}"#), "concurrency"),
        (r#"{"from": "2126-01-01T00:00:00Z", "until": "2126-02-01T00:00:00Z"}"#.to_owned(), "from"),
        (
            r#"{"from": "1970-01-01T00:00:00Z", "until": "2026-11-01T00:00:00Z", "onlyMissed": true}"#.to_owned(),
            "onlyMissed",
        ),
        (r#"{"form": 1}"#.to_owned(), "body"),
    ] {
        let answer = ask(&body);
        assert_eq!(
            (answer.status, &answer.json()["errors"][0]["field"]),
            (422, &json!(field)),
            "{body}: {}",
            answer.text
        );
    }
    let preview = ask(&format!(r#"{{{range}, "dryRun": true}}"#));
    assert_eq!((preview.status, &preview.json()["count"]), (200, &json!(7)), "{}", preview.text);
    let sent = ask(&format!(r#"{{{range}, "actor": "ana", "params": {{"tenant": "7"}}}}"#));
    let record = record_at(&world, &position_of(&sent));
    let command: orloj_domain::command::Command =
        codec::decode(record.value.as_deref().expect("a value")).expect("readable");
    assert_eq!((command.kind, command.actor.as_deref()), (CommandType::Backfill, Some("ana")));
    assert_eq!(sent.json()["count"], 7);
    let cancel = ask(&format!(r#"{{"cancel": "{}"}}"#, command.command_id));
    let record = record_at(&world, &position_of(&cancel));
    let cancelled: orloj_domain::command::Command =
        codec::decode(record.value.as_deref().expect("a value")).expect("readable");
    assert_eq!((cancelled.kind, cancelled.backfill_id), (CommandType::Cancel, Some(command.command_id)));
}

#[test]
fn an_offer_without_an_answer_can_be_deleted_and_triggered() {
    let (world, _directory) = world();
    let job = job("a/b");
    let body = records::manifest(&job, DAILY);
    let put = position_of(&world.ask("PUT", "/api/v1/jobs/a/b", &[], Some(&body)));
    eventually("the offer is known", || world.ask("POST", "/api/v1/jobs/a/b/trigger", &[], None).status == 202);
    let deleted = position_of(&world.ask("DELETE", "/api/v1/jobs/a/b", &[], None));
    assert!(deleted.offset > put.offset);
    let unchanged = records::event(&job, JobEventType::Unchanged, 0, Some(deleted.offset));
    world.append(about(topic::JOB_EVENTS, &job, &unchanged));
    assert_eq!(world.get(&format!("/api/v1/jobs/a/b?wait={deleted}&timeout=20s")).status, 404);
    assert_eq!(world.ask("DELETE", "/api/v1/jobs/a/b", &[], None).status, 404);
}

#[test]
fn strangers_and_wrong_requests_are_refused_as_problems() {
    let (world, _directory) = world();
    for (method, path, headers, status, code) in [
        ("GET", "/nothing", &[][..], 404, "noRoute"),
        ("PATCH", "/api/v1/jobs/a/b", &[], 405, "noMethod"),
        ("POST", "/api/v1/runs", &[], 405, "noMethod"),
        ("GET", "/api/v1/jobs/A/b", &[], 400, "badPath"),
        ("GET", "/api/v1/runs/seven", &[], 400, "badPath"),
        ("GET", "/api/v1/runs?stat=dead", &[], 400, "badParameter"),
        ("GET", "/api/v1/runs?state=dying", &[], 400, "badParameter"),
        ("GET", "/api/v1/runs?limit=501", &[], 400, "badParameter"),
        ("GET", "/api/v1/runs?limit=1&limit=2", &[], 400, "badParameter"),
        ("GET", "/api/v1/runs?since=yesterday", &[], 400, "badParameter"),
        ("GET", "/api/v1/runs?wait=jobs/0", &[], 400, "badParameter"),
        ("GET", "/api/v1/runs?wait=run.state/0@1", &[], 400, "badParameter"),
        ("GET", "/api/v1/jobs/a/b/history?position=fires/0@1", &[], 400, "badParameter"),
        ("GET", "/api/v1/runs?wait=jobs/0@1&timeout=1h", &[], 400, "badParameter"),
        ("GET", "/api/v1/runs", &[("Host", "evil.example")], 403, "hostNotAllowed"),
        ("POST", "/api/v1/jobs/a/b/trigger", &[("Origin", "http://evil.example")], 403, "originNotAllowed"),
    ] {
        let answer = world.ask(method, path, headers, None);
        assert_eq!((answer.status, &answer.json()["code"]), (status, &json!(code)), "{method} {path}: {}", answer.text);
    }
    let answer = world.ask("PATCH", "/api/v1/runs", &[], None);
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{answer:?}");
}
