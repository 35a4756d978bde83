//! Short pauses that a shutdown ends. Not here: waiting for records, which the reader does. Invariant: once
//! shutdown was asked, no pause takes any time.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use orloj_runtime::log::Waker;
use orloj_runtime::shutdown::Shutdown;

/// Pauses a thread.
pub(super) struct Pauser(Arc<(Mutex<bool>, Condvar)>);

impl Pauser {
    /// A pauser that `shutdown` ends.
    pub(super) fn new(shutdown: &Shutdown) -> Self {
        let shared = Arc::new((Mutex::new(false), Condvar::new()));
        let waking = Arc::clone(&shared);
        shutdown.on_request(Waker::new(move || {
            *waking.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
            waking.1.notify_all();
        }));
        Self(shared)
    }

    /// Waits for `time` or for the shutdown.
    pub(super) fn pause(&self, time: Duration) {
        let (is_over, bell) = &*self.0;
        let guard = is_over.lock().unwrap_or_else(PoisonError::into_inner);
        // A time-out and a shutdown mean the same here: go on.
        drop(bell.wait_timeout_while(guard, time, |is_over| !*is_over));
    }
}
