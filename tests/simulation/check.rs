//! What must hold of a finished simulation, read from the log alone. Not here: how it came about. Invariant:
//! the expected fire times are walked rule by rule, not taken from the machine that decided them.

use std::collections::{BTreeMap, BTreeSet};

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, OutcomeKind};
use orloj_domain::calendar::{CalendarSet, ScheduleCalendars};
use orloj_domain::command::Command;
use orloj_domain::fire::{Decision, FireDecision, Reason, TriggerKind};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::job::ScheduleRule;
use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::manifest;
use orloj_domain::run::{LiveRun, RunEvent, RunState};
use orloj_domain::runner::{RunnerMessage, RunnerMessageType};
use orloj_domain::schedule;
use orloj_domain::setting::BREAKER_KEY_PREFIX;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_domain::trigger_state::TriggerState;
use orloj_runtime::codec::{self, WireRecord};

use crate::breakers;
use crate::workload::free_queue;
use crate::world::World;

/// Everything that is wrong; empty if all holds.
pub(crate) fn check(world: &World) -> Vec<String> {
    let mut findings = world.overlaps.clone();
    let decisions: Vec<FireDecision> = decoded(world, topic::FIRES);
    one_decision_each(&decisions, &mut findings);
    none_missing(world, &decisions, &mut findings);
    none_left_out_of_backfills(world, &decisions, &mut findings);
    judged_by_calendars(world, &decisions, &mut findings);
    one_answer_each(world, &mut findings);
    one_end_each(world, &decisions, &mut findings);
    callbacks_count(world, &mut findings);
    breakers::check(world, &mut findings);
    attempts_are_as_many_as_allowed(world, &decisions, &mut findings);
    findings.extend(left(world));
    findings.extend(world.busy());
    findings
}

fn decoded<T: WireRecord>(world: &World, name: &str) -> Vec<T> {
    let records = world.read(name);
    let ours = records.iter().filter(|record| record.key_text().is_none_or(|key| !key.starts_with("__")));
    ours.filter_map(|record| record.value.as_deref())
        .map(|value| codec::decode(value).expect("our own records decode"))
        .collect()
}

fn one_decision_each(decisions: &[FireDecision], findings: &mut Vec<String>) {
    let mut seen = BTreeSet::new();
    let mut commands = BTreeSet::new();
    for decision in decisions {
        let fire_time = (decision.trigger == TriggerKind::Backfill).then_some(decision.fire_time);
        let is_new = match &decision.command_id {
            Some(command) => commands.insert((decision.job.clone(), command.clone(), fire_time)),
            None => seen.insert((decision.job.clone(), decision.version, decision.fire_time)),
        };
        if !is_new {
            findings.push(format!("{} v{} {} was decided twice", decision.job, decision.version, decision.fire_time));
        }
    }
}

/// Each version's fire times between its first and last instant are covered by exactly one decision.
fn none_missing(world: &World, decisions: &[FireDecision], findings: &mut Vec<String>) {
    let mut by_version: BTreeMap<(JobId, i64), Vec<&FireDecision>> = BTreeMap::new();
    for decision in decisions.iter().filter(|decision| decision.trigger == TriggerKind::Schedule) {
        by_version.entry((decision.job.clone(), decision.version)).or_default().push(decision);
    }
    for (version, interval) in intervals(world) {
        let decided = by_version.remove(&version).unwrap_or_default();
        let mut cursor = interval.from;
        while let Some(next) = schedule::next_of(&interval.rules, cursor.to_jiff()).map(Timestamp::from) {
            if next > interval.until {
                break;
            }
            let covering =
                decided.iter().filter(|decision| decision.fire_time <= next && next <= decision.settled_until());
            let count = covering.count();
            if count != 1 {
                findings.push(format!("{} v{} {next}: {count} decisions", version.0, version.1));
            }
            cursor = next;
        }
    }
    for (job, version) in by_version.keys() {
        findings.push(format!("{job} v{version} was decided on but never accepted"));
    }
}

