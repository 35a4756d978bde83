//! Three real brokers that are one cluster: three copies of every partition, two of which must be written, and every
//! node a controller too. Not here: one node alone. Invariant: as for one broker, nothing outlives the test process.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::MetadataPartition;

use super::settings::{free_ports, member_settings, new_cluster_id};
use super::{Broker, Failure, START_ATTEMPTS_MAX};
use crate::wait;

/// Longest wait for an answer of the cluster.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// A running cluster.
pub struct Cluster {
    nodes: Vec<Broker>,
    bootstrap: String,
}

impl Cluster {
    /// Brokers of a cluster.
    pub const NODES: usize = 3;

    /// Starts a fresh cluster and returns when every broker knows every other.
    ///
    /// # Panics
    /// With what to install, or with the end of a broker's log.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with("")
    }

    /// As [`Cluster::start`], with these lines in each broker's settings; they win over others.
    ///
    /// # Panics
    /// As [`Cluster::start`].
    #[must_use]
    pub fn start_with(more: &str) -> Self {
        for _ in 0..START_ATTEMPTS_MAX {
            match Self::try_start(more) {
                Ok(cluster) => return cluster,
                Err(Failure::PortTaken) => continue,
                Err(Failure::Other(message)) => panic!("{message}"),
            }
        }
        panic!("no free ports for a Kafka cluster after {START_ATTEMPTS_MAX} attempts")
    }

    fn try_start(more: &str) -> Result<Self, Failure> {
        let ports: Vec<[u16; 2]> = (0..Self::NODES).map(|_| free_ports()).collect();
        let cluster = new_cluster_id();
        let mut nodes = Vec::with_capacity(Self::NODES);
        for (index, [port, _]) in ports.iter().enumerate() {
            let settings = |data: &std::path::Path| format!("{}{more}", member_settings(data, index, &ports));
            let mut node = Broker::prepare(*port, &cluster, Self::NODES, settings)?;
            // The settings name the voters.
            node.format(&[])?;
            nodes.push(node);
        }
        // None answers before two of them have found each other.
        let starts: Vec<u64> = nodes.iter_mut().map(Broker::launch_aside).collect::<Result<_, _>>()?;
        for (node, start) in nodes.iter_mut().zip(starts) {
            node.wait_for_answer(start)?;
        }
        let bootstrap = nodes.iter().map(Broker::bootstrap).collect::<Vec<_>>().join(",");
        Ok(Self { nodes, bootstrap })
    }

    /// The addresses for `bootstrap.servers`.
    #[must_use]
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Partitions of topics that this broker leads at the moment; topics by their whole names.
    ///
    /// # Panics
    /// If the cluster does not answer.
    #[must_use]
    pub fn led_by(&self, index: usize, topics: &[String]) -> BTreeSet<i32> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        let client: BaseConsumer = config.create().expect("valid settings");
        let leader = i32::try_from(index + 1).expect("a few nodes");
        let led = topics.iter().flat_map(|topic| {
            let metadata = client.fetch_metadata(Some(topic), ANSWER_MAX).expect("a cluster that answers");
            let partitions = metadata.topics()[0].partitions().iter();
            partitions.filter(|at| at.leader() == leader).map(MetadataPartition::id).collect::<Vec<_>>()
        });
        led.collect()
    }

    /// Whether this broker leads a partition of the topic, given by its whole name.
    #[must_use]
    pub fn leads(&self, index: usize, topic: &str) -> bool {
        !self.led_by(index, &[topic.to_owned()]).is_empty()
    }

    /// Waits until the rest of the cluster knows that nobody leads what this broker, which is gone, has led of these
    /// topics.
    ///
    /// # Panics
    /// If that does not happen in time.
    pub fn wait_for_its_partitions(&self, index: usize, topics: &[String]) {
        wait::until("partitions without a leader", ANSWER_MAX * 3, || {
            self.led_by(index, topics).is_empty().then_some(())
        });
    }

    /// One of the brokers, counted from 0.
    ///
    /// # Panics
    /// If there is none of this number.
    pub fn node(&mut self, index: usize) -> &mut Broker {
        &mut self.nodes[index]
    }
}
