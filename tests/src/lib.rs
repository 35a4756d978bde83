//! What the tests of the whole share: a real Kafka broker, waiting for conditions, and the conformance cases of
//! the log. Not here: tests themselves (`tests/`, `simulation/`, `tidy/`). Invariant: what a test starts is gone
//! when the test is, even if it was killed.

pub mod broker;
pub mod conformance;
pub mod fires;
pub mod installation;
pub mod process;
pub mod wait;

/// True under `ORLOJ_TEST_LONG=on` (`make faults`): more jobs, rounds and time than `make test` has.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the switch between the short and the long form")]
pub fn is_long() -> bool {
    std::env::var("ORLOJ_TEST_LONG").as_deref() == Ok("on")
}
