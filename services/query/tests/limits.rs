//! Limits and bounds of queues over HTTP: what is written and read back, what is refused, who holds and who waits.
//! Not here: who is let through (dispatcher). Invariant: what was refused is not on the log.

mod world;

use orloj_domain::id::JobId;
use orloj_domain::run::RunState;
use orloj_domain::runner::RunnerHeartbeat;
use orloj_domain::setting::BreakerState;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::codec;
use orloj_runtime::log::{Isolation, Log, NewRecord, Position, TopicPartition};
use serde_json::{Value, json};
use world::records::{self, about, job};
use world::{Answer, World, log};

fn world() -> (World, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (World::start(&log(), directory.path()), directory)
}

fn body(kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": "orloj/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}).to_string()
}

fn position_of(answer: &Answer) -> Position {
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.header("log-position").expect("a position").parse().expect("readable")
}

/// Writes a manifest and waits until it is folded in.
fn put(world: &World, kind: &str, name: &str, spec: &Value) -> Position {
    let path = format!("/api/v1/{}s/{name}", kind.to_ascii_lowercase());
    let position = position_of(&world.ask("PUT", &path, &[], Some(&body(kind, name, spec))));
    world.wait_for(&position);
    position
}

fn end(world: &World) -> i64 {
    world.log.end(&TopicPartition::new(topic::SETTINGS, 0), Isolation::Committed).expect("there")
}

