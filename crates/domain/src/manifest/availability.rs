//! What the contract names and this version does not do yet: refused at admission, with what to use instead,
//! never silently ignored. Not here: values out of range. A line goes from here in the
//! change that makes it work.

use crate::job::{RunSpec, Target};
use crate::job_event::FieldError;

pub(super) fn check(spec: &RunSpec, errors: &mut Vec<FieldError>) {
    let mut refuse = |field: &str, value: &dyn std::fmt::Display, instead: &str| {
        errors.push(FieldError::new(field, value, format!("is not available in this version; {instead}")));
    };
    match &spec.target {
        Target::ExecTarget(_) | Target::ShellTarget(_) | Target::HttpTarget(_) | Target::HandlerTarget(_) => {}
        Target::KafkaTarget(kafka) => {
            refuse("spec.run.kafka", &kafka.topic, "use `exec` or `shell` with a producer of your own")
        }
    }
}
