//! What the read routes answer to what is in the log. Not here: writes (`writes`), rebuilds (`rebuild`).
//! Invariant: every record came through the codec, as the services write it.

mod world;

use std::io::{BufRead as _, BufReader};

use orloj_domain::attempt::{AttemptEventType, OutcomeKind};
use orloj_domain::fire::{Decision, Reason};
use orloj_domain::job_event::{FieldError, JobEventType};
use orloj_domain::run::RunState;
use orloj_domain::topic;
use orloj_domain::trigger_state::TriggerState;
use orloj_runtime::clock::{Clock as _, SystemClock};
use orloj_runtime::log::{Header, NewRecord};
use serde_json::{Value, json};
use world::records::{self, about, at, job, run_of};
use world::{World, append, log, shard};

fn world() -> (World, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    (World::start(&log(), directory.path()), directory)
}

#[test]
fn a_run_shows_what_each_service_said_about_it() {
    let (world, _directory) = world();
    let job = job("billing/nightly");
    let id = run_of(&job, 0);
    world.fold(records::requested(&job, 0));
    let ready = world.get(&format!("/api/v1/runs/{id}")).json();
    assert_eq!((&ready["state"], &ready["attempt"]), (&json!("ready"), &json!(1)));
    assert_eq!((&ready["attempts"], &ready["startedAt"]), (&json!([]), &json!(null)));

    let mut retrying = records::step(&job, 0, RunState::Retrying, 2, 1);
    retrying.outcome = Some(orloj_domain::attempt::Outcome::new(OutcomeKind::LeaseLost, "silent"));
    retrying.due_at = Some(at(30));
    for record in [
        records::report(&job, 0, AttemptEventType::Claimed, 1, "s-1"),
        records::report(&job, 0, AttemptEventType::Claimed, 1, "s-2"),
        records::report(&job, 0, AttemptEventType::Started, 1, "s-1"),
        about(topic::RUN_EVENTS, &job, &retrying),
    ] {
        world.fold(record);
    }
    let run = world.get(&format!("/api/v1/runs/{id}")).json();
    assert_eq!((&run["state"], &run["attempt"]), (&json!("retrying"), &json!(2)));
    assert_eq!(run["dueAt"], json!(at(30).to_string()));
    assert_eq!(run["startedAt"], json!(at(1).to_string()));
    let attempts = run["attempts"].as_array().expect("a list");
    assert_eq!(attempts.len(), 1);
    assert_eq!((&attempts[0]["session"], &attempts[0]["attempt"]), (&json!("s-1"), &json!(1)));
    assert_eq!(attempts[0]["outcome"]["kind"], "leaseLost");
    assert_eq!(attempts[0]["lateResult"], json!(null));

    // A report that comes too late changes nothing about what the dispatcher decided.
    world.fold(records::report(&job, 0, AttemptEventType::Finished, 1, "s-1"));
    world.fold(records::ended(&job, 0, RunState::Succeeded, 2, OutcomeKind::Succeeded));
    let run = world.get(&format!("/api/v1/runs/{id}")).json();
    let outcome = json!({
        "kind": "succeeded", "exitCode": 0, "signal": null, "message": null, "httpStatus": null, "retryAfterMs": null,
        "isFinal": false,
    });
    assert_eq!(run["outcome"], outcome);
    assert_eq!(run["attempts"][0]["outcome"]["kind"], "leaseLost");
    assert_eq!(run["attempts"][0]["lateResult"]["kind"], "failed");
    assert!(run["attempts"][0]["lateResult"]["at"].is_string());
    assert_eq!(run["finishedAt"], json!(at(20).to_string()));
    assert_eq!(world.get(&format!("/api/v1/runs/{}", run_of(&job, 1))).status, 404);

    // A short one: its start and its end are one record, and its claim is none of its run's.
    let short = run_of(&job, 60);
    world.fold(records::requested(&job, 60));
    world.fold(records::report(&job, 60, AttemptEventType::Claimed, 1, "s-1"));
    world.fold(records::report(&job, 60, AttemptEventType::Finished, 1, "s-1"));
    world.fold(records::ended(&job, 60, RunState::Succeeded, 1, OutcomeKind::Succeeded));
    let run = world.get(&format!("/api/v1/runs/{short}")).json();
    assert_eq!((&run["state"], &run["startedAt"]), (&json!("succeeded"), &json!(at(60).to_string())));
    assert_eq!(run["attempts"][0]["claimedAt"], json!(at(61).to_string()));
}

