//! A runner as the dispatcher sees it: it claims, waits for a word where it has to, stops when told to, reports, sends
//! heartbeats, sometimes vanishes and sometimes says things twice; and the targets that call back, as the API passes it on.
//! Not here: real processes (`services/runner` has its own tests). Invariant: it executes only what it claimed in a committed
//! batch.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, Outcome, OutcomeKind, ReadyAttempt};
use orloj_domain::command::{Command, CommandType};
use orloj_domain::fire::FireDecision;
use orloj_domain::id::{QueueName, RunId, RunnerId, SessionId};
use orloj_domain::job::{HttpCompletion, Target};
use orloj_domain::runner::{RunnerHeartbeat, RunnerMessage, RunnerMessageType};
use orloj_domain::shard::ShardCount;
use orloj_domain::time::Timestamp;
use orloj_domain::topic;
use orloj_runtime::clock::{Clock, ManualClock};
use orloj_runtime::codec;
use orloj_runtime::log::{
    AppendError, Claimer, ClaimerPoll, ClaimerSpec, Isolation, Log, NewRecord, Reader, TopicPartition,
};

use crate::random::Random;
use crate::workload;

/// How long the dispatcher waits for a sign of life.
pub(crate) const LEASE: Duration = Duration::from_secs(6);
const SLOTS: usize = 8;
/// How long an attempt waits for what its callback said: less than a dispatcher may be away.
const CALLBACK_PATIENCE: Duration = Duration::from_secs(4);

/// How long an attempt hangs: longer than one round of healing.
const HANGS: Duration = Duration::from_secs(150);

struct Busy {
    ready: ReadyAttempt,
    partition: i32,
    /// `None` until it may start. Of one that calls back: when it does, then when it times out.
    ends_at: Option<Timestamp>,
    is_cancelled: bool,
    calls_back: Calls,
    /// What its callback said, as the dispatcher passed it on.
    completion: Option<OutcomeKind>,
}

/// Whether the target of an attempt says later how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Calls {
    Never,
    Later,
    HasCalled,
}

impl Busy {
    fn is_over(&self, now: Timestamp) -> bool {
        let is_past = |instant: Option<Timestamp>| instant.is_some_and(|instant| instant <= now);
        let is_at_end = is_past(self.ends_at) && self.calls_back != Calls::Later;
        self.is_cancelled || self.completion.is_some() || is_at_end || is_past(self.ready.deadline)
    }

    fn how_it_ended(&self, random: &mut Random, now: Timestamp) -> OutcomeKind {
        if let Some(kind) = self.completion {
            kind
        } else if self.is_cancelled {
            OutcomeKind::Cancelled
        } else if self.ready.deadline.is_some_and(|deadline| deadline <= now) {
            OutcomeKind::Expired
        } else if self.calls_back == Calls::HasCalled {
            OutcomeKind::TimedOut
        } else if random.chance(60) {
            OutcomeKind::Succeeded
        } else {
            OutcomeKind::Failed
        }
    }
}

/// One life of one runner.
pub(crate) struct ModelRunner {
    log: Arc<dyn Log>,
    clock: ManualClock,
    claimer: Box<dyn Claimer>,
    inbox: Box<dyn Reader>,
    session: SessionId,
    runner: RunnerId,
    since: Timestamp,
    sequence: i64,
    next_heartbeat: Timestamp,
    confirmed_at: Timestamp,
    busy: Vec<Busy>,
    labels: BTreeMap<String, String>,
    /// What it alone may claim, with its partition.
    offers: Vec<(ReadyAttempt, i32)>,
    /// What it has claimed of that.
    taken: BTreeSet<(RunId, i64)>,
}

