//! The routes for whoever runs the process, and what a service refuses to start with. Not here: the API.
//! Invariant: `/livez` and `/readyz` answer without a projection.

mod world;

use std::sync::Arc;

use orloj_domain::shard::ShardCount;
use orloj_query::{QueryConfig, QueryError, VersionInfo, bind, run, serve_operations_on};
use orloj_runtime::clock::SystemClock;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::health::Health;
use orloj_runtime::log::{Log, TopicSpec};
use orloj_runtime::metrics::Metrics;
use orloj_runtime::shutdown::Shutdown;
use serde_json::json;
use world::{World, log};

/// Every metric of the service; names that dashboards rely on.
const METRICS: [&str; 8] = [
    "orloj_query_records_total",
    "orloj_query_unreadable_records_total",
    "orloj_query_rebuilds_total",
    "orloj_query_lag_records",
    "orloj_query_commit_seconds_count",
    "orloj_query_http_requests_total",
    "orloj_query_http_request_seconds_count",
    "# EOF",
];

#[test]
fn operations_are_beside_the_api() {
    let directory = tempfile::tempdir().expect("a directory");
    let world = World::start(&log(), directory.path());
    assert_eq!(world.get("/livez").text, "ok\n");
    assert_eq!(
        world.get("/readyz?verbose").json(),
        json!({"ready": true, "components": {"query": {"ready": true, "reason": null, "lagRecords": 0}}})
    );
    assert_eq!(world.get("/version").json(), json!({"version": "1.2.3", "commit": null, "tzdb": "2026a"}));
    let metrics = world.get("/metrics");
    assert!(metrics.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    for name in METRICS {
        assert!(metrics.text.contains(name), "{name} is missing:\n{}", metrics.text);
    }
    world.stop();
}

#[test]
fn a_process_without_the_api_has_operations_only() {
    let (health, metrics, shutdown) = (Health::new(), Metrics::new(), Shutdown::new());
    let component = health.component("trigger");
    let listener = bind("127.0.0.1:0".parse().expect("an address"), false).expect("a port");
    let address = listener.address();
    let serving = std::thread::spawn({
        let (health, shutdown) = (health.clone(), shutdown.clone());
        move || serve_operations_on(listener, &health, &metrics, VersionInfo::default(), &shutdown)
    });
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let get = |path: &str| {
        let mut response = agent.get(format!("http://{address}{path}")).call().expect("an answer");
        (response.status().as_u16(), response.body_mut().read_to_string().expect("text"))
    };
    assert_eq!(get("/readyz"), (503, "trigger: starting\n".to_owned()));
    component.ready();
    assert_eq!(get("/readyz"), (200, "ok\n".to_owned()));
    assert_eq!((get("/livez").0, get("/metrics").0, get("/version").0, get("/api/v1/jobs").0), (200, 200, 200, 404));
    shutdown.request();
    serving.join().expect("no panic").expect("a good end");
}

fn start(log: &EmbeddedLog, listen: &str) -> Result<(), QueryError> {
    let directory = tempfile::tempdir().expect("a directory");
    let config = QueryConfig {
        shards: ShardCount::new(world::SHARDS).expect("a count"),
        queues: Vec::new(),
        data_dir: directory.path().to_owned(),
        listen: listen.parse().expect("an address"),
        is_insecure_allowed: false,
        version: VersionInfo::default(),
    };
    let clock = Arc::new(SystemClock::new());
    run(config, Arc::new(log.clone()), clock, &Health::new(), &Metrics::new(), &Shutdown::new())
}

#[test]
fn what_a_person_must_mend_ends_the_start_with_its_name() {
    let exposed = start(&log(), "0.0.0.0:0").expect_err("exposed").to_string();
    assert!(exposed.contains("0.0.0.0:0") && exposed.contains("--insecure"), "{exposed}");

    let taken = bind("127.0.0.1:0".parse().expect("an address"), false).expect("a port");
    let message = start(&log(), &taken.address().to_string()).expect_err("taken").to_string();
    assert!(message.contains(&taken.address().to_string()) && message.contains("--listen"), "{message}");

    let other = EmbeddedLog::in_memory(Arc::new(SystemClock::new()));
    for spec in orloj_runtime::topics::declared(world::SHARDS, 1, &[]) {
        let partitions = if spec.name == "fires" { 3 } else { spec.partitions };
        other.create_topic(&TopicSpec { partitions, ..spec }).expect("a topic");
    }
    let message = start(&other, "127.0.0.1:0").expect_err("another count").to_string();
    assert!(message.contains("`fires` has 3 partitions"), "{message}");
}
