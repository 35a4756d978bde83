//! Answers to questions about gaps, folds, outages, pauses and edits, each from facts as the projection has them.

use std::sync::Arc;

use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use serde_json::json;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().expect("an instant")
}

/// A version with this `spec.schedule`, and more of the spec behind it.
fn version(number: i64, from: &str, schedule: &str) -> Version {
    let text = format!(
        r#"{{"apiVersion": "orloj/v1", "kind": "Job", "metadata": {{"namespace": "a", "name": "b"}},
            "spec": {{"schedule": {schedule}, "run": {{"exec": {{"command": ["true"]}}}}}}}}"#
    );
    let definition = manifest::parse_json(&text).unwrap_or_else(|error| panic!("{error:?}"));
    let kept = Definition::new(definition).expect("a manifest");
    Version {
        version: number,
        effective_from: at(from),
        position: format!("jobs/0@{number}"),
        definition: Some(Arc::new(kept)),
        is_delete: false,
    }
}

const NIGHTLY: &str = r#"{"cron": "30 2 * * *", "timeZone": "Europe/Berlin"}"#;

fn facts(instant: &str, versions: Vec<Version>) -> Facts {
    Facts {
        now: at("2026-04-10T00:00:00Z"),
        instant: at(instant),
        versions,
        decided: None,
        decided_before: None,
        paused: None,
        backfilled: Vec::new(),
        cursor: at("2026-04-09T23:00:00Z"),
        fires: 3,
        kept_since: at("2026-03-11T00:00:00Z"),
        calendars: Arc::default(),
    }
}

fn decided(fire_time: &str, decision: &str, reason: Option<&str>, decided_at: &str) -> Decided {
    Decided {
        version: 1,
        fire_time: at(fire_time),
        range_end: None,
        decision: decision.to_owned(),
        reason: reason.map(str::to_owned),
        coalesced_into: None,
        decided_at: at(decided_at),
        calendars: BTreeMap::new(),
        run: None,
        document: json!({"position": "fires/0@7"}),
    }
}

fn check(facts: &Facts, verdict: Verdict, parts: &[&str]) {
    let answer = explain(facts);
    assert_eq!(answer.verdict, verdict, "{answer:#?}");
    for part in parts {
        let is_said = answer.sentence.contains(part) || answer.because.iter().any(|line| line.contains(part));
        assert!(is_said, "`{part}` is not in {answer:#?}");
    }
}

#[test]
fn what_was_decided_is_said() {
    let night = || vec![version(1, "2026-03-01T00:00:00Z", NIGHTLY)];
    let fire = "2026-04-01T00:30:00Z";
    let with = |decided: Decided| Facts { decided: Some(decided), ..facts(fire, night()) };
    let on_time = decided(fire, "requested", None, "2026-04-01T00:30:00.004Z");
    check(&with(on_time.clone()), Verdict::Requested, &["4ms after", "fires/0@7", "version 1", "30 2 * * *"]);
    let run = Some(("r-1".to_owned(), Some("dead".to_owned())));
    check(&with(Decided { run, ..on_time }), Verdict::Requested, &["run r-1: dead"]);
    let late = decided(fire, "requested", Some("misfire"), "2026-04-01T01:00:00Z");
    check(&with(late), Verdict::RequestedLate, &["30m", "missed: latest"]);
    let skipped = decided(fire, "skipped", Some("misfire"), "2026-04-01T09:30:00Z");
    check(&with(skipped.clone()), Verdict::Skipped, &["noticed 9h late", "`missed.window` is 1h"]);
    let into = Decided {
        coalesced_into: Some(at("2026-04-02T00:30:00Z")),
        ..decided(fire, "coalesced", Some("misfire"), "2026-04-02T00:30:00Z")
    };
    check(&with(into), Verdict::Coalesced, &["2026-04-02T00:30:00Z"]);
    let paused =
        Paused { at: at("2026-03-31T00:00:00Z"), reason: Some("audit".to_owned()), actor: Some("kim".to_owned()) };
    let skip = decided(fire, "skipped", Some("paused"), "2026-04-03T00:00:00Z");
    let facts = Facts { paused: Some(paused), ..with(skip) };
    check(&facts, Verdict::Skipped, &["since 2026-03-31T00:00:00Z by kim: \"audit\""]);
}

#[test]
fn a_range_explains_the_fire_times_in_it_and_no_other_instant() {
    let range = Decided {
        range_end: Some(at("2026-04-05T00:00:00Z")),
        ..decided("2026-04-01T00:30:00Z", "skipped", Some("misfire"), "2026-04-08T00:00:00Z")
    };
    let with = |instant| Facts {
        decided: Some(range.clone()),
        ..facts(instant, vec![version(1, "2026-03-01T00:00:00Z", NIGHTLY)])
    };
    check(&with("2026-04-03T00:30:00Z"), Verdict::Skipped, &["covers all fire times from 2026-04-01T00:30:00Z"]);
    check(&with("2026-04-03T00:31:00Z"), Verdict::NotAFireTime, &["the next one after it is 2026-04-04T00:30:00Z"]);
}

