//! How an attempt is executed: plan, spawn, watch, end. Not here: claims, leases, the log. Invariant: how an
//! attempt ended is data; nothing here fails.

pub(crate) mod callback;
pub(crate) mod cgroup;
pub(crate) mod egress;
pub(crate) mod environment;
pub(crate) mod handler;
pub(crate) mod http;
pub(crate) mod kafka;
pub(crate) mod limits;
pub(crate) mod pipes;
pub(crate) mod plan;
pub(crate) mod process;
pub(crate) mod progress;
pub(crate) mod spawner;
pub(crate) mod template;
pub(crate) mod tree;

#[cfg(test)]
mod tests;
