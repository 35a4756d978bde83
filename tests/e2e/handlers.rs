//! A service with the client crate on a real broker: it publishes a job and runs it by its own function, while the
//! dispatcher and another runner of its queue come and go. Read back from the topics with a plain reader.

use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use orloj_client::{Answer, ClientError, Connection, Context, Failure, Producer, Runner, StopHandle};
use orloj_domain::run::{RunEvent, RunState};
use orloj_domain::topic;
use orloj_runtime::codec;
use orloj_tests::fires::reader;
use orloj_tests::installation::Installation;
use orloj_tests::process::PATIENCE;
use orloj_tests::wait;

const MANIFEST: &str = r#"{"apiVersion": "orloj/v1", "kind": "Job", "metadata": {"namespace": "billing", "name": "monthly"},
    "spec": {"queue": "billing", "overlap": {"policy": "allow"}, "retry": {"maxAttempts": 3, "backoff": {"initial": "1ms"}},
             "run": {"handler": {"name": "send-invoices", "payload": {"tenant": 7}}}}}"#;

#[derive(serde::Deserialize)]
struct Invoices {
    tenant: u32,
}

/// A service on a thread of its own; each call of its handler is told by the channel.
struct Service {
    stop: StopHandle,
    thread: std::thread::JoinHandle<Result<(), ClientError>>,
}

impl Service {
    fn start(installation: &Installation, calls: &Sender<(u32, i32)>) -> Self {
        Self::with(installation, "send-invoices", calls)
    }

    /// With one handler, by this name.
    fn with(installation: &Installation, handler: &str, calls: &Sender<(u32, i32)>) -> Self {
        let calls = calls.clone();
        let runner = Runner::builder()
            .kafka(&installation.bootstrap)
            .prefix(&installation.prefix)
            .queue("billing")
            .slots(4)
            .handler(handler, move |context: Context<Invoices>| {
                let calls = calls.clone();
                async move {
                    calls.send((context.payload().tenant, context.attempt()))?;
                    // The first attempt of this one fails.
                    if context.params().contains_key("flaky") && context.attempt() == 1 {
                        return Err(Failure::retryable("the first time"));
                    }
                    Ok("sent")
                }
            })
            .build()
            .expect("good settings");
        Self { stop: runner.stop_handle(), thread: std::thread::spawn(move || runner.run()) }
    }

    fn end(self) {
        self.stop.stop();
        self.thread.join().expect("no panic").expect("a clean end");
    }
}

#[test]
fn a_service_publishes_a_job_and_runs_it_by_its_own_function() {
    let Some(installation) = Installation::new("handlers") else { return };
    let trigger = installation.serve("trigger", &[]);
    let mut dispatcher = installation.serve("dispatcher", &[]);
    let (calls, called) = channel();
    let first = Service::start(&installation, &calls);
    let connection = Connection::kafka(&installation.bootstrap).prefix(&installation.prefix);
    let producer = Producer::connect(connection).expect("a producer");
    let published = producer.publish(MANIFEST).expect("sent");
    assert_eq!(published.accepted(PATIENCE).expect("an answer"), Answer::Accepted { version: 1 });
    let again = producer.publish(MANIFEST).expect("sent");
    assert_eq!(again.accepted(PATIENCE).expect("an answer"), Answer::Unchanged { version: 1 });

    let mut events = reader(&installation.log, topic::RUN_EVENTS);
    let mut ends = BTreeMap::new();
    let mut end_of = |run| {
        wait::until("the end of a run", PATIENCE, || {
            for record in events.poll(1000, Duration::from_millis(100)).expect("a readable log") {
                // Marks of owners are among them.
                let event = codec::decode::<RunEvent>(record.value.as_deref().unwrap_or_default()).ok();
                ends.extend(event.filter(|event| event.state.is_terminal()).map(|event| (event.run_id, event.state)));
            }
            ends.get(&run).copied()
        })
    };
    let run_now = |id: &str, params: &[&str]| {
        let params = params.iter().map(|name| ((*name).to_owned(), "yes".to_owned())).collect();
        producer.run_now(published.job(), &id.parse().expect("a command id"), params).expect("sent")
    };
    assert_eq!(end_of(run_now("plain", &[])), RunState::Succeeded);
    assert_eq!(called.try_iter().collect::<Vec<_>>(), [(7, 1)]);
    assert_eq!(end_of(run_now("flaky", &["flaky"])), RunState::Succeeded);
    assert_eq!(called.try_iter().collect::<Vec<_>>(), [(7, 1), (7, 2)]);

    // Another instance of the service takes over what the first one leaves, under a dispatcher that was killed.
    let second = Service::start(&installation, &calls);
    dispatcher.kill();
    dispatcher = installation.serve("dispatcher", &[]);
    first.end();
    let runs: Vec<_> = (0..20).map(|index| run_now(&format!("later-{index}"), &[])).collect();
    for run in runs {
        assert_eq!(end_of(run), RunState::Succeeded);
    }
    assert_eq!(called.try_iter().count(), 20, "each ran once");
    second.end();

    // Runners of its queue that have not got its handler use up no attempt of a run.
    let stranger = Service::with(&installation, "remind", &calls);
    let run = run_now("unserved", &[]);
    let mut steps = reader(&installation.log, topic::RUN_EVENTS);
    wait::until("a run that waits for its handler", PATIENCE, || {
        let records = steps.poll(1000, Duration::from_millis(100)).expect("a readable log");
        let mut events = records
            .iter()
            .filter_map(|record| codec::decode::<RunEvent>(record.value.as_deref().unwrap_or_default()).ok());
        let is_it = |event: &RunEvent| event.run_id == run && event.missing_handler.as_deref() == Some("send-invoices");
        events.any(|event| is_it(&event) && event.state == RunState::Waiting).then_some(())
    });
    let third = Service::start(&installation, &calls);
    assert_eq!(end_of(run), RunState::Succeeded);
    assert_eq!(called.try_iter().collect::<Vec<_>>(), [(7, 1)], "its first attempt");
    stranger.end();
    third.end();
    assert!(trigger.stop().success());
    assert!(dispatcher.stop().success());
}
