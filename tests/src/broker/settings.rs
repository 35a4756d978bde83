//! What a test broker is told: its settings, its ports and its cluster id.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// The content of `server.properties` of one node of several; each is given by its port and its controller's port.
pub(super) fn member_settings(data: &Path, node: usize, nodes: &[[u16; 2]]) -> String {
    let [port, controller_port] = nodes[node];
    let voter = |(index, [_, port]): (usize, &[u16; 2])| format!("{}@127.0.0.1:{port}", index + 1);
    let voters: Vec<String> = nodes.iter().enumerate().map(voter).collect();
    // Later lines win: `COPIES` sets to three what `COMMON` has one of.
    format!(
        "process.roles=broker,controller\n\
         node.id={id}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         controller.listener.names=CONTROLLER\n\
         controller.quorum.voters={voters}\n\
         log.dirs={data}\n\
         {quick}{COPIES}",
        id = node + 1,
        voters = voters.join(","),
        data = data.display(),
        quick = Manner::Hasty.settings()
    )
}

/// Three copies of everything, two of which must be written.
const COPIES: &str = "\
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
";

/// The content of `server.properties` of the one node of a cluster.
pub(super) fn settings(data: &Path, port: u16, controller_port: u16, manner: Manner) -> String {
    format!(
        "process.roles=broker,controller\n\
         node.id=1\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}\n\
         controller.listener.names=CONTROLLER\n\
         controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}\n\
         log.dirs={data}\n\
         {}",
        manner.settings(),
        data = data.display()
    )
}

/// What all brokers have in common: nothing that needs a second node, small tables, no wait for more members of a group.
const COMMON: &str = "\
auto.create.topics.enable=false
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
min.insync.replicas=1
group.initial.rebalance.delay.ms=0
";

/// What makes a broker of a test do at once what it does every few seconds or minutes otherwise: a few threads that are never
/// idle for long. A killed broker is let in again only when the session of its former life has run out, hence the short one.
const HASTE: &str = "\
group.min.session.timeout.ms=1000
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
log.initial.task.delay.ms=0
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=1000
log.cleaner.backoff.ms=100
log.cleaner.min.cleanable.ratio=0.01
log.cleaner.dedupe.buffer.size=16777216
num.network.threads=2
num.io.threads=4
background.threads=4
group.coordinator.threads=2
broker.heartbeat.interval.ms=300
broker.session.timeout.ms=3000
";

/// How a broker is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// For tests: small, quick to start, and hasty in all that it does from time to time.
    Hasty,
    /// For figures: the memory, the collector and the intervals that Kafka's own start script and settings have.
    Stock,
}

impl Manner {
    /// Lines that follow those of a broker's place in its cluster.
    fn settings(self) -> String {
        match self {
            Self::Hasty => format!("{COMMON}{HASTE}"),
            Self::Stock => COMMON.to_owned(),
        }
    }

    /// Options of the Java machine of a server; for [`Manner::Stock`] those of `bin/kafka-run-class.sh` and
    /// `bin/kafka-server-start.sh` of Kafka 4.3.
    pub(super) fn java_options(self) -> &'static [&'static str] {
        match self {
            Self::Hasty => &["-XX:+UseSerialGC", "-Xmx512m"],
            Self::Stock => &[
                "-Xmx1G",
                "-Xms1G",
                "-server",
                "-XX:+UseG1GC",
                "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35",
                "-XX:+ExplicitGCInvokesConcurrent",
            ],
        }
    }
}

/// Two ports that nobody listens on, below the range from which outgoing connections get theirs: a client that keeps trying
/// to reach a stopped broker must not happen to own the broker's port. They may be lost until the broker binds them.
pub(super) fn free_ports() -> [u16; 2] {
    const FIRST: u32 = 20_000;
    const COUNT: u32 = 12_000;
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let offset = process::id().wrapping_mul(101).wrapping_add(CALLS.fetch_add(1, Ordering::Relaxed) * 16);
    let mut free = (0..COUNT)
        .filter_map(|step| u16::try_from(FIRST + offset.wrapping_add(step) % COUNT).ok())
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    [(); 2].map(|()| free.next().expect("twelve thousand ports are not all in use"))
}

/// Kafka takes 16 bytes in base64 for an id; these hexadecimal digits are such, and `A` ends them on a whole byte.
pub(super) fn new_cluster_id() -> String {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}A", &random[..21])
}
