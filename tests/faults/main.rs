//! Triggers under fire on real Kafka: members that come and go, brokers that die. Every second of every job is read
//! back from `fires`. Not here: kills and freezes of two triggers (`e2e`), pauses at named points (`ownership_kafka`).
//! Invariant: nothing here asks a trigger what it did, and no figure is asserted, only printed.

mod attempts;

use std::collections::BTreeMap;
use std::time::Duration;

use orloj_domain::topic;
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::log::Reader;
use orloj_tests::broker::{Broker, Cluster, Kafka, kafka_mode};
use orloj_tests::fires::{Seen, reader};
use orloj_tests::installation::Installation;
use orloj_tests::process::Orloj;
use orloj_tests::{is_long, wait};

const EVERY_SECOND: &str = r#""schedule":{"every":"1s"},"run":{"exec":{"command":["/bin/true"]}}"#;

/// How much is done: the short form in `make test`, the long one by `make faults`.
struct Extent {
    jobs: usize,
    rounds: usize,
    storm: Duration,
}

fn extent() -> Extent {
    if is_long() {
        Extent { jobs: 2000, rounds: 5, storm: Duration::from_secs(60) }
    } else {
        Extent { jobs: 100, rounds: 1, storm: Duration::from_secs(8) }
    }
}

/// An installation with every-second jobs and the reader of their decisions.
struct Field {
    installation: Installation,
    fires: Box<dyn Reader>,
    seen: Seen,
    jobs: usize,
}

impl Field {
    fn new(bootstrap: &str, name: &str, jobs: usize) -> Self {
        let installation = Installation::on(bootstrap, name);
        let fires = reader(&installation.log, topic::FIRES);
        Self { installation, fires, seen: Seen::default(), jobs }
    }

    fn trigger(&self) -> Orloj {
        self.installation.serve("trigger", &[])
    }

    fn offer_jobs(&mut self) {
        for index in 0..self.jobs {
            self.installation.offer(&format!("tick-{index}"), EVERY_SECOND);
        }
        self.wait("at the start");
    }

    /// Waits until every job goes on, and prints how late the latest decision was.
    fn wait(&mut self, what: &str) {
        let latest = self.go_on(what).into_values().max().unwrap_or_default();
        eprintln!("{what}: the latest decision was {latest:?} late");
    }

    /// Waits until every job goes on; how late the latest decision of each shard was.
    fn go_on(&mut self, what: &str) -> BTreeMap<i32, Duration> {
        self.seen.wait_for_all(self.fires.as_mut(), self.jobs, what);
        self.seen.take_latest()
    }

    fn check(mut self) {
        self.seen.read(self.fires.as_mut());
        assert_eq!(self.seen.findings(), Vec::<String>::new());
        eprintln!("{} decisions: none twice, none missing", self.seen.count());
    }
}

#[test]
fn members_come_and_go() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let Extent { jobs, rounds, storm } = extent();
    let mut field = Field::new(Broker::shared().bootstrap(), "members", jobs);
    let mut members: Vec<Orloj> = (0..3).map(|_| field.trigger()).collect();
    field.offer_jobs();
    for round in 0..rounds {
        // A rolling restart: each leaves in order, and another comes in its place.
        for (index, member) in members.iter_mut().enumerate() {
            let newcomer = field.trigger();
            assert!(std::mem::replace(member, newcomer).stop().success());
            field.wait(&format!("round {round}: member {index} replaced"));
        }
    }
    // A storm: before one rebalance has settled, the next begins.
    let clock = SystemClock::new();
    let mut joined = 0;
    while clock.monotonic() < storm {
        let mut guest = field.trigger();
        // It has its share: what comes next takes that away again.
        guest.wait_for("phase=\"restore\"");
        field.seen.read(field.fires.as_mut());
        joined += 1;
        if joined % 2 == 0 {
            guest.kill();
        } else {
            assert!(guest.stop().success());
        }
    }
    field.wait(&format!("after a storm of {joined} guests"));
    for member in members {
        assert!(member.stop().success());
    }
    field.check();
}

#[test]
fn a_broker_stops_dies_and_freezes() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let Extent { jobs, rounds, .. } = extent();
    let mut broker = Broker::start();
    let mut field = Field::new(broker.bootstrap(), "broker", jobs);
    let members = [field.trigger(), field.trigger()];
    field.offer_jobs();
    for round in 0..rounds {
        broker.restart();
        field.wait(&format!("round {round}: the broker restarted"));
        broker.kill();
        broker.restart();
        field.wait(&format!("round {round}: the broker was killed and came back"));
        broker.pause();
        wait::while_it_lasts(Duration::from_secs(8));
        broker.resume();
        field.wait(&format!("round {round}: the broker froze for longer than a session"));
    }
    for member in members {
        assert!(member.stop().success());
    }
    field.check();
}

#[test]
fn one_of_three_brokers_dies() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let Extent { jobs, rounds, .. } = extent();
    let mut cluster = Cluster::start();
    let mut field = Field::new(cluster.bootstrap(), "cluster", jobs);
    let members = [field.trigger(), field.trigger()];
    field.offer_jobs();
    let written = [topic::FIRES, topic::TRIGGER_STATE].map(|name| format!("{}{name}", field.installation.prefix));
    for round in 0..rounds {
        for index in 0..Cluster::NODES {
            let hit = cluster.led_by(index, &written);
            cluster.node(index).kill();
            let what = format!("round {round}: broker {index} killed");
            let (led, elsewhere): (Vec<_>, Vec<_>) =
                field.go_on(&what).into_iter().partition(|(shard, _)| hit.contains(shard));
            let latest = |shards: &[(i32, Duration)]| shards.iter().map(|(_, late)| *late).max().unwrap_or_default();
            let (led, elsewhere) = (latest(&led), latest(&elsewhere));
            eprintln!("{what}: the latest decision was {led:?} late where it led, {elsewhere:?} elsewhere");
            cluster.node(index).restart();
            field.wait(&format!("round {round}: broker {index} back"));
        }
    }
    for member in members {
        assert!(member.stop().success());
    }
    field.check();
}
