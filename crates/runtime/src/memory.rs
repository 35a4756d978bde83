//! Memory that the C libraries have freed. glibc keeps it for their next need, arena by arena: of a Kafka client that has read a
//! large topic once, that is tens of MiB for good. Not here: what Rust allocates, which has an allocator of its own in the
//! programs. Invariant: nothing that is in use is touched.
#![cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "no crate offers `malloc_trim` without"))]

use std::time::Duration;

/// How often it is given back. Each time took 0.2-0.4 ms of CPU beside a million jobs (`schedstat`).
const INTERVAL: Duration = Duration::from_secs(10);

/// Gives back to the system what the C libraries hold and do not use, now and then, as long as the process lives.
/// Does nothing where their allocator is not glibc's.
pub fn tend() {
    let tended = std::thread::Builder::new().name("memory".to_owned()).spawn(|| {
        loop {
            std::thread::park_timeout(INTERVAL);
            give_back();
        }
    });
    if let Err(error) = tended {
        tracing::warn!(%error, "no thread to give memory back: this process may hold more of it than it needs");
    }
}

#[cfg(target_env = "gnu")]
fn give_back() {
    // SAFETY: `malloc_trim(3)` takes a number, may be called from any thread at any time, and moves nothing.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
fn give_back() {}
