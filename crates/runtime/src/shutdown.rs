//! Shutdown as an argument: one side asks, every loop sees it. Not here: signals (`cli`). Invariant: once
//! asked it stays asked, and whoever registered a waker is woken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::log::Waker;

#[derive(Default)]
struct Shared {
    is_requested: AtomicBool,
    wakers: Mutex<Vec<Waker>>,
}

/// Both ends of a shutdown; clones share it.
#[derive(Clone, Default)]
pub struct Shutdown(Arc<Shared>);

impl Shutdown {
    /// Nothing asked yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everyone to drain and end; repeating it changes nothing.
    pub fn request(&self) {
        self.0.is_requested.store(true, Ordering::SeqCst);
        for waker in self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            waker.wake();
        }
    }

    /// True once asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.is_requested.load(Ordering::SeqCst)
    }

    /// Wakes `waker` when asked, or at once if that was before.
    pub fn on_request(&self, waker: Waker) {
        let mut wakers = self.0.wakers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_requested() {
            waker.wake();
        }
        wakers.push(waker);
    }
}
