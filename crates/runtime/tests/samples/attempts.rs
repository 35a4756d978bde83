//! Fixed records of attempts and runners. Not here: the rest (`samples`). Invariant: as there.

use std::collections::BTreeMap;

use orloj_domain::attempt::{AttemptEvent, AttemptEventType, ReadyAttempt};
use orloj_domain::id::QueueName;
use orloj_domain::runner::{
    AttemptOutput, OutputChunk, OutputStream, RunnerHeartbeat, RunnerMessage, RunnerMessageType,
};

use super::{at, failed, id, job, run};

/// A ready attempt.
pub(crate) fn ready() -> ReadyAttempt {
    ReadyAttempt {
        run_id: run(),
        job: job(),
        attempt: 2,
        token: 2,
        ready_at: at(5, 5900),
        request: vec![0xC3, 0x01, 0x80],
        deadline: Some(at(5, 60_000)),
        awaits_start: true,
    }
}

/// An attempt that ended.
pub(crate) fn attempt_event() -> AttemptEvent {
    AttemptEvent {
        kind: AttemptEventType::Finished,
        run_id: run(),
        job: job(),
        attempt: 2,
        token: 2,
        runner: id("runner-1"),
        session: id("s-9"),
        at: at(5, 6000),
        lease_ms: Some(15_000),
        isolation: Some("cgroup".to_owned()),
        percent: Some(100),
        outcome: Some(failed()),
        callback_digest: Some("0a5b".repeat(16)),
        started_at: Some(at(5, 5950)),
        has_output: Some(true),
    }
}

/// A heartbeat.
pub(crate) fn heartbeat() -> RunnerHeartbeat {
    RunnerHeartbeat {
        runner: id("runner-1"),
        session: id("s-9"),
        sequence: 300,
        at: at(5, 6000),
        since: at(5, 0),
        lease_ms: 15_000,
        queues: vec![QueueName::default(), id("reports")],
        slots: 8,
        busy: 3,
        is_draining: true,
        host: "node-2 77".to_owned(),
        queue_weights: BTreeMap::from([("reports".to_owned(), 3)]),
        labels: BTreeMap::from([("zone".to_owned(), "eu".to_owned())]),
    }
}

/// Output, bytes that are no text included.
pub(crate) fn output() -> AttemptOutput {
    let chunk = |stream, bytes: &[u8]| OutputChunk { stream, at: at(5, 6001), bytes: bytes.to_vec() };
    AttemptOutput {
        run_id: run(),
        attempt: 2,
        token: 2,
        sequence: 0,
        chunks: vec![chunk(OutputStream::Stdout, b"ok\n"), chunk(OutputStream::Stderr, &[0, 0x7F, 0x80, 0xFF])],
        dropped_bytes: 70_000,
        is_last: true,
    }
}

/// A message to a runner.
pub(crate) fn message() -> RunnerMessage {
    RunnerMessage {
        kind: RunnerMessageType::Cancel,
        session: id("s-9"),
        run_id: run(),
        attempt: 2,
        token: 2,
        reason: Some("asked by ana".to_owned()),
        outcome: Some(failed()),
        ready: Some(ready()),
    }
}
