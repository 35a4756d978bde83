//! How a waiting call is woken: one signal per reader, owner or claimer. Not here: what it waits for.
//! Invariant: a change or a wake that comes between looking and waiting is not lost, and nobody polls.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{Clock, SystemClock};
use crate::log::Waker;

#[derive(Debug, Default)]
struct Flags {
    has_changed: bool,
    is_woken: bool,
}

/// Two flags and those who wait for them.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    flags: Mutex<Flags>,
    raised: Condvar,
}

impl Signal {
    fn flags(&self) -> MutexGuard<'_, Flags> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that what the owner of this signal looks at has changed.
    pub(crate) fn notify(&self) {
        self.flags().has_changed = true;
        self.raised.notify_all();
    }

    /// Makes the waiting call, or the next one, return without waiting on.
    pub(crate) fn wake(&self) {
        self.flags().is_woken = true;
        self.raised.notify_all();
    }

    /// A waker for other threads.
    pub(crate) fn waker(self: &Arc<Self>) -> Waker {
        let signal = Arc::clone(self);
        Waker::new(move || signal.wake())
    }

    fn forget_changes(&self) {
        self.flags().has_changed = false;
    }

    fn take_wake(&self) -> bool {
        std::mem::take(&mut self.flags().is_woken)
    }

    fn wait(&self, at_most: Duration) {
        let flags = self.flags();
        drop(self.raised.wait_timeout_while(flags, at_most, |flags| !flags.has_changed && !flags.is_woken));
    }

    /// Calls `attempt` until it gives something, `timeout` is over or the waker was used (`None`). Between
    /// attempts it sleeps until a change, or as long as the attempt allows.
    ///
    /// # Errors
    /// What `attempt` fails with.
    pub(crate) fn until<T, E>(
        &self,
        timeout: Duration,
        mut attempt: impl FnMut() -> Result<Attempt<T>, E>,
    ) -> Result<Option<T>, E> {
        let waited = SystemClock::new();
        loop {
            self.forget_changes();
            let look_again = match attempt()? {
                Attempt::Done(outcome) => {
                    self.take_wake();
                    return Ok(Some(outcome));
                }
                Attempt::Wait { look_again } => look_again,
            };
            let left = timeout.saturating_sub(waited.monotonic());
            if left.is_zero() || self.take_wake() {
                return Ok(None);
            }
            self.wait(look_again.map_or(left, |at_most| left.min(at_most)));
        }
    }
}

/// Outcome of one look.
#[derive(Debug)]
pub(crate) enum Attempt<T> {
    /// There is something.
    Done(T),
    /// There is nothing; look again after this long though nothing was signalled.
    Wait {
        /// How long; for ever if absent.
        look_again: Option<Duration>,
    },
}
