//! What is due, in order, without changing the wheel. Invariant: each step costs a constant, so whoever takes
//! only the first few of a million pays for those few.

use super::node::LEAF;
use super::{ROOT, TOP, Wheel, due_of};

/// Jobs with their due times in milliseconds, in order of (due, armed).
pub(crate) struct Due<'a> {
    wheel: &'a Wheel,
    until: u64,
    /// The wheels from the coarsest down to where we are, each with the slots that are still to be visited.
    path: Vec<(u32, u64)>,
    /// The rest of a slot above the finest level, latest first.
    slot: Vec<(u64, u32)>,
    /// The rest of a slot at the finest level: the next timer, and the first one, where the list ends.
    instant: Option<(u32, u32)>,
}

impl<'a> Due<'a> {
    pub(super) fn new(wheel: &'a Wheel, until: u64) -> Self {
        let path = vec![(ROOT, wheel.node(ROOT).occupied)];
        Self { wheel, until, path, slot: Vec::new(), instant: None }
    }

    fn next_timer(&mut self) -> Option<(u64, u32)> {
        loop {
            if let Some((job, head)) = self.instant {
                let timer = self.wheel.timers[job as usize];
                self.instant = (timer.next != head).then_some((timer.next, head));
                return Some((timer.key, job));
            }
            if let Some(timer) = self.slot.pop() {
                return Some(timer);
            }
            self.enter_next_slot()?;
        }
    }

    fn enter_next_slot(&mut self) -> Option<()> {
        let level = TOP + 1 - self.path.len();
        let (node, left) = self.path.last_mut()?;
        if *left == 0 {
            self.path.pop();
            return Some(());
        }
        let digit = left.trailing_zeros() as usize;
        *left &= *left - 1;
        let node = self.wheel.node(*node);
        let content = node.slots[digit];
        if node.is_open(digit) {
            self.path.push((content, self.wheel.node(content).occupied));
        } else if level == LEAF {
            self.instant = Some((content, content));
        } else {
            self.slot.extend(self.wheel.list(content).map(|job| (self.wheel.timers[job as usize].key, job)));
            // Stable from the back: of those due together, the one armed first comes out first.
            self.slot.reverse();
            self.slot.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
        }
        Some(())
    }
}

impl Iterator for Due<'_> {
    type Item = (i64, u32);

    fn next(&mut self) -> Option<(i64, u32)> {
        let due = self.next_timer().filter(|(key, _)| *key <= self.until);
        if due.is_none() {
            // Everything after the first one that is not due is not due either.
            self.path.clear();
            self.slot.clear();
            self.instant = None;
        }
        due.map(|(key, job)| (due_of(key), job))
    }
}
