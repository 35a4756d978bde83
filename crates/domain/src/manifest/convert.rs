//! From a manifest to a definition: texts become values and every default is filled in. Not here: what is
//! allowed (`check`, which runs at the end). Invariant: a field that can't be read is complained about once and
//! stands in with a harmless value, so that the rest is still checked.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::complaints::Complaints;
use crate::id::{IdError, JobId, QueueName, check_label};
use crate::job::{
    AfterFinishRule, AtRule, CronRule, Delivery, Dialect, DstFold, DstGap, EveryRule, ExecTarget, HandlerTarget,
    HeaderValue, HttpCompletion, HttpTarget, JobDefinition, KafkaTarget, MissedKind, MissedPolicy, OverlapKind,
    OverlapPolicy, ProcessLimits, RetryPolicy, RunSpec, ScheduleRule, ShellTarget, Target,
};
use crate::job_event::FieldError;
use crate::time::Timestamp;

use super::limits::Limits;
use super::shape::{
    HeaderText, HttpRun, Manifest, Metadata, Missed, Overlap, Retry, Rule, Run, RunnerSelector, Schedule, Spec,
};
use super::values::{parse_duration, parse_instant};
use super::{API_VERSION, KIND, NAMESPACE_DEFAULT, check, limits};

pub(super) const TIME_ZONE: &str = "UTC";
pub(super) const MISSED: MissedPolicy = MissedPolicy { policy: MissedKind::Latest, window_ms: 3_600_000, max: 100 };
pub(super) const OVERLAP: OverlapPolicy = OverlapPolicy { policy: OverlapKind::Forbid, max: 100 };
pub(super) const TIMEOUT_MS: i64 = 3_600_000;
pub(super) const RETRY: RetryPolicy = RetryPolicy {
    max_attempts: 1,
    initial_ms: 5_000,
    factor: 2.0,
    max_ms: 600_000,
    jitter: 0.2,
    non_retryable_exit_codes: Vec::new(),
};
pub(super) const PRIORITY: i32 = 5;
pub(super) const HTTP_METHOD: &str = "POST";
pub(super) const HTTP_SUCCESS: &str = "200-299";
pub(super) const HTTP_COMPLETION: HttpCompletion = HttpCompletion::Response;
pub(super) const KAFKA_CLUSTER: &str = "default";

/// Converts a manifest, fills in the defaults and checks the result.
///
/// # Errors
/// Every complaint at once.
pub fn to_definition(manifest: Manifest) -> Result<JobDefinition, Vec<FieldError>> {
    let mut reading = Reading::default();
    reading.complaints.constant("apiVersion", &manifest.api_version, API_VERSION);
    reading.complaints.constant("kind", &manifest.kind, KIND);
    let definition = reading.definition(manifest.metadata, manifest.spec);
    let mut errors = reading.complaints.0;
    errors.extend(check(&definition));
    if errors.is_empty() { Ok(definition) } else { Err(errors) }
}

#[derive(Default)]
struct Reading {
    complaints: Complaints,
}

impl Reading {
    fn millis(&mut self, field: &str, text: Option<&str>, default_ms: i64) -> i64 {
        self.optional_millis(field, text).unwrap_or(default_ms)
    }

    fn optional_millis(&mut self, field: &str, text: Option<&str>) -> Option<i64> {
        let text = text?;
        match parse_duration(text).map(whole_millis) {
            Ok(millis) => Some(millis),
            Err(message) => {
                self.complaints.add(field, text, message);
                None
            }
        }
    }

    fn instant(&mut self, field: &str, text: Option<&str>) -> Option<Timestamp> {
        let text = text?;
        match parse_instant(text) {
            Ok(instant) => Some(instant),
            Err(message) => {
                self.complaints.add(field, text, message);
                None
            }
        }
    }

    fn definition(&mut self, metadata: Metadata, mut spec: Spec) -> JobDefinition {
        let schedule = self.schedule(spec.schedule.take());
        let missed = spec.missed.take().unwrap_or_default();
        JobDefinition {
            job: self.job_id(&metadata),
            labels: metadata.labels,
            annotations: metadata.annotations,
            schedule,
            not_before: self.instant("spec.notBefore", spec.not_before.as_deref()),
            not_after: self.instant("spec.notAfter", spec.not_after.as_deref()),
            max_fires: spec.max_fires,
            jitter_ms: self.millis("spec.jitter", spec.jitter.as_deref(), 0),
            missed: self.missed(&missed),
            suspend: spec.suspend.unwrap_or(false),
            spec: self.run_spec(spec).into(),
        }
    }

