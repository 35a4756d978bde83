//! Workloads with their calibration: one JSON line for each run on standard output and a table at the end, progress
//! on standard error. Not a test: nothing here asserts a time. Invariant: every figure stands beside the
//! calibration of the same run.

mod bed;
mod calibrate;
mod cancel;
mod definitions;
mod delayed;
mod idle;
mod in_process;
mod leases;
mod memory;
mod produce;
mod report;
mod served;
mod start;
mod steady;
mod usage;
mod w1;
mod w2;
mod w3;
mod w4;
mod w5;
mod w6;
mod w7;
mod w8;
mod watch;

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
    /// Due burst: one-shots at one instant, until the last decision is durable. --jobs.
    #[value(name = "W1")]
    W1,
    /// Every-second jobs, doubled to the knee. --jobs to begin with, --seconds, --knee.
    #[value(name = "W2")]
    W2,
    /// Lateness with many jobs held. --jobs held, --rate due a second, --seconds.
    #[value(name = "W3")]
    W3,
    /// From asking for a run to the start of its handler. --rate, --seconds, --warm-seconds.
    #[value(name = "W4")]
    W4,
    /// No-op runs, to their durable ends: those that are ready, and as they come. --jobs is how many.
    #[value(name = "W5")]
    W5,
    /// Accepting bulk definitions. --jobs.
    #[value(name = "W6")]
    W6,
    /// Memory and idle CPU. --jobs, --seconds.
    #[value(name = "W7")]
    W7,
    /// Cold start and takeover. --jobs, --updates a key.
    #[value(name = "W8")]
    W8,
    /// Runs of `/bin/true`, to their durable ends, as W5. --jobs is how many.
    Exec,
    /// From asking for the end of a run to the end of its process. --jobs is how many, --rate a second.
    Cancel,
    /// Attempts that are held and do nothing. --jobs is how many, --seconds.
    Leases,
    /// Runs that wait for their time. --jobs is how many, --seconds until they are due.
    Delayed,
    /// Run now at a steady rate, until the process was started.
    Start,
    /// `orloj dev` with nothing to do.
    Idle,
    /// What a job costs the trigger in memory, without any log. --jobs, --cron.
    Memory,
}

/// Measures Orloj on this machine.
#[derive(Debug, Parser)]
#[command(after_help = "Example: orloj-bench --workload W1 --jobs 100000 --backend kafka --runs 3")]
struct Arguments {
    /// Where to run; `W2` to `W8` measure a process of its own, and so Kafka only.
    #[arg(long, value_enum, default_value = "kafka")]
    backend: Backend,
    /// What to measure.
    #[arg(long, value_enum)]
    workload: Workload,
    /// How many jobs [default: 20,000 of W1 and W2, a million of all others]
    #[arg(long)]
    jobs: Option<usize>,
    /// How often it is measured.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Schedule of the jobs of `memory`.
    #[arg(long, default_value = "* * * * *")]
    cron: String,
    /// Fire times a second of `W3` (1,000 if nothing is said), runs a second of `start` (200) and `W4` (500)
    #[arg(long)]
    rate: Option<usize>,
    /// Shards of the installation [default: 32 on Kafka, 8 embedded]
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..=1024))]
    shards: Option<i32>,
    /// Length of a measured stretch.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// State records of each key in `W8`.
    #[arg(long, default_value_t = 1)]
    updates: usize,
    /// Double the jobs of `W2` until p99 lateness passes a second.
    #[arg(long)]
    knee: bool,
    /// Seconds of the same load before `start` is measured: a broker's virtual machine compiles for most of a minute.
    #[arg(long, default_value_t = 60)]
    warm_seconds: u64,
    /// Bursts of 20,000 before the first one of `W1` that is measured.
    #[arg(long, default_value_t = 3)]
    warm_rounds: usize,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.workload {
        Workload::Memory => memory::run(arguments.jobs.unwrap_or(1_000_000), &arguments.cron),
        Workload::Idle => return idle::run(arguments.seconds),
        Workload::W1 | Workload::Start => {
            for backend in [Backend::Embedded, Backend::Kafka] {
                if arguments.backend == backend || arguments.backend == Backend::Both {
                    run(&arguments, &Bed::new(backend, arguments.shards));
                }
            }
        }
        Workload::W2
        | Workload::W3
        | Workload::W4
        | Workload::W5
        | Workload::W6
        | Workload::W7
        | Workload::W8
        | Workload::Exec
        | Workload::Cancel
        | Workload::Leases
        | Workload::Delayed => {
            if arguments.backend != Backend::Kafka {
                eprintln!("--backend: this workload measures a process on Kafka; leave it out or write kafka");
                return ExitCode::FAILURE;
            }
            run(&arguments, &Bed::new(Backend::Kafka, arguments.shards));
        }
    }
    ExitCode::SUCCESS
}

fn run(arguments: &Arguments, bed: &Bed) {
    let Arguments { runs, seconds, .. } = *arguments;
    let few = arguments.jobs.unwrap_or(20_000);
    let many = arguments.jobs.unwrap_or(1_000_000);
    match arguments.workload {
        Workload::W1 => w1::run(bed, few, runs, arguments.warm_rounds),
        Workload::W2 => w2::run(bed, few, seconds, arguments.knee),
        Workload::W3 => w3::run(bed, many, arguments.rate.unwrap_or(1000), seconds, runs),
        Workload::W4 => {
            w4::run(bed, arguments.rate.unwrap_or(500) as u64, (seconds, arguments.warm_seconds), runs);
        }
        Workload::W5 => w5::run(bed, w5::Work::Handler, many, runs),
        Workload::Exec => w5::run(bed, w5::Work::Exec, few, runs),
        Workload::Cancel => cancel::run(bed, arguments.jobs.unwrap_or(200), arguments.rate.unwrap_or(20)),
        Workload::Leases => leases::run(bed, arguments.jobs.unwrap_or(10_000), seconds),
        Workload::W6 => w6::run(bed, many, runs),
        Workload::W7 => w7::run(bed, many, seconds),
        Workload::W8 => w8::run(bed, many, arguments.updates, runs),
        Workload::Delayed => delayed::run(bed, many, seconds.max(60)),
        Workload::Start => start::run(bed, arguments.rate.unwrap_or(200) as u64, seconds, arguments.warm_seconds),
        Workload::Idle | Workload::Memory => unreachable!("they need no log"),
    }
}