#[test]
fn what_lies_ahead_and_what_never_comes() {
    let with = |schedule: &str| vec![version(1, "2026-03-20T00:00:00Z", schedule)];
    let nightly = || with(NIGHTLY);
    check(&facts("2026-04-11T00:30:00Z", nightly()), Verdict::WillFire, &["in 24h30m"]);
    check(&facts("2026-04-09T00:30:00Z", nightly()), Verdict::NotYetDecided, &["23h30m late", "up to 2026-04-09T23"]);
    check(&facts("2026-03-19T00:30:00Z", nightly()), Verdict::NotYetDefined, &["2026-03-20T00:00:00Z"]);
    check(&facts("2026-04-09T00:31:00Z", nightly()), Verdict::NotAFireTime, &["2026-04-10T00:30:00Z"]);
    let old = facts("2026-03-05T01:30:00Z", vec![version(1, "2026-01-01T00:00:00Z", NIGHTLY)]);
    check(&old, Verdict::Forgotten, &["2026-03-11"]);
    let bounded = r#"{"every": "1h"}, "notAfter": "2026-04-11T00:00:00Z", "notBefore": "2026-04-02T00:00:00Z""#;
    check(&facts("2026-04-11T01:00:00Z", with(bounded)), Verdict::NotAFireTime, &["`notAfter`"]);
    check(&facts("2026-04-01T01:00:00Z", with(bounded)), Verdict::NotAFireTime, &["`notBefore`"]);
    let few = r#"{"every": "1h"}, "maxFires": 3"#;
    check(&facts("2026-04-11T01:00:00Z", with(few)), Verdict::UsedUp, &["`maxFires` is 3"]);
    let suspended = r#"{"every": "1h"}, "suspend": true"#;
    check(&facts("2026-04-11T01:00:00Z", with(suspended)), Verdict::Paused, &["`suspend: true`"]);
    let paused = Some(Paused { at: at("2026-04-09T00:00:00Z"), reason: None, actor: None });
    let paused = Facts { paused, ..facts("2026-04-11T00:30:00Z", nightly()) };
    check(&paused, Verdict::Paused, &["since 2026-04-09T00:00:00Z"]);
}

#[test]
fn the_version_in_force_then_answers() {
    let hourly = r#"{"every": "1h"}"#;
    let mut removed = version(2, "2026-04-05T00:00:00Z", hourly);
    (removed.definition, removed.is_delete, removed.position) = (None, true, "jobs/0@9".to_owned());
    let versions = || {
        vec![version(1, "2026-03-20T00:00:00Z", NIGHTLY), version(2, "2026-04-01T12:00:00Z", hourly), removed.clone()]
    };
    check(&facts("2026-03-25T05:00:00Z", versions()), Verdict::NotAFireTime, &["version 1 was in force"]);
    check(&facts("2026-04-02T05:00:00Z", versions()), Verdict::NotYetDecided, &["version 2 was in force"]);
    check(&facts("2026-04-06T05:00:00Z", versions()), Verdict::Deleted, &["deleted at 2026-04-05T00:00:00Z"]);
    // An edit at the very moment of a fire time: the decision carries the version that was in force.
    let fire = "2026-04-01T12:00:00Z";
    let raced = Facts { decided: Some(decided(fire, "requested", None, fire)), ..facts(fire, versions()) };
    check(&raced, Verdict::Requested, &["version 1 was in force"]);
}

#[test]
fn clocks_are_read_in_the_time_zone_of_the_job() {
    let versions = [version(1, "2026-03-01T00:00:00Z", NIGHTLY)];
    let meant = |text: &str| moments(text, &versions).expect("a moment");
    let [plain] = meant("2026-04-01T02:30").try_into().expect("one");
    assert_eq!(plain, Moment { instant: at("2026-04-01T00:30:00Z"), note: None });
    let [gap] = meant("2026-03-29T02:30").try_into().expect("one");
    assert_eq!(gap.instant, at("2026-03-29T01:00:00Z"), "the instant at which the gap ended, and the job fired");
    assert!(gap.note.is_some_and(|note| note.contains("never came")));
    let [first, second] = meant("2026-10-25T02:30:00").try_into().expect("two");
    assert_eq!((first.instant, second.instant), (at("2026-10-25T00:30:00Z"), at("2026-10-25T01:30:00Z")));
    assert!(first.note.is_some_and(|note| note.contains("first")));
    assert_eq!(meant("2026-10-25T02:30:00+01:00")[0].instant, at("2026-10-25T01:30:00Z"));
    assert!(moments("tomorrow", &versions).is_err_and(|message| message.contains("2026-12-01T09:00")));
}