impl ModelRunner {
    pub(crate) fn new(
        log: Arc<dyn Log>,
        clock: ManualClock,
        shards: ShardCount,
        (name, life): (&str, u64),
        labels: BTreeMap<String, String>,
    ) -> Self {
        let queue = QueueName::default();
        let session = format!("{name}-{life}");
        let claimer = log
            .claim(ClaimerSpec {
                group: format!("runner.{queue}"),
                topics: [&queue, &workload::free_queue()].map(topic::run_ready).to_vec(),
                member: session.clone(),
                peers: None,
            })
            .expect("joining never fails in memory");
        let mut inbox = log.reader(Isolation::Committed).expect("in memory");
        let ends: Vec<_> = shards
            .all()
            .map(|shard| TopicPartition::new(topic::RUNNER_INBOX, shard.0))
            .map(|at| (at.clone(), log.end(&at, Isolation::Committed).expect("in memory")))
            .collect();
        inbox.read_from(&ends).expect("in memory");
        let now = clock.now();
        Self {
            log,
            clock,
            claimer,
            inbox,
            session: SessionId::new(&session).expect("a valid id"),
            runner: RunnerId::new(name).expect("a valid id"),
            since: now,
            sequence: 0,
            next_heartbeat: now,
            confirmed_at: now,
            busy: Vec::new(),
            labels,
            offers: Vec::new(),
            taken: BTreeSet::new(),
        }
    }

    /// What it says about itself.
    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Attempts it executes now.
    pub(crate) fn live(&self) -> impl Iterator<Item = (&ReadyAttempt, bool)> {
        let is_valid = self.clock.now().since(self.confirmed_at) < LEASE;
        self.busy.iter().filter(|busy| busy.ends_at.is_some()).map(move |busy| (&busy.ready, is_valid))
    }

    /// Attempts it holds, those too that may not begin yet.
    pub(crate) fn busy(&self) -> impl Iterator<Item = &ReadyAttempt> {
        self.busy.iter().map(|busy| &busy.ready)
    }

    pub(crate) fn turn(&mut self, random: &mut Random) {
        let now = self.clock.now();
        self.fence_itself(now);
        self.beat(now);
        self.listen(random, now);
        self.call_back(random, now);
        self.finish(random, now);
        self.claim(random, now);
        self.claim_offers(random, now);
    }

    /// A runner that could not confirm its lease ends its attempts itself, early enough, and goes on as another
    /// session: the one that held them is never heard of again.
    fn fence_itself(&mut self, now: Timestamp) {
        if now.since(self.confirmed_at) >= LEASE - LEASE / 5 {
            self.busy.clear();
            self.offers.clear();
            self.session = SessionId::new(&format!("{}-{}", self.session, now.millis())).expect("a valid id");
            self.next_heartbeat = now;
        }
    }

    fn beat(&mut self, now: Timestamp) {
        if now < self.next_heartbeat {
            return;
        }
        self.sequence += 1;
        let heartbeat = RunnerHeartbeat {
            runner: self.runner.clone(),
            session: self.session.clone(),
            sequence: self.sequence,
            at: now,
            since: self.since,
            lease_ms: i64::try_from(LEASE.as_millis()).expect("small"),
            queues: vec![QueueName::default(), workload::free_queue()],
            slots: i32::try_from(SLOTS).expect("small"),
            busy: i32::try_from(self.busy.len()).expect("small"),
            is_draining: false,
            host: "sim".to_owned(),
            queue_weights: BTreeMap::new(),
            labels: self.labels.clone(),
        };
        let record = NewRecord::new(topic::RUNNER_HEARTBEATS, 0, self.runner.as_str(), Some(codec::encode(&heartbeat)));
        self.append(vec![record]);
        self.confirmed_at = now;
        self.next_heartbeat = now.plus(LEASE / 3);
    }

