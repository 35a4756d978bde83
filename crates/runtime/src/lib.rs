//! The shell around the pure core: the log with its two back ends, the codec of its records, the loop that
//! drives a service's machines, clock, configuration, telemetry, shutdown. The only crate that knows Kafka.
//! Invariant: an effect happens after the batch that explains it was committed; in doubt memory is dropped.

pub mod claimers;
pub mod clock;
pub mod codec;
pub mod config;
pub mod driver;
pub mod embedded;
pub mod health;
pub mod host;
pub mod kafka;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod pause;
pub mod shutdown;
pub mod telemetry;
pub mod topics;
