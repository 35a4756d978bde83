//! From a definition back to a manifest, for `orloj get -o yaml`. Not here: YAML. Invariant: what is written
//! reads back as the same definition; what equals its default is left out.

use std::time::Duration;

use crate::id::CalendarName;
use crate::job::{
    CronRule, Delivery, Dialect, DstFold, DstGap, HttpTarget, JobDefinition, MissedPolicy, OverlapPolicy, RetryPolicy,
    ScheduleRule, Target,
};
use crate::time::Timestamp;

use super::convert::{
    HTTP_COMPLETION, HTTP_METHOD, HTTP_SUCCESS, KAFKA_CLUSTER, MISSED, OVERLAP, PRIORITY, RETRY, TIME_ZONE, TIMEOUT_MS,
};
use super::shape::{
    Backoff, DstRules, ExecRun, HandlerRun, HeaderText, Hedge, HttpRun, KafkaRun, Manifest, Metadata, Missed, Overlap,
    Retry, Rule, Run, RunnerSelector, Schedule, ShellRun, Spec, StatusCodes,
};
use super::values::duration_text;
use super::{API_VERSION, KIND, limits};

/// The manifest that reads back as this definition.
#[must_use]
pub fn from_definition(definition: &JobDefinition) -> Manifest {
    Manifest {
        api_version: API_VERSION.to_owned(),
        kind: KIND.to_owned(),
        metadata: Metadata {
            namespace: Some(definition.job.namespace().to_owned()),
            name: definition.job.name().to_owned(),
            labels: definition.labels.clone(),
            annotations: definition.annotations.clone(),
        },
        spec: spec(definition),
    }
}

fn spec(definition: &JobDefinition) -> Spec {
    let run = &definition.spec;
    Spec {
        schedule: schedule(&definition.schedule),
        not_before: definition.not_before.map(|instant| instant.to_string()),
        not_after: definition.not_after.map(|instant| instant.to_string()),
        max_fires: definition.max_fires,
        jitter: unless(definition.jitter_ms, 0).map(millis_text),
        missed: missed(&definition.missed),
        overlap: overlap(&run.overlap),
        concurrency: run.concurrency,
        start_delay: unless(run.start_delay_ms, 0).map(millis_text),
        timeout: unless(run.timeout_ms, TIMEOUT_MS).map(millis_text),
        deadline: run.deadline_ms.map(millis_text),
        retry: retry(&run.retry),
        delivery: unless(run.delivery, Delivery::AtLeastOnce),
        hedge: run.hedge_after_ms.map(|millis| Hedge { after: millis_text(millis) }),
        queue: unless(run.queue.clone(), crate::id::QueueName::default()).map(|queue| queue.as_str().to_owned()),
        limits: run.limits.iter().map(ToString::to_string).collect(),
        runner_selector: (!run.runner_labels.is_empty())
            .then(|| RunnerSelector { match_labels: run.runner_labels.clone() }),
        priority: unless(run.priority, PRIORITY),
        pause_after_failures: unless(run.pause_after_failures, 0),
        suspend: unless(definition.suspend, false),
        run: target(&run.target),
    }
}

fn unless<T: PartialEq>(value: T, default: T) -> Option<T> {
    (value != default).then_some(value)
}