    fn listen(&mut self, random: &mut Random, now: Timestamp) {
        for record in self.inbox.poll(1000, Duration::ZERO).expect("reading never fails in memory") {
            let value = record.value.as_deref().expect("messages have values");
            let message: RunnerMessage = codec::decode(value).expect("messages decode");
            if message.session != self.session {
                continue;
            }
            let key = (message.run_id, message.token);
            if message.kind == RunnerMessageType::Offer {
                // Sometimes one is lost on the way.
                let is_lost = random.chance(10);
                self.offers.extend(message.ready.filter(|_| !is_lost).map(|ready| (ready, record.partition)));
                continue;
            }
            if message.kind == RunnerMessageType::Cancel {
                self.offers.retain(|(ready, _)| (ready.run_id, ready.token) != key);
            }
            for busy in self.busy.iter_mut().filter(|busy| (busy.ready.run_id, busy.ready.token) == key) {
                match message.kind {
                    RunnerMessageType::Cancel => busy.is_cancelled = true,
                    RunnerMessageType::Start => busy.ends_at = Some(ends_at(random, &busy.ready, now)),
                    RunnerMessageType::Complete => {
                        let outcome = message.outcome.as_ref().expect("it says how");
                        assert!(!busy.is_cancelled, "cancelled, and then completed");
                        busy.completion = busy.completion.or(Some(outcome.kind));
                    }
                    RunnerMessageType::Offer | RunnerMessageType::Unknown => panic!("not about what it holds"),
                }
            }
        }
    }

    /// Targets say how their attempts ended, sometimes twice and not the same.
    fn call_back(&mut self, random: &mut Random, now: Timestamp) {
        let mut records = Vec::new();
        for busy in &mut self.busy {
            if busy.calls_back != Calls::Later || busy.ends_at.is_none_or(|ends_at| ends_at > now) {
                continue;
            }
            (busy.calls_back, busy.ends_at) = (Calls::HasCalled, Some(now.plus(CALLBACK_PATIENCE)));
            for index in 0..1 + u64::from(random.chance(30)) {
                let kind = if random.chance(60) { OutcomeKind::Succeeded } else { OutcomeKind::Failed };
                records.push(completion(busy, kind, index, now));
            }
        }
        if !records.is_empty() {
            self.append(records);
        }
    }

    fn finish(&mut self, random: &mut Random, now: Timestamp) {
        let (ended, busy) = std::mem::take(&mut self.busy).into_iter().partition(|busy| busy.is_over(now));
        self.busy = busy;
        let ended: Vec<Busy> = ended;
        for busy in ended {
            let kind = busy.how_it_ended(random, now);
            let mut outcome = Outcome::new(kind, "");
            outcome.exit_code = Some(i32::from(kind != OutcomeKind::Succeeded));
            let mut event = self.event(&busy.ready, AttemptEventType::Finished, now);
            event.outcome = Some(outcome);
            let record = record_of(&event, busy.partition);
            // An acknowledgement that got lost makes a runner say it again.
            let records = if random.chance(20) { vec![record.clone(), record] } else { vec![record] };
            self.append(records);
        }
    }

    fn claim(&mut self, random: &mut Random, now: Timestamp) {
        let free = SLOTS.saturating_sub(self.busy.len());
        let polled = self.claimer.poll(free, Duration::ZERO).expect("reading never fails in memory");
        let records = match polled {
            ClaimerPoll::Records(records) => records,
            ClaimerPoll::Rebalanced => return,
        };
        if records.is_empty() {
            return;
        }
        let mut claims = Vec::new();
        let mut consumed: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        let mut taken = Vec::new();
        for record in &records {
            let value = record.value.as_deref().expect("ready records have values");
            let ready: ReadyAttempt = codec::decode(value).expect("ready records decode");
            let mut event = self.event(&ready, AttemptEventType::Claimed, now);
            event.lease_ms = Some(i64::try_from(LEASE.as_millis()).expect("small"));
            claims.push(record_of(&event, record.partition));
            consumed.insert(record.topic_partition(), record.offset + 1);
            let ends_at = (!ready.awaits_start).then(|| ends_at(random, &ready, now));
            let calls_back = calls_back(&ready);
            let partition = record.partition;
            taken.push(Busy { ready, partition, ends_at, is_cancelled: false, calls_back, completion: None });
        }
        let consumed: Vec<_> = consumed.into_iter().collect();
        match self.claimer.claim(claims, &consumed) {
            Ok(_) => self.busy.extend(taken),
            Err(AppendError::Refused(_)) => {}
            Err(error) => panic!("a claim failed in memory: {error}"),
        }
    }

