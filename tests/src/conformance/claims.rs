//! Cases: members of a consumer group take records by a claim that moves positions and appends, all or nothing.
//! Not here: shards (`ownership`).

use std::collections::{BTreeMap, BTreeSet};

use orloj_runtime::log::{AppendError, Claimer, ClaimerPoll, ClaimerSpec, Isolation, Log, Record, TopicPartition};

use super::{Backend, MAX, POLL, append, create, read_to_end, record, text, texts};
use crate::wait;

const READY: &str = "ready";
const CLAIMED: &str = "claimed";

struct Member {
    claimer: Box<dyn Claimer>,
    handed: Vec<Record>,
    rebalanced: usize,
}

impl Member {
    #[track_caller]
    fn join(log: &dyn Log, name: &str) -> Self {
        let spec = ClaimerSpec {
            group: "runners".to_owned(),
            topics: vec![READY.to_owned()],
            member: name.to_owned(),
            peers: None,
        };
        Self { claimer: log.claim(spec).expect("a membership"), handed: Vec::new(), rebalanced: 0 }
    }

    #[track_caller]
    fn poll(&mut self) {
        match self.claimer.poll(MAX, POLL).expect("a poll") {
            ClaimerPoll::Records(records) => self.handed.extend(records),
            ClaimerPoll::Rebalanced => {
                self.handed.clear();
                self.rebalanced += 1;
            }
        }
    }

    /// Shows that it lives, and wants no records.
    #[track_caller]
    fn poll_for_nothing(&mut self) {
        match self.claimer.poll(0, std::time::Duration::ZERO).expect("a poll") {
            ClaimerPoll::Records(records) => assert_eq!(texts(&records), Vec::<String>::new(), "nobody wanted any"),
            ClaimerPoll::Rebalanced => {
                self.handed.clear();
                self.rebalanced += 1;
            }
        }
    }

    /// Claims the first `count` records handed out.
    fn claim(&mut self, count: usize) -> Result<(), AppendError> {
        let mut consumed = BTreeMap::new();
        let taken: Vec<Record> = self.handed.iter().take(count).cloned().collect();
        for record in &taken {
            consumed.insert(record.topic_partition(), record.offset + 1);
        }
        let claims = taken.iter().map(|taken| record(CLAIMED, 0, "claim", &text(taken))).collect();
        let consumed: Vec<(TopicPartition, i64)> = consumed.into_iter().collect();
        self.claimer.claim(claims, &consumed)?;
        self.handed.drain(..taken.len());
        Ok(())
    }
}

fn create_topics(backend: &impl Backend, partitions: i32) {
    create(&*backend.log(), READY, partitions, &[]);
    create(&*backend.log(), CLAIMED, 1, &[]);
}

fn offer(backend: &impl Backend, partition: i32, names: std::ops::Range<usize>) {
    append(
        &*backend.log(),
        names.map(|name| record(READY, partition, "run", &format!("{partition}-{name}"))).collect(),
    );
}

fn claimed(backend: &impl Backend) -> Vec<String> {
    texts(&read_to_end(backend, &TopicPartition::new(CLAIMED, 0), 0, Isolation::Committed))
}

#[track_caller]
fn until_handed(backend: &impl Backend, member: &mut Member, names: &[&str]) {
    wait::until(&format!("{names:?} to be handed out"), backend.patience(), || {
        member.poll();
        (member.handed.len() >= names.len()).then_some(())
    });
    assert_eq!(texts(&member.handed), names);
}

/// Positions travel with the batch: the next member starts behind what was claimed, and is handed again what was
/// only handed out.
pub fn positions_travel_with_the_batch(backend: &mut impl Backend) {
    create_topics(backend, 1);
    offer(backend, 0, 0..4);
    let mut first = Member::join(&*backend.log(), "first");
    until_handed(backend, &mut first, &["0-0", "0-1", "0-2", "0-3"]);
    first.claim(2).expect("claimed");
    first.claimer.leave();
    backend.reopen();
    let mut second = Member::join(&*backend.log(), "second");
    until_handed(backend, &mut second, &["0-2", "0-3"]);
    second.claim(1).expect("claimed");
    assert_eq!(claimed(backend), ["0-0", "0-1", "0-2"]);
}

/// A claim that is refused moves nothing.
pub fn a_refused_claim_moves_nothing(backend: &mut impl Backend) {
    create_topics(backend, 1);
    offer(backend, 0, 0..2);
    let mut member = Member::join(&*backend.log(), "member");
    until_handed(backend, &mut member, &["0-0", "0-1"]);
    let huge = orloj_runtime::log::NewRecord::new(CLAIMED, 0, "claim", Some(vec![0; 2 * 1024 * 1024]));
    let outcome = member.claimer.claim(vec![huge], &[(TopicPartition::new(READY, 0), 2)]);
    assert!(matches!(outcome, Err(AppendError::TooLarge { .. })), "{outcome:?}");
    member.claimer.leave();
    let mut next = Member::join(&*backend.other(), "next");
    until_handed(backend, &mut next, &["0-0", "0-1"]);
    assert!(claimed(backend).is_empty());
}

