//! What people and programs do in a simulation: define, edit, pause, resume, delete jobs, run them by hand, end runs and
//! send them back, sometimes twice. Invariant: only records that any producer could append.

use std::collections::BTreeMap;
use std::time::Duration;

use orloj_domain::command::{Command, CommandType, PauseMissed};
use orloj_domain::id::{CalendarName, CommandId, JobId, QueueName, RunId};
use orloj_domain::job::{
    AtRule, CronRule, Delivery, Dialect, DstFold, DstGap, EveryRule, ExecTarget, HttpCompletion, HttpTarget,
    JobDefinition, MissedKind, MissedPolicy, OverlapKind, OverlapPolicy, RetryPolicy, RunSpec, ScheduleRule, Target,
};
use orloj_domain::run::RunState;
use orloj_domain::shard::ShardCount;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::NewRecord;

use crate::random::Random;

/// A run that was asked for, as whoever reads along knows it.
pub(crate) struct KnownRun {
    pub(crate) job: JobId,
    pub(crate) run: RunId,
    /// As the dispatcher said last.
    pub(crate) state: Option<RunState>,
}

/// Jobs that a simulation plays with.
pub(crate) const JOBS: u64 = 6;

fn job(index: u64) -> JobId {
    JobId::new("sim", &format!("job-{index}")).expect("a valid id")
}

/// Something that somebody appends now.
pub(crate) fn next_records(
    random: &mut Random,
    shards: ShardCount,
    now: Timestamp,
    count: u64,
    runs: impl Fn() -> Vec<KnownRun>,
) -> Vec<NewRecord> {
    if random.chance(15) {
        return order(random, shards, now, count, &runs());
    }
    let job = job(random.below(JOBS));
    let partition = shards.shard_of(&job).0;
    let command = |command: Command, random: &mut Random| {
        let record = NewRecord::new(topic::COMMANDS, partition, job.as_str(), Some(codec::encode(&command)));
        // A sender that did not hear the answer sends again.
        if random.chance(30) { vec![record.clone(), record] } else { vec![record] }
    };
    if random.chance(10) {
        return vec![setting(random)];
    }
    if random.chance(10) {
        return vec![rule(random)];
    }
    match random.below(12) {
        0..=5 => {
            let value = codec::encode(&definition(&job, random, now));
            vec![NewRecord::new(topic::JOBS, partition, job.as_str(), Some(value))]
        }
        6 => vec![NewRecord::new(topic::JOBS, partition, job.as_str(), None)],
        7 => command(of(CommandType::Pause, format!("pause-{count}"), now), random),
        8 => {
            let missed = random.chance(50).then_some(PauseMissed::Accumulate);
            command(Command { missed, ..of(CommandType::Resume, format!("resume-{count}"), now) }, random)
        }
        10 => command(backfill(random, count, now), random),

        9 => vec![NewRecord::new(topic::JOBS, partition, job.as_str(), Some(b"\x00not a job".to_vec()))],
        _ => command(of(CommandType::RunNow, format!("run-{count}"), now), random),
    }
}

/// Somebody wants one of the youngest runs to end, or to be tried again.
fn order(random: &mut Random, shards: ShardCount, now: Timestamp, count: u64, runs: &[KnownRun]) -> Vec<NewRecord> {
    let kind = match random.below(10) {
        0..5 => CommandType::Cancel,
        5..9 => CommandType::Redrive,
        _ => CommandType::Park,
    };
    // Mostly of a run in a state in which it can be carried out, as far as the one who sends it knows.
    let is_cancel = kind == CommandType::Cancel;
    let can_be = |state: RunState| if is_cancel { !state.is_terminal() } else { state == RunState::Dead };
    let is_apt = |run: &&KnownRun| run.state.is_some_and(can_be);
    let apt: Vec<&KnownRun> = runs.iter().filter(is_apt).collect();
    let pool = if random.chance(50) && !apt.is_empty() { apt } else { runs.iter().collect() };
    if pool.is_empty() {
        return Vec::new();
    }
    let back = usize::try_from(random.below(12)).expect("small").min(pool.len() - 1);
    let KnownRun { job, run, .. } = pool[pool.len() - 1 - back];
    let spares_parked = random.chance(30);
    let not_before = random.chance(30).then(|| now.plus(Duration::from_secs(random.below(10))));
    let command = Command { run_id: Some(*run), spares_parked, not_before, ..of(kind, format!("order-{count}"), now) };
    let value = Some(codec::encode(&command));
    let record = NewRecord::new(topic::COMMANDS, shards.shard_of(job).0, job.as_str(), value);
    if random.chance(30) { vec![record.clone(), record] } else { vec![record] }
}

