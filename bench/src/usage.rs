//! CPU time, memory and load from `/proc`, and figures of sorted values. Invariant: a process that is gone counts
//! as nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};

/// CPU seconds (user and system) that a process has used, all its threads included (`proc(5)`, `stat`).
pub(crate) fn cpu_seconds(process: u32) -> f64 {
    stat_seconds(process, [11, 12])
}

/// CPU seconds of the children that a process has waited for.
pub(crate) fn children_seconds(process: u32) -> f64 {
    stat_seconds(process, [13, 14])
}

fn stat_seconds(process: u32, wanted: [usize; 2]) -> f64 {
    let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { return 0.0 };
    // The name is in parentheses and may hold spaces: fields are counted after it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: f64 = wanted.iter().filter_map(|&index| fields.get(index)?.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// The user of this process, by number: attempts run as it, so that nothing is measured but what has always been.
pub(crate) fn own_user() -> String {
    fs::metadata("/proc/self").map_or(0, |found| found.uid()).to_string()
}

/// Resident memory of a process in MiB.
pub(crate) fn resident_mib(process: u32) -> f64 {
    status_mib(process, "VmRSS:")
}

/// Most memory that a process has had resident at once, in MiB.
pub(crate) fn high_water_mib(process: u32) -> f64 {
    status_mib(process, "VmHWM:")
}

fn status_mib(process: u32, field: &str) -> f64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap_or_default();
    let kib: f64 = line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or(0.0);
    kib / 1024.0
}

/// How many processes wanted a core, on average over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0.0)
}

/// The value below which `percent` of the sorted values lie.
pub(crate) fn percentile(sorted: &[f64], percent: f64) -> f64 {
    if sorted.is_empty() {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = ((sorted.len() - 1) as f64 * percent / 100.0).round() as usize;
    sorted[index]
}

/// p50, p99, p99.9 and the greatest of sorted milliseconds.
pub(crate) fn percentiles(sorted: &[f64]) -> Value {
    json!({
        "p50": percentile(sorted, 50.0), "p99": percentile(sorted, 99.0), "p99.9": percentile(sorted, 99.9),
        "max": sorted.last().copied().unwrap_or(0.0),
    })
}

/// Rounded to three digits after the point: more is noise.
pub(crate) fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
