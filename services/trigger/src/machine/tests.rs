//! The trigger's machine as tables: apply these inputs at these times, expect these decisions.

mod about_runs;
mod after_finish;
mod backfill;
mod calendars;
mod failures;
mod missed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::command::{Command, CommandType};
use orloj_domain::fire::{Decision, FireDecision, Reason, TriggerKind};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::job::{JobDefinition, ScheduleRule};
use orloj_domain::job_event::JobEventType;
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use orloj_runtime::driver::Machine;

use super::{LostZones, TriggerEvent, TriggerInput, TriggerMachine};

/// A round second: 2027-01-15T08:00:00Z.
const START: i64 = 1_800_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_millis((START + second) * 1000)
}

fn job() -> JobId {
    "test/job".parse().expect("a valid id")
}

fn definition(spec: &str) -> Arc<JobDefinition> {
    let text = format!(
        r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"test","name":"job"}},
            "spec":{{{spec},"run":{{"exec":{{"command":["/bin/true"]}}}}}}}}"#
    );
    Arc::new(manifest::parse_json(&text).expect("a valid manifest"))
}

/// A machine with a clock: what happens to it is written down as short text.
struct Bench {
    machine: TriggerMachine,
    offset: i64,
    now: Timestamp,
    /// The run that the next command names.
    run: Option<RunId>,
}

impl Bench {
    fn new() -> Self {
        Self { machine: TriggerMachine::new(None), offset: 0, now: at(0), run: None }
    }

    fn give(&mut self, input: &TriggerInput) -> Vec<TriggerEvent> {
        let events = self.machine.decide(input, self.now);
        for event in &events {
            self.machine.apply(event);
        }
        events
    }

    fn offer(&mut self, spec: &str) -> Vec<TriggerEvent> {
        self.offset += 1;
        self.give(&TriggerInput::Offered {
            job: job(),
            offset: self.offset,
            at: self.now,
            definition: definition(spec),
        })
    }

    fn command(&mut self, kind: CommandType, id: &str) -> Vec<TriggerEvent> {
        let run_id = self.run.take();
        self.send(Command { run_id, ..command(kind, id) })
    }

    fn send(&mut self, command: Command) -> Vec<TriggerEvent> {
        self.offset += 1;
        self.give(&TriggerInput::Commanded {
            job: job(),
            offset: self.offset,
            at: self.now,
            command: Box::new(command),
        })
    }

    fn delete(&mut self) -> Vec<TriggerEvent> {
        self.offset += 1;
        self.give(&TriggerInput::Deleted { job: job(), offset: self.offset, at: self.now })
    }

    /// Moves the clock in one jump and ticks until nothing is due.
    fn jump_to(&mut self, second: i64) -> Vec<TriggerEvent> {
        self.now = at(second);
        let mut events = Vec::new();
        while self.machine.next_deadline().is_some_and(|due| due <= self.now) {
            let some = self.give(&TriggerInput::Tick);
            assert!(!some.is_empty(), "due, but nothing was decided");
            events.extend(some);
        }
        events
    }
}

fn command(kind: CommandType, id: &str) -> Command {
    Command { reason: Some("test".to_owned()), ..Command::new(kind, CommandId::new(id).expect("a valid id")) }
}

/// Decisions as `second:decision`, ranges as `first-end:decision`.
fn told(events: &[TriggerEvent]) -> String {
    let texts: Vec<String> = events
        .iter()
        .map(|event| match event {
            TriggerEvent::Decided(decision) => told_decision(decision),
            TriggerEvent::Stated { answer, .. } | TriggerEvent::Answered(answer) => {
                format!("{}:v{}", answer.kind, answer.version)
            }
            TriggerEvent::Kept(_) => "kept".to_owned(),
            TriggerEvent::Calendars(_) => "calendars".to_owned(),
        })
        .collect();
    texts.join(" ")
}

fn told_decision(decision: &FireDecision) -> String {
    let second = |time: Timestamp| (time.millis() - at(0).millis()) as f64 / 1000.0;
    let range = decision.range_end.map(|end| format!("-{}", second(end))).unwrap_or_default();
    let reason = decision.reason.map(|reason| format!("({reason})")).unwrap_or_default();
    let kind = match decision.trigger {
        TriggerKind::Schedule => String::new(),
        other @ (TriggerKind::Manual
        | TriggerKind::Backfill
        | TriggerKind::Dependency
        | TriggerKind::Redrive
        | TriggerKind::Unknown) => format!("{other} "),
    };
    format!("{}{range}:{kind}{}{reason}", second(decision.fire_time), decision.decision)
}

