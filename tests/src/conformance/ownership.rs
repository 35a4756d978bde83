//! Cases: how members share the shards, and what an owner reads and writes. Not here: members that die or
//! freeze (`takeover`).

use orloj_domain::shard::Shard;
use orloj_domain::time::Timestamp;
use orloj_runtime::log::{AppendError, Isolation, TopicPartition};

use super::member::{INPUT, Member, OWNERS, SHARDS, SHARED, STATE, all_shards, create_topics, until, until_shared};
use super::{Backend, append, read_to_end, record, texts};

/// One member has all shards; a second gets half, a third its part, and every shard has one owner throughout.
pub fn members_share_the_shards(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut first = Member::join(&*backend.log());
    until_shared(backend, &mut [&mut first]);
    let mut second = Member::join(&*backend.other());
    until_shared(backend, &mut [&mut first, &mut second]);
    assert_eq!((first.held.len(), second.held.len()), (2, 2));
    let mut third = Member::join(&*backend.other());
    until_shared(backend, &mut [&mut first, &mut second, &mut third]);
    assert!(first.lost.is_empty() && second.lost.is_empty() && third.lost.is_empty(), "nobody was kicked out");
}

/// A member that leaves hands its shards over without anyone waiting for a session to end.
pub fn a_leaver_hands_over(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut first = Member::join(&*backend.log());
    let mut second = Member::join(&*backend.other());
    until_shared(backend, &mut [&mut first, &mut second]);
    let shard = first.shards().pop_first().expect("a shard");
    first.decide(shard, "1").expect("ours");
    first.owner.leave();
    until(backend, "the shards to move", &mut [&mut second], |members| members[0].shards() == all_shards());
    assert_eq!(second.restore(shard), ["1"]);
    second.decide(shard, "2").expect("ours now");
}

/// A member that shares the shards with another, which stays: a shard of its own, and one that is not.
fn one_of_two(backend: &mut impl Backend) -> (Member, Shard, Shard, Member) {
    create_topics(&*backend.log());
    let mut first = Member::join(&*backend.log());
    let mut second = Member::join(&*backend.other());
    until_shared(backend, &mut [&mut first, &mut second]);
    let own = first.shards().pop_first().expect("a shard");
    let foreign = second.shards().pop_first().expect("a shard");
    (first, own, foreign, second)
}

/// An owner appends to the shards it holds, and to no other.
pub fn an_append_needs_its_shards(backend: &mut impl Backend) {
    let (mut first, own, foreign, _second) = one_of_two(backend);
    let both = vec![record(STATE, own.0, "decision", "1"), record(INPUT, own.0, "key", "1")];
    let positions = first.owner.append(&[own], &both).expect("ours");
    assert_eq!(positions.iter().map(|position| position.topic.as_str()).collect::<Vec<_>>(), [STATE, INPUT]);
    let outcome = first.owner.append(&[own, foreign], &[record(STATE, own.0, "decision", "2")]);
    assert!(matches!(outcome, Err(AppendError::Refused(_))), "{outcome:?}");
    let at = TopicPartition::new(STATE, own.0);
    let decisions = read_to_end(backend, &at, 0, Isolation::Committed);
    let decisions: Vec<_> = decisions.into_iter().filter(|record| record.key_text() == Some("decision")).collect();
    assert_eq!(texts(&decisions), ["1"], "nothing of what was refused");
}

/// What is started is there once it was waited for, in the order of the starts; what is refused comes back whole.
pub fn an_append_is_started_and_waited_for(backend: &mut impl Backend) {
    let (mut first, own, foreign, _second) = one_of_two(backend);
    let mut append = |shards: &[Shard], value: &str| {
        let records = vec![record(STATE, own.0, "decision", value)];
        let started = first.owner.start_append(shards, records.clone());
        let appended = started.unwrap_or_else(|| first.owner.finish_append());
        assert_eq!(appended.records, records, "what was given comes back");
        appended.outcome
    };
    let offsets = ["1", "2", "3"].map(|value| append(&[own], value).expect("ours")[0].offset);
    assert!(offsets.is_sorted(), "{offsets:?}");
    let outcome = append(&[own, foreign], "4");
    assert!(matches!(outcome, Err(AppendError::Refused(_))), "{outcome:?}");
    let decisions = read_to_end(backend, &TopicPartition::new(STATE, own.0), 0, Isolation::Committed);
    let decisions: Vec<_> = decisions.into_iter().filter(|record| record.key_text() == Some("decision")).collect();
    assert_eq!(texts(&decisions), ["1", "2", "3"]);
}

