//! (skeleton)

pub mod broker;
pub mod wait;
