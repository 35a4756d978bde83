//! Seeded simulation: the real trigger and dispatcher, their real driver, on the in-memory log and a clock that
//! only moves when told. Crashes, freezes, lost runners and repeated records come from the seed. Not here: real
//! processes (`faults`). Invariant: the same seed gives the same trace, and a failure prints its seed.

mod check;
mod model_runner;
mod random;
mod workload;
mod world;

use std::collections::BTreeSet;
use std::sync::Mutex;

use world::World;

/// Seeds run by `make test`; `ORLOJ_SIM_SEEDS=N` runs more, `ORLOJ_SIM_SEED=N` one.
const SEEDS: u64 = 300;
/// Every so many seeds are run twice to compare their traces.
const REPEAT_EVERY: u64 = 10;

#[allow(clippy::disallowed_methods, reason = "a test reads which seeds to run from the environment")]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Runs one seed to its end and answers the hash of its trace, and what happened in it.
fn run(seed: u64) -> (u64, BTreeSet<&'static str>) {
    let mut world = World::new(seed);
    world.run_faulty();
    world.heal();
    let findings = check::check(&world);
    assert!(findings.is_empty(), "seed {seed} (repeat it with ORLOJ_SIM_SEED={seed}):\n  {}", findings.join("\n  "));
    let moments = check::moments(&world);
    (world.trace_hash(), moments)
}

#[test]
fn every_seed_decides_each_fire_time_once_and_ends_each_run_once() {
    if let Some(seed) = number("ORLOJ_SIM_SEED") {
        let (trace, moments) = run(seed);
        println!("seed {seed}: trace {trace:016x}, {moments:?}");
        return;
    }
    let seeds = number("ORLOJ_SIM_SEEDS").unwrap_or(SEEDS);
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get) as u64;
    let met = Mutex::new(BTreeSet::new());
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let met = &met;
            scope.spawn(move || {
                for seed in (worker..seeds).step_by(usize::try_from(workers).unwrap_or(1)) {
                    let (trace, moments) = run(seed);
                    met.lock().expect("nobody panicked").extend(moments);
                    if seed % REPEAT_EVERY == 0 {
                        assert_eq!(trace, run(seed).0, "seed {seed} gave two different traces");
                    }
                }
            });
        }
    });
    if seeds >= SEEDS {
        let met = met.into_inner().expect("nobody panicked");
        assert_eq!(met, check::MOMENTS.into(), "what is not met is not tested");
    }
}

/// The checker itself: a log that was torn by hand must not pass.
#[test]
fn the_checker_notices_a_decision_that_is_missing_or_doubled() {
    let mut world = World::new(1);
    world.run_faulty();
    world.heal();
    assert_eq!(check::check(&world), Vec::<String>::new());
    world.repeat_a_decision();
    assert!(!check::check(&world).is_empty(), "a doubled decision went unnoticed");
    let mut world = World::new(1);
    world.run_faulty();
    world.heal();
    world.forget_a_decision();
    assert!(!check::check(&world).is_empty(), "a missing decision went unnoticed");
}
