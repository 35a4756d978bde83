//! How an attempt is executed: plan, spawn, watch, end. Not here: claims, leases, the log. Invariant: how an
//! attempt ended is data; nothing here fails.

pub mod environment;
pub mod plan;
pub mod process;
pub mod spawner;
pub mod template;
pub mod tree;

#[cfg(test)]
mod tests;