fn millis_text(millis: i64) -> String {
    duration_text(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
}

fn schedule(rules: &[ScheduleRule]) -> Option<Schedule> {
    match rules {
        [] => None,
        [one] => Some(Schedule::One(Box::new(rule(one)))),
        many => Some(Schedule::List(many.iter().map(rule).collect())),
    }
}

fn rule(rule: &ScheduleRule) -> Rule {
    let texts = |names: &[CalendarName]| names.iter().map(|name| name.as_str().to_owned()).collect();
    let (exclude, only) = rule.calendars();
    Rule { exclude: texts(exclude), only: texts(only), ..plain_rule(rule) }
}

/// The rule without its calendars.
fn plain_rule(rule: &ScheduleRule) -> Rule {
    match rule {
        ScheduleRule::CronRule(cron) => cron_rule(cron),
        ScheduleRule::EveryRule(every) => Rule {
            every: Some(millis_text(every.period_ms)),
            anchor: unless(every.anchor, Timestamp::default()).map(|instant| instant.to_string()),
            ..Rule::default()
        },
        ScheduleRule::AtRule(at) => Rule { at: Some(at.at.to_string()), ..Rule::default() },
        ScheduleRule::AfterFinishRule(after) => {
            Rule { after_finish: Some(millis_text(after.delay_ms)), ..Rule::default() }
        }
    }
}

fn cron_rule(cron: &CronRule) -> Rule {
    let dst = DstRules { gap: unless(cron.gap, DstGap::Shift), fold: unless(cron.fold, DstFold::First) };
    Rule {
        cron: Some(cron.expression.clone()),
        time_zone: unless(cron.time_zone.as_str(), TIME_ZONE).map(str::to_owned),
        dialect: unless(cron.dialect, Dialect::Unix),
        dst: unless(dst, DstRules::default()),
        ..Rule::default()
    }
}

fn missed(missed: &MissedPolicy) -> Option<Missed> {
    let written = Missed {
        policy: unless(missed.policy, MISSED.policy),
        window: unless(missed.window_ms, MISSED.window_ms).map(millis_text),
        max: unless(missed.max, MISSED.max),
    };
    unless(written, Missed::default())
}

fn overlap(overlap: &OverlapPolicy) -> Option<Overlap> {
    let written = Overlap { policy: unless(overlap.policy, OVERLAP.policy), max: unless(overlap.max, OVERLAP.max) };
    unless(written, Overlap::default())
}

fn retry(retry: &RetryPolicy) -> Option<Retry> {
    let backoff = Backoff {
        initial: unless(retry.initial_ms, RETRY.initial_ms).map(millis_text),
        factor: unless(retry.factor, RETRY.factor),
        max: unless(retry.max_ms, RETRY.max_ms.max(retry.initial_ms)).map(millis_text),
        jitter: unless(retry.jitter, RETRY.jitter),
    };
    let written = Retry {
        max_attempts: unless(retry.max_attempts, RETRY.max_attempts),
        backoff: unless(backoff, Backoff::default()),
        non_retryable_exit_codes: retry.non_retryable_exit_codes.clone(),
    };
    unless(written, Retry::default())
}

fn target(target: &Target) -> Run {
    match target {
        Target::ExecTarget(exec) => Run {
            exec: Some(ExecRun {
                command: exec.command.clone(),
                env: exec.env.clone(),
                working_dir: exec.working_dir.clone(),
                stdin: exec.stdin.clone(),
                limits: exec.limits.as_ref().map(limits::written),
            }),
            ..Run::default()
        },
        Target::ShellTarget(shell) => Run {
            shell: Some(ShellRun {
                script: shell.script.clone(),
                env: shell.env.clone(),
                working_dir: shell.working_dir.clone(),
                stdin: shell.stdin.clone(),
                shell: shell.shell.clone(),
                limits: shell.limits.as_ref().map(limits::written),
            }),
            ..Run::default()
        },
        Target::HttpTarget(http) => Run { http: Some(http_run(http)), ..Run::default() },
        Target::KafkaTarget(kafka) => Run {
            kafka: Some(KafkaRun {
                cluster: unless(kafka.cluster.as_str(), KAFKA_CLUSTER).map(str::to_owned),
                topic: kafka.topic.clone(),
                key: kafka.key.clone(),
                value: kafka.value.clone(),
                headers: kafka.headers.clone(),
            }),
            ..Run::default()
        },
        Target::HandlerTarget(handler) => Run {
            handler: Some(HandlerRun {
                name: handler.name.clone(),
                // A payload that is no JSON can only have come as Avro; it is shown as the text it is.
                payload: serde_json::from_str(&handler.payload)
                    .unwrap_or_else(|_| serde_json::Value::String(handler.payload.clone())),
            }),
            ..Run::default()
        },
    }
}

fn http_run(http: &HttpTarget) -> HttpRun {
    let header = |value: &crate::job::HeaderValue| match &value.secret_ref {
        Some(name) => HeaderText::SecretRef(name.clone()),
        None => HeaderText::Literal(value.value.clone().unwrap_or_default()),
    };
    let is_default_success = http.success.iter().map(String::as_str).eq([HTTP_SUCCESS]);
    HttpRun {
        method: unless(http.method.as_str(), HTTP_METHOD).map(str::to_owned),
        url: http.url.clone(),
        headers: http.headers.iter().map(|(name, value)| (name.clone(), header(value))).collect(),
        body: http.body.clone(),
        completion: unless(http.completion, HTTP_COMPLETION).map(|completion| completion.as_str().to_owned()),
        success: if is_default_success { Vec::new() } else { http.success.iter().cloned().map(StatusCodes).collect() },
    }
}
