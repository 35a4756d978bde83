//! A query service over a log in memory, with the records that the other services would write. Not here: what is
//! asserted. Invariant: nothing is waited for by time; a read names the position that it must have seen.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod records;

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use orloj_domain::id::JobId;
use orloj_domain::shard::ShardCount;
use orloj_query::{QueryConfig, QueryError, VersionInfo, bind, run_on};
use orloj_runtime::clock::{Clock, SystemClock};
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::log::{Log, NewRecord, Position};
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use orloj_runtime::topics;
use serde_json::Value;

pub(crate) const SHARDS: i32 = 2;

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn items(&self) -> Vec<Value> {
        assert_eq!(self.status, 200, "{}", self.text);
        self.json()["items"].as_array().cloned().unwrap_or_default()
    }
}

/// A log that outlives services.
pub(crate) fn log() -> EmbeddedLog {
    log_with(Arc::new(SystemClock::new()))
}

/// The same with another clock.
pub(crate) fn log_with(clock: Arc<dyn Clock>) -> EmbeddedLog {
    let log = EmbeddedLog::in_memory(clock);
    for spec in topics::declared(SHARDS, 1, &["default".parse().expect("a queue")]) {
        log.create_topic(&spec).expect("a topic");
    }
    log
}

/// Looks again until something is so; fails after half a minute.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    while !is_so() {
        assert!(clock.monotonic() < Duration::from_secs(30), "in vain waited until {what}");
        std::thread::yield_now();
    }
}

/// A running service.
pub(crate) struct World {
    pub(crate) log: EmbeddedLog,
    pub(crate) address: String,
    agent: ureq::Agent,
    shutdown: Shutdown,
    service: Option<JoinHandle<Result<(), QueryError>>>,
}

impl World {
    /// Starts a service whose file is in `directory`, and waits until it is ready.
    pub(crate) fn start(log: &EmbeddedLog, directory: &Path) -> Self {
        let config = QueryConfig {
            shards: ShardCount::new(SHARDS).expect("a count"),
            queues: vec!["default".parse().expect("a queue")],
            data_dir: directory.to_owned(),
            listen: "127.0.0.1:0".parse().expect("an address"),
            is_insecure_allowed: false,
            version: VersionInfo { version: "1.2.3".to_owned(), commit: None, tzdb: Some("2026a".to_owned()) },
        };
        let listener = bind(config.listen, false).expect("a port");
        let address = format!("http://{}", listener.address());
        let (shutdown, shared) = (Shutdown::new(), Arc::new(log.clone()));
        let service = std::thread::spawn({
            let shutdown = shutdown.clone();
            move || {
                let clock = Arc::new(SystemClock::new());
                run_on(listener, config, shared, clock, &Health::new(), &Metrics::new(), &shutdown)
            }
        });
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .into();
        let world = Self { log: log.clone(), address, agent, shutdown, service: Some(service) };
        eventually("it is ready", || world.get("/readyz").status == 200);
        world
    }

    /// Ends the service and says how it ended.
    pub(crate) fn stop(mut self) {
        self.shutdown.request();
        let ended = self.service.take().expect("running").join().expect("no panic");
        ended.expect("a good end");
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], None)
    }

    /// Sends a request; a body goes as JSON unless a header says otherwise.
    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Answer {
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if body.is_some() && headers.iter().all(|(name, _)| *name != "Content-Type") {
            request = request.header("Content-Type", "application/json");
        }
        let request = request.body(body.unwrap_or_default().to_owned()).expect("a request");
        let mut response = self.agent.run(request).expect("an answer");
        Answer {
            status: response.status().as_u16(),
            headers: response
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned()))
                .collect(),
            text: response.body_mut().read_to_string().expect("text"),
        }
    }

    /// Appends a record and returns where it is.
    pub(crate) fn append(&self, record: NewRecord) -> Position {
        append(&self.log, vec![record]).remove(0)
    }

    /// Appends a record and waits until it is folded in.
    pub(crate) fn fold(&self, record: NewRecord) {
        let position = self.append(record);
        self.wait_for(&position);
    }

    /// Waits until a position is folded in.
    pub(crate) fn wait_for(&self, position: &Position) {
        let answer = self.get(&format!("/api/v1/runs?wait={position}&timeout=30s"));
        assert_eq!(answer.status, 200, "{}", answer.text);
        let reached: Position = answer.header("log-position").expect("a position").parse().expect("readable");
        assert!(reached.offset >= position.offset, "{reached} is short of {position}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.request();
        if let Some(service) = self.service.take() {
            // A failed test says more than how the service ended after it.
            let _ = service.join();
        }
    }
}

pub(crate) fn append(log: &EmbeddedLog, records: Vec<NewRecord>) -> Vec<Position> {
    log.appender().expect("an appender").append(records).expect("appended")
}

/// The shard of a job.
pub(crate) fn shard(job: &JobId) -> i32 {
    ShardCount::new(SHARDS).expect("a count").shard_of(job).0
}
