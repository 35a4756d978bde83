//! A live run as it is kept: most of them wait, and a million of them must fit. What is the same for many is shared, the
//! rest is packed into one piece. Not here: where it is kept (`machine::runs`). Invariant: what is unpacked equals what
//! was packed.

use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::fire::TriggerKind;
use orloj_domain::id::{CommandId, IdError, LimitId, RunId, RunnerId, SessionId};
use orloj_domain::time::Timestamp;

use crate::bytes::{Packer, Unpacker};
use crate::hedge::{Hedge, HedgeStep};
use crate::request::{Request, Terms};
use crate::run::{Run, Step};
use crate::shares::Shares;

const _: () = assert!(size_of::<Option<Packed>>() == 48, "a run that is kept is 48 bytes and its packed part");

/// Bits of the first number: the step, what caused the run, and which fields follow.
const STEP_BITS: u64 = 0b111;
const TRIGGER_SHIFT: u32 = 3;
const TRIGGER_BITS: u64 = 0b111;
const _: () = assert!(TriggerKind::ALL.len() as u64 <= TRIGGER_BITS + 1, "what caused a run fits its bits");
const REPORTS_END: u64 = 1 << 6;
const HAS_FAILED: u64 = 1 << 7;
const WAS_REDRIVEN: u64 = 1 << 8;
const WAS_DEAD: u64 = 1 << 9;
const HAS_COMMANDS: u64 = 1 << 10;
const IS_CANCELLING: u64 = 1 << 11;
const HAS_LIMITS: u64 = 1 << 12;
const WAS_UNSERVED: u64 = 1 << 13;
const IS_COMPLETED: u64 = 1 << 14;
const HAS_HEDGE: u64 = 1 << 15;
/// Ready: offered to one runner. Waiting for a runner: offered to one before.
const IS_OFFERED: u64 = 1 << 16;

const DELAYED: u64 = 0;
const WAITING: u64 = 1;
const READY: u64 = 2;
const RUNNING: u64 = 3;
const RETRYING: u64 = 4;
const ASKING: u64 = 5;
const UNSERVED: u64 = 6;
const UNPLACED: u64 = 7;

/// A run, packed.
#[derive(Debug, Clone)]
pub(crate) struct Packed {
    run_id: RunId,
    terms: Arc<Terms>,
    last_outcome: Option<Arc<Outcome>>,
    rest: Box<[u8]>,
}

impl Packed {
    /// Packs a run; its outcome is shared with others that ended alike.
    pub(crate) fn of(run: &Run, shares: &Shares) -> Self {
        // Taken apart by name, so that a field that is added can't be forgotten here.
        let Run {
            request,
            step,
            attempt,
            token,
            since,
            first_failure,
            last_outcome,
            redrives,
            recent_commands,
            cancel_reason,
            redriven_at,
            attempts_before,
            limits,
            unserved,
            completion,
            hedge,
        } = run;
        let mut packer = Packer::default();
        packer.unsigned(flags(run));
        pack_request(&mut packer, request);
        packer.instant(*since, request.requested_at);
        packer.signed(i64::from(*attempt));
        packer.signed(*token);
        pack_step(&mut packer, step, *since);
        if let Some(first_failure) = first_failure {
            packer.instant(*first_failure, request.requested_at);
        }
        if let Some(redriven_at) = redriven_at {
            packer.instant(*redriven_at, request.requested_at);
        }
        if was_dead(run) {
            packer.signed(i64::from(*redrives));
            packer.signed(i64::from(*attempts_before));
        }
        if let Some(reason) = cancel_reason {
            packer.bytes(reason.as_bytes());
        }
        if !recent_commands.is_empty() {
            packer.unsigned(recent_commands.len() as u64);
            recent_commands.iter().for_each(|command| packer.bytes(command.as_str().as_bytes()));
        }
        if !limits.is_empty() {
            packer.unsigned(limits.len() as u64);
            limits.iter().for_each(|limit| packer.bytes(limit.as_str().as_bytes()));
        }
        if *unserved != 0 {
            packer.signed(i64::from(*unserved));
        }
        if let Some(completion) = completion {
            pack_outcome(&mut packer, completion);
        }
        if let Some(hedge) = hedge {
            pack_hedge(&mut packer, hedge, *since);
        }
        packer.rest(&request.difference);
        Self {
            run_id: request.run_id,
            terms: Arc::clone(&request.terms),
            last_outcome: last_outcome.as_ref().map(|outcome| shares.outcome(outcome)),
            rest: packer.into_bytes().into(),
        }
    }

