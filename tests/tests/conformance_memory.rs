//! The conformance suite on the embedded log in memory. Its clock moves only when a case lets time pass.

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::time::Timestamp;
use orloj_runtime::clock::{Clock, ManualClock};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::log::{Log, TopicPartition};
use orloj_tests::conformance::{Backend, holder};

struct Memory {
    clock: ManualClock,
    log: EmbeddedLog,
}

impl Backend for Memory {
    fn fresh() -> Self {
        let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
        let log = EmbeddedLog::in_memory(Arc::new(clock.clone()));
        Self { clock, log }
    }

    fn log(&self) -> Arc<dyn Log> {
        Arc::new(self.log.clone())
    }

    fn other(&self) -> Arc<dyn Log> {
        self.log()
    }

    /// Memory outlives nothing; the same log goes on.
    fn reopen(&mut self) {}

    /// A process that dies drops all it has.
    fn kill_a_holder(&mut self) {
        drop(holder::hold(&self.log));
    }

    fn compact(&self, _partitions: &[TopicPartition]) {
        self.log.maintain(self.clock.now()).expect("maintained");
    }

    fn outlast_session(&self, alive: &mut dyn FnMut()) {
        for _ in 0..14 {
            self.clock.advance(Duration::from_millis(500));
            alive();
        }
    }

    fn tick(&self) {
        self.clock.advance(Duration::from_millis(1));
    }
}

orloj_tests::conformance!(Memory);
