//! The real driver over the in-memory log, with a wall clock that jumps. Invariant: a jump forward decides
//! nothing until it is over, and no fire time is decided twice whatever the clock did.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use orloj_domain::fire::{Decision, FireDecision};
use orloj_domain::manifest;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, ManualClock};
use orloj_runtime::codec;
use orloj_runtime::driver::Driver;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::log::{Isolation, Log, NewRecord, TopicPartition};
use orloj_runtime::metrics::Metrics;
use orloj_trigger::TriggerService;

const START_MS: i64 = 1_800_000_000_000;
const HOUR_MS: i64 = 3_600_000;

struct Installation {
    clock: ManualClock,
    log: EmbeddedLog,
    metrics: Metrics,
    health: Health,
    driver: Driver<TriggerService>,
}

impl Installation {
    /// A trigger that has one job, every ten seconds.
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(START_MS));
        let (log, shards) = support::empty_log(&clock, 1);
        let (driver, metrics, health) = support::join(log.clone(), &clock, shards, None);
        let mut this = Self { clock, log, metrics, health, driver };
        this.offer("a/b");
        this.pass(5);
        this
    }

    fn offer(&mut self, job: &str) {
        let (namespace, name) = job.split_once('/').expect("two labels");
        let text = format!(
            r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"{namespace}","name":"{name}"}},
                "spec":{{"schedule":{{"every":"10s"}},"run":{{"exec":{{"command":["/bin/true"]}}}}}}}}"#
        );
        let definition = manifest::parse_json(&text).expect("a valid manifest");
        let record = NewRecord::new(topic::JOBS, 0, job, Some(codec::encode(&definition)));
        self.log.appender().expect("in memory").append(vec![record]).expect("in memory");
    }

    /// Lets seconds pass on both clocks.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.clock.advance(Duration::from_millis(100));
            self.driver.turn(Duration::ZERO).expect("nothing needs a person");
        }
    }

    fn jump(&mut self, by_ms: i64) {
        self.clock.jump(by_ms);
        self.driver.turn(Duration::ZERO).expect("nothing needs a person");
    }

    fn decisions(&self) -> Vec<FireDecision> {
        let at = TopicPartition::new(topic::FIRES, 0);
        let mut reader = self.log.reader(Isolation::Committed).expect("in memory");
        reader.read_from(&[(at, 0)]).expect("an existing topic");
        let mut found = Vec::new();
        loop {
            let records = reader.poll(1000, Duration::ZERO).expect("in memory");
            if records.is_empty() {
                return found;
            }
            let is_plain = |key: Option<&str>| key.is_some_and(|key| !key.starts_with("__"));
            let values = records
                .iter()
                .filter(|record| is_plain(record.key_text()))
                .filter_map(|record| record.value.as_deref());
            found.extend(values.map(|value| codec::decode::<FireDecision>(value).expect("a decision")));
        }
    }

    /// Decisions so far; each about another fire time.
    fn distinct(&self) -> usize {
        let decisions = self.decisions();
        let times: BTreeSet<_> = decisions.iter().map(|decision| (decision.job.clone(), decision.fire_time)).collect();
        assert_eq!(times.len(), decisions.len(), "a fire time was decided twice: {decisions:?}");
        decisions.len()
    }
}

#[test]
fn a_jump_forward_decides_nothing_until_the_clock_has_come_back() {
    let mut installation = Installation::new();
    installation.pass(30);
    let before = installation.distinct();
    assert_eq!(before, 3);
    assert!(installation.health.is_ready());
    installation.jump(HOUR_MS);
    installation.offer("a/c");
    installation.pass(20);
    assert_eq!(installation.distinct(), before, "an hour of fire times would be a storm");
    assert!(!installation.health.is_ready());
    assert!(installation.metrics.text().contains("orloj_trigger_clock_jumps_total 1"));
    assert!(installation.metrics.text().contains("orloj_trigger_clock_ahead_seconds 3600"));
    installation.jump(-HOUR_MS);
    installation.pass(20);
    let decisions = installation.decisions();
    let requested = decisions.iter().filter(|decision| decision.decision == Decision::Requested).count();
    assert!(requested > before, "{decisions:?}");
    assert!(decisions.iter().all(|decision| decision.fire_time <= installation.clock.now()), "{decisions:?}");
    assert!(decisions.iter().any(|decision| decision.job.as_str() == "a/c"), "what was offered meanwhile is in force");
    installation.distinct();
    assert!(installation.health.is_ready());
    assert!(installation.metrics.text().contains("orloj_trigger_clock_ahead_seconds 0"));
}

#[test]
fn a_jump_within_the_limit_only_makes_fire_times_late() {
    let mut installation = Installation::new();
    installation.jump(50_000);
    assert!(installation.health.is_ready());
    installation.pass(10);
    assert_eq!(installation.distinct(), 6, "every fire time that was jumped over has its decision");
}

#[test]
fn a_jump_back_decides_nothing_again() {
    let mut installation = Installation::new();
    installation.pass(30);
    let before = installation.distinct();
    installation.jump(-HOUR_MS);
    installation.pass(60);
    assert_eq!(installation.distinct(), before, "these fire times were decided before");
    assert!(installation.health.is_ready());
    installation.jump(HOUR_MS);
    installation.pass(10);
    assert!(installation.distinct() > before, "going on where it was");
    assert!(installation.metrics.text().contains("orloj_trigger_clock_jumps_total 0"), "putting it right is no jump");
}
