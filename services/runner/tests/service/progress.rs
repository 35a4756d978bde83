//! Progress on its way to the log, and output without end. Invariant: a runner reports no more often than it says, keeps
//! the last word, and its own memory does not grow with what a job writes.

use orloj_domain::attempt::{AttemptEventType, OutcomeKind};
use orloj_domain::runner::OutputStream;

use crate::support::{Bed, ready, record, shell, text_of};

/// How much a job writes, and how much of that may show in the memory of the runner and of everything else that tests run in
/// this process meanwhile.
const FLOOD_MIB: usize = 300;
const GROWTH_MIB_MAX: usize = 64;

#[test]
fn progress_is_reported_now_and_then_and_at_the_end() {
    let bed = Bed::start(|_| {});
    let script =
        "i=1; while [ $i -le 99 ]; do echo \"orloj:progress $i step\"; i=$((i+1)); done; echo orloj:progress 100";
    let attempt = ready("progress", shell(script));
    bed.append(record(&attempt));
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    let events = bed.events(attempt.run_id);
    let of_progress = |kind| kind == AttemptEventType::Progress;
    let percents: Vec<_> = events.iter().filter(|event| of_progress(event.kind)).map(|event| event.percent).collect();
    assert!(percents.iter().all(Option::is_some) && (1..50).contains(&percents.len()), "{percents:?}");
    assert!(events.iter().filter(|event| !of_progress(event.kind)).all(|event| event.percent.is_none()));
    assert_eq!(percents.last(), Some(&Some(100)), "the last word counts: {percents:?}");
    assert_eq!(events.last().map(|event| event.kind), Some(AttemptEventType::Finished));
    let output = text_of(&bed.outputs(attempt.run_id), OutputStream::Stdout);
    assert!(output.starts_with("orloj:progress 1 step\n") && output.ends_with("orloj:progress 100\n"));
}

/// What this process holds in memory.
fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("resident");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("number") / 1024
}

#[test]
fn a_flood_of_output_stays_bounded_in_memory() {
    let bed = Bed::start(|_| {});
    let before = resident_mib();
    let attempt = ready(
        "flood",
        shell(&format!("yes 'a line of a job that never stops' | head -c {FLOOD_MIB}M; echo; echo end")),
    );
    bed.append(record(&attempt));
    assert_eq!(bed.outcome(attempt.run_id).kind, OutcomeKind::Succeeded);
    let after = resident_mib();
    assert!(after < before + GROWTH_MIB_MAX, "{before} MiB before, {after} MiB after");
    let outputs = bed.outputs(attempt.run_id);
    assert!(text_of(&outputs, OutputStream::Stdout).ends_with("\nend\n"), "the end is kept");
    let dropped = outputs.last().map(|output| output.dropped_bytes).and_then(|bytes| usize::try_from(bytes).ok());
    assert!(dropped.is_some_and(|bytes| bytes > (FLOOD_MIB - 2) * 1024 * 1024), "{dropped:?}");
}
