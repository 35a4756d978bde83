//! Turns, slots and sessions on the board. Not here: by whom slots are had (`shares`). Invariant: time is set by the case.

use std::sync::mpsc;

use orloj_runtime::clock::ManualClock;
use orloj_runtime::metrics::Metrics;

use super::*;

fn board() -> (Arc<Board>, ManualClock) {
    board_of(2, &[1])
}

fn board_of(slots: usize, weights: &[u16]) -> (Arc<Board>, ManualClock) {
    let clock = ManualClock::new(Timestamp::from_millis(0));
    let metrics = RunnerMetrics::register(&Metrics::new());
    (Arc::new(Board::new(slots, weights, Duration::from_secs(12), Arc::new(clock.clone()), metrics)), clock)
}

/// As [`board_of`], with a confirmed session.
fn open_board(slots: usize, weights: &[u16]) -> (Arc<Board>, ManualClock) {
    let (board, clock) = board_of(slots, weights);
    board.confirm(&board.session(), clock.monotonic());
    (board, clock)
}

fn abort() -> Abort {
    Abort { kind: orloj_domain::attempt::OutcomeKind::Aborted, reason: "test".into(), grace: Duration::ZERO }
}

#[test]
fn slots_are_given_only_under_a_confirmed_session() {
    let (board, clock) = board();
    assert_eq!(board.wait_turn(0, 5, Duration::ZERO), Turn::Wait);
    assert!(board.take_slots(0, 1).1.is_empty());
    board.confirm(&board.session(), clock.monotonic());
    assert_eq!(board.wait_turn(0, 0, Duration::ZERO), Turn::Look(2));
    assert_eq!(board.wait_turn(0, 5, Duration::ZERO), Turn::Claim(2));
    let (_, slots) = board.take_slots(0, 5);
    assert_eq!(slots.len(), 2);
    assert_eq!(board.wait_turn(0, 3, Duration::ZERO), Turn::Wait);
    assert_eq!(board.wait_turn(0, 0, Duration::ZERO), Turn::Wait, "nobody looks for what there is no slot for");
    drop(slots);
    clock.advance(Duration::from_secs(12));
    assert_eq!(board.wait_turn(0, 0, Duration::ZERO), Turn::Wait, "confirmed too long ago");
    board.advance(Phase::Draining);
    assert_eq!(board.wait_turn(0, 0, Duration::ZERO), Turn::Stop);
}

#[test]
fn a_slot_that_is_free_again_goes_to_whoever_has_attempts_at_hand() {
    let (board, _clock) = open_board(2, &[1, 1]);
    assert_eq!(board.wait_turn(0, 0, Duration::ZERO), Turn::Look(4), "more than there are slots");
    assert_eq!(board.wait_turn(0, 4, Duration::ZERO), Turn::Claim(2), "nobody else wants any");
    let (_, mut slots) = board.take_slots(0, 4);
    assert_eq!((slots.len(), board.missing(2)), (2, 2));
    assert_eq!(board.wait_turn(1, 4, Duration::ZERO), Turn::Wait);
    slots.pop();
    slots.pop();
    assert_eq!(board.wait_turn(0, 2, Duration::ZERO), Turn::Claim(1));
    assert_eq!(board.wait_turn(1, 4, Duration::ZERO), Turn::Claim(1));
    board.give_back(0);
    assert_eq!(board.wait_turn(1, 4, Duration::ZERO), Turn::Claim(2), "what the other can't use");
}

#[test]
fn a_session_that_was_not_confirmed_in_time_never_comes_back() {
    let (board, clock) = board();
    let session = board.session();
    board.confirm(&session, clock.monotonic());
    clock.advance(Duration::from_secs(11));
    let sent_at = clock.monotonic();
    assert!(session.is_live(sent_at));
    clock.advance(Duration::from_secs(2));
    board.confirm(&session, sent_at);
    assert!(!session.is_live(clock.monotonic()), "a late confirmation revives nothing");
    let job = "a/b".parse().expect("job");
    let run = orloj_domain::id::RunId::of_fire_time(&job, 1, Timestamp::MIN);
    let mut stopped = board.enter(&session, (run, 1)).stop;
    board.lose(&session, &abort());
    assert!(stopped.try_recv().is_ok());
    assert_ne!(board.session().id, session.id);
    board.confirm(&board.session(), clock.monotonic());
    assert!(matches!(board.wait_turn(0, 0, Duration::ZERO), Turn::Look(2)));
    assert!(!session.is_live(clock.monotonic()));
}

/// Of two slots, with two queues of the same weight.
fn board_of_two() -> (Arc<Board>, ManualClock) {
    open_board(2, &[1, 1])
}

/// However often it is woken: else a busy runner would never show its group that it lives.
#[test]
fn who_waits_for_a_turn_waits_no_longer_than_its_patience() {
    const PATIENCE: Duration = Duration::from_secs(3600);
    let (board, clock) = board();
    let (sender, turn) = mpsc::channel();
    let waiting = Arc::clone(&board);
    std::thread::spawn(move || sender.send(waiting.wait_turn(0, 1, PATIENCE)));
    let told = (0..1000).find_map(|_| {
        clock.advance(PATIENCE);
        // As every slot does that becomes free.
        board.slots_changed.notify_all();
        turn.recv_timeout(Duration::from_millis(20)).ok()
    });
    assert_eq!(told, Some(Turn::Wait));
}