/// A backfill requests the fire times from its start on, in order, none left out; where it ends is the machine's to say.
fn none_left_out_of_backfills(world: &World, decisions: &[FireDecision], findings: &mut Vec<String>) {
    let intervals = intervals(world);
    let mut requested: BTreeMap<(JobId, CommandId), Vec<&FireDecision>> = BTreeMap::new();
    for decision in decisions.iter().filter(|decision| decision.trigger == TriggerKind::Backfill) {
        let command = decision.command_id.clone().expect("a backfill has a command");
        requested.entry((decision.job.clone(), command)).or_default().push(decision);
    }
    let commands: Vec<Command> = decoded(world, topic::COMMANDS);
    for ((job, id), decisions) in &requested {
        let command = commands.iter().find(|command| command.command_id == *id).expect("it was sent");
        let from = command.from.expect("a backfill has a start");
        let Some(interval) = intervals.get(&(job.clone(), decisions[0].version)) else {
            findings.push(format!("{job}: backfill {id} is of a version that was never accepted"));
            continue;
        };
        let mut expected = Timestamp::from_millis(from.millis() - 1);
        for decision in decisions {
            let next = match ScheduleCalendars::of(&interval.schedule) {
                Some(calendars) => calendars.next_after(&calendars_of(world, decision), &interval.rules, expected),
                None => schedule::next_of(&interval.rules, expected.to_jiff()).map(Timestamp::from),
            };
            if next != Some(decision.fire_time) || decision.version != decisions[0].version {
                findings.push(format!("{job}: backfill {id} requested {} and not {next:?}", decision.fire_time));
            }
            expected = decision.fire_time;
        }
        if expected >= command.until.expect("a backfill has an end") {
            findings.push(format!("{job}: backfill {id} requested {expected}, which is beyond its end"));
        }
    }
}

/// The calendars that a decision asked, at the positions that it names.
fn calendars_of(world: &World, decision: &FireDecision) -> CalendarSet {
    let mut set = CalendarSet::default();
    for record in world.read(topic::SETTINGS) {
        let asked = decision.calendars.iter().find(|(_, offset)| **offset == record.offset);
        if let Some((name, value)) = asked.map(|(name, _)| name).zip(record.value.as_deref()) {
            let setting = codec::input::decode_calendar(name, value).expect("only what can be used is in force");
            set.put(setting.calendar, record.offset);
        }
    }
    set
}

/// Each decision is what the calendars at the positions that it names say of its fire time.
fn judged_by_calendars(world: &World, decisions: &[FireDecision], findings: &mut Vec<String>) {
    let intervals = intervals(world);
    for decision in decisions.iter().filter(|decision| decision.trigger == TriggerKind::Schedule) {
        let Some(interval) = intervals.get(&(decision.job.clone(), decision.version)) else { continue };
        let Some(calendars) = ScheduleCalendars::of(&interval.schedule) else { continue };
        let is_late = matches!(decision.reason, Some(Reason::Misfire) if decision.range_end.is_some());
        if matches!(decision.reason, Some(Reason::Paused | Reason::Superseded)) || is_late {
            continue;
        }
        let set = calendars_of(world, decision);
        let exclusion = calendars.exclusion(&set, &interval.rules, None, decision.fire_time);
        let is_left_out = decision.reason == Some(Reason::Calendar);
        if exclusion.is_some() != is_left_out || calendars.positions(&set) != decision.calendars {
            findings.push(format!("{decision:?} is not what its calendars say: {exclusion:?}"));
        }
    }
}

struct Interval {
    schedule: Vec<ScheduleRule>,
    rules: Vec<schedule::Rule>,
    from: Timestamp,
    until: Timestamp,
}

