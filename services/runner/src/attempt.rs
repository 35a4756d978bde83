//! One attempt from claim to end: plan, execute, stream its output, report. Not here: how a process is run
//! (`executor`), how reports reach the log (`reporter`). Invariant: whatever was claimed ends with exactly one
//! Finished report, after all of its output; a success under a lease that is over is not reported as one.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, Outcome, OutcomeKind, ReadyAttempt};
use orloj_domain::callback::CallbackDigest;
use orloj_domain::job::{Delivery, RunSpec, Target};
use orloj_domain::runner::{AttemptOutput, OutputStream};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::NewRecord;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::board::{Session, Slot};
use crate::executor::callback::Ends;
use crate::executor::plan::{Program, plan};
use crate::executor::process::{Abort, Sink, execute};
use crate::executor::template::AttemptFacts;
use crate::executor::{handler, http, kafka};
use crate::flight::Entered;
use crate::output::{BATCH_DELAY, OutputBuffer};
use crate::progress::Throttle;
use crate::reporter::{Report, Stage};
use crate::shared::Shared;

/// How many leases an attempt waits for the dispatcher's word: long enough for one that is away, and not for ever for a word
/// that was lost (Kafka may hide one behind a transaction that lost its marker, ADR 0019).
const WORD_LEASES_MAX: u32 = 10;

/// What an attempt runs.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) spec: Arc<RunSpec>,
    pub(crate) fire_time: Timestamp,
    pub(crate) params: BTreeMap<String, String>,
}

/// An attempt that this runner has claimed.
pub(crate) struct Assignment {
    pub(crate) ready: ReadyAttempt,
    /// What to run, or why that is not known.
    pub(crate) work: Result<Box<Work>, String>,
    pub(crate) session: Arc<Session>,
    pub(crate) slot: Slot,
}

/// A report about an attempt, as a record.
pub(crate) fn report(
    shared: &Shared,
    ready: &ReadyAttempt,
    session: &Session,
    kind: AttemptEventType,
    fill: impl FnOnce(&mut AttemptEvent),
) -> NewRecord {
    let mut event = AttemptEvent {
        kind,
        run_id: ready.run_id,
        job: ready.job.clone(),
        attempt: ready.attempt,
        token: ready.token,
        runner: shared.runner.clone(),
        session: session.id.clone(),
        at: shared.board.clock.now(),
        lease_ms: None,
        isolation: None,
        percent: None,
        outcome: None,
        callback_digest: None,
        started_at: None,
        has_output: None,
    };
    fill(&mut event);
    let partition = shared.shards.shard_of(&ready.job).0;
    NewRecord::new(topic::ATTEMPT_EVENTS, partition, ready.job.as_str(), Some(codec::encode(&event)))
}

