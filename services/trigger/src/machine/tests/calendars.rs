//! Fire times that calendars leave out: one at a time, after an outage, around edits of a calendar, after a restore.

use std::sync::Arc;

use orloj_domain::calendar::{self, CalendarSet};
use orloj_domain::fire::NO_CALENDAR;
use orloj_runtime::driver::Machine;

use super::{Bench, Reason, TriggerEvent, TriggerInput, TriggerMachine, at, job, told};

/// From the start of the bench, 2027-01-15T08:00:00Z, to the first midnight.
const MIDNIGHT: i64 = 16 * 3600;
const DAY: i64 = 86_400;

impl Bench {
    /// The calendars are these from now on: names, specs and offsets.
    fn calendars(&mut self, calendars: &[(&str, &str, i64)]) -> Vec<TriggerEvent> {
        let mut set = CalendarSet::default();
        for (name, spec, offset) in calendars {
            let text = format!(
                r#"{{"apiVersion":"orloj/v1","kind":"Calendar","metadata":{{"name":"{name}"}},"spec":{spec}}}"#
            );
            set.put(calendar::parse_json(&text).expect("a calendar").1, *offset);
        }
        self.give(&TriggerInput::Calendars(Arc::new(set)))
    }
}

/// Calendars of a decision as `name@offset`.
fn asked(event: &TriggerEvent) -> String {
    let TriggerEvent::Decided(decision) = event else { panic!("{event:?}") };
    let texts: Vec<String> = decision.calendars.iter().map(|(name, offset)| format!("{name}@{offset}")).collect();
    texts.join(" ")
}

const EVERY_8H: &str = r#""schedule":{"every":"8h","exclude":["holidays"]}"#;
/// 2027-01-16, the day after the start.
const SATURDAY: &str = r#"{"dates":["2027-01-16"]}"#;

#[test]
fn fire_times_on_days_that_are_left_out_are_skipped_one_by_one() {
    let mut bench = Bench::new();
    assert_eq!(told(&bench.calendars(&[("holidays", SATURDAY, 7)])), "calendars");
    bench.offer(EVERY_8H);
    let hours = |hours: i64| hours * 3600;
    for (hour, wanted) in [
        (8, "requested"),
        (16, "skipped(calendar)"),
        (24, "skipped(calendar)"),
        (32, "skipped(calendar)"),
        (40, "requested"),
    ] {
        let events = bench.jump_to(hours(hour));
        assert_eq!(told(&events), format!("{}:{wanted}", hours(hour)));
        assert_eq!(asked(&events[0]), "holidays@7");
        let TriggerEvent::Decided(decision) = &events[0] else { panic!("{events:?}") };
        assert_eq!(decision.run_id.is_some(), wanted == "requested");
    }
    let state = bench.machine.state(&job()).expect("known");
    assert_eq!((state.fires, state.cursor), (2, at(hours(40))), "only what was requested counts");
}