/// The life of each version: from its first saved state to the one that ended it.
fn intervals(world: &World) -> BTreeMap<(JobId, i64), Interval> {
    let mut intervals: BTreeMap<(JobId, i64), Interval> = BTreeMap::new();
    let mut latest: BTreeMap<JobId, TriggerState> = BTreeMap::new();
    for state in decoded::<TriggerState>(world, topic::TRIGGER_STATE) {
        let before = latest.get(&state.job);
        let is_new = before.is_none_or(|before| before.version != state.version) && state.definition.is_some();
        let ends_before =
            before.is_some_and(|before| before.definition.is_some()) && (is_new || state.definition.is_none());
        if ends_before {
            let version = before.map_or(0, |before| before.version);
            if let Some(interval) = intervals.get_mut(&(state.job.clone(), version)) {
                interval.until = state.effective_from;
            }
        }
        if is_new {
            let definition = state.definition.as_ref().expect("checked above");
            let rules = manifest::rules_of(definition).expect("accepted definitions have valid rules");
            let schedule = definition.schedule.clone();
            let interval = Interval { schedule, rules, from: state.cursor, until: Timestamp::MIN };
            intervals.insert((state.job.clone(), state.version), interval);
        }
        latest.insert(state.job.clone(), state);
    }
    intervals
}

/// Each record of `jobs` is answered exactly once.
fn one_answer_each(world: &World, findings: &mut Vec<String>) {
    let mut answers: BTreeMap<(JobId, i64), u32> = BTreeMap::new();
    for event in decoded::<JobEvent>(world, topic::JOB_EVENTS) {
        let is_answer = matches!(
            event.kind,
            JobEventType::Accepted | JobEventType::Rejected | JobEventType::Unchanged | JobEventType::Deleted
        );
        if let Some(offset) = event.definition_offset.filter(|_| is_answer) {
            *answers.entry((event.job, offset)).or_default() += 1;
        }
    }
    for record in world.read(topic::JOBS) {
        let Some(Ok(job)) = record.key_text().map(str::parse::<JobId>) else { continue };
        let count = answers.get(&(job.clone(), record.offset)).copied().unwrap_or(0);
        if count != 1 {
            findings.push(format!("{job}: the record at {} has {count} answers", record.position()));
        }
    }
}

fn one_end_each(world: &World, decisions: &[FireDecision], findings: &mut Vec<String>) {
    let mut ends: BTreeMap<RunId, Vec<RunEvent>> = BTreeMap::new();
    for event in decoded::<RunEvent>(world, topic::RUN_EVENTS) {
        // With a note, it only says why it was not sent back.
        if event.state.is_terminal() && event.note.is_none() {
            ends.entry(event.run_id).or_default().push(event);
        }
    }
    for decision in decisions.iter().filter(|decision| decision.decision == Decision::Requested) {
        let run = decision.run_id.expect("requests name their run");
        let ended = ends.get(&run).map_or(0, Vec::len);
        // Each time it was sent back, from the end before, it lived again.
        let redrives: Vec<usize> =
            ends.get(&run).into_iter().flatten().map(|end| end.redrives.unsigned_abs() as usize).collect();
        if ended == 0 || redrives != (0..ended).collect::<Vec<_>>() {
            findings.push(format!("{}: run {run} of {} ended {ended} times", decision.job, decision.fire_time));
        }
        let max_attempts = decision.spec.as_ref().map_or(0, |spec| spec.retry.max_attempts);
        for end in ends.get(&run).into_iter().flatten() {
            if end.attempt > max_attempts * (1 + end.redrives) {
                findings.push(format!("run {run} had {} attempts of {max_attempts}", end.attempt));
            }
        }
    }
}

/// No run has more attempts than its policy allows, and none ends twice, those that were put beside others counted as all.
fn attempts_are_as_many_as_allowed(world: &World, decisions: &[FireDecision], findings: &mut Vec<String>) {
    let specs = decisions.iter().filter_map(|decision| Some((decision.run_id?, decision.spec.as_ref()?)));
    let specs: BTreeMap<RunId, _> = specs.collect();
    let mut ended = BTreeSet::new();
    for event in decoded::<RunEvent>(world, topic::RUN_EVENTS) {
        let Some(spec) = specs.get(&event.run_id) else { continue };
        let newest = event.hedge.as_ref().map_or(0, |hedge| hedge.attempt).max(event.attempt);
        if newest > spec.retry.max_attempts * (1 + event.redrives) {
            findings.push(format!("run {} had {newest} attempts of {}", event.run_id, spec.retry.max_attempts));
        }
        let is_hedged = event.hedge.is_some() || !event.ended_attempts.is_empty();
        if is_hedged && (spec.hedge_after_ms.is_none() || spec.queue != free_queue()) {
            findings.push(format!("run {} had two attempts, which it may not have", event.run_id));
        }
        for end in &event.ended_attempts {
            if !ended.insert((event.run_id, end.token)) {
                findings.push(format!("run {}: attempt {} ended twice", event.run_id, end.attempt));
            }
        }
    }
}