    /// Claims what was offered to it, sometimes twice, as whoever did not hear the answer does.
    fn claim_offers(&mut self, random: &mut Random, now: Timestamp) {
        let free = SLOTS.saturating_sub(self.busy.len()).min(self.offers.len());
        for (ready, partition) in self.offers.drain(..free).collect::<Vec<_>>() {
            if !self.taken.insert((ready.run_id, ready.token)) {
                continue;
            }
            let mut event = self.event(&ready, AttemptEventType::Claimed, now);
            event.lease_ms = Some(i64::try_from(LEASE.as_millis()).expect("small"));
            let record = record_of(&event, partition);
            self.append(if random.chance(20) { vec![record.clone(), record] } else { vec![record] });
            assert!(ready.awaits_start, "another may hold it by now");
            let calls_back = calls_back(&ready);
            self.busy.push(Busy { ready, partition, ends_at: None, is_cancelled: false, calls_back, completion: None });
        }
    }

    fn event(&self, ready: &ReadyAttempt, kind: AttemptEventType, now: Timestamp) -> AttemptEvent {
        AttemptEvent {
            kind,
            run_id: ready.run_id,
            job: ready.job.clone(),
            attempt: ready.attempt,
            token: ready.token,
            runner: self.runner.clone(),
            session: self.session.clone(),
            at: now,
            lease_ms: None,
            isolation: None,
            percent: None,
            outcome: None,
            callback_digest: None,
            started_at: None,
            has_output: None,
        }
    }

    fn append(&self, records: Vec<NewRecord>) {
        let mut appender = self.log.appender().expect("in memory");
        appender.append(records).expect("appending never fails in memory");
    }
}

fn calls_back(ready: &ReadyAttempt) -> Calls {
    let request: FireDecision = codec::decode(&ready.request).expect("requests decode");
    match &request.spec.expect("a request says what to run").target {
        Target::HttpTarget(target) if target.completion == HttpCompletion::Callback => Calls::Later,
        Target::HttpTarget(_)
        | Target::ExecTarget(_)
        | Target::ShellTarget(_)
        | Target::KafkaTarget(_)
        | Target::HandlerTarget(_) => Calls::Never,
    }
}

/// What the API writes of a callback.
fn completion(busy: &Busy, kind: OutcomeKind, index: u64, now: Timestamp) -> NewRecord {
    let ready = &busy.ready;
    let id = format!("complete-{}-{}-{index}", ready.run_id, ready.token);
    let command = Command {
        at: Some(now),
        run_id: Some(ready.run_id),
        attempt: Some(ready.attempt),
        token: Some(ready.token),
        outcome: Some(Outcome::new(kind, "")),
        ..Command::new(CommandType::Complete, id.parse().expect("a valid id"))
    };
    NewRecord::new(topic::COMMANDS, busy.partition, ready.job.as_str(), Some(codec::encode(&command)))
}

/// Soon; but some first attempts that get another beside them hang, so that who forgets to stop them is found out.
fn ends_at(random: &mut Random, ready: &ReadyAttempt, now: Timestamp) -> Timestamp {
    let request: FireDecision = codec::decode(&ready.request).expect("requests decode");
    let spec = request.spec.expect("a request says what to run");
    let may_hang = ready.attempt == 1 && spec.hedge_after_ms.is_some() && spec.queue == workload::free_queue();
    if may_hang && random.chance(10) {
        return now.plus(HANGS);
    }
    now.plus(Duration::from_millis(random.below(3000)))
}

fn record_of(event: &AttemptEvent, partition: i32) -> NewRecord {
    NewRecord::new(topic::ATTEMPT_EVENTS, partition, event.job.as_str(), Some(codec::encode(event)))
}
