//! A hierarchical timer wheel: when each job is due, to the millisecond. Not here: clocks and threads (it is
//! told instants and asked for the earliest), what a job is. Invariant: `first` is exact, never a bound; a job
//! has at most one timer; timers come out in order of (due, armed).
//!
//! The slots are absolute: a level is six bits of the due time, so there is no hand to turn, nothing cascades
//! with time, and reading changes nothing. A slot is a short list until it holds too much, then a wheel of its
//! own one level finer. Eleven levels cover all of `i64`, which makes the coarsest ones the overflow.

mod due;
mod node;
#[cfg(test)]
mod tests;

use due::Due;
use node::{LEAF, Node, TOP, digit_of};

/// A slot above the finest level with more timers than this is opened into a finer wheel.
const SLOT_TIMERS_MAX: u8 = 42;
/// Most jobs that a wheel can index; the last index marks an end.
pub(crate) const JOBS_MAX: u32 = u32::MAX;
/// No timer: links of a job that is not armed.
const NONE: u32 = u32::MAX;
/// The coarsest wheel; never freed.
const ROOT: u32 = 0;
/// Flips the sign, so that instants before and after 1970 sort as unsigned numbers.
const SIGN: u64 = 1 << 63;

const _: () = assert!(size_of::<Timer>() == 16, "a timer in the slab is 16 bytes");
/// Timers that are spread in time: each finer wheel has those of the slot it was. Many timers at one instant and
/// nothing near it add a wheel for each level down to it, however many they are.
const _: () = assert!(16 + size_of::<Node>().div_ceil(SLOT_TIMERS_MAX as usize + 1) <= 24, "24 bytes, wheels included");

/// One job's place in the wheel; its index in the slab is the index of the job.
#[derive(Debug, Clone, Copy)]
struct Timer {
    /// The due time in milliseconds since the epoch, sign flipped.
    key: u64,
    /// The timer armed after this one in the same slot, or the first one again.
    next: u32,
    /// The timer armed before this one in the same slot, or the last one.
    previous: u32,
}

const UNARMED: Timer = Timer { key: 0, next: NONE, previous: NONE };

/// When each of up to [`JOBS_MAX`] jobs is due.
#[derive(Debug)]
pub(crate) struct Wheel {
    timers: Vec<Timer>,
    nodes: Vec<Node>,
    free_nodes: Vec<u32>,
    /// How many jobs are armed.
    armed: usize,
}

impl Wheel {
    /// No timers.
    pub(crate) fn new() -> Self {
        Self { timers: Vec::new(), nodes: vec![Node::EMPTY], free_nodes: Vec::new(), armed: 0 }
    }

    /// Sets when a job is due, in milliseconds since the epoch, instead of what was set before. The slab grows
    /// to the job's index, so indexes are to be dense. Constant time: at most eleven levels, and a slot that
    /// opens moves at most [`SLOT_TIMERS_MAX`] timers a level.
    pub(crate) fn arm(&mut self, job: u32, due_ms: i64) {
        assert!(job < JOBS_MAX, "the last index is not a job's");
        self.disarm(job);
        let index = job as usize;
        if index >= self.timers.len() {
            self.timers.resize(index + 1, UNARMED);
        }
        let key = key_of(due_ms);
        self.timers[index].key = key;
        let (mut node, mut level) = (ROOT, TOP);
        let mut digit = digit_of(key, level);
        while self.node(node).is_open(digit) {
            node = self.node(node).slots[digit];
            level -= 1;
            digit = digit_of(key, level);
        }
        self.append(node, digit, job);
        self.armed += 1;
        // All of a slot that opens may land in one slot of the next level: then the new timer is there too.
        while level > LEAF && self.node(node).counts[digit] > SLOT_TIMERS_MAX {
            node = self.open(node, digit, level);
            level -= 1;
            digit = digit_of(key, level);
        }
    }

