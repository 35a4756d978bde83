//! What an error of librdkafka means for our callers. Not here: what they do about it. Invariant: an error
//! that can't be placed is never "nothing was appended".

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::log::{AppendError, LogError, NewRecord};

/// Sorts an error of a question, a read or a membership; `about` names what it was about.
pub(crate) fn of_read(about: &str, error: &KafkaError) -> LogError {
    if let KafkaError::ClientConfig(_, why, key, _) = error {
        return LogError::Misconfigured(format!("setting kafka.{key}: {why}"));
    }
    if let KafkaError::ClientCreation(why) = error {
        return LogError::Misconfigured(format!("settings under kafka.: {why}"));
    }
    let Some(code) = error.rdkafka_error_code() else {
        return LogError::Unavailable(format!("{about}: {error}"));
    };
    if is_missing(code) {
        LogError::NoSuchTopic(about.to_owned())
    } else if is_denied(code) {
        LogError::Misconfigured(format!("{about}: {code}"))
    } else {
        LogError::Unavailable(format!("{about}: {code}"))
    }
}

/// Sorts the first failure of an append, when `acknowledged` of its records are in the log nevertheless.
pub(crate) fn of_append(record: &NewRecord, error: &KafkaError, acknowledged: usize) -> AppendError {
    let code = error.rdkafka_error_code().unwrap_or(Code::Unknown);
    let about = format!("{}/{}", record.topic, record.partition);
    if acknowledged > 0 {
        return AppendError::Unknown(format!("{about}: {code}, after {acknowledged} records were appended"));
    }
    if code == Code::MessageSizeTooLarge || code == Code::MessageBatchTooLarge {
        AppendError::TooLarge { topic: record.topic.to_string(), size_bytes: record.size_bytes() }
    } else if is_missing(code) {
        AppendError::NoSuchTopic(record.topic.to_string())
    } else if is_denied(code) || code == Code::InvalidRecord || code == Code::PolicyViolation {
        AppendError::Refused(format!("{about}: {code}"))
    } else {
        AppendError::Unknown(format!("{about}: {code}"))
    }
}

/// True if a reader need not tell its caller: librdkafka goes on trying by itself, and says so in the log.
pub(crate) fn is_passing(error: &KafkaError) -> bool {
    let Some(code) = error.rdkafka_error_code() else {
        return false;
    };
    !is_missing(code)
        && !is_denied(code)
        && code != Code::AutoOffsetReset
        && code != Code::OffsetOutOfRange
        && code != Code::PollExceeded
        && code != Code::Fatal
}

/// True if the partition has, or will soon have, another leader or connection: asking again helps.
pub(crate) fn is_moving(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::NotLeaderForPartition
                | Code::LeaderNotAvailable
                | Code::ReplicaNotAvailable
                | Code::FencedLeaderEpoch
                | Code::UnknownLeaderEpoch
                | Code::OffsetNotAvailable
                | Code::BrokerTransportFailure
        )
    )
}

/// True if the topic or partition is not there.
pub(crate) fn is_missing(code: Code) -> bool {
    matches!(code, Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition | Code::InvalidTopic)
}

fn is_denied(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
    )
}
