//! Calendars over HTTP: what is written and read back, what is refused, what previews and explanations say of them.
//! Not here: what a calendar says of a fire time (`orloj_domain::calendar`). Invariant: what was refused is not on
//! the log.

mod world;

use orloj_domain::fire::{Decision, FireDecision, Reason};
use orloj_domain::topic;
use orloj_runtime::log::{Isolation, Log, NewRecord, Position, TopicPartition};
use serde_json::{Value, json};
use world::records::{self, about, job};
use world::{Answer, World, log};

fn world() -> (World, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (World::start(&log(), directory.path()), directory)
}

fn body(name: &str, spec: &Value) -> String {
    json!({"apiVersion": "orloj/v1", "kind": "Calendar", "metadata": {"name": name}, "spec": spec}).to_string()
}

fn position_of(answer: &Answer) -> Position {
    assert_eq!(answer.status, 202, "{}", answer.text);
    answer.header("log-position").expect("a position").parse().expect("readable")
}

/// Writes a calendar and waits until it is folded in.
fn put(world: &World, name: &str, spec: &Value) -> Position {
    let path = format!("/api/v1/calendars/{name}");
    let position = position_of(&world.ask("PUT", &path, &[], Some(&body(name, spec))));
    world.wait_for(&position);
    position
}

fn end(world: &World) -> i64 {
    world.log.end(&TopicPartition::new(topic::SETTINGS, 0), Isolation::Committed).expect("there")
}

#[test]
fn a_calendar_is_written_listed_read_and_removed() {
    let (world, _directory) = world();
    let path = "/api/v1/calendars/holidays";
    assert_eq!(world.get(path).status, 404);
    let position = put(&world, "holidays", &json!({"yearly": ["12-25"], "dates": ["2026-05-14"]}));
    put(&world, "all", &json!({"include": ["holidays"]}));
    let found = world.get(path);
    let etag = format!("\"{}\"", position.offset);
    assert_eq!((found.status, found.header("etag")), (200, Some(etag.as_str())), "{}", found.text);
    let document = found.json();
    assert_eq!(document["spec"]["yearly"], json!(["12-25"]));
    assert_eq!(document["status"]["position"], json!(position.to_string()));
    assert_eq!((&document["status"]["entries"], &document["status"]["calendars"]), (&json!(2), &json!(["all"])));
    let names: Vec<Value> =
        world.get("/api/v1/calendars").items().iter().map(|item| item["calendar"].clone()).collect();
    assert_eq!(names, [json!("all"), json!("holidays")]);
    assert_eq!(world.get("/api/v1/calendars?limit=1").items().len(), 1);

    let text = body("holidays", &json!({}));
    for (name, value, status) in [("If-Match", "\"99\"", 412), ("If-None-Match", "*", 412), ("If-Match", &*etag, 202)] {
        assert_eq!(world.ask("PUT", path, &[(name, value)], Some(&text)).status, status, "{name}: {value}");
    }
    let in_use = world.ask("DELETE", path, &[], None);
    assert_eq!((in_use.status, &in_use.json()["code"]), (409, &json!("calendarInUse")), "{}", in_use.text);
    assert!(in_use.text.contains("named by calendars all"), "{}", in_use.text);
    let gone = position_of(&world.ask("DELETE", "/api/v1/calendars/all", &[], None));
    world.wait_for(&gone);
    assert_eq!(position_of(&world.ask("DELETE", path, &[], None)).offset, gone.offset + 1);
    assert_eq!(world.ask("DELETE", "/api/v1/calendars/all", &[], None).status, 404);
}

