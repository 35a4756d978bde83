//! A runner with two handlers: `noop` does nothing, so that a run costs what it costs beside its work, and `hold` never ends. Arguments: address, prefix, shards,
//! slots, folder. Invariant: apart from its handler it is the runner that ships.

use std::collections::BTreeMap;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use orloj_domain::id::RunnerId;
use orloj_domain::shard::ShardCount;
use orloj_runner::{Handler, Handlers, PayloadError, Prepared, RunnerConfig};
use orloj_runtime::clock::SystemClock;
use orloj_runtime::config::LogFormat;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::shutdown::Shutdown;
use orloj_runtime::telemetry;

struct Nothing;

impl Handler for Nothing {
    fn prepare(&self, _payload: &str) -> Result<Prepared, PayloadError> {
        Ok(Box::new(|_| Box::pin(async { Ok(None) })))
    }
}

struct Hold;

impl Handler for Hold {
    fn prepare(&self, _payload: &str) -> Result<Prepared, PayloadError> {
        Ok(Box::new(|_| Box::pin(std::future::pending())))
    }
}

fn main() {
    telemetry::init(LogFormat::Text, "info");
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGTERM);
    // Before there are other threads, which inherit it: the signal then comes to whoever waits for it.
    ends.thread_block().expect("a mask");
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [bootstrap, prefix, shards, slots, folder] = arguments.as_slice() else {
        panic!("arguments: address prefix shards slots folder");
    };
    let properties = BTreeMap::from([("bootstrap.servers".to_owned(), bootstrap.clone())]);
    let log = KafkaLog::connect(KafkaConfig { properties, prefix: prefix.clone() }).expect("valid settings");
    let shards = shards.parse().ok().and_then(ShardCount::new).expect("a number of shards");
    let runner = RunnerId::new(&format!("noop-{}", std::process::id())).expect("a valid id");
    let mut config = RunnerConfig::new(runner, shards, folder.into());
    config.slots = slots.parse().expect("a number of slots");
    // Nothing else is asked of it, and so it needs no other user.
    config.is_handlers_only = true;
    config.handlers = Handlers::default();
    config.handlers.add("noop", Arc::new(Nothing)).expect("a valid name");
    config.handlers.add("hold", Arc::new(Hold)).expect("a valid name");
    let shutdown = Shutdown::new();
    let asked = shutdown.clone();
    std::thread::spawn(move || {
        ends.wait().expect("a signal");
        asked.request();
    });
    orloj_runner::run(config, Arc::new(log), Arc::new(SystemClock::new()), shutdown).expect("a runner");
}