/// What a run says that its callback said is how the attempt ended, whatever became of its runner.
fn callbacks_count(world: &World, findings: &mut Vec<String>) {
    let mut said: BTreeMap<RunId, String> = BTreeMap::new();
    for event in decoded::<RunEvent>(world, topic::RUN_EVENTS) {
        if let Some(kind) = called_back(&event) {
            if said.insert(event.run_id, kind.to_owned()).is_some() {
                findings.push(format!("run {}: attempt {} was completed twice", event.run_id, event.attempt));
            }
            continue;
        }
        let Some(kind) = said.remove(&event.run_id) else { continue };
        let outcome = event.outcome.as_ref().map(|outcome| outcome.kind.as_str());
        let is_so = match event.state {
            RunState::Succeeded => kind == "succeeded",
            RunState::Retrying | RunState::Dead => kind == "failed" && outcome == Some("failed"),
            // No next attempt before its deadline.
            RunState::Expired => kind == "failed",
            RunState::Delayed
            | RunState::Waiting
            | RunState::Ready
            | RunState::Running
            | RunState::Failed
            | RunState::Cancelled
            | RunState::Unknown => false,
        };
        if !is_so {
            findings
                .push(format!("run {}: its callback said {kind}, and then {} {outcome:?}", event.run_id, event.state));
        }
    }
}

/// What the callback of an attempt said, if this step says so.
fn called_back(event: &RunEvent) -> Option<&str> {
    event.note.as_deref()?.strip_prefix("its callback says: ").filter(|_| event.state == RunState::Running)
}

/// Live runs, and claims on limits, that are left in any of the three topics of runs.
pub(crate) fn left(world: &World) -> Vec<String> {
    let mut findings = Vec::new();
    for name in [topic::RUN_STATE, topic::RUN_DELAY, topic::RUN_RETRY] {
        let mut last = BTreeMap::new();
        for record in world.read(name) {
            let key = record.key_text().unwrap_or_default().to_owned();
            if !key.starts_with("__") {
                last.insert(key, record.value);
            }
        }
        for (run, value) in last.iter().filter_map(|(run, value)| Some((run, value.as_deref()?))) {
            if run.starts_with(BREAKER_KEY_PREFIX) {
                // However it stands, it is kept.
                continue;
            }
            if run.starts_with("cancel:") {
                continue;
            }
            if let Some(claim) = run.strip_prefix("limit:") {
                // Without a claim it says how far a rate is used up, which is kept.
                if claim.contains(':') {
                    findings.push(format!("{claim} is still claimed in {name}"));
                }
                continue;
            }
            let live: LiveRun = codec::decode(value).expect("our own records decode");
            if live.state == RunState::Dead {
                continue;
            }
            let holder = live.session.map(|session| format!(", held by {session}")).unwrap_or_default();
            findings.push(format!("run {run} is still in {name}: {} since {}{holder}", live.state, live.since));
        }
    }
    findings
}

/// What has to happen somewhere in some seconds of simulations: one that never meets it proves nothing about it.
pub(crate) const MOMENTS: [&str; 25] = [
    "a run waits for others",
    "a runner is told to end an attempt",
    "a run expires",
    "a dead run is sent back",
    "a dead run is not sent back",
    "a waiting run is cancelled",
    "a callback ends an attempt",
    "a callback counts although its runner says otherwise",
    "a run that waits for a limit gets it",
    "a dead run is parked",
    "a second attempt is put beside the first",
    "the second attempt is first",
    "the first attempt is first, and the second is stopped",
    "one of two attempts fails, and the other goes on",
    "one of two attempts is lost with its lease, and the other goes on",
    "a first attempt ends, and the other is still on its queue",
    "two attempts are told to end",
    breakers::MOMENTS[0],
    breakers::MOMENTS[1],
    breakers::MOMENTS[2],
    breakers::MOMENTS[3],
    breakers::MOMENTS[4],
    "a run that waits for a runner is offered to one",
    "an offer is taken back",
    "an offer is said again, and then taken",
];

