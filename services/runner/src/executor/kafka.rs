//! One message as an attempt. Not here: clients (`orloj_runtime::kafka::outlet`), what a failure leads to (dispatcher).
//! Invariant: a message goes to a topic that this runner's settings allow or nowhere, never to one of Orloj's own; an attempt
//! that succeeded is in the topic for good.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::job::KafkaTarget;
use orloj_domain::topic::{DLQ_PREFIX, RUN_READY_PREFIX};
use orloj_runtime::config::KafkaTargetConfig;
use orloj_runtime::kafka::outlet::{NotSent, Outlet, OutletMessage, SentTo};
use orloj_runtime::topics;
use tokio::sync::oneshot;

use super::process::{Abort, Sink};
use super::template::{AttemptFacts, fill, told};

/// The clusters that jobs may send to, and a client for each that was.
pub(crate) struct Clusters {
    known: BTreeMap<String, KafkaTargetConfig>,
    /// What the names of our own topics begin with; nothing, if the installation has set that.
    own_prefix: String,
    outlets: Mutex<BTreeMap<String, Outlet>>,
}

impl Clusters {
    pub(crate) fn new(known: BTreeMap<String, KafkaTargetConfig>, own_prefix: String) -> Self {
        Self { known, own_prefix, outlets: Mutex::default() }
    }

    /// # Errors
    /// Why nothing can be sent, as a sentence that names field and fix.
    fn prepare(&self, target: &KafkaTarget, facts: &AttemptFacts) -> Result<(Outlet, OutletMessage), String> {
        let KafkaTarget { cluster, topic, .. } = target;
        let Some(known) = self.known.get(cluster) else {
            return Err(format!(
                "spec.run.kafka.cluster: this runner knows no cluster `{cluster}`; set `runner.kafka.{cluster}.topics` \
                 (and `runner.kafka.{cluster}.bootstrap.servers`) for it, or use a queue whose runners know it"
            ));
        };
        if let Some(why) = self.why_own(topic) {
            return Err(format!("spec.run.kafka.topic: `{topic}` is one of Orloj's own ({why}); use another"));
        }
        if !known.topics.iter().any(|allowed| is_allowed(allowed, topic)) {
            return Err(format!(
                "spec.run.kafka.topic: this runner may not write to `{topic}`; add it to `runner.kafka.{cluster}.topics`"
            ));
        }
        let filled =
            |field: &str, text: &str| fill(text, facts).map_err(|message| format!("spec.run.kafka.{field}: {message}"));
        let mut headers = Vec::new();
        for (name, value) in &target.headers {
            headers.push((name.clone(), filled(&format!("headers.{name}"), value)?));
        }
        headers.extend(told(facts));
        let (key, value) = (filled("key", &target.key)?, filled("value", &target.value)?);
        Ok((self.outlet(cluster, known)?, OutletMessage { topic: topic.clone(), key, value, headers }))
    }

    /// What makes a topic one of ours, whatever cluster is named: a name does not say that it is not the log's own.
    fn why_own(&self, topic: &str) -> Option<String> {
        if !self.own_prefix.is_empty() {
            return topic.starts_with(&self.own_prefix).then(|| format!("`{}*`", self.own_prefix));
        }
        let is_of_queue = [RUN_READY_PREFIX, DLQ_PREFIX].iter().any(|beginning| topic.starts_with(beginning));
        let is_own = is_of_queue || topics::declaration().iter().any(|declared| declared.is_named(topic));
        is_own.then(|| "its `topics.prefix` is empty".to_owned())
    }

    fn outlet(&self, cluster: &str, known: &KafkaTargetConfig) -> Result<Outlet, String> {
        let mut outlets = self.outlets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(outlet) = outlets.get(cluster) {
            return Ok(outlet.clone());
        }
        let opened = Outlet::connect(&known.properties);
        let outlet = opened.map_err(|error| format!("the runner's setting `runner.kafka.{cluster}.*`: {error}"))?;
        outlets.insert(cluster.to_owned(), outlet.clone());
        Ok(outlet)
    }
}

fn is_allowed(allowed: &str, topic: &str) -> bool {
    allowed.strip_suffix('*').map_or_else(|| allowed == topic, |beginning| topic.starts_with(beginning))
}

