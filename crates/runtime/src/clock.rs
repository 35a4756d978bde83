//! Clocks as arguments. Not here: anything that decides by them. Invariant: the wall clock names instants,
//! the monotonic clock measures how long something took; neither is ever compared across processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use orloj_domain::time::Timestamp;

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock.
    fn now(&self) -> Timestamp;

    /// Time since some fixed point of this process, suspended or not; never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Duration,
}

impl SystemClock {
    /// Starts the monotonic clock at zero.
    #[must_use]
    pub fn new() -> Self {
        Self { started: since_boot() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clocks")]
    fn now(&self) -> Timestamp {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.started)
    }
}

/// Time since boot with the time that the machine was suspended: without it, every laptop that wakes up would
/// look as if its wall clock had jumped.
fn since_boot() -> Duration {
    // Every Linux since 2.6.39 has this clock; a zero would only mean that no time passes.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default()
}

/// A clock that moves only when told; clones share it.
#[derive(Debug, Clone)]
pub struct ManualClock {
    millis: Arc<AtomicI64>,
    /// How far the wall clock was moved alone.
    jumped: Arc<AtomicI64>,
    start: i64,
}

impl ManualClock {
    /// A clock that stands at `start`.
    #[must_use]
    pub fn new(start: Timestamp) -> Self {
        Self { millis: Arc::new(AtomicI64::new(start.millis())), jumped: Arc::default(), start: start.millis() }
    }

    /// The clock of another machine: it moves with this one, and its wall clock jumps alone. Not moved so far.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self { jumped: Arc::default(), ..self.clone() }
    }

    /// How far the wall clock was moved alone, in milliseconds.
    #[must_use]
    pub fn jumped(&self) -> i64 {
        self.jumped.load(Ordering::SeqCst)
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        let millis = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        self.millis.fetch_add(millis, Ordering::SeqCst);
    }

    /// Moves the wall clock alone, in milliseconds; backwards if negative.
    pub fn jump(&self, by_ms: i64) {
        self.jumped.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.millis.load(Ordering::SeqCst) + self.jumped.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        let millis = self.millis.load(Ordering::SeqCst) - self.start;
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_starts_at_zero_and_moves() {
        let clock = SystemClock::new();
        let first = clock.monotonic();
        assert!(first < Duration::from_secs(60), "{first:?}");
        // Ends because time passes; a clock that can't be read would stand still.
        while clock.monotonic() == first {
            std::hint::spin_loop();
        }
        assert!(clock.monotonic() > first);
    }

    #[test]
    fn a_manual_wall_clock_jumps_alone() {
        let clock = ManualClock::new(Timestamp::from_millis(1000));
        clock.advance(Duration::from_millis(5));
        clock.jump(-100);
        assert_eq!((clock.now(), clock.monotonic()), (Timestamp::from_millis(905), Duration::from_millis(5)));
        let other = clock.beside();
        clock.advance(Duration::from_millis(1));
        assert_eq!((other.now(), other.jumped()), (Timestamp::from_millis(1006), 0));
    }
}