/// Inputs come from where they were asked for, in order; what was there before is said to be through, once.
pub fn inputs_are_read_and_caught_up(backend: &mut impl Backend) {
    let log = backend.log();
    create_topics(&*log);
    let input = |shard: i32| TopicPartition::new(INPUT, shard);
    let old: Vec<_> = (0..5).map(|index| record(INPUT, 0, "key", &format!("old {index}"))).collect();
    let offsets = append(&*log, old);
    let mut member = Member::join(&*log);
    until_shared(backend, &mut [&mut member]);
    assert!(member.records.is_empty(), "nothing is read before it is asked for");
    member.owner.read_inputs(&[(input(0), offsets[2]), (input(1), 0)]).expect("ours");
    until(backend, "both to be caught up", &mut [&mut member], |members| members[0].caught_up.len() == 2);
    assert_eq!(texts(&member.records), ["old 2", "old 3", "old 4"]);
    member.records.clear();
    append(&*log, vec![record(INPUT, 0, "key", "new"), record(INPUT, 1, "key", "new"), record(INPUT, 2, "key", "no")]);
    until(backend, "what is new", &mut [&mut member], |members| members[0].records.len() == 2);
    member.owner.read_inputs(&[(input(0), offsets[4])]).expect("ours");
    until(backend, "what is read again", &mut [&mut member], |members| {
        members[0].caught_up.len() == 3 && members[0].records.len() == 4
    });
    assert_eq!(texts(&member.records[2..]), ["old 4", "new"]);
    assert_eq!(member.caught_up[2], input(0), "said once after each call");
}

/// A shared input is read from its start, caught up with at each request, and stays when the shard of its partition's
/// number goes.
pub fn shared_inputs_stay_when_shards_go(backend: &mut impl Backend) {
    let log = backend.log();
    create_topics(&*log);
    let shared = TopicPartition::new(SHARED, 0);
    append(&*log, vec![record(SHARED, 0, "a", "1"), record(SHARED, 0, "b", "2")]);
    let mut member = Member::join(&*log);
    until_shared(backend, &mut [&mut member]);
    let start = log.offset_at(&shared, Timestamp::MIN).expect("a start");
    member.owner.read_inputs(&[(shared.clone(), start)]).expect("not a shard's");
    until(backend, "all of it", &mut [&mut member], |members| members[0].caught_up.len() == 1);
    assert_eq!(texts(&member.records), ["1", "2"]);
    let next = member.records[1].offset + 1;
    member.owner.read_inputs(&[(shared.clone(), next)]).expect("again, from its end");
    until(backend, "nothing more", &mut [&mut member], |members| members[0].caught_up.len() == 2);
    member.owner.release(&[Shard(0)]).expect("ours");
    member.held.remove(&Shard(0));
    append(&*log, vec![record(SHARED, 0, "a", "3")]);
    until(backend, "what is new", &mut [&mut member], |members| members[0].records.len() == 3);
    assert_eq!(texts(&member.records[2..]), ["3"]);
}

/// The owners topic says who holds a shard: a record for each owner, a tombstone when it released the shard.
pub fn owners_are_on_record(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut first = Member::join(&*backend.log());
    until_shared(backend, &mut [&mut first]);
    let former = first.owner.incarnation();
    first.owner.leave();
    let mut second = Member::join(&*backend.other());
    until(backend, "all shards", &mut [&mut second], |members| members[0].shards() == all_shards());
    for shard in 0..SHARDS {
        let at = TopicPartition::new(OWNERS, shard);
        let mut claims = std::collections::BTreeMap::new();
        for record in read_to_end(backend, &at, 0, Isolation::Committed) {
            claims.insert(record.key_text().unwrap_or_default().to_owned(), record.value.is_some());
        }
        let live: Vec<_> = claims.iter().filter(|(_, is_live)| **is_live).map(|(key, _)| key.as_str()).collect();
        assert_eq!(live, [second.owner.incarnation().as_str()], "{shard}: {claims:?}, before: {former}");
    }
}

/// An owner that gave everything up comes back under another incarnation; nothing it did before is undone.
pub fn an_owner_that_gave_up_comes_back(backend: &mut impl Backend) {
    create_topics(&*backend.log());
    let mut member = Member::join(&*backend.log());
    until_shared(backend, &mut [&mut member]);
    let former = member.owner.incarnation();
    member.decide(Shard(0), "1").expect("ours");
    member.owner.abandon("the test says so");
    member.owner.abandon("twice changes nothing");
    let outcome = member.decide(Shard(0), "never");
    assert!(matches!(outcome, Err(AppendError::Refused(_))), "{outcome:?}");
    until(backend, "the loss", &mut [&mut member], |members| !members[0].lost.is_empty());
    until_shared(backend, &mut [&mut member]);
    assert_eq!(member.lost, [former]);
    assert_eq!(member.restore(Shard(0)), ["1"]);
    member.decide(Shard(0), "2").expect("ours again");
}
