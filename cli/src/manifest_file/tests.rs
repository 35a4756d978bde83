//! Files as data: what is read, and how a complaint about each kind of mistake reads.

use super::{Loaded, Manifests, load, parse};

const GOOD: &str = "\
apiVersion: orloj/v1
kind: Job
metadata: {name: hello}
spec:
  schedule: [{every: 15m}, {cron: \"0 9 * * MON\", timeZone: Europe/Berlin}]
  run: {exec: {command: [sleep, 5], env: {PORT: 5432, FLAG: true}}}
";

fn read(text: &str) -> (Vec<Loaded>, Vec<String>) {
    let (mut loaded, mut complaints) = (Manifests::default(), Vec::new());
    parse("jobs.yaml", text, Some("team"), &mut loaded, &mut complaints);
    (loaded.jobs, complaints)
}

#[test]
fn documents_and_json_are_read() {
    let json = r#"{"apiVersion": "orloj/v1", "kind": "Job",
        "metadata": {"namespace": "a", "name": "b"}, "spec": {"run": {"shell": {"script": "true"}}}}"#;
    for (text, jobs) in [
        (GOOD.to_owned(), vec!["team/hello"]),
        (format!("# first\n---\n{GOOD}---\n\n---\n{}", GOOD.replace("hello", "bye")), vec!["team/hello", "team/bye"]),
        (json.to_owned(), vec!["a/b"]),
    ] {
        let (loaded, complaints) = read(&text);
        assert_eq!(complaints, Vec::<String>::new());
        let found: Vec<&str> = loaded.iter().map(|one| one.definition.job.as_str()).collect();
        assert_eq!(found, jobs);
    }
}

#[test]
fn complaints_name_line_column_field_and_what_was_expected() {
    for (from, to, said) in [
        ("  schedule", "  shedule", "jobs.yaml:5:3: spec.shedule: unknown field `shedule`, expected one of schedule, "),
        (
            "every: 15m",
            "evry: 15m",
            "jobs.yaml:5:15: spec.schedule[0].evry: unknown field `evry`, expected one of cron, ",
        ),
        (
            "every: 15m",
            "every: soon",
            "jobs.yaml:5:22: spec.schedule[0].every: is no duration; write for example `90s`",
        ),
        ("0 9 *", "61 9 *", "jobs.yaml:5:35: spec.schedule[1].cron: minute `61` at column 1 is out of range 0-59"),
        ("Europe/Berlin", "Mars", "jobs.yaml:5:60: spec.schedule[1].timeZone: "),
        ("spec:", "spec:\n  priority: high", "jobs.yaml:5:13: spec.priority: expected a whole number"),
        ("spec:", "spec:\n  suspend: maybe", "jobs.yaml:5:12: spec.suspend: expected true or false"),
        (
            "spec:",
            "spec:\n  overlap: {policy: x}",
            "jobs.yaml:5:21: spec.overlap.policy: unknown variant `x`, expected one of allow, ",
        ),
        (
            "spec:",
            "spec:\n  timeout: 5\n  timeout: 6",
            "jobs.yaml:6:3: duplicate mapping key: timeout; remove one of them",
        ),
        ("{name: hello}", "{name: [hello]}", "jobs.yaml:3:18: metadata.name: expected a text"),
        ("{name: hello}", "{name: Hello}", "jobs.yaml:3:18: metadata.name: is no job name; use 1 to 63"),
        ("{name: hello}", "{}", "jobs.yaml:3:11: metadata: missing field `name`"),
        ("kind: Job", "kind: [", "jobs.yaml:"),
        (
            "\n  run:",
            "\n  overlap: {policy: allow}\n  concurrency: 0\n  run:",
            "jobs.yaml:7:16: spec.concurrency: must be 1 or more; ",
        ),
    ] {
        let text = GOOD.replace(from, to);
        let (loaded, complaints) = read(&text);
        assert!(loaded.is_empty(), "{text}");
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        assert!(complaints[0].starts_with(said), "{}\nwanted {said}", complaints[0]);
    }
}

#[test]
fn files_without_a_manifest_are_refused() {
    for text in ["", "# nothing\n", "---\n---\n"] {
        assert_eq!(read(text).1, ["jobs.yaml: has no manifest; `orloj apply --help` shows one"]);
    }
    assert!(
        load(&["/nowhere/at-all.yaml".to_owned()], None).expect_err("refused")[0]
            .starts_with("/nowhere/at-all.yaml: can't be read")
    );
}

#[test]
fn the_examples_are_admissible() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples");
    let loaded = load(&[folder.to_owned()], None).expect("good examples");
    assert!(loaded.jobs.len() >= 4, "{loaded:?}");
}

