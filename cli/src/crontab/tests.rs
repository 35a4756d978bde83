//! Every table of `tests/crontabs` beside what became of it. A failure prints the whole outcome; it replaces the
//! `.expected` file once a person has read it. Not here: the command (`tests/import.rs`).

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use orloj_domain::manifest::{Rule, Schedule, ShellRun};

use super::{Import, Made, Options, read};

fn options(name: &str) -> Options {
    Options {
        namespace: "cron".to_owned(),
        has_user_column: matches!(name, "debian-system" | "debian-cron-d" | "freebsd-system"),
        time_zone: "Europe/Berlin".to_owned(),
    }
}

fn tables() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crontabs");
    let entries = std::fs::read_dir(folder).expect("the folder of tables");
    let mut tables: Vec<PathBuf> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "crontab"))
        .collect();
    tables.sort();
    tables
}

fn rule_and_shell(made: &Made) -> (&Rule, &ShellRun) {
    let spec = &made.manifest.spec;
    match (&spec.schedule, &spec.run.shell) {
        (Some(Schedule::One(rule)), Some(shell)) => (rule, shell),
        other => panic!("an import has one rule and a script: {other:?}"),
    }
}

fn shown(import: &Import) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, what: &str, value: &str| {
        writeln!(
            text,
            "{indent}{what}: {}",
            value.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'")
        )
        .expect("a string");
    };
    for made in &import.made {
        let (rule, shell) = rule_and_shell(made);
        line("", &format!("line {}", made.line), &made.manifest.metadata.name);
        line(
            "  ",
            "cron",
            &format!("{} ({})", rule.cron.as_deref().unwrap_or(""), rule.time_zone.as_deref().unwrap_or("")),
        );
        line("  ", "script", &shell.script);
        for (what, value) in
            [("shell", &shell.shell), ("in", &shell.working_dir), ("jitter", &made.manifest.spec.jitter)]
        {
            if let Some(value) = value {
                line("  ", what, value);
            }
        }
        if !shell.stdin.is_empty() {
            line("  ", "stdin", &shell.stdin);
        }
        for (name, value) in shell.env.iter().chain(&made.manifest.metadata.annotations) {
            line("  ", name, value);
        }
    }
    for refused in &import.refused {
        line("", &format!("refused {}", refused.line), &refused.reason);
    }
    for note in &import.notes {
        line("", "note", note);
    }
    text
}

#[test]
fn tables_become_what_stands_beside_them() {
    let tables = tables();
    assert!(tables.len() >= 10, "{} tables", tables.len());
    let mut differing = String::new();
    for path in tables {
        let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
        let text = std::fs::read_to_string(&path).expect("a table");
        let found = shown(&read(&text, &options(name)));
        let expected = std::fs::read_to_string(path.with_extension("expected")).unwrap_or_default();
        if found != expected {
            writeln!(differing, "==> {name}.expected <==\n{found}").expect("a string");
        }
    }
    assert!(differing.is_empty(), "{differing}");
}

#[test]
fn names_do_not_change_when_other_lines_do() {
    let before = read("0 1 * * * a\n0 2 * * * b\n", &options("x"));
    let after = read("# new\nPATH=/bin\n0 2 * * * b\n0 3 * * * c\n0 1 * * * a\n", &options("x"));
    let mut kept: Vec<String> = after.made.iter().map(|made| made.manifest.metadata.name.clone()).collect();
    kept.retain(|name| before.made.iter().any(|made| made.manifest.metadata.name == *name));
    assert_eq!(kept.len(), before.made.len());
}

#[test]
fn what_is_made_says_what_cron_does() {
    let import = read("0 1 * * * a\n", &options("x"));
    let definition = orloj_domain::manifest::to_definition(import.made[0].manifest.clone()).expect("admissible");
    assert_eq!(definition.job.namespace(), "cron");
    assert_eq!(definition.missed.policy.as_str(), "skip");
    assert_eq!(definition.spec.overlap.policy.as_str(), "allow");
    assert_eq!(definition.spec.retry.max_attempts, 1);
    assert_eq!(definition.spec.timeout_ms, 86_400_000);
}

#[test]
fn a_line_that_is_not_utf_8_is_listed_and_the_others_are_made() {
    let table = String::from_utf8_lossy(b"# caf\xe9\n0 8 * * * true\n0 9 * * * echo caf\xe9\n").into_owned();
    let import = read(&table, &options("latin"));
    assert_eq!(import.made.len(), 1);
    let [refused] = import.refused.as_slice() else { panic!("{:?}", shown(&import)) };
    assert_eq!(refused.line, 3);
    assert!(refused.reason.contains("iconv"), "{}", refused.reason);
}