#[test]
fn jobs_without_calendars_name_none() {
    let mut bench = Bench::new();
    bench.calendars(&[("holidays", SATURDAY, 7)]);
    bench.offer(r#""schedule":{"every":"8h"}"#);
    assert_eq!(asked(&bench.jump_to(2 * MIDNIGHT)[0]), "");
}

#[test]
fn after_an_outage_they_share_a_decision_and_nothing_is_coalesced_into_them() {
    let mut bench = Bench::new();
    bench.calendars(&[("holidays", SATURDAY, 7)]);
    bench.offer(r#""schedule":{"every":"8h","exclude":["holidays"]},"missed":{"policy":"latest","window":"100h"}"#);
    // Down from before 16:00 on Friday until 16:00 on Saturday, the newest of all being left out.
    let events = bench.jump_to(MIDNIGHT + 16 * 3600);
    let range = format!("{MIDNIGHT}-{}.001:skipped(calendar)", MIDNIGHT + 16 * 3600);
    assert_eq!(told(&events), format!("28800:requested(misfire) {range}"));
    assert!(events.iter().all(|event| asked(event) == "holidays@7"));
    assert_eq!(bench.machine.state(&job()).expect("known").cursor, at(MIDNIGHT + 16 * 3600));
    // Down until Sunday evening: those of Sunday, and none of Saturday, are taken together.
    let mut bench = Bench::new();
    bench.calendars(&[("holidays", SATURDAY, 7)]);
    bench.offer(r#""schedule":{"every":"8h","exclude":["holidays"]},"missed":{"policy":"latest","window":"100h"}"#);
    let events = bench.jump_to(MIDNIGHT + DAY + 16 * 3600);
    let second = |hours: i64| MIDNIGHT + hours * 3600;
    assert_eq!(
        told(&events),
        format!(
            "28800:coalesced(misfire) {MIDNIGHT}-{}.001:skipped(calendar) {}:coalesced(misfire) {}:coalesced(misfire) {}:requested",
            second(16),
            second(24),
            second(32),
            second(40)
        )
    );
}

#[test]
fn more_than_are_judged_one_by_one_are_a_range_and_the_rest_are_judged() {
    let mut bench = Bench::new();
    bench.calendars(&[("holidays", SATURDAY, 7)]);
    bench.offer(r#""schedule":{"every":"1m","exclude":["holidays"]}"#);
    let events = bench.jump_to(MIDNIGHT + DAY - 60);
    let first = MIDNIGHT + DAY - 60 - 999 * 60;
    assert_eq!(
        told(&events),
        format!("60-{first}:skipped(misfire) {first}-{}.001:skipped(calendar)", MIDNIGHT + DAY - 60)
    );
    assert_eq!(told(&bench.jump_to(MIDNIGHT + DAY)), format!("{}:requested", MIDNIGHT + DAY));
}

#[test]
fn a_weekend_that_is_left_out_does_not_hide_the_friday_before_it() {
    let monday = MIDNIGHT + 2 * DAY;
    let start = |missed: &str| {
        let mut bench = Bench::new();
        bench.calendars(&[("weekends", r#"{"weekdays":["SAT-SUN"]}"#, 7)]);
        bench.offer(&format!(r#""schedule":{{"every":"1m","exclude":["weekends"]}},"missed":{{{missed}}}"#));
        bench
    };
    let weekend = format!("{MIDNIGHT}-{}.001:skipped(calendar)", monday - 60);
    let mut bench = start(r#""policy":"latest","window":"72h""#);
    let events = bench.jump_to(monday - 60);
    let friday = format!("60-{}.001:coalesced(misfire) {}:requested(misfire)", MIDNIGHT - 120, MIDNIGHT - 60);
    assert_eq!(told(&events), format!("{friday} {weekend}"));
    assert!(events.iter().all(|event| asked(event) == "weekends@7"));
    assert_eq!(told(&bench.jump_to(monday)), format!("{monday}:requested"));
    // Those that are let through count against `max`, on whichever side of the weekend they are.
    let mut bench = start(r#""policy":"all","window":"96h","max":3"#);
    let friday = format!(
        "60-{}.001:skipped(misfire) {}:requested(misfire) {}:requested(misfire)",
        MIDNIGHT - 180,
        MIDNIGHT - 120,
        MIDNIGHT - 60
    );
    let wanted = format!("{friday} {weekend} {monday}:requested(misfire) {}:requested", monday + 60);
    assert_eq!(told(&bench.jump_to(monday + 60)), wanted);
    // What the window does not reach is skipped, whatever the calendars say of it.
    let mut bench = start(r#""policy":"latest","window":"24h""#);
    let first = monday - 60 - 999 * 60;
    let wanted = format!("60-{first}:skipped(misfire) {first}-{}.001:skipped(calendar)", monday - 60);
    assert_eq!(told(&bench.jump_to(monday - 60)), wanted);
}

#[test]
fn as_many_are_judged_as_without_calendars_however_many_days_lie_between() {
    let mut bench = Bench::new();
    bench.calendars(&[("some", r#"{"weekdays":["MON","WED"]}"#, 7)]);
    bench.offer(r#""schedule":{"every":"2m","only":["some"]},"missed":{"policy":"latest","window":"400h"}"#);
    let [tuesday, wednesday, thursday, saturday] = [3, 4, 5, 7].map(|days| MIDNIGHT + days * DAY);
    // Wednesday's 720, and Monday's newest 280.
    let oldest = tuesday - 280 * 120;
    let events = bench.jump_to(saturday);
    let wanted = [
        format!("120-{oldest}:skipped(misfire)"),
        format!("{oldest}-{}.001:coalesced(misfire)", tuesday - 120),
        format!("{tuesday}-{wednesday}:skipped(calendar)"),
        format!("{wednesday}-{}.001:coalesced(misfire)", thursday - 240),
        format!("{}:requested(misfire)", thursday - 120),
        format!("{thursday}-{saturday}.001:skipped(calendar)"),
    ];
    assert_eq!(told(&events), wanted.join(" "));
}

#[test]
fn an_edit_of_a_calendar_counts_for_what_is_decided_after_it() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"1h","exclude":["freeze"]}"#);
    bench.calendars(&[("freeze", "{}", 3)]);
    let events = bench.jump_to(3600);
    assert_eq!((told(&events).as_str(), asked(&events[0]).as_str()), ("3600:requested", "freeze@3"));
    let armed = bench.machine.next_deadline();
    bench.calendars(&[("freeze", r#"{"dates":["2027-01-15"]}"#, 9)]);
    assert_eq!(bench.machine.next_deadline(), armed, "fire times are the rule's");
    let events = bench.jump_to(7200);
    assert_eq!((told(&events).as_str(), asked(&events[0]).as_str()), ("7200:skipped(calendar)", "freeze@9"));
    bench.calendars(&[("freeze", "{}", 10)]);
    let events = bench.jump_to(10_800);
    assert_eq!((told(&events).as_str(), asked(&events[0]).as_str()), ("10800:requested", "freeze@10"));
}

#[test]
fn a_calendar_that_does_not_exist_lets_nothing_through() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"1h","only":["business"]}"#);
    let events = bench.jump_to(3600);
    assert_eq!(told(&events), "3600:skipped(calendar)");
    assert_eq!(asked(&events[0]), format!("business@{NO_CALENDAR}"));
    bench.calendars(&[("business", r#"{"include":["week"]}"#, 1)]);
    let events = bench.jump_to(7200);
    assert_eq!((told(&events).as_str(), asked(&events[0]).as_str()), ("7200:skipped(calendar)", "business@1 week@-1"));
    bench.calendars(&[("business", r#"{"include":["week"]}"#, 1), ("week", r#"{"weekdays":["MON-FRI"]}"#, 2)]);
    assert_eq!(told(&bench.jump_to(10_800)), "10800:requested");
    assert_eq!(told(&bench.command(orloj_domain::command::CommandType::RunNow, "r")), "10800:manual requested");
}

#[test]
fn a_delay_after_the_last_run_counts_on_from_what_is_left_out() {
    let mut bench = Bench::new();
    bench.calendars(&[("holidays", r#"{"dates":["2027-01-15"]}"#, 1)]);
    bench.offer(r#""schedule":{"afterFinish":"5h","exclude":["holidays"]}"#);
    for (second, wanted) in
        [(18_000, "skipped(calendar)"), (36_000, "skipped(calendar)"), (54_000, "skipped(calendar)")]
    {
        assert_eq!(told(&bench.jump_to(second)), format!("{second}:{wanted}"));
    }
    assert_eq!(told(&bench.jump_to(72_000)), "72000:requested");
    assert_eq!(told(&bench.jump_to(500_000)), "", "a run that was asked for is waited for");
}

#[test]
fn max_fires_counts_what_was_requested() {
    let mut bench = Bench::new();
    bench.calendars(&[("holidays", SATURDAY, 1)]);
    bench.offer(
        r#""schedule":{"every":"8h","exclude":["holidays"]},"maxFires":2,"missed":{"policy":"all","window":"999h"}"#,
    );
    let events = bench.jump_to(4 * DAY);
    let range = format!("{MIDNIGHT}-{}.001:skipped(calendar)", MIDNIGHT + 16 * 3600);
    assert_eq!(told(&events), format!("28800:requested(misfire) {range} {}:requested(misfire)", MIDNIGHT + DAY));
    assert_eq!(bench.machine.next_deadline(), None);
}

#[test]
fn a_restored_machine_that_reads_the_calendars_again_decides_the_same() {
    let mut bench = Bench::new();
    let calendars = [("holidays", SATURDAY, 7)];
    bench.calendars(&calendars);
    let mut events = bench.offer(EVERY_8H);
    events.extend(bench.jump_to(8 * 3600));
    events.extend(bench.jump_to(16 * 3600));
    let mut restored = Bench { machine: TriggerMachine::new(None), offset: 0, now: bench.now, run: None };
    for event in &events {
        match event {
            TriggerEvent::Stated { state, .. } | TriggerEvent::Kept(state) => restored.machine.replay_state(state),
            TriggerEvent::Decided(decision) => restored.machine.replay_decision(decision),
            TriggerEvent::Answered(_) | TriggerEvent::Calendars(_) => {}
        }
    }
    restored.calendars(&calendars);
    assert_eq!(restored.machine.state(&job()), bench.machine.state(&job()));
    for hour in [24, 32, 40, 48] {
        let (now, then) = (bench.jump_to(hour * 3600), restored.jump_to(hour * 3600));
        assert_eq!(now, then);
        let TriggerEvent::Decided(decision) = &now[0] else { panic!("{now:?}") };
        assert_eq!(decision.reason == Some(Reason::Calendar), hour < 40);
    }
}

#[test]
fn a_backfill_of_a_range_asks_the_calendars_and_one_of_a_list_does_not() {
    let hours = |hours: i64| hours * 3600;
    let start = || {
        let mut bench = Bench::new();
        bench.calendars(&[("holidays", SATURDAY, 7)]);
        bench.offer(EVERY_8H);
        for hour in 1..=48 {
            bench.jump_to(hours(hour));
        }
        bench
    };
    let backfill = |bench: &mut Bench, fire_times: Vec<orloj_domain::time::Timestamp>| {
        let command = orloj_domain::command::Command {
            from: Some(at(hours(1))),
            until: Some(at(hours(39))),
            fire_times,
            concurrency: Some(2),
            ..orloj_domain::command::Command::new(
                orloj_domain::command::CommandType::Backfill,
                "b".parse().expect("an id"),
            )
        };
        let input = TriggerInput::Commanded { job: job(), offset: 99, at: bench.now, command: Box::new(command) };
        let mut events = bench.give(&input);
        events.extend(bench.jump_to(hours(48)));
        events
    };
    // Of 8:00 on Friday to 39 hours later, Saturday's three are left out; the end waits for the run.
    let mut bench = start();
    let events = backfill(&mut bench, Vec::new());
    assert_eq!(told(&events), "backfillStarted:v1 28800:backfill requested kept", "{events:?}");
    assert_eq!(asked(&events[1]), "holidays@7");
    assert!(bench.machine.next_deadline().is_none_or(|due| due > bench.now), "nothing turns in circles");
    let mut bench = start();
    let events = backfill(&mut bench, vec![at(hours(16)), at(hours(24))]);
    assert_eq!(
        told(&events),
        format!("backfillStarted:v1 {}:backfill requested {}:backfill requested", hours(16), hours(24))
    );
    assert_eq!(asked(&events[1]), "");
    let mut bench = start();
    bench.calendars(&[]);
    let events = backfill(&mut bench, Vec::new());
    let TriggerEvent::Answered(answer) = &events[0] else { panic!("{events:?}") };
    assert!(answer.errors[0].message.contains("that the calendars let through"), "{answer:?}");
}
