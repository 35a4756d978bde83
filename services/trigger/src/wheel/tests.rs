//! The wheel against a sorted map, as tables at the borders of levels and as random operations. Invariant: after
//! every operation both name the same first due time, and the same jobs in the same order.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::node::TOP;
use super::{ROOT, SLOT_TIMERS_MAX, Wheel};

/// What the wheel is to do, done by a sorted map.
#[derive(Debug, Default)]
struct Oracle {
    by_due: BTreeMap<(i64, u64), u32>,
    by_job: HashMap<u32, (i64, u64)>,
    armed: u64,
}

impl Oracle {
    fn arm(&mut self, job: u32, due_ms: i64) {
        self.disarm(job);
        self.armed += 1;
        self.by_due.insert((due_ms, self.armed), job);
        self.by_job.insert(job, (due_ms, self.armed));
    }

    fn disarm(&mut self, job: u32) {
        if let Some(key) = self.by_job.remove(&job) {
            self.by_due.remove(&key);
        }
    }

    fn first(&self) -> Option<i64> {
        self.by_due.first_key_value().map(|((due_ms, _), _)| *due_ms)
    }

    fn due(&self, until_ms: i64) -> Vec<(i64, u32)> {
        self.by_due.range(..=(until_ms, u64::MAX)).map(|((due_ms, _), job)| (*due_ms, *job)).collect()
    }
}

struct Pair {
    wheel: Wheel,
    oracle: Oracle,
}

impl Pair {
    fn new() -> Self {
        Self { wheel: Wheel::new(), oracle: Oracle::default() }
    }

    fn arm(&mut self, job: u32, due_ms: i64) {
        self.wheel.arm(job, due_ms);
        self.oracle.arm(job, due_ms);
    }

    fn disarm(&mut self, job: u32) {
        self.wheel.disarm(job);
        self.oracle.disarm(job);
    }

    /// Takes out, as a machine would, what is due: some thousands at a time.
    fn advance(&mut self, until_ms: i64, at_most: usize) {
        loop {
            let due: Vec<_> = self.wheel.due(until_ms).take(at_most).collect();
            let wanted: Vec<_> = self.oracle.due(until_ms).into_iter().take(at_most).collect();
            assert_eq!(due, wanted, "due at {until_ms}");
            if due.is_empty() {
                return;
            }
            for (_, job) in due {
                self.disarm(job);
            }
        }
    }

    fn check(&self) {
        assert_eq!(self.wheel.first(), self.oracle.first());
    }

    fn check_all(&self) {
        self.check();
        let all: Vec<_> = self.wheel.due(i64::MAX).collect();
        assert_eq!(all, self.oracle.due(i64::MAX));
        let mut nodes = 0;
        let timers = count(&self.wheel, ROOT, TOP, &mut nodes);
        assert_eq!((timers, self.wheel.len()), (all.len(), all.len()));
        assert_eq!(nodes, self.wheel.nodes.len() - self.wheel.free_nodes.len(), "every wheel is reachable or free");
    }
}

/// Counts timers below a wheel, and checks what its slots claim.
fn count(wheel: &Wheel, index: u32, level: usize, nodes: &mut usize) -> usize {
    *nodes += 1;
    let node = wheel.node(index);
    assert!(index == ROOT || node.occupied != 0, "an empty wheel is given back");
    let mut timers = 0;
    for digit in 0..64 {
        if node.is_open(digit) {
            assert!(node.is_occupied(digit));
            timers += count(wheel, node.slots[digit], level - 1, nodes);
        } else if node.is_occupied(digit) {
            let length = wheel.list(node.slots[digit]).count();
            assert!(level == 0 || (length == usize::from(node.counts[digit]) && length <= SLOT_TIMERS_MAX.into()));
            timers += length;
        }
    }
    timers
}

#[test]
fn first_and_order_hold_at_the_borders_of_every_level() {
    for base in [0, -1, 1_800_000_000_000, -62_135_596_800_000, i64::MIN / 2] {
        let mut pair = Pair::new();
        let mut job = 0;
        // Forty around each border: more than a slot takes, so that every level is opened.
        for level in 0..=TOP {
            let border = 1_i64.checked_shl(6 * u32::try_from(level).expect("small")).unwrap_or(i64::MAX);
            for distance in -20..20 {
                for due_ms in [base.saturating_add(border), base.saturating_sub(border)] {
                    pair.arm(job, due_ms.saturating_add(distance));
                    job += 1;
                }
            }
            pair.check();
        }
        pair.check_all();
        pair.advance(base, 7);
        pair.check_all();
        pair.advance(i64::MAX, 1000);
        pair.check_all();
        assert_eq!(pair.wheel.first(), None);
        assert_eq!(pair.wheel.nodes.len() - pair.wheel.free_nodes.len(), 1, "only the coarsest wheel is left");
    }
}