#[test]
fn runs_are_filtered_and_paged_newest_first() {
    let (world, _directory) = world();
    let (first, second) = (job("a/first"), job("b/second"));
    for seconds in 0..5 {
        world.append(records::requested(&first, seconds));
    }
    world.append(records::requested(&second, 2));
    world.fold(records::ended(&second, 2, RunState::Dead, 1, OutcomeKind::Failed));
    world.fold(records::requested(&first, 5));
    let ids = |query: &str| -> Vec<String> {
        let items = world.get(&format!("/api/v1/runs{query}")).items();
        items.iter().map(|run| run["id"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let of = |seconds: i64| run_of(&first, seconds).to_string();
    assert_eq!(ids("?state=dead"), [run_of(&second, 2).to_string()]);
    assert_eq!(ids("?job=a/first&state=succeeded"), [""; 0]);
    assert_eq!(ids(&format!("?job=a/first&since={}&until={}", at(1), at(3))), [of(2), of(1)]);
    assert_eq!(ids("?queue=other"), [""; 0]);
    assert_eq!(ids("?namespace=b"), [run_of(&second, 2).to_string()]);
    assert_eq!(ids("").len(), 7);

    let page = world.get("/api/v1/runs?job=a/first&limit=2").json();
    let cursor = page["nextCursor"].as_str().expect("a cursor").to_owned();
    // What comes meanwhile is newer, and moves nothing.
    world.fold(records::requested(&first, 6));
    assert_eq!(ids(&format!("?job=a/first&limit=2&cursor={cursor}")), [of(3), of(2)]);
    let wrong = world.get(&format!("/api/v1/runs?job=b/second&cursor={cursor}"));
    assert_eq!((wrong.status, &wrong.json()["errors"][0]["field"]), (400, &json!("cursor")));
}

#[test]
fn decisions_and_events_of_a_job_are_listed_newest_first() {
    let (world, _directory) = world();
    let job = job("a/b");
    let mut skipped = records::decision(&job, 0, Decision::Skipped);
    skipped.reason = Some(Reason::Misfire);
    skipped.range_end = Some(at(60));
    let at_offset = world.append(about(topic::FIRES, &job, &skipped));
    world.fold(records::requested(&job, 60));
    let items = world.get("/api/v1/jobs/a/b/fires").items();
    assert_eq!(items.len(), 2);
    assert_eq!(items[0]["runId"], json!(run_of(&job, 60)));
    assert_eq!(
        items[1],
        json!({
            "job": "a/b", "version": 1, "trigger": "schedule", "fireTime": at(0).to_string(), "decision": "skipped",
            "reason": "misfire", "runId": null, "decidedAt": at(0).to_string(), "position": at_offset.to_string(),
            "rangeEnd": at(60).to_string(),
        })
    );
    // What the dispatcher refuses is skipped, and why it was is told about the instant.
    let mut refused = records::step(&job, 60, RunState::Cancelled, 0, 0);
    refused.outcome = Some(orloj_domain::attempt::Outcome::new(OutcomeKind::Overlap, "it forbids overlap"));
    world.fold(about(topic::RUN_EVENTS, &job, &refused));
    let newest = &world.get("/api/v1/jobs/a/b/fires").items()[0];
    assert_eq!((&newest["decision"], &newest["reason"]), (&json!("skipped"), &json!("overlap")));
    assert_eq!(newest["runId"], json!(run_of(&job, 60)));

    let mut rejected = records::event(&job, JobEventType::Rejected, 0, Some(3));
    rejected.errors = vec![FieldError::new("spec.schedule.cron", "61 * * * *", "is no minute")];
    let answer = world.append(about(topic::JOB_EVENTS, &job, &rejected));
    world.wait_for(&answer);
    let items = world.get("/api/v1/jobs/a/b/history").items();
    let shard = shard(&job);
    assert_eq!(items[0]["type"], "rejected");
    assert_eq!(items[0]["position"], json!(answer.to_string()));
    assert_eq!(items[0]["definitionPosition"], json!(format!("jobs/{shard}@3")));
    assert_eq!(items[0]["errors"][0]["value"], "61 * * * *");
    let asked = world.get(&format!("/api/v1/jobs/a/b/history?position=jobs/{shard}@3&timeout=10s")).items();
    assert_eq!(asked, items);
    let none = world.get(&format!("/api/v1/jobs/a/b/history?position=jobs/{shard}@4&timeout=50ms")).items();
    assert!(none.is_empty());
}

#[test]
fn output_comes_as_pages_plain_bytes_and_a_stream() {
    let (world, _directory) = world();
    let job = job("a/b");
    let path = format!("/api/v1/runs/{}/output", run_of(&job, 0));
    assert_eq!(world.get(&path).status, 404);
    for record in [
        records::requested(&job, 0),
        records::report(&job, 0, AttemptEventType::Claimed, 1, "s-1"),
        records::report(&job, 0, AttemptEventType::Started, 1, "s-1"),
        records::output(&job, 0, 1, 0, &[b"one\n", b"\xff\n"], false),
        records::output(&job, 0, 1, 0, &[b"sent twice\n"], false),
    ] {
        world.fold(record);
    }
    let page = world.get(&format!("{path}?limit=1")).json();
    assert_eq!(page["items"], json!([{"attempt": 1, "stream": "stdout", "at": at(0).to_string(), "text": "one\n"}]));
    let rest = world.get(&format!("{path}?cursor={}", page["nextCursor"].as_str().expect("a cursor"))).items();
    assert_eq!((&rest[0]["text"], &rest[0]["base64"]), (&json!("\u{fffd}\n"), &json!("/wo=")));

    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let request = agent.get(format!("{}{path}", world.address)).header("Accept", "text/event-stream");
    let mut response = request.header("Last-Event-ID", "1.0.0").call().expect("a stream");
    let mut lines = BufReader::new(response.body_mut().as_reader()).lines().map(|line| line.expect("a line"));
    assert_eq!(lines.next().as_deref(), Some("id: 1.0.1"));
    world.append(records::output(&job, 0, 1, 1, &[b"two\n"], true));
    world.append(records::ended(&job, 0, RunState::Succeeded, 1, OutcomeKind::Succeeded));
    let seen: Vec<String> = lines.filter(|line| !line.is_empty() && !line.starts_with(':')).collect();
    assert!(seen.contains(&"id: 1.1.0".to_owned()), "{seen:?}");
    assert_eq!(
        seen.last().map(String::as_str),
        Some(&*format!(r#"data: {{"id":"{}","state":"succeeded"}}"#, run_of(&job, 0)))
    );

    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let plain = agent.get(format!("{}{path}", world.address)).header("Accept", "text/plain").call().expect("plain");
    assert_eq!(plain.into_body().read_to_vec().expect("bytes"), b"one\n\xff\ntwo\n");
}

#[test]
fn what_is_parked_is_shown_with_its_record() {
    let (world, _directory) = world();
    let job = job("a/b");
    let id = run_of(&job, 0);
    world.fold(records::dead_letter(&job, 0, "default"));
    let items = world.get("/api/v1/dead-letters?job=a/b&queue=default").items();
    assert_eq!(items.len(), 1);
    for (field, value) in [
        ("runId", json!(id)),
        ("attempt", json!(2)),
        ("errorClass", json!("failed")),
        ("message", json!("exit code 3")),
        ("disposition", json!("attemptsExhausted")),
        ("firstFailure", json!(at(1).to_string())),
        ("fireTime", json!(at(0).to_string())),
        ("sourcePosition", json!(format!("fires/{}@7", shard(&job)))),
    ] {
        assert_eq!(items[0][field], value, "{field}");
    }
    let one = world.get(&format!("/api/v1/dead-letters/{id}")).json();
    assert_eq!(one["record"]["key"], json!(id));
    assert!(
        one["record"]["valueBase64"].is_string()
            && one["record"]["headers"].as_array().is_some_and(|list| list.len() == 11)
    );
    assert_eq!(world.get(&format!("/api/v1/dead-letters/{}", run_of(&job, 1))).status, 404);
    let mut parked = records::dead_letter(&job, 1, "default");
    parked.headers.retain(|header| header.key != "orloj-disposition");
    parked.headers.push(Header::text("orloj-disposition", "parked"));
    parked.headers.push(Header::text("orloj-parked-reason", "parked: somebody looks into it"));
    world.fold(parked);
    let runs = |query: &str| {
        let items = world.get(&format!("/api/v1/dead-letters{query}")).items();
        items.iter().map(|item| item["runId"].clone()).collect::<Vec<_>>()
    };
    let (first, second) = (json!(id), json!(run_of(&job, 1)));
    assert_eq!(runs(""), [first], "parked ones are no work that waits");
    assert_eq!(runs("?state=parked"), [second]);
    assert_eq!(runs("?state=all").len(), 2);
    assert_eq!(world.get("/api/v1/dead-letters?state=ready").status, 400);
    let reason = world.get("/api/v1/dead-letters?state=parked").items()[0]["parkedReason"].clone();
    assert_eq!(reason, "parked: somebody looks into it");
    assert!(items[0]["parkedReason"].is_null());

    let mut bad = NewRecord::new(topic::QUARANTINE, 0, "k", Some(b"\xfe".to_vec()));
    bad.headers = vec![
        Header::text("mine", "1"),
        Header::text("orloj-quarantine-topic", "jobs"),
        Header::text("orloj-quarantine-partition", 0),
        Header::text("orloj-quarantine-offset", 9),
        Header::text("orloj-quarantine-error", "value: no"),
    ];
    world.fold(bad);
    let items = world.get("/api/v1/quarantine").items();
    assert_eq!((&items[0]["sourcePosition"], &items[0]["error"]), (&json!("jobs/0@9"), &json!("value: no")));
    assert_eq!(
        items[0]["record"],
        json!({"key": "k", "valueBase64": "/g==", "headers": [{"key": "mine", "value": "1"}]})
    );
}

#[test]
fn the_fleet_is_shown_as_it_is_now() {
    let (world, _directory) = world();
    let now = SystemClock::new().now();
    world.append(records::heartbeat("here", now, 60_000));
    world.fold(records::heartbeat("gone", at(0), -1));
    let runners = world.get("/api/v1/runners").items();
    assert_eq!((&runners[0]["queueWeights"]["default"], &runners[0]["labels"]["zone"]), (&json!(3), &json!("eu")));
    let states: Vec<_> = runners.iter().map(|runner| (runner["runner"].clone(), runner["state"].clone())).collect();
    assert_eq!(states, [(json!("gone"), json!("lost")), (json!("here"), json!("online"))]);

    let job = job("a/b");
    world.append(records::paused(&job));
    world.append(records::owner(topic::TRIGGER_OWNERS, shard(&job), "old"));
    world.append(records::owner(topic::TRIGGER_OWNERS, shard(&job), "new"));
    world.append(NewRecord::new(topic::TRIGGER_OWNERS, shard(&job), "old", None));
    world.fold(records::owner(topic::DISPATCHER_OWNERS, shard(&job), "d"));
    let shards = world.get("/api/v1/shards").items();
    assert_eq!(shards.len(), 2);
    let ours = &shards[usize::try_from(shard(&job)).expect("small")];
    assert_eq!((&ours["jobs"], &ours["trigger"], &ours["dispatcher"]), (&json!(1), &json!("new"), &json!("d")));
    assert_eq!(ours["lag"], 0);

    // Three offers, of which the trigger says that it has dealt with one.
    let offers = (0..3).map(|_| world.append(NewRecord::new(topic::JOBS, shard(&job), "a/b", Some(b"{".to_vec()))));
    let first = offers.collect::<Vec<_>>()[0].offset;
    world.fold(records::positions(shard(&job), first + 1));
    let ours = world.get("/api/v1/shards").items()[usize::try_from(shard(&job)).expect("small")].clone();
    assert_eq!(ours["lag"], 2, "{ours}");
    assert_eq!(ours["position"]["jobs"], format!("jobs/{}@{}", shard(&job), first + 1));

    world.fold(records::requested(&job, 0));
    let queues = world.get("/api/v1/queues").items();
    assert_eq!(
        (&queues[0]["queue"], &queues[0]["ready"], &queues[0]["runners"]),
        (&json!("default"), &json!(1), &json!(1))
    );
}

#[test]
fn jobs_are_listed_by_namespace_label_state_and_part_of_the_name() {
    let (world, _directory) = world();
    for name in ["a/one", "a/two", "ab/one", "b/one"] {
        let (job, position) =
            (job(name), world.append(NewRecord::new(topic::JOBS, shard(&job(name)), name, Some(b"{".to_vec()))));
        append(&world.log, records::accepted(&job, 1, &position));
    }
    world.append(records::paused(&job("a/two")));
    let gone = records::state(&job("b/one"), 1, None, 9);
    world.fold(about(topic::TRIGGER_STATE, &job("b/one"), &gone));
    let names = |query: &str| -> Vec<String> {
        let items = world.get(&format!("/api/v1/jobs{query}")).items();
        items.iter().map(|job| job["job"].as_str().unwrap_or_default().to_owned()).collect()
    };
    for (query, found) in [
        ("", &["a/one", "a/two", "ab/one"][..]),
        ("?namespace=a", &["a/one", "a/two"]),
        ("?label=team=ab", &["ab/one"]),
        ("?label=team&q=one", &["a/one", "ab/one"]),
        ("?state=paused", &["a/two"]),
        ("?state=deleted", &["b/one"]),
        ("?state=suspended", &[]),
    ] {
        assert_eq!(names(query), found, "{query}");
    }
    let page = world.get("/api/v1/jobs?limit=1").json();
    assert_eq!(page["items"][0]["metadata"]["name"], "one");
    assert_eq!(page["items"][0]["status"]["state"], "active");
    let paused = world.get("/api/v1/jobs/a/two").json();
    assert_eq!((&paused["status"]["pause"]["reason"], &paused["status"]["nextFire"]), (&json!("lunch"), &json!(null)));
    assert_eq!(world.get("/api/v1/jobs/b/one").status, 404);
}

#[test]
fn previews_are_those_of_the_rules() {
    let (world, _directory) = world();
    let zone = "cron=30+2+*+*+MON-FRI&zone=Europe/Berlin";
    let preview = world.get(&format!("/api/v1/schedules/next?{zone}&n=2&from=2026-03-26T12:00:00Z")).json();
    assert_eq!(
        preview,
        json!({
            "expression": "30 2 * * MON-FRI", "zone": "Europe/Berlin",
            "description": "at 02:30 on Monday through Friday, Berlin time", "lints": [],
            "items": [
                {"at": "2026-03-27T01:30:00Z", "local": "2026-03-27T02:30:00+01:00", "note": null},
                {"at": "2026-03-30T00:30:00Z", "local": "2026-03-30T02:30:00+02:00", "note": "clocks have changed to UTC+02"},
            ],
        })
    );
    let either =
        world.get("/api/v1/schedules/next?cron=17+2+13+*+FRI&zone=Europe/Berlin&n=1&from=2026-03-28T12:00:00Z");
    let lints: Vec<Value> =
        either.json()["lints"].as_array().expect("lints").iter().map(|lint| lint["code"].clone()).collect();
    assert_eq!(lints, ["eitherDay"]);
    world.fold(records::paused(&job("a/b")));
    let of_job = world.get("/api/v1/jobs/a/b/next?n=1&from=2026-03-26T12:00:00Z").json();
    assert_eq!(
        (&of_job["expression"], &of_job["items"][0]["at"]),
        (&json!("30 2 * * *"), &json!("2026-03-27T02:30:00Z"))
    );
    assert_eq!((&of_job["description"], &of_job["lints"]), (&json!("at 02:30 every day, UTC"), &json!([])));
    for (query, field) in
        [("cron=61+*+*+*+*", "cron"), ("cron=@daily&zone=Mars", "zone"), ("", "cron"), ("cron=@daily&n=0", "n")]
    {
        let answer = world.get(&format!("/api/v1/schedules/next?{query}"));
        assert_eq!((answer.status, &answer.json()["errors"][0]["field"]), (400, &json!(field)), "{query}");
    }
}

#[test]
fn a_time_that_came_twice_is_explained_twice() {
    let (world, _directory) = world();
    let job = job("billing/nightly");
    let text = records::manifest(&job, r#"{"cron": "30 2 * * *", "timeZone": "Europe/Berlin"}"#);
    let definition = orloj_domain::manifest::parse_json(&text).expect("a good manifest");
    world.fold(about(topic::TRIGGER_STATE, &job, &records::state(&job, 1, Some(definition), 0)));
    let items = world.get("/api/v1/jobs/billing/nightly/explain?at=2036-10-26T02:30").items();
    let said = |item: &Value, field: &str| item[field].as_str().unwrap_or_default().to_owned();
    let answers: Vec<(String, String)> =
        items.iter().map(|item| (said(item, "instant"), said(item, "verdict"))).collect();
    let wanted = [("2036-10-26T00:30:00Z", "willFire"), ("2036-10-26T01:30:00Z", "notAFireTime")];
    assert_eq!(answers, wanted.map(|(instant, verdict)| (instant.to_owned(), verdict.to_owned())));
    let sentence = said(&items[1], "sentence");
    assert!(sentence.contains("`fold: first` takes the first time, 2036-10-26T00:30:00Z"), "{sentence}");
}

/// An edit begins to count anew; what the version before it had used up, it had.
#[test]
fn what_an_earlier_version_had_used_up_is_explained_after_an_edit() {
    let (world, _directory) = world();
    let job = job("billing/hourly");
    let text = records::manifest(&job, r#"{"every": "1h"}"#);
    let mut definition = orloj_domain::manifest::parse_json(&text).expect("a good manifest");
    definition.max_fires = Some(1);
    let position = world.append(about(topic::JOBS, &job, &definition));
    let first = records::state(&job, 1, Some(definition.clone()), position.offset);
    world.append(about(topic::TRIGGER_STATE, &job, &TriggerState { fires: 1, ..first }));
    world.append(records::requested(&job, 3600));
    let position = world.append(about(topic::JOBS, &job, &definition));
    let second = records::state(&job, 2, Some(definition), position.offset);
    world.fold(about(topic::TRIGGER_STATE, &job, &TriggerState { effective_from: at(10_000), ..second }));
    let item = &world.get(&format!("/api/v1/jobs/billing/hourly/explain?at={}", at(7200))).items()[0];
    assert_eq!((&item["version"], &item["verdict"]), (&json!(1), &json!("usedUp")), "{item}");
}

#[test]
fn a_fire_time_is_explained_by_what_is_on_the_log() {
    let (world, _directory) = world();
    let job = job("billing/nightly");
    let position = world.append(about(topic::JOBS, &job, &records::definition(&job)));
    for record in records::accepted(&job, 1, &position) {
        world.append(record);
    }
    world.append(records::requested(&job, 3600));
    world.fold(records::ended(&job, 3600, RunState::Dead, 1, OutcomeKind::Failed));
    let path = "/api/v1/jobs/billing/nightly/explain";
    let answer = world.get(&format!("{path}?at={}", at(3600))).json();
    let item = &answer["items"][0];
    assert_eq!((&item["verdict"], &item["version"]), (&json!("requested"), &json!(1)), "{answer}");
    let because = item["because"].to_string();
    assert!(because.contains(&format!("run {}: dead", run_of(&job, 3600))), "{because}");
    let beside = world.get(&format!("{path}?at={}", at(3660))).json();
    assert_eq!(beside["items"][0]["verdict"], "notAFireTime");
    let ahead = world.get(&format!("{path}?at=2030-01-01T02:30")).json();
    assert_eq!(ahead["items"][0]["verdict"], "willFire", "{ahead}");

    world.fold(about(topic::TRIGGER_STATE, &job, &records::state(&job, 1, None, position.offset + 1)));
    assert_eq!(world.get(&format!("{path}?at=2030-01-01T02:30")).json()["items"][0]["verdict"], "deleted");
    assert_eq!(world.get(&format!("{path}?at=soon")).status, 400);
    assert_eq!(world.get(path).status, 400);
    assert_eq!(world.get("/api/v1/jobs/billing/other/explain?at=2026-01-01T00:00:00Z").status, 404);
}
