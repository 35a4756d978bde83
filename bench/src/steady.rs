//! A stretch of steady load, measured: what was intended in it, what the witness saw of that, and what it cost.
//! Not here: which jobs make the load (`w2`, `w3`). Invariant: intended times are those of the schedules; a
//! trigger that falls behind is measured against them and not against itself.

use std::time::Duration;

use serde_json::{Value, json};

use crate::bed::Bed;
use crate::served::Served;
use crate::usage::rounded;
use crate::watch::{Fire, Verdict, Watch, judge};

/// Time for what is late to come, after the stretch.
const LATE_MAX: Duration = Duration::from_secs(5);

/// What was measured.
pub(crate) struct Stretch {
    pub(crate) verdict: Verdict,
    pub(crate) line: Value,
}

/// Measures `seconds` whole seconds in which `per_second` fire times of the jobs `<prefix>-…` are intended.
/// `is_ours` picks them among those that the jobs called so have.
pub(crate) fn measure(
    bed: &Bed,
    trigger: &Served,
    prefix: &str,
    (per_second, seconds): (usize, u64),
    is_ours: impl Fn(&Fire) -> bool,
) -> Stretch {
    let watch = Watch::start(bed);
    // The witness has its connections before the first intended instant.
    let from_ms = (bed.clock.now().millis() / 1000 + 3) * 1000;
    let until_ms = from_ms + i64::try_from(seconds).unwrap_or(0) * 1000;
    wait_until(bed, from_ms);
    let before = (trigger.cpu_seconds(), bed.broker_cpu_seconds(), transactions(trigger));
    wait_until(bed, until_ms);
    let after = (trigger.cpu_seconds(), bed.broker_cpu_seconds(), transactions(trigger));
    std::thread::sleep(LATE_MAX);
    let fires = watch.finish(prefix);
    let expected = per_second * usize::try_from(seconds).unwrap_or(0);
    let is_within = |fire: &Fire| (from_ms..until_ms).contains(&fire.intended_ms) && is_ours(fire);
    let verdict = judge(&fires, expected, is_within);
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    let (count, length) = (expected as f64, seconds as f64);
    let committed = (after.2 - before.2).max(1.0);
    let line = json!({
        "due_per_second": per_second, "seconds": seconds,
        "trigger_cpu_us_per_fire": rounded((after.0 - before.0) * 1e6 / count),
        "broker_cpu_us_per_fire": rounded((after.1 - before.1) * 1e6 / count),
        "trigger_cores": rounded((after.0 - before.0) / length),
        "broker_cores": rounded((after.1 - before.1) / length),
        "transactions_per_second": rounded(committed / length),
        "trigger_cpu_ms_per_transaction": rounded((after.0 - before.0) * 1e3 / committed),
        "trigger_peak_mib": trigger.high_water_mib().round(),
        "verdict": verdict.json(),
    });
    Stretch { verdict, line }
}

fn wait_until(bed: &Bed, instant_ms: i64) {
    let left = u64::try_from(instant_ms - bed.clock.now().millis()).unwrap_or(0);
    std::thread::sleep(Duration::from_millis(left));
}

fn transactions(trigger: &Served) -> f64 {
    trigger.metric("orloj_trigger_append_seconds_count")
}
