//! The manifest as data: what is read, what is filled in, what is refused and how the complaint reads.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Manifest, check, from_definition, parse_json, rules_of, to_definition};
use crate::job::{JobDefinition, MissedKind, OverlapKind, ScheduleRule, Target};
use crate::job_event::FieldError;

/// A manifest whose `spec` is the smallest one overlaid with `spec`.
fn manifest(spec: Value) -> String {
    let mut whole = json!({
        "apiVersion": "orloj/v1",
        "kind": "Job",
        "metadata": {"namespace": "billing", "name": "nightly-invoice"},
        "spec": {"run": {"exec": {"command": ["/bin/true"]}}},
    });
    if let (Some(target), Value::Object(fields)) = (whole["spec"].as_object_mut(), spec) {
        target.extend(fields);
    }
    whole.to_string()
}

fn read(spec: Value) -> JobDefinition {
    parse_json(&manifest(spec)).expect("a good manifest")
}

fn complaints(spec: Value) -> Vec<FieldError> {
    parse_json(&manifest(spec)).expect_err("a manifest to refuse")
}

#[test]
fn absent_fields_get_their_defaults() {
    let definition = read(json!({}));
    assert_eq!(definition.job.as_str(), "billing/nightly-invoice");
    assert!(definition.schedule.is_empty());
    assert_eq!(definition.missed.policy, MissedKind::Latest);
    assert_eq!((definition.missed.window_ms, definition.missed.max), (3_600_000, 100));
    let spec = &definition.spec;
    assert_eq!((spec.overlap.policy, spec.overlap.max), (OverlapKind::Forbid, 100));
    assert_eq!((spec.timeout_ms, spec.start_delay_ms, spec.deadline_ms), (3_600_000, 0, None));
    assert_eq!((spec.retry.max_attempts, spec.retry.initial_ms, spec.retry.max_ms), (1, 5_000, 600_000));
    assert!((spec.retry.factor - 2.0).abs() < f64::EPSILON && (spec.retry.jitter - 0.2).abs() < f64::EPSILON);
    assert_eq!((spec.queue.as_str(), spec.priority, spec.pause_after_failures), ("default", 5, 0));
    assert!(!definition.suspend);
}

#[test]
fn a_schedule_is_one_rule_or_a_list() {
    let one = read(json!({"schedule": {"cron": "30 2 * * MON-FRI", "timeZone": "Europe/Berlin"}}));
    assert!(matches!(&one.schedule[..], [ScheduleRule::CronRule(cron)] if cron.time_zone == "Europe/Berlin"));
    let list =
        read(json!({"schedule": [{"every": "15m"}, {"at": "2026-12-01T09:00:00+01:00"}, {"cron": "@every 90s"}]}));
    assert_eq!(list.schedule.len(), 3);
    assert_eq!(rules_of(&list).expect("rules").len(), 3);
}

#[test]
fn what_is_written_reads_back_the_same() {
    for spec in [
        json!({}),
        json!({"schedule": {"cron": "0 9 * * 1", "timeZone": "Asia/Tokyo", "dialect": "unix", "dst": {"gap": "skip", "fold": "both"}}}),
        json!({"schedule": [{"every": "1d", "anchor": "2026-01-01T06:00:00Z"}, {"at": "2026-12-01T08:00:00.250Z"}]}),
        json!({"schedule": [{"cron": "0 9 * * 1", "exclude": ["holidays"]}, {"every": "1d", "only": ["a", "b"]},
            {"at": "2026-12-01T08:00:00Z", "exclude": ["a"]}, {"afterFinish": "1m", "exclude": ["a"], "only": ["b"]}]}),
        json!({"notBefore": "2026-01-01T00:00:00Z", "notAfter": "2027-01-01T00:00:00Z", "maxFires": 3, "jitter": "30s"}),
        json!({"missed": {"policy": "all", "window": "7d", "max": 5}, "overlap": {"policy": "allow"}}),
        json!({"overlap": {"policy": "queue", "max": 7}, "concurrency": 3, "deadline": "2h"}),
        json!({"overlap": {"policy": "replace"}}),
        json!({"overlap": {"policy": "allow"}, "retry": {"maxAttempts": 2}, "hedge": {"after": "30s"}}),
        json!({"startDelay": "90s", "timeout": "10m", "delivery": "atMostOnce", "queue": "batch", "priority": 9, "suspend": true}),
        json!({"retry": {"maxAttempts": 5, "backoff": {"initial": "1h", "factor": 1.5, "jitter": 0.0}, "nonRetryableExitCodes": [2]}}),
        json!({"run": {"exec": {"command": ["x"], "limits": {"memory": "256MiB", "cpuSeconds": 60, "openFiles": 64, "processes": 20}}}}),
        json!({"runnerSelector": {"matchLabels": {"zone": "eu-1", "gpu": "", "vendor.com/Disk_1": "SSD"}}}),
        json!({"run": {"shell": {"script": "x", "limits": {"memory": 8_388_609}}}}),
        json!({"run": {"shell": {"script": "x", "limits": {}}}}),
        json!({"run": {"shell": {"script": "echo hi", "env": {"A": "b"}, "stdin": "in", "workingDir": "/tmp", "shell": "/bin/bash"}}}),
    ] {
        let definition = read(spec);
        let again = from_definition(&definition);
        let text = serde_json::to_string(&again).expect("json");
        assert_eq!(parse_json(&text), Ok(definition), "{text}");
    }
}

