//! Topics as `topics.yaml` declares them, compared with those of a log. Not here: names (`orloj_domain::topic`).
//! Invariant: nothing here alters, shrinks or deletes a topic; what differs is shown to a person.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use orloj_domain::id::QueueName;
use serde::Deserialize;

use crate::log::{Log, LogError, TopicSpec};

/// Stands for the name of a queue in the name of a declared topic.
const QUEUE_PLACE: &str = "<queue>";
/// As a number of copies: the cluster's own default.
pub const REPLICATION_OF_CLUSTER: i16 = -1;
/// From this many copies on, two must have a record before it is acknowledged.
const COPIES_FOR_INSYNC: i16 = 3;

static DECLARATION: LazyLock<Declaration> = LazyLock::new(|| {
    serde_saphyr::from_str(include_str!("../../../topics.yaml")).expect("a test reads the embedded topics.yaml")
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    everywhere: BTreeMap<String, Scalar>,
    topics: Vec<Topic>,
}

/// A topic, or the topics of all queues, as declared.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    /// Name without prefix; may hold `<queue>`.
    pub name: String,
    /// What its records are keyed by.
    pub key: String,
    partitions: Partitions,
    settings: BTreeMap<String, Scalar>,
    /// Records that it holds, by schema; none: bytes as found.
    pub schemas: Vec<String>,
    /// Who alone writes it.
    pub writer: String,
    /// Who reads it.
    pub readers: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Partitions {
    Fixed(i32),
    Named(PerShard),
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PerShard {
    Shards,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(i64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl Topic {
    /// True if there is one such topic for each queue.
    #[must_use]
    pub fn is_per_queue(&self) -> bool {
        self.name.contains(QUEUE_PLACE)
    }

    /// True if a topic of this name is declared here.
    #[must_use]
    pub fn is_named(&self, name: &str) -> bool {
        match self.name.split_once(QUEUE_PLACE) {
            Some((before, after)) => {
                let queue = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
                queue.is_some_and(|queue| QueueName::new(queue).is_ok())
            }
            None => self.name == name,
        }
    }

    fn spec(&self, name: String, shards: i32, replication: i16) -> TopicSpec {
        let partitions = match self.partitions {
            Partitions::Fixed(partitions) => partitions,
            Partitions::Named(PerShard::Shards) => shards,
        };
        let declared = DECLARATION.everywhere.iter().chain(&self.settings);
        let mut settings: BTreeMap<String, String> =
            declared.map(|(setting, value)| (setting.clone(), value.to_string())).collect();
        if replication >= COPIES_FOR_INSYNC {
            settings.insert("min.insync.replicas".to_owned(), "2".to_owned());
        }
        TopicSpec { name, partitions, replication, settings }
    }
}

/// Everything that `topics.yaml` declares, in its order.
#[must_use]
pub fn declaration() -> &'static [Topic] {
    &DECLARATION.topics
}

/// All topics that an installation with these queues must have.
#[must_use]
pub fn declared(shards: i32, replication: i16, queues: &[QueueName]) -> Vec<TopicSpec> {
    let mut specs = Vec::new();
    for topic in declaration() {
        if topic.is_per_queue() {
            let name = |queue: &QueueName| topic.name.replace(QUEUE_PLACE, queue.as_str());
            specs.extend(queues.iter().map(|queue| topic.spec(name(queue), shards, replication)));
        } else {
            specs.push(topic.spec(topic.name.clone(), shards, replication));
        }
    }
    specs
}

/// One topic by its name, a queue's included; `None` if it is not declared.
#[must_use]
pub fn topic(name: &str, shards: i32, replication: i16) -> Option<TopicSpec> {
    let found = declaration().iter().find(|topic| topic.is_named(name))?;
    Some(found.spec(name.to_owned(), shards, replication))
}

/// The topic of a queue by its name, with the cluster's own number of copies; `None` if it is no queue's topic.
#[must_use]
pub fn queue_topic(name: &str, shards: i32) -> Option<TopicSpec> {
    let found = declaration().iter().find(|topic| topic.is_per_queue() && topic.is_named(name))?;
    Some(found.spec(name.to_owned(), shards, REPLICATION_OF_CLUSTER))
}

/// A setting that is not as declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The topic.
    pub topic: String,
    /// `partitions`, `replication` or one of Kafka's settings.
    pub setting: String,
    /// What it is; `None`: not set on the topic.
    pub found: Option<String>,
    /// What is declared.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = self.found.as_deref().unwrap_or("not set");
        write!(f, "{}: {} is {found}, declared is {}", self.topic, self.setting, self.wanted)
    }
}

/// What a log's topics lack, compared with what is declared.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Missing topics.
    pub create: Vec<TopicSpec>,
    /// What is not as declared.
    pub differs: Vec<Difference>,
    /// Topics of the installation that are not declared.
    pub extra: Vec<String>,
    /// Topics that are as declared.
    pub equal: usize,
}

