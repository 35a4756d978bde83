//! Handlers as attempts: what they are given, how each of their ends is told, and what happens to those that do not end.

use std::panic::panic_any;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use orloj_domain::attempt::{AttemptEventType, Outcome, OutcomeKind, ReadyAttempt};
use orloj_domain::fire::FireDecision;
use orloj_domain::job::{HandlerTarget, Target};
use orloj_domain::runner::{OutputStream, RunnerMessageType};
use orloj_domain::time::Timestamp;
use orloj_runner::{
    Handler, HandlerContext, HandlerFailure, HandlerFuture, Handlers, PayloadError, Prepared, RunnerConfig,
};
use orloj_runtime::clock::ManualClock;
use orloj_runtime::codec;

use crate::support::{Bed, ready, record, shell, text_of};
use crate::words::word;

/// A handler that does what a function says.
struct Does<F>(F);

impl<F: Fn(HandlerContext, String) -> HandlerFuture + Clone + Send + Sync + 'static> Handler for Does<F> {
    fn prepare(&self, payload: &str) -> Result<Prepared, PayloadError> {
        assert_ne!(payload, "\"a defect\"", "a payload that its reader does not survive");
        if payload == "{}" {
            return Err(PayloadError { field: "tenant".to_owned(), message: "is missing".to_owned() });
        }
        let (function, payload) = (self.0.clone(), payload.to_owned());
        Ok(Box::new(move |context| function(context, payload)))
    }
}

fn with<F>(config: &mut RunnerConfig, name: &str, function: F)
where
    F: Fn(HandlerContext, String) -> HandlerFuture + Clone + Send + Sync + 'static,
{
    config.handlers.add(name, Arc::new(Does(function))).expect("a good name");
}

fn attempt(job: &str, handler: &str, payload: &str) -> ReadyAttempt {
    let target = HandlerTarget { name: handler.to_owned(), payload: payload.to_owned() };
    ready(job, Target::HandlerTarget(target))
}

/// The same attempt with so much time.
fn within(timeout_ms: i64, mut attempt: ReadyAttempt) -> ReadyAttempt {
    let mut decision: FireDecision = codec::decode(&attempt.request).expect("a request");
    let mut spec = decision.spec.as_deref().expect("a specification").clone();
    spec.timeout_ms = timeout_ms;
    decision.spec = Some(spec.into());
    attempt.request = codec::encode(&decision);
    attempt
}

fn outcome(bed: &Bed, attempt: &ReadyAttempt) -> Outcome {
    bed.append(record(attempt));
    bed.outcome(attempt.run_id)
}

fn message(outcome: &Outcome) -> &str {
    outcome.message.as_deref().unwrap_or_default()
}

fn stdout(bed: &Bed, attempt: &ReadyAttempt) -> String {
    text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout)
}

#[test]
fn a_handler_is_told_of_its_attempt_and_heard() {
    let bed = Bed::start(|config| {
        with(config, "tell", |context, payload| {
            Box::pin(async move {
                let facts = Arc::clone(&context.facts);
                context.print(format_args!("{} {} {}", facts.job, facts.attempt, facts.token));
                context.progress(40);
                context.print(payload);
                context.progress(250);
                Ok(Some("all of it".to_owned()))
            })
        });
    });
    let attempt = attempt("told", "tell", "{\"tenant\": 7}");
    let outcome = outcome(&bed, &attempt);
    assert_eq!((outcome.kind, message(&outcome)), (OutcomeKind::Succeeded, "all of it"));
    assert_eq!(stdout(&bed, &attempt), "test/told 1 5\n{\"tenant\": 7}\n");
    let events = bed.events(attempt.run_id);
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!((kinds[0], kinds.last()), (AttemptEventType::Claimed, Some(&AttemptEventType::Finished)));
    let (claimed, finished) = (&events[0], &events[events.len() - 1]);
    assert!(finished.started_at.is_some_and(|at| (claimed.at..=finished.at).contains(&at)), "{finished:?}");
    let told: Vec<_> = events.iter().filter(|event| event.kind == AttemptEventType::Progress).collect();
    assert_eq!(told.last().and_then(|event| event.percent), Some(100), "the last that was said is told");
    assert!(told.len() <= 2 && told.iter().all(|event| event.token == 5), "{told:?}");
    assert!(bed.outputs(attempt.run_id).last().is_some_and(|output| output.is_last));
}

