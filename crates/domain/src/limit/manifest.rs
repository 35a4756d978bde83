//! A queue's bounds or a shared limit as they are written, and checked. Not here: where they are kept (topic `settings`).
//! Invariant: every complaint is made at once, each with its field, the value found and how to mend it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    BREAKER_TIME_MAX, BREAKER_TIME_MIN, BreakerRule, CONCURRENT_MAX, FAILURES_MAX, LIMIT_KIND, LimitRule,
    MANIFEST_BYTES_MAX, QUEUE_KIND, RATE_MAX, RATE_MIN,
};
use crate::complaints::Complaints;
use crate::id::{HttpHost, LimitId, LimitName, QueueName};
use crate::job_event::FieldError;
use crate::manifest::{API_VERSION, Metadata, duration_text, parse_duration};

/// A breaker's window if the manifest says nothing.
const WINDOW_DEFAULT: Duration = Duration::from_secs(60);
/// How long a breaker is open if the manifest says nothing.
const OPEN_FOR_DEFAULT: Duration = Duration::from_secs(30);
/// How many times as long it is open at most if the manifest says nothing.
const OPEN_FOR_TIMES_MAX: u32 = 10;

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
    /// When it lets nobody through for a while because too many fail; default never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerSpec>,
    /// Of a limit: runs whose HTTP target is at this host need it, without naming it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BreakerSpec {
    /// So many failures within the window open it: dead letters of a queue, failed attempts of a limit.
    pub failures: i64,
    /// And at least this share of what ended within the window, above 0 and up to 1; default any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
    /// The window; default 1 minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<String>,
    /// How long it is open the first time; default 30 seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open_for: Option<String>,
    /// How long it is open at most, doubled each time that whoever tries fails; default ten times `openFor`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_open_for: Option<String>,
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
    let breaker = spec.breaker.as_ref().map(|spec| breaker(spec, complaints));
    let host = spec.host.as_deref().and_then(|text| host(kind, text, complaints));
    let bounds = (spec.max_concurrent, spec.rate_per_second, &spec.breaker);
    if kind == LIMIT_KIND && bounds == (None, None, &None) && !is_paused {
        complaints.add(
            "spec",
            "",
            "bounds nothing; write `maxConcurrent`, `ratePerSecond`, `breaker` or several of them",
        );
    }
    LimitRule { max_concurrent, rate_per_second, burst, is_paused, breaker, host }
}

fn breaker(spec: &BreakerSpec, complaints: &mut Complaints) -> BreakerRule {
    let failures = at_most(FAILURES_MAX, "spec.breaker.failures", spec.failures, "", complaints);
    let ratio = spec.ratio.filter(|ratio| {
        // Written so that NaN is refused too.
        let is_good = *ratio > 0.0 && *ratio <= 1.0;
        if !is_good {
            complaints.add("spec.breaker.ratio", ratio, "must be above 0 and up to 1, as 0.5 for one half");
        }
        is_good
    });
    let mut time = |field: &str, text: &Option<String>, default: Duration| match text {
        Some(text) => breaker_time(field, text, default, complaints),
        None => default,
    };
    let window = time("spec.breaker.window", &spec.window, WINDOW_DEFAULT);
    let open_for = time("spec.breaker.openFor", &spec.open_for, OPEN_FOR_DEFAULT);
    let most = open_for.saturating_mul(OPEN_FOR_TIMES_MAX).min(BREAKER_TIME_MAX);
    let open_for_max = time("spec.breaker.maxOpenFor", &spec.max_open_for, most);
    if open_for_max < open_for {
        let message = format!("must not be less than `openFor`, {}", duration_text(open_for));
        complaints.add("spec.breaker.maxOpenFor", duration_text(open_for_max), message);
    }
    BreakerRule { failures, ratio, window, open_for, open_for_max }
}

fn breaker_time(field: &str, text: &str, default: Duration, complaints: &mut Complaints) -> Duration {
    let checked = parse_duration(text).and_then(|time| {
        let is_good = (BREAKER_TIME_MIN..=BREAKER_TIME_MAX).contains(&time);
        let [least, most] = [BREAKER_TIME_MIN, BREAKER_TIME_MAX].map(duration_text);
        if is_good { Ok(time) } else { Err(format!("must be {least} to {most}")) }
    });
    checked.unwrap_or_else(|message| {
        complaints.add(field, text, message);
        default
    })
}

