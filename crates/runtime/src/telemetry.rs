//! Log lines: where they go and which are written. Not here: metrics (`metrics`), and what is worth a line.
//! Invariant: log lines go to standard error, so that standard output carries answers only.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::config::LogFormat;

/// Variables that choose what is logged, the first one that is set, in the syntax of `tracing_subscriber`'s filter.
const FILTER_VARIABLES: [&str; 2] = ["ORLOJ_LOG", "RUST_LOG"];
/// librdkafka says at INFO what its own application should know, and at DEBUG what its authors should.
const FILTER_QUIET: &str = "librdkafka=warn,rdkafka=warn";

/// Starts logging to standard error. `level` is used when no variable says otherwise. Called a second time in the
/// same process it changes nothing.
pub fn init(format: LogFormat, level: &str) {
    let filter = filter(level);
    let started = match format {
        LogFormat::Text => tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .with_ansi(
                std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
            )
            .with_env_filter(filter)
            .with_target(false)
            .try_init(),
        LogFormat::Json => tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .with_env_filter(filter)
            .try_init(),
    };
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

#[expect(clippy::disallowed_methods, reason = "what is logged is asked for before there is a configuration")]
fn filter(level: &str) -> EnvFilter {
    let chosen = FILTER_VARIABLES.iter().find_map(|name| std::env::var(name).ok().filter(|text| !text.is_empty()));
    let Some(text) = chosen else { return EnvFilter::new(format!("{level},{FILTER_QUIET}")) };
    EnvFilter::try_new(&text).unwrap_or_else(|error| {
        eprintln!("note: the log filter `{text}` is ignored: {error}");
        EnvFilter::new(format!("{level},{FILTER_QUIET}"))
    })
}
