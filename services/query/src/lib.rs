//! The query service: folds the log into a disposable SQLite file and answers over HTTP. Not here: decisions; it
//! writes nothing but job records and commands. Invariant: lose the file and it is rebuilt from the log, equal.

mod appends;
mod backfill;
mod explain;
mod follower;
mod http;
mod metrics;
pub mod preview;
mod progress;
mod projections;
mod service;
mod store;
mod views;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use orloj_domain::id::QueueName;
use orloj_domain::shard::ShardCount;
use serde::Serialize;

pub use service::{Listener, bind, run, run_on, serve_operations, serve_operations_on};

/// What a query service is told.
#[derive(Debug, Clone)]
pub struct QueryConfig {
    /// How many shards the installation has.
    pub shards: ShardCount,
    /// Queues that are shown even while nothing is known about them.
    pub queues: Vec<QueueName>,
    /// Where `query.sqlite` is kept.
    pub data_dir: PathBuf,
    /// Address of the API.
    pub listen: SocketAddr,
    /// Listen off loopback although nothing asks who is calling.
    pub is_insecure_allowed: bool,
    /// What `/version` says.
    pub version: VersionInfo,
}

/// What a process is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct VersionInfo {
    /// Of the program.
    pub version: String,
    /// Of its source, if it was built from a repository.
    pub commit: Option<String>,
    /// Of the time zone database in use.
    pub tzdb: Option<String>,
}

/// Why the service ended, or never began; each needs a person.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The address is off loopback, and nothing asks who is calling.
    #[error(
        "`listen = {0}` is reachable from other machines, and this version does not ask who is calling: \
         listen on 127.0.0.1 and put a proxy that does in front, or pass --insecure"
    )]
    Exposed(SocketAddr),
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}; choose another with `listen` or --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The projection or the log's topics need a person.
    #[error("query: {0}")]
    Projection(String),
    /// A thread or the HTTP server failed.
    #[error("query: {0}")]
    Io(#[from] std::io::Error),
}

/// A hash over all that a projection holds, to compare it with one that was rebuilt.
///
/// # Errors
/// When there is no readable projection in `data_dir`.
pub fn projection_digest(data_dir: &Path) -> Result<String, QueryError> {
    store::digest(&data_dir.join(store::FILE)).map_err(|error| QueryError::Projection(error.to_string()))
}
