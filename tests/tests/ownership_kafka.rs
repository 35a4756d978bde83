//! Ownership on a real broker under every fault that one broker allows: owners are killed and stopped at each
//! named point, and afterwards each slot must have been decided exactly once. The processes are `owner_process`.

mod ownership;

use std::time::Duration;

use orloj_runtime::log::AppendError;
use orloj_tests::broker::{Broker, Cluster, Kafka, kafka_mode};
use orloj_tests::wait::{until, while_it_lasts};
use ownership::{Arena, CLAIM_ID, CLAIMS, ECHOES, PATIENCE, Process, SESSION, SHARDS, Verdict, side_by_side};

/// Points of a takeover, in order.
const TAKEOVER: [&str; 8] = [
    "after-assign",
    "before-claim",
    "after-claim-produce",
    "after-claim-acks",
    "after-claim-commit",
    "after-scan",
    "after-fence",
    "after-barrier",
];
/// Points of restoring and deciding, with the passing at which they take effect.
const WORK: [(&str, u32); 5] =
    [("during-restore", 3), ("before-produce", 10), ("after-produce", 10), ("before-commit", 10), ("after-commit", 10)];
const RELEASE: &str = "before-release-commit";
/// Cases at a time.
const WIDTH: usize = 4;

fn points() -> Vec<(&'static str, u32)> {
    let takeover = TAKEOVER.iter().map(|point| (*point, 1));
    takeover.chain(WORK).chain([(RELEASE, 1)]).collect()
}

/// A healthy owner and a victim with an armed point, which it passes while it takes its share, uses it, or, where
/// the point is one of releasing, when the healthy one asks for a share.
fn rightful_and_victim(arena: &Arena, point: &str, armed: &str) -> (Process, Process) {
    if point == RELEASE {
        let victim = arena.start(Some(armed));
        victim.wait_for("taken", 0);
        arena.progress("by the first owner");
        (arena.start(None), victim)
    } else {
        let rightful = arena.start(None);
        rightful.wait_for("taken", 0);
        arena.progress("by the first owner");
        (rightful, arena.start(Some(armed)))
    }
}

#[test]
fn killed_at_each_point() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    side_by_side(WIDTH, &points(), |(point, nth)| {
        let arena = Arena::new(Broker::shared(), &format!("killed {point}"));
        let (rightful, mut victim) = rightful_and_victim(&arena, point, &format!("{point}:kill:{nth}"));
        victim.wait_for_death(point);
        arena.progress("after the death");
        rightful.leave();
        (arena.name.clone(), checked(&arena))
    });
}

#[test]
fn stopped_at_each_point_past_its_session() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    side_by_side(WIDTH, &points(), |(point, nth)| {
        let arena = Arena::new(Broker::shared(), &format!("stopped {point}"));
        let (rightful, victim) = rightful_and_victim(&arena, point, &format!("{point}:stop:{nth}"));
        victim.wait_for_stop(point);
        arena.progress("while the victim stands still");
        let taken = victim.count("taken ");
        victim.thaw();
        arena.progress("after the victim woke");
        victim.wait_for("taken ", taken);
        arena.progress("with both");
        victim.leave();
        arena.progress("by the rightful owner alone");
        rightful.leave();
        (arena.name.clone(), checked(&arena))
    });
}

/// A claimant that slept away its membership is refused, takes its claim back and harms nobody.
#[test]
fn a_stale_claim_is_refused_and_leaves_no_trace() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let arena = Arena::new(Broker::shared(), "stale claim");
    let rightful = arena.start(None);
    rightful.wait_for("taken", 0);
    let victim = arena.start(Some("before-claim:stop"));
    victim.wait_for_stop("before-claim");
    arena.progress("while the claimant stands still");
    victim.thaw();
    victim.wait_for("claim refused", 0);
    victim.wait_for("taken ", 0);
    arena.progress("with both");
    victim.leave();
    arena.progress("by the rightful owner alone");
    let said = rightful.leave();
    let is_harmed = said.iter().any(|line| line.starts_with("lost") || line.starts_with("refused"));
    assert!(!is_harmed, "the rightful owner was shut out:\n{}", said.join("\n"));
    println!("stale claim: {:?}", checked(&arena));
}

