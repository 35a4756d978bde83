//! Cases: owners that are killed, or frozen past their session and thawed. Not here: orderly handover
//! (`ownership`). What must hold: nothing is decided twice and nothing is lost, whoever decides.

use orloj_domain::shard::Shard;
use orloj_runtime::log::{AppendError, Isolation, OwnerEvent, TopicPartition};

use super::member::{Member, STATE, all_shards, create_topics, until, until_shared};
use super::{Backend, MAX, POLL, read_to_end, texts};
use crate::wait;

/// All decisions of a shard.
fn decisions(backend: &impl Backend, shard: Shard) -> Vec<String> {
    let read = read_to_end(backend, &TopicPartition::new(STATE, shard.0), 0, Isolation::Committed);
    texts(&read.into_iter().filter(|record| record.key_text() == Some("decision")).collect::<Vec<_>>())
}

/// A member that dies without a word loses its shards once its session is over; its successor finds all it did.
pub fn a_dead_members_shards_move(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut dying = Member::join(&*backend.other());
    let mut heir = Member::join(&*backend.log());
    until_shared(backend, &mut [&mut dying, &mut heir]);
    let shard = dying.shards().pop_first().expect("a shard");
    for value in ["1", "2", "3"] {
        dying.decide(shard, value).expect("ours");
    }
    drop(dying);
    backend.outlast_session(&mut || heir.poll());
    until(backend, "the shards to move", &mut [&mut heir], |members| members[0].shards() == all_shards());
    assert!(heir.lost.is_empty(), "the heir was there all the time");
    assert_eq!(heir.restore(shard), ["1", "2", "3"]);
    heir.decide(shard, "4").expect("ours now");
    assert_eq!(decisions(backend, shard), ["1", "2", "3", "4"]);
}

/// A member frozen past its session finds itself shut out: its next batch is refused, it is told, and it comes
/// back as another incarnation with a share of the shards.
pub fn a_frozen_member_is_shut_out(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut frozen = Member::join(&*backend.other());
    let mut heir = Member::join(&*backend.log());
    until_shared(backend, &mut [&mut frozen, &mut heir]);
    let shard = frozen.shards().pop_first().expect("a shard");
    let former = frozen.owner.incarnation();
    frozen.decide(shard, "1").expect("ours");
    backend.outlast_session(&mut || heir.poll());
    until(backend, "the shards to move", &mut [&mut heir], |members| members[0].shards() == all_shards());
    assert_eq!(heir.restore(shard), ["1"]);
    heir.decide(shard, "2").expect("ours now");
    let outcome = frozen.decide(shard, "2 again");
    assert!(matches!(outcome, Err(AppendError::Refused(_) | AppendError::Unknown(_))), "{outcome:?}");
    frozen.held.clear();
    until(backend, "the loss", &mut [&mut frozen, &mut heir], |members| !members[0].lost.is_empty());
    until_shared(backend, &mut [&mut frozen, &mut heir]);
    assert_eq!(frozen.lost, [former], "told once");
    assert!(heir.lost.is_empty(), "a stale member shuts nobody out");
    assert_eq!(decisions(backend, shard), ["1", "2"]);
}

/// A thawed member that polls first, instead of appending, is told before it is given anything.
pub fn a_thawed_member_is_told_first(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut frozen = Member::join(&*backend.other());
    until_shared(backend, &mut [&mut frozen]);
    let former = frozen.owner.incarnation();
    let mut heir = Member::join(&*backend.log());
    backend.outlast_session(&mut || heir.poll());
    until(backend, "the shards to move", &mut [&mut heir], |members| members[0].shards() == all_shards());
    let told = wait::until("the loss", backend.patience(), || {
        heir.poll();
        frozen.owner.poll(MAX, POLL).expect("a poll").into_iter().next()
    });
    // A group that still asks for the shards back comes to the same: what it had is gone, and nothing is written.
    match told {
        OwnerEvent::Lost { .. } => {}
        OwnerEvent::Revoking(shards) => {
            let outcome = frozen.decide(Shard(0), "stale");
            assert!(outcome.is_err(), "{outcome:?}");
            let _ = frozen.owner.release(&shards);
        }
        OwnerEvent::Taken(_) | OwnerEvent::Records(_) | OwnerEvent::CaughtUp(_) => panic!("{told:?}"),
    }
    assert_ne!(frozen.owner.incarnation(), former);
}

/// After a takeover the successor goes on undisturbed, whatever the stale member tries and however often.
pub fn a_stale_member_cannot_fence(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut stale = Member::join(&*backend.other());
    until_shared(backend, &mut [&mut stale]);
    stale.decide(Shard(0), "0").expect("ours");
    let mut heir = Member::join(&*backend.log());
    backend.outlast_session(&mut || heir.poll());
    until(backend, "the shards to move", &mut [&mut heir], |members| members[0].shards() == all_shards());
    for value in 1..=5 {
        let outcome = stale.decide(Shard(0), "stale");
        assert!(outcome.is_err(), "{outcome:?}");
        assert!(stale.owner.release(&[Shard(0)]).is_ok(), "releasing what is not ours any more does nothing");
        heir.decide(Shard(0), &value.to_string()).expect("ours");
        heir.poll();
    }
    assert!(heir.lost.is_empty());
    assert_eq!(decisions(backend, Shard(0)), ["0", "1", "2", "3", "4", "5"]);
}

/// Two members in turn frozen and thawed, each deciding the next number from what it restored: the decisions of
/// every shard are 0, 1, 2, … without a gap or a repetition.
pub fn nothing_is_decided_twice(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut members = [Member::join(&*backend.other()), Member::join(&*backend.log())];
    {
        let [first, second] = &mut members;
        until_shared(backend, &mut [first, second]);
    }
    for round in 0..4 {
        let [first, second] = &mut members;
        let (frozen, awake) = if round % 2 == 0 { (first, second) } else { (second, first) };
        decide_next(frozen);
        backend.outlast_session(&mut || awake.poll());
        until(backend, "the shards to move", &mut [awake], |members| members[0].shards() == all_shards());
        decide_next(awake);
        // The thawed one goes on with what it remembers.
        for shard in all_shards() {
            let outcome = frozen.decide(shard, "stale");
            assert!(outcome.is_err(), "{outcome:?}");
        }
        frozen.held.clear();
        until(backend, "the loss", &mut [frozen, awake], |members| !members[0].lost.is_empty());
        frozen.lost.clear();
        until_shared(backend, &mut [frozen, awake]);
        decide_next(frozen);
        decide_next(awake);
    }
    for shard in all_shards() {
        let found = decisions(backend, shard);
        let wanted: Vec<String> = (0..found.len()).map(|number| number.to_string()).collect();
        assert_eq!(found, wanted, "shard {shard}");
        assert!(found.len() >= 8, "shard {shard}: {found:?}");
    }
}

/// Decides the next number of each shard held: from memory, or from what is restored after a takeover.
#[track_caller]
fn decide_next(member: &mut Member) {
    for shard in member.shards() {
        let next = match member.memory.get(&shard) {
            Some(next) => *next,
            None => member.restore(shard).len(),
        };
        member.decide(shard, &next.to_string()).expect("ours");
        member.memory.insert(shard, next + 1);
    }
}
