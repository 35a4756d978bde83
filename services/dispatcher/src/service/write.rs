//! Events to records. Not here: what is decided. Invariant: one event, one atomic set of records: the run's copy
//! in the topic of its step, tombstones where it was, the ready record or the dead letter, a word to the runner that
//! holds it, and the run event. Every record but those about limits goes to the partition of the shard.

use orloj_domain::attempt::ReadyAttempt;
use orloj_domain::command::{Command, CommandType};
use orloj_domain::fire::FireDecision;
use orloj_domain::id::{CommandId, RunnerId};
use orloj_domain::job::Target;
use orloj_domain::run::{EndedAttempt, NOT_KEPT, RunEvent, RunHedge, RunState};
use orloj_domain::runner::{RunnerMessage, RunnerMessageType};
use orloj_domain::shard::{Shard, ShardCount};
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Header, NewRecord};

use super::{breaker, cancel, limit, live_run, offer};
use crate::event::{About, End, Ended, Event, Ignored, Report};
use crate::hedge::Which;
use crate::request::Request;
use crate::run::{DeadRun, Run, Step};

/// The records that say what was decided.
pub(super) fn records(shard: Shard, shards: ShardCount, event: &Event) -> Vec<NewRecord> {
    match event {
        Event::Stepped { run, leaves, gives_back, about, ended } => {
            let mut records = stepped(shard, run, leaves, *about, ended);
            records.extend(limit::asked(shards, run));
            records.extend(limit::given_back(shards, &run.request, gives_back, run.since));
            records
        }
        Event::Ended(ended) => {
            let mut records = end(shard, ended);
            records.extend(limit::given_back(shards, &ended.request, &ended.gives_back, ended.at));
            records
        }
        Event::CancelKept(order, at) => vec![cancel::kept(shard, order, *at)],
        Event::CancelDropped(order) => vec![cancel::dropped(shard, order)],
        Event::LimitJoined(limit, waiter) => vec![limit::joined(shard, limit, waiter)],
        Event::LimitHeld { limit, waiter, at, used_until_nanos } => {
            limit::held(shard, shards, limit, waiter, *at, *used_until_nanos)
        }
        Event::LimitFree(limit, claim) => vec![limit::free(shard, limit, *claim)],
        Event::LimitTurned { limit, turn, at } => breaker::turned(shard, limit, turn, *at),
        Event::LimitDeclined(limit, waiter) => vec![limit::declined(shards, limit, waiter)],
        Event::Disowned(report, why) => vec![disowned(shard, report, *why)],
        Event::NotRedriven { dead, why, at } => not_redriven(shard, dead, why, *at),
        Event::Parked { dead, why, at } => parked(shard, dead, why, *at),
        Event::Forgotten(dead, at) => {
            let gone = tombstones(shard, &dead.request, &[topic::RUN_STATE]);
            gone.chain([run_event(shard, &dead.request, &dead_event(dead, NOT_KEPT.to_owned(), *at))]).collect()
        }
        Event::Withdrawn(offer) => {
            vec![offer::withdrawn(shard, offer)]
        }
        Event::LimitRulesTaken(_) | Event::FleetTaken(_) | Event::Ignored(_) => Vec::new(),
    }
}