    /// The run.
    pub(crate) fn run(&self) -> Run {
        let mut unpacker = Unpacker::new(&self.rest);
        let flags = unpacker.unsigned();
        let has = |flag| flags & flag != 0;
        let mut request = unpack_request(&mut unpacker, flags, self.run_id, &self.terms);
        let since = unpacker.instant(request.requested_at);
        let attempt = small(unpacker.signed());
        let token = unpacker.signed();
        let step = unpack_step(&mut unpacker, (flags & STEP_BITS, has(IS_OFFERED)), since);
        let first_failure = has(HAS_FAILED).then(|| unpacker.instant(request.requested_at));
        let redriven_at = has(WAS_REDRIVEN).then(|| unpacker.instant(request.requested_at));
        let redrives = if has(WAS_DEAD) { small(unpacker.signed()) } else { 0 };
        let attempts_before = if has(WAS_DEAD) { small(unpacker.signed()) } else { 0 };
        let cancel_reason = has(IS_CANCELLING).then(|| unpacker.text().into());
        let count = if has(HAS_COMMANDS) { unpacker.unsigned() } else { 0 };
        let recent_commands: Arc<[CommandId]> = (0..count).map(|_| id(CommandId::new(unpacker.text()))).collect();
        let count = if has(HAS_LIMITS) { unpacker.unsigned() } else { 0 };
        let limits: Arc<[LimitId]> = (0..count).map(|_| id(LimitId::new(unpacker.text()))).collect();
        let unserved = if has(WAS_UNSERVED) { small(unpacker.signed()) } else { 0 };
        let completion = has(IS_COMPLETED).then(|| Arc::new(unpack_outcome(&mut unpacker)));
        let hedge = has(HAS_HEDGE).then(|| Arc::new(unpack_hedge(&mut unpacker, since)));
        request.difference = unpacker.rest().into();
        Run {
            request: Arc::new(request),
            step,
            attempt,
            token,
            since,
            first_failure,
            last_outcome: self.last_outcome.clone(),
            redrives,
            recent_commands,
            cancel_reason,
            redriven_at,
            attempts_before,
            limits,
            unserved,
            completion,
            hedge,
        }
    }

    /// The run's id.
    pub(crate) fn run_id(&self) -> RunId {
        self.run_id
    }
}

fn was_dead(run: &Run) -> bool {
    (run.redrives, run.attempts_before) != (0, 0)
}

fn flags(run: &Run) -> u64 {
    let step = match run.step {
        Step::Delayed { .. } => DELAYED,
        Step::Waiting => WAITING,
        Step::Unplaced { .. } => UNPLACED,
        Step::Ready | Step::Offered { .. } => READY,
        Step::Running { .. } => RUNNING,
        Step::Retrying { .. } => RETRYING,
        Step::Asking { .. } => ASKING,
        Step::Unserved { .. } => UNSERVED,
    };
    let fields = [
        (run.request.reports_end, REPORTS_END),
        (run.first_failure.is_some(), HAS_FAILED),
        (run.redriven_at.is_some(), WAS_REDRIVEN),
        (was_dead(run), WAS_DEAD),
        (run.cancel_reason.is_some(), IS_CANCELLING),
        (!run.recent_commands.is_empty(), HAS_COMMANDS),
        (!run.limits.is_empty(), HAS_LIMITS),
        (run.unserved != 0, WAS_UNSERVED),
        (run.completion.is_some(), IS_COMPLETED),
        (run.hedge.is_some(), HAS_HEDGE),
        (matches!(run.step, Step::Offered { .. } | Step::Unplaced { was_offered: true }), IS_OFFERED),
    ];
    let fields = fields.iter().filter(|(is_there, _)| *is_there).map(|(_, flag)| flag).sum::<u64>();
    step | (run.request.trigger as u64) << TRIGGER_SHIFT | fields
}

fn pack_request(packer: &mut Packer, request: &Request) {
    // Terms, id and difference have places of their own; the trigger and who waits are among the flags.
    let Request {
        terms,
        run_id: _,
        trigger: _,
        fire_time,
        requested_at,
        start_delay,
        reports_end: _,
        offset,
        difference: _,
    } = request;
    packer.instant(*fire_time, terms.base);
    packer.instant(*requested_at, *fire_time);
    packer.unsigned(u64::try_from(start_delay.as_millis()).unwrap_or(u64::MAX));
    packer.signed(*offset);
}

fn unpack_request(unpacker: &mut Unpacker<'_>, flags: u64, run_id: RunId, terms: &Arc<Terms>) -> Request {
    let trigger = usize::try_from(flags >> TRIGGER_SHIFT & TRIGGER_BITS).unwrap_or(usize::MAX);
    let fire_time = unpacker.instant(terms.base);
    Request {
        terms: Arc::clone(terms),
        run_id,
        trigger: TriggerKind::ALL[trigger],
        fire_time,
        requested_at: unpacker.instant(fire_time),
        start_delay: Duration::from_millis(unpacker.unsigned()),
        reports_end: flags & REPORTS_END != 0,
        offset: unpacker.signed(),
        difference: Box::default(),
    }
}

