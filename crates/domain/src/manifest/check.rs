//! What every definition must obey, whether it came as a manifest or as a record: metadata, schedule, windows.
//! Not here: what a run needs (`check_spec`).
//! Invariant: a definition without complaints has a schedule that parses, and values within their ranges.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::calendar::CALENDARS_OF_RULE_MAX;
use crate::id::{CalendarName, JobId, check_label};
use crate::job::{
    CronRule, DEFINITION_BYTES_MAX, Dialect, DstFold, DstGap, JobDefinition, RULES_MAX, ScheduleRule, Target,
};
use crate::job_event::FieldError;
use crate::schedule::{self, ScheduleError};
use crate::time::Timestamp;

use super::check_spec;

/// Shortest period of `every` and delay of `afterFinish`, inclusive.
const PERIOD_MS_MIN: i64 = 1_000;
/// Widest jitter, inclusive: one day.
const JITTER_MS_MAX: i64 = 86_400_000;
/// Most missed fire times that one job may ask for at once, inclusive.
const MISSED_MAX: i32 = 10_000;
/// Longest key of a label's prefix or of an annotation in bytes, inclusive.
const KEY_BYTES_MAX: usize = 253;

/// Every complaint about a definition; none: it may be admitted.
#[must_use]
pub fn check(definition: &JobDefinition) -> Vec<FieldError> {
    let mut errors = Vec::new();
    check_size(definition, &mut errors);
    check_labels(&definition.labels, &mut errors);
    check_annotations(&definition.annotations, &mut errors);
    check_windows(definition, &mut errors);
    match rules_of(definition) {
        Ok(_) => {}
        Err(complaints) => errors.extend(complaints),
    }
    check_spec::check(&definition.spec, &mut errors);
    errors
}

/// The delay of the definition's `afterFinish` rule, if it has one: its fire times come from the ends of runs, not
/// from a clock.
#[must_use]
pub fn after_finish_of(definition: &JobDefinition) -> Option<Duration> {
    definition.schedule.iter().find_map(|rule| match rule {
        ScheduleRule::AfterFinishRule(rule) => u64::try_from(rule.delay_ms).ok().map(Duration::from_millis),
        ScheduleRule::CronRule(_) | ScheduleRule::EveryRule(_) | ScheduleRule::AtRule(_) => None,
    })
}

/// The rules of a definition that a clock answers, ready to be asked for fire times: all but `afterFinish`.
///
/// # Errors
/// Every complaint about the schedule.
pub fn rules_of(definition: &JobDefinition) -> Result<Vec<schedule::Rule>, Vec<FieldError>> {
    rules_for(&definition.schedule, &definition.job)
}