#[test]
fn an_http_target_is_kept_whole_by_the_conversion() {
    let text = manifest(json!({"run": {"http": {
        "url": "https://billing.internal/run",
        "headers": {"Authorization": {"secretRef": "token"}, "Accept": "text/plain"},
        "success": [204, "200-201"],
        "completion": "callback",
    }}}));
    let manifest: Manifest = serde_json::from_str(&text).expect("shape");
    let definition = to_definition(manifest.clone()).expect("a definition");
    let expected = Target::HttpTarget(crate::job::HttpTarget {
        method: "POST".to_owned(),
        url: "https://billing.internal/run".to_owned(),
        headers: [
            ("Authorization".to_owned(), crate::job::HeaderValue { value: None, secret_ref: Some("token".to_owned()) }),
            ("Accept".to_owned(), crate::job::HeaderValue { value: Some("text/plain".to_owned()), secret_ref: None }),
        ]
        .into(),
        body: String::new(),
        success: vec!["204".to_owned(), "200-201".to_owned()],
        completion: crate::job::HttpCompletion::Callback,
    });
    assert_eq!(definition.spec.target, expected);
    assert_eq!(from_definition(&definition), manifest);
    for completion in [None, Some("response")] {
        let mut plain = manifest.clone();
        plain.spec.run.http.as_mut().expect("a request").completion = completion.map(str::to_owned);
        let plain = from_definition(&to_definition(plain).expect("a definition"));
        assert_eq!(plain.spec.run.http.expect("a request").completion, None, "the default is left out");
    }
}

#[test]
fn a_handler_takes_any_json_and_nothing_else() {
    for payload in [json!(null), json!(7), json!({"tenant": 7, "to": ["a", null]})] {
        let mut definition = read(json!({"run": {"handler": {"name": "send-invoices", "payload": payload}}}));
        let spec = Arc::make_mut(&mut definition.spec);
        let Target::HandlerTarget(target) = &mut spec.target else { panic!("no handler of {payload}") };
        assert_eq!(serde_json::from_str::<Value>(&target.payload).expect("JSON"), payload);
        target.payload.push(',');
        let errors = check(&definition);
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["spec.run.handler.payload"], "{payload}");
    }
    let bare = read(json!({"run": {"handler": {"name": "h"}}}));
    assert!(matches!(&bare.spec.target, Target::HandlerTarget(target) if target.payload == "null"));
}

#[test]
fn every_complaint_comes_at_once_with_its_field() {
    let errors = complaints(json!({
        "schedule": [{"cron": "61 * * * *"}, {"every": "soon"}, {"at": "2026-12-01"}, {"cron": "0 0 * * *", "timeZone": "Mars/Olympus"}],
        "timeout": "0s",
        "priority": 10,
        "retry": {"maxAttempts": 0, "backoff": {"factor": 0.5}},
        "queue": "No Spaces",
    }));
    let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
    for field in [
        "spec.schedule[0].cron",
        "spec.schedule[1].every",
        "spec.schedule[2].at",
        "spec.schedule[3].timeZone",
        "spec.timeout",
        "spec.priority",
        "spec.retry.maxAttempts",
        "spec.retry.backoff.factor",
        "spec.queue",
    ] {
        assert!(fields.contains(&field), "{field} in {errors:#?}");
    }
    assert_eq!(fields.len(), 9, "{errors:#?}");
}

fn labels(count: usize) -> Value {
    (0..count).map(|index| (format!("l{index}"), json!("x"))).collect::<serde_json::Map<_, _>>().into()
}