fn pack_step(packer: &mut Packer, step: &Step, since: Timestamp) {
    match step {
        Step::Delayed { due_at } | Step::Retrying { due_at } | Step::Unserved { due_at } => {
            packer.instant(*due_at, since);
        }
        Step::Asking { held, asked_at } => {
            packer.unsigned(*held as u64);
            packer.instant(*asked_at, since);
        }
        Step::Running { runner, session } => {
            packer.bytes(runner.as_str().as_bytes());
            packer.bytes(session.as_str().as_bytes());
        }
        Step::Offered { runner, session, said_at } => {
            packer.bytes(runner.as_str().as_bytes());
            packer.bytes(session.as_str().as_bytes());
            packer.instant(*said_at, since);
        }
        Step::Waiting | Step::Unplaced { .. } | Step::Ready => {}
    }
}

fn unpack_step(unpacker: &mut Unpacker<'_>, (step, is_offered): (u64, bool), since: Timestamp) -> Step {
    match step {
        DELAYED => Step::Delayed { due_at: unpacker.instant(since) },
        WAITING => Step::Waiting,
        UNPLACED => Step::Unplaced { was_offered: is_offered },
        READY if is_offered => {
            let runner = id(RunnerId::new(unpacker.text()));
            let session = id(SessionId::new(unpacker.text()));
            Step::Offered { runner, session, said_at: unpacker.instant(since) }
        }
        READY => Step::Ready,
        RUNNING => {
            let runner = id(RunnerId::new(unpacker.text()));
            Step::Running { runner, session: id(SessionId::new(unpacker.text())) }
        }
        RETRYING => Step::Retrying { due_at: unpacker.instant(since) },
        ASKING => {
            let held = usize::try_from(unpacker.unsigned()).unwrap_or(usize::MAX);
            Step::Asking { held, asked_at: unpacker.instant(since) }
        }
        UNSERVED => Step::Unserved { due_at: unpacker.instant(since) },
        other => unreachable!("no step is packed as {other}"),
    }
}

fn pack_hedge(packer: &mut Packer, hedge: &Hedge, run_since: Timestamp) {
    let Hedge { attempt, token, since, step } = hedge;
    packer.signed(i64::from(*attempt));
    packer.signed(*token);
    packer.instant(*since, run_since);
    match step {
        HedgeStep::Ready => packer.unsigned(READY),
        HedgeStep::Running { runner, session } => {
            packer.unsigned(RUNNING);
            packer.bytes(runner.as_str().as_bytes());
            packer.bytes(session.as_str().as_bytes());
        }
        HedgeStep::Over => packer.unsigned(WAITING),
    }
}

fn unpack_hedge(unpacker: &mut Unpacker<'_>, run_since: Timestamp) -> Hedge {
    let attempt = small(unpacker.signed());
    let token = unpacker.signed();
    let since = unpacker.instant(run_since);
    let step = match unpacker.unsigned() {
        READY => HedgeStep::Ready,
        RUNNING => {
            let runner = id(RunnerId::new(unpacker.text()));
            HedgeStep::Running { runner, session: id(SessionId::new(unpacker.text())) }
        }
        WAITING => HedgeStep::Over,
        other => unreachable!("no step of a hedge is packed as {other}"),
    };
    Hedge { attempt, token, since, step }
}

fn pack_outcome(packer: &mut Packer, outcome: &Outcome) {
    let Outcome { kind, exit_code, signal, message, http_status, retry_after_ms, is_final } = outcome;
    packer.unsigned(*kind as u64);
    packer.unsigned(u64::from(*is_final));
    let numbers = [exit_code, signal, http_status].map(|number| number.map(i64::from));
    for number in numbers.into_iter().chain([*retry_after_ms]) {
        packer.unsigned(u64::from(number.is_some()));
        number.into_iter().for_each(|number| packer.signed(number));
    }
    packer.unsigned(u64::from(message.is_some()));
    message.iter().for_each(|message| packer.bytes(message.as_bytes()));
}

fn unpack_outcome(unpacker: &mut Unpacker<'_>) -> Outcome {
    let kind = usize::try_from(unpacker.unsigned()).unwrap_or(usize::MAX);
    let is_final = unpacker.unsigned() != 0;
    let mut number = || (unpacker.unsigned() != 0).then(|| unpacker.signed());
    let [exit_code, signal, http_status] = [(); 3].map(|()| number().map(small));
    let retry_after_ms = number();
    let message = (unpacker.unsigned() != 0).then(|| unpacker.text().to_owned());
    Outcome { kind: OutcomeKind::ALL[kind], exit_code, signal, message, http_status, retry_after_ms, is_final }
}

fn small(number: i64) -> i32 {
    i32::try_from(number).unwrap_or_else(|_| unreachable!("it was an i32 when it was packed"))
}

