//! The manifest as it is written, field by field: texts and numbers, not yet checked. Not here: what they mean
//! (`convert`) and what is allowed (`check`). Invariant: an unknown field is refused, never ignored; an absent
//! field stays absent, so that a manifest read and written again says what its author said.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::job::{Delivery, Dialect, DstFold, DstGap, MissedKind, OverlapKind};

use super::limits::Limits;

/// One job as people write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// `orloj/v1`.
    pub api_version: String,
    /// `Job`.
    pub kind: String,
    /// Who the job is.
    pub metadata: Metadata,
    /// What the job does.
    pub spec: Spec,
}

/// Who the job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Unique within the namespace.
    pub name: String,
    /// For selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// For people and tools.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// What the job does.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// When it fires; absent: only by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// No fire time before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// No fire time at or after this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// Most fire times that are requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fires: Option<i64>,
    /// Width of the stable offset of each fire time; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<String>,
    /// What happens to fire times noticed too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed: Option<Missed>,
    /// What happens when the previous run is still live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// Most live runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<i32>,
    /// Wait between request and first attempt; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_delay: Option<String>,
    /// Longest run time of one attempt; default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// From the fire time to the end of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// When a failed attempt is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// What a lost lease means; default `atLeastOnce`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// A second attempt beside one that has not ended; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge: Option<Hedge>,
    /// Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Names of limits that it shares with other jobs; default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<String>,
    /// Which runners of the queue may execute it; default any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_selector: Option<RunnerSelector>,
    /// 0 lowest .. 9 highest; default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Failed runs in a row after which the job is paused; default 0 = never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_after_failures: Option<i32>,
    /// No fire times are requested while true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
    /// What is executed; exactly one of its fields.
    pub run: Run,
}

/// Which runners may execute the job: those that have all of these labels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunnerSelector {
    /// Labels of `runner.labels`, with their values; one or more.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

/// One rule or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// Written as one rule.
    One(Box<Rule>),
    /// Written as a list.
    List(Vec<Rule>),
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(rule) => rule.serialize(serializer),
            Self::List(rules) => rules.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Schedule {
    // By hand, since an untagged enum would lose which field was wrong and where it stands.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrList;

        impl<'de> Visitor<'de> for OneOrList {
            type Value = Schedule;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a rule such as `cron: \"30 2 * * *\"`, or a list of rules")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Schedule, A::Error> {
                Rule::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(Schedule::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Schedule, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(Schedule::List)
            }
        }
        deserializer.deserialize_any(OneOrList)
    }
}

/// One rule of a schedule: exactly one of `cron`, `every`, `at` and `afterFinish`, and what belongs to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rule {
    /// A cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cron: Option<String>,
    /// A period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<String>,
    /// An instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// A delay after the end of the last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_finish: Option<String>,
    /// With `cron`: IANA name; default `UTC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// With `cron`: how its fields are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dialect: Option<Dialect>,
    /// With `cron`: what clock changes do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<DstRules>,
    /// With `every`: where the periods are counted from; default the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<String>,
    /// Calendars on whose days it does not fire.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Calendars on whose days alone it fires.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
}

/// What clock changes do to fixed times.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DstRules {
    /// A time that is left out; default `shift`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<DstGap>,
    /// A time that is repeated; default `first`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<DstFold>,
}

/// The misfire policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Missed {
    /// Default `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<MissedKind>,
    /// Default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
}

/// The overlap policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Overlap {
    /// Default `forbid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<OverlapKind>,
    /// Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<i32>,
}

/// The retry policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// The first attempt included; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<i32>,
    /// The waits between attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<Backoff>,
    /// Exit codes after which no further attempt is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub non_retryable_exit_codes: Vec<i32>,
}

/// The waits between attempts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Backoff {
    /// The first wait; default 5s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    /// What each wait is multiplied by; default 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// The longest wait; default 10m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<String>,
    /// The share of a wait that varies; default 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<f64>,
}

/// A second attempt beside one that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hedge {
    /// How long an attempt has run by then; at least 100ms, at most `timeout`.
    pub after: String,
}

/// What is executed: exactly one of the fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Run {
    /// A program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecRun>,
    /// A script.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<ShellRun>,
    /// An HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpRun>,
    /// A message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kafka: Option<KafkaRun>,
    /// A service's own code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<HandlerRun>,
}

/// A program with its arguments.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecRun {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Added environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Its standard input.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdin: String,
    /// What its processes may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// A script for a shell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShellRun {
    /// The script.
    pub script: String,
    /// Added environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Where it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// Its standard input.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdin: String,
    /// The shell; default `/bin/sh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// What its processes may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
}

/// An HTTP request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpRun {
    /// Default `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Absolute URL.
    pub url: String,
    /// Request headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, HeaderText>,
    /// Request body.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Status codes that count as success; default 200-299.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success: Vec<StatusCodes>,
    /// `response` (default) or `callback`; a text, so that a wrong one is refused by its field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion: Option<String>,
}

/// A header value: literal text, or `{secretRef: name}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderText {
    /// The value itself.
    Literal(String),
    /// Name of a secret.
    SecretRef(String),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SecretRef {
    secret_ref: String,
}

impl Serialize for HeaderText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Literal(text) => serializer.serialize_str(text),
            Self::SecretRef(name) => SecretRef { secret_ref: name.clone() }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for HeaderText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextOrSecret;

        impl<'de> Visitor<'de> for TextOrSecret {
            type Value = HeaderText;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a text or `{secretRef: NAME}`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<HeaderText, E> {
                Ok(HeaderText::Literal(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<HeaderText, A::Error> {
                let secret = SecretRef::deserialize(MapAccessDeserializer::new(map))?;
                Ok(HeaderText::SecretRef(secret.secret_ref))
            }
        }
        deserializer.deserialize_any(TextOrSecret)
    }
}

/// A status code or a range of them, for example `204` or `200-299`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct StatusCodes(pub String);

impl<'de> Deserialize<'de> for StatusCodes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NumberOrText;

        impl Visitor<'_> for NumberOrText {
            type Value = StatusCodes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a status code such as 204, or a range such as 200-299")
            }

            fn visit_u64<E: de::Error>(self, code: u64) -> Result<StatusCodes, E> {
                Ok(StatusCodes(code.to_string()))
            }

            fn visit_i64<E: de::Error>(self, code: i64) -> Result<StatusCodes, E> {
                Ok(StatusCodes(code.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusCodes, E> {
                Ok(StatusCodes(text.to_owned()))
            }
        }
        deserializer.deserialize_any(NumberOrText)
    }
}

/// A message on a named cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KafkaRun {
    /// Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Topic.
    pub topic: String,
    /// Record key.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key: String,
    /// Record value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Record headers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A service's own code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HandlerRun {
    /// Name of the handler.
    pub name: String,
    /// Its input: any JSON.
    #[serde(default)]
    pub payload: serde_json::Value,
}
