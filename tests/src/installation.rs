//! An installation of its own on a real broker or cluster: its topics, its services as processes, and what a producer
//! writes. Not here: what is asserted. Invariant: installations on one broker share nothing but the broker.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orloj_domain::command::{Command, CommandType};
use orloj_domain::id::{CommandId, JobId, RunId};
use orloj_domain::job_event::{JobEvent, JobEventType};
use orloj_domain::manifest;
use orloj_domain::shard::ShardCount;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::{Appender, Log, NewRecord};

use crate::broker::{Broker, Kafka, kafka_mode};
use crate::fires::reader;
use crate::process::{Orloj, PATIENCE, run};
use crate::wait;

const SHARDS: i32 = 8;

/// The installation.
pub struct Installation {
    /// Address of the broker or the cluster.
    pub bootstrap: String,
    /// What its topics begin with.
    pub prefix: String,
    /// The log, for reading back.
    pub log: KafkaLog,
    /// How many shards it has.
    pub shards: ShardCount,
    appender: Mutex<Box<dyn Appender>>,
}

impl Installation {
    /// Makes one on the broker that the tests of this binary share; `None` where Kafka is switched off.
    ///
    /// # Panics
    /// If there is no broker, or it refuses the topics.
    #[must_use]
    pub fn new(name: &str) -> Option<Self> {
        if kafka_mode() == Kafka::Off {
            return None;
        }
        Some(Self::on(Broker::shared().bootstrap(), name))
    }

    /// Makes one on a broker or a cluster, with as many copies as that makes by default.
    ///
    /// # Panics
    /// If the topics are refused.
    #[must_use]
    pub fn on(bootstrap: &str, name: &str) -> Self {
        let (bootstrap, prefix) = (bootstrap.to_owned(), format!("{name}."));
        let log = Self::log_of(&bootstrap, &prefix);
        let shards = ShardCount::new(SHARDS).expect("a valid count");
        let appender = Mutex::new(log.appender().expect("an appender"));
        let this = Self { bootstrap, prefix, log, shards, appender };
        let output = this.run(&["topics", "apply"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        this
    }

    /// A log on this address of which nothing was made yet.
    ///
    /// # Panics
    /// If librdkafka refuses the address.
    #[must_use]
    pub fn log_of(bootstrap: &str, prefix: &str) -> KafkaLog {
        let properties = BTreeMap::from([("bootstrap.servers".to_owned(), bootstrap.to_owned())]);
        KafkaLog::connect(KafkaConfig { properties, prefix: prefix.to_owned() }).expect("valid settings")
    }

    /// The address of its brokers.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    fn settings(&self) -> Vec<String> {
        vec![
            "--set".to_owned(),
            format!("kafka.bootstrap.servers={}", self.bootstrap),
            "--set".to_owned(),
            format!("topics.prefix={}", self.prefix),
            "--set".to_owned(),
            format!("shards={SHARDS}"),
        ]
    }

    /// Runs a command on this installation to its end.
    #[must_use]
    pub fn run(&self, arguments: &[&str]) -> std::process::Output {
        let settings = self.settings();
        let mut all = arguments.to_vec();
        all.extend(settings.iter().map(String::as_str));
        run(&all)
    }

    /// Starts a service on this installation.
    #[must_use]
    pub fn serve(&self, service: &str, more: &[&str]) -> Orloj {
        let settings = self.settings();
        let mut all = vec!["serve", service];
        all.extend(settings.iter().map(String::as_str));
        all.extend_from_slice(more);
        Orloj::start(&all)
    }

    fn append(&self, records: Vec<NewRecord>) {
        self.appender.lock().unwrap_or_else(PoisonError::into_inner).append(records).expect("an append");
    }

    /// Writes a calendar by its manifest's `spec`.
    ///
    /// # Panics
    /// If the log takes no record.
    pub fn calendar(&self, name: &str, spec: &str) {
        let text =
            format!(r#"{{"apiVersion":"orloj/v1","kind":"Calendar","metadata":{{"name":"{name}"}},"spec":{spec}}}"#);
        self.append(vec![NewRecord::new(topic::SETTINGS, 0, format!("calendar/{name}"), Some(text.into_bytes()))]);
    }

    /// Offers a job by its manifest's `spec`.
    ///
    /// # Panics
    /// If the manifest is not valid or the log takes no record.
    pub fn offer(&self, name: &str, spec: &str) -> JobId {
        let text = format!(
            r#"{{"apiVersion":"orloj/v1","kind":"Job","metadata":{{"namespace":"test","name":"{name}"}},"spec":{{{spec}}}}}"#
        );
        let definition = manifest::parse_json(&text).expect("a valid manifest");
        let partition = self.shards.shard_of(&definition.job).0;
        let job = definition.job.clone();
        self.append(vec![NewRecord::new(topic::JOBS, partition, job.as_str(), Some(codec::encode(&definition)))]);
        job
    }

    /// Definitions and commands are topics of their own: a command read before its job's definition is refused.
    ///
    /// # Panics
    /// If the job is not accepted in time.
    pub fn wait_accepted(&self, job: &JobId) {
        let mut events = reader(&self.log, topic::JOB_EVENTS);
        wait::until("the job is accepted", PATIENCE, || {
            let records = events.poll(100, Duration::from_millis(100)).expect("a readable log");
            let mut accepted = records.iter().filter_map(|record| record.value.as_deref()).filter(|value| {
                let event: JobEvent = codec::decode(value).expect("an event");
                event.kind == JobEventType::Accepted && event.job == *job
            });
            accepted.next().map(drop)
        });
    }

    /// Asks for a run by a command of this id.
    ///
    /// # Panics
    /// If the id is not valid or the log takes no record.
    pub fn run_now(&self, job: &JobId, id: &str) -> RunId {
        let command = Command::new(CommandType::RunNow, CommandId::new(id).expect("a valid id"));
        let partition = self.shards.shard_of(job).0;
        self.append(vec![NewRecord::new(topic::COMMANDS, partition, job.as_str(), Some(codec::encode(&command)))]);
        RunId::of_command(job, &command.command_id)
    }
}