/// Transactions that earlier owners left open are ended by the takeover, not waited for: those of an owner that has
/// not released at once, those of one that has when the restore is seen to be stuck. Neither can be committed then.
#[test]
fn open_transactions_of_earlier_owners_are_ended() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    for (is_released, expected) in [(false, "shutting earlier owners out"), (true, "shutting released owners out too")]
    {
        let arena = Arena::new(Broker::shared(), &format!("open transaction, released: {is_released}"));
        let mut ghost = arena.leave_open("ghost", "9999", is_released);
        let owner = arena.start(None);
        arena.progress("behind what was left open");
        assert_eq!(owner.count(expected), 1);
        let refused = ghost.commit();
        assert!(matches!(refused, Err(AppendError::Refused(_))), "{refused:?}");
        owner.leave();
        println!("{}: {:?}", arena.name, checked(&arena));
    }
}

/// An owner reads nothing that it has written: that it can't be read by anybody it has to look for.
#[test]
fn an_owner_whose_writes_are_hidden_takes_its_shards_over_again() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let arena = Arena::new(Broker::shared(), "hidden");
    let owner = arena.start(None);
    arena.progress("before anything is hidden");
    let mut ghost = arena.leave_open("ghost", "9999", false);
    owner.wait_for("hides what was written behind it", 0);
    arena.progress("with all of it readable");
    let refused = ghost.commit();
    assert!(matches!(refused, Err(AppendError::Refused(_))), "{refused:?}");
    owner.leave();
    println!("hidden: {:?}", checked(&arena));
}

/// A commit that ends while a partition has no leader is done for its coordinator, and its marker is never written there
/// (KAFKA-20734): what was committed must come to light all the same, once, and so must what was written behind it.
#[test]
fn a_commit_that_lost_its_marker_is_ended() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let mut cluster = Cluster::start();
    let arenas = ["lost marker", "lost marker, written again"].map(|name| Arena::on(cluster.bootstrap(), name));
    let alive = Arena::on(cluster.bootstrap(), "lost marker, owner alive");
    let owner = alive.start(None);
    alive.progress("before anything happens");
    let slots: Vec<String> = arenas.iter().chain([&alive]).map(Arena::slots).collect();
    let node = (0..Cluster::NODES).find(|node| slots.iter().all(|topic| cluster.leads(*node, topic)));
    let node = node.expect("four partitions are led by all of three brokers");
    let mut ghosts: Vec<_> = arenas.iter().map(|arena| arena.leave_open("ghost", "0", false)).collect();
    cluster.node(node).kill();
    cluster.wait_for_its_partitions(node, &slots);
    for ghost in &mut ghosts {
        ghost.commit().expect("its coordinator lives");
    }
    cluster.node(node).restart();
    let [once, twice] = &arenas;
    // As an owner does who was told that nothing was written.
    twice.stage("ghost.1", "0").commit().expect("all brokers are there");
    for arena in &arenas {
        let hidden: Vec<i32> = (0..SHARDS).filter(|shard| !arena.is_readable(*shard)).collect();
        // None, once Kafka has mended it: then the rest shows only that no harm is done.
        println!("{}: shards {hidden:?} of {SHARDS} are hidden", arena.name);
        let owner = arena.start(None);
        arena.progress("behind what lost its marker");
        assert!(owner.count("ending a transaction that nobody ends") >= hidden.len());
        owner.leave();
        if !hidden.is_empty() {
            let counts: Vec<usize> = hidden.iter().map(|shard| arena.count_staged(*shard, "0")).collect();
            assert_eq!(counts, vec![1; hidden.len()], "{}: what was committed is there, once", arena.name);
        }
    }
    // What this one had in hand when the broker died was aborted, maybe without a marker, and written again.
    alive.progress("with all of it readable");
    owner.leave();
    for arena in [once, &alive] {
        println!("{}: {:?}", arena.name, checked(arena));
    }
}

