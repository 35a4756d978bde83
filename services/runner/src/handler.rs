//! What a handler is to a runner: a service's own code, by name. Not here: how one is executed (`executor::handler`),
//! typed payloads (`orloj_client`). Invariant: what a handler says waits in bounded memory until it is passed on, and
//! what it says after its end goes nowhere.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orloj_domain::id::{IdError, check_label};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use crate::executor::template::AttemptFacts;

/// Most bytes of lines that wait to be passed on; as much as is kept of an attempt's output in all.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// A service's own code.
pub trait Handler: Send + Sync + 'static {
    /// Reads a payload, which is JSON. Nothing counts as started before it is read.
    ///
    /// # Errors
    /// What is wrong with the payload; no other attempt can mend it.
    fn prepare(&self, payload: &str) -> Result<Prepared, PayloadError>;
}

/// A handler with its payload, ready to be called once.
pub type Prepared = Box<dyn FnOnce(HandlerContext) -> HandlerFuture + Send>;

/// A handler at work. What it gives is for people: it becomes the message of the outcome, at most 1000 characters.
pub type HandlerFuture = Pin<Box<dyn Future<Output = Result<Option<String>, HandlerFailure>> + Send>>;

/// A payload that a handler can't use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError {
    /// Path below the payload, for example `tenant` or `lines[2].amount`; empty: the whole.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

/// Why a handler failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandlerFailure {
    /// For people; at most 1000 characters are kept.
    pub message: String,
    /// No other attempt can end otherwise.
    pub is_final: bool,
    /// Not before so long should the next attempt begin.
    pub retry_after: Option<Duration>,
}

/// What a handler is given beside its payload. Clones share it.
#[derive(Debug, Clone)]
pub struct HandlerContext {
    /// What the attempt is.
    pub facts: Arc<AttemptFacts>,
    /// Cancelled when the handler is to end: its time is up, somebody cancelled the run, the lease is lost, or the runner
    /// drains no longer. A little later it is dropped at its next `await`.
    pub cancellation: CancellationToken,
    pub(crate) voice: Arc<Voice>,
}

impl HandlerContext {
    /// Adds a line to the attempt's output. Never waits.
    pub fn print(&self, line: impl fmt::Display) {
        self.voice.print(format!("{line}\n"));
    }

    /// Says how far the handler is, in percent; more than 100 is 100. Reported at most once a second, and only when it
    /// has changed.
    pub fn progress(&self, percent: u8) {
        self.voice.progress(percent.min(100));
    }
}

/// The handlers of a runner, by name.
#[derive(Clone, Default)]
pub struct Handlers {
    by_name: BTreeMap<String, Arc<dyn Handler>>,
    runtime: Option<Handle>,
}

impl Handlers {
    /// Adds one. The name is what manifests call it: 1 to 63 lower-case letters, digits or `-`.
    ///
    /// # Errors
    /// When the name breaks that rule, or another handler has it.
    pub fn add(&mut self, name: &str, handler: Arc<dyn Handler>) -> Result<(), IdError> {
        check_label("handler", name)?;
        if self.by_name.insert(name.to_owned(), handler).is_some() {
            let rule = "another handler of this runner has it; give each a name of its own";
            return Err(IdError { what: "handler", value: name.to_owned(), rule });
        }
        Ok(())
    }

    /// Calls handlers on this executor; without it, on threads that the runner starts for them.
    pub fn call_on(&mut self, runtime: Handle) {
        self.runtime = Some(runtime);
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.by_name.keys().map(String::as_str)
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<dyn Handler>> {
        self.by_name.get(name).cloned()
    }

    pub(crate) fn runtime(&self) -> Option<Handle> {
        self.runtime.clone()
    }
}

impl fmt::Debug for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

/// What a handler has said and nobody has passed on.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) lines: VecDeque<String>,
    /// Bytes of lines that made room for later ones.
    pub(crate) left_out: usize,
    /// The last that was said of how far it is.
    pub(crate) percent: Option<u8>,
    bytes: usize,
    is_over: bool,
}

/// Between a handler and what passes on what it says.
#[derive(Debug, Default)]
pub(crate) struct Voice {
    said: Mutex<Said>,
    changed: Notify,
}

impl Voice {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn print(&self, line: String) {
        let mut said = self.lock();
        if said.is_over {
            return;
        }
        said.bytes += line.len();
        said.lines.push_back(line);
        // The last one stays, however long: it is in memory anyway, and what takes it keeps its two ends.
        while said.bytes > WAITING_BYTES_MAX && said.lines.len() > 1 {
            let first = said.lines.pop_front().map_or(0, |line| line.len());
            said.bytes -= first;
            said.left_out += first;
        }
        drop(said);
        self.changed.notify_one();
    }

    fn progress(&self, percent: u8) {
        let mut said = self.lock();
        if !said.is_over && said.percent != Some(percent) {
            said.percent = Some(percent);
            drop(said);
            self.changed.notify_one();
        }
    }

    /// Waits until something was said since the last wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What was said since the last time.
    pub(crate) fn take(&self) -> Said {
        let mut said = self.lock();
        let (percent, is_over) = (said.percent, said.is_over);
        std::mem::replace(&mut *said, Said { percent, is_over, ..Said::default() })
    }

    /// Hears nothing more.
    pub(crate) fn close(&self) {
        self.lock().is_over = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_nobody_passes_on_make_room() {
        let voice = Voice::default();
        let line = "x".repeat(1000);
        for _ in 0..5000 {
            voice.print(line.clone());
        }
        let said = voice.take();
        let kept: usize = said.lines.iter().map(String::len).sum();
        assert!(kept <= WAITING_BYTES_MAX && kept > WAITING_BYTES_MAX - 1000, "{kept}");
        assert_eq!(kept + said.left_out, 5_000_000);
        assert!(voice.take().lines.is_empty());
    }

    #[test]
    fn nothing_is_heard_after_the_end() {
        let voice = Voice::default();
        voice.progress(10);
        voice.close();
        voice.print("late".to_owned());
        voice.progress(20);
        let said = voice.take();
        assert_eq!((said.lines.len(), said.percent), (0, Some(10)));
    }

    #[test]
    fn names_are_checked_and_given_once() {
        struct Nothing;
        impl Handler for Nothing {
            fn prepare(&self, _: &str) -> Result<Prepared, PayloadError> {
                Ok(Box::new(|_| Box::pin(async { Ok(None) })))
            }
        }
        let mut handlers = Handlers::default();
        for (name, is_good) in [("send-invoices", true), ("b", true), ("Send", false), ("", false), ("b", false)] {
            assert_eq!(handlers.add(name, Arc::new(Nothing)).is_ok(), is_good, "{name}");
        }
        assert_eq!(handlers.names().collect::<Vec<_>>(), ["b", "send-invoices"]);
    }
}
