//! The words and decisions of Orloj, pure: ids, job definitions, schedules, policies, and the records that
//! services write to the log. What is deliberately absent: async, Kafka, SQL, clocks, randomness and logging.
//! Time is an argument, ids and jitter are hashes of stable ids, so a replay decides what was decided live.

pub mod attempt;
pub mod backfill;
pub mod calendar;
pub mod callback;
pub mod command;
mod complaints;
pub mod fire;
pub mod fleet;
pub mod hedge;
pub mod http_status;
pub mod id;
pub mod job;
pub mod job_event;
pub mod lease;
pub mod limit;
pub mod manifest;
pub mod misfire;
pub mod overlap;
pub mod owner;
pub mod retry;
pub mod run;
pub mod runner;
pub mod schedule;
pub mod setting;
pub mod shard;
pub mod time;
pub mod topic;
pub mod trigger_state;