fn id<T>(id: Result<T, IdError>) -> T {
    id.unwrap_or_else(|error| unreachable!("it was an id when it was packed: {error}"))
}

#[cfg(test)]
mod tests {
    use orloj_domain::id::QueueName;
    use orloj_domain::job::Delivery;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Ask, outcome, request};

    fn instant() -> impl Strategy<Value = Timestamp> {
        any::<i64>().prop_map(Timestamp::from_millis)
    }

    fn step() -> impl Strategy<Value = Step> {
        let name = "[a-z]{1,9}";
        prop_oneof![
            instant().prop_map(|due_at| Step::Delayed { due_at }),
            Just(Step::Waiting),
            Just(Step::Ready),
            any::<bool>().prop_map(|was_offered| Step::Unplaced { was_offered }),
            (name, name, instant()).prop_map(|(runner, session, said_at)| {
                Step::Offered { runner: id(runner.parse()), session: id(session.parse()), said_at }
            }),
            (name, name).prop_map(|(runner, session)| {
                Step::Running { runner: id(runner.parse()), session: id(session.parse()) }
            }),
            instant().prop_map(|due_at| Step::Retrying { due_at }),
            (0..3_usize, instant()).prop_map(|(held, asked_at)| Step::Asking { held, asked_at }),
            instant().prop_map(|due_at| Step::Unserved { due_at }),
        ]
    }

    fn hedge() -> impl Strategy<Value = Hedge> {
        let name = "[a-z]{1,9}";
        let step = prop_oneof![
            Just(HedgeStep::Ready),
            (name, name).prop_map(|(runner, session)| {
                HedgeStep::Running { runner: id(runner.parse()), session: id(session.parse()) }
            }),
            Just(HedgeStep::Over),
        ];
        let numbers = (any::<i32>(), any::<i64>(), instant(), step);
        numbers.prop_map(|(attempt, token, since, step)| Hedge { attempt, token, since, step })
    }

    proptest! {
        #[test]
        fn a_run_comes_back_as_it_was(
            (number, delay_s, is_once, headers) in (0..3_i64, 0..100_000_i64, any::<bool>(), 0..3_usize),
            (step, attempt, token, since) in (step(), any::<i32>(), any::<i64>(), instant()),
            (first_failure, redriven_at) in (proptest::option::of(instant()), proptest::option::of(instant())),
            (redrives, attempts_before, offset) in (0..3_i32, any::<i32>(), any::<i64>()),
            (reason, commands) in (proptest::option::of(".{0,9}"), proptest::collection::vec("[a-z]{1,9}", 0..4)),
            (trigger, reports_end, has_outcome) in (0..TriggerKind::ALL.len(), any::<bool>(), any::<bool>()),
            (fire_time, requested_at) in (instant(), instant()),
            (limits, unserved) in (proptest::collection::vec("[a-z]{1,9}", 0..3), 0..3_i32),
            hedge in proptest::option::of(hedge()),
            (exit_code, message, completed) in (any::<Option<i32>>(), proptest::option::of(".{0,9}"), any::<bool>()),
        ) {
            let shares = Shares::default();
            let first = request(&Ask::of("a/b", 1), &[], &shares);
            let delivery = if is_once { Delivery::AtMostOnce } else { Delivery::AtLeastOnce };
            let mut request = request(&Ask { delay_s, delivery, ..Ask::of("a/b", number) }, &vec![7; headers], &shares);
            prop_assert_eq!(Arc::ptr_eq(&request.terms, &first.terms), number == 1 && !is_once);
            request.offset = offset;
            request.trigger = TriggerKind::ALL[trigger];
            request.reports_end = reports_end;
            (request.fire_time, request.requested_at) = (fire_time, requested_at);
            let run = Run {
                step, attempt, token, since, first_failure, redrives, redriven_at, attempts_before,
                last_outcome: has_outcome.then(|| Arc::new(outcome(OutcomeKind::Failed))),
                recent_commands: commands.iter().map(|command| id(command.parse())).collect(),
                cancel_reason: reason.map(Into::into),
                limits: limits.iter().map(|limit| id(LimitId::new(&format!("limit/{limit}")))).collect(),
                unserved,
                completion: completed.then(|| Arc::new(Outcome {
                    exit_code, message, is_final: is_once, retry_after_ms: Some(offset), ..outcome(OutcomeKind::Failed)
                })),
                hedge: hedge.map(Arc::new),
                ..Run::waiting(Arc::new(request), since)
            };
            let packed = Packed::of(&run, &shares);
            let back = packed.run();
            prop_assert_eq!(&back, &run);
            prop_assert_eq!(&back.request.difference, &run.request.difference);
            prop_assert_eq!(&back.request.queue, &QueueName::default());
        }
    }
}