    fn job_id(&mut self, metadata: &Metadata) -> JobId {
        let namespace = metadata.namespace.as_deref().unwrap_or(NAMESPACE_DEFAULT);
        for (field, what, value) in
            [("metadata.namespace", "namespace", namespace), ("metadata.name", "job name", &metadata.name)]
        {
            if let Err(error) = check_label(what, value) {
                self.complaints.add(field, value, format!("is no {what}; {}", error.rule));
            }
        }
        // Either label may be refused; the checks that follow need some id for the seed of `H`.
        let or_other = |value: &str| {
            if check_label("label", value).is_ok() { value.to_owned() } else { NAMESPACE_DEFAULT.to_owned() }
        };
        JobId::new(&or_other(namespace), &or_other(&metadata.name))
            .unwrap_or_else(|error| unreachable!("checked: {error}"))
    }

    fn missed(&mut self, missed: &Missed) -> MissedPolicy {
        MissedPolicy {
            policy: missed.policy.unwrap_or(MISSED.policy),
            window_ms: self.millis("spec.missed.window", missed.window.as_deref(), MISSED.window_ms),
            max: missed.max.unwrap_or(MISSED.max),
        }
    }

    fn schedule(&mut self, schedule: Option<Schedule>) -> Vec<ScheduleRule> {
        match schedule {
            None => Vec::new(),
            Some(Schedule::One(rule)) => vec![self.rule("spec.schedule", *rule)],
            Some(Schedule::List(rules)) => rules
                .into_iter()
                .enumerate()
                .map(|(index, rule)| self.rule(&format!("spec.schedule[{index}]"), rule))
                .collect(),
        }
    }

    fn rule(&mut self, path: &str, rule: Rule) -> ScheduleRule {
        // Stands in for a rule that was refused here, so that the numbers of the others stay right in `check`.
        let refused =
            || ScheduleRule::AtRule(AtRule { at: Timestamp::default(), exclude: Vec::new(), only: Vec::new() });
        let kinds = [
            ("cron", rule.cron.is_some()),
            ("every", rule.every.is_some()),
            ("at", rule.at.is_some()),
            ("afterFinish", rule.after_finish.is_some()),
        ];
        let present: Vec<&str> = kinds.iter().filter(|(_, is_present)| *is_present).map(|(name, _)| *name).collect();
        let [kind] = present[..] else {
            let message = "names exactly one of `cron`, `every`, `at` and `afterFinish`; write a list for more rules";
            self.complaints.add(path, present.join(", "), message);
            return refused();
        };
        self.companions(path, kind, &rule);
        let field = format!("{path}.{kind}");
        let exclude = self.names(&format!("{path}.exclude"), &rule.exclude);
        let only = self.names(&format!("{path}.only"), &rule.only);
        match rule {
            Rule { cron: Some(expression), time_zone, dialect, dst, .. } => {
                let dst = dst.unwrap_or_default();
                ScheduleRule::CronRule(CronRule {
                    expression,
                    time_zone: time_zone.unwrap_or_else(|| TIME_ZONE.to_owned()),
                    dialect: dialect.unwrap_or(Dialect::Unix),
                    gap: dst.gap.unwrap_or(DstGap::Shift),
                    fold: dst.fold.unwrap_or(DstFold::First),
                    exclude,
                    only,
                })
            }
            Rule { every: Some(period), anchor, .. } => {
                let anchor = self.instant(&format!("{path}.anchor"), anchor.as_deref()).unwrap_or_default();
                let period_ms = self.optional_millis(&field, Some(&period));
                period_ms.map_or_else(refused, |period_ms| {
                    ScheduleRule::EveryRule(EveryRule { period_ms, anchor, exclude, only })
                })
            }
            Rule { at, after_finish: None, .. } => self
                .instant(&field, at.as_deref())
                .map_or_else(refused, |at| ScheduleRule::AtRule(AtRule { at, exclude, only })),
            Rule { after_finish, .. } => {
                let delay_ms = self.optional_millis(&field, after_finish.as_deref());
                delay_ms.map_or_else(refused, |delay_ms| {
                    ScheduleRule::AfterFinishRule(AfterFinishRule { delay_ms, exclude, only })
                })
            }
        }
    }