impl Assignment {
    /// Executes and reports.
    pub(crate) async fn run(self, shared: Arc<Shared>) {
        let Self { ready, work, session, slot } = self;
        let ready = Arc::new(ready);
        let Entered { number, stop, start, completed } = shared.board.enter(&session, (ready.run_id, ready.token));
        let mut output = Output::new(&shared, &ready, &session);
        let start_of = OnceLock::new();
        let outcome = match work {
            _ if !session.is_live(shared.board.clock.monotonic()) => not_under_lease(None),
            Err(problem) => Outcome::new(OutcomeKind::NotStarted, problem),
            Ok(work) => {
                let mut abort = pin!(async {
                    match stop.await {
                        Ok(abort) => abort,
                        Err(_) => std::future::pending().await,
                    }
                });
                let deadline = Deadline::of(&ready, &shared);
                let patience = shared.lease * WORD_LEASES_MAX;
                match may_start(&ready, deadline, patience, start, &mut abort).await {
                    Err(outcome) => outcome,
                    // A word may have come while this process was frozen.
                    Ok(()) if !session.is_live(shared.board.clock.monotonic()) => not_under_lease(None),
                    Ok(()) => {
                        let delivery = work.spec.delivery;
                        let ends = Ends { abort, completed };
                        let reports = Reports { shared: &shared, ready: &ready, session: &session, start: &start_of };
                        begun_once(delivery, attempt(&reports, *work, deadline, ends, &mut output).await)
                    }
                }
            }
        };
        shared.board.leave(number);
        let is_told = outcome.kind == OutcomeKind::Aborted || session.is_live(shared.board.clock.monotonic());
        let outcome = if is_told { outcome } else { not_under_lease(Some(&outcome)) };
        shared.board.metrics.ended(outcome.kind);
        tracing::debug!(
            job = %ready.job, run = %ready.run_id, attempt = ready.attempt, outcome = %outcome.kind,
            message = outcome.message, "attempt ended"
        );
        let (mut records, has_output) = output.finish();
        records.push(report(&shared, &ready, &session, AttemptEventType::Finished, |event| {
            event.outcome = Some(outcome);
            event.has_output = Some(has_output);
            if let Some(start) = start_of.into_inner() {
                (event.started_at, event.isolation) = (Some(start.at), start.isolation);
            }
        }));
        let stage = Stage::End(ready.run_id, ready.token);
        shared.reporter.send(Report { records, session, stage, _slot: Some(slot) });
    }
}

/// The end of an attempt whose lease was over: the dispatcher has given it to another by now.
fn not_under_lease(ended: Option<&Outcome>) -> Outcome {
    let message = match ended {
        None => "not started: the lease was over before it could begin".to_owned(),
        Some(outcome) => format!(
            "the lease was over when it ended as {}: {}",
            outcome.kind,
            outcome.message.as_deref().unwrap_or("no message")
        ),
    };
    Outcome::new(OutcomeKind::Aborted, message)
}

/// Nobody knows what an attempt has done that had begun: under at most once it can't be given back.
fn begun_once(delivery: Delivery, outcome: Outcome) -> Outcome {
    match (delivery, outcome.kind) {
        (Delivery::AtMostOnce, OutcomeKind::HandedBack) => Outcome { kind: OutcomeKind::Aborted, ..outcome },
        _ => outcome,
    }
}

/// When the run must have ended, on the clock that waits.
#[derive(Debug, Clone, Copy)]
struct Deadline(Option<Instant>);

impl Deadline {
    fn of(ready: &ReadyAttempt, shared: &Shared) -> Self {
        Self(ready.deadline.map(|deadline| Instant::now() + deadline.since(shared.board.clock.now())))
    }

    fn left(self) -> Option<Duration> {
        self.0.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    async fn wait(self) {
        match self.0 {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    }
}

/// Waits for the dispatcher's word, where the attempt needs it.
async fn may_start(
    ready: &ReadyAttempt,
    deadline: Deadline,
    patience: Duration,
    start: oneshot::Receiver<()>,
    abort: &mut (impl Future<Output = Abort> + Unpin),
) -> Result<(), Outcome> {
    let expired = || Outcome::new(OutcomeKind::Expired, "the run's deadline passed before the attempt could start");
    if deadline.left().is_some_and(|left| left.is_zero()) {
        return Err(expired());
    }
    if !ready.awaits_start {
        return Ok(());
    }
    tokio::select! {
        biased;
        abort = abort => Err(Outcome::new(abort.kind, format!("not started: {}", abort.reason))),
        Ok(()) = start => Ok(()),
        () = deadline.wait() => Err(expired()),
        () = tokio::time::sleep(patience) => {
            let message = format!("not started: no word from the dispatcher within {patience:?}");
            // Another runner may get the word; that this one did not is no fault of the job.
            Err(Outcome::new(OutcomeKind::HandedBack, message))
        }
    }
}

/// That the target of an attempt has started.
struct Start {
    at: Timestamp,
    isolation: Option<String>,
}

/// What the start of an attempt is reported with.
struct Reports<'a> {
    shared: &'a Arc<Shared>,
    ready: &'a ReadyAttempt,
    session: &'a Arc<Session>,
    /// For the end, which says it too.
    start: &'a OnceLock<Start>,
}

impl Reports<'_> {
    fn started(&self, isolation: Option<&str>, digest: Option<CallbackDigest>) {
        let Self { shared, ready, session, start } = self;
        let at = shared.board.clock.now();
        shared.board.metrics.started(at.since(ready.ready_at));
        let isolation = isolation.map(str::to_owned);
        let record = report(shared, ready, session, AttemptEventType::Started, |event| {
            event.at = at;
            event.isolation = isolation.clone();
            event.callback_digest = digest.map(|digest| digest.to_string());
        });
        // A callback is judged by the digest, and may come at once; everything else the end says as well.
        let stage = if digest.is_some() { Stage::Awaited } else { Stage::Start(ready.run_id, ready.token) };
        shared.reporter.send(Report { records: vec![record], session: Arc::clone(session), stage, _slot: None });
        let _ = start.set(Start { at, isolation });
    }
}

