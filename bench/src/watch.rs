//! The independent witness: reads `fires` as a dispatcher would, notes when each decision could be read, and judges
//! them afterwards. Not here: what was intended (the workloads). Invariant: nothing is decoded while it is
//! measured; a decision counts once, and each one that is missing, repeated or early makes the line invalid.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use orloj_domain::fire::{Decision, FireDecision};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_runtime::log::{Record, Waker};
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::definitions::index_of;
use crate::usage::percentiles;

/// Records of one poll.
const POLL_MAX: usize = 20_000;

/// A witness at work.
pub(crate) struct Watch {
    thread: JoinHandle<Vec<Seen>>,
    count: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
    waker: Waker,
}

/// A record of `fires` and when it was there to be read, in milliseconds of the wall clock.
pub(crate) struct Seen {
    key: Vec<u8>,
    value: Vec<u8>,
    at_ms: i64,
}

/// A decision about a job of the bench.
pub(crate) struct Fire {
    pub(crate) job: usize,
    pub(crate) intended_ms: i64,
    pub(crate) decided_ms: i64,
    pub(crate) seen_ms: i64,
    pub(crate) is_requested: bool,
}

/// What became of the fire times of a stretch.
pub(crate) struct Verdict {
    pub(crate) expected: usize,
    pub(crate) missing: usize,
    pub(crate) duplicates: usize,
    pub(crate) early: usize,
    /// Decided, but not requested: noticed too late.
    pub(crate) skipped: usize,
    /// From the intended instant until it could be read, in milliseconds, sorted.
    pub(crate) lateness_ms: Vec<f64>,
}

impl Watch {
    /// Reads what is decided from now on.
    pub(crate) fn start(bed: &Bed) -> Self {
        let mut reader = bed.tail(topic::FIRES);
        let waker = reader.waker();
        let count = Arc::new(AtomicUsize::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let (clock, shared, over) = (Arc::clone(&bed.clock), Arc::clone(&count), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let records = reader.poll(POLL_MAX, Duration::from_millis(100)).expect("a readable log");
                let at_ms = clock.now().millis();
                let before = seen.len();
                seen.extend(records.into_iter().filter_map(|record| witnessed(record, at_ms)));
                shared.fetch_add(seen.len() - before, Ordering::Relaxed);
            }
            seen
        });
        Self { thread, count, is_over, waker }
    }

    /// Waits until it has seen `wanted` decisions, `timeout` at most.
    pub(crate) fn wait_for(&self, wanted: usize, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        while self.count.load(Ordering::Relaxed) < wanted && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends, and tells what it saw of the jobs called `<prefix>-<number>`.
    pub(crate) fn finish(self, prefix: &str) -> Vec<Fire> {
        self.is_over.store(true, Ordering::Relaxed);
        self.waker.wake();
        let seen = self.thread.join().expect("a witness that lives");
        seen.into_iter().filter_map(|seen| fire(&seen, prefix)).collect()
    }
}

fn witnessed(record: Record, at_ms: i64) -> Option<Seen> {
    let key = record.key.filter(|key| !key.starts_with(b"__"))?;
    Some(Seen { key, value: record.value?, at_ms })
}

fn fire(seen: &Seen, prefix: &str) -> Option<Fire> {
    let (found, job) = index_of(&seen.key)?;
    if found != prefix {
        return None;
    }
    let decision: FireDecision = codec::decode(&seen.value).expect("a decision");
    // A range is a stretch that nobody noticed in time: its first fire time stands for all, the others are missing.
    Some(Fire {
        job,
        intended_ms: decision.fire_time.millis(),
        decided_ms: decision.decided_at.millis(),
        seen_ms: seen.at_ms,
        is_requested: decision.decision == Decision::Requested,
    })
}

/// Judges decisions: `expected` fire times were intended, which are those that `is_expected` picks.
pub(crate) fn judge(fires: &[Fire], expected: usize, is_expected: impl Fn(&Fire) -> bool) -> Verdict {
    let counted: Vec<&Fire> = fires.iter().filter(|fire| is_expected(fire)).collect();
    let mut names: Vec<(usize, i64)> = counted.iter().map(|fire| (fire.job, fire.intended_ms)).collect();
    names.sort_unstable();
    names.dedup();
    #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
    let mut lateness_ms: Vec<f64> = counted.iter().map(|fire| (fire.seen_ms - fire.intended_ms) as f64).collect();
    lateness_ms.sort_by(f64::total_cmp);
    Verdict {
        expected,
        missing: expected.saturating_sub(names.len()),
        duplicates: counted.len() - names.len(),
        early: counted.iter().filter(|fire| fire.decided_ms.min(fire.seen_ms) < fire.intended_ms).count(),
        skipped: counted.iter().filter(|fire| !fire.is_requested).count(),
        lateness_ms,
    }
}

impl Verdict {
    /// True if every fire time was decided once, not before its time, and requested.
    pub(crate) fn is_valid(&self) -> bool {
        self.missing + self.duplicates + self.early + self.skipped == 0
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "expected": self.expected, "missing": self.missing, "duplicates": self.duplicates, "early": self.early,
            "skipped": self.skipped, "valid": self.is_valid(), "lateness_ms": percentiles(&self.lateness_ms),
        })
    }
}