fn host(kind: &str, text: &str, complaints: &mut Complaints) -> Option<HttpHost> {
    if kind != LIMIT_KIND {
        complaints.add("spec.host", text, format!("is for a `{LIMIT_KIND}`: runs name their queue; remove it"));
        return None;
    }
    HttpHost::new(text).map_err(|error| complaints.add("spec.host", text, format!("is no host: {}", error.rule))).ok()
}

fn whole(field: &str, value: i64, hint: &str, complaints: &mut Complaints) -> i32 {
    at_most(CONCURRENT_MAX, field, value, hint, complaints)
}

/// A whole number from 1 to `most`.
fn at_most(most: i32, field: &str, value: i64, hint: &str, complaints: &mut Complaints) -> i32 {
    match i32::try_from(value).ok().filter(|value| (1..=most).contains(value)) {
        Some(value) => value,
        None => {
            complaints.add(field, value, format!("must be 1 to {most}{hint}"));
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
        let wanted =
            LimitRule { max_concurrent: Some(5), rate_per_second: Some(25.0), burst: 3, ..LimitRule::default() };
        assert_eq!(rule, wanted);
        assert!(!parse("Queue", &json!({})).expect("good").1.is_bound());
        assert!(parse("Limit", &json!({"paused": true})).expect("good").1.is_bound());
    }

    #[test]
    fn a_breaker_is_read_with_its_defaults() {
        let rule = |kind, spec| parse(kind, &spec).expect("good").1;
        let found = rule("Queue", json!({"breaker": {"failures": 20}}));
        assert!(found.is_bound(), "whoever is on it must ask");
        let seconds = Duration::from_secs;
        let (window, open_for, open_for_max) = (seconds(60), seconds(30), seconds(300));
        let wanted = BreakerRule { failures: 20, ratio: None, window, open_for, open_for_max };
        assert_eq!(found.breaker, Some(wanted));
        let written = json!({"failures": 1, "ratio": 0.5, "window": "90s", "openFor": "PT4H", "maxOpenFor": "1d"});
        let found = rule("Limit", json!({"breaker": written, "host": "api.example.com"}));
        let (window, open_for, open_for_max) = (seconds(90), seconds(14_400), seconds(86_400));
        let wanted = BreakerRule { failures: 1, ratio: Some(0.5), window, open_for, open_for_max };
        assert_eq!(found.breaker, Some(wanted));
        assert_eq!(found.host.as_ref().map(HttpHost::as_str), Some("api.example.com"));
        let found = rule("Queue", json!({"breaker": {"failures": 1, "openFor": "10h"}}));
        assert_eq!(found.breaker.map(|rule| rule.open_for_max), Some(BREAKER_TIME_MAX));
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
            ("Queue", json!({"breaker": {}}), "failures"),
            ("Queue", json!({"breaker": {"failures": 1, "open": "1s"}}), "open"),
            ("Queue", json!({"breaker": {"failures": 0}}), "spec.breaker.failures"),
            ("Queue", json!({"breaker": {"failures": 10_001}}), "spec.breaker.failures"),
            ("Queue", json!({"breaker": {"failures": 1, "ratio": 0.0}}), "spec.breaker.ratio"),
            ("Queue", json!({"breaker": {"failures": 1, "ratio": 1.01}}), "spec.breaker.ratio"),
            ("Queue", json!({"breaker": {"failures": 1, "window": "soon"}}), "spec.breaker.window"),
            ("Queue", json!({"breaker": {"failures": 1, "window": "25h"}}), "spec.breaker.window"),
            ("Queue", json!({"breaker": {"failures": 1, "openFor": "999ms"}}), "spec.breaker.openFor"),
            ("Queue", json!({"breaker": {"failures": 1, "maxOpenFor": "29s"}}), "spec.breaker.maxOpenFor"),
            ("Queue", json!({"host": "example.com"}), "spec.host"),
            ("Limit", json!({"host": "example.com"}), "spec"),
            ("Limit", json!({"paused": true, "host": "https://example.com"}), "spec.host"),
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
