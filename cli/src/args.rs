//! The command line: names and help. Not here: what a command does. Invariant: each
//! command shows an example, and says only what works in this version.

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    apply, backfill, completion, crontab, dead_letters, delete, describe, explain, get, logs, next, pause, run_orders,
    runs, schemas, topics, trigger, version,
};
use crate::output::Format;
use crate::{dev, serve};

/// A job scheduler on an event log.
#[derive(Debug, Parser)]
#[command(
    name = "orloj",
    version,
    about = "A job scheduler on an event log",
    after_help = "Start with `orloj dev --file examples`, then `orloj get jobs` in another terminal."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// Address of the API
    #[arg(
        long,
        global = true,
        env = "ORLOJ_SERVER",
        default_value = "http://127.0.0.1:1410",
        value_name = "URL",
        help_heading = "Global options"
    )]
    pub(crate) server: String,
    /// Token for the API
    #[arg(long, global = true, env = "ORLOJ_TOKEN", hide_env_values = true, help_heading = "Global options")]
    pub(crate) token: Option<String>,
    /// How the answer is shown
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Global options"
    )]
    pub(crate) output: Format,
}

/// The namespace of jobs that are named without one.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Namespace {
    /// Namespace of jobs that are named without one [default: default]
    #[arg(short, long, env = "ORLOJ_NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Dev(dev::DevArguments),
    Serve(serve::ServeArguments),
    Apply(apply::ApplyArguments),
    Delete(delete::DeleteArguments),
    Get(get::GetArguments),
    Describe(describe::DescribeArguments),
    Trigger(trigger::TriggerArguments),
    Backfill(backfill::BackfillArguments),
    Pause(pause::PauseArguments),
    Resume(pause::ResumeArguments),
    Cancel(run_orders::CancelArguments),
    Retry(run_orders::RetryArguments),
    Runs(runs::RunsArguments),
    Logs(logs::LogsArguments),
    Next(next::NextArguments),
    Explain(explain::ExplainArguments),
    Dlq(dead_letters::DlqArguments),
    Import(crontab::ImportArguments),
    Topics(topics::TopicsArguments),
    Schemas(schemas::SchemasArguments),
    Version(version::VersionArguments),
    Completion(completion::CompletionArguments),
    /// Watch over a runner; started by it
    #[command(hide = true, after_help = "Started by `orloj serve runner`, not by people.")]
    Guard,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("orloj "), "`orloj {}` has no example", command.get_name());
        }
    }
}