impl Plan {
    /// True if the log is as declared; topics that are not declared do not count.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.create.is_empty() && self.differs.is_empty()
    }

    /// Topics with another number of partitions than declared: the installation was made for other shards.
    pub fn wrong_partitions(&self) -> impl Iterator<Item = &Difference> {
        self.differs.iter().filter(|difference| difference.setting == "partitions")
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for spec in &self.create {
            let settings: Vec<String> = spec.settings.iter().map(|(key, value)| format!("{key}={value}")).collect();
            let copies = match spec.replication {
                REPLICATION_OF_CLUSTER => "the cluster's number of copies".to_owned(),
                copies => format!("copies {copies}"),
            };
            let TopicSpec { name, partitions, .. } = spec;
            writeln!(f, "create   {name}: partitions {partitions}, {copies}, {}", settings.join(", "))?;
        }
        for difference in &self.differs {
            writeln!(f, "differs  {difference}")?;
        }
        for name in &self.extra {
            writeln!(f, "extra    {name}: not declared, left alone")?;
        }
        let count = |count: usize, what: &str| format!("{count} {what}");
        let parts = [
            count(self.create.len(), "to create"),
            count(self.differs.len(), "differences"),
            count(self.extra.len(), "not declared"),
            count(self.equal, "as declared"),
        ];
        writeln!(f, "{}", parts.join(", "))?;
        if self.differs.is_empty() {
            return Ok(());
        }
        writeln!(f, "Existing topics are never altered: change them with Kafka's own tools, or the declaration.")
    }
}

/// Compares a log's topics with the declared ones. Topics of queues that are not listed are compared with those
/// of a queue that is: they come into being with the first run on them.
///
/// # Errors
/// When the log can't be asked.
pub fn plan(log: &dyn Log, declared: &[TopicSpec]) -> Result<Plan, LogError> {
    let found: BTreeMap<String, TopicSpec> = log.topics()?.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
    Ok(compare(&found, declared))
}

fn compare(found: &BTreeMap<String, TopicSpec>, declared: &[TopicSpec]) -> Plan {
    let mut plan = Plan::default();
    let missing = declared.iter().filter(|spec| !found.contains_key(&spec.name));
    plan.create.extend(missing.cloned());
    for (name, spec) in found {
        let of_other_queue = || {
            let pattern = declaration().iter().find(|topic| topic.is_per_queue() && topic.is_named(name))?;
            declared.iter().find(|wanted| pattern.is_named(&wanted.name))
        };
        match declared.iter().find(|wanted| wanted.name == *name).or_else(of_other_queue) {
            Some(wanted) => {
                let before = plan.differs.len();
                compare_topic(spec, wanted, &mut plan.differs);
                plan.equal += usize::from(plan.differs.len() == before);
            }
            None => plan.extra.push(name.clone()),
        }
    }
    plan
}

fn compare_topic(found: &TopicSpec, wanted: &TopicSpec, differs: &mut Vec<Difference>) {
    let mut check = |setting: &str, found_value: Option<String>, wanted_value: String| {
        if found_value.as_ref() != Some(&wanted_value) {
            let (topic, setting) = (found.name.clone(), setting.to_owned());
            differs.push(Difference { topic, setting, found: found_value, wanted: wanted_value });
        }
    };
    check("partitions", Some(found.partitions.to_string()), wanted.partitions.to_string());
    if wanted.replication != REPLICATION_OF_CLUSTER {
        check("replication", Some(found.replication.to_string()), wanted.replication.to_string());
    }
    for (setting, value) in &wanted.settings {
        check(setting, found.settings.get(setting).cloned(), value.clone());
    }
}

