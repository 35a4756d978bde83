//! The real binary from end to end: killed and restarted on the embedded log, on real Kafka with several
//! instances, from Python, and with bad input. Not here: the pieces alone. Invariant: what holds is read back
//! from the log or the API, never asked of the process that did it.

mod backfill;
mod bad_input;
mod breakers;
mod calendars;
mod callbacks;
mod clock;
mod compose;
mod dev;
mod drains;
mod handlers;
mod hedge;
mod kafka;
mod kafka_target;
mod limits;
mod python;
mod runs;
mod selectors;
mod user;