#[test]
fn the_ends_of_time_work() {
    let mut pair = Pair::new();
    for (job, due_ms) in [i64::MAX, i64::MIN, 0, -1, 1, i64::MAX - 1, i64::MIN + 1].into_iter().enumerate() {
        for twin in 0..40 {
            pair.arm(u32::try_from(job * 40 + twin).expect("small"), due_ms);
        }
        pair.check_all();
    }
    pair.advance(i64::MIN, 3);
    pair.advance(-1, 100);
    pair.check_all();
    assert_eq!(pair.wheel.first(), Some(0));
    pair.advance(i64::MAX, 64);
    pair.check_all();
}

#[test]
fn those_due_together_come_out_as_they_were_armed() {
    let mut wheel = Wheel::new();
    for job in (0..1000).rev() {
        wheel.arm(job, 60_000);
    }
    wheel.arm(500, 60_000);
    let jobs: Vec<u32> = wheel.due(60_000).map(|(_, job)| job).collect();
    let wanted: Vec<u32> = (0..1000).rev().filter(|job| *job != 500).chain([500]).collect();
    assert_eq!(jobs, wanted, "one that is armed again is the last");
    assert_eq!(wheel.due(59_999).next(), None);
}

#[test]
fn a_job_that_is_not_armed_is_not_missed() {
    let mut wheel = Wheel::new();
    wheel.disarm(7);
    wheel.arm(7, 5);
    wheel.disarm(6);
    wheel.disarm(7);
    wheel.disarm(7);
    assert_eq!((wheel.first(), wheel.due(i64::MAX).next()), (None, None));
}

#[test]
fn spread_timers_take_24_bytes_with_their_wheels() {
    for width_ms in [1_000, 60_000, 3_600_000, 86_400_000, 31_622_400_000] {
        for count in [1_000, 10_000, 100_000_u32] {
            let mut wheel = Wheel::new();
            let mut random = 88_172_645_463_325_252_u64;
            for job in 0..count {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                wheel.arm(job, NOW + (random >> 1).cast_signed() % width_ms);
            }
            // The way down to what they have in common is one wheel a level.
            let bytes = wheel.timers.len() * 16 + wheel.nodes.len().saturating_sub(TOP) * 336;
            let limit = count as usize * 24;
            assert!(bytes <= limit, "{count} over {width_ms} ms: {bytes} bytes, at most {limit}");
        }
    }
}

#[derive(Debug, Clone)]
enum Operation {
    Arm { job: u32, due_ms: i64 },
    ArmMany { first: u32, count: u32, due_ms: i64, step_ms: i64 },
    Disarm { job: u32 },
    Advance { by_ms: i64, at_most: usize },
    ArmFromNow { job: u32, in_ms: i64 },
}

const JOBS: u32 = 300;
const NOW: i64 = 1_800_000_000_000;

fn step() -> impl Strategy<Value = i64> {
    prop_oneof![0..200_i64, 0..100_000_i64, 0..100_000_000_000_i64, Just(1_i64 << 50)]
}

fn due() -> impl Strategy<Value = i64> {
    prop_oneof![
        // Few instants, so that many share one.
        4 => (0..20_i64).prop_map(|minute| NOW + minute * 60_000),
        4 => NOW - 100..NOW + 10_000,
        2 => NOW - 100_000_000..NOW + 100_000_000_000,
        1 => any::<i64>(),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => (0..JOBS, due()).prop_map(|(job, due_ms)| Operation::Arm { job, due_ms }),
        3 => (0..JOBS, -500..100_000_i64).prop_map(|(job, in_ms)| Operation::ArmFromNow { job, in_ms }),
        1 => (0..JOBS, 1..80_u32, due(), prop_oneof![Just(0_i64), 1..2000_i64])
            .prop_map(|(first, count, due_ms, step_ms)| Operation::ArmMany { first, count, due_ms, step_ms }),
        4 => (0..JOBS).prop_map(|job| Operation::Disarm { job }),
        2 => (step(), 1..50_usize).prop_map(|(by_ms, at_most)| Operation::Advance { by_ms, at_most }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_operations_agree_with_a_sorted_map(operations in proptest::collection::vec(operation(), 1..300)) {
        let mut pair = Pair::new();
        let mut now = NOW;
        for operation in operations {
            match operation {
                Operation::Arm { job, due_ms } => pair.arm(job, due_ms),
                Operation::ArmFromNow { job, in_ms } => pair.arm(job, now.saturating_add(in_ms)),
                Operation::ArmMany { first, count, due_ms, step_ms } => {
                    for index in 0..count {
                        pair.arm((first + index) % JOBS, due_ms.saturating_add(step_ms * i64::from(index)));
                    }
                }
                Operation::Disarm { job } => pair.disarm(job),
                Operation::Advance { by_ms, at_most } => {
                    now = now.saturating_add(by_ms);
                    pair.advance(now, at_most);
                }
            }
            pair.check();
        }
        pair.check_all();
        pair.advance(i64::MAX, 100);
        pair.check_all();
    }
}
