//! Topics of this installation: what they are and how they are made. Not here: what they should be
//! (`topics.yaml`). Invariant: nothing is changed or deleted; a topic that exists is left as it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, ConfigSource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::client::{Aside, Complaints, Deadline};
use super::config::KafkaConfig;
use super::ends::Ends;
use super::fault;
use crate::log::{Isolation, LogError, TopicSpec};

/// Longest wait for the controller to make a topic, and then for the topic to be led.
const CREATE_TIMEOUT: Duration = Duration::from_secs(15);
/// Longest wait for the settings of topics.
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause between two looks at a topic that is being made.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// All topics with the prefix, in order of their names without it.
pub(crate) fn topics(config: &KafkaConfig, ends: &Ends) -> Result<Vec<TopicSpec>, LogError> {
    let metadata = ends.metadata(None)?;
    let mut found: BTreeMap<String, TopicSpec> = BTreeMap::new();
    for topic in metadata.topics() {
        let Some(name) = config.short_name(topic.name()) else { continue };
        let copies = topic.partitions().iter().map(|partition| partition.replicas().len()).min().unwrap_or(0);
        let spec = TopicSpec {
            name: name.to_owned(),
            partitions: i32::try_from(topic.partitions().len()).unwrap_or(i32::MAX),
            replication: i16::try_from(copies).unwrap_or(i16::MAX),
            settings: BTreeMap::new(),
        };
        found.insert(topic.name().to_owned(), spec);
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    for resource in describe(config, found.keys())? {
        if let OwnedResourceSpecifier::Topic(full_name) = &resource.specifier
            && let Some(spec) = found.get_mut(full_name)
        {
            spec.settings = settings_of(&resource);
        }
    }
    Ok(found.into_values().collect())
}

/// What was set on the topic itself; what it has from the broker is not its own and may change with it.
fn settings_of(resource: &ConfigResource) -> BTreeMap<String, String> {
    let own = resource.entries.iter().filter(|entry| entry.source == ConfigSource::DynamicTopic);
    own.filter_map(|entry| Some((entry.name.clone(), entry.value.clone()?))).collect()
}

fn describe<'a>(
    config: &KafkaConfig,
    full_names: impl Iterator<Item = &'a String>,
) -> Result<Vec<ConfigResource>, LogError> {
    let admin = admin_client(config)?;
    let wanted: Vec<ResourceSpecifier<'_>> = full_names.map(|name| ResourceSpecifier::Topic(name)).collect();
    let options = AdminOptions::new().request_timeout(Some(DESCRIBE_TIMEOUT));
    let answer = wait_for(admin.describe_configs(&wanted, &options), DESCRIBE_TIMEOUT);
    let described = answer.and_then(|answer| answer).map_err(|error| fault::of_read("topic settings", &error))?;
    let one = |result: Result<ConfigResource, RDKafkaErrorCode>| {
        result.map_err(|code| fault::of_read("topic settings", &KafkaError::MetadataFetch(code)))
    };
    described.into_iter().map(one).collect()
}

/// Makes a topic and waits until each of its partitions is led.
pub(crate) fn create_topic(config: &KafkaConfig, ends: &Ends, spec: &TopicSpec) -> Result<(), LogError> {
    let deadline = Deadline::after(CREATE_TIMEOUT);
    let full_name = config.full_name(&spec.name);
    let mut topic = NewTopic::new(&full_name, spec.partitions, TopicReplication::Fixed(i32::from(spec.replication)));
    for (key, value) in &spec.settings {
        topic = topic.set(key, value);
    }
    let options = AdminOptions::new().request_timeout(Some(CREATE_TIMEOUT)).operation_timeout(Some(CREATE_TIMEOUT));
    let admin = admin_client(config)?;
    let answer = wait_for(admin.create_topics([&topic], &options), CREATE_TIMEOUT);
    let results = answer.and_then(|answer| answer).map_err(|error| fault::of_read(&spec.name, &error))?;
    for result in results {
        match result {
            Ok(_) => {}
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => return Ok(()),
            Err((_, code)) => return Err(refusal(spec, code)),
        }
    }
    while !is_led(ends, &full_name, spec)? {
        if deadline.has_passed() {
            return Err(LogError::Unavailable(format!("topic `{}` was made but has no leader yet", spec.name)));
        }
        std::thread::park_timeout(LOOK_INTERVAL);
    }
    Ok(())
}

fn is_led(ends: &Ends, full_name: &str, spec: &TopicSpec) -> Result<bool, LogError> {
    let metadata = ends.metadata(Some(full_name))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == full_name) else {
        return Ok(false);
    };
    let led = topic.partitions().iter().filter(|part| part.error().is_none() && part.leader() >= 0).count();
    Ok(topic.error().is_none() && i32::try_from(led).is_ok_and(|led| led == spec.partitions))
}

/// The broker's codes say what is wrong only in general; the topic's values say which of them it may be.
fn refusal(spec: &TopicSpec, code: RDKafkaErrorCode) -> LogError {
    let is_wrong = matches!(
        code,
        RDKafkaErrorCode::InvalidConfig
            | RDKafkaErrorCode::InvalidPartitions
            | RDKafkaErrorCode::InvalidReplicationFactor
            | RDKafkaErrorCode::InvalidTopic
            | RDKafkaErrorCode::PolicyViolation
            | RDKafkaErrorCode::InvalidRequest
    );
    let TopicSpec { name, partitions, replication, settings } = spec;
    if is_wrong {
        LogError::Misconfigured(format!(
            "Kafka refuses topic `{name}`: {code} (partitions {partitions}, copies {replication}, settings {settings:?})"
        ))
    } else {
        fault::of_read(name, &KafkaError::MetadataFetch(code))
    }
}

/// Made for one request: an idle one wakes up ten times a second.
fn admin_client(config: &KafkaConfig) -> Result<Aside<AdminClient<Complaints>>, LogError> {
    let client: Result<AdminClient<Complaints>, KafkaError> =
        config.for_questions(Isolation::Uncommitted).create_with_context(Complaints::new("admin"));
    client.map(Aside::new).map_err(|error| fault::of_read("", &error))
}

/// Waits for a request that another thread completes.
fn wait_for<F: Future>(request: F, timeout: Duration) -> Result<F::Output, KafkaError> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    // librdkafka ends the request in time; the second limit is for the case that it does not.
    let deadline = Deadline::after(timeout + Duration::from_secs(1));
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut request = std::pin::pin!(request);
    loop {
        if let Poll::Ready(answer) = request.as_mut().poll(&mut context) {
            return Ok(answer);
        }
        if deadline.has_passed() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        std::thread::park_timeout(deadline.left());
    }
}
