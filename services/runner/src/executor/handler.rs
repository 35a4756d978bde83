//! A handler as an attempt: find it, call it as a task of its own, pass on what it says, end it. Not here: what a handler
//! is (`crate::handler`). Invariant: whatever a handler does, its attempt has one outcome; one that can't be stopped is
//! told of in the outcome's message and by an error in the log.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::id::RunnerId;
use orloj_domain::job::HandlerTarget;
use orloj_domain::runner::OutputStream;
use tokio::runtime::Handle;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::process::{Abort, GRACE, Sink};
use super::template::AttemptFacts;
use crate::handler::{HandlerContext, HandlerFailure, Handlers, Prepared, Voice};

/// How long a handler that is being dropped may take to come to an `await`.
const DROP_MAX: Duration = Duration::from_secs(1);
/// Most names in a message.
const NAMES_MAX: usize = 10;

/// How a handler ended, if it did not panic.
type End = Result<Option<String>, HandlerFailure>;

enum Stop {
    Ended(Result<End, JoinError>),
    TimedOut,
    Aborted(Abort),
}

/// Finds the handler of a target and lets it read the payload.
///
/// # Errors
/// The outcome of an attempt that can't start.
pub(crate) fn prepare(handlers: &Handlers, runner: &RunnerId, target: &HandlerTarget) -> Result<Prepared, Outcome> {
    let Some(handler) = handlers.find(&target.name) else {
        // While a service is rolled out, another runner may have it: the dispatcher lets the run wait.
        return Err(Outcome::new(OutcomeKind::NoHandler, unknown(handlers, runner, &target.name)));
    };
    let refused = |field: &str, message: &str| {
        let dot = if field.is_empty() || field.starts_with('[') { "" } else { "." };
        let problem = format!("spec.run.handler.payload{dot}{field}: handler `{}`: {message}", target.name);
        Err(Outcome { is_final: true, ..Outcome::new(OutcomeKind::NotStarted, problem) })
    };
    // It runs the service's own code, which must not take this runner's task along.
    match catch_unwind(AssertUnwindSafe(|| handler.prepare(&target.payload))) {
        Ok(Ok(prepared)) => Ok(prepared),
        Ok(Err(error)) => refused(&error.field, &error.message),
        Err(panic) => refused("", &format!("panicked while it read the payload: {}", text_of(&*panic))),
    }
}

fn unknown(handlers: &Handlers, runner: &RunnerId, name: &str) -> String {
    let names: Vec<String> = handlers.names().take(NAMES_MAX).map(|name| format!("`{name}`")).collect();
    let more = handlers.names().count() - names.len();
    let has = match (names.is_empty(), more) {
        (true, _) => "it has none".to_owned(),
        (false, 0) => format!("it has {}", names.join(", ")),
        (false, more) => format!("it has {} and {more} more", names.join(", ")),
    };
    format!(
        "spec.run.handler.name: runner `{runner}` has no handler `{}`; {has}: correct the name, or set `spec.queue` to \
         a queue whose runners have this handler",
        name.escape_debug()
    )
}

/// Calls a handler and waits for its end. `on_started` is called before it; `abort` stops it.
pub(crate) async fn execute(
    (runtime, prepared, facts): (&Handle, Prepared, AttemptFacts),
    timeout: Duration,
    abort: impl Future<Output = Abort>,
    on_started: impl FnOnce(),
    sink: &mut impl Sink,
) -> Outcome {
    let voice = Arc::new(Voice::default());
    let cancellation = CancellationToken::new();
    let context =
        HandlerContext { facts: Arc::new(facts), cancellation: cancellation.clone(), voice: Arc::clone(&voice) };
    let run = context.facts.run_id;
    on_started();
    // Called inside of the task: a panic before the first `await` is one of the handler's too.
    let mut task = runtime.spawn(async move { prepared(context).await });
    let mut ear = Ear { voice: &voice, sink };
    let first = async {
        tokio::select! {
            biased;
            end = &mut task => Stop::Ended(end),
            abort = abort => Stop::Aborted(abort),
            () = tokio::time::sleep(timeout) => Stop::TimedOut,
        }
    };
    let outcome = match ear.listen(first).await {
        Stop::Ended(end) => outcome_of(end),
        Stop::TimedOut => {
            let text = format!("stopped: it ran longer than its timeout of {timeout:?}");
            let is_gone = ear.listen(end(&mut task, &cancellation, GRACE)).await;
            stopped(OutcomeKind::TimedOut, text, is_gone)
        }
        Stop::Aborted(abort) => {
            let is_gone = ear.listen(end(&mut task, &cancellation, abort.grace)).await;
            stopped(abort.kind, abort.reason, is_gone)
        }
    };
    voice.close();
    ear.hear();
    // For what the handler has left running with a copy of its context.
    cancellation.cancel();
    if !task.is_finished() {
        tracing::error!(%run, "a handler could not be stopped: it does not await; its code runs on in this process");
    }
    outcome
}

/// Asks a handler to end, and drops it at its next `await` when `grace` is over. True once it is gone.
async fn end(task: &mut JoinHandle<End>, cancellation: &CancellationToken, grace: Duration) -> bool {
    cancellation.cancel();
    if tokio::time::timeout(grace, &mut *task).await.is_ok() {
        return true;
    }
    task.abort();
    tokio::time::timeout(DROP_MAX, &mut *task).await.is_ok()
}

fn stopped(kind: OutcomeKind, reason: String, is_gone: bool) -> Outcome {
    if is_gone {
        return Outcome::new(kind, reason);
    }
    // First: the reason may be long, and this must not be what is cut off.
    Outcome::new(
        kind,
        format!("the handler does not await, so that its code still runs in the service's process: {reason}"),
    )
}

fn outcome_of(end: Result<End, JoinError>) -> Outcome {
    match end {
        Ok(Ok(message)) => Outcome::new(OutcomeKind::Succeeded, message.unwrap_or_default()),
        Ok(Err(failure)) => Outcome {
            is_final: failure.is_final,
            retry_after_ms: failure.retry_after.map(|wait| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)),
            ..Outcome::new(OutcomeKind::Failed, failure.message)
        },
        Err(error) => match error.try_into_panic() {
            Ok(panic) => Outcome::new(OutcomeKind::Failed, format!("the handler panicked: {}", text_of(&*panic))),
            Err(_) => Outcome::new(OutcomeKind::Aborted, "the executor that the handler was called on has ended"),
        },
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("it gave no text")
}

/// Passes on what a handler says.
struct Ear<'a, S> {
    voice: &'a Voice,
    sink: &'a mut S,
}

impl<S: Sink> Ear<'_, S> {
    async fn listen<T>(&mut self, until: impl Future<Output = T>) -> T {
        let mut until = pin!(until);
        loop {
            let flush_at = self.sink.flush_at();
            tokio::select! {
                biased;
                done = &mut until => return done,
                () = at(flush_at) => self.sink.flush(),
                () = self.voice.changed() => self.hear(),
            }
        }
    }

    /// Takes the lines, and how far the handler says it is.
    fn hear(&mut self) {
        let said = self.voice.take();
        if said.left_out > 0 {
            self.sink.note(&format!("[orloj] {} bytes were printed too fast and left out here", said.left_out));
        }
        for line in &said.lines {
            self.sink.push(OutputStream::Stdout, line.as_bytes());
        }
        if let Some(percent) = said.percent {
            self.sink.progress(percent.into());
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}
