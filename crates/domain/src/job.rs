//! What a job is: when it fires, what it runs and under which policies. These are the shapes of the log
//! (`schemas/JobDefinition.avsc`); what people write is in `manifest`, which checks and converts.
//! Invariant: a definition that came through `manifest` or `check` is complete: every default is filled in.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{CalendarName, JobId, LimitName, QueueName};
use crate::schedule::Bounds;
use crate::time::Timestamp;

/// Largest encoded definition in bytes, inclusive.
pub const DEFINITION_BYTES_MAX: usize = 256 * 1024;
/// Most rules that one schedule may list, inclusive.
pub const RULES_MAX: usize = 1000;

/// A job as accepted by or offered to the trigger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "JobDefinition", rename_all = "camelCase")]
pub struct JobDefinition {
    /// `namespace/name`.
    pub job: JobId,
    /// For selectors; at most what fits the definition.
    pub labels: BTreeMap<String, String>,
    /// For people and tools; never interpreted.
    pub annotations: BTreeMap<String, String>,
    /// When it fires; empty: only by hand.
    pub schedule: Vec<ScheduleRule>,
    /// No fire time before this instant.
    pub not_before: Option<Timestamp>,
    /// No fire time at or after this instant.
    pub not_after: Option<Timestamp>,
    /// Most fire times that are requested, over the life of one version; 1 or more.
    pub max_fires: Option<i64>,
    /// Width of the stable offset added to each fire time, in milliseconds: [0, jitter).
    pub jitter_ms: i64,
    /// What happens to fire times noticed too late.
    pub missed: MissedPolicy,
    /// No fire times are requested while true.
    pub suspend: bool,
    /// What a run of this job needs.
    pub spec: Arc<RunSpec>,
}

impl JobDefinition {
    /// What bounds its fire times.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds { not_before: self.not_before, not_after: self.not_after }
    }
}

/// One rule of a schedule.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ScheduleRule {
    /// A cron expression in a time zone.
    CronRule(CronRule),
    /// A fixed period from an anchor.
    EveryRule(EveryRule),
    /// One instant.
    AtRule(AtRule),
    /// A delay after the end of the last run.
    AfterFinishRule(AfterFinishRule),
}

impl ScheduleRule {
    /// The calendars of `exclude`, then those of `only`.
    #[must_use]
    pub fn calendars(&self) -> (&[CalendarName], &[CalendarName]) {
        match self {
            Self::CronRule(rule) => (&rule.exclude, &rule.only),
            Self::EveryRule(rule) => (&rule.exclude, &rule.only),
            Self::AtRule(rule) => (&rule.exclude, &rule.only),
            Self::AfterFinishRule(rule) => (&rule.exclude, &rule.only),
        }
    }
}

/// A cron expression in a time zone.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "CronRule", rename_all = "camelCase")]
pub struct CronRule {
    /// The expression, as written.
    pub expression: String,
    /// IANA name.
    pub time_zone: String,
    /// How the fields are read.
    pub dialect: Dialect,
    /// A fixed time that a clock change skips.
    pub gap: DstGap,
    /// A fixed time that a clock change repeats.
    pub fold: DstFold,
    /// No fire time on days of any of these calendars.
    pub exclude: Vec<CalendarName>,
    /// Unless empty: fire times only on days of one of these calendars.
    pub only: Vec<CalendarName>,
}

/// A fixed period from an anchor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "EveryRule", rename_all = "camelCase")]
pub struct EveryRule {
    /// The period in milliseconds; 1000 or more.
    pub period_ms: i64,
    /// Fire times are anchor + k × period for k = 0, 1, 2 …
    pub anchor: Timestamp,
    /// No fire time on days of any of these calendars.
    pub exclude: Vec<CalendarName>,
    /// Unless empty: fire times only on days of one of these calendars.
    pub only: Vec<CalendarName>,
}

/// One instant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "AtRule", rename_all = "camelCase")]
pub struct AtRule {
    /// The fire time.
    pub at: Timestamp,
    /// No fire time on days of any of these calendars.
    pub exclude: Vec<CalendarName>,
    /// Unless empty: fire times only on days of one of these calendars.
    pub only: Vec<CalendarName>,
}

/// A delay after the end of the last run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "AfterFinishRule", rename_all = "camelCase")]
pub struct AfterFinishRule {
    /// The delay in milliseconds.
    pub delay_ms: i64,
    /// No fire time on days of any of these calendars.
    pub exclude: Vec<CalendarName>,
    /// Unless empty: fire times only on days of one of these calendars.
    pub only: Vec<CalendarName>,
}

