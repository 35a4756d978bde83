//! What every run specification must obey: ranges of its numbers, and what a program or a script must have.
//! Not here: what each runner's settings allow. Invariant: a specification without complaints can
//! be handed to the dispatcher and a runner without another look at its ranges.

use std::collections::BTreeMap;

use super::{check_http, check_kafka, limits};
use crate::hedge;
use crate::id::{LimitName, check_label};
use crate::job::{ExecTarget, HandlerTarget, OverlapKind, RetryPolicy, RunSpec, ShellTarget, Target};
use crate::job_event::FieldError;
use crate::limit::LIMITS_OF_JOB_MAX;
use crate::runner::{LABEL_RULE, SELECTOR_LABELS_MAX, is_label_text};

/// Longest run time of one attempt, inclusive: a year. Never unbounded.
const TIMEOUT_MS_MAX: i64 = 366 * 86_400_000;
/// Longest deadline of a run, inclusive: ten years.
const DEADLINE_MS_MAX: i64 = 3_660 * 86_400_000;
/// Most attempts, inclusive.
const ATTEMPTS_MAX: i32 = 1_000;
/// What may stand in `{{ }}` in `env` and `stdin`, beside parameters.
const PLACEHOLDERS: [&str; 5] = ["run.id", "run.attempt", "run.token", "fireTime", "job"];
/// Largest factor of a backoff, inclusive.
const FACTOR_MAX: f64 = 100.0;

pub(super) fn check(spec: &RunSpec, errors: &mut Vec<FieldError>) {
    if !(0..=9).contains(&spec.priority) {
        errors.push(FieldError::new("spec.priority", spec.priority, "must be 0 (lowest) to 9 (highest)"));
    }
    if spec.start_delay_ms < 0 {
        errors.push(FieldError::new("spec.startDelay", format!("{}ms", spec.start_delay_ms), "must be 0s or more"));
    }
    if !(1..=TIMEOUT_MS_MAX).contains(&spec.timeout_ms) {
        let message = "must be longer than 0s and at most 366 days; an attempt is never unbounded";
        errors.push(FieldError::new("spec.timeout", format!("{}ms", spec.timeout_ms), message));
    }
    if spec.overlap.max < 1 {
        errors.push(FieldError::new("spec.overlap.max", spec.overlap.max, "must be 1 or more"));
    }
    check_concurrency(spec, errors);
    if let Some(deadline_ms) = spec.deadline_ms.filter(|millis| !(1..=DEADLINE_MS_MAX).contains(millis)) {
        let message = "must be longer than 0s and at most ten years";
        errors.push(FieldError::new("spec.deadline", format!("{deadline_ms}ms"), message));
    }
    if spec.pause_after_failures < 0 {
        errors.push(FieldError::new("spec.pauseAfterFailures", spec.pause_after_failures, "must be 0 (never) or more"));
    }
    check_retry(&spec.retry, errors);
    check_limits(&spec.limits, errors);
    errors.extend(hedge::objections(spec));
    check_runner_labels(&spec.runner_labels, errors);
    match &spec.target {
        Target::ExecTarget(exec) => check_exec(exec, errors),
        Target::ShellTarget(shell) => check_shell(shell, errors),
        Target::HttpTarget(http) => check_http::check(http, errors),
        Target::KafkaTarget(kafka) => check_kafka::check(kafka, errors),
        Target::HandlerTarget(handler) => check_handler(handler, errors),
    }
}

fn check_concurrency(spec: &RunSpec, errors: &mut Vec<FieldError>) {
    let Some(concurrency) = spec.concurrency else { return };
    if concurrency < 1 {
        errors.push(FieldError::new(
            "spec.concurrency",
            concurrency,
            "must be 1 or more; `suspend` starts no run at all",
        ));
    }
    match spec.overlap.policy {
        OverlapKind::Allow | OverlapKind::Queue => {}
        OverlapKind::Forbid | OverlapKind::Replace => {
            let policy = spec.overlap.policy;
            let message =
                format!("means nothing under `overlap: {{policy: {policy}}}`, which is one run at a time; remove it");
            errors.push(FieldError::new("spec.concurrency", concurrency, message));
        }
    }
}

fn check_limits(names: &[LimitName], errors: &mut Vec<FieldError>) {
    if names.len() > LIMITS_OF_JOB_MAX {
        let message = format!("names more than {LIMITS_OF_JOB_MAX} limits; join some of them");
        errors.push(FieldError::new("spec.limits", names.len(), message));
    }
    for (index, name) in names.iter().enumerate() {
        if names[..index].contains(name) {
            errors.push(FieldError::new(format!("spec.limits[{index}]"), name, "is named twice; remove it"));
        }
    }
}

/// What a runner can't be labelled with, nobody would ever have.
fn check_runner_labels(labels: &BTreeMap<String, String>, errors: &mut Vec<FieldError>) {
    const FIELD: &str = "spec.runnerSelector.matchLabels";
    if labels.len() > SELECTOR_LABELS_MAX {
        let message =
            format!("names more than {SELECTOR_LABELS_MAX} labels; label the runners by what they have in common");
        errors.push(FieldError::new(FIELD, labels.len(), message));
    }
    for (name, value) in labels {
        if name.is_empty() || !is_label_text(name) {
            let message = format!("is no label of a runner; use {LABEL_RULE}");
            errors.push(FieldError::new(format!("{FIELD}.{name}"), name, message));
        }
        if !is_label_text(value) {
            let message = format!("is no value of a runner's label; use {LABEL_RULE}");
            errors.push(FieldError::new(format!("{FIELD}.{name}"), value, message));
        }
    }
}