    /// Takes a job out; nothing happens if it is not armed. Constant time.
    pub(crate) fn disarm(&mut self, job: u32) {
        let Some(timer) = self.timers.get(job as usize).copied().filter(|timer| timer.next != NONE) else { return };
        let (mut node, mut level) = (ROOT, TOP);
        let mut parents = [ROOT; TOP + 1];
        let mut digit = digit_of(timer.key, level);
        while self.node(node).is_open(digit) {
            parents[level] = node;
            node = self.node(node).slots[digit];
            level -= 1;
            digit = digit_of(timer.key, level);
        }
        self.unlink(node, digit, job, timer);
        self.armed -= 1;
        while node != ROOT && self.node(node).occupied == 0 {
            self.free_nodes.push(node);
            level += 1;
            node = parents[level];
            self.node_mut(node).close(digit_of(timer.key, level));
        }
    }

    /// How many jobs are armed.
    pub(crate) fn len(&self) -> usize {
        self.armed
    }

    /// The earliest due time of all, in milliseconds since the epoch; exact. Constant time.
    pub(crate) fn first(&self) -> Option<i64> {
        let (mut node, mut level) = (self.node(ROOT), TOP);
        loop {
            let digit = node.first_occupied()?;
            let slot = node.slots[digit];
            if node.is_open(digit) {
                node = self.node(slot);
                level -= 1;
            } else if level == LEAF {
                return Some(due_of(self.timers[slot as usize].key));
            } else {
                return self.list(slot).map(|job| self.timers[job as usize].key).min().map(due_of);
            }
        }
    }

    /// The jobs due at `until_ms` or before, each with its due time, in order of (due, armed). Reads only:
    /// taking the first few costs no more than those few.
    pub(crate) fn due(&self, until_ms: i64) -> Due<'_> {
        Due::new(self, key_of(until_ms))
    }

    /// The timers of a slot in the order they were armed.
    fn list(&self, head: u32) -> impl Iterator<Item = u32> {
        let following = move |job: &u32| Some(self.timers[*job as usize].next).filter(|next| *next != head);
        std::iter::successors(Some(head), following)
    }

    fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    fn node_mut(&mut self, node: u32) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    /// Puts a timer at the end of a slot.
    fn append(&mut self, node: u32, digit: usize, job: u32) {
        let Some(head) = self.node_mut(node).take_one_more(digit, job) else {
            (self.timers[job as usize].next, self.timers[job as usize].previous) = (job, job);
            return;
        };
        let last = self.timers[head as usize].previous;
        (self.timers[job as usize].next, self.timers[job as usize].previous) = (head, last);
        self.timers[last as usize].next = job;
        self.timers[head as usize].previous = job;
    }

    fn unlink(&mut self, node: u32, digit: usize, job: u32, timer: Timer) {
        self.timers[timer.previous as usize].next = timer.next;
        self.timers[timer.next as usize].previous = timer.previous;
        self.timers[job as usize] = UNARMED;
        let next = (timer.next != job).then_some(timer.next);
        self.node_mut(node).lose_one(digit, job, next);
    }

    /// Turns a slot of a wheel at `level` into a finer wheel with the same timers, and answers that one.
    fn open(&mut self, node: u32, digit: usize, level: usize) -> u32 {
        let head = self.node(node).slots[digit];
        let child = self.new_node();
        let mut job = head;
        loop {
            let timer = self.timers[job as usize];
            self.append(child, digit_of(timer.key, level - 1), job);
            if timer.next == head {
                break;
            }
            job = timer.next;
        }
        self.node_mut(node).open_into(digit, child);
        child
    }

    fn new_node(&mut self) -> u32 {
        if let Some(node) = self.free_nodes.pop() {
            *self.node_mut(node) = Node::EMPTY;
            return node;
        }
        self.nodes.push(Node::EMPTY);
        // Each node holds a timer, and there are fewer timers than numbers.
        u32::try_from(self.nodes.len() - 1).unwrap_or_else(|_| unreachable!("more nodes than timers"))
    }
}

fn key_of(due_ms: i64) -> u64 {
    due_ms.cast_unsigned() ^ SIGN
}

fn due_of(key: u64) -> i64 {
    (key ^ SIGN).cast_signed()
}
