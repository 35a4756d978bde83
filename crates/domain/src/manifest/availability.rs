//! What the contract names and this version does not do yet: refused at admission, with what to use instead,
//! never silently ignored. Not here: values out of range. A line goes from here in the
//! change that makes it work.

use crate::job::{OverlapKind, RunSpec, Target};
use crate::job_event::FieldError;

pub(super) fn check(spec: &RunSpec, errors: &mut Vec<FieldError>) {
    let mut refuse = |field: &str, value: &dyn std::fmt::Display, instead: &str| {
        errors.push(FieldError::new(field, value, format!("is not available in this version; {instead}")));
    };
    match spec.overlap.policy {
        OverlapKind::Allow | OverlapKind::Forbid => {}
        OverlapKind::Queue | OverlapKind::Replace => {
            refuse("spec.overlap.policy", &spec.overlap.policy, "use `allow` or `forbid`");
        }
    }
    if let Some(concurrency) = spec.concurrency {
        refuse(
            "spec.concurrency",
            &concurrency,
            "remove it, and use `overlap: {policy: forbid}` for one run at a time",
        );
    }
    if let Some(deadline_ms) = spec.deadline_ms {
        refuse("spec.deadline", &format!("{deadline_ms}ms"), "remove it, and bound each attempt with `timeout`");
    }
    if spec.pause_after_failures > 0 {
        refuse("spec.pauseAfterFailures", &spec.pause_after_failures, "remove it, and pause the job by hand");
    }
    match &spec.target {
        Target::ExecTarget(_) | Target::ShellTarget(_) => {}
        Target::HttpTarget(http) => refuse("spec.run.http", &http.url, "use `exec` or `shell`, for example with curl"),
        Target::KafkaTarget(kafka) => {
            refuse("spec.run.kafka", &kafka.topic, "use `exec` or `shell` with a producer of your own")
        }
        Target::HandlerTarget(handler) => refuse("spec.run.handler", &handler.name, "use `exec` or `shell`"),
    }
}