/// A job that needs these limits, as JSON.
fn manifest(job: &JobId, limits: &[&str]) -> String {
    let mut manifest: Value =
        serde_json::from_str(&records::manifest(job, r#"{"every": "1h"}"#)).expect("a good manifest");
    manifest["spec"]["limits"] = json!(limits);
    manifest.to_string()
}

/// A step of the run of a job that holds or waits for these limits.
fn step(world: &World, job: &JobId, seconds: i64, state: RunState, limits: &[&str]) {
    let mut event = records::step(job, seconds, state, 1, 1);
    event.limits = limits.iter().map(|limit| limit.parse().expect("a limit")).collect();
    event.note = (state == RunState::Waiting).then(|| format!("it waits for its turn at {}", limits.join(" ")));
    world.fold(about(topic::RUN_EVENTS, job, &event));
}

fn held_and_waiting(document: &Value, waiting: &str) -> (i64, i64) {
    let count = |field: &str| document[field].as_i64().unwrap_or_else(|| panic!("no {field} in {document}"));
    (count("held"), count(waiting))
}

#[test]
fn a_limit_is_written_listed_read_and_removed() {
    let (world, _directory) = world();
    let path = "/api/v1/limits/database";
    assert_eq!(world.get(path).status, 404);
    assert_eq!(world.get("/api/v1/limits").items(), Vec::<Value>::new());
    let position = put(&world, "Limit", "database", &json!({"maxConcurrent": 2, "ratePerSecond": 0.5}));
    put(&world, "Limit", "api", &json!({"paused": true}));
    put(&world, "Queue", "default", &json!({"maxConcurrent": 2}));
    let found = world.get(path);
    let etag = format!("\"{}\"", position.offset);
    assert_eq!((found.status, found.header("etag")), (200, Some(etag.as_str())), "{}", found.text);
    let document = found.json();
    assert_eq!((&document["kind"], &document["limit"]), (&json!("Limit"), &json!("database")));
    assert_eq!(document["spec"], json!({"maxConcurrent": 2, "ratePerSecond": 0.5}));
    assert_eq!(document["manifest"]["spec"], document["spec"]);
    assert_eq!(document["status"]["position"], json!(position.to_string()));
    assert_eq!(document["status"]["jobs"], json!([]));
    assert!(document["status"]["updatedAt"].is_string(), "{document}");
    assert_eq!(held_and_waiting(&document, "waiting"), (0, 0));
    let names: Vec<Value> = world.get("/api/v1/limits").items().iter().map(|item| item["limit"].clone()).collect();
    assert_eq!(names, [json!("api"), json!("database")], "queues are listed elsewhere");
    let first = world.get("/api/v1/limits?limit=1").json();
    let cursor = first["nextCursor"].as_str().expect("a cursor");
    let rest = world.get(&format!("/api/v1/limits?limit=1&cursor={cursor}"));
    assert_eq!(rest.items()[0]["limit"], "database");

    let text = body("Limit", "database", &json!({"maxConcurrent": 3}));
    for (name, value, status) in [("If-Match", "\"99\"", 412), ("If-None-Match", "*", 412), ("If-Match", &*etag, 202)] {
        assert_eq!(world.ask("PUT", path, &[(name, value)], Some(&text)).status, status, "{name}: {value}");
    }
    let gone = position_of(&world.ask("DELETE", path, &[], None));
    assert_eq!(world.get(&format!("{path}?wait={gone}&timeout=30s")).status, 404);
    assert_eq!(world.ask("DELETE", path, &[], None).status, 404);
    // What can't be used leaves the one before it in force.
    world.fold(NewRecord::new(topic::SETTINGS, 0, "limit/api", Some(body("Limit", "api", &json!({})).into_bytes())));
    assert_eq!(world.get("/api/v1/limits/api").json()["spec"], json!({"paused": true}));
}

#[test]
fn a_queue_shows_what_bounds_it() {
    let (world, _directory) = world();
    let path = "/api/v1/queues/default";
    let before = world.get(path);
    assert_eq!((before.status, before.header("etag")), (200, None), "{}", before.text);
    for field in ["maxConcurrent", "paused", "held", "waitingForLimit", "manifest", "status"] {
        assert_eq!(before.json().get(field), Some(&Value::Null), "{field}");
    }
    assert_eq!(world.get("/api/v1/queues/nowhere").status, 404);
    assert_eq!(world.ask("DELETE", path, &[], None).status, 404, "it has no manifest");
    let position = put(&world, "Queue", "default", &json!({"maxConcurrent": 2, "ratePerSecond": 25}));
    put(&world, "Queue", "gpu", &json!({"paused": true}));
    let items = world.get("/api/v1/queues").items();
    let names: Vec<&Value> = items.iter().map(|item| &item["queue"]).collect();
    assert_eq!(names, [&json!("default"), &json!("gpu")]);
    let bounds = |item: &Value| ["maxConcurrent", "ratePerSecond", "burst", "paused"].map(|field| item[field].clone());
    assert_eq!(bounds(&items[0]), [json!(2), json!(25.0), json!(3), json!(false)]);
    assert_eq!(bounds(&items[1]), [Value::Null, Value::Null, Value::Null, json!(true)]);
    assert_eq!(items[1]["manifest"]["spec"], json!({"paused": true}));
    let a = job("a/b");
    step(&world, &a, 1, RunState::Running, &["queue/default"]);
    step(&world, &a, 2, RunState::Ready, &["queue/default"]);
    step(&world, &a, 3, RunState::Waiting, &["queue/default"]);
    step(&world, &a, 4, RunState::Waiting, &[]);
    let found = world.get(path);
    assert_eq!(found.header("etag"), Some(format!("\"{}\"", position.offset).as_str()));
    let queue = found.json();
    assert_eq!(held_and_waiting(&queue, "waitingForLimit"), (2, 1));
    assert_eq!((&queue["waiting"], &queue["running"]), (&json!(2), &json!(1)), "{queue}");
    assert_eq!(queue["status"]["position"], json!(position.to_string()));
    // Whoever is still bound goes on without: nobody waits for ever.
    let gone = position_of(&world.ask("DELETE", path, &[], None));
    let after = world.get(&format!("{path}?wait={gone}&timeout=30s")).json();
    assert_eq!((&after["maxConcurrent"], &after["running"]), (&Value::Null, &json!(1)), "{after}");
}

#[test]
fn a_queue_and_a_limit_show_how_their_breakers_stand() {
    let (world, _directory) = world();
    let breaker = json!({"failures": 20});
    put(&world, "Queue", "default", &json!({"breaker": breaker}));
    put(&world, "Queue", "plain", &json!({"maxConcurrent": 2}));
    put(&world, "Limit", "api", &json!({"host": "api.example.com", "breaker": breaker}));
    let (queue, limit) = ("/api/v1/queues/default", "/api/v1/limits/api");
    for path in [queue, limit] {
        let shown = world.get(path).json();
        assert_eq!((&shown["breaker"]["state"], &shown["breaker"]["turns"]), (&json!("closed"), &json!([])), "{path}");
    }
    assert_eq!(world.get("/api/v1/queues/plain").json()["breaker"], Value::Null);
    let waiting = || world.get(&format!("/api/v1/runs/{}", records::run_of(&job("a/b"), 3))).json()["note"].clone();
    step(&world, &job("a/b"), 3, RunState::Waiting, &["queue/default"]);
    assert_eq!(waiting(), "it waits for its turn at queue/default");

    world.fold(records::turn("queue/default", BreakerState::Open, 5, Some(35)));
    world.fold(records::turn("limit/api", BreakerState::Open, 6, Some(36)));
    let shown = world.get(queue).json()["breaker"].clone();
    let until = records::at(35).to_string();
    assert_eq!((&shown["state"], &shown["until"], &shown["failures"]), (&json!("open"), &json!(until), &json!(20)));
    let since = records::at(5).to_string();
    assert_eq!((&shown["since"], &shown["reason"]), (&json!(since), &json!("open because")));
    assert_eq!((&shown["job"], &shown["ended"]), (&json!("a/b"), &Value::Null));
    assert_eq!(shown["runId"], json!(records::run_of(&job("a/b"), 1).to_string()));
    assert_eq!(waiting(), format!("it waits for its turn at queue/default, which is open until {until}: open because"));
    world.fold(records::turn("queue/default", BreakerState::HalfOpen, 35, None));
    assert!(waiting().as_str().is_some_and(|note| note.contains("which is half-open: one run at a time")));
    world.fold(records::turn("queue/default", BreakerState::Closed, 36, None));
    assert_eq!(waiting(), "it waits for its turn at queue/default");
    let shown = world.get(queue).json()["breaker"].clone();
    let states: Vec<&Value> = shown["turns"].as_array().expect("turns").iter().map(|turn| &turn["state"]).collect();
    assert_eq!(
        (&shown["state"], states),
        (&json!("closed"), vec![&json!("closed"), &json!("halfOpen"), &json!("open")])
    );
    let in_list = |path: &str| -> Vec<Value> {
        world.get(path).items().iter().map(|item| item["breaker"]["state"].clone()).collect()
    };
    assert_eq!(
        (in_list("/api/v1/queues"), in_list("/api/v1/limits")),
        (vec![json!("closed"), Value::Null], vec![json!("open")])
    );
    // Whoever has no breaker any more shows none, whatever it was.
    put(&world, "Limit", "api", &json!({"paused": true, "host": "api.example.com"}));
    assert_eq!(world.get(limit).json()["breaker"], Value::Null);
}

#[test]
fn a_limit_of_a_host_names_the_jobs_with_a_target_there() {
    let (world, _directory) = world();
    put(&world, "Limit", "api", &json!({"host": "api.example.com", "maxConcurrent": 1}));
    put(&world, "Limit", "tls", &json!({"host": "api.example.com:443", "maxConcurrent": 1}));
    put(&world, "Limit", "other", &json!({"host": "api.example.com:80", "maxConcurrent": 1}));
    let x = job("x/y");
    let mut text: Value = serde_json::from_str(&manifest(&x, &[])).expect("a manifest");
    text["spec"]["run"] = json!({"http": {"url": "https://API.example.com/run"}});
    let definition = orloj_domain::manifest::parse_json(&text.to_string()).expect("good");
    world.fold(about(topic::TRIGGER_STATE, &x, &records::state(&x, 1, Some(definition), 0)));
    let jobs = |name: &str| world.get(&format!("/api/v1/limits/{name}")).json()["status"]["jobsOfHost"].clone();
    assert_eq!([jobs("api"), jobs("tls"), jobs("other")], [json!(["x/y"]), json!(["x/y"]), json!([])]);
    position_of(&world.ask("DELETE", "/api/v1/limits/tls", &[], None));
}

#[test]
fn what_would_let_runs_wait_for_ever_is_refused() {
    let (world, _directory) = world();
    put(&world, "Limit", "database", &json!({"maxConcurrent": 1}));
    let before = end(&world);
    for (path, text, status, field, part) in [
        ("limits/a", "{".to_owned(), 400, "", ""),
        ("limits/a", body("Limit", "b", &json!({"maxConcurrent": 1})), 422, "metadata.name", "path, limit a"),
        ("limits/a", body("Queue", "a", &json!({"maxConcurrent": 1})), 422, "kind", "must be `Limit`"),
        ("queues/a", body("Limit", "a", &json!({"maxConcurrent": 1})), 422, "kind", "must be `Queue`"),
        ("limits/a", body("Limit", "a", &json!({})), 422, "spec", "bounds nothing"),
        ("queues/a", body("Queue", "a", &json!({"maxConcurrent": 0})), 422, "spec.maxConcurrent", "paused: true"),
        ("queues/a", body("Queue", "a", &json!({"max": 1})), 422, "max", "unknown field"),
        ("limits/A", body("Limit", "A", &json!({"paused": true})), 400, "", ""),
    ] {
        let answer = world.ask("PUT", &format!("/api/v1/{path}"), &[], Some(&text));
        assert_eq!(answer.status, status, "{}", answer.text);
        let error = answer.json()["errors"][0].clone();
        assert!(error["field"].as_str().unwrap_or_default().ends_with(field), "{}", answer.text);
        assert!(error["message"].as_str().unwrap_or_default().contains(part), "{}", answer.text);
    }
    assert_eq!(end(&world), before, "nothing was sent");

    let x = job("x/y");
    let put_job = |limits: &[&str], more: &str| {
        world.ask("PUT", &format!("/api/v1/jobs/x/y{more}"), &[], Some(&manifest(&x, limits)))
    };
    let refused = put_job(&["database", "api"], "");
    assert_eq!(refused.status, 422, "{}", refused.text);
    let error = refused.json()["errors"][0].clone();
    assert_eq!((&error["field"], &error["value"]), (&json!("spec.limits[1]"), &json!("api")));
    assert_eq!(error["message"], "is no limit; apply it first, or name one of: database");
    let text = body("Limit", "api", &json!({"ratePerSecond": 5}));
    let sent = position_of(&world.ask("PUT", "/api/v1/limits/api", &[], Some(&text)));
    assert_eq!(put_job(&["database", "api"], &format!("?wait={sent}&timeout=30s")).status, 202);

    let definition = orloj_domain::manifest::parse_json(&manifest(&x, &["database"])).expect("good");
    world.fold(about(topic::TRIGGER_STATE, &x, &records::state(&x, 1, Some(definition), 0)));
    let path = "/api/v1/limits/database";
    assert_eq!(world.get(path).json()["status"]["jobs"], json!(["x/y"]));
    let remove = || world.ask("DELETE", path, &[], None);
    let in_use = remove();
    assert_eq!((in_use.status, &in_use.json()["code"]), (409, &json!("limitInUse")), "{}", in_use.text);
    assert!(in_use.text.contains("named by jobs x/y"), "{}", in_use.text);
    // The job is gone, and a run of it still needs the limit.
    world.fold(about(topic::TRIGGER_STATE, &x, &records::state(&x, 2, None, 1)));
    step(&world, &x, 1, RunState::Waiting, &["limit/database"]);
    let in_use = remove();
    assert!(in_use.status == 409 && in_use.text.contains("held by 0 runs and 1 wait"), "{}", in_use.text);
    step(&world, &x, 1, RunState::Cancelled, &[]);
    position_of(&remove());
}

#[test]
fn a_run_says_what_it_waits_for_and_what_it_holds() {
    let (world, _directory) = world();
    for limit in ["api", "database"] {
        put(&world, "Limit", limit, &json!({"maxConcurrent": 1}));
    }
    let a = job("a/b");
    let run = || world.get(&format!("/api/v1/runs/{}", records::run_of(&a, 1))).json();
    let uses = || {
        let items = world.get("/api/v1/limits").items();
        items.iter().map(|item| held_and_waiting(item, "waiting")).collect::<Vec<_>>()
    };
    step(&world, &a, 1, RunState::Waiting, &["limit/api"]);
    assert_eq!(run()["limits"], json!(["limit/api"]));
    assert_eq!(run()["note"], "it waits for its turn at limit/api");
    assert_eq!(uses(), [(0, 1), (0, 0)]);
    // It holds those before the one that it waits for.
    step(&world, &a, 1, RunState::Waiting, &["limit/api", "limit/database"]);
    assert_eq!(uses(), [(1, 0), (0, 1)]);
    step(&world, &a, 1, RunState::Running, &["limit/api", "limit/database"]);
    assert_eq!((&run()["limits"], &run()["note"]), (&json!(["limit/api", "limit/database"]), &Value::Null));
    assert_eq!(uses(), [(1, 0), (1, 0)]);
    step(&world, &a, 1, RunState::Succeeded, &[]);
    assert_eq!(run()["limits"], json!([]));
    assert_eq!(uses(), [(0, 0), (0, 0)]);
}

#[test]
fn a_queue_names_the_handlers_that_its_runs_wait_for() {
    let (world, _directory) = world();
    let job = job("billing/unserved");
    let queue = |world: &World| {
        let queues: Value = world.ask("GET", "/api/v1/queues", &[], None).json();
        queues["items"].as_array().into_iter().flatten().find(|queue| queue["queue"] == "default").cloned()
    };
    let mut event = records::step(&job, 0, RunState::Waiting, 1, 1);
    event.missing_handler = Some("send-invoices".to_owned());
    world.fold(about(topic::RUN_EVENTS, &job, &event));
    assert_eq!(queue(&world).expect("a queue")["missingHandlers"], json!(["send-invoices"]));
    world.fold(about(topic::RUN_EVENTS, &job, &records::step(&job, 0, RunState::Running, 1, 2)));
    assert_eq!(queue(&world).expect("a queue")["missingHandlers"], json!([]));
}

#[test]
fn a_queue_names_the_labels_that_its_runs_wait_for_a_runner_with() {
    let (world, _directory) = world();
    let job = job("billing/unplaced");
    let missing = |world: &World| {
        let queues: Value = world.ask("GET", "/api/v1/queues", &[], None).json();
        let queue = queues["items"].as_array().into_iter().flatten().find(|queue| queue["queue"] == "default").cloned();
        queue.expect("a queue")["missingRunners"].clone()
    };
    let mut event = records::step(&job, 0, RunState::Waiting, 0, 1);
    event.missing_runner = Some("gpu=true,zone=eu".to_owned());
    world.fold(about(topic::RUN_EVENTS, &job, &event));
    assert_eq!(missing(&world), json!(["gpu=true,zone=eu"]));
    // One that lacks a label changes nothing; once there is one that has all, the run waits for its slot.
    for (runner, labels, wanted) in [
        ("half", &[("zone", "eu")][..], json!(["gpu=true,zone=eu"])),
        ("whole", &[("gpu", "true"), ("zone", "eu")], json!([])),
    ] {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let record = records::heartbeat(runner, SystemClock::new().now(), 60_000);
        let heartbeat: RunnerHeartbeat = codec::decode(record.value.as_deref().expect("a value")).expect("a heartbeat");
        world.fold(NewRecord { value: Some(codec::encode(&RunnerHeartbeat { labels, ..heartbeat })), ..record });
        assert_eq!(missing(&world), wanted, "{runner}");
    }
    world.fold(about(topic::RUN_EVENTS, &job, &records::step(&job, 0, RunState::Ready, 1, 2)));
    assert_eq!(missing(&world), json!([]));
}
