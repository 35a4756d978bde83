//! From a target to what is spawned: program, arguments, environment, directory, input. Not here: spawning.
//! Invariant: whatever is wrong with a target is found by name before a process exists; the sentence says
//! which field of the manifest it is and how to mend it.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};
use orloj_domain::job::{ExecTarget, ProcessLimits, ShellTarget};

use super::environment::{Environment, environment_of, mark_of};
use super::limits::Limits;
use super::template::{AttemptFacts, fill};

const DEFAULT_SHELL: &str = "/bin/sh";

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Directory {
    /// A directory that was there before.
    Given(PathBuf),
    /// One of its own, made for it and removed after it.
    Private(PathBuf),
}

impl Directory {
    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Given(path) | Self::Private(path) => path,
        }
    }
}

/// All that is needed to spawn one process.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The program's file.
    pub(crate) program: PathBuf,
    /// Its arguments, its own name first.
    pub(crate) arguments: Vec<CString>,
    /// `NAME=value` each.
    pub(crate) environment: Vec<CString>,
    /// Where it runs.
    pub(crate) directory: Directory,
    /// What it reads on standard input.
    pub(crate) stdin: Vec<u8>,
    /// What marks its processes.
    pub(crate) mark: Vec<Vec<u8>>,
    /// What its processes may use at most.
    pub(crate) limits: Option<Limits>,
    /// Name of its control group; absent where the shell on the way into one would lose something.
    pub(crate) group: Option<String>,
    /// The manifest's field that names the program, for messages.
    pub(crate) field: &'static str,
}

/// A target that is a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program<'a> {
    /// A program and its arguments.
    Exec(&'a ExecTarget),
    /// A script and its shell.
    Shell(&'a ShellTarget),
}

/// What one executor takes from its target.
struct Parts<'a> {
    field: &'static str,
    program_field: &'static str,
    command: Vec<OsString>,
    env: &'a BTreeMap<String, String>,
    working_dir: Option<&'a str>,
    stdin: &'a str,
    limits: Option<ProcessLimits>,
}

impl<'a> Parts<'a> {
    fn of(program: Program<'a>) -> Self {
        match program {
            Program::Exec(target) => Self::of_exec(target),
            Program::Shell(target) => Self::of_shell(target),
        }
    }

    fn of_exec(target: &'a ExecTarget) -> Self {
        Self {
            field: "spec.run.exec",
            program_field: "spec.run.exec.command[0]",
            command: target.command.iter().map(OsString::from).collect(),
            env: &target.env,
            working_dir: target.working_dir.as_deref(),
            stdin: &target.stdin,
            limits: target.limits,
        }
    }

    fn of_shell(target: &'a ShellTarget) -> Self {
        let shell = target.shell.as_deref().unwrap_or(DEFAULT_SHELL);
        Self {
            field: "spec.run.shell",
            program_field: "spec.run.shell.shell",
            command: [shell, "-c", &target.script].map(OsString::from).to_vec(),
            env: &target.env,
            working_dir: target.working_dir.as_deref(),
            stdin: &target.stdin,
            limits: target.limits,
        }
    }
}

/// Plans an attempt. `private_dir` is where its own directory would be.
///
/// # Errors
/// Why it can't be started, as a sentence that names field and fix.
pub(crate) fn plan(
    program: Program<'_>,
    facts: &AttemptFacts,
    inherited: &Environment,
    session: &str,
    private_dir: PathBuf,
) -> Result<Plan, String> {
    let parts = Parts::of(program);
    let field = parts.field;
    let variables = environment_of(inherited, parts.env, facts, session, &format!("{field}.env"))?;
    let stdin = fill(parts.stdin, facts).map_err(|problem| format!("{field}.stdin: {problem}"))?;
    let directory = directory_of(parts.working_dir, private_dir, field)?;
    let limits = parts.limits.map(|asked| Limits { path: format!("{field}.limits"), asked });
    let names = check_names(parts.env, field);
    let group = names.is_ok().then(|| format!("orloj-{}-{}-{}", facts.run_id, facts.attempt, facts.token));
    if limits.is_some() {
        names?;
    }
    let program = find_program(&parts.command, &variables, directory.path(), parts.program_field)?;
    Ok(Plan {
        program,
        arguments: c_strings(parts.command, field)?,
        environment: variables.into_iter().map(joined).collect::<Result<_, _>>().map_err(|_| has_nul(field))?,
        directory,
        stdin: stdin.into_bytes(),
        mark: mark_of(facts, session),
        limits,
        group,
        field: parts.program_field,
    })
}