#[test]
fn nothing_is_kept_for_a_queue_whose_claim_takes_long() {
    let (board, clock) = board_of_two();
    assert_eq!(board.wait_turn(0, 4, Duration::ZERO), Turn::Claim(2));
    let (_, mut slots) = board.take_slots(0, 1);
    assert_eq!(board.wait_turn(1, 4, Duration::ZERO), Turn::Wait, "a short claim costs nobody its part");
    clock.advance(KEPT_FOR);
    assert_eq!(board.wait_turn(1, 4, Duration::ZERO), Turn::Claim(1), "what the other can't use");
    let (_, more) = board.take_slots(1, 1);
    board.settle(1, true);
    slots.extend(more);
    assert_eq!(board.wait_turn(1, 3, Duration::ZERO), Turn::Wait);
    for at_hand in (1..=3).rev() {
        // One after the other becomes free; none is kept for who is away.
        slots.pop();
        assert_eq!(board.wait_turn(1, at_hand, Duration::ZERO), Turn::Claim(1));
        let (_, more) = board.take_slots(1, 1);
        board.settle(1, true);
        slots.extend(more);
    }
    board.settle(0, true);
    assert_eq!(board.wait_turn(0, 3, Duration::ZERO), Turn::Wait);
    assert_eq!(board.wait_turn(1, 9, Duration::ZERO), Turn::Wait);
    slots.clear();
    assert_eq!(board.wait_turn(0, 3, Duration::ZERO), Turn::Claim(2), "it has missed some");
}

/// A queue that waits is not told when another takes too long: it looks when it is time.
#[test]
fn who_waits_gets_what_a_long_claim_leaves() {
    let (board, clock) = board_of_two();
    assert_eq!(board.wait_turn(0, 4, Duration::ZERO), Turn::Claim(2));
    let (sender, turn) = mpsc::channel();
    let waiting = Arc::clone(&board);
    std::thread::spawn(move || sender.send(waiting.wait_turn(1, 4, Duration::from_secs(3600))));
    clock.advance(KEPT_FOR);
    assert_eq!(turn.recv_timeout(Duration::from_secs(60)), Ok(Turn::Claim(2)));
}

#[test]
fn a_claim_waits_for_more_slots_while_few_are_free() {
    let (board, clock) = open_board(16, &[1]);
    assert_eq!(board.wait_turn(0, 40, Duration::ZERO), Turn::Claim(16));
    let (_, mut slots) = board.take_slots(0, 16);
    board.settle(0, true);
    slots.pop();
    assert_eq!(board.wait_turn(0, 24, Duration::ZERO), Turn::Wait, "one is few");
    assert_eq!(board.wait_turn(0, 0, Duration::ZERO), Turn::Wait, "nor is one looked for");
    slots.pop();
    assert_eq!(board.wait_turn(0, 24, Duration::ZERO), Turn::Claim(2), "two are an eighth");
    let (_, more) = board.take_slots(0, 1);
    board.settle(0, true);
    assert_eq!(board.wait_turn(0, 23, Duration::ZERO), Turn::Wait);
    clock.advance(COMPANY_WAIT);
    assert_eq!(board.wait_turn(0, 23, Duration::ZERO), Turn::Claim(1), "it has waited");
    drop(more);
}

/// Nobody says when a queue has waited long enough: it looks by itself.
#[test]
fn who_waits_for_more_slots_waits_no_longer_than_that() {
    let (board, clock) = open_board(16, &[1]);
    assert_eq!(board.wait_turn(0, 15, Duration::ZERO), Turn::Claim(15));
    let (_, _slots) = board.take_slots(0, 15);
    board.settle(0, true);
    let (sender, turn) = mpsc::channel();
    let waiting = Arc::clone(&board);
    std::thread::spawn(move || sender.send(waiting.wait_turn(0, 1, Duration::from_secs(3600))));
    clock.advance(COMPANY_WAIT);
    assert_eq!(turn.recv_timeout(Duration::from_secs(60)), Ok(Turn::Claim(1)));
}

#[test]
fn slots_of_a_claim_that_was_not_made_are_not_charged() {
    for (is_claimed, next) in [(true, Turn::Wait), (false, Turn::Claim(1))] {
        let (board, _) = board_of_two();
        assert_eq!(board.wait_turn(1, 4, Duration::ZERO), Turn::Claim(2));
        let (_, first) = board.take_slots(1, 2);
        board.settle(1, true);
        assert_eq!(board.wait_turn(0, 4, Duration::ZERO), Turn::Wait);
        drop(first);
        assert_eq!(board.wait_turn(0, 4, Duration::ZERO), Turn::Claim(1), "one for each");
        let (_, taken) = board.take_slots(0, 4);
        board.settle(0, is_claimed);
        drop(taken);
        assert_eq!(board.wait_turn(0, 3, Duration::ZERO), next, "claimed: {is_claimed}");
    }
}
