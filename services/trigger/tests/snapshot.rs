//! A trigger that restores from a snapshot and what came after it knows what one knows that reads all of the log.
//! Not here: the file itself (`runtime::driver::snapshot`). Invariant: no snapshot, whatever becomes of it, changes
//! what is decided.

mod support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orloj_domain::command::{Command, CommandType};
use orloj_domain::fire::FireDecision;
use orloj_domain::id::CommandId;
use orloj_domain::manifest;
use orloj_domain::shard::ShardCount;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_domain::trigger_state::TriggerState;
use orloj_runtime::clock::ManualClock;
use orloj_runtime::codec;
use orloj_runtime::driver::Driver;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::log::{Isolation, Log, NewRecord, TopicPartition};
use orloj_runtime::metrics::Metrics;
use orloj_trigger::TriggerService;
use proptest::prelude::*;

/// 2027-01-15T08:00:00Z.
const START_MS: i64 = 1_800_000_000_000;
const SHARDS: i32 = 2;
const JOBS: u8 = 6;
const SCHEDULES: [&str; 5] = [
    r#"{"every":"10s"}"#,
    r#"{"cron":"H/2 * * * *"}"#,
    r#"{"cron":"*/1 * * * *"}"#,
    r#"{"at":"2027-01-15T08:05:00Z"}"#,
    r#"{"afterFinish":"20s"}"#,
];
/// Longer than the interval of snapshots and the session of an owner.
const LONG_SECONDS: u64 = 330;

struct Installation {
    clock: ManualClock,
    log: EmbeddedLog,
    shards: ShardCount,
    folder: PathBuf,
    commands: u32,
}

/// A trigger and its counters.
struct Trigger {
    driver: Driver<TriggerService>,
    metrics: Metrics,
}

impl Installation {
    fn new(folder: &Path, start_ms: i64) -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(start_ms));
        let (log, shards) = support::empty_log(&clock, SHARDS);
        Self { clock, log, shards, folder: folder.to_owned(), commands: 0 }
    }

    /// A trigger that owns all shards and has read their inputs, whatever became of the one before.
    fn start(&self, has_snapshots: bool) -> Trigger {
        let mut trigger = self.join(has_snapshots);
        // Whoever crashed is believed to be alive for a session.
        self.pass(&mut trigger, 60);
        assert!(self.shards.all().all(|shard| trigger.driver.machine(shard).is_some()), "all shards are ours");
        trigger
    }

    /// The same after one that has left, without any time passing.
    fn start_at_once(&self, has_snapshots: bool) -> Trigger {
        let mut trigger = self.join(has_snapshots);
        for _ in 0..10 {
            trigger.driver.turn(Duration::ZERO).expect("nothing needs a person");
        }
        assert!(self.shards.all().all(|shard| trigger.driver.machine(shard).is_some()), "all shards are ours");
        trigger
    }

    fn join(&self, has_snapshots: bool) -> Trigger {
        let snapshots = has_snapshots.then(|| self.folder.clone());
        let (driver, metrics, _) = support::join(self.log.clone(), &self.clock, self.shards, snapshots);
        Trigger { driver, metrics }
    }

    fn pass(&self, trigger: &mut Trigger, seconds: u64) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            for _ in 0..3 {
                trigger.driver.turn(Duration::ZERO).expect("nothing needs a person");
            }
        }
    }

    fn append(&self, topic: &str, job: u8, value: Option<Vec<u8>>) {
        let key = format!("a/job-{job}");
        let partition = self.shards.shard_of_key(key.as_bytes()).0;
        let record = NewRecord::new(topic, partition, key, value);
        self.log.appender().expect("in memory").append(vec![record]).expect("in memory");
    }

    fn offer(&self, job: u8, schedule: usize) {
        self.offer_schedule(job, SCHEDULES[schedule]);
    }

    fn offer_schedule(&self, job: u8, schedule: &str) {
        let text = format!(
            r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"a","name":"job-{job}"}},
                "spec":{{"schedule":{schedule},"run":{{"exec":{{"command":["/bin/true"]}}}}}}}}"#
        );
        let definition = manifest::parse_json(&text).expect("a valid manifest");
        self.append(topic::JOBS, job, Some(codec::encode(&definition)));
    }

    fn command(&mut self, job: u8, kind: CommandType) {
        self.commands += 1;
        let id = CommandId::new(&format!("command-{}", self.commands)).expect("a valid id");
        let mut command = Command::new(kind, id);
        if kind == CommandType::Backfill {
            command.from = Some(Timestamp::from_millis(START_MS - 600_000));
            command.until = Some(Timestamp::from_millis(START_MS - 300_000));
        }
        self.append(topic::COMMANDS, job, Some(codec::encode(&command)));
    }

    /// No fire time is decided twice.
    fn check_decisions(&self) {
        let mut seen = BTreeSet::new();
        let mut reader = self.log.reader(Isolation::Committed).expect("in memory");
        let all: Vec<_> = self.shards.all().map(|shard| (TopicPartition::new(topic::FIRES, shard.0), 0)).collect();
        reader.read_from(&all).expect("an existing topic");
        loop {
            let records = reader.poll(1000, Duration::ZERO).expect("in memory");
            if records.is_empty() {
                return;
            }
            for record in records.iter().filter(|record| !record.key_text().is_some_and(|key| key.starts_with("__"))) {
                let value = record.value.as_deref().unwrap_or_default();
                let decision = codec::decode::<FireDecision>(value).expect("a decision");
                let name = (decision.job.clone(), decision.version, decision.fire_time, decision.command_id.clone());
                assert!(seen.insert(name), "decided twice: {decision:?}");
            }
        }
    }
}