/// Why a plan was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Topics with another number of partitions: more topics would not belong to them. Nothing was created.
    #[error("nothing was created: the installation has another number of shards than asked for; {}", list(.0))]
    OtherShards(Vec<Difference>),
    /// The log refused or did not answer; topics before the one at fault were created.
    #[error(transparent)]
    Log(#[from] LogError),
}

fn list(differences: &[Difference]) -> String {
    differences.iter().map(Difference::to_string).collect::<Vec<String>>().join("; ")
}

/// Creates what is missing and returns the names. Differences in settings are left for a person; with other
/// numbers of partitions nothing is created at all.
///
/// # Errors
/// [`ApplyError`] by what stood in the way.
pub fn apply(log: &dyn Log, plan: &Plan) -> Result<Vec<String>, ApplyError> {
    let wrong: Vec<Difference> = plan.wrong_partitions().cloned().collect();
    if !wrong.is_empty() {
        return Err(ApplyError::OtherShards(wrong));
    }
    let mut created = Vec::with_capacity(plan.create.len());
    for spec in &plan.create {
        log.create_topic(spec)?;
        created.push(spec.name.clone());
    }
    Ok(created)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use orloj_domain::time::Timestamp;
    use orloj_domain::topic as names;

    use super::*;
    use crate::clock::ManualClock;
    use crate::codec::schemas;
    use crate::embedded::EmbeddedLog;

    fn queues() -> Vec<QueueName> {
        vec![QueueName::default(), QueueName::new("reports").expect("queue")]
    }

    fn by_name(specs: Vec<TopicSpec>) -> BTreeMap<String, TopicSpec> {
        specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect()
    }

    #[test]
    fn every_topic_that_code_names_is_declared() {
        let specs = by_name(declared(8, 1, &queues()));
        for name in [
            names::JOBS,
            names::JOB_EVENTS,
            names::TRIGGER_STATE,
            names::TRIGGER_OWNERS,
            names::DISPATCHER_OWNERS,
            names::SETTINGS,
            names::LIMITS,
            names::COMMANDS,
            names::FIRES,
            names::RUN_DELAY,
            names::RUN_RETRY,
            names::RUN_STATE,
            names::RUN_EVENTS,
            names::RUNNER_INBOX,
            names::ATTEMPT_EVENTS,
            names::RUNNER_HEARTBEATS,
            names::ATTEMPT_OUTPUT,
            names::QUARANTINE,
        ] {
            assert!(specs.contains_key(name), "{name}");
        }
        for queue in queues() {
            assert!(specs.contains_key(&names::run_ready(&queue)) && specs.contains_key(&names::dead_letters(&queue)));
        }
        assert_eq!(specs.len(), 22);
    }

    #[test]
    fn settings_are_what_the_brokers_take() {
        for spec in declared(32, 3, &queues()) {
            let setting = |name: &str| spec.settings.get(name).map(String::as_str);
            let number = |name: &str| setting(name).map(|value| value.parse::<i64>().expect("a number"));
            let is_single = matches!(spec.name.as_str(), names::SETTINGS | names::RUNNER_HEARTBEATS);
            assert_eq!(spec.partitions, if is_single { 1 } else { 32 }, "{}", spec.name);
            assert!(number("segment.bytes").is_none_or(|bytes| bytes >= 1_048_576), "{}", spec.name);
            assert_eq!(setting("min.insync.replicas"), Some("2"));
            let policy = setting("cleanup.policy").expect("a policy");
            assert_eq!(policy.contains("delete"), number("retention.ms").is_some(), "{}", spec.name);
            if policy == "compact" {
                assert_eq!(number("delete.retention.ms"), Some(7 * 86_400_000), "{}", spec.name);
            }
        }
        assert!(declared(32, 1, &[]).iter().all(|spec| !spec.settings.contains_key("min.insync.replicas")));
    }

    #[test]
    fn every_schema_named_exists_and_is_used() {
        let mut unused: Vec<&str> = schemas::CURRENT.iter().map(|file| file.record).collect();
        for topic in declaration() {
            for schema in &topic.schemas {
                assert!(schemas::current(schema).is_some(), "{}: {schema}", topic.name);
                unused.retain(|record| record != schema);
            }
        }
        assert_eq!(unused, Vec::<&str>::new());
    }

    #[test]
    fn topics_are_found_by_name() {
        assert_eq!(queue_topic("run.ready.reports", 8).map(|spec| spec.partitions), Some(8));
        assert_eq!(queue_topic("dlq.reports", 8).map(|spec| spec.replication), Some(REPLICATION_OF_CLUSTER));
        for name in ["jobs", "run.ready.", "run.ready.a.b", "dlq.Reports", "else"] {
            assert_eq!(queue_topic(name, 8), None, "{name}");
        }
        assert_eq!(topic("jobs", 8, 3).map(|spec| spec.replication), Some(3));
        assert_eq!(topic("else", 8, 3), None);
    }

    #[test]
    fn a_plan_says_what_is_missing_what_differs_and_what_is_not_ours() {
        let declared_specs = declared(8, 1, &[QueueName::default()]);
        let mut found = by_name(declared_specs.clone());
        assert_eq!(compare(&found, &declared_specs), Plan { equal: 20, ..Plan::default() });

        found.remove("fires");
        found.get_mut("jobs").expect("jobs").partitions = 32;
        let state = &mut found.get_mut("trigger.state").expect("state").settings;
        state.insert("cleanup.policy".to_owned(), "delete".to_owned());
        state.remove("segment.bytes");
        state.insert("max.message.bytes".to_owned(), "2000000".to_owned());
        for name in ["run.ready.late", "mine"] {
            let spec = queue_topic("run.ready.late", 8).expect("spec");
            found.insert(name.to_owned(), TopicSpec { name: name.to_owned(), replication: 1, ..spec });
        }
        let plan = compare(&found, &declared_specs);
        let text = plan.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("create   fires: partitions 8, copies 1, cleanup.policy=compact, "), "{text}");
        assert_eq!(
            lines[1..],
            [
                "differs  jobs: partitions is 32, declared is 8",
                "differs  trigger.state: cleanup.policy is delete, declared is compact",
                "differs  trigger.state: segment.bytes is not set, declared is 16777216",
                "extra    mine: not declared, left alone",
                "1 to create, 3 differences, 1 not declared, 18 as declared",
                "Existing topics are never altered: change them with Kafka's own tools, or the declaration.",
            ]
        );
        assert_eq!(plan.wrong_partitions().count(), 1);
    }

    #[test]
    fn what_is_missing_is_created_and_what_is_there_is_left_alone() {
        let log = EmbeddedLog::in_memory(Arc::new(ManualClock::new(Timestamp::from_millis(0))));
        let declared_specs = declared(2, 1, &[QueueName::default()]);
        let other = TopicSpec { settings: BTreeMap::new(), ..topic(names::FIRES, 2, 1).expect("fires") };
        log.create_topic(&other).expect("created");
        let first = plan(&log, &declared_specs).expect("plan");
        assert_eq!((first.create.len(), first.wrong_partitions().count()), (19, 0));
        assert_eq!(apply(&log, &first).expect("created").len(), 19);
        let second = plan(&log, &declared_specs).expect("plan");
        assert_eq!((second.create.len(), second.equal), (0, 19));
        assert!(second.differs.iter().all(|difference| difference.topic == names::FIRES) && !second.is_empty());

        let more_shards = plan(&log, &declared(4, 1, &queues())).expect("plan");
        assert!(!more_shards.create.is_empty());
        assert!(matches!(apply(&log, &more_shards), Err(ApplyError::OtherShards(_))));
        assert_eq!(plan(&log, &declared_specs).expect("plan"), second);
    }
}