    fn names<T: FromStr<Err = IdError>>(&mut self, path: &str, names: &[String]) -> Vec<T> {
        let mut found = Vec::with_capacity(names.len());
        for (index, text) in names.iter().enumerate() {
            match T::from_str(text) {
                Ok(name) => found.push(name),
                Err(error) => {
                    let message = format!("is no {}; {}", error.what, error.rule);
                    self.complaints.add(format!("{path}[{index}]"), text, message);
                }
            }
        }
        found
    }

    /// Refuses fields that mean nothing beside `kind`, rather than ignoring them.
    fn companions(&mut self, path: &str, kind: &str, rule: &Rule) {
        for (field, is_present, partner) in [
            ("timeZone", rule.time_zone.is_some(), "cron"),
            ("dialect", rule.dialect.is_some(), "cron"),
            ("dst", rule.dst.is_some(), "cron"),
            ("anchor", rule.anchor.is_some(), "every"),
        ] {
            if is_present && kind != partner {
                let message = format!("belongs to `{partner}` and means nothing beside `{kind}`; remove it");
                self.complaints.add(format!("{path}.{field}"), "", message);
            }
        }
    }

    fn run_spec(&mut self, spec: Spec) -> RunSpec {
        RunSpec {
            queue: self.queue(spec.queue.as_deref()),
            priority: spec.priority.unwrap_or(PRIORITY),
            start_delay_ms: self.millis("spec.startDelay", spec.start_delay.as_deref(), 0),
            timeout_ms: self.millis("spec.timeout", spec.timeout.as_deref(), TIMEOUT_MS),
            deadline_ms: self.optional_millis("spec.deadline", spec.deadline.as_deref()),
            retry: self.retry(spec.retry.unwrap_or_default()),
            delivery: spec.delivery.unwrap_or(Delivery::AtLeastOnce),
            overlap: overlap(&spec.overlap.unwrap_or_default()),
            concurrency: spec.concurrency,
            pause_after_failures: spec.pause_after_failures.unwrap_or(0),
            limits: self.names("spec.limits", &spec.limits),
            hedge_after_ms: self
                .optional_millis("spec.hedge.after", spec.hedge.as_ref().map(|hedge| hedge.after.as_str())),
            runner_labels: self.runner_labels(spec.runner_selector),
            target: self.target(spec.run),
        }
    }

    fn runner_labels(&mut self, selector: Option<RunnerSelector>) -> BTreeMap<String, String> {
        let Some(RunnerSelector { match_labels }) = selector else { return BTreeMap::new() };
        if match_labels.is_empty() {
            let message =
                "names no label; write some, as in `{zone: eu}`, or leave `runnerSelector` out for any runner";
            self.complaints.add("spec.runnerSelector.matchLabels", "", message);
        }
        match_labels
    }

    fn queue(&mut self, queue: Option<&str>) -> QueueName {
        let Some(text) = queue else { return QueueName::default() };
        QueueName::new(text).unwrap_or_else(|error| {
            self.complaints.add("spec.queue", text, format!("is no queue name; {}", error.rule));
            QueueName::default()
        })
    }

    fn retry(&mut self, retry: Retry) -> RetryPolicy {
        let backoff = retry.backoff.unwrap_or_default();
        let initial_ms = self.millis("spec.retry.backoff.initial", backoff.initial.as_deref(), RETRY.initial_ms);
        // Who asks for long waits and names no longest one means that the first wait is allowed.
        let max_default_ms = RETRY.max_ms.max(initial_ms);
        RetryPolicy {
            max_attempts: retry.max_attempts.unwrap_or(RETRY.max_attempts),
            initial_ms,
            factor: backoff.factor.unwrap_or(RETRY.factor),
            max_ms: self.millis("spec.retry.backoff.max", backoff.max.as_deref(), max_default_ms),
            jitter: backoff.jitter.unwrap_or(RETRY.jitter),
            non_retryable_exit_codes: retry.non_retryable_exit_codes,
        }
    }