impl Trigger {
    fn states(&self, installation: &Installation) -> Vec<TriggerState> {
        let machines = installation.shards.all().filter_map(|shard| self.driver.machine(shard));
        machines.flat_map(|machine| machine.states().collect::<Vec<_>>()).collect()
    }

    fn snapshots_used(&self) -> u64 {
        let text = self.metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix("orloj_trigger_snapshots_used_total "));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// What happens to an installation.
#[derive(Debug, Clone)]
enum Step {
    Offer(u8, usize),
    Delete(u8),
    Command(u8, CommandType),
    Pass(u64),
    /// The process ends in order, or as in a crash, and another one begins, with snapshots or without.
    Restart {
        is_crash: bool,
        has_snapshots: bool,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let job = || 0..JOBS;
    let kind =
        prop::sample::select(vec![CommandType::RunNow, CommandType::Pause, CommandType::Resume, CommandType::Backfill]);
    let step = prop_oneof![
        4 => (job(), 0..SCHEDULES.len()).prop_map(|(job, schedule)| Step::Offer(job, schedule)),
        1 => job().prop_map(Step::Delete),
        2 => (job(), kind).prop_map(|(job, kind)| Step::Command(job, kind)),
        3 => (1..40u64).prop_map(Step::Pass),
        1 => Just(Step::Pass(LONG_SECONDS)),
        2 => (any::<bool>(), any::<bool>())
            .prop_map(|(is_crash, has_snapshots)| Step::Restart { is_crash, has_snapshots }),
    ];
    prop::collection::vec(step, 5..30)
}

/// Carries the steps out, and compares a restore by snapshot with one by the log; how many snapshots were of use.
fn check(installation: &mut Installation, steps: &[Step]) -> u64 {
    let mut trigger = installation.start(true);
    for step in steps {
        match step {
            Step::Offer(job, schedule) => installation.offer(*job, *schedule),
            Step::Delete(job) => installation.append(topic::JOBS, *job, None),
            Step::Command(job, kind) => installation.command(*job, *kind),
            Step::Pass(seconds) => installation.pass(&mut trigger, *seconds),
            Step::Restart { is_crash, has_snapshots } => {
                if *is_crash {
                    trigger.driver.crash()
                } else {
                    trigger.driver.leave()
                }
                trigger = installation.start(*has_snapshots);
            }
        }
    }
    trigger.driver.leave();
    compare(installation)
}

fn compare(installation: &Installation) -> u64 {
    // No time passes in here, so that nothing fires between the two: not even a cursor may differ. What the first one
    // saves when it ends is what the second one reads.
    let by_snapshot = installation.start_at_once(true);
    let used = by_snapshot.snapshots_used();
    let found = by_snapshot.states(installation);
    by_snapshot.driver.leave();
    let by_log = installation.start_at_once(false);
    assert_eq!(by_log.snapshots_used(), 0);
    assert_eq!(found, by_log.states(installation));
    assert_eq!(found.len(), found.iter().map(|state| &state.job).collect::<BTreeSet<_>>().len());
    by_log.driver.leave();
    installation.check_decisions();
    used
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_restore_by_snapshot_equals_one_by_the_log(steps in steps()) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        check(&mut Installation::new(folder.path(), START_MS), &steps);
    }
}

fn usual() -> Vec<Step> {
    let offers = (0..JOBS).map(|job| Step::Offer(job, usize::from(job) % SCHEDULES.len()));
    offers.chain([Step::Pass(45), Step::Command(1, CommandType::Pause), Step::Pass(5)]).collect()
}

#[test]
fn a_snapshot_is_used_after_an_orderly_end_and_after_a_crash() {
    for is_crash in [false, true] {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let mut installation = Installation::new(folder.path(), START_MS);
        let mut steps = usual();
        steps.extend([Step::Pass(LONG_SECONDS), Step::Offer(0, 2), Step::Pass(15)]);
        steps.push(Step::Restart { is_crash, has_snapshots: true });
        assert_eq!(check(&mut installation, &steps), u64::from(SHARDS.unsigned_abs()), "crash: {is_crash}");
    }
}

/// Offsets, keys and positions agree; only what was decided, and when, does not.
#[test]
fn a_snapshot_of_another_log_with_the_same_history_is_ignored() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    check(&mut Installation::new(folder.path(), START_MS), &usual());
    let other = tempfile::tempdir().expect("a temporary directory");
    let mut installation = Installation::new(other.path(), START_MS + 7);
    check(&mut installation, &usual());
    installation.folder = folder.path().to_owned();
    let trigger = installation.start(true);
    assert_eq!(trigger.snapshots_used(), 0);
    trigger.driver.leave();
    compare(&installation);
}