/// The same where no restore reads: in what owners only write, and in what claimers write for them, whose ids the owner has
/// to ask for.
#[test]
fn a_lost_marker_in_what_nobody_restores_is_ended() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let mut cluster = Cluster::start();
    let arena = Arena::on(cluster.bootstrap(), "lost marker, beside the state");
    let topics = [ECHOES, CLAIMS];
    let names = topics.map(|topic| arena.full_name(topic));
    let node = (0..Cluster::NODES).find(|node| names.iter().all(|name| cluster.leads(*node, name)));
    let node = node.expect("four partitions are led by all of three brokers");
    // The claim in the owners topic names the id that writes the echoes, too.
    arena.leave_open("ghost", "0", false).commit().expect("all brokers are there");
    let mut ghosts = [arena.stage_in(ECHOES, "ghost.0"), arena.stage_in(CLAIMS, CLAIM_ID)];
    cluster.node(node).kill();
    cluster.wait_for_its_partitions(node, &names);
    for ghost in &mut ghosts {
        ghost.commit().expect("its coordinator lives");
    }
    cluster.node(node).restart();
    // None, once Kafka has mended it: then the rest shows only that no harm is done.
    let hidden =
        topics.map(|topic| (0..SHARDS).filter(|shard| !arena.is_readable_in(topic, *shard)).collect::<Vec<_>>());
    println!("{topics:?}: shards {hidden:?} of {SHARDS} are hidden");
    let owner = arena.start(None);
    arena.progress("beside what lost its marker");
    for (topic, hidden) in topics.iter().zip(&hidden) {
        until(&format!("all of {topic} readable"), PATIENCE, || {
            hidden.iter().all(|shard| arena.is_readable_in(topic, *shard)).then_some(())
        });
        let counts: Vec<usize> = (0..SHARDS).map(|shard| arena.count_in(topic, shard)).collect();
        assert_eq!(counts, [1; 4], "{topic}: what was committed is there, once");
    }
    arena.progress("with all of it readable");
    owner.leave();
    println!("{}: {:?}", arena.name, checked(&arena));
}

/// Leaving needs no session to run out and no fence.
#[test]
fn a_leaver_hands_its_shards_over_at_once() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let mut arena = Arena::new(Broker::shared(), "leave");
    arena.session = Duration::from_secs(15);
    let leaver = arena.start(None);
    leaver.wait_for("taken", 0);
    let heir = arena.start(None);
    heir.wait_for("taken", 0);
    arena.progress("with both");
    leaver.leave();
    arena.progress("by the heir");
    let said = heir.leave();
    assert!(!said.iter().any(|line| line.contains("shutting earlier owners out")), "{}", said.join("\n"));
    let verdict = checked(&arena);
    assert!(verdict.longest_gap < arena.session, "{verdict:?}");
    println!("leave: {verdict:?}");
}

/// A commit that took too long is acknowledged all the same, but its id is used no more, and new ones come.
#[test]
fn a_frozen_and_a_killed_broker() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    let mut broker = Broker::start();
    let arena = Arena::new(&broker, "broker");
    let owner = arena.start(Some("before-commit:stop:10"));
    owner.wait_for_stop("before-commit");
    broker.pause();
    owner.thaw();
    // The commit waits for the broker: longer than what counts as slow, shorter than a session. The wait is the fault.
    while_it_lasts(Duration::from_millis(1500));
    broker.resume();
    arena.progress("after the broker thawed");
    owner.wait_for("retired a producer", 0);
    owner.wait_for("claimed again with new producers", 0);
    arena.progress("with new producers");
    broker.kill();
    broker.restart();
    arena.progress("after the broker was killed");
    owner.leave();
    println!("broker: {:?}", checked(&arena));
}

/// Three owners, one fault after another, chosen by a seed.
#[test]
fn a_storm_of_deaths_and_stops() {
    if kafka_mode() == Kafka::Off {
        return;
    }
    const SEED: u64 = 4711;
    const FAULTS: usize = 10;
    let arena = Arena::new(Broker::shared(), &format!("storm, seed {SEED}"));
    let mut owners: Vec<Process> = (0..3).map(|_| arena.start(None)).collect();
    arena.progress("at first");
    let mut random = SEED;
    for fault in 0..FAULTS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = usize::try_from(random >> 33).unwrap_or(0) % owners.len();
        match (random >> 48) % 3 {
            0 => {
                owners[index].kill();
                owners[index] = arena.start(None);
            }
            1 => {
                owners[index].freeze();
                // Past its session in two of three cases; the wait itself is the fault.
                let stop = SESSION.mul_f64(0.5 + f64::from(u32::try_from(random >> 40 & 3).unwrap_or(0)) / 2.0);
                while_it_lasts(stop);
                owners[index].thaw();
            }
            _ => {
                let fresh = arena.start(None);
                std::mem::replace(&mut owners[index], fresh).leave();
            }
        }
        if fault % 3 == 2 {
            arena.progress(&format!("after fault {fault}"));
        }
    }
    arena.progress("at last");
    for owner in owners {
        owner.leave();
    }
    println!("{}: {:?}", arena.name, checked(&arena));
}

fn checked(arena: &Arena) -> Verdict {
    let verdict = arena.check();
    assert!(verdict.longest_gap < PATIENCE, "{}: {verdict:?}", arena.name);
    verdict
}