#[test]
fn what_would_silence_jobs_is_refused() {
    let (world, _directory) = world();
    put(&world, "a", &json!({}));
    put(&world, "b", &json!({"include": ["a"]}));
    let before = end(&world);
    for (name, text, status, field, part) in [
        ("c", "{".to_owned(), 400, "", ""),
        ("c", body("d", &json!({})), 422, "metadata.name", "calendar of the path"),
        ("c", body("c", &json!({"days": []})), 422, "days", "unknown field"),
        ("c", body("c", &json!({"dates": ["2026-02-30"]})), 422, "spec.dates[0]", "2026-12-25"),
        ("c", body("c", &json!({"include": ["b", "x"]})), 422, "spec.include[1]", "apply it first"),
        ("a", body("a", &json!({"include": ["b"]})), 422, "spec.include", "a → b → a"),
        ("a", body("a", &json!({"include": ["a"]})), 422, "spec.include", "a → a"),
        ("C", body("C", &json!({})), 400, "", ""),
    ] {
        let answer = world.ask("PUT", &format!("/api/v1/calendars/{name}"), &[], Some(&text));
        assert_eq!(answer.status, status, "{}", answer.text);
        let error = answer.json()["errors"][0].clone();
        assert_eq!(error["field"].as_str().unwrap_or_default(), field, "{}", answer.text);
        assert!(error["message"].as_str().unwrap_or_default().contains(part), "{}", answer.text);
    }
    assert_eq!(end(&world), before, "nothing was sent");

    let job_body =
        |calendar: &str| records::manifest(&job("x/y"), &format!(r#"{{"every": "1h", "exclude": ["{calendar}"]}}"#));
    let refused = world.ask("PUT", "/api/v1/jobs/x/y", &[], Some(&job_body("holidays")));
    assert_eq!(refused.status, 422, "{}", refused.text);
    let error = refused.json()["errors"][0].clone();
    assert_eq!((&error["field"], &error["value"]), (&json!("spec.schedule.exclude[0]"), &json!("holidays")));
    assert!(error["message"].as_str().is_some_and(|it| it.contains("name one of: a, b")), "{}", refused.text);
    let sent = position_of(&world.ask("PUT", "/api/v1/calendars/holidays", &[], Some(&body("holidays", &json!({})))));
    let path = format!("/api/v1/jobs/x/y?wait={sent}&timeout=30s");
    assert_eq!(world.ask("PUT", &path, &[], Some(&job_body("holidays"))).status, 202);
}

#[test]
fn previews_and_explanations_ask_the_calendars() {
    let (world, _directory) = world();
    let first = put(&world, "holidays", &json!({"yearly": ["12-25"], "dates": ["2036-12-26"]}));
    let job = job("a/b");
    let text = records::manifest(&job, r#"{"cron": "30 2 * * *", "exclude": ["holidays"]}"#);
    let definition = orloj_domain::manifest::parse_json(&text).expect("good");
    world.fold(about(topic::TRIGGER_STATE, &job, &records::state(&job, 1, Some(definition), 0)));
    let preview = world.get("/api/v1/jobs/a/b/next?n=2&from=2036-12-24T00:00:00Z").json();
    assert_eq!(preview["items"][0]["at"], "2036-12-24T02:30:00Z", "{preview}");
    assert_eq!(preview["items"][1]["at"], "2036-12-27T02:30:00Z", "{preview}");
    let note = "2036-12-25 is left out by calendar holidays, 2036-12-26 is left out by calendar holidays";
    assert_eq!(preview["items"][1]["note"], note);
    assert_eq!(preview["description"], "at 02:30 every day, UTC, except on days of calendar holidays");

    let at = |instant: &str| world.get(&format!("/api/v1/jobs/a/b/explain?at={instant}")).json()["items"][0].clone();
    let ahead = at("2036-12-25T02:30:00Z");
    assert_eq!((&ahead["verdict"], &ahead["nextFireTime"]), (&json!("leftOut"), &json!("2036-12-27T02:30:00Z")));
    assert!(ahead["because"].to_string().contains(&first.to_string()), "{ahead}");
    let in_use = world.ask("DELETE", "/api/v1/calendars/holidays", &[], None);
    assert!(in_use.status == 409 && in_use.text.contains("named by jobs a/b"), "{}", in_use.text);

    let decision = FireDecision {
        reason: Some(Reason::Calendar),
        calendars: [("holidays".parse().expect("a name"), first.offset), ("lost".parse().expect("a name"), -1)].into(),
        ..records::decision(&job, 1, Decision::Skipped)
    };
    world.fold(about(topic::FIRES, &job, &decision));
    let fires = world.get("/api/v1/jobs/a/b/fires").items();
    assert_eq!(fires[0]["reason"], "calendar");
    assert_eq!(fires[0]["calendars"], json!({"holidays": first.to_string(), "lost": null}));

    // A calendar that can't be used leaves the one before it in force; one that is gone lets nothing through.
    let write = |value: Option<&str>| {
        world.fold(NewRecord::new(topic::SETTINGS, 0, "calendar/holidays", value.map(|text| text.as_bytes().to_vec())));
    };
    write(Some(r#"{"dates": []}"#));
    assert_eq!(world.get("/api/v1/calendars/holidays").json()["status"]["position"], json!(first.to_string()));
    write(None);
    let preview = world.get("/api/v1/jobs/a/b/next").json();
    assert_eq!(preview["items"], json!([]), "{preview}");
    assert!(preview["lints"][0]["message"].to_string().contains("calendar holidays does not exist"), "{preview}");
}