#[test]
fn a_damaged_snapshot_is_ignored() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut installation = Installation::new(folder.path(), START_MS);
    check(&mut installation, &usual());
    for file in std::fs::read_dir(folder.path()).expect("a folder").flatten() {
        let bytes = std::fs::read(file.path()).expect("a snapshot");
        std::fs::write(file.path(), &bytes[..bytes.len() / 2]).expect("a writable folder");
    }
    let trigger = installation.start(true);
    assert_eq!(trigger.snapshots_used(), 0);
    assert_eq!(trigger.states(&installation).len(), usize::from(JOBS));
    trigger.driver.leave();
    assert_eq!(compare(&installation), u64::from(SHARDS.unsigned_abs()), "and replaced by a good one");
}

/// A one-shot each second; the process crashes around the instant of its first snapshot, which it takes 150 s after the
/// takeover. What was decided just before that stands in the snapshot and not yet in the state topic.
#[test]
fn what_only_decisions_explain_is_still_saved_after_a_restore_by_snapshot() {
    let mut used = 0;
    for seconds in 86..=96 {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let installation = Installation::new(folder.path(), START_MS);
        let mut trigger = installation.start(true);
        for job in 0..120u8 {
            let at = Timestamp::from_millis(START_MS + (70 + i64::from(job)) * 1000);
            installation.offer_schedule(job, &format!(r#"{{"at":"{at}"}}"#));
        }
        installation.pass(&mut trigger, seconds);
        // One turn more, in which it decides and takes its snapshot; the next would save what it decided.
        installation.clock.advance(Duration::from_secs(1));
        trigger.driver.turn(Duration::ZERO).expect("nothing needs a person");
        trigger.driver.crash();
        let trigger = installation.start(true);
        used += trigger.snapshots_used();
        trigger.driver.leave();
        compare(&installation);
    }
    assert!(used > 0, "no snapshot was taken in time");
}