#[test]
fn progress_and_output_are_there_while_it_runs() {
    let go = Arc::new(tokio::sync::Notify::new());
    let gate = Arc::clone(&go);
    let bed = Bed::start(|config| {
        with(config, "slow", move |context, _| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                for percent in 0..=30 {
                    context.progress(percent);
                }
                context.print("early");
                gate.notified().await;
                context.progress(30);
                Ok(None)
            })
        });
    });
    let attempt = attempt("live", "slow", "null");
    bed.append(record(&attempt));
    let reported = bed.wait_for("30 percent", || {
        let events = bed.events(attempt.run_id);
        let percents: Vec<_> = events.iter().filter_map(|event| event.percent).collect();
        (percents.last() == Some(&30)).then_some(percents)
    });
    assert!(reported.len() <= 2, "{reported:?}");
    bed.wait_for("early output", || (stdout(&bed, &attempt) == "early\n").then_some(()));
    assert!(bed.events(attempt.run_id).iter().all(|event| event.kind != AttemptEventType::Finished));
    go.notify_one();
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    let percents = bed.events(attempt.run_id).iter().filter(|event| event.percent.is_some()).count();
    assert_eq!(percents, reported.len(), "what has not changed is not told again");
}

#[test]
fn progress_is_told_once_a_second_and_at_the_end() {
    let go = Arc::new(tokio::sync::Notify::new());
    let gate = Arc::clone(&go);
    let bed = Bed::start(|config| {
        with(config, "busy", move |context, _| {
            let gate = Arc::clone(&gate);
            Box::pin(async move {
                context.progress(0);
                gate.notified().await;
                for percent in 1..=60 {
                    context.progress(percent);
                    tokio::task::yield_now().await;
                }
                Ok(None)
            })
        });
    });
    let attempt = attempt("busy", "busy", "null");
    bed.append(record(&attempt));
    bed.wait_for("the first word", || bed.events(attempt.run_id).iter().find_map(|event| event.percent));
    go.notify_one();
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    let told: Vec<_> =
        bed.events(attempt.run_id).into_iter().filter(|event| event.kind == AttemptEventType::Progress).collect();
    assert_eq!(told.last().and_then(|event| event.percent), Some(60));
    // The last is told with the end, however soon; of the others each is a second after the one before.
    let paced = &told[..told.len() - 1];
    assert!(!paced.is_empty(), "told only at the end");
    for pair in paced.windows(2) {
        assert!(pair[1].at.since(pair[0].at) >= Duration::from_millis(900), "{told:?}");
    }
}

#[test]
fn failures_say_whether_another_attempt_may_help() {
    let bed = Bed::start(|config| {
        with(config, "fail", |_, payload| {
            let retry_after = Some(Duration::from_secs(7)).filter(|_| payload == "\"busy\"");
            let is_final = payload == "\"never\"";
            Box::pin(async move { Err(HandlerFailure { message: payload, is_final, retry_after }) })
        });
    });
    for (job, payload, is_final, retry_after_ms) in
        [("a", "\"busy\"", false, Some(7000)), ("b", "\"never\"", true, None), ("c", "\"again\"", false, None)]
    {
        let outcome = outcome(&bed, &attempt(job, "fail", payload));
        assert_eq!((outcome.kind, message(&outcome)), (OutcomeKind::Failed, payload));
        assert_eq!((outcome.is_final, outcome.retry_after_ms), (is_final, retry_after_ms), "{payload}");
    }
}

#[test]
fn a_payload_that_does_not_fit_starts_nothing() {
    let bed = Bed::start(|config| with(config, "picky", |_, _| Box::pin(async { Ok(None) })));
    for (job, payload, said) in [
        ("empty", "{}", "spec.run.handler.payload.tenant: handler `picky`: is missing"),
        ("defect", "\"a defect\"", "spec.run.handler.payload: handler `picky`: panicked"),
    ] {
        let attempt = attempt(job, "picky", payload);
        let outcome = outcome(&bed, &attempt);
        assert_eq!((outcome.kind, outcome.is_final), (OutcomeKind::NotStarted, true), "{outcome:?}");
        assert!(message(&outcome).starts_with(said), "{outcome:?}");
        assert!(!bed.has_started(attempt.run_id));
    }
}

