//! The real driver over the in-memory log, with calendars in `settings`: who takes a shard, early or late, judges
//! by all calendars that were there before. Invariant: no decision is made by calendars that were read half.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use orloj_domain::fire::{Decision, FireDecision, Reason};
use orloj_domain::id::JobId;
use orloj_domain::manifest;
use orloj_domain::shard::{Shard, ShardCount};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, ManualClock};
use orloj_runtime::codec;
use orloj_runtime::driver::Driver;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::log::{Isolation, Log, NewRecord, TopicPartition};
use orloj_trigger::TriggerService;

/// 2027-01-15T08:00:00Z, a Friday.
const START_MS: i64 = 1_800_000_000_000;
const SHARDS: i32 = 2;
/// The day of the start.
const TODAY: &str = r#"{"dates":["2027-01-15"]}"#;

struct Installation {
    clock: ManualClock,
    log: EmbeddedLog,
    shards: ShardCount,
    drivers: Vec<Driver<TriggerService>>,
}

impl Installation {
    fn new() -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(START_MS));
        let (log, shards) = support::empty_log(&clock, SHARDS);
        Self { clock, log, shards, drivers: Vec::new() }
    }

    /// One more trigger joins.
    fn join(&mut self) {
        let (driver, _, _) = support::join(self.log.clone(), &self.clock, self.shards, None);
        self.drivers.push(driver);
    }

    fn append(&self, record: NewRecord) -> i64 {
        self.log.appender().expect("in memory").append(vec![record]).expect("in memory").remove(0).offset
    }

    /// Writes a calendar, or removes it; says where that stands.
    fn calendar(&self, name: &str, spec: Option<&str>) -> i64 {
        let value = spec.map(|spec| {
            format!(r#"{{"apiVersion":"orloj/v1","kind":"Calendar","metadata":{{"name":"{name}"}},"spec":{spec}}}"#)
        });
        self.append(NewRecord::new(topic::SETTINGS, 0, format!("calendar/{name}"), value.map(String::into_bytes)))
    }

    /// A job of this shard.
    fn job(&self, shard: i32) -> JobId {
        let names = (0..100).map(|index| JobId::new("a", &format!("job-{index}")).expect("an id"));
        names.into_iter().find(|job| self.shards.shard_of(job) == Shard(shard)).expect("one of a hundred")
    }

    /// Offers a job in each shard, every ten seconds but on days of a calendar.
    fn offer(&self, more: &str) {
        for shard in 0..SHARDS {
            let job = self.job(shard);
            let text = format!(
                r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"a","name":"{}"}},"spec":{{{more}
                    "schedule":{{"every":"10s","exclude":["holidays"]}},"run":{{"exec":{{"command":["true"]}}}}}}}}"#,
                job.name()
            );
            let definition = manifest::parse_json(&text).expect("a valid manifest");
            self.append(NewRecord::new(topic::JOBS, shard, job.as_str(), Some(codec::encode(&definition))));
        }
    }

    /// Lets seconds pass, for all triggers that are there.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds * 10 {
            self.clock.advance(Duration::from_millis(100));
            for driver in &mut self.drivers {
                driver.turn(Duration::ZERO).expect("nothing needs a person");
            }
        }
    }

    /// Decisions of a shard by the second of their fire time.
    fn decisions(&self, shard: i32) -> BTreeMap<i64, FireDecision> {
        let mut reader = self.log.reader(Isolation::Committed).expect("in memory");
        reader.read_from(&[(TopicPartition::new(topic::FIRES, shard), 0)]).expect("an existing topic");
        let mut found = BTreeMap::new();
        loop {
            let records = reader.poll(1000, Duration::ZERO).expect("in memory");
            if records.is_empty() {
                return found;
            }
            for record in records.iter().filter(|record| record.key_text().is_some_and(|key| !key.starts_with("__"))) {
                let value = record.value.as_deref().expect("a value");
                let decision: FireDecision = codec::decode(value).expect("a decision");
                let second = (decision.fire_time.millis() - START_MS) / 1000;
                assert!(found.insert(second, decision).is_none(), "decided twice: {second}");
            }
        }
    }

    /// The newest decision of each shard: its reason, if it was no request, and the offset of the calendar.
    fn newest(&self) -> Vec<(Option<Reason>, i64)> {
        let newest = |shard| {
            let decisions = self.decisions(shard);
            let (_, decision) = decisions.last_key_value().expect("a decision");
            assert_eq!(decision.decision == Decision::Requested, decision.reason.is_none(), "{decision:?}");
            (decision.reason, decision.calendars.values().copied().next().expect("a calendar was asked"))
        };
        (0..SHARDS).map(newest).collect()
    }
}