#[test]
fn a_job_is_defined_once() {
    let folder = tempdir("twice");
    for name in ["a.yaml", "b.yml"] {
        std::fs::write(folder.join(name), GOOD).expect("a file");
    }
    let complaints = load(&[folder.display().to_string()], None).expect_err("refused");
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(complaints[0].contains("b.yml:1: metadata.name: job default/hello is also at"), "{complaints:?}");
}

fn tempdir(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("orloj-cli-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

#[test]
fn a_file_that_says_it_is_json_is_json() {
    let text = r#"{"apiVersion": "orloj/v1", "kind": "Job", "metadata": {"name": "b"},
        "spec": {"run": {"shell": {"script": "true"}},}}"#;
    let (mut loaded, mut complaints) = (Manifests::default(), Vec::new());
    parse("job.json", text, Some("team"), &mut loaded, &mut complaints);
    assert!(loaded.jobs.is_empty());
    assert_eq!(complaints, ["job.json:2:55: is not JSON: key must be a string"]);
}

#[test]
fn calendars_stand_beside_jobs_and_are_complained_about_in_place() {
    const CALENDAR: &str = "\
apiVersion: orloj/v1
kind: Calendar
metadata: {name: holidays}
spec:
  yearly: [12-25, 01-01]
  dates: [2026-05-14]
";
    let both = |calendar: &str| {
        let (mut loaded, mut complaints) = (Manifests::default(), Vec::new());
        parse("all.yaml", &format!("{GOOD}---\n{calendar}"), Some("team"), &mut loaded, &mut complaints);
        (loaded, complaints)
    };
    let (loaded, complaints) = both(CALENDAR);
    assert_eq!(complaints, Vec::<String>::new());
    assert_eq!((loaded.jobs.len(), loaded.calendars[0].origin.as_str()), (1, "all.yaml:8"));
    assert_eq!(loaded.calendars[0].calendar.name().as_str(), "holidays");
    for (from, to, said) in [
        ("  dates", "  date", "all.yaml:13:3: spec.date: unknown field `date`, expected one of timeZone, "),
        ("12-25", "13-25", "all.yaml:12:12: spec.yearly[0]: is no day of the year; write month and day"),
        ("{name:", "{namespace: a, name:", "all.yaml:10:23: metadata.namespace: calendars have no namespace"),
        ("spec:", "spec:\n  schedule: 1", "all.yaml:12:3: spec.schedule: unknown field `schedule`"),
        ("kind: Calendar\n", "", "all.yaml:"),
    ] {
        let (_, complaints) = both(&CALENDAR.replace(from, to));
        assert!(complaints[0].starts_with(said), "{complaints:?}\nwanted {said}");
    }
    let (_, complaints) = both("apiVersion: orloj/v1\nspec: {run: {}}\nkind: Calendar\nmetadata: {name: a}\n");
    assert!(complaints[0].contains("write `kind` before `spec`"), "{complaints:?}");
    let (_, complaints) = both(&format!("{CALENDAR}---\n{CALENDAR}"));
    assert!(complaints.is_empty(), "told once all files are read");
}

#[test]
fn limits_and_queues_stand_beside_jobs_and_are_complained_about_in_place() {
    const LIMITS: &str = "\
apiVersion: orloj/v1
kind: Limit
metadata: {name: database}
spec:
  maxConcurrent: 2
  ratePerSecond: 0.5
---
apiVersion: orloj/v1
kind: Queue
metadata: {name: default}
";
    let both = |limits: &str| {
        let (mut loaded, mut complaints) = (Manifests::default(), Vec::new());
        let job = GOOD.replace("spec:", "spec:\n  limits: [database]");
        parse("all.yaml", &format!("{limits}---\n{job}"), Some("team"), &mut loaded, &mut complaints);
        (loaded, complaints)
    };
    let (loaded, complaints) = both(LIMITS);
    assert_eq!(complaints, Vec::<String>::new());
    assert_eq!(loaded.jobs[0].definition.spec.limits[0].as_str(), "database");
    let limits: Vec<(&str, &str)> = loaded.limits.iter().map(|one| (one.limit.as_str(), one.origin.as_str())).collect();
    assert_eq!(limits, [("limit/database", "all.yaml:1"), ("queue/default", "all.yaml:8")]);
    for (from, to, said) in [
        ("maxConcurrent: 2", "maxConcurrent: 0", "all.yaml:5:18: spec.maxConcurrent: must be 1 to 1000000"),
        ("maxConcurrent: 2", "maxConcurrent: two", "all.yaml:5:18: spec.maxConcurrent: expected a whole number"),
        ("  maxC", "  maxc", "all.yaml:5:3: spec.maxconcurrent: unknown field `maxconcurrent`, expected one of max"),
        ("0.5", "0", "all.yaml:6:18: spec.ratePerSecond: must be 0.00001 to 100000 runs per second"),
        ("0.5", "1\n  burst: 0", "all.yaml:7:10: spec.burst: must be 1 to 1000000"),
        ("0.5", "1\n  paused: maybe", "all.yaml:7:11: spec.paused: expected true or false"),
        (
            "{name: d",
            "{namespace: a, name: d",
            "all.yaml:3:23: metadata.namespace: queues and limits have no namespace",
        ),
        ("{name: database}", "{name: Data}", "all.yaml:3:18: metadata.name: is no limit name; use 1 to 63"),
        ("kind: Limit", "kind: limit", "all.yaml:2:7: kind: must be `Job`, `Calendar`, `Queue` or `Limit`"),
    ] {
        let (_, complaints) = both(&LIMITS.replace(from, to));
        assert!(complaints[0].starts_with(said), "{complaints:?}\nwanted {said}");
    }
    let (_, complaints) = both("apiVersion: orloj/v1\nspec: {run: {}}\nkind: Queue\nmetadata: {name: a}\n");
    assert!(complaints[0].contains("write `kind` before `spec`"), "{complaints:?}");
    let (_, complaints) = both("apiVersion: orloj/v1\nkind: Limit\nmetadata: {name: a}\n");
    assert!(complaints[0].starts_with("all.yaml:1:1: spec: bounds nothing"), "{complaints:?}");
}

#[test]
fn a_limit_and_a_queue_may_have_one_name_and_no_two_limits() {
    let folder = tempdir("limits");
    let manifest =
        |kind: &str| format!("apiVersion: orloj/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{maxConcurrent: 1}}\n");
    for (name, kind) in [("a.yaml", "Limit"), ("b.yaml", "Queue")] {
        std::fs::write(folder.join(name), manifest(kind)).expect("a file");
    }
    let paths = [folder.display().to_string()];
    assert_eq!(load(&paths, None).expect("two of them").limits.len(), 2);
    std::fs::write(folder.join("c.yaml"), manifest("Limit")).expect("a file");
    let complaints = load(&paths, None).expect_err("refused");
    std::fs::remove_dir_all(&folder).expect("removed");
    assert!(complaints[0].contains("c.yaml:1: metadata.name: limit a is also at"), "{complaints:?}");
}