#[test]
fn an_unknown_handler_is_named_with_those_that_are_there() {
    let bed = Bed::start(|config| {
        for name in ["send-invoices", "remind"] {
            with(config, name, |_, _| Box::pin(async { Ok(None) }));
        }
    });
    let unknown = attempt("unknown", "send-invoice", "null");
    let ended = outcome(&bed, &unknown);
    assert_eq!((ended.kind, ended.is_final), (OutcomeKind::NoHandler, false));
    for part in ["spec.run.handler.name", "`send-invoice`", "`remind`, `send-invoices`", "spec.queue"] {
        assert!(message(&ended).contains(part), "{part} is not in {ended:?}");
    }
    let finished = |run| bed.events(run).iter().filter(|event| event.kind == AttemptEventType::Finished).count();
    assert_eq!(finished(unknown.run_id), 1);
    assert_eq!(outcome(&bed, &attempt("known", "remind", "null")).kind, OutcomeKind::Succeeded);
}

#[test]
fn a_runner_without_handlers_says_so() {
    let bed = Bed::start(|_| {});
    let outcome = outcome(&bed, &attempt("none", "send", "{}"));
    assert_eq!(outcome.kind, OutcomeKind::NoHandler);
    assert!(message(&outcome).contains("spec.run.handler.name") && message(&outcome).contains("it has none"));
}

#[test]
fn a_runner_of_handlers_only_refuses_commands() {
    let bed = Bed::start(|config| {
        config.is_handlers_only = true;
        with(config, "fine", |_, _| Box::pin(async { Ok(None) }));
    });
    let attempt = ready("command", shell("echo no"));
    let refused = outcome(&bed, &attempt);
    assert_eq!(refused.kind, OutcomeKind::NotStarted);
    assert!(message(&refused).starts_with("spec.run.shell: ") && message(&refused).contains("`spec.queue`"));
    assert!(!bed.has_started(attempt.run_id));
    assert!(!bed.folder.path().join("work").exists(), "no process, no directory for one");
}

#[test]
fn a_runner_of_handlers_only_needs_one() {
    let mut bed = Bed::start(|config| config.is_handlers_only = true);
    assert!(bed.end().expect_err("nothing to do").to_string().contains("has none"));
}

#[test]
fn a_panic_ends_the_attempt_and_nothing_else() {
    let bed = Bed::start(|config| {
        with(config, "early", |_, _| panic!("before the future"));
        with(config, "late", |context, _| {
            Box::pin(async move {
                context.print("so far so good");
                tokio::task::yield_now().await;
                panic!("after an await: {}", context.facts.attempt)
            })
        });
        with(config, "odd", |_, _| panic_any(7));
        with(config, "fine", |_, _| Box::pin(async { Ok(None) }));
    });
    for (handler, text) in [("early", "before the future"), ("late", "after an await: 1"), ("odd", "it gave no text")] {
        let attempt = attempt(handler, handler, "null");
        let outcome = outcome(&bed, &attempt);
        assert_eq!((outcome.kind, outcome.is_final), (OutcomeKind::Failed, false));
        assert_eq!(message(&outcome), format!("the handler panicked: {text}"));
        assert_eq!(stdout(&bed, &attempt), if handler == "late" { "so far so good\n" } else { "" });
    }
    assert_eq!(outcome(&bed, &attempt("fine", "fine", "null")).kind, OutcomeKind::Succeeded);
}

/// Waits for its cancellation and says that it came.
fn patient(context: HandlerContext, _: String) -> HandlerFuture {
    Box::pin(async move {
        context.print("here");
        context.cancellation.cancelled().await;
        context.print("cancelled");
        Ok(None)
    })
}

#[test]
fn time_that_is_up_cancels_the_handler() {
    let bed = Bed::start(|config| with(config, "patient", patient));
    let attempt = within(50, attempt("timed", "patient", "null"));
    let outcome = outcome(&bed, &attempt);
    assert_eq!(outcome.kind, OutcomeKind::TimedOut);
    assert!(message(&outcome).contains("longer than its timeout of 50ms"), "{outcome:?}");
    assert_eq!(stdout(&bed, &attempt), "here\ncancelled\n");
}