async fn attempt(
    reports: &Reports<'_>,
    work: Work,
    deadline: Deadline,
    ends: Ends<impl Future<Output = Abort>>,
    output: &mut Output,
) -> Outcome {
    let Reports { shared, ready, session, .. } = *reports;
    let facts = AttemptFacts {
        run_id: ready.run_id,
        attempt: ready.attempt,
        token: ready.token,
        fire_time: work.fire_time,
        job: ready.job.clone(),
        params: work.params,
    };
    let timeout = Duration::from_millis(u64::try_from(work.spec.timeout_ms).unwrap_or(1).max(1));
    let left = deadline.left().filter(|left| *left < timeout);
    let started = |isolation: Option<&str>, digest: Option<CallbackDigest>| reports.started(isolation, digest);
    let limit = left.unwrap_or(timeout);
    if let Some(refusal) = refusal(shared, &work.spec.target) {
        return refusal;
    }
    let program = match &work.spec.target {
        Target::ExecTarget(target) => Program::Exec(target),
        Target::ShellTarget(target) => Program::Shell(target),
        Target::HttpTarget(target) => {
            let outcome =
                http::execute(&shared.http, (target, &facts), limit, ends, |digest| started(None, digest), output)
                    .await;
            return at_deadline(outcome, left);
        }
        Target::KafkaTarget(target) => {
            let work = (target, &facts);
            let outcome =
                kafka::execute(&shared.clusters, work, limit, ends.abort, || started(None, None), output).await;
            return at_deadline(outcome, left);
        }
        Target::HandlerTarget(target) => {
            let prepared = match handler::prepare(&shared.handlers, &shared.runner, target) {
                Ok(prepared) => prepared,
                Err(outcome) => return outcome,
            };
            let call = (&shared.handler_runtime, prepared, facts);
            let outcome = handler::execute(call, limit, ends.abort, || started(None, None), output).await;
            return at_deadline(outcome, left);
        }
    };
    let own = shared.work_dir.join(format!("{}-{}-{}", ready.run_id, ready.attempt, ready.token));
    let outcome = match plan(program, &facts, &shared.inherited, session.id.as_str(), own) {
        Ok(plan) => {
            let on_started = |isolation| started(Some(isolation), None);
            execute(&shared.host, plan, limit, ends.abort, on_started, output).await
        }
        Err(problem) => Outcome::new(OutcomeKind::NotStarted, problem),
    };
    at_deadline(outcome, left)
}

/// What a runner that lends its process to handlers alone says to everything else.
fn refusal(shared: &Shared, target: &Target) -> Option<Outcome> {
    let kind = match target {
        Target::HandlerTarget(_) => return None,
        Target::ExecTarget(_) => "exec",
        Target::ShellTarget(_) => "shell",
        Target::HttpTarget(_) => "http",
        Target::KafkaTarget(_) => "kafka",
    };
    shared.is_handlers_only.then(|| {
        let message = format!(
            "spec.run.{kind}: runner `{}` belongs to a service and executes handlers only; set `spec.queue` to a queue of \
             `orloj` runners, or give the service's runner a queue of its own",
            shared.runner
        );
        Outcome::new(OutcomeKind::NotStarted, message)
    })
}