fn check_retry(retry: &RetryPolicy, errors: &mut Vec<FieldError>) {
    if !(1..=ATTEMPTS_MAX).contains(&retry.max_attempts) {
        let message = format!("must be 1 to {ATTEMPTS_MAX}; it counts the first attempt too");
        errors.push(FieldError::new("spec.retry.maxAttempts", retry.max_attempts, message));
    }
    if retry.initial_ms < 0 {
        errors.push(FieldError::new(
            "spec.retry.backoff.initial",
            format!("{}ms", retry.initial_ms),
            "must be 0s or more",
        ));
    }
    if retry.max_ms < retry.initial_ms {
        let message = "must be at least as long as `initial`";
        errors.push(FieldError::new("spec.retry.backoff.max", format!("{}ms", retry.max_ms), message));
    }
    // Written so that NaN, which Avro can carry, is refused too.
    if !(1.0..=FACTOR_MAX).contains(&retry.factor) {
        errors.push(FieldError::new("spec.retry.backoff.factor", retry.factor, format!("must be 1 to {FACTOR_MAX}")));
    }
    if !(0.0..=1.0).contains(&retry.jitter) {
        errors.push(FieldError::new("spec.retry.backoff.jitter", retry.jitter, "must be 0 to 1"));
    }
    for code in &retry.non_retryable_exit_codes {
        if !(1..=255).contains(code) {
            errors.push(FieldError::new(
                "spec.retry.nonRetryableExitCodes",
                code,
                "must be 1 to 255, as processes exit",
            ));
        }
    }
}

fn check_exec(exec: &ExecTarget, errors: &mut Vec<FieldError>) {
    if exec.command.first().is_none_or(String::is_empty) {
        let message = "names no program; write the program and its arguments, as in `[pg_dump, -Fc, app]`";
        errors.push(FieldError::new("spec.run.exec.command", "", message));
    }
    for (index, argument) in exec.command.iter().enumerate() {
        check_no_nul(&format!("spec.run.exec.command[{index}]"), argument, errors);
    }
    check_placeholders("spec.run.exec.stdin", &exec.stdin, errors);
    check_process("spec.run.exec", &exec.env, exec.working_dir.as_deref(), errors);
    limits::check("spec.run.exec.limits", exec.limits.as_ref(), errors);
}

fn check_shell(shell: &ShellTarget, errors: &mut Vec<FieldError>) {
    if shell.script.trim().is_empty() {
        errors.push(FieldError::new(
            "spec.run.shell.script",
            &shell.script,
            "is empty; write what the shell is to run",
        ));
    }
    check_no_nul("spec.run.shell.script", &shell.script, errors);
    check_placeholders("spec.run.shell.stdin", &shell.stdin, errors);
    if let Some(program) = &shell.shell {
        check_absolute("spec.run.shell.shell", program, errors);
    }
    check_process("spec.run.shell", &shell.env, shell.working_dir.as_deref(), errors);
    limits::check("spec.run.shell.limits", shell.limits.as_ref(), errors);
}

/// Of a payload only that it is JSON: what it must hold is known to the service that has the handler.
fn check_handler(handler: &HandlerTarget, errors: &mut Vec<FieldError>) {
    if let Err(error) = check_label("handler", &handler.name) {
        errors.push(FieldError::new("spec.run.handler.name", &handler.name, error.rule));
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(&handler.payload) {
        let message = format!("is no JSON: {error}; write any JSON value, `null` for none");
        errors.push(FieldError::new("spec.run.handler.payload", &handler.payload, message));
    }
}

fn check_process(path: &str, env: &BTreeMap<String, String>, working_dir: Option<&str>, errors: &mut Vec<FieldError>) {
    for (name, value) in env {
        let field = format!("{path}.env.{name}");
        if name.is_empty() || name.contains(['=', '\0']) {
            errors.push(FieldError::new(field.clone(), name, "is no name of a variable; remove `=` from it"));
        }
        if name.starts_with("ORLOJ_") {
            errors.push(FieldError::new(
                field.clone(),
                name,
                "is reserved for what the runner tells the attempt; rename it",
            ));
        }
        check_no_nul(&field, value, errors);
        check_placeholders(&field, value, errors);
    }
    if let Some(directory) = working_dir {
        check_absolute(&format!("{path}.workingDir"), directory, errors);
    }
}

/// Only what the runner fills in; scripts and arguments are never touched, so anything may stand there.
pub(super) fn check_placeholders(field: &str, text: &str, errors: &mut Vec<FieldError>) {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("{{") {
        let Some((inside, after)) = after.split_once("}}") else { return };
        let name = inside.trim();
        let is_param = name.strip_prefix("params.").is_some_and(|param| !param.is_empty());
        if !is_param && !PLACEHOLDERS.contains(&name) {
            let message = format!("is no placeholder; use one of {} and params.NAME", PLACEHOLDERS.join(", "));
            errors.push(FieldError::new(field, format!("{{{{{inside}}}}}"), message));
        }
        rest = after;
    }
}

fn check_absolute(field: &str, path: &str, errors: &mut Vec<FieldError>) {
    if !path.starts_with('/') {
        errors.push(FieldError::new(field, path, "is no absolute path; start it with `/`"));
    }
    check_no_nul(field, path, errors);
}

fn check_no_nul(field: &str, text: &str, errors: &mut Vec<FieldError>) {
    if text.contains('\0') {
        errors.push(FieldError::new(
            field,
            text.escape_debug(),
            "holds a NUL character, which no process can be given; remove it",
        ));
    }
}
