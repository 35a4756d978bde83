//! A runner that has to end while its attempts go on, on a broker. Not here: what is decided of it (the dispatcher's own tests),
//! how a runner ends an attempt (its service tests). Invariant: a program ends when the file of its attempt is there.

use std::net::TcpListener;

use orloj_tests::installation::Installation;
use orloj_tests::process::PATIENCE;
use orloj_tests::wait;
use serde_json::json;

use crate::dev::get;
use crate::hedge::{SCRIPT, let_end, of_attempts, wait_begun, wait_gone};

#[test]
fn what_outlasts_a_drain_goes_to_the_next_runner_and_uses_up_no_attempt() {
    let Some(installation) = Installation::new("drain") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let ledger = folder.path().join("ledger").display().to_string();
    let data = |of: &str| format!("data.dir={}", folder.path().join(of).display());
    // `serve` does not say where it listens: a port that was free a moment ago.
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let _trigger = installation.serve("trigger", &[]);
    let _dispatcher = installation.serve("dispatcher", &[]);
    let _query = installation.serve("query", &["--listen", &free.to_string(), "--set", &data("query")]);
    let first = installation.serve("runner", &["--set", &data("first"), "--set", "runner.drainTimeout=1s"]);
    let script = |name: &str| SCRIPT.replace("NAME", name).replace("LEDGER", &ledger);
    let offer = |name: &str, delivery: &str| {
        let script = script(name);
        let spec =
            format!(r#""retry":{{"maxAttempts":1}},"delivery":"{delivery}","run":{{"shell":{{"script":"{script}"}}}}"#);
        let job = installation.offer(name, &spec);
        installation.wait_accepted(&job);
        installation.run_now(&job, "first").to_string()
    };
    let (again, once) = (offer("again", "atLeastOnce"), offer("once", "atMostOnce"));
    let processes = [wait_begun(&ledger, "again", 1), wait_begun(&ledger, "once", 1)].concat();
    assert!(first.stop().success(), "it ends in order");
    processes.iter().for_each(|process| wait_gone(process));
    let _next = installation.serve("runner", &["--set", &data("next")]);
    wait_begun(&ledger, "again", 2);
    let_end(&ledger, "again", 2);
    for (id, state, kinds) in [(again, "succeeded", &["handedBack", "succeeded"][..]), (once, "dead", &["aborted"][..])]
    {
        let url = format!("http://{free}/api/v1/runs/{id}");
        let ended = wait::until(&format!("the run is {state}"), PATIENCE, || {
            Some(get(&url)).filter(|run| run["state"] == state)
        });
        let kinds: Vec<_> = kinds.iter().map(|kind| json!(kind)).collect();
        assert_eq!(of_attempts(&ended, "/outcome/kind"), kinds, "{ended}");
    }
}