fn stepped(shard: Shard, run: &Run, leaves: &[&'static str], about: About, ended: &[EndedAttempt]) -> Vec<NewRecord> {
    let mut records = Vec::with_capacity(4);
    let copy = codec::encode(&live_run::to_wire(run));
    records.push(NewRecord::new(run.topic(), shard.0, run_key(&run.request), Some(copy)));
    records.extend(tombstones(shard, &run.request, leaves));
    match about {
        About::Begun | About::Run if run.step == Step::Ready => records.push(on_queue(shard, run, Which::Own)),
        About::HedgeReady => records.push(on_queue(shard, run, Which::Hedge)),
        // The record of one that the run goes on with is on the queue since it was put there.
        About::Begun | About::Run | About::HedgeClaimed | About::HedgePutOff | About::OneEnded => {}
    }
    records.extend(offer::offered(shard, run));
    records.extend(words_to_runners(shard, run, about));
    if about == About::Begun && run.redriven_at.is_some() {
        records.push(no_dead_letter(shard, &run.request));
    }
    // That it asks again, is offered to the same runner again, or gets no hedge yet, is news to nobody else, and that nothing
    // keeps it is what the request says, as long as nothing else is said of the run.
    let is_no_news = match run.step {
        Step::Asking { asked_at: at, .. } | Step::Offered { said_at: at, .. } => at != run.since,
        Step::Ready => about == About::Begun && run.redriven_at.is_none(),
        Step::Running { .. } => about == About::HedgePutOff,
        Step::Delayed { .. }
        | Step::Waiting
        | Step::Unserved { .. }
        | Step::Unplaced { .. }
        | Step::Retrying { .. } => false,
    };
    if !is_no_news {
        records.push(run_event(shard, &run.request, &step_event(run, about, ended)));
    }
    records
}

/// What the runners that hold attempts of a run must be told by a step.
fn words_to_runners(shard: Shard, run: &Run, about: About) -> impl Iterator<Item = NewRecord> {
    let to: &[Which] = match about {
        About::Begun | About::Run => &[Which::Own, Which::Hedge],
        About::HedgeClaimed => &[Which::Hedge],
        About::HedgeReady | About::HedgePutOff | About::OneEnded => &[],
    };
    to.iter().filter_map(move |which| word_to_runner(shard, run, *which))
}

/// What the runner that holds an attempt must be told: that its end is asked for, that it has ended elsewhere, or that it may start.
fn word_to_runner(shard: Shard, run: &Run, which: Which) -> Option<NewRecord> {
    let (runner, session) = run.holder(which)?;
    let kind = match (&run.completion, &run.cancel_reason) {
        (Some(_), _) => RunnerMessageType::Complete,
        (None, Some(_)) => RunnerMessageType::Cancel,
        (None, None) if run.awaits_start() => RunnerMessageType::Start,
        (None, None) => return None,
    };
    let (attempt, token) = run.numbers(which);
    let message = RunnerMessage {
        kind,
        session: session.clone(),
        run_id: run.request.run_id,
        attempt,
        token,
        reason: run.cancel_reason.as_deref().map(str::to_owned),
        outcome: run.completion.as_deref().cloned(),
        ready: None,
    };
    Some(inbox(shard, runner, &message))
}

/// Tells a runner to stop what is not its own.
fn disowned(shard: Shard, report: &Report, why: Ignored) -> NewRecord {
    let reason = match why {
        Ignored::NotLive => "the run has ended",
        Ignored::OtherSession => "another runner holds the attempt",
        Ignored::AlreadyCancelled => "its end was asked for",
        Ignored::Stale
        | Ignored::AlreadyLive
        | Ignored::AlreadyClaimed
        | Ignored::NotDead
        | Ignored::Repeated
        | Ignored::NoClaim
        | Ignored::AlreadyCompleted
        | Ignored::NoCallback
        | Ignored::AlreadyParked => "the attempt is not the one in force",
    };
    stop(shard, report, reason)
}

fn stop(shard: Shard, report: &Report, reason: &str) -> NewRecord {
    let message = RunnerMessage {
        kind: RunnerMessageType::Cancel,
        session: report.session.clone(),
        run_id: report.run_id,
        attempt: report.attempt,
        token: report.token,
        reason: Some(reason.to_owned()),
        outcome: None,
        ready: None,
    };
    inbox(shard, &report.runner, &message)
}

pub(super) fn inbox(shard: Shard, runner: &RunnerId, message: &RunnerMessage) -> NewRecord {
    NewRecord::new(topic::RUNNER_INBOX, shard.0, runner.as_str(), Some(codec::encode(message)))
}

fn not_redriven(shard: Shard, dead: &DeadRun, why: &str, at: Timestamp) -> Vec<NewRecord> {
    let request = &dead.request;
    let event = dead_event(dead, format!("not sent back: {why}"), at);
    vec![kept_dead(shard, dead), run_event(shard, request, &event)]
}

/// Its dead letter stands once more, with what became of it.
fn parked(shard: Shard, dead: &DeadRun, why: &str, at: Timestamp) -> Vec<NewRecord> {
    let note = format!("parked: {why}");
    let mut letter = dead_letter(shard, dead);
    letter.headers.push(Header::text("orloj-parked-reason", &note));
    vec![letter, kept_dead(shard, dead), run_event(shard, &dead.request, &dead_event(dead, note, at))]
}

fn dead_event(dead: &DeadRun, note: String, at: Timestamp) -> RunEvent {
    RunEvent {
        attempt: dead.attempt,
        token: dead.token,
        outcome: Some(dead.outcome.clone()),
        disposition: Some(dead.disposition.to_string()),
        note: Some(note),
        redrives: dead.redrives,
        ..bare_event(&dead.request, RunState::Dead, at)
    }
}

fn kept_dead(shard: Shard, dead: &DeadRun) -> NewRecord {
    let copy = codec::encode(&live_run::dead_to_wire(dead));
    NewRecord::new(topic::RUN_STATE, shard.0, run_key(&dead.request), Some(copy))
}

fn end(shard: Shard, ended: &Ended) -> Vec<NewRecord> {
    let mut records = Vec::with_capacity(3);
    if let Some(dead) = ended.dead() {
        records.extend([dead_letter(shard, &dead), kept_dead(shard, &dead)]);
    }
    records.extend(tombstones(shard, &ended.request, &ended.leaves));
    records.extend(ended.stops.as_ref().map(|(report, why)| stop(shard, report, why)));
    records.push(run_event(shard, &ended.request, &end_event(ended)));
    if ended.request.reports_end {
        records.push(run_ended(shard, ended));
    }
    records
}

/// Tells the trigger, which waits for it. The id is that of the run, so a repeat says nothing new.
fn run_ended(shard: Shard, ended: &Ended) -> NewRecord {
    let request = &ended.request;
    let id = CommandId::new(&format!("ended-{}", request.run_id));
    let id = id.unwrap_or_else(|error| unreachable!("a run id is text of a command id: {error}"));
    let command = Command {
        at: Some(ended.at),
        run_id: Some(request.run_id),
        run_state: Some(ended.end.state()),
        ..Command::new(CommandType::RunEnded, id)
    };
    NewRecord::new(topic::COMMANDS, shard.0, request.job.as_str(), Some(codec::encode(&command)))
}

fn run_key(request: &Request) -> Vec<u8> {
    request.run_id.to_string().into_bytes()
}

fn tombstones(shard: Shard, request: &Request, topics: &[&'static str]) -> impl Iterator<Item = NewRecord> {
    topics.iter().map(move |topic| NewRecord::new(*topic, shard.0, run_key(request), None))
}

fn on_queue(shard: Shard, run: &Run, which: Which) -> NewRecord {
    let attempt = codec::encode(&ready(run, which));
    let request = &run.request;
    NewRecord::new(topic::run_ready(&request.queue), shard.0, run_key(request), Some(attempt))
}

/// What a runner is handed.
pub(super) fn ready(run: &Run, which: Which) -> ReadyAttempt {
    let request = &run.request;
    let (attempt, token) = run.numbers(which);
    ReadyAttempt {
        run_id: request.run_id,
        job: request.job.clone(),
        attempt,
        token,
        ready_at: since(run, which),
        request: request.value(),
        deadline: run.deadline(),
        awaits_start: run.awaits_start(),
    }
}

/// The request's own key, value and headers, byte for byte, with headers added that say what became of it. The
/// key is the job, as in `fires`; the run is named in a header.
fn dead_letter(shard: Shard, dead: &DeadRun) -> NewRecord {
    let (request, outcome) = (&dead.request, &dead.outcome);
    let (headers, value) = request.record();
    let original = headers.into_iter().map(|header| Header { key: header.key, value: Some(header.value) });
    let added = [
        Header::text("__dlq.errors.topic", topic::FIRES),
        Header::text("__dlq.errors.partition", shard),
        Header::text("__dlq.errors.offset", request.offset),
        Header::text("__dlq.errors.message", outcome.message.as_deref().unwrap_or_default()),
        Header::text("orloj-run-id", request.run_id),
        Header::text("orloj-job", &request.job),
        Header::text("orloj-attempt", dead.attempt),
        Header::text("orloj-error-class", outcome.kind),
        Header::text("orloj-disposition", dead.disposition),
        Header::text("orloj-first-failure", dead.first_failure),
        Header::text("orloj-redrive-count", dead.redrives),
    ];
    NewRecord {
        topic: topic::dead_letters(&request.queue).into(),
        partition: shard.0,
        key: Some(request.job.as_str().as_bytes().to_vec()),
        value: Some(value),
        headers: original.chain(added).collect(),
    }
}

/// Says that the dead letter of a run is none any more.
fn no_dead_letter(shard: Shard, request: &Request) -> NewRecord {
    NewRecord {
        topic: topic::dead_letters(&request.queue).into(),
        partition: shard.0,
        key: Some(request.job.as_str().as_bytes().to_vec()),
        value: None,
        headers: vec![Header::text("orloj-run-id", request.run_id)],
    }
}

fn run_event(shard: Shard, request: &Request, event: &RunEvent) -> NewRecord {
    NewRecord::new(topic::RUN_EVENTS, shard.0, request.job.as_str(), Some(codec::encode(event)))
}

/// Since when one of the attempts of a run is where it is.
fn since(run: &Run, which: Which) -> Timestamp {
    match (which, &run.hedge) {
        (Which::Hedge, Some(hedge)) => hedge.since,
        (Which::Own | Which::Hedge, _) => run.since,
    }
}

pub(crate) fn step_event(run: &Run, about: About, ended: &[EndedAttempt]) -> RunEvent {
    let at = match (about, ended) {
        (About::HedgeReady | About::HedgeClaimed | About::HedgePutOff, _) => since(run, Which::Hedge),
        (About::OneEnded, [one, ..]) => one.at,
        (About::Begun | About::Run | About::OneEnded, _) => run.since,
    };
    let event = own_event(run, bare_event(&run.request, run.step.state(), at));
    let note = match (about, ended) {
        (About::HedgeReady | About::HedgeClaimed, _) => run.live_hedge().map(|hedge| {
            let what = if about == About::HedgeReady { "is put beside it" } else { "runs beside it" };
            format!("it has not ended in time: attempt {} {what}", hedge.attempt)
        }),
        (About::OneEnded, [one, ..]) => {
            let why = one.outcome.message.as_deref().map_or_else(String::new, |message| format!(": {message}"));
            Some(format!("attempt {} of two ended as {}{why}", one.attempt, one.outcome.kind))
        }
        (About::Begun | About::Run | About::HedgePutOff | About::OneEnded, _) => event.note,
    };
    let hedge = run.live_hedge().map(|hedge| RunHedge {
        attempt: hedge.attempt,
        token: hedge.token,
        runner: hedge.holder().map(|(runner, _)| runner.clone()),
    });
    RunEvent { note, hedge, ended_attempts: ended.to_vec(), ..event }
}

/// What a step says of a run, whichever of its attempts took it.
fn own_event(run: &Run, bare: RunEvent) -> RunEvent {
    let attempt = if run.token == 0 { 0 } else { run.attempt };
    let event = RunEvent {
        attempt,
        token: run.token,
        due_at: run.due_at(),
        redrives: run.redrives,
        limits: run.claimed_limits().to_vec(),
        ..bare
    };
    let outcome = || run.last_outcome.as_deref().cloned();
    match &run.step {
        Step::Delayed { .. } | Step::Ready => event,
        Step::Waiting => RunEvent { note: Some("as many runs of the job are live as it allows".to_owned()), ..event },
        Step::Asking { .. } => RunEvent { note: run.asks_for().map(limit::awaited), ..event },
        Step::Unplaced { .. } => offer::unplaced_event(run, event),
        Step::Offered { runner, .. } => RunEvent { note: Some(format!("offered to runner {runner}")), ..event },
        Step::Unserved { .. } => {
            let handler = handler_of(&run.request);
            let note = handler.as_ref().map(|handler| {
                let queue = &run.request.queue;
                format!(
                    "the runner of queue {queue} that took it has no handler `{handler}`; it waits for one that has"
                )
            });
            RunEvent { note, missing_handler: handler, outcome: outcome(), ..event }
        }
        Step::Running { runner, .. } => {
            let called_back = run.completion.as_deref().map(|outcome| format!("its callback says: {}", outcome.kind));
            let note = called_back.or_else(|| run.cancel_reason.as_deref().map(str::to_owned));
            RunEvent { runner: Some(runner.clone()), note, ..event }
        }
        Step::Retrying { .. } => RunEvent { outcome: outcome(), ..event },
    }
}

/// The handler that a request names. Looked up in its bytes: it is asked for where something is amiss only.
fn handler_of(request: &Request) -> Option<String> {
    let spec = codec::decode::<FireDecision>(&request.value()).ok()?.spec?;
    match &spec.target {
        Target::HandlerTarget(target) => Some(target.name.clone()),
        Target::ExecTarget(_) | Target::ShellTarget(_) | Target::HttpTarget(_) | Target::KafkaTarget(_) => None,
    }
}

fn end_event(ended: &Ended) -> RunEvent {
    let disposition = match &ended.end {
        End::Dead(_, disposition) => Some(disposition.to_string()),
        End::Succeeded(_) | End::Cancelled(_) | End::Expired(_) => None,
    };
    RunEvent {
        attempt: ended.attempt,
        token: ended.token,
        outcome: Some(ended.end.outcome().clone()),
        disposition,
        redrives: ended.redrives,
        ended_attempts: ended.ended_attempts.clone(),
        ..bare_event(&ended.request, ended.end.state(), ended.at)
    }
}

fn bare_event(request: &Request, state: RunState, at: Timestamp) -> RunEvent {
    RunEvent {
        state,
        run_id: request.run_id,
        job: request.job.clone(),
        version: request.version,
        trigger: request.trigger,
        fire_time: request.fire_time,
        requested_at: request.requested_at,
        at,
        queue: request.queue.clone(),
        attempt: 0,
        token: 0,
        due_at: None,
        runner: None,
        outcome: None,
        disposition: None,
        note: None,
        redrives: 0,
        limits: Vec::new(),
        missing_handler: None,
        hedge: None,
        ended_attempts: Vec::new(),
        missing_runner: None,
    }
}
