//! From SIGINT and SIGTERM to a shutdown. Not here: draining (each service). Invariant: the process ends. The
//! first signal drains, a second one ends it at once, and a watchdog ends it when draining takes too long; what
//! attempts have running ends with it.

use std::io;
use std::time::Duration;

use orloj_runtime::shutdown::Shutdown;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a process that its watchdog ended.
const STUCK: i32 = 1;
/// Exit code of a process that was told twice (128 + SIGINT, as shells count).
const TOLD_TWICE: i32 = 130;

/// Listens for signals on a thread of its own. `patience` is how long draining may take.
///
/// # Errors
/// When the machine gives no thread or no signal handler.
pub(crate) fn listen(shutdown: Shutdown, patience: Duration) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupts, mut terminations) = {
        let _guard = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut next = async || {
                tokio::select! {
                    _ = interrupts.recv() => "SIGINT",
                    _ = terminations.recv() => "SIGTERM",
                }
            };
            let first = next().await;
            tracing::info!(signal = first, "draining; a second signal ends at once");
            shutdown.request();
            match tokio::time::timeout(patience, next()).await {
                Ok(second) => {
                    tracing::warn!(signal = second, "ended without draining");
                    orloj_runner::kill_attempts();
                    std::process::exit(TOLD_TWICE);
                }
                Err(_) => {
                    tracing::error!(patience = ?patience, "draining took too long; ended");
                    orloj_runner::kill_attempts();
                    std::process::exit(STUCK);
                }
            }
        });
    })?;
    Ok(())
}
