//! A queue's bounds or a shared limit as they are written, and checked. Not here: where they are kept (topic `settings`).
//! Invariant: every complaint is made at once, each with its field, the value found and how to mend it.

use serde::{Deserialize, Serialize};

use super::{CONCURRENT_MAX, LIMIT_KIND, LimitRule, MANIFEST_BYTES_MAX, QUEUE_KIND, RATE_MAX, RATE_MIN};
use crate::complaints::Complaints;
use crate::id::{LimitId, LimitName, QueueName};
use crate::job_event::FieldError;
use crate::manifest::{API_VERSION, Metadata};

/// A queue's bounds or a shared limit, as people write it and as it is kept in `settings`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitManifest {
    /// `orloj/v1`.
    pub api_version: String,
    /// `Queue` or `Limit`.
    pub kind: String,
    /// Its name; neither has a namespace.
    pub metadata: Metadata,
    /// What it allows.
    #[serde(default)]
    pub spec: LimitSpec,
}

/// What a queue or a limit allows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitSpec {
    /// Most runs that hold it at once; default any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrent: Option<i64>,
    /// How many runs get it per second on average; default any number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_per_second: Option<f64>,
    /// How many may get it at once; default what a tenth of a second allows, at least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<i64>,
    /// Nobody gets it while true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
}

/// Reads the manifest of a queue or a limit as JSON.
///
/// # Errors
/// Every complaint; one that names line and column if the text is no JSON manifest of either at all.
pub fn parse_json(text: &str) -> Result<(LimitManifest, LimitId, LimitRule), Vec<FieldError>> {
    if text.len() > MANIFEST_BYTES_MAX {
        let message = format!("is larger than {MANIFEST_BYTES_MAX} bytes; leave out annotations");
        return Err(vec![FieldError::new("manifest", format!("{} bytes", text.len()), message)]);
    }
    let manifest: LimitManifest =
        serde_json::from_str(text).map_err(|error| vec![crate::manifest::no_manifest(&error)])?;
    let (limit, rule) = to_rule(&manifest)?;
    Ok((manifest, limit, rule))
}

/// Converts and checks the manifest of a queue or a limit.
///
/// # Errors
/// Every complaint at once.
pub fn to_rule(manifest: &LimitManifest) -> Result<(LimitId, LimitRule), Vec<FieldError>> {
    let mut complaints = Complaints::default();
    complaints.constant("apiVersion", &manifest.api_version, API_VERSION);
    if let Some(namespace) = &manifest.metadata.namespace {
        let message = "queues and limits have no namespace, all jobs share them; remove it";
        complaints.add("metadata.namespace", namespace, message);
    }
    let name = &manifest.metadata.name;
    let limit = match manifest.kind.as_str() {
        QUEUE_KIND => QueueName::new(name).map(|queue| LimitId::of_queue(&queue)),
        LIMIT_KIND => LimitName::new(name).map(|limit| LimitId::of_limit(&limit)),
        other => {
            complaints.add("kind", other, format!("must be `{QUEUE_KIND}` or `{LIMIT_KIND}`"));
            return Err(complaints.0);
        }
    };
    if let Err(error) = &limit {
        complaints.add("metadata.name", name, format!("is no {}; {}", error.what, error.rule));
    }
    let rule = rule(&manifest.kind, &manifest.spec, &mut complaints);
    match limit {
        Ok(limit) if complaints.0.is_empty() => Ok((limit, rule)),
        Ok(_) | Err(_) => Err(complaints.0),
    }
}

fn rule(kind: &str, spec: &LimitSpec, complaints: &mut Complaints) -> LimitRule {
    let max_concurrent = spec
        .max_concurrent
        .map(|most| whole("spec.maxConcurrent", most, "; `paused: true` lets none through", complaints));
    let rate_per_second = spec.rate_per_second.filter(|rate| {
        // Written so that NaN is refused too.
        let is_good = (RATE_MIN..=RATE_MAX).contains(rate);
        if !is_good {
            let message = format!("must be {RATE_MIN} to {RATE_MAX} runs per second; `paused: true` lets none through");
            complaints.add("spec.ratePerSecond", rate, message);
        }
        is_good
    });
    let burst = match (spec.burst, spec.rate_per_second) {
        (Some(burst), None) => {
            complaints.add("spec.burst", burst, "means nothing without `ratePerSecond`; remove it");
            1
        }
        (Some(burst), Some(_)) => whole("spec.burst", burst, "", complaints),
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the highest rate")]
        (None, _) => (rate_per_second.unwrap_or(0.0) / 10.0).ceil().max(1.0) as i32,
    };
    let is_paused = spec.paused.unwrap_or(false);
    let rule = LimitRule { max_concurrent, rate_per_second, burst, is_paused };
    if kind == LIMIT_KIND && spec.max_concurrent.is_none() && spec.rate_per_second.is_none() && !is_paused {
        complaints.add("spec", "", "bounds nothing; write `maxConcurrent`, `ratePerSecond` or both");
    }
    rule
}

fn whole(field: &str, value: i64, hint: &str, complaints: &mut Complaints) -> i32 {
    match i32::try_from(value).ok().filter(|value| (1..=CONCURRENT_MAX).contains(value)) {
        Some(value) => value,
        None => {
            complaints.add(field, value, format!("must be 1 to {CONCURRENT_MAX}{hint}"));
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(kind: &str, spec: &Value) -> Result<(LimitId, LimitRule), Vec<FieldError>> {
        let text = json!({"apiVersion": "orloj/v1", "kind": kind, "metadata": {"name": "db"}, "spec": spec});
        parse_json(&text.to_string()).map(|(_, limit, rule)| (limit, rule))
    }

    #[test]
    fn bounds_are_read_with_their_defaults() {
        let (limit, rule) = parse("Queue", &json!({"maxConcurrent": 5, "ratePerSecond": 25})).expect("good");
        assert_eq!(limit.as_str(), "queue/db");
        let wanted = LimitRule { max_concurrent: Some(5), rate_per_second: Some(25.0), burst: 3, is_paused: false };
        assert_eq!(rule, wanted);
        assert!(!parse("Queue", &json!({})).expect("good").1.is_bound());
        assert!(parse("Limit", &json!({"paused": true})).expect("good").1.is_bound());
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_field() {
        for (kind, spec, field) in [
            ("Queue", json!({"maxConcurrent": 0}), "spec.maxConcurrent"),
            ("Queue", json!({"maxConcurrent": 5_000_000_000_i64}), "spec.maxConcurrent"),
            ("Queue", json!({"ratePerSecond": 0}), "spec.ratePerSecond"),
            ("Queue", json!({"ratePerSecond": -1}), "spec.ratePerSecond"),
            ("Queue", json!({"burst": 3}), "spec.burst"),
            ("Queue", json!({"ratePerSecond": 1, "burst": 0}), "spec.burst"),
            ("Limit", json!({}), "spec"),
            ("Queues", json!({}), "kind"),
            ("Queue", json!({"concurrency": 1}), "concurrency"),
        ] {
            let errors = parse(kind, &spec).expect_err("refused");
            assert_eq!(errors.iter().map(|error| error.field.as_str()).collect::<Vec<_>>(), [field], "{spec}");
        }
        let text = json!({"apiVersion": "v1", "kind": "Limit", "metadata": {"namespace": "a", "name": "A"}});
        let errors = parse_json(&text.to_string()).expect_err("refused");
        let fields: Vec<&str> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(fields, ["apiVersion", "metadata.namespace", "metadata.name", "spec"]);
    }
}