#[test]
fn a_schedule_fires_once_per_fire_time() {
    let mut bench = Bench::new();
    assert_eq!(told(&bench.offer(r#""schedule":{"every":"10s"}"#)), "accepted:v1");
    assert_eq!(told(&bench.jump_to(9)), "");
    assert_eq!(told(&bench.jump_to(10)), "10:requested");
    assert_eq!(told(&bench.jump_to(19)), "");
    assert_eq!(told(&bench.jump_to(20)), "20:requested");
    assert!(bench.machine.has_unsaved());
}

#[test]
fn a_short_outage_delays_and_a_long_one_misses() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"},"missed":{"policy":"latest","window":"1h"}"#);
    assert_eq!(told(&bench.jump_to(13)), "10:requested");
    assert_eq!(told(&bench.jump_to(43)), "20:coalesced(misfire) 30:coalesced(misfire) 40:requested");
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"},"missed":{"policy":"skip"}"#);
    assert_eq!(told(&bench.jump_to(25)), "10:skipped(misfire) 20:requested");
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"100s"},"missed":{"policy":"all","window":"1h","max":2}"#);
    assert_eq!(told(&bench.jump_to(390)), "100:skipped(misfire) 200:requested(misfire) 300:requested(misfire)");
}

#[test]
fn a_long_outage_of_a_dense_job_becomes_one_range() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"1s"},"missed":{"policy":"latest","window":"1h"}"#);
    let year = 365 * 86_400;
    let wanted = format!("1-{0}:skipped(misfire) {0}-{1}.001:coalesced(misfire) {2}", year - 999, year - 2, tail(year));
    assert_eq!(told(&bench.jump_to(year)), wanted);
    assert_eq!(told(&bench.jump_to(year + 1)), format!("{}:requested", year + 1));
}

/// The last second counts as on time, and so does the newest fire time.
fn tail(second: i64) -> String {
    format!("{}:requested {second}:requested", second - 1)
}