#[test]
fn a_cancelled_run_reaches_its_handler() {
    let bed = Bed::start(|config| with(config, "patient", patient));
    let attempt = attempt("cancelled", "patient", "null");
    bed.append(record(&attempt));
    bed.report(attempt.run_id, AttemptEventType::Started);
    bed.append(word(&bed, &attempt, RunnerMessageType::Cancel, attempt.token, "r1"));
    let outcome = bed.outcome(attempt.run_id);
    assert_eq!((outcome.kind, message(&outcome)), (OutcomeKind::Cancelled, "for a test"));
    assert_eq!(stdout(&bed, &attempt), "here\ncancelled\n");
}

#[test]
fn a_drain_ends_handlers_that_take_too_long() {
    let mut bed = Bed::start(|config| {
        config.drain_timeout = Duration::from_millis(50);
        with(config, "patient", patient);
    });
    let attempt = attempt("drained", "patient", "null");
    bed.append(record(&attempt));
    bed.report(attempt.run_id, AttemptEventType::Started);
    bed.shutdown.request();
    bed.end().expect("a clean end");
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::HandedBack);
    assert_eq!(stdout(&bed, &attempt), "here\ncancelled\n");
}

/// Sets a flag when it is dropped.
struct Flag(Arc<AtomicBool>);

impl Drop for Flag {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_lost_lease_drops_a_handler_that_does_not_listen() {
    let clock = ManualClock::new(Timestamp::from_millis(1_700_000_000_000));
    let dropped = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&dropped);
    let bed = Bed::start_with(Arc::new(clock.clone()), |config| {
        config.lease = Duration::from_millis(900);
        with(config, "deaf", move |context, _| {
            let flag = Flag(Arc::clone(&flag));
            Box::pin(async move {
                context.print("here");
                std::future::pending::<()>().await;
                drop(flag);
                Ok(None)
            })
        });
    });
    let attempt = attempt("deaf", "deaf", "null");
    bed.append(record(&attempt));
    bed.wait_for("its word", || (stdout(&bed, &attempt) == "here\n").then_some(()));
    assert!(!dropped.load(Ordering::SeqCst));
    bed.refuses.store(true, Ordering::SeqCst);
    clock.advance(Duration::from_millis(900));
    bed.wait_for("its end", || dropped.load(Ordering::SeqCst).then_some(()));
    bed.refuses.store(false, Ordering::SeqCst);
}

#[test]
fn a_handler_that_cannot_be_stopped_is_told_of() {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let inside = Arc::clone(&gate);
    let bed = Bed::start(|config| {
        with(config, "blocking", move |context, _| {
            let gate = Arc::clone(&inside);
            Box::pin(async move {
                context.print("here");
                drop(gate.lock());
                context.print("nobody hears this");
                Ok(None)
            })
        });
        with(config, "fine", |_, _| Box::pin(async { Ok(None) }));
    });
    let blocking = within(1, attempt("blocking", "blocking", "null"));
    let ended = outcome(&bed, &blocking);
    assert_eq!(ended.kind, OutcomeKind::TimedOut);
    assert!(message(&ended).starts_with("the handler does not await"), "{ended:?}");
    assert_eq!(outcome(&bed, &attempt("fine", "fine", "null")).kind, OutcomeKind::Succeeded);
    drop(closed);
    assert_eq!(stdout(&bed, &blocking), "here\n");
}

#[test]
fn handlers_may_run_on_the_executor_of_the_service() {
    let service = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("an executor");
    let own = service.handle().clone();
    let bed = Bed::start(|config| {
        config.handlers = Handlers::default();
        config.handlers.call_on(own.clone());
        with(config, "where", |_, _| {
            Box::pin(async { Ok(Some(format!("{:?}", tokio::runtime::Handle::current().id()))) })
        });
    });
    let at_home = outcome(&bed, &attempt("where", "where", "null"));
    assert_eq!(message(&at_home), format!("{:?}", own.id()));
    service.shutdown_background();
    let homeless = outcome(&bed, &attempt("homeless", "where", "null"));
    assert_eq!(homeless.kind, OutcomeKind::Aborted);
    assert!(message(&homeless).contains("has ended"), "{homeless:?}");
}