/// Declares a closed set of words as they stand in schemas, JSON and metrics.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item_doc:meta])* $item:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$item_doc])* #[serde(rename = $text)] $item,)+
        }

        impl $name {
            /// Every word of the set, in order.
            pub const ALL: &'static [Self] = &[$(Self::$item),+];

            /// The word as it stands in schemas, JSON and metrics.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$item => $text,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
pub(crate) use words;

words! {
    /// How the fields of a cron expression are read.
    Dialect {
        /// crontab's: 5 fields, or 6 with leading seconds, or 7 with a year; Sunday is 0 or 7.
        Unix = "unix",
        /// Quartz's: 6 or 7 fields; Sunday is 1.
        Quartz = "quartz",
    }
}
words! {
    /// What becomes of a fixed wall-clock time that a clock change skips.
    DstGap {
        /// It fires when the gap ends.
        Shift = "shift",
        /// It does not fire.
        Skip = "skip",
    }
}
words! {
    /// What becomes of a fixed wall-clock time that a clock change repeats.
    DstFold {
        /// It fires the first time.
        First = "first",
        /// It fires the second time.
        Last = "last",
        /// It fires both times.
        Both = "both",
    }
}
words! {
    /// What happens to fire times noticed too late.
    MissedKind {
        /// None is requested.
        Skip = "skip",
        /// The newest is requested, the others are coalesced into it.
        Latest = "latest",
        /// The newest `max` are requested, the others skipped.
        All = "all",
    }
}
words! {
    /// What happens when the previous run is still live.
    OverlapKind {
        /// Both run.
        Allow = "allow",
        /// The new run ends at once, as cancelled.
        Forbid = "forbid",
        /// The new run waits.
        Queue = "queue",
        /// The old run is cancelled first.
        Replace = "replace",
    }
}
words! {
    /// What ends an attempt at an HTTP target.
    HttpCompletion {
        /// The answer.
        Response = "response",
        /// After an answer 202, whoever has the callback token; any other answer by itself.
        Callback = "callback",
    }
}
words! {
    /// What a lost lease means for the run.
    Delivery {
        /// Another attempt, while the retry policy allows one.
        AtLeastOnce = "atLeastOnce",
        /// Never another attempt: a person decides.
        AtMostOnce = "atMostOnce",
    }
}

/// The misfire policy of a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "MissedPolicy", rename_all = "camelCase")]
pub struct MissedPolicy {
    /// Which of the missed fire times are requested.
    pub policy: MissedKind,
    /// Fire times older than this, in milliseconds, are skipped whatever the policy.
    pub window_ms: i64,
    /// Most missed fire times that `all` requests; 1 or more.
    pub max: i32,
}

/// What happens when the previous run is still live.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "OverlapPolicy", rename_all = "camelCase")]
pub struct OverlapPolicy {
    /// The rule.
    pub policy: OverlapKind,
    /// Longest queue under `queue`; 1 or more.
    pub max: i32,
}

/// When a failed attempt is tried again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename = "RetryPolicy", rename_all = "camelCase")]
pub struct RetryPolicy {
    /// Attempts in all, the first included; 1 or more.
    pub max_attempts: i32,
    /// Wait before the second attempt, in milliseconds.
    pub initial_ms: i64,
    /// Each wait is the one before times this; 1 or more.
    pub factor: f64,
    /// Longest wait in milliseconds.
    pub max_ms: i64,
    /// Share of the wait that varies, 0..=1: the wait is drawn from wait × [1 - jitter, 1 + jitter].
    pub jitter: f64,
    /// Exit codes after which no further attempt is made.
    pub non_retryable_exit_codes: Vec<i32>,
}

/// By the bits of its numbers: two zeros of different sign are equal and hash apart, which costs whoever looks a policy
/// up by its hash a second copy and nothing else.
impl Hash for RetryPolicy {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let Self { max_attempts, initial_ms, factor, max_ms, jitter, non_retryable_exit_codes } = self;
        (max_attempts, initial_ms, factor.to_bits(), max_ms, jitter.to_bits()).hash(hasher);
        non_retryable_exit_codes.hash(hasher);
    }
}