#[test]
fn one_bad_field_is_one_complaint() {
    for (spec, field) in [
        (json!({"schedule": {"cron": "0 0 31 2 *"}}), "spec.schedule.cron"),
        (json!({"schedule": {"every": "1h", "exclude": ["Holidays"]}}), "spec.schedule.exclude[0]"),
        (json!({"schedule": {"every": "1h", "only": vec!["a"; 21]}}), "spec.schedule.exclude"),
        (json!({"schedule": {"cron": "@reboot"}}), "spec.schedule.cron"),
        (json!({"schedule": {"cron": "@every 500ms"}}), "spec.schedule.cron"),
        (json!({"schedule": {"cron": "* * * * *", "every": "5m"}}), "spec.schedule"),
        (json!({"schedule": {}}), "spec.schedule"),
        (json!({"schedule": {"every": "500ms"}}), "spec.schedule.every"),
        (json!({"schedule": {"every": "0s"}}), "spec.schedule.every"),
        (json!({"schedule": {"every": "5m", "timeZone": "UTC"}}), "spec.schedule.timeZone"),
        (json!({"schedule": {"afterFinish": "500ms"}}), "spec.schedule.afterFinish"),
        (json!({"schedule": [{"afterFinish": "5m"}, {"afterFinish": "6m"}]}), "spec.schedule"),
        (json!({"maxFires": 0}), "spec.maxFires"),
        (json!({"run": {"shell": {"script": "x", "limits": {"memory": "256MB"}}}}), "spec.run.shell.limits.memory"),
        (json!({"run": {"exec": {"command": ["x"], "limits": {"memory": 256}}}}), "spec.run.exec.limits.memory"),
        (json!({"run": {"exec": {"command": ["x"], "limits": {"cpuSeconds": 0}}}}), "spec.run.exec.limits.cpuSeconds"),
        (json!({"run": {"exec": {"command": ["x"], "limits": {"openFiles": 3}}}}), "spec.run.exec.limits.openFiles"),
        (json!({"run": {"shell": {"script": "x", "limits": {"processes": -1}}}}), "spec.run.shell.limits.processes"),
        (json!({"jitter": "-1s"}), "spec.jitter"),
        (json!({"missed": {"window": "-1s"}}), "spec.missed.window"),
        (json!({"missed": {"max": 0}}), "spec.missed.max"),
        (json!({"notBefore": "2027-01-01T00:00:00Z", "notAfter": "2026-01-01T00:00:00Z"}), "spec.notAfter"),
        (json!({"runnerSelector": {}}), "spec.runnerSelector.matchLabels"),
        (json!({"runnerSelector": {"matchLabels": {}}}), "spec.runnerSelector.matchLabels"),
        (json!({"runnerSelector": {"matchLabels": {"": "eu"}}}), "spec.runnerSelector.matchLabels."),
        (json!({"runnerSelector": {"matchLabels": {"a b": "eu"}}}), "spec.runnerSelector.matchLabels.a b"),
        (json!({"runnerSelector": {"matchLabels": {"zone": "eu,us"}}}), "spec.runnerSelector.matchLabels.zone"),
        (json!({"runnerSelector": {"matchLabels": {"zone": "e".repeat(64)}}}), "spec.runnerSelector.matchLabels.zone"),
        (json!({"runnerSelector": {"matchLabels": labels(17)}}), "spec.runnerSelector.matchLabels"),
        (json!({"concurrency": 2}), "spec.concurrency"),
        (json!({"overlap": {"policy": "replace"}, "concurrency": 2}), "spec.concurrency"),
        (json!({"overlap": {"policy": "allow"}, "concurrency": 0}), "spec.concurrency"),
        (json!({"run": {"http": {"url": "ftp://x/"}}}), "spec.run.http.url"),
        (json!({"run": {"http": {"url": "https://"}}}), "spec.run.http.url"),
        (json!({"run": {"http": {"url": "https://u:p@x/"}}}), "spec.run.http.url"),
        (json!({"run": {"http": {"url": "https://x/a b"}}}), "spec.run.http.url"),
        (json!({"run": {"http": {"url": "https://x/", "method": "post"}}}), "spec.run.http.method"),
        (json!({"run": {"http": {"url": "https://x/", "success": ["2xx"]}}}), "spec.run.http.success[0]"),
        (json!({"run": {"http": {"url": "https://x/", "completion": "later"}}}), "spec.run.http.completion"),
        (json!({"run": {"http": {"url": "https://x/", "headers": {"a b": "c"}}}}), "spec.run.http.headers.a b"),
        (json!({"run": {"http": {"url": "https://x/", "headers": {"Host": "c"}}}}), "spec.run.http.headers.Host"),
        (json!({"run": {"http": {"url": "https://x/", "headers": {"X": "{{no}}"}}}}), "spec.run.http.headers.X"),
        (
            json!({"run": {"http": {"url": "https://x/", "headers": {"X": {"secretRef": "../a"}}}}}),
            "spec.run.http.headers.X.secretRef",
        ),
        (json!({"run": {"http": {"url": "https://x/", "body": "{{no}}"}}}), "spec.run.http.body"),
        (json!({"deadline": "0s"}), "spec.deadline"),
        (json!({"deadline": "11y"}), "spec.deadline"),
        (json!({"pauseAfterFailures": -1}), "spec.pauseAfterFailures"),
        (json!({"retry": {"backoff": {"initial": "1m", "max": "1s"}}}), "spec.retry.backoff.max"),
        (json!({"retry": {"nonRetryableExitCodes": [256]}}), "spec.retry.nonRetryableExitCodes"),
        (json!({"tiemout": "5m"}), "tiemout"),
        (json!({"timeout": 5}), "manifest"),
    ] {
        one_complaint(&spec, field);
    }
}

