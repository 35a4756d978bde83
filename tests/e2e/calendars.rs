//! Calendars from the files of a person, or the records of a program, to the decisions on the log, through a `kill -9`.
//! Not here: what days a calendar holds.

use std::fs;
use std::time::Duration;

use orloj_domain::fire::{FireDecision, Reason};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_tests::fires::reader;
use orloj_tests::installation;
use orloj_tests::process::{Orloj, PATIENCE, run};
use orloj_tests::wait;
use serde_json::{Value, json};

const JOB: &str = "\
apiVersion: orloj/v1
kind: Job
metadata: {namespace: test, name: tick}
spec:
  schedule: {every: 1s, exclude: [outer]}
  overlap: {policy: allow}
  run: {exec: {command: [/bin/true]}}
";

/// The one that is included stands behind the one that includes it.
const CALENDARS: &str = "\
apiVersion: orloj/v1
kind: Calendar
metadata: {name: outer}
spec: {include: [inner]}
---
apiVersion: orloj/v1
kind: Calendar
metadata: {name: inner}
spec: {weekdays: [MON-SUN]}
";

struct Installation {
    orloj: Orloj,
    url: String,
}

impl Installation {
    fn start(data: &str) -> Self {
        let mut orloj = Orloj::start(&["dev", "--quiet", "--listen", "127.0.0.1:0", "--data", data]);
        let url = orloj.url();
        Self { orloj, url }
    }

    /// Exit code, and all that was said.
    fn cli(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = run(&[arguments, &["--server", &self.url]].concat());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }

    /// The newest decision, once it is this one by calendars at these positions.
    fn newest(&self, decision: &str, calendars: &Value) -> Value {
        let url = format!("{}/api/v1/jobs/test/tick/fires?limit=1", self.url);
        wait::until(&format!("{decision} by {calendars}"), PATIENCE, || {
            let found: Value = ureq::get(&url).call().ok()?.body_mut().read_json().ok()?;
            let newest = found["items"][0].clone();
            (newest["decision"] == decision && newest["calendars"] == *calendars).then_some(newest)
        })
    }
}

/// Where a calendar was written, by what was said about it.
fn position(said: &str, calendar: &str) -> String {
    let line = said.lines().find(|line| line.starts_with(&format!("calendar {calendar} written at ")));
    line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("{calendar}: {said}")).to_owned()
}

#[test]
fn a_calendar_silences_a_job_and_says_so_until_it_is_edited() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let manifests = folder.path().join("manifests");
    fs::create_dir(&manifests).expect("a folder");
    fs::write(manifests.join("1-job.yaml"), JOB).expect("a file");
    fs::write(manifests.join("2-calendars.yaml"), CALENDARS).expect("a file");
    let installation = Installation::start(&data);
    let (code, said) = installation.cli(&["apply", "-f", &manifests.join("1-job.yaml").display().to_string()]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("spec.schedule.exclude[0]: is no calendar; apply it first"), "{said}");

    let (code, said) = installation.cli(&["apply", "-f", &manifests.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    let (inner, outer) = (position(&said, "inner"), position(&said, "outer"));
    let skipped = installation.newest("skipped", &json!({"inner": inner, "outer": outer}));
    assert_eq!((&skipped["reason"], &skipped["runId"]), (&json!("calendar"), &Value::Null));
    let fire_time = skipped["fireTime"].as_str().expect("an instant");
    let (code, said) = installation.cli(&["explain", "test/tick", fire_time]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("is left out by calendar outer") && said.contains(&inner), "{said}");
    let (code, said) = installation.cli(&["delete", "calendar", "inner"]);
    assert!(code == Some(4) && said.contains("named by calendars outer"), "{said}");

    fs::write(manifests.join("2-calendars.yaml"), CALENDARS.replace("MON-SUN", "caturday")).expect("a file");
    let (code, said) = installation.cli(&["apply", "-f", &manifests.display().to_string()]);
    assert_eq!(code, Some(2), "caturday is no day: {said}");
    fs::write(manifests.join("2-calendars.yaml"), CALENDARS.replace("{weekdays: [MON-SUN]}", "{}")).expect("a file");
    let (code, said) = installation.cli(&["apply", "-f", &manifests.display().to_string()]);
    assert_eq!(code, Some(0), "{said}");
    let positions = json!({"inner": position(&said, "inner"), "outer": position(&said, "outer")});
    installation.newest("requested", &positions);
    installation.orloj.kill();

    let installation = Installation::start(&data);
    let before = installation.newest("requested", &positions);
    wait::until("a later one", PATIENCE, || (installation.newest("requested", &positions) != before).then_some(()));
    let (_, said) = installation.cli(&["describe", "calendar", "outer"]);
    assert!(said.contains("Named by jobs:\n  test/tick"), "{said}");
    let (_, said) = installation.cli(&["next", "test/tick", "-n", "1"]);
    assert!(said.contains("except on days of calendar outer"), "{said}");
    for (arguments, wanted) in [
        (["delete", "job", "test/tick"], 0),
        (["delete", "calendar", "outer"], 0),
        (["delete", "calendar", "outer"], 3),
    ] {
        // What was removed a moment ago may still be there for readers.
        wait::until(&format!("{arguments:?}"), PATIENCE, || {
            (installation.cli(&arguments).0 == Some(wanted)).then_some(())
        });
    }
    let (_, said) = installation.cli(&["get", "calendars", "-o", "name"]);
    assert_eq!(said, "calendar/inner\n");
    assert!(installation.orloj.stop().success());
}

#[test]
fn triggers_on_a_broker_judge_by_the_calendars_there_were_and_hear_of_edits() {
    const JOBS: usize = 16;
    let Some(installation) = installation::Installation::new("calendars") else { return };
    installation.calendar("days", r#"{"weekdays":["MON-SUN"]}"#);
    for index in 0..JOBS {
        let spec = r#""schedule":{"every":"1s","exclude":["days"]},"run":{"exec":{"command":["/bin/true"]}}"#;
        installation.offer(&format!("tick-{index}"), spec);
    }
    let first = installation.serve("trigger", &[]);
    let mut fires = reader(&installation.log, topic::FIRES);
    // Every job has a decision for this reason by the calendar at this offset.
    let mut all_by = |reason: Option<Reason>, offset: i64| {
        let mut seen = std::collections::BTreeSet::new();
        wait::until(&format!("{reason:?} by {offset} of all jobs"), PATIENCE, || {
            for record in fires.poll(1000, Duration::from_millis(100)).expect("a readable log") {
                if record.key_text().is_none_or(|key| key.starts_with("__")) {
                    continue;
                }
                let decision: FireDecision = codec::decode(&record.value?).expect("a decision");
                let by = decision.calendars.values().copied().next();
                if (decision.reason, by) == (reason, Some(offset)) {
                    seen.insert(decision.job);
                }
            }
            (seen.len() == JOBS).then_some(())
        });
    };
    all_by(Some(Reason::Calendar), 0);
    let second = installation.serve("trigger", &[]);
    all_by(Some(Reason::Calendar), 0);
    installation.calendar("days", "{}");
    all_by(None, 1);
    first.kill();
    installation.calendar("days", r#"{"weekdays":["MON-SUN"]}"#);
    all_by(Some(Reason::Calendar), 2);
    assert!(second.stop().success());
}