/// All that a run of the job needs, carried by its request.
#[derive(Debug, Clone, PartialEq, Hash, Serialize, Deserialize)]
#[serde(rename = "RunSpec", rename_all = "camelCase")]
pub struct RunSpec {
    /// The lane that runners subscribe to.
    pub queue: QueueName,
    /// 0 lowest ..= 9 highest.
    pub priority: i32,
    /// Wait between request and first attempt, in milliseconds.
    pub start_delay_ms: i64,
    /// Longest run time of one attempt, in milliseconds; 1 or more.
    pub timeout_ms: i64,
    /// From the fire time to the end of the run, retries included, in milliseconds.
    pub deadline_ms: Option<i64>,
    /// When a failed attempt is tried again.
    pub retry: RetryPolicy,
    /// What a lost lease means.
    pub delivery: Delivery,
    /// What happens when the previous run is still live.
    pub overlap: OverlapPolicy,
    /// Most live runs of this job under `allow` and `queue`; absent: no bound.
    pub concurrency: Option<i32>,
    /// Failed runs in a row after which the job is paused; 0 = never.
    pub pause_after_failures: i32,
    /// What is executed.
    pub target: Target,
    /// Limits that it shares with other jobs, by name.
    pub limits: Vec<LimitName>,
    /// After how long a second attempt may be put beside one that has not ended, in milliseconds; absent: never.
    pub hedge_after_ms: Option<i64>,
    /// Labels that a runner must have to be given an attempt, all with these values; empty: any runner of the queue.
    pub runner_labels: BTreeMap<String, String>,
}

/// What a run executes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Target {
    /// A program with its arguments.
    ExecTarget(ExecTarget),
    /// A script for `/bin/sh -c`.
    ShellTarget(ShellTarget),
    /// An HTTP request.
    HttpTarget(HttpTarget),
    /// A message on a named cluster.
    KafkaTarget(KafkaTarget),
    /// A business service's own code.
    HandlerTarget(HandlerTarget),
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "ExecTarget", rename_all = "camelCase")]
pub struct ExecTarget {
    /// The program and its arguments; one or more.
    pub command: Vec<String>,
    /// Environment added to the runner's allow-list.
    pub env: BTreeMap<String, String>,
    /// Where it runs; absent: the attempt's own empty directory.
    pub working_dir: Option<String>,
    /// What it reads on standard input.
    pub stdin: String,
    /// What its processes may use at most.
    pub limits: Option<ProcessLimits>,
}

/// A script for `/bin/sh -c`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "ShellTarget", rename_all = "camelCase")]
pub struct ShellTarget {
    /// The script.
    pub script: String,
    /// Environment added to the runner's allow-list.
    pub env: BTreeMap<String, String>,
    /// Where it runs; absent: the attempt's own empty directory.
    pub working_dir: Option<String>,
    /// What it reads on standard input.
    pub stdin: String,
    /// The shell; absent: `/bin/sh`.
    pub shell: Option<String>,
    /// What its processes may use at most.
    pub limits: Option<ProcessLimits>,
}

/// What the processes of an attempt may use at most; absent: what the runner itself may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "ProcessLimits", rename_all = "camelCase")]
pub struct ProcessLimits {
    /// Address space of each process, in bytes.
    pub memory_bytes: Option<i64>,
    /// Processor time of each process, in seconds.
    pub cpu_seconds: Option<i64>,
    /// Open files of each process.
    pub open_files: Option<i64>,
    /// Processes and threads of the attempt.
    pub processes: Option<i64>,
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "HttpTarget", rename_all = "camelCase")]
pub struct HttpTarget {
    /// Request method.
    pub method: String,
    /// Absolute URL.
    pub url: String,
    /// Headers; a value is literal or names a secret.
    pub headers: BTreeMap<String, HeaderValue>,
    /// Request body.
    pub body: String,
    /// Status codes and ranges that count as success, for example `200-299`.
    pub success: Vec<String>,
    /// What ends an attempt.
    pub completion: HttpCompletion,
}

/// A header value: literal text, or the name of a secret that the runner resolves. Exactly one is present.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "HeaderValue", rename_all = "camelCase")]
pub struct HeaderValue {
    /// The value itself.
    pub value: Option<String>,
    /// Name of the secret.
    pub secret_ref: Option<String>,
}

/// A message on a named cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "KafkaTarget", rename_all = "camelCase")]
pub struct KafkaTarget {
    /// Name of a cluster that the runner's configuration declares.
    pub cluster: String,
    /// Topic.
    pub topic: String,
    /// Record key.
    pub key: String,
    /// Record value.
    pub value: String,
    /// Record headers.
    pub headers: BTreeMap<String, String>,
}

/// A business service's own code.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename = "HandlerTarget", rename_all = "camelCase")]
pub struct HandlerTarget {
    /// Name of the handler.
    pub name: String,
    /// Its input as a JSON document.
    pub payload: String,
}
