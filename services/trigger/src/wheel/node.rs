//! One wheel of the hierarchy: 64 slots, each empty, a list of timers, or a finer wheel. Not here: the timers
//! and their links (`Wheel`). Invariant: an open slot is occupied; what is not occupied is never read.

/// Bits of the due time that one level stands for.
const BITS: usize = 6;
/// Slots of a wheel.
const SLOTS: usize = 1 << BITS;
/// The finest level: a slot is one millisecond.
pub(super) const LEAF: usize = 0;
/// The coarsest level: 64 bits of due time need eleven times six.
pub(super) const TOP: usize = 10;

/// The slot of a due time at a level.
pub(super) fn digit_of(key: u64, level: usize) -> usize {
    (key >> (level * BITS)) as usize & (SLOTS - 1)
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    /// Slots that hold anything.
    pub(super) occupied: u64,
    /// Slots that are finer wheels.
    open: u64,
    /// The first timer of a list, or the index of a finer wheel.
    pub(super) slots: [u32; SLOTS],
    /// Timers of a list; means nothing for finer wheels, and at the finest level, where lists have no limit.
    pub(super) counts: [u8; SLOTS],
}

impl Node {
    pub(super) const EMPTY: Self = Self { occupied: 0, open: 0, slots: [0; SLOTS], counts: [0; SLOTS] };

    pub(super) fn is_open(&self, digit: usize) -> bool {
        self.open >> digit & 1 == 1
    }

    pub(super) fn is_occupied(&self, digit: usize) -> bool {
        self.occupied >> digit & 1 == 1
    }

    pub(super) fn first_occupied(&self) -> Option<usize> {
        (self.occupied != 0).then_some(self.occupied.trailing_zeros() as usize)
    }

    /// Counts a timer that joins a list, and answers the first one of the list if it is not this one.
    pub(super) fn take_one_more(&mut self, digit: usize, job: u32) -> Option<u32> {
        if self.is_occupied(digit) {
            self.counts[digit] = self.counts[digit].wrapping_add(1);
            return Some(self.slots[digit]);
        }
        self.occupied |= 1 << digit;
        self.slots[digit] = job;
        self.counts[digit] = 1;
        None
    }

    /// A timer left a list; `next` follows it if it was not the only one.
    pub(super) fn lose_one(&mut self, digit: usize, job: u32, next: Option<u32>) {
        self.counts[digit] = self.counts[digit].wrapping_sub(1);
        match next {
            None => self.occupied &= !(1 << digit),
            Some(next) if self.slots[digit] == job => self.slots[digit] = next,
            Some(_) => {}
        }
    }

    /// A list becomes a finer wheel.
    pub(super) fn open_into(&mut self, digit: usize, child: u32) {
        self.open |= 1 << digit;
        self.slots[digit] = child;
    }

    /// A finer wheel became empty.
    pub(super) fn close(&mut self, digit: usize) {
        self.open &= !(1 << digit);
        self.occupied &= !(1 << digit);
    }
}