/// Members share the partitions; every record is claimed once, also while members come and go.
pub fn every_record_is_claimed_once(backend: &mut impl Backend) {
    create_topics(backend, 4);
    (0..4).for_each(|partition| offer(backend, partition, 0..25));
    let mut first = Member::join(&*backend.log(), "first");
    claim_until(backend, &mut [&mut first], 20);
    let mut second = Member::join(&*backend.other(), "second");
    wait::until("both to have a share", backend.patience(), || {
        let _ = (claim_some(&mut first), claim_some(&mut second));
        (0..4).for_each(|partition| offer(backend, partition, 100..101));
        (second.rebalanced + second.handed.len() > 0).then_some(())
    });
    (0..4).for_each(|partition| offer(backend, partition, 25..50));
    claim_until(backend, &mut [&mut first, &mut second], 150);
    first.claimer.leave();
    wait::until("everything to be claimed", backend.patience(), || {
        let _ = claim_some(&mut second);
        let found: BTreeSet<String> = claimed(backend).into_iter().collect();
        (0..4).all(|partition| (0..50).all(|name| found.contains(&format!("{partition}-{name}")))).then_some(())
    });
    let mut found = claimed(backend);
    found.retain(|name| !name.ends_with("-100"));
    let distinct: BTreeSet<&String> = found.iter().collect();
    assert_eq!((found.len(), distinct.len()), (200, 200), "claimed once each");
}

/// Polls, then claims some of what was handed out; a refusal is followed by a rebalance.
fn claim_some(member: &mut Member) -> usize {
    member.poll_for_nothing();
    member.poll();
    let count = member.handed.len().min(7);
    match member.claim(count) {
        Ok(()) => count,
        Err(AppendError::Refused(_) | AppendError::Retriable(_)) => 0,
        Err(error) => panic!("the claim failed: {error}"),
    }
}

#[track_caller]
fn claim_until(backend: &impl Backend, members: &mut [&mut Member], count: usize) {
    wait::until(&format!("{count} claims"), backend.patience(), || {
        for member in &mut *members {
            claim_some(member);
        }
        (claimed(backend).len() >= count).then_some(())
    });
}

/// A member frozen past its session: what it was handed goes to another, its claim is refused, and it is told
/// to drop what it has.
pub fn a_stale_claim_is_refused(backend: &mut impl Backend) {
    create_topics(backend, 1);
    offer(backend, 0, 0..3);
    let mut frozen = Member::join(&*backend.other(), "frozen");
    until_handed(backend, &mut frozen, &["0-0", "0-1", "0-2"]);
    let mut heir = Member::join(&*backend.log(), "heir");
    backend.outlast_session(&mut || heir.poll());
    until_handed(backend, &mut heir, &["0-0", "0-1", "0-2"]);
    heir.claim(1).expect("claimed");
    let outcome = frozen.claim(2);
    assert!(matches!(outcome, Err(AppendError::Refused(_) | AppendError::Unknown(_))), "{outcome:?}");
    wait::until("the rebalance to be told", backend.patience(), || {
        heir.poll();
        frozen.poll();
        (frozen.rebalanced > 0).then_some(())
    });
    assert!(frozen.handed.len() <= 2, "what was claimed by another is not handed out again");
    assert_eq!(claimed(backend), ["0-0"]);
}

/// A member that polls for nothing keeps its share for longer than a silent one would: what it was handed it can claim,
/// and what came meanwhile it is handed in order, once, and is not taken for claimed.
pub fn who_wants_nothing_stays_a_member(backend: &mut impl Backend) {
    const MORE: usize = 100;
    create_topics(backend, 1);
    offer(backend, 0, 0..2);
    let mut member = Member::join(&*backend.other(), "member");
    until_handed(backend, &mut member, &["0-0", "0-1"]);
    let rebalanced = member.rebalanced;
    offer(backend, 0, 2..MORE);
    backend.outlast_session(&mut || member.poll_for_nothing());
    assert_eq!((member.rebalanced, texts(&member.handed)), (rebalanced, vec!["0-0".to_owned(), "0-1".to_owned()]));
    member.claim(2).expect("claimed: it has lived all the time");
    let names: Vec<String> = (2..MORE).map(|name| format!("0-{name}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    until_handed(backend, &mut member, &names);
    (0..3).for_each(|_| member.poll_for_nothing());
    member.claim(1).expect("claimed");
    member.claimer.leave();
    let mut next = Member::join(&*backend.log(), "next");
    until_handed(backend, &mut next, &names[1..]);
    assert_eq!(claimed(backend), ["0-0", "0-1", "0-2"]);
}

/// A waiting poll is woken by a new record and by a waker.
pub fn a_waiting_claimer_wakes(backend: &mut impl Backend) {
    create_topics(backend, 1);
    offer(backend, 0, 0..1);
    let mut member = Member::join(&*backend.log(), "member");
    until_handed(backend, &mut member, &["0-0"]);
    member.claim(1).expect("claimed");
    let log = backend.log();
    let offering = std::thread::spawn(move || append(&*log, vec![record(READY, 0, "run", "0-1")]));
    wait::until("the record", backend.patience(), || {
        let poll = member.claimer.poll(MAX, backend.patience()).expect("a poll");
        matches!(poll, ClaimerPoll::Records(records) if texts(&records) == ["0-1"]).then_some(())
    });
    offering.join().expect("offered");
    let waker = member.claimer.waker();
    let waking = std::thread::spawn(move || waker.wake());
    let poll = member.claimer.poll(MAX, backend.patience() * 10).expect("a poll");
    assert!(matches!(poll, ClaimerPoll::Records(ref records) if records.is_empty()), "{poll:?}");
    waking.join().expect("woken");
}
