//! An installation in this process, for a first look: a log in memory, trigger and dispatcher as threads. Not for a
//! service: what is here is forgotten with the process.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use orloj_client::Log;
use orloj_dispatcher::DispatcherConfig;
use orloj_domain::id::QueueName;
use orloj_domain::shard::ShardCount;
use orloj_runtime::clock::SystemClock;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use orloj_runtime::topics;
use orloj_trigger::TriggerConfig;

const SHARDS: i32 = 4;
const CLOCK_JUMP_MAX: Duration = Duration::from_secs(3600);

/// Starts it; it ends with the process.
pub(crate) fn start() -> Result<Arc<dyn Log>, Box<dyn Error>> {
    let clock = Arc::new(SystemClock::new());
    let log = Arc::new(EmbeddedLog::in_memory(clock.clone()));
    for spec in topics::declared(SHARDS, 1, &[QueueName::new("billing")?]) {
        log.create_topic(&spec)?;
    }
    let shards = ShardCount::new(SHARDS).ok_or("the number of shards is out of range")?;
    let (trigger_log, trigger_clock) = (log.clone(), clock.clone());
    std::thread::Builder::new().name("trigger".to_owned()).spawn(move || {
        let config = TriggerConfig { shards, tzdb: None, clock_jump_max: CLOCK_JUMP_MAX, snapshots: None };
        let (health, metrics, shutdown) = (Health::new(), Metrics::new(), Shutdown::new());
        if let Err(error) = orloj_trigger::run(config, trigger_log, trigger_clock, &health, &metrics, &shutdown) {
            eprintln!("the trigger ended: {error}");
        }
    })?;
    let dispatcher_log = log.clone();
    std::thread::Builder::new().name("dispatcher".to_owned()).spawn(move || {
        let config = DispatcherConfig { shards, lease: Duration::from_secs(15), clock_jump_max: CLOCK_JUMP_MAX };
        let (health, metrics, shutdown) = (Health::new(), Metrics::new(), Shutdown::new());
        if let Err(error) = orloj_dispatcher::run(config, dispatcher_log, clock, &health, &metrics, &shutdown) {
            eprintln!("the dispatcher ended: {error}");
        }
    })?;
    Ok(log)
}