/// Limits are set while a shell waits to become the program, and a shell drops variables that it could not name.
fn check_names(env: &BTreeMap<String, String>, field: &str) -> Result<(), String> {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let is_name = |name: &str| {
        name.bytes().next().is_some_and(is_letter) && name.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit())
    };
    match env.keys().find(|name| !is_name(name)) {
        None => Ok(()),
        Some(name) => Err(format!(
            "{field}.env.{name}: beside `limits`, a name is made of letters, digits and `_`; rename it, or remove `limits`"
        )),
    }
}

fn has_nul(field: &str) -> String {
    format!("{field}: a text holds a NUL character; remove it")
}

fn joined((name, value): (OsString, OsString)) -> Result<CString, std::ffi::NulError> {
    let mut entry = name.into_vec();
    entry.push(b'=');
    entry.extend(value.into_vec());
    CString::new(entry)
}

fn c_strings(texts: Vec<OsString>, field: &str) -> Result<Vec<CString>, String> {
    texts.into_iter().map(|text| CString::new(text.into_vec()).map_err(|_| has_nul(field))).collect()
}

fn directory_of(given: Option<&str>, private_dir: PathBuf, field: &str) -> Result<Directory, String> {
    let Some(given) = given else {
        return Ok(Directory::Private(private_dir));
    };
    let path = PathBuf::from(given);
    if !path.is_absolute() {
        return Err(format!("{field}.workingDir: `{given}` is no absolute path; start it with `/`"));
    }
    match std::fs::metadata(&path) {
        Err(error) => Err(format!(
            "{field}.workingDir: `{given}` can't be used on this runner ({}); create it or name another",
            plain(&error)
        )),
        Ok(found) if !found.is_dir() => {
            Err(format!("{field}.workingDir: `{given}` is no directory; name the directory to run in"))
        }
        Ok(_) if access(&path, AccessFlags::X_OK).is_err() => Err(format!(
            "{field}.workingDir: the runner may not enter `{given}`; give its user the right, or name another"
        )),
        Ok(_) => Ok(Directory::Given(path)),
    }
}

/// The words of an I/O error without its number.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Looks a program up as a shell would: by path if its name has a slash, else along the job's own `PATH`.
fn find_program(
    command: &[OsString],
    variables: &Environment,
    directory: &Path,
    field: &str,
) -> Result<PathBuf, String> {
    let name = command.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| format!("{field}: no program is named; give its path or name"))?;
    let shown = name.to_string_lossy();
    if name.as_bytes().contains(&b'/') {
        let path = directory.join(name);
        return match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(format!("{field}: there is no `{shown}` on this runner; install it or correct the path"))
            }
            Err(error) => Err(format!("{field}: `{shown}` can't be used ({})", plain(&error))),
            Ok(found) if found.is_dir() => Err(format!("{field}: `{shown}` is a directory; name a program")),
            Ok(found) if !found.is_file() => Err(format!("{field}: {}", no_file(&shown))),
            Ok(_) if access(&path, AccessFlags::X_OK).is_err() => Err(not_executable(field, &shown)),
            Ok(_) => Ok(path),
        };
    }
    let path_variable = variables.get(OsStr::new("PATH")).cloned().unwrap_or_default();
    let mut found_without_right = None;
    for folder in std::env::split_paths(&path_variable) {
        let candidate = directory.join(folder).join(name);
        if candidate.is_file() {
            if access(&candidate, AccessFlags::X_OK).is_ok() {
                return Ok(candidate);
            }
            found_without_right.get_or_insert(candidate);
        }
    }
    Err(match found_without_right {
        Some(candidate) => not_executable(field, &candidate.to_string_lossy()),
        None => format!(
            "{field}: no program `{shown}` along PATH ({}); install it on the runner, or give its full path",
            path_variable.to_string_lossy()
        ),
    })
}

/// What is said of pipes, devices and sockets.
pub(super) fn no_file(shown: &dyn std::fmt::Display) -> String {
    format!("`{shown}` is no regular file; name a program or a script")
}

fn not_executable(field: &str, shown: &str) -> String {
    format!("{field}: the runner may not execute `{shown}`; run `chmod +x` on it, or call it through its interpreter")
}