/// What a step says of a run with two attempts: which of [`MOMENTS`].
fn hedge_moment(from: Option<RunState>, event: &RunEvent) -> Option<usize> {
    let goes_on = event.state == RunState::Running;
    match (&event.hedge, event.ended_attempts.as_slice()) {
        (None, [_]) if (from, event.state) == (Some(RunState::Running), RunState::Ready) => Some(15),
        (None, [one]) if goes_on && one.outcome.kind == OutcomeKind::LeaseLost => Some(14),
        (None, [one]) if goes_on && one.outcome.kind == OutcomeKind::Failed => Some(13),
        (None, [first, other]) if event.state == RunState::Succeeded => {
            Some(if first.token > other.token { 11 } else { 12 })
        }
        (Some(hedge), _) if hedge.runner.is_none() => Some(10),
        (Some(_), _) if event.note.as_deref().is_some_and(|note| note.starts_with("cancelled")) => Some(16),
        // It runs beside the first.
        (Some(_), _) => Some(10),
        (None, _) => None,
    }
}

/// Which of [`MOMENTS`] are in this world.
pub(crate) fn moments(world: &World) -> BTreeSet<&'static str> {
    let mut before: BTreeMap<RunId, RunState> = BTreeMap::new();
    let (mut asking, mut unplaced) = (BTreeSet::new(), BTreeSet::new());
    let mut completed = BTreeMap::new();
    let mut found = breakers::moments(world);
    for event in decoded::<RunEvent>(world, topic::RUN_EVENTS) {
        if let Some(kind) = called_back(&event) {
            completed.insert((event.run_id, event.token), kind == "succeeded");
        }
        let from = before.insert(event.run_id, event.state);
        if event.state == RunState::Waiting && !event.limits.is_empty() {
            asking.insert(event.run_id);
        } else if asking.remove(&event.run_id) && event.state == RunState::Ready {
            found.insert(MOMENTS[8]);
        }
        let hedged = hedge_moment(from, &event);
        found.extend(hedged.map(|moment| MOMENTS[moment]));
        if event.missing_runner.is_some() {
            unplaced.insert(event.run_id);
        } else if event.state == RunState::Ready && unplaced.remove(&event.run_id) {
            found.insert(MOMENTS[22]);
        }
        let moment = match (from, event.state) {
            _ if hedged.is_some() => continue,
            (Some(RunState::Ready), RunState::Waiting) if event.missing_runner.is_some() => 23,
            (Some(RunState::Waiting), RunState::Cancelled) => 5,
            (Some(RunState::Dead), RunState::Dead) if event.disposition.as_deref() == Some("parked") => 9,
            (Some(RunState::Dead), RunState::Dead) => 4,
            (Some(RunState::Dead), _) => 3,
            (_, RunState::Expired) => 2,
            (Some(RunState::Running), RunState::Running) if called_back(&event).is_some() => 6,
            (Some(RunState::Running), RunState::Running) => 1,
            (_, RunState::Waiting) => 0,
            _ => continue,
        };
        found.insert(MOMENTS[moment]);
    }
    let mut offers: BTreeMap<(RunId, i64), u32> = BTreeMap::new();
    for message in decoded::<RunnerMessage>(world, topic::RUNNER_INBOX) {
        if message.kind == RunnerMessageType::Offer {
            *offers.entry((message.run_id, message.token)).or_default() += 1;
        }
    }
    for report in decoded::<AttemptEvent>(world, topic::ATTEMPT_EVENTS) {
        let is_repeated = offers.get(&(report.run_id, report.token)).is_some_and(|count| *count > 1);
        if is_repeated && report.kind == AttemptEventType::Claimed {
            found.insert(MOMENTS[24]);
        }
        let is_completed = completed.get(&(report.run_id, report.token)) == Some(&true);
        if is_completed && report.outcome.is_some_and(|outcome| outcome.kind != OutcomeKind::Succeeded) {
            found.insert(MOMENTS[7]);
        }
    }
    found
}