/// An attempt that was stopped because its run's time was up, and not its own.
fn at_deadline(outcome: Outcome, left: Option<Duration>) -> Outcome {
    if left.is_some() && outcome.kind == OutcomeKind::TimedOut {
        return Outcome {
            kind: OutcomeKind::Expired,
            message: Some("stopped: the run's deadline passed".to_owned()),
            ..outcome
        };
    }
    outcome
}

/// Output on its way to the log.
struct Output {
    shared: Arc<Shared>,
    session: Arc<Session>,
    buffer: OutputBuffer,
    partition: i32,
    flush_at: Option<Instant>,
    ready: Arc<ReadyAttempt>,
    progress: Throttle,
}

impl Output {
    fn new(shared: &Arc<Shared>, ready: &Arc<ReadyAttempt>, session: &Arc<Session>) -> Self {
        Self {
            shared: Arc::clone(shared),
            session: Arc::clone(session),
            buffer: OutputBuffer::new(ready),
            partition: shared.shards.shard_of(&ready.job).0,
            flush_at: None,
            ready: Arc::clone(ready),
            progress: Throttle::default(),
        }
    }

    /// All that is left, as records, and whether there is any output at all.
    fn finish(mut self) -> (Vec<NewRecord>, bool) {
        let at = self.shared.board.clock.now();
        let last = self.progress.take_last().map(|percent| self.progress_record(percent));
        let partition = self.partition;
        let output = self.buffer.finish(at);
        (output.iter().map(|output| record(output, partition)).chain(last).collect(), !output.is_empty())
    }

    fn progress_record(&self, percent: i32) -> NewRecord {
        report(&self.shared, &self.ready, &self.session, AttemptEventType::Progress, |event| {
            event.percent = Some(percent);
        })
    }

    /// Sends what nobody decides on.
    fn send(&self, record: NewRecord) {
        let session = Arc::clone(&self.session);
        self.shared.reporter.send(Report { records: vec![record], session, stage: Stage::Middle, _slot: None });
    }

    fn flush_output(&mut self) {
        self.flush_at = None;
        if let Some(output) = self.buffer.take_batch() {
            self.send(record(&output, self.partition));
        }
    }

    fn wait_for_more(&mut self) {
        if self.flush_at.is_none() && self.buffer.has_batch() {
            self.flush_at = Some(Instant::now() + BATCH_DELAY);
        }
    }
}

fn record(output: &AttemptOutput, partition: i32) -> NewRecord {
    NewRecord::new(topic::ATTEMPT_OUTPUT, partition, output.run_id.to_string(), Some(codec::encode(output)))
}

impl Sink for Output {
    fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        self.shared.board.metrics.output_bytes.inc_by(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if self.buffer.push(stream, self.shared.board.clock.now(), bytes) {
            self.flush_output();
        } else {
            self.wait_for_more();
        }
    }

    fn note(&mut self, text: &str) {
        self.buffer.note(self.shared.board.clock.now(), text);
        self.wait_for_more();
    }

    fn flush_at(&self) -> Option<Instant> {
        self.flush_at.into_iter().chain(self.progress.due()).min()
    }

    fn progress(&mut self, percent: i32) {
        if let Some(percent) = self.progress.take(percent, Instant::now()) {
            self.send(self.progress_record(percent));
        }
    }

    fn flush(&mut self) {
        let now = Instant::now();
        if self.flush_at.is_some_and(|at| at <= now) {
            self.flush_output();
        }
        if let Some(percent) = self.progress.take_due(now) {
            self.send(self.progress_record(percent));
        }
    }
}
