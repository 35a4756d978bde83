//! Workloads with their calibration: one JSON line each on standard output, progress on standard error. Not a
//! test: nothing here asserts a time. Invariant: every figure stands beside the calibration of the same run.

mod bed;
mod burst;
mod calibrate;
mod idle;
mod memory;
mod start;
mod usage;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use bed::Bed;

/// Where a workload runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Backend {
    /// The embedded log, on disk.
    Embedded,
    /// A real Apache Kafka broker, started for this run.
    Kafka,
    /// Both, one after the other.
    Both,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Many one-shots due at one instant, until the last decision is durable.
    Burst,
    /// Run now at a steady rate, until the process was started.
    Start,
    /// `orloj dev` with nothing to do.
    Idle,
    /// What a job costs the trigger in memory, without any log.
    Memory,
    /// All of them.
    All,
}

/// Measures Orloj on this machine.
#[derive(Debug, Parser)]
#[command(after_help = "Example: orloj-bench --backend embedded --workload burst --jobs 20000")]
struct Arguments {
    /// Where to run.
    #[arg(long, value_enum, default_value = "both")]
    backend: Backend,
    /// What to measure.
    #[arg(long, value_enum, default_value = "all")]
    workload: Workload,
    /// One-shots of the burst.
    #[arg(long, default_value_t = 20_000)]
    jobs: usize,
    /// Jobs of `memory`.
    #[arg(long, default_value_t = 1_000_000)]
    held_jobs: usize,
    /// Schedule of the jobs of `memory`.
    #[arg(long, default_value = "* * * * *")]
    cron: String,
    /// Runs per second of `start`.
    #[arg(long, default_value_t = 200)]
    rate: u64,
    /// Seconds of `start` and of `idle`.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Seconds of the same load before `start` is measured: a broker's virtual machine compiles for most of a minute.
    #[arg(long, default_value_t = 60)]
    warm_seconds: u64,
    /// Bursts before the one that is measured.
    #[arg(long, default_value_t = 2)]
    warm_rounds: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let wants = |workload| arguments.workload == workload || arguments.workload == Workload::All;
    if wants(Workload::Memory) {
        // First: memory that others have freed would be counted as nobody's.
        memory::run(arguments.held_jobs, &arguments.cron);
    }
    for backend in [Backend::Embedded, Backend::Kafka] {
        if arguments.backend != backend && arguments.backend != Backend::Both {
            continue;
        }
        if wants(Workload::Burst) {
            burst::run(&Bed::new(backend), arguments.jobs, arguments.warm_rounds);
        }
        if wants(Workload::Start) {
            start::run(&Bed::new(backend), arguments.rate, arguments.seconds, arguments.warm_seconds);
        }
    }
    if wants(Workload::Idle) && arguments.backend != Backend::Kafka {
        return idle::run(arguments.seconds);
    }
    ExitCode::SUCCESS
}