#[test]
fn edits_of_a_calendar_count_at_their_positions_in_every_shard() {
    let mut installation = Installation::new();
    let first = installation.calendar("holidays", Some(TODAY));
    installation.offer("");
    installation.join();
    installation.pass(15);
    assert_eq!(installation.newest(), vec![(Some(Reason::Calendar), first); 2]);
    let second = installation.calendar("holidays", Some("{}"));
    installation.pass(10);
    assert_eq!(installation.newest(), vec![(None, second); 2]);
    installation.calendar("holidays", Some(r#"{"days":[]}"#));
    installation.append(NewRecord::new(topic::SETTINGS, 0, "calendar/Holidays", Some(b"{}".to_vec())));
    installation.append(NewRecord::new(topic::SETTINGS, 0, "queue/default", Some(b"{}".to_vec())));
    installation.pass(10);
    assert_eq!(installation.newest(), vec![(None, second); 2], "what can't be used changes nothing");
    installation.calendar("holidays", None);
    installation.pass(10);
    assert_eq!(installation.newest(), vec![(Some(Reason::Calendar), -1); 2]);
}

#[test]
fn who_takes_a_shard_later_or_keeps_one_knows_the_calendars() {
    let mut installation = Installation::new();
    let first = installation.calendar("holidays", Some(TODAY));
    installation.offer("");
    installation.join();
    installation.pass(15);
    // A second one takes a shard away from the first: each has one now, and hears of edits.
    installation.join();
    installation.pass(20);
    for driver in &installation.drivers {
        let owned = (0..SHARDS).filter(|shard| driver.machine(Shard(*shard)).is_some()).count();
        assert_eq!(owned, 1, "each has its share");
    }
    assert_eq!(installation.newest(), vec![(Some(Reason::Calendar), first); 2]);
    let second = installation.calendar("holidays", Some("{}"));
    installation.pass(20);
    assert_eq!(installation.newest(), vec![(None, second); 2]);
    // One dies, a while nobody decides for its shard, and the other takes it.
    installation.drivers.remove(0).crash();
    let third = installation.calendar("holidays", Some(TODAY));
    installation.pass(60);
    assert_eq!(installation.newest(), vec![(Some(Reason::Calendar), third); 2]);
    for shard in 0..SHARDS {
        let decisions = installation.decisions(shard);
        let last = decisions.keys().last().copied().expect("decisions");
        let settled: Vec<i64> = decisions
            .iter()
            .flat_map(|(second, decision)| {
                let end = decision.range_end.map_or(*second, |end| (end.millis() - 1 - START_MS) / 1000);
                (*second..=end).filter(|second| second % 10 == 0)
            })
            .collect();
        assert_eq!(settled, (1..=last / 10).map(|index| index * 10).chain(rest(&decisions)).collect::<Vec<_>>());
    }
}

/// Fire times of a range that comes last, beyond its first.
fn rest(decisions: &BTreeMap<i64, FireDecision>) -> Vec<i64> {
    let Some((first, decision)) = decisions.last_key_value() else { return Vec::new() };
    let end = decision.range_end.map_or(*first, |end| (end.millis() - 1 - START_MS) / 1000);
    (first + 1..=end).filter(|second| second % 10 == 0).collect()
}

#[test]
fn an_edit_that_is_read_at_the_takeover_is_settled_by_all_calendars() {
    let mut installation = Installation::new();
    installation.calendar("holidays", Some(TODAY));
    installation.offer("");
    installation.join();
    installation.pass(15);
    installation.drivers.remove(0).crash();
    // While nobody is there: fire times become due, then the calendar and the jobs are edited.
    installation.clock.advance(Duration::from_secs(100));
    // Many calendars, so that they take more than one reading.
    for index in 0..5000 {
        installation.calendar(&format!("other-{index}"), Some("{}"));
    }
    let now = installation.calendar("holidays", Some("{}"));
    installation.offer(r#""maxFires":100,"#);
    installation.join();
    installation.pass(60);
    for shard in 0..SHARDS {
        let decisions = installation.decisions(shard);
        let judged: Vec<_> =
            decisions.values().filter(|decision| decision.fire_time.millis() > START_MS + 15_000).collect();
        assert!(judged.len() > 10, "{judged:?}");
        for decision in judged {
            let offsets: Vec<i64> = decision.calendars.values().copied().collect();
            assert_eq!(offsets, [now], "{decision:?}");
            assert_ne!(decision.reason, Some(Reason::Calendar), "{decision:?}");
        }
        assert!(
            decisions
                .values()
                .any(|decision| decision.version == 1 && decision.calendars.values().any(|it| *it == now))
        );
    }
    assert!(installation.clock.now().millis() > START_MS);
}