#[test]
fn one_bad_field_of_a_target_is_one_complaint() {
    for (spec, field) in [
        (json!({"run": {}}), "spec.run"),
        (json!({"run": {"exec": {"command": []}}}), "spec.run.exec.command"),
        (json!({"run": {"exec": {"command": ["x"], "workingDir": "srv"}}}), "spec.run.exec.workingDir"),
        (json!({"run": {"exec": {"command": ["x"], "env": {"ORLOJ_JOB": "1"}}}}), "spec.run.exec.env.ORLOJ_JOB"),
        (json!({"run": {"shell": {"script": " "}}}), "spec.run.shell.script"),
        (json!({"run": {"shell": {"script": "{{.Names}}", "stdin": "{{nope}} {{ run.id }}"}}}), "spec.run.shell.stdin"),
        (
            json!({"run": {"exec": {"command": ["x"], "env": {"A": "{{params.}}{{params.B}}{{job"}}}}),
            "spec.run.exec.env.A",
        ),
        (json!({"run": {"kafka": {"topic": ""}}}), "spec.run.kafka.topic"),
        (json!({"run": {"kafka": {"topic": "a b"}}}), "spec.run.kafka.topic"),
        (json!({"run": {"kafka": {"topic": "__consumer_offsets"}}}), "spec.run.kafka.topic"),
        (json!({"run": {"kafka": {"topic": "t", "cluster": "a.b"}}}), "spec.run.kafka.cluster"),
        (json!({"run": {"kafka": {"topic": "t", "key": "{{nope}}"}}}), "spec.run.kafka.key"),
        (json!({"run": {"kafka": {"topic": "t", "value": "{{nope}}"}}}), "spec.run.kafka.value"),
        (json!({"run": {"kafka": {"topic": "t", "headers": {"Orloj-Job": "x"}}}}), "spec.run.kafka.headers.Orloj-Job"),
        (json!({"run": {"handler": {"name": "", "payload": {"tenant": 7}}}}), "spec.run.handler.name"),
        (json!({"run": {"handler": {"name": "Send_Invoices"}}}), "spec.run.handler.name"),
    ] {
        one_complaint(&spec, field);
    }
}

fn one_complaint(spec: &serde_json::Value, field: &str) {
    let errors = complaints(spec.clone());
    assert_eq!(errors.len(), 1, "{spec}: {errors:#?}");
    assert_eq!(errors[0].field, field, "{spec}: {errors:#?}");
    assert!(!errors[0].message.is_empty());
}

#[test]
fn metadata_is_checked() {
    for (metadata, fields) in [
        (json!({"namespace": "Billing", "name": "a_b"}), vec!["metadata.namespace", "metadata.name"]),
        (json!({"name": "a", "labels": {"team": "Not Good"}}), vec!["metadata.labels.team"]),
        (json!({"name": "a", "labels": {"app.example.com/team": "b", "tier": "1.2", "empty": ""}}), vec![]),
        (json!({"name": "a", "labels": {"-x": "b"}}), vec!["metadata.labels.-x"]),
        (json!({"name": "a"}), vec![]),
    ] {
        let text = json!({
            "apiVersion": "orloj/v1", "kind": "Job", "metadata": metadata, "spec": {"run": {"exec": {"command": ["x"]}}},
        })
        .to_string();
        let found: Vec<String> = match parse_json(&text) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.into_iter().map(|error| error.field).collect(),
        };
        assert_eq!(found, fields, "{text}");
    }
}

