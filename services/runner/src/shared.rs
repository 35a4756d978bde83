//! What all parts of one runner use. Not here: what changes while it runs (`board`). Invariant: set once at
//! the start.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::id::{QueueName, RunnerId};
use orloj_domain::shard::ShardCount;
use orloj_runtime::log::Log;

use crate::board::Board;
use crate::executor::environment::Environment;
use crate::executor::http::Http;
use crate::executor::kafka::Clusters;
use crate::executor::process::Host;
use crate::handler::Handlers;
use crate::offers::Offers;
use crate::paused::Paused;
use crate::reporter::Reporter;

/// What all parts of one runner use.
pub(crate) struct Shared {
    pub(crate) runner: RunnerId,
    pub(crate) lease: Duration,
    pub(crate) shards: ShardCount,
    pub(crate) quarantine_partitions: i32,
    pub(crate) work_dir: PathBuf,
    pub(crate) inherited: Environment,
    pub(crate) board: Arc<Board>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) paused: Paused,
    /// In the order of their threads.
    pub(crate) queues: Vec<QueueName>,
    /// What the dispatcher has offered to this runner alone.
    pub(crate) offers: Offers,
    pub(crate) reporter: Reporter,
    pub(crate) host: Host,
    /// Host name and process id.
    pub(crate) host_name: String,
    pub(crate) http: Http,
    pub(crate) clusters: Clusters,
    pub(crate) handlers: Handlers,
    /// Where handlers are called.
    pub(crate) handler_runtime: tokio::runtime::Handle,
    pub(crate) is_handlers_only: bool,
    pub(crate) executor: tokio::runtime::Handle,
}
