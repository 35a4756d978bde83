//! `orloj dev`: everything in one process on the embedded log, and a line for each thing that happens. Not here:
//! the services (`services`), the lines (`watch`). Invariant: one process per directory; Ctrl-C drains.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use orloj_runner::AttemptUser;
use orloj_runtime::clock::SystemClock;
use orloj_runtime::config::Config;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::log::{Log, LogError};
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use orloj_runtime::{telemetry, topics};

use crate::client::Client;
use crate::commands::apply;
use crate::exit::{Code, Failure, Outcome};
use crate::manifest_file::{self, Manifests};
use crate::output::{self, Format};
use crate::serve::{ConfigArguments, bind, no_thread, note_unknown_variables};
use crate::services::{Http, Parts, Role, Running, attempt_user, patience};
use crate::{signals, watch};

/// Shards of an installation on one machine.
const SHARDS: i32 = 8;
/// How long the answer to each job may take.
const ANSWER: Duration = Duration::from_secs(10);

/// Run everything in one process on an embedded log
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj dev
  orloj dev --file examples --data /var/lib/orloj
  orloj dev --listen 127.0.0.1:8080")]
pub(crate) struct DevArguments {
    /// Directory of the log and of all else that is kept
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Address of the API
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Manifests to apply at the start: a file or a folder; may be repeated
    #[arg(long = "file", short = 'f', value_name = "PATH", num_args = 1..)]
    files: Vec<String>,
    /// Listen where other machines can reach it, although nothing asks who is calling
    #[arg(long)]
    insecure: bool,
    /// Show no line for what happens
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    config: ConfigArguments,
}

pub(crate) fn run(arguments: &DevArguments) -> Outcome {
    let mut config = config(arguments)?;
    telemetry::init(config.log_format, "warn,orloj::signals=info");
    note_unknown_variables(&config);
    let user = attempt_user(&config)?;
    // Read before anything starts: a malformed manifest is a usage error, not a half-started system.
    let manifests =
        manifest_file::load(&arguments.files, None).map_err(|complaints| Failure::usage(complaints.join("\n")))?;

    let shutdown = Shutdown::new();
    signals::listen(shutdown.clone(), patience(&Role::ALL, &config))
        .map_err(|error| Failure::error(error.to_string()))?;
    let clock = Arc::new(SystemClock::new());
    let log = EmbeddedLog::open(&config.data_dir, clock.clone()).map_err(cannot_open)?;
    make_topics(&log, &config)?;
    let listener = bind(&config, arguments.insecure)?;
    let address = listener.address();
    // Targets of a trial are on this machine.
    config.runner_callback_url.get_or_insert_with(|| own_url(address));
    let parts = Parts {
        snapshots: None,
        config,
        log: Arc::new(log),
        clock,
        health: Health::new(),
        metrics: Metrics::new(),
        shutdown: shutdown.clone(),
    };
    let mut running = Running::new(shutdown.clone());
    let watching = if arguments.quiet {
        None
    } else {
        Some(watch::start(&parts).map_err(|error| Failure::error(error.to_string()))?)
    };
    running.start_http(Http::Api, listener, &parts).map_err(no_thread)?;
    running.start(&Role::ALL, &parts).map_err(no_thread)?;
    // The address is bound: a request waits until it is served.
    welcome(address, &parts.config, &user, manifests.jobs.len());
    apply(address, manifests, &shutdown);
    let is_good = running.wait();
    if let Some(watching) = watching {
        // It ends with the shutdown; what it still had to say has been said.
        let _ = watching.join();
    }
    Ok(if is_good { Code::Ok } else { Code::Error })
}

fn config(arguments: &DevArguments) -> Result<Config, Failure> {
    let data = arguments.data.as_ref().map(|data| ("--data", "data.dir", data.display().to_string()));
    let listen = arguments.listen.as_ref().map(|listen| ("--listen", "listen", listen.clone()));
    let defaults = vec![("shards", SHARDS.to_string()), ("data.dir", "./orloj-data".to_owned())];
    arguments.config.load_with(defaults, data.into_iter().chain(listen).collect())
}

fn cannot_open(error: LogError) -> Failure {
    match error {
        LogError::Busy(_) => Failure::new(Code::Conflict, error.to_string()),
        LogError::Unavailable(_)
        | LogError::NoSuchTopic(_)
        | LogError::OutOfRange { .. }
        | LogError::Lost(_)
        | LogError::Misconfigured(_) => Failure::error(error.to_string()),
    }
}

fn make_topics(log: &dyn Log, config: &Config) -> Result<(), Failure> {
    let declared = topics::declared(config.shards.get(), 1, &config.runner_queues);
    let plan = topics::plan(log, &declared).map_err(|error| Failure::error(error.to_string()))?;
    topics::apply(log, &plan).map_err(|error| {
        Failure::new(
            Code::Conflict,
            format!("{}: {error}; choose another --data, or set `shards` to its number", config.data_dir.display()),
        )
    })?;
    Ok(())
}

/// Where this machine reaches our own API.
fn own_url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        ip if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

/// A client of our own API.
fn client(address: SocketAddr) -> Result<Client, Failure> {
    Client::new(&own_url(address), None)
}

fn welcome(listen: SocketAddr, config: &Config, user: &AttemptUser, jobs: usize) {
    let data = config.data_dir.display();
    output::note(&format!(
        "\
Orloj {} is up.
  API    http://{listen}/api/v1/jobs   (ready: http://{listen}/readyz)
  data   {data}   (keep it, and what is in it goes on where it ended)
  user   {user}   (commands run as this user; `runner.user` of a root process names another)

In another terminal{}:
  orloj get jobs                          what there is
  orloj runs                              what ran
  orloj next \"30 8 * * MON-FRI\"           when an expression fires
  orloj apply -f my-job.yaml              a job of your own; `orloj apply --help` shows one
  crontab -l | orloj import crontab -     the jobs that you have
Ctrl-C drains and ends; {jobs} jobs are applied from --file.
",
        env!("CARGO_PKG_VERSION"),
        if listen.port() == 1410 { String::new() } else { format!(", after `export ORLOJ_SERVER=http://{listen}`") },
    ));
}

/// Through the API, as anyone would.
fn apply(address: SocketAddr, manifests: Manifests, shutdown: &Shutdown) {
    let outcome = client(address).and_then(|client| apply::send(&client, manifests, ANSWER, Format::Table));
    if let Err(failure) = outcome
        && !shutdown.is_requested()
    {
        tracing::error!("--file: {failure}");
    }
}
