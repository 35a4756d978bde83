//! The `orloj` binary: reads the command line, runs the command, ends with its exit code. Everything else is in
//! the modules: `commands` for operators, `serve` and `dev` for services. Invariant: nothing is decided here.

mod args;
mod client;
mod commands;
mod crontab;
mod dev;
mod exit;
mod ics;
mod manifest_file;
mod output;
mod serve;
mod services;
mod signals;
mod watch;

use std::process::ExitCode;

use clap::Parser as _;

use args::{Arguments, Command};
use commands::Context;
use exit::{Code, Outcome};

/// Of what is allocated by one thread and freed by another, which is what the services do all day long (ADR 0017).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    // Before all else: a process on its way to become an attempt's program has no time for a command line.
    let mut given = std::env::args_os().skip(1);
    if given.next().is_some_and(|first| first == "launch") {
        return orloj_runner::launch(given);
    }
    let Arguments { global, command } = Arguments::parse();
    match run(&Context { global }, command) {
        Ok(code) => code.into(),
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.code.into()
        }
    }
}

fn run(context: &Context, command: Command) -> Outcome {
    use commands::{
        apply, backfill, completion, crontab, dead_letters, delete, describe, explain, get, logs, next, pause,
        run_orders, runs, schemas, topics, trigger, version,
    };
    match command {
        Command::Dev(arguments) => dev::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Apply(arguments) => apply::run(context, arguments),
        Command::Delete(arguments) => delete::run(context, arguments),
        Command::Get(arguments) => get::run(context, &arguments),
        Command::Describe(arguments) => describe::run(context, &arguments),
        Command::Trigger(arguments) => trigger::run(context, arguments),
        Command::Backfill(arguments) => backfill::run(context, &arguments),
        Command::Pause(arguments) => pause::pause(context, &arguments),
        Command::Resume(arguments) => pause::resume(context, &arguments),
        Command::Cancel(arguments) => run_orders::cancel(context, &arguments),
        Command::Retry(arguments) => run_orders::retry(context, &arguments),
        Command::Runs(arguments) => runs::run(context, &arguments),
        Command::Logs(arguments) => logs::run(context, &arguments),
        Command::Next(arguments) => next::run(context, &arguments),
        Command::Explain(arguments) => explain::run(context, &arguments),
        Command::Dlq(arguments) => dead_letters::run(context, &arguments),
        Command::Import(arguments) => crontab::run(context, &arguments),
        Command::Topics(arguments) => topics::run(context, &arguments),
        Command::Schemas(arguments) => schemas::run(context, &arguments),
        Command::Version(arguments) => version::run(context, &arguments),
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Guard => {
            orloj_runner::guard();
            Ok(Code::Ok)
        }
    }
}