/// Sends the message and waits until the cluster has it. `on_started` is called before it is sent; `abort` gives the wait
/// up, not the message.
pub(crate) async fn execute(
    clusters: &Clusters,
    (target, facts): (&KafkaTarget, &AttemptFacts),
    timeout: Duration,
    abort: impl Future<Output = Abort>,
    on_started: impl FnOnce(),
    sink: &mut impl Sink,
) -> Outcome {
    let (outlet, message) = match clusters.prepare(target, facts) {
        Ok(prepared) => prepared,
        Err(problem) => return Outcome { is_final: true, ..Outcome::new(OutcomeKind::NotStarted, problem) },
    };
    on_started();
    let (answer, answered) = oneshot::channel();
    // Nobody listens any more once the attempt was given up.
    outlet.send(&message, Box::new(move |told| drop(answer.send(told))));
    tokio::select! {
        biased;
        abort = abort => Outcome::new(abort.kind, abort.reason),
        () = tokio::time::sleep(timeout) => Outcome::new(
            OutcomeKind::TimedOut,
            format!("given up: the cluster had not confirmed it after {timeout:?}; it may have it all the same"),
        ),
        told = answered => judged(&target.topic, told, sink),
    }
}

fn judged(
    topic: &str,
    told: Result<Result<SentTo, NotSent>, oneshot::error::RecvError>,
    sink: &mut impl Sink,
) -> Outcome {
    match told {
        Ok(Ok(SentTo { partition, offset })) => {
            sink.note(&format!("[orloj] sent to {topic}, partition {partition}, offset {offset}"));
            Outcome::new(OutcomeKind::Succeeded, format!("{topic}/{partition}@{offset}"))
        }
        Ok(Err(NotSent { reason, is_final })) => {
            Outcome { is_final, ..Outcome::new(OutcomeKind::Failed, format!("spec.run.kafka: {topic}: {reason}")) }
        }
        Err(_) => Outcome::new(OutcomeKind::Failed, "the client ended before it had an answer".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use orloj_domain::id::QueueName;

    use super::super::template::example;
    use super::*;

    fn target(cluster: &str, topic: &str) -> KafkaTarget {
        KafkaTarget {
            cluster: cluster.to_owned(),
            topic: topic.to_owned(),
            key: "{{params.tenant-id}}".to_owned(),
            value: "{\"run\": \"{{run.id}}\"}".to_owned(),
            headers: BTreeMap::from([("kind".to_owned(), "due".to_owned())]),
        }
    }

    fn clusters() -> Clusters {
        clusters_of(&["orders", "invoices.*", "orloj.mine"], "orloj.")
    }

    fn clusters_of(allowed: &[&str], own_prefix: &str) -> Clusters {
        let topics = allowed.iter().map(|topic| (*topic).to_owned()).collect();
        let known = KafkaTargetConfig { topics, properties: BTreeMap::new() };
        Clusters::new(BTreeMap::from([("default".to_owned(), known)]), own_prefix.to_owned())
    }

    #[test]
    fn only_what_is_allowed_is_sent() {
        for (cluster, topic, words) in [
            ("other", "orders", ["spec.run.kafka.cluster", "runner.kafka.other.topics"]),
            ("default", "orders2", ["spec.run.kafka.topic", "runner.kafka.default.topics"]),
            ("default", "invoices", ["spec.run.kafka.topic", "runner.kafka.default.topics"]),
            ("default", "orloj.mine", ["spec.run.kafka.topic", "Orloj's own"]),
        ] {
            let refused = clusters().prepare(&target(cluster, topic), &example()).err().unwrap_or_default();
            for word in words {
                assert!(refused.contains(word), "{cluster} {topic}: {refused}");
            }
        }
    }

    #[test]
    fn without_a_prefix_our_own_are_known_by_their_names() {
        let clusters = clusters_of(&["*"], "");
        let refused = |topic: &str| clusters.prepare(&target("default", topic), &example()).err();
        let declared = topics::declared(1, 1, &[QueueName::default()]).into_iter().map(|spec| spec.name);
        for topic in declared.chain([format!("{RUN_READY_PREFIX}No Queue"), DLQ_PREFIX.to_owned()]) {
            let refused = refused(&topic).unwrap_or_default();
            assert!(refused.contains("Orloj's own") && refused.contains("`topics.prefix`"), "{topic}: {refused}");
        }
        for topic in ["orders", "fires.mine", "my.fires", "orloj.fires", "run.ready", "dlq"] {
            // No client is made for these: what librdkafka opens, programs of other tests would inherit.
            assert_eq!(clusters.why_own(topic), None, "{topic}");
        }
    }

    #[test]
    fn a_message_says_which_attempt_it_is_of() {
        let (_, message) = clusters().prepare(&target("default", "invoices.due"), &example()).expect("allowed");
        assert_eq!((message.topic.as_str(), message.key.as_str()), ("invoices.due", "42"));
        assert!(message.value.contains("ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09"), "{}", message.value);
        let header = |name: &str| message.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(header("kind"), Some("due"));
        assert_eq!(header("Idempotency-Key"), Some("ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09/2"));
        assert_eq!(header("Orloj-Fencing-Token"), Some("7"));
    }
}
