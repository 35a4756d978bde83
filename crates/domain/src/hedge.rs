//! Hedged attempts: a second attempt beside one that has not ended, of which the first result counts. Here: which jobs may
//! have them. Not here: when one begins and what becomes of the other (dispatcher). Invariant: a specification without
//! objections breaks no promise by two live attempts of one run.

use std::time::Duration;

use crate::job::{Delivery, HttpCompletion, OverlapKind, RunSpec, Target};
use crate::job_event::FieldError;
use crate::runner::labels_text;

/// Shortest time before a second attempt, inclusive: below this a hedge would be a second attempt for every run.
const AFTER_MS_MIN: i64 = 100;

/// After how long an attempt that has not ended gets another one beside it; `None` if it never does.
#[must_use]
pub fn after(spec: &RunSpec) -> Option<Duration> {
    let millis = spec.hedge_after_ms.and_then(|millis| u64::try_from(millis).ok())?;
    objections(spec).is_empty().then(|| Duration::from_millis(millis))
}

/// Every complaint about the hedge of a specification; none if it asks for none.
#[must_use]
pub fn objections(spec: &RunSpec) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let Some(after_ms) = spec.hedge_after_ms else { return errors };
    if !(AFTER_MS_MIN..=spec.timeout_ms.max(AFTER_MS_MIN)).contains(&after_ms) {
        let message = format!(
            "must be {AFTER_MS_MIN}ms or more and at most as long as `timeout` ({}ms), which ends an attempt",
            spec.timeout_ms
        );
        errors.push(FieldError::new("spec.hedge.after", format!("{after_ms}ms"), message));
    }
    let policy = spec.overlap.policy;
    if policy != OverlapKind::Allow {
        let message = format!(
            "lets no two attempts of the job be live at once, and `hedge` does; write `overlap: {{policy: {}}}`, or remove \
             `hedge`",
            OverlapKind::Allow
        );
        errors.push(FieldError::new("spec.overlap.policy", policy, message));
    }
    if let Some(concurrency) = spec.concurrency {
        let message = "bounds what is live of the job, and `hedge` adds attempts to that; remove one of the two";
        errors.push(FieldError::new("spec.concurrency", concurrency, message));
    }
    if spec.delivery != Delivery::AtLeastOnce {
        let message = "allows one execution, and `hedge` begins a second; remove one of the two";
        errors.push(FieldError::new("spec.delivery", spec.delivery, message));
    }
    if spec.retry.max_attempts < 2 {
        let message =
            "must be 2 or more beside `hedge`, whose second attempt counts as one; raise it, or remove `hedge`";
        errors.push(FieldError::new("spec.retry.maxAttempts", spec.retry.max_attempts, message));
    }
    if let Some(limit) = spec.limits.first() {
        let message = "is held for one attempt at a time, and `hedge` has two; remove one of the two";
        errors.push(FieldError::new("spec.limits", limit, message));
    }
    if !spec.runner_labels.is_empty() {
        let message = "is offered to one runner, and a second attempt by `hedge` is taken by any of the queue; remove one of the \
                       two, or give these runners a queue of their own";
        let labels = labels_text(&spec.runner_labels);
        errors.push(FieldError::new("spec.runnerSelector", labels, message));
    }
    if matches!(&spec.target, Target::HttpTarget(http) if http.completion == HttpCompletion::Callback) {
        let message = "means that the target has the work and is waited for; a second request by `hedge` would have it done \
                       twice, so remove one of the two";
        errors.push(FieldError::new("spec.run.http.completion", HttpCompletion::Callback, message));
    }
    errors
}