fn of(kind: CommandType, id: String, now: Timestamp) -> Command {
    Command {
        at: Some(now),
        actor: Some("sim".to_owned()),
        reason: Some("because".to_owned()),
        ..Command::new(kind, CommandId::new(&id).expect("a valid id"))
    }
}

/// Some seconds of the past, from before the job too; or the end of the last one that may be under way.
fn backfill(random: &mut Random, count: u64, now: Timestamp) -> Command {
    if random.chance(20) {
        let backfill_id = CommandId::new(&format!("backfill-{}", count.saturating_sub(1 + random.below(20)))).ok();
        return Command { backfill_id, ..of(CommandType::Cancel, format!("cancel-{count}"), now) };
    }
    let from = Some(now.minus(Duration::from_millis(random.below(40_000))));
    let until = from.map(|from| from.plus(Duration::from_millis(1 + random.below(20_000))));
    let concurrency = random.chance(50).then_some(3);
    Command { from, until, concurrency, ..of(CommandType::Backfill, format!("backfill-{count}"), now) }
}

/// The one calendar that jobs name.
pub(crate) fn calendar() -> CalendarName {
    "days".parse().expect("a valid name")
}

/// Somebody edits the calendar: it has all days or none, is removed, or can't be used.
fn setting(random: &mut Random) -> NewRecord {
    let value = |spec: &str| {
        let name = calendar();
        format!(r#"{{"apiVersion":"orloj/v1","kind":"Calendar","metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
    };
    let value = match random.below(6) {
        0 | 1 => Some(value("{}")),
        2 | 3 => Some(value(r#"{"weekdays":["MON-SUN"]}"#)),
        4 => Some(value(r#"{"days":[]}"#)),
        _ => None,
    };
    NewRecord::new(topic::SETTINGS, 0, format!("calendar/{}", calendar()), value.map(String::into_bytes))
}

/// Limits that jobs share, and the queue's own, with the most that ever hold them at once. Rules that are narrower come and go.
pub(crate) const LIMITS: [(&str, usize); 3] = [("limit/one", 1), ("limit/two", 2), ("queue/default", 4)];

/// The limits as they are at first.
pub(crate) fn rules() -> Vec<NewRecord> {
    LIMITS.iter().map(|(limit, most)| rule_record(limit, &bounds(limit, *most, ""))).collect()
}

/// Two of them have breakers, which a few failures open.
fn bounds(limit: &str, most: usize, more: &str) -> String {
    let breaker = match limit {
        "queue/default" => r#","breaker":{"failures":2,"window":"20s","openFor":"1s","maxOpenFor":"4s"}"#,
        "limit/two" => r#","breaker":{"failures":2,"ratio":0.4,"window":"10s","openFor":"2s"},"host":"example.com""#,
        _ => "",
    };
    format!(r#"{{"maxConcurrent":{most}{more}{breaker}}}"#)
}

/// Somebody edits a limit: it is paused, slowed down, without a breaker, or as it was. None goes: a queue without a rule bounds
/// nobody.
fn rule(random: &mut Random) -> NewRecord {
    let (limit, most) = LIMITS[usize::try_from(random.below(3)).expect("small")];
    match random.below(6) {
        0 => rule_record(limit, &bounds(limit, most, r#","paused":true"#)),
        1 => rule_record(limit, r#"{"maxConcurrent":"many"}"#),
        2 => rule_record(limit, &bounds(limit, most, r#","ratePerSecond":2,"burst":2"#)),
        3 => rule_record(limit, &format!(r#"{{"maxConcurrent":{most}}}"#)),
        _ => rule_record(limit, &bounds(limit, most, "")),
    }
}

fn rule_record(limit: &str, spec: &str) -> NewRecord {
    let (kind, name) = limit.split_once('/').expect("a limit");
    let kind = if kind == "queue" { "Queue" } else { "Limit" };
    let value = format!(r#"{{"apiVersion":"orloj/v1","kind":"{kind}","metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
    NewRecord::new(topic::SETTINGS, 0, limit, Some(value.into_bytes()))
}

fn definition(job: &JobId, random: &mut Random, now: Timestamp) -> JobDefinition {
    let policy = MissedKind::ALL[usize::try_from(random.below(3)).expect("small")];
    let period_ms = i64::try_from(1000 * (1 + random.below(5))).expect("small");
    let exclude: Vec<CalendarName> = if random.chance(30) { vec![calendar()] } else { Vec::new() };
    let rule = match random.below(4) {
        0 => ScheduleRule::CronRule(CronRule {
            expression: format!("*/{} * * * * *", 1 + random.below(4)),
            time_zone: "Europe/Berlin".to_owned(),
            dialect: Dialect::Unix,
            gap: DstGap::Shift,
            fold: DstFold::First,
            exclude,
            only: Vec::new(),
        }),
        1 => ScheduleRule::AtRule(AtRule {
            at: Timestamp::from_millis(now.millis() + i64::try_from(random.below(20_000)).expect("small")),
            exclude,
            only: Vec::new(),
        }),
        _ => ScheduleRule::EveryRule(EveryRule {
            period_ms,
            anchor: Timestamp::from_millis(0),
            exclude: Vec::new(),
            only: exclude,
        }),
    };
    JobDefinition {
        job: job.clone(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        schedule: vec![rule],
        not_before: None,
        not_after: None,
        max_fires: None,
        jitter_ms: if random.chance(25) { 700 } else { 0 },
        missed: MissedPolicy { policy, window_ms: 10_000, max: 5 },
        suspend: random.chance(5),
        spec: spec(random).into(),
    }
}

/// A queue that no rule ever bounds: attempts are put beside others only there.
pub(crate) fn free_queue() -> QueueName {
    "free".parse().expect("a valid queue")
}

/// What a run needs; of some jobs it may have two attempts at once.
fn spec(random: &mut Random) -> RunSpec {
    let plain = plain_spec(random);
    if !random.chance(15) {
        return plain;
    }
    RunSpec {
        queue: if random.chance(85) { free_queue() } else { plain.queue },
        retry: RetryPolicy { max_attempts: plain.retry.max_attempts + 1, ..plain.retry },
        delivery: Delivery::AtLeastOnce,
        overlap: OverlapPolicy { policy: OverlapKind::Allow, ..plain.overlap },
        concurrency: None,
        limits: Vec::new(),
        target: if random.chance(30) { asked(HttpCompletion::Response) } else { program() },
        runner_labels: BTreeMap::new(),
        hedge_after_ms: Some(i64::try_from(100 + random.below(1500)).expect("small")),
        ..plain
    }
}

fn plain_spec(random: &mut Random) -> RunSpec {
    let policy = [OverlapKind::Allow, OverlapKind::Forbid, OverlapKind::Queue, OverlapKind::Replace];
    let policy = policy[usize::try_from(random.below(4)).expect("small")];
    let may_be_bounded = matches!(policy, OverlapKind::Allow | OverlapKind::Queue) && random.chance(30);
    RunSpec {
        queue: "default".parse().expect("a valid queue"),
        priority: i32::try_from(random.below(10)).expect("small"),
        start_delay_ms: if random.chance(30) { 1500 } else { 0 },
        timeout_ms: 60_000,
        deadline_ms: random.chance(15).then_some(4000),
        retry: RetryPolicy {
            max_attempts: i32::try_from(1 + random.below(3)).expect("small"),
            initial_ms: 500,
            factor: 2.0,
            max_ms: 4000,
            jitter: 0.2,
            non_retryable_exit_codes: vec![2],
        },
        delivery: if random.chance(20) { Delivery::AtMostOnce } else { Delivery::AtLeastOnce },
        overlap: OverlapPolicy { policy, max: 3 },
        concurrency: may_be_bounded.then(|| i32::try_from(1 + random.below(3)).expect("small")),
        pause_after_failures: 0,
        limits: match random.below(6) {
            0 => vec!["one".parse().expect("a valid limit")],
            1 => vec!["two".parse().expect("a valid limit"), "one".parse().expect("a valid limit")],
            _ => Vec::new(),
        },
        hedge_after_ms: None,
        runner_labels: labels(random),
        target: if random.chance(30) { asked(HttpCompletion::Callback) } else { program() },
    }
}

/// What jobs ask runners for: mostly nothing, then what one or several of [`RUNNERS`] have.
fn labels(random: &mut Random) -> BTreeMap<String, String> {
    let labels: &[(&str, &str)] = match random.below(10) {
        0 => &[("zone", "eu")],
        1 => &[("disk", "ssd")],
        2 => &[("zone", "us"), ("disk", "ssd")],
        _ => &[],
    };
    label_map(labels)
}

/// The labels of the runners, in the order of their slots.
pub(crate) const RUNNERS: [&[(&str, &str)]; 2] =
    [&[("disk", "ssd"), ("zone", "eu")], &[("disk", "ssd"), ("zone", "us")]];

pub(crate) fn label_map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn program() -> Target {
    Target::ExecTarget(ExecTarget {
        command: vec!["/bin/true".to_owned()],
        env: BTreeMap::new(),
        working_dir: None,
        stdin: String::new(),
        limits: None,
    })
}

/// A target that is sent a request, and may say later how an attempt ended.
fn asked(completion: HttpCompletion) -> Target {
    Target::HttpTarget(HttpTarget {
        method: "POST".to_owned(),
        url: "https://example.com/run".to_owned(),
        headers: BTreeMap::new(),
        body: String::new(),
        success: vec!["200-299".to_owned()],
        completion,
    })
}