/// The rules of a schedule, but for `afterFinish`; `job` is what `H` is a hash of.
///
/// # Errors
/// Every complaint about the schedule.
pub fn rules_for(written: &[ScheduleRule], job: &JobId) -> Result<Vec<schedule::Rule>, Vec<FieldError>> {
    let count = written.len();
    if count > RULES_MAX {
        let message = format!("has more than {RULES_MAX} rules; split the job");
        return Err(vec![FieldError::new("spec.schedule", count, message)]);
    }
    let mut rules = Vec::with_capacity(count);
    let mut errors = Vec::new();
    for (index, rule) in written.iter().enumerate() {
        let path = path_of_rule(count, index);
        match rule_of(&path, rule, job.as_str()) {
            Ok(rule) => rules.extend(rule),
            Err(error) => errors.push(error),
        }
        errors.extend(too_many_calendars(&path, rule));
    }
    let waiting = written.iter().filter(|rule| matches!(rule, ScheduleRule::AfterFinishRule(_))).count();
    if waiting > 1 {
        let message = "has more than one `afterFinish`, and the shortest would always win; keep one";
        errors.push(FieldError::new("spec.schedule", waiting, message));
    }
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

/// Complains about cron expressions that name a year and fire no more after `after`. Others fire for as long as there are
/// years; a single instant that has passed is for the misfire policy to judge.
#[must_use]
pub fn check_ahead(definition: &JobDefinition, after: Timestamp) -> Vec<FieldError> {
    let seed = definition.job.as_str();
    let mut errors = Vec::new();
    for (index, rule) in definition.schedule.iter().enumerate() {
        let ScheduleRule::CronRule(cron) = rule else { continue };
        // Only the seventh field is a year.
        if cron.expression.split_whitespace().count() < 7 {
            continue;
        }
        let path = path_of_rule(definition.schedule.len(), index);
        let is_over = |rule: schedule::Rule| rule.next_after(after.to_jiff()).is_none();
        if cron_rule(&path, cron, seed).is_ok_and(is_over) {
            let message = "all that it names has passed: write a year to come in the seventh field, or leave it out";
            errors.push(FieldError::new(format!("{path}.cron"), &cron.expression, message));
        }
    }
    errors
}

/// Where a rule of a schedule stands in the manifest: alone, or in a list.
fn path_of_rule(count: usize, index: usize) -> String {
    if count == 1 { "spec.schedule".to_owned() } else { format!("spec.schedule[{index}]") }
}

fn too_many_calendars(path: &str, rule: &ScheduleRule) -> Option<FieldError> {
    let (exclude, only) = rule.calendars();
    let count = exclude.len() + only.len();
    (count > CALENDARS_OF_RULE_MAX).then(|| {
        let message =
            format!("names more than {CALENDARS_OF_RULE_MAX} calendars; make one that includes them, and name that");
        FieldError::new(format!("{path}.exclude"), count, message)
    })
}

/// Every calendar that a definition names, with the field that names it, for example `spec.schedule.exclude[0]`.
#[must_use]
pub fn calendars_of(definition: &JobDefinition) -> Vec<(String, CalendarName)> {
    let mut named = Vec::new();
    for (index, rule) in definition.schedule.iter().enumerate() {
        let path = path_of_rule(definition.schedule.len(), index);
        let (exclude, only) = rule.calendars();
        for (field, names) in [("exclude", exclude), ("only", only)] {
            let with_field = |(at, name): (usize, &CalendarName)| (format!("{path}.{field}[{at}]"), name.clone());
            named.extend(names.iter().enumerate().map(with_field));
        }
    }
    named
}

/// The rule; nothing for one that no clock answers.
fn rule_of(path: &str, rule: &ScheduleRule, seed: &str) -> Result<Option<schedule::Rule>, FieldError> {
    match rule {
        ScheduleRule::CronRule(cron) => cron_rule(path, cron, seed).map(Some),
        ScheduleRule::EveryRule(every) => {
            let Ok(period) = u64::try_from(every.period_ms) else {
                return Err(FieldError::new(format!("{path}.every"), every.period_ms, "is negative; write 1s or more"));
            };
            let rule = schedule::EveryRule::new(Duration::from_millis(period), every.anchor.to_jiff())
                .map_err(|error| of_schedule(path, &format!("{period}ms"), &error))?;
            long_enough(&format!("{path}.every"), rule).map(Some)
        }
        ScheduleRule::AtRule(at) => schedule::AtRule::new(at.at.to_jiff())
            .map(|rule| Some(schedule::Rule::At(rule)))
            .map_err(|error| of_schedule(path, &at.at.to_string(), &error)),
        ScheduleRule::AfterFinishRule(rule) if rule.delay_ms < PERIOD_MS_MIN => {
            let message = "is shorter than 1s; write 1s or more";
            Err(FieldError::new(format!("{path}.afterFinish"), format!("{}ms", rule.delay_ms), message))
        }
        ScheduleRule::AfterFinishRule(_) => Ok(None),
    }
}

fn cron_rule(path: &str, cron: &CronRule, seed: &str) -> Result<schedule::Rule, FieldError> {
    let dialect = match cron.dialect {
        Dialect::Unix => schedule::Dialect::Unix,
        Dialect::Quartz => schedule::Dialect::Quartz,
    };
    let gap = match cron.gap {
        DstGap::Shift => schedule::Gap::Shift,
        DstGap::Skip => schedule::Gap::Skip,
    };
    let fold = match cron.fold {
        DstFold::First => schedule::Fold::First,
        DstFold::Last => schedule::Fold::Last,
        DstFold::Both => schedule::Fold::Both,
    };
    let rule = schedule::parse_rule(&cron.expression, dialect, &cron.time_zone, gap, fold, seed)
        .map_err(|error| of_schedule(path, &cron.expression, &error))?;
    match rule {
        schedule::Rule::Every(every) => long_enough(&format!("{path}.cron"), every),
        schedule::Rule::Cron(_) | schedule::Rule::At(_) => Ok(rule),
    }
}

fn long_enough(field: &str, rule: schedule::EveryRule) -> Result<schedule::Rule, FieldError> {
    if rule.period() < Duration::from_millis(PERIOD_MS_MIN.unsigned_abs()) {
        return Err(FieldError::new(
            field,
            format!("{}ms", rule.period().as_millis()),
            "is shorter than 1s; write 1s or more",
        ));
    }
    Ok(schedule::Rule::Every(rule))
}

/// Puts a complaint of the schedule's reader on the field of the manifest that it is about.
fn of_schedule(path: &str, written: &str, error: &ScheduleError) -> FieldError {
    match error.field.as_str() {
        field @ ("timeZone" | "every" | "at" | "anchor")
            if !written.trim_start().starts_with('@') || field == "timeZone" =>
        {
            FieldError::new(format!("{path}.{field}"), &error.value, error.message.clone())
        }
        part => {
            let column = error.column.map_or_else(String::new, |column| format!(" at column {column}"));
            let message = format!("{part} `{}`{column} {}", error.value, error.message);
            FieldError::new(format!("{path}.cron"), written, message)
        }
    }
}

fn check_windows(definition: &JobDefinition, errors: &mut Vec<FieldError>) {
    if let (Some(not_before), Some(not_after)) = (definition.not_before, definition.not_after)
        && not_before >= not_after
    {
        errors.push(FieldError::new(
            "spec.notAfter",
            not_after,
            format!("must be later than `notBefore`, {not_before}"),
        ));
    }
    if let Some(max_fires) = definition.max_fires
        && max_fires < 1
    {
        errors.push(FieldError::new("spec.maxFires", max_fires, "must be 1 or more; leave it out for no bound"));
    }
    if !(0..=JITTER_MS_MAX).contains(&definition.jitter_ms) {
        errors.push(FieldError::new(
            "spec.jitter",
            format!("{}ms", definition.jitter_ms),
            "must be between 0s and 24h",
        ));
    }
    let missed = &definition.missed;
    if missed.window_ms < 0 {
        errors.push(FieldError::new("spec.missed.window", format!("{}ms", missed.window_ms), "must be 0s or more"));
    }
    if !(1..=MISSED_MAX).contains(&missed.max) {
        errors.push(FieldError::new("spec.missed.max", missed.max, format!("must be 1 to {MISSED_MAX}")));
    }
}

fn check_labels(labels: &BTreeMap<String, String>, errors: &mut Vec<FieldError>) {
    const RULE: &str =
        "use lower-case letters, digits, `-` and `.`, starting and ending each part with a letter or digit";
    for (key, value) in labels {
        let name = match key.split_once('/') {
            Some((prefix, name)) if is_domain(prefix) => name,
            Some(_) | None => key,
        };
        if check_label("label", name).is_err() && !is_domain(name) {
            errors.push(FieldError::new(format!("metadata.labels.{key}"), key, format!("is no label name; {RULE}")));
        }
        if !value.is_empty() && !is_domain(value) {
            errors.push(FieldError::new(format!("metadata.labels.{key}"), value, format!("is no label value; {RULE}")));
        }
    }
}

/// One or more DNS-1123 labels with dots between them.
fn is_domain(text: &str) -> bool {
    text.len() <= KEY_BYTES_MAX && text.split('.').all(|part| check_label("label", part).is_ok())
}

fn check_annotations(annotations: &BTreeMap<String, String>, errors: &mut Vec<FieldError>) {
    for key in annotations.keys() {
        if key.is_empty() || key.len() > KEY_BYTES_MAX || key.chars().any(char::is_control) {
            let message = format!("is no annotation name; use 1 to {KEY_BYTES_MAX} printable characters");
            errors.push(FieldError::new("metadata.annotations", key, message));
        }
    }
}

/// Counts the texts, which are all that can grow; the rest of a definition is bounded by its rules.
fn check_size(definition: &JobDefinition, errors: &mut Vec<FieldError>) {
    let of_map = |map: &BTreeMap<String, String>| map.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let rules: usize = definition
        .schedule
        .iter()
        .map(|rule| {
            let (exclude, only) = rule.calendars();
            let calendars: usize = exclude.iter().chain(only).map(|name| name.as_str().len()).sum();
            calendars
                + match rule {
                    ScheduleRule::CronRule(cron) => cron.expression.len() + cron.time_zone.len() + 8,
                    ScheduleRule::EveryRule(_) | ScheduleRule::AtRule(_) | ScheduleRule::AfterFinishRule(_) => 16,
                }
        })
        .sum();
    let target = match &definition.spec.target {
        Target::ExecTarget(exec) => {
            exec.command.iter().map(String::len).sum::<usize>() + of_map(&exec.env) + exec.stdin.len()
        }
        Target::ShellTarget(shell) => shell.script.len() + of_map(&shell.env) + shell.stdin.len(),
        Target::HttpTarget(http) => http.url.len() + http.body.len(),
        Target::KafkaTarget(kafka) => kafka.key.len() + kafka.value.len() + of_map(&kafka.headers),
        Target::HandlerTarget(handler) => handler.payload.len(),
    };
    let labels = of_map(&definition.labels) + of_map(&definition.spec.runner_labels);
    let total = labels + of_map(&definition.annotations) + rules + target;
    if total > DEFINITION_BYTES_MAX {
        let message =
            format!("is larger than {DEFINITION_BYTES_MAX} bytes; move scripts and payloads out of the definition");
        errors.push(FieldError::new("spec", format!("{total} bytes"), message));
    }
}