#[test]
fn what_is_said_of_many_fire_times_in_a_row_is_said_once() {
    for (policy, late, wanted) in
        [("latest", 101, "10-109.001:coalesced(misfire)"), ("skip", 5000, "10-5008.001:skipped(misfire)")]
    {
        let mut bench = Bench::new();
        bench.offer(&format!(r#""schedule":{{"every":"1s"}},"missed":{{"policy":"{policy}","window":"1h"}}"#));
        bench.jump_to(9);
        let mut few = Bench::new();
        few.offer(&format!(r#""schedule":{{"every":"1s"}},"missed":{{"policy":"{policy}","window":"1h"}}"#));
        few.jump_to(9);
        assert_eq!(few.jump_to(60).len(), 51, "few have one each");
        let newest = 10 + late;
        assert_eq!(told(&bench.jump_to(newest)), format!("{wanted} {}", tail(newest)), "{policy}");
        assert_eq!(told(&bench.jump_to(newest + 1)), format!("{}:requested", newest + 1));
    }
}

#[test]
fn one_shots_fire_once_even_if_they_are_edited() {
    let mut bench = Bench::new();
    let at_5 = format!(r#""schedule":{{"at":"{}"}}"#, at(5));
    bench.offer(&at_5);
    assert_eq!(told(&bench.jump_to(5)), "5:requested");
    assert_eq!(told(&bench.offer(&format!(r#"{at_5},"timeout":"1m""#))), "accepted:v2");
    assert_eq!(told(&bench.jump_to(10_000)), "");
}

#[test]
fn a_one_shot_in_the_past_falls_to_the_misfire_policy() {
    for (late, wanted) in [(30, "requested"), (600, "requested(misfire)"), (7200, "skipped(misfire)")] {
        let mut bench = Bench::new();
        bench.offer(&format!(r#""schedule":{{"at":"{}"}}"#, at(-late)));
        assert_eq!(told(&bench.jump_to(0)), format!("-{late}:{wanted}"));
    }
}

#[test]
fn an_edit_ends_the_older_version_at_its_own_instant() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"}"#);
    bench.now = at(35);
    // Appended at 22, read at 35, as after a takeover.
    let input = TriggerInput::Offered {
        job: job(),
        offset: 99,
        at: at(22),
        definition: definition(r#""schedule":{"every":"5s"}"#),
    };
    let events = bench.give(&input);
    assert_eq!(told(&events), "10:coalesced(misfire) 20:requested accepted:v2");
    assert_eq!(told(&bench.jump_to(35)), "25:coalesced(misfire) 30:coalesced(misfire) 35:requested");
    assert_eq!(told(&bench.give(&input)), "", "a repeat changes nothing");
}

#[test]
fn the_same_definition_again_changes_nothing() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"}"#);
    assert_eq!(told(&bench.offer(r#""schedule":{"every":"10s"}"#)), "unchanged:v1");
    assert_eq!(told(&bench.offer(r#""schedule":{"every":"20s"}"#)), "accepted:v2");
}

#[test]
fn a_deleted_job_fires_no_more_and_its_versions_never_come_back() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"}"#);
    assert_eq!(told(&bench.jump_to(10)), "10:requested");
    bench.now = at(15);
    assert_eq!(told(&bench.delete()), "deleted:v1");
    assert_eq!(told(&bench.jump_to(100)), "");
    assert_eq!(told(&bench.delete()), "unchanged:v1");
    assert_eq!(told(&bench.offer(r#""schedule":{"every":"10s"}"#)), "accepted:v2");
    assert_eq!(told(&bench.jump_to(110)), "110:requested");
}

#[test]
fn a_pause_is_one_skipped_range_and_resume_goes_on_from_now() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"}"#);
    bench.now = at(5);
    assert_eq!(told(&bench.command(CommandType::Pause, "p1")), "paused:v1");
    assert_eq!(told(&bench.command(CommandType::Pause, "p1")), "", "a repeat changes nothing");
    assert_eq!(told(&bench.jump_to(65)), "");
    assert_eq!(told(&bench.command(CommandType::RunNow, "r1")), "65:manual requested");
    assert_eq!(told(&bench.command(CommandType::Resume, "s1")), "10-65.001:skipped(paused) resumed:v1");
    assert_eq!(told(&bench.jump_to(70)), "70:requested");
}

#[test]
fn run_now_is_carried_out_once_per_command_id() {
    let mut bench = Bench::new();
    assert_eq!(told(&bench.command(CommandType::RunNow, "r0")), "commandRejected:v0");
    bench.offer(r#""schedule":{"every":"1h"}"#);
    assert_eq!(told(&bench.command(CommandType::RunNow, "r1")), "0:manual requested");
    assert_eq!(told(&bench.command(CommandType::RunNow, "r1")), "");
    assert_eq!(told(&bench.command(CommandType::RunNow, "r2")), "0:manual requested");
}

#[test]
fn bounds_of_time_and_number_hold() {
    let mut bench = Bench::new();
    bench.offer(&format!(r#""schedule":{{"every":"10s"}},"notBefore":"{}","notAfter":"{}""#, at(20), at(40)));
    let mut all = String::new();
    for second in [10, 20, 30, 40, 50] {
        all += &told(&bench.jump_to(second));
        all += ";";
    }
    assert_eq!(all, ";20:requested;30:requested;;;");
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"},"maxFires":2"#);
    assert_eq!(told(&bench.jump_to(10)), "10:requested");
    assert_eq!(told(&bench.jump_to(20)), "20:requested");
    assert_eq!(told(&bench.jump_to(500)), "");
}

#[test]
fn jitter_delays_by_a_stable_offset_and_an_edit_supersedes_what_waits() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"},"jitter":"8s""#);
    let due = bench.machine.next_deadline().expect("armed");
    assert!(due >= at(10) && due < at(18), "{due}");
    let mut again = Bench::new();
    again.offer(r#""schedule":{"every":"10s"},"jitter":"8s""#);
    assert_eq!(again.machine.next_deadline(), Some(due));
    bench.now = due.minus(Duration::from_millis(1)).max(at(10));
    if bench.now < due {
        let events = bench.offer(r#""schedule":{"every":"1h"}"#);
        assert_eq!(told(&events), "10:skipped(superseded) accepted:v2");
    }
}

#[test]
fn what_cannot_be_used_is_answered_and_the_last_good_definition_stays() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"}"#);
    let mut broken = definition(r#""schedule":{"every":"10s"}"#);
    Arc::make_mut(&mut broken).jitter_ms = -1;
    bench.offset += 1;
    let events =
        bench.give(&TriggerInput::Offered { job: job(), offset: bench.offset, at: bench.now, definition: broken });
    assert_eq!(told(&events), "rejected:v1");
    let TriggerEvent::Answered(answer) = &events[0] else { panic!("{events:?}") };
    assert_eq!(answer.kind, JobEventType::Rejected);
    assert_eq!(answer.errors[0].field, "spec.jitter");
    assert_eq!(told(&bench.jump_to(10)), "10:requested");
}

#[test]
fn a_restored_machine_decides_what_the_first_one_would_have() {
    let mut bench = Bench::new();
    let mut events = bench.offer(r#""schedule":{"every":"10s"}"#);
    events.extend(bench.jump_to(10));
    events.extend(bench.command(CommandType::RunNow, "r1"));
    events.extend(bench.jump_to(20));
    let mut restored = TriggerMachine::new(None);
    for event in &events {
        match event {
            TriggerEvent::Stated { state, .. } | TriggerEvent::Kept(state) => restored.replay_state(state),
            TriggerEvent::Decided(_) | TriggerEvent::Answered(_) | TriggerEvent::Calendars(_) => {}
        }
    }
    for event in &events {
        if let TriggerEvent::Decided(decision) = event {
            restored.replay_decision(decision);
            restored.replay_decision(decision);
        }
    }
    assert_eq!(restored.state(&job()), bench.machine.state(&job()));
    assert_eq!(restored.next_deadline(), bench.machine.next_deadline());
    let decided = restored.decide(&TriggerInput::Tick, at(30));
    assert_eq!(decided, bench.machine.decide(&TriggerInput::Tick, at(30)));
    let TriggerEvent::Decided(decision) = &decided[0] else { panic!("{decided:?}") };
    assert_eq!(decision.decision, Decision::Requested);
    assert_ne!(decision.reason, Some(Reason::Paused));
}

#[test]
fn saving_goes_in_rounds_and_covers_every_job() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"every":"10s"}"#);
    assert!(!bench.machine.has_unsaved(), "an accepted definition is written with its acceptance");
    bench.jump_to(10);
    let (states, is_complete) = bench.machine.take_unsaved(10);
    assert!(is_complete);
    assert_eq!(states.len(), 1);
    assert_eq!(states[0].cursor, at(10));
    assert!(!bench.machine.has_unsaved());
}

/// Offers one definition to many jobs.
fn offer_to_many(bench: &mut Bench, spec: &str, names: impl Iterator<Item = String>) {
    for name in names {
        let job = JobId::new("test", &name).expect("a valid id");
        let definition = Arc::new(JobDefinition { job: job.clone(), ..(*definition(spec)).clone() });
        bench.offset += 1;
        bench.give(&TriggerInput::Offered { job, offset: bench.offset, at: bench.now, definition });
    }
}

#[test]
fn equal_definitions_are_held_once_and_given_up_with_the_last_job() {
    let mut bench = Bench::new();
    let names = |count: u32| (0..count).map(|index| format!("job-{index}"));
    offer_to_many(&mut bench, r#""schedule":{"cron":"* * * * *"}"#, names(100));
    assert_eq!(bench.machine.shares.counts(), (1, 0), "terms with their rules once");
    offer_to_many(&mut bench, r#""schedule":{"cron":"H * * * *"}"#, names(100));
    let (terms, rules) = bench.machine.shares.counts();
    assert_eq!(terms, 1, "the older terms are gone");
    assert!((20..=60).contains(&rules), "{rules}: one for each minute that is in use");
    for state in bench.machine.states() {
        assert_eq!(state.definition.expect("a definition").job, state.job);
        let due = bench.machine.entry(&state.job).and_then(super::Entry::due).expect("armed");
        let rules = manifest::rules_of(&JobDefinition {
            job: state.job.clone(),
            ..(*definition(r#""schedule":{"cron":"H * * * *"}"#)).clone()
        });
        let next = orloj_domain::schedule::next_of(&rules.expect("rules"), bench.now.to_jiff());
        assert_eq!(Some(due), next.map(Timestamp::from), "{}: its own spread", state.job);
    }
    for name in names(100) {
        let job = JobId::new("test", &name).expect("a valid id");
        bench.offset += 1;
        bench.give(&TriggerInput::Deleted { job, offset: bench.offset, at: bench.now });
    }
    assert_eq!(bench.machine.shares.counts(), (0, 0));
    assert_eq!(bench.machine.states().count(), 100, "deleted jobs are remembered");
    assert_eq!(bench.machine.next_deadline(), None);
}

#[test]
fn a_burst_is_decided_in_bounded_ticks_and_each_fire_time_once() {
    let mut bench = Bench::new();
    offer_to_many(&mut bench, r#""schedule":{"every":"10s"}"#, (0..4500).map(|index| format!("job-{index}")));
    bench.now = at(10);
    let mut sizes = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    while bench.machine.next_deadline().is_some_and(|due| due <= bench.now) {
        let events = bench.give(&TriggerInput::Tick);
        sizes.push(events.len());
        for event in &events {
            let TriggerEvent::Decided(decision) = event else { panic!("{event:?}") };
            assert!(seen.insert((decision.job.clone(), decision.fire_time)), "twice: {decision:?}");
        }
    }
    assert_eq!(sizes, [2000, 2000, 500]);
    assert_eq!(bench.machine.next_deadline(), Some(at(20)));
}

#[test]
fn a_state_comes_back_as_it_was_replayed() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":[{"cron":"H 3 * * *"},{"every":"1h"}],"notBefore":"2027-01-01T00:00:00Z","maxFires":9"#);
    bench.command(CommandType::RunNow, "r1");
    bench.command(CommandType::Pause, "p1");
    let state = bench.machine.state(&job()).expect("known");
    assert_eq!(state.recent_commands.len(), 2);
    assert!(state.pause.is_some());
    let mut restored = TriggerMachine::new(None);
    restored.replay_state(&state);
    restored.replay_state(&state);
    assert_eq!(restored.state(&job()), Some(state));
}

/// A zone that nobody knows any more: nothing is decided, the cursor waits, and the alarm has a name.
#[test]
fn a_job_whose_zone_is_lost_waits_and_is_told() {
    let mut bench = Bench::new();
    bench.offer(r#""schedule":{"cron":"*/10 * * * * *","timeZone":"Europe/Berlin"}"#);
    bench.jump_to(10);
    assert_eq!(bench.machine.lost_zones(), LostZones::default());
    let mut state = bench.machine.state(&job()).expect("a job");
    let Some(ScheduleRule::CronRule(rule)) = state.definition.as_mut().map(|held| &mut Arc::make_mut(held).schedule[0])
    else {
        panic!("a cron rule")
    };
    rule.time_zone = "Atlantis/Capital".to_owned();
    let mut restored = TriggerMachine::new(None);
    restored.replay_state(&state);
    assert_eq!(restored.lost_zones(), LostZones { bundled: 0, unknown: 1 });
    assert_eq!(restored.lost_zone_names(), BTreeMap::from([("Atlantis/Capital", &job())]));
    assert_eq!(restored.next_deadline(), None);
    assert!(restored.decide(&TriggerInput::Tick, at(600)).is_empty());
    assert_eq!(restored.state(&job()).map(|state| state.cursor), Some(at(10)), "what is missed is judged later");
    restored.replay_state(&bench.machine.state(&job()).expect("a job"));
    assert_eq!(restored.lost_zones(), LostZones::default());
}

#[test]
fn years_that_have_passed_are_refused_and_one_that_passes_later_is_not() {
    let mut bench = Bench::new();
    let yearly = |year: i32| format!(r#""schedule":{{"cron":"0 0 0 1 6 * {year}"}}"#);
    let refused = bench.offer(&yearly(2026));
    assert_eq!(told(&refused), "rejected:v0");
    let TriggerEvent::Answered(answer) = &refused[0] else { panic!("{refused:?}") };
    assert_eq!(answer.errors[0].field, "spec.schedule.cron");
    assert_eq!(told(&bench.offer(&yearly(2027))), "accepted:v1");
    bench.jump_to(366 * 86_400);
    assert_eq!(told(&bench.offer(&yearly(2027))), "unchanged:v1");
}
