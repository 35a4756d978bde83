//! The environment an attempt runs in: the runner's own variables on the allow-list, then the job's, then what
//! Orloj tells. Not here: secrets. Invariant: nothing else of the runner's environment reaches a job, and a
//! job can't replace what Orloj tells.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::progress::PROGRESS_FD;
use super::template::{AttemptFacts, fill};

/// The runner's own variables that a job inherits.
pub(crate) const INHERITED: [&str; 9] = ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "TMPDIR"];
/// Where programs are looked for when the runner itself has no `PATH`.
pub(crate) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Names the runner's session; with run and attempt it marks every process of an attempt.
pub(crate) const SESSION_VARIABLE: &str = "ORLOJ_SESSION";

/// The variables of one process, by name.
pub(crate) type Environment = BTreeMap<OsString, OsString>;

/// The runner's own variables on the allow-list, with a `PATH` in any case.
pub(crate) fn inherited(all: impl Iterator<Item = (OsString, OsString)>) -> Environment {
    let is_allowed = |name: &OsStr| INHERITED.iter().any(|allowed| name == OsStr::new(allowed));
    let mut kept: Environment = all.filter(|(name, _)| is_allowed(name)).collect();
    kept.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    kept
}

/// The whole environment of one attempt. `field` names where `job_env` stands in the manifest.
///
/// # Errors
/// A sentence that names the variable that can't be set and why.
pub(crate) fn environment_of(
    inherited: &Environment,
    job_env: &BTreeMap<String, String>,
    facts: &AttemptFacts,
    session: &str,
    field: &str,
) -> Result<Environment, String> {
    let mut variables = inherited.clone();
    for (name, value) in job_env {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(format!("{field}: `{}` can't name a variable; leave out `=` and NUL", name.escape_debug()));
        }
        let value = fill(value, facts).map_err(|problem| format!("{field}.{name}: {problem}"))?;
        variables.insert(name.into(), value.into());
    }
    for (name, value) in &facts.params {
        variables.insert(param_name(name).into(), value.into());
    }
    for (name, value) in told(facts, session) {
        variables.insert(name.into(), value.into());
    }
    match variables.iter().find(|(_, value)| value.as_bytes().contains(&0)) {
        Some((name, _)) => Err(format!("{field}.{}: the value holds a NUL character", name.to_string_lossy())),
        None => Ok(variables),
    }
}

/// What marks the processes of an attempt, as `NAME=value`: a process keeps it unless it asks for another
/// environment.
pub(crate) fn mark_of(facts: &AttemptFacts, session: &str) -> Vec<Vec<u8>> {
    told(facts, session)
        .into_iter()
        .filter(|(name, _)| matches!(*name, "ORLOJ_RUN_ID" | "ORLOJ_ATTEMPT" | SESSION_VARIABLE))
        .map(|(name, value)| format!("{name}={value}").into_bytes())
        .collect()
}

fn told(facts: &AttemptFacts, session: &str) -> [(&'static str, String); 7] {
    [
        ("ORLOJ_RUN_ID", facts.run_id.to_string()),
        ("ORLOJ_ATTEMPT", facts.attempt.to_string()),
        ("ORLOJ_FENCING_TOKEN", facts.token.to_string()),
        ("ORLOJ_FIRE_TIME", facts.fire_time.to_string()),
        ("ORLOJ_JOB", facts.job.to_string()),
        (SESSION_VARIABLE, session.to_owned()),
        ("ORLOJ_PROGRESS_FD", PROGRESS_FD.to_string()),
    ]
}

fn param_name(name: &str) -> String {
    let letter = |letter: char| if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' };
    format!("ORLOJ_PARAM_{}", name.chars().map(letter).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::super::template::example;
    use super::*;

    fn text(variables: &Environment, name: &str) -> Option<String> {
        variables.get(OsStr::new(name)).map(|value| value.to_string_lossy().into_owned())
    }

    #[test]
    fn only_the_allow_list_is_inherited() {
        let all = [("HOME", "/home/o"), ("AWS_SECRET_ACCESS_KEY", "x"), ("LC_ALL", "C.UTF-8"), ("ORLOJ_TOKEN", "t")];
        let kept = inherited(all.into_iter().map(|(name, value)| (name.into(), value.into())));
        let names: Vec<_> = kept.keys().map(|name| name.to_string_lossy().into_owned()).collect();
        assert_eq!(names, ["HOME", "LC_ALL", "PATH"]);
        assert_eq!(text(&kept, "PATH").as_deref(), Some(DEFAULT_PATH));
    }

    #[test]
    fn what_orloj_tells_wins_over_the_job_and_the_job_over_the_runner() {
        let runner = Environment::from([("HOME".into(), "/home/o".into()), ("TZ".into(), "UTC".into())]);
        let job = BTreeMap::from([
            ("HOME".to_owned(), "/srv".to_owned()),
            ("ORLOJ_ATTEMPT".to_owned(), "99".to_owned()),
            ("KEY".to_owned(), "{{run.id}}/{{run.attempt}}".to_owned()),
        ]);
        let made = environment_of(&runner, &job, &example(), "s1", "spec.run.exec.env").expect("environment");
        for (name, expected) in [
            ("HOME", "/srv"),
            ("TZ", "UTC"),
            ("KEY", "ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09/2"),
            ("ORLOJ_RUN_ID", "ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09"),
            ("ORLOJ_ATTEMPT", "2"),
            ("ORLOJ_FENCING_TOKEN", "7"),
            ("ORLOJ_FIRE_TIME", "2023-11-14T22:13:20Z"),
            ("ORLOJ_JOB", "billing/nightly"),
            ("ORLOJ_PARAM_TENANT_ID", "42"),
            ("ORLOJ_SESSION", "s1"),
            ("ORLOJ_PROGRESS_FD", "3"),
        ] {
            assert_eq!(text(&made, name).as_deref(), Some(expected), "{name}");
        }
        assert_eq!(mark_of(&example(), "s1").len(), 3);
    }

    #[test]
    fn a_variable_that_cannot_be_set_is_named() {
        for (name, value, named) in
            [("A=B", "x", "`A=B`"), ("KEY", "a\0b", "env.KEY"), ("KEY", "{{nope}}", "env.KEY: unknown placeholder")]
        {
            let job = BTreeMap::from([(name.to_owned(), value.to_owned())]);
            let problem = environment_of(&Environment::new(), &job, &example(), "s", "spec.run.exec.env");
            let problem = problem.expect_err(name);
            assert!(problem.contains(named), "{problem}");
        }
    }
}
