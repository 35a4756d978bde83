//! What a Kafka target must obey. Not here: which clusters and topics there are, which each runner's settings say. Invariant: a
//! target without complaints can be sent as it is, up to what templates put into it.

use super::check_spec::check_placeholders;
use crate::job::KafkaTarget;
use crate::job_event::FieldError;

/// Longest name of a topic, as Kafka has it.
const TOPIC_BYTES_MAX: usize = 249;

pub(super) fn check(kafka: &KafkaTarget, errors: &mut Vec<FieldError>) {
    let is_plain = |text: &str| {
        text.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-'))
    };
    if kafka.cluster.is_empty() || kafka.cluster.contains('.') || !is_plain(&kafka.cluster) {
        let message = "is no name of a cluster; use letters, digits, `_` and `-`";
        errors.push(FieldError::new("spec.run.kafka.cluster", kafka.cluster.escape_debug(), message));
    }
    let topic = kafka.topic.as_str();
    let complaint = match topic {
        "" => Some("names no topic".to_owned()),
        "." | ".." => Some("is no name of a topic".to_owned()),
        _ if !is_plain(topic) => Some("is no name of a topic; use letters, digits, `.`, `_` and `-`".to_owned()),
        _ if topic.len() > TOPIC_BYTES_MAX => Some(format!("is longer than Kafka's {TOPIC_BYTES_MAX} characters")),
        _ if topic.starts_with("__") => Some("is one of Kafka's own topics; use another".to_owned()),
        _ => None,
    };
    if let Some(message) = complaint {
        errors.push(FieldError::new("spec.run.kafka.topic", topic.escape_debug(), message));
    }
    check_placeholders("spec.run.kafka.key", &kafka.key, errors);
    check_placeholders("spec.run.kafka.value", &kafka.value, errors);
    for (name, value) in &kafka.headers {
        let field = format!("spec.run.kafka.headers.{name}");
        let lower = name.to_ascii_lowercase();
        if name.is_empty() || name.contains(char::is_control) {
            errors.push(FieldError::new(field.clone(), name.escape_debug(), "is no name of a header"));
        } else if lower.starts_with("orloj-") || lower == "idempotency-key" {
            errors.push(FieldError::new(field.clone(), name, "is set by the runner; remove it"));
        }
        check_placeholders(&field, value, errors);
    }
}