#[test]
fn a_clock_change_that_took_a_fire_time_is_told() {
    let with = |dst: &str, instant: &str| {
        let schedule = format!(r#"{{"cron": "30 2 * * *", "timeZone": "Europe/Berlin", "dst": {dst}}}"#);
        facts(instant, vec![version(1, "2026-03-01T00:00:00Z", &schedule)])
    };
    let (first, second) = ("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z");
    let next = "The next one after it is 2026-10-26T01:30:00Z.";
    let said = ["show 02:30 twice on 2026-10-25, and `fold: first` takes the first", first, "write `fold: last`", next];
    check(&with("{}", second), Verdict::NotAFireTime, &said);
    check(&with("{}", first), Verdict::WillFire, &[]);
    let said =
        ["`fold: last` takes the last", "not this first one; write `fold: first`", "after it is 2026-10-25T01:30"];
    check(&with(r#"{"fold": "last"}"#, first), Verdict::NotAFireTime, &said);
    check(&with(r#"{"fold": "both"}"#, second), Verdict::WillFire, &[]);

    let gap_end = "2026-03-29T01:00:00Z";
    let said =
        ["02:30 does not exist on 2026-03-29, and `gap: skip` leaves it out", "after it is 2026-03-30T00:30:00Z"];
    check(&with(r#"{"gap": "skip"}"#, gap_end), Verdict::NotAFireTime, &said);
    check(&with("{}", gap_end), Verdict::NotYetDecided, &[]);
    let said = ["forward from 02:00 to 03:00 at 2026-03-29T01:00:00Z", "`gap: shift` moves it there"];
    check(&with("{}", "2026-03-29T01:30:00Z"), Verdict::NotAFireTime, &said);

    // Outside of the bounds it is the bounds that matter.
    let ended =
        NIGHTLY.trim_end_matches('}').to_owned() + r#", "dst": {"gap": "skip"}}, "notAfter": "2026-03-20T00:00:00Z""#;
    let ended = facts(gap_end, vec![version(1, "2026-03-01T00:00:00Z", &ended)]);
    check(&ended, Verdict::NotAFireTime, &["`notAfter` is"]);
}

/// `holidays` at offset 7 with Easter Sunday and Monday of 2026.
fn holidays() -> Arc<CalendarSet> {
    let text = r#"{"apiVersion":"orloj/v1","kind":"Calendar","metadata":{"name":"holidays"},
        "spec":{"dates":["2026-04-05","2026-04-06","2026-04-12"]}}"#;
    let mut set = CalendarSet::default();
    set.put(orloj_domain::calendar::parse_json(text).expect("good").1, 7);
    Arc::new(set)
}

#[test]
fn what_calendars_leave_out_is_said_with_their_positions() {
    let schedule = r#"{"cron": "30 2 * * *", "timeZone": "Europe/Berlin", "exclude": ["holidays"]}"#;
    let versions = || vec![version(1, "2026-03-20T00:00:00Z", schedule)];
    let skipped = |offset: i64| {
        let calendars = BTreeMap::from([("holidays".parse().expect("a name"), offset)]);
        let fire = "2026-04-05T00:30:00Z";
        let decided = Decided { calendars, ..decided(fire, "skipped", Some("calendar"), fire) };
        Facts { decided: Some(decided), calendars: holidays(), ..facts(fire, versions()) }
    };
    let said = ["2026-04-05 is left out by calendar holidays", "calendar holidays was that of settings/0@7"];
    check(&skipped(7), Verdict::Skipped, &said);
    let said = ["a calendar left its day out", "was that of settings/0@3; it is that of settings/0@7 now"];
    check(&skipped(3), Verdict::Skipped, &said);
    check(&skipped(-1), Verdict::Skipped, &["calendar holidays did not exist", "it is that of settings/0@7 now"]);
    let removed = Facts { calendars: Arc::default(), ..skipped(7) };
    check(&removed, Verdict::Skipped, &["a calendar left its day out", "it was removed since"]);

    let ahead = |instant| Facts { calendars: holidays(), ..facts(instant, versions()) };
    let said = ["as the calendars are now: 2026-04-12 is left out by calendar holidays", "settings/0@7; an edit until"];
    check(&ahead("2026-04-12T00:30:00Z"), Verdict::LeftOut, &said);
    assert_eq!(explain(&ahead("2026-04-11T00:30:00Z")).next_fire_time.as_deref(), Some("2026-04-13T00:30:00Z"));
    check(&ahead("2026-04-13T00:30:00Z"), Verdict::WillFire, &["except on days of calendar holidays", "settings/0@7"]);
    let lost = facts("2026-04-13T00:30:00Z", versions());
    check(&lost, Verdict::LeftOut, &["calendar holidays does not exist"]);
}