#[test]
fn other_kinds_and_texts_that_are_no_manifest_are_refused() {
    let other = manifest(json!({})).replace("orloj/v1", "batch/v1").replace("\"Job\"", "\"CronJob\"");
    let fields: Vec<String> = parse_json(&other).expect_err("refused").into_iter().map(|error| error.field).collect();
    assert_eq!(fields, ["apiVersion", "kind"]);
    for text in ["", "{", "[]", "null", "{\"apiVersion\": \"orloj/v1\"}"] {
        assert_eq!(parse_json(text).expect_err("refused").len(), 1, "{text}");
    }
    let huge = manifest(json!({"run": {"shell": {"script": "x".repeat(300_000)}}}));
    assert_eq!(parse_json(&huge).expect_err("refused")[0].field, "manifest");
}

#[test]
fn definitions_that_came_as_records_pass_the_same_checks() {
    let mut definition = read(json!({}));
    assert!(check(&definition).is_empty());
    let retry = &mut Arc::make_mut(&mut definition.spec).retry;
    retry.factor = f64::NAN;
    retry.jitter = f64::INFINITY;
    definition.jitter_ms = -1;
    definition.schedule = vec![ScheduleRule::EveryRule(crate::job::EveryRule {
        period_ms: -5,
        anchor: crate::time::Timestamp::MIN,
        exclude: Vec::new(),
        only: Vec::new(),
    })];
    let fields: Vec<String> = check(&definition).into_iter().map(|error| error.field).collect();
    assert_eq!(
        fields,
        ["spec.jitter", "spec.schedule.every", "spec.retry.backoff.factor", "spec.retry.backoff.jitter"]
    );
}

#[test]
fn rules_are_bounded() {
    let rules: Vec<Value> = (0..1001).map(|minute| json!({"every": format!("{}m", minute + 1)})).collect();
    assert_eq!(complaints(json!({"schedule": rules}))[0].field, "spec.schedule");
    let longest = "0 0 * * *,".repeat(30_000);
    assert!(!complaints(json!({"schedule": {"cron": longest}})).is_empty());
}

#[test]
fn a_hedge_stands_beside_nothing_that_it_would_break() {
    let allowed = json!({"overlap": {"policy": "allow"}, "retry": {"maxAttempts": 3}, "hedge": {"after": "30s"}});
    let with = |changes: Value| {
        let mut spec = allowed.clone();
        if let (Some(fields), Value::Object(changes)) = (spec.as_object_mut(), changes) {
            fields.extend(changes);
        }
        spec
    };
    let definition = read(allowed.clone());
    assert_eq!(crate::hedge::after(&definition.spec), Some(std::time::Duration::from_secs(30)));
    assert_eq!(crate::hedge::after(&read(json!({})).spec), None);
    read(with(json!({"hedge": {"after": "100ms"}, "timeout": "100ms"})));
    let callback = json!({"http": {"url": "https://billing.internal/run", "completion": "callback"}});
    for (changes, field) in [
        (json!({"hedge": {"after": "0s"}}), "spec.hedge.after"),
        (json!({"hedge": {"after": "31s"}, "timeout": "30s"}), "spec.hedge.after"),
        (json!({"hedge": {"after": "soon"}}), "spec.hedge.after"),
        (json!({"overlap": {}}), "spec.overlap.policy"),
        (json!({"overlap": {"policy": "replace"}}), "spec.overlap.policy"),
        (json!({"overlap": {"policy": "queue"}}), "spec.overlap.policy"),
        (json!({"concurrency": 4}), "spec.concurrency"),
        (json!({"delivery": "atMostOnce"}), "spec.delivery"),
        (json!({"retry": {}}), "spec.retry.maxAttempts"),
        (json!({"limits": ["door"]}), "spec.limits"),
        (json!({"run": callback}), "spec.run.http.completion"),
    ] {
        one_complaint(&with(changes), field);
    }
    let mut spec = (*definition.spec).clone();
    spec.delivery = crate::job::Delivery::AtMostOnce;
    assert_eq!(crate::hedge::after(&spec), None, "what may not be is not done");
}
