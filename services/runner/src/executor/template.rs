//! Placeholders in `env` values and `stdin`: `{{run.id}} {{run.attempt}} {{run.token}} {{fireTime}} {{job}}
//! {{params.NAME}}`, and nothing else. Not here: the script and the arguments, which are never touched.
//! Invariant: pure, and a text is either filled in completely or refused by the name of what is unknown.

use std::collections::BTreeMap;

use orloj_domain::id::{JobId, RunId};
use orloj_domain::time::Timestamp;

/// What an attempt is told about itself.
#[derive(Debug, Clone)]
pub struct AttemptFacts {
    /// The run.
    pub run_id: RunId,
    /// The attempt, numbered from 1.
    pub attempt: i32,
    /// Its fencing token.
    pub token: i64,
    /// The nominal instant of the run.
    pub fire_time: Timestamp,
    /// The job.
    pub job: JobId,
    /// Parameters of the run.
    pub params: BTreeMap<String, String>,
}

const KNOWN: &str = "run.id, run.attempt, run.token, fireTime, job and params.NAME";

/// Fills in every `{{placeholder}}` of `text`. Blanks inside the braces do not count; `{{` that nothing closes
/// stands for itself.
///
/// # Errors
/// A sentence that names the placeholder that is unknown, or the parameter that the run does not have.
pub(crate) fn fill(text: &str, facts: &AttemptFacts) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((inner, behind)) = after.split_once("}}") else {
            break;
        };
        filled.push_str(before);
        filled.push_str(&value_of(inner.trim(), facts)?);
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

fn value_of(name: &str, facts: &AttemptFacts) -> Result<String, String> {
    match name {
        "run.id" => Ok(facts.run_id.to_string()),
        "run.attempt" => Ok(facts.attempt.to_string()),
        "run.token" => Ok(facts.token.to_string()),
        "fireTime" => Ok(facts.fire_time.to_string()),
        "job" => Ok(facts.job.to_string()),
        other => match other.strip_prefix("params.") {
            Some(param) => facts.params.get(param).cloned().ok_or_else(|| {
                format!("placeholder `{{{{{other}}}}}`: the run has no parameter `{param}`; give it one with `--param`")
            }),
            None => Err(format!("unknown placeholder `{{{{{other}}}}}`; use one of {KNOWN}")),
        },
    }
}

/// What every request and every message is told about the attempt, as headers.
pub(crate) fn told(facts: &AttemptFacts) -> Vec<(String, String)> {
    let mut told = vec![
        ("Orloj-Run-Id".to_owned(), facts.run_id.to_string()),
        ("Orloj-Attempt".to_owned(), facts.attempt.to_string()),
        ("Orloj-Fencing-Token".to_owned(), facts.token.to_string()),
        ("Orloj-Fire-Time".to_owned(), facts.fire_time.to_string()),
        ("Orloj-Job".to_owned(), facts.job.to_string()),
        ("Idempotency-Key".to_owned(), format!("{}/{}", facts.run_id, facts.attempt)),
    ];
    told.extend(
        facts.params.iter().map(|(name, value)| (format!("Orloj-Param-{}", name.replace('_', "-")), value.clone())),
    );
    told
}

#[cfg(test)]
pub(crate) fn example() -> AttemptFacts {
    AttemptFacts {
        run_id: "ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09".parse().expect("run id"),
        attempt: 2,
        token: 7,
        fire_time: Timestamp::from_millis(1_700_000_000_000),
        job: "billing/nightly".parse().expect("job"),
        params: BTreeMap::from([("tenant-id".to_owned(), "42".to_owned())]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in() {
        for (text, expected) in [
            ("", ""),
            ("plain } text {", "plain } text {"),
            ("{{run.id}}/{{run.attempt}}", "ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09/2"),
            ("t={{ run.token }};", "t=7;"),
            ("{{fireTime}} {{job}}", "2023-11-14T22:13:20Z billing/nightly"),
            ("{{params.tenant-id}}{{params.tenant-id}}", "4242"),
            ("left {{open", "left {{open"),
            ("ž{{job}}ž", "žbilling/nightlyž"),
        ] {
            assert_eq!(fill(text, &example()).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_unknown_is_named() {
        for (text, named) in [
            ("{{run.state}}", "`{{run.state}}`"),
            ("a {{params.none}} b", "no parameter `none`"),
            ("{{}}", "`{{}}`"),
            ("{{job}} {{ job.name }}", "`{{job.name}}`"),
        ] {
            let error = fill(text, &example()).expect_err(text);
            assert!(error.contains(named), "{error}");
        }
    }
}