    fn limits(&mut self, path: &str, limits: Option<Limits>) -> Option<ProcessLimits> {
        limits.and_then(|limits| limits::read(path, &limits, &mut self.complaints))
    }

    fn http_target(&mut self, http: HttpRun) -> HttpTarget {
        let header = |text| match text {
            HeaderText::Literal(value) => HeaderValue { value: Some(value), secret_ref: None },
            HeaderText::SecretRef(name) => HeaderValue { value: None, secret_ref: Some(name) },
        };
        let success: Vec<String> = http.success.into_iter().map(|codes| codes.0).collect();
        HttpTarget {
            method: http.method.unwrap_or_else(|| HTTP_METHOD.to_owned()),
            url: http.url,
            headers: http.headers.into_iter().map(|(name, text)| (name, header(text))).collect(),
            body: http.body,
            success: if success.is_empty() { vec![HTTP_SUCCESS.to_owned()] } else { success },
            completion: self.completion(http.completion.as_deref()),
        }
    }

    fn completion(&mut self, text: Option<&str>) -> HttpCompletion {
        let Some(text) = text else { return HTTP_COMPLETION };
        let found = HttpCompletion::ALL.iter().copied().find(|word| word.as_str() == text);
        found.unwrap_or_else(|| {
            let words: Vec<&str> = HttpCompletion::ALL.iter().map(|word| word.as_str()).collect();
            let message = format!("is no way to complete; use one of {}", words.join(", "));
            self.complaints.add("spec.run.http.completion", text, message);
            HTTP_COMPLETION
        })
    }

    fn target(&mut self, run: Run) -> Target {
        let kinds = [
            ("exec", run.exec.is_some()),
            ("shell", run.shell.is_some()),
            ("http", run.http.is_some()),
            ("kafka", run.kafka.is_some()),
            ("handler", run.handler.is_some()),
        ];
        let present: Vec<&str> = kinds.iter().filter(|(_, is_present)| *is_present).map(|(name, _)| *name).collect();
        if present.len() != 1 {
            let message = "names exactly one of `exec`, `shell`, `http`, `kafka` and `handler`";
            self.complaints.add("spec.run", present.join(", "), message);
            return stand_in();
        }
        match run {
            Run { exec: Some(exec), .. } => Target::ExecTarget(ExecTarget {
                limits: self.limits("spec.run.exec.limits", exec.limits),
                command: exec.command,
                env: exec.env,
                working_dir: exec.working_dir,
                stdin: exec.stdin,
            }),
            Run { shell: Some(shell), .. } => Target::ShellTarget(ShellTarget {
                limits: self.limits("spec.run.shell.limits", shell.limits),
                script: shell.script,
                env: shell.env,
                working_dir: shell.working_dir,
                stdin: shell.stdin,
                shell: shell.shell,
            }),
            Run { http: Some(http), .. } => Target::HttpTarget(self.http_target(http)),
            Run { kafka: Some(kafka), .. } => Target::KafkaTarget(KafkaTarget {
                cluster: kafka.cluster.unwrap_or_else(|| KAFKA_CLUSTER.to_owned()),
                topic: kafka.topic,
                key: kafka.key,
                value: kafka.value,
                headers: kafka.headers,
            }),
            Run { handler: Some(handler), .. } => {
                Target::HandlerTarget(HandlerTarget { name: handler.name, payload: handler.payload.to_string() })
            }
            Run { .. } => stand_in(),
        }
    }
}

/// A harmless target in place of one that was refused.
fn stand_in() -> Target {
    let command = vec!["/bin/true".to_owned()];
    Target::ExecTarget(ExecTarget {
        command,
        env: std::collections::BTreeMap::new(),
        working_dir: None,
        stdin: String::new(),
        limits: None,
    })
}

fn overlap(overlap: &Overlap) -> OverlapPolicy {
    OverlapPolicy { policy: overlap.policy.unwrap_or(OVERLAP.policy), max: overlap.max.unwrap_or(OVERLAP.max) }
}

fn whole_millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
