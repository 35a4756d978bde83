//! House rules that a machine can check on the source itself: dependency direction, length, headers, unfinished
//! marks, topics that code names. Not here: what the compiler and clippy check. Invariant: each rule names the
//! file and the line that breaks it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 500;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Every Rust file of the workspace, as path relative to its root and text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for top in ["crates", "services", "cli", "tests", "bench", "examples"] {
        collect(&root().join(top), &mut found);
    }
    assert!(found.len() > 50, "found only {} files: is this the workspace?", found.len());
    found
}

fn collect(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a readable folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.push((name, fs::read_to_string(&path).expect("readable text")));
        }
    }
}

fn check(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Lines of files chosen by `is_concerned` that `is_broken`, comments left out.
fn lines_that(is_concerned: impl Fn(&str) -> bool, is_broken: impl Fn(&str) -> bool) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| is_concerned(name)) {
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if is_broken(code) {
                findings.push(format!("{name}:{}: {}", index + 1, line.trim()));
            }
        }
    }
    findings
}

#[test]
fn files_stay_short() {
    let long: Vec<_> = sources()
        .iter()
        .map(|(name, text)| (name.clone(), text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(name, lines)| format!("{name}: {lines} lines, at most {LINES_MAX}"))
        .collect();
    check("a file has a second owner of state or a second decision in it", &long);
}

#[test]
fn files_say_what_lives_in_them() {
    let mut findings = Vec::new();
    for (name, text) in sources() {
        let header = text.lines().take_while(|line| line.starts_with("//!")).count();
        if header == 0 || header > 8 {
            findings.push(format!("{name}: {header} lines of //!, wanted 1 to 8"));
        }
    }
    check("each file opens with at most 8 lines of //!", &findings);
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["todo!(", "unimplemented!(", "#[ignore", "dbg!("];
    let is_elsewhere = |name: &str| !name.starts_with("tests/tidy/");
    check("unfinished", &lines_that(is_elsewhere, |code| marks.iter().any(|mark| code.contains(mark))));
}

#[test]
fn the_domain_is_pure() {
    let is_domain = |name: &str| name.starts_with("crates/domain/src/");
    let banned = [
        "tokio",
        "rdkafka",
        "rusqlite",
        "tracing",
        "std::fs",
        "std::net",
        "Instant::now",
        "SystemTime",
        "Timestamp::now",
        "Zoned::now",
        "rand::",
    ];
    let findings = lines_that(is_domain, |code| banned.iter().any(|word| code.contains(word)));
    check("the domain reads no clock and does no I/O", &findings);
    let chrono = lines_that(
        |name| is_domain(name) && !name.starts_with("crates/domain/src/schedule/"),
        |code| code.contains("chrono") || code.contains("cron::"),
    );
    check("chrono and cron only where schedules are matched", &chrono);
    let manifest = fs::read_to_string(root().join("crates/domain/Cargo.toml")).expect("a manifest");
    for banned in ["tokio", "rdkafka", "rusqlite", "tracing", "orloj-runtime"] {
        assert!(!manifest.contains(banned), "crates/domain depends on {banned}");
    }
}

#[test]
fn only_the_runtime_knows_kafka() {
    let findings = lines_that(
        |name| {
            !name.starts_with("crates/runtime/src/kafka/") && !name.starts_with("tests/") && !name.starts_with("bench/")
        },
        |code| code.contains("rdkafka::") || code.contains("use rdkafka"),
    );
    check("only crates/runtime/src/kafka imports rdkafka", &findings);
}

#[test]
fn dependencies_point_one_way() {
    let crates = [
        ("crates/domain", vec![]),
        ("crates/runtime", vec!["orloj-domain"]),
        ("services/trigger", vec!["orloj-domain", "orloj-runtime"]),
        ("services/dispatcher", vec!["orloj-domain", "orloj-runtime"]),
        ("services/runner", vec!["orloj-domain", "orloj-runtime"]),
        ("services/query", vec!["orloj-domain", "orloj-runtime"]),
        ("crates/client", vec!["orloj-domain", "orloj-runtime", "orloj-runner"]),
    ];
    for (folder, allowed) in crates {
        let text = fs::read_to_string(root().join(folder).join("Cargo.toml")).expect("a manifest");
        // Tests may bring the services that they need on the other side.
        let text = text.split("[dev-dependencies]").next().unwrap_or_default();
        let used = text.lines().filter(|line| line.starts_with("orloj-"));
        for line in used {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(allowed.contains(&name), "{folder} depends on {name}");
        }
    }
}

#[test]
fn topics_named_in_code_are_declared() {
    let declared = fs::read_to_string(root().join("topics.yaml")).expect("topics.yaml");
    let declared: BTreeSet<String> = declared
        .lines()
        .filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("name:"))
        .map(|name| name.split(" #").next().unwrap_or_default().trim().trim_matches('"').to_owned())
        .collect();
    let code = fs::read_to_string(root().join("crates/domain/src/topic.rs")).expect("topic.rs");
    let mut named = 0;
    for line in code.lines().filter(|line| line.starts_with("pub const")) {
        let name = line.split('"').nth(1).expect("a literal");
        let name = if name.ends_with('.') { format!("{name}<queue>") } else { name.to_owned() };
        assert!(declared.contains(&name), "topics.yaml does not declare `{name}`; it has {declared:?}");
        named += 1;
    }
    assert_eq!(named, declared.len(), "topics.yaml declares topics that topic.rs does not name");
    let stray = lines_that(
        |name| name.starts_with("services/") || name.starts_with("crates/runtime/src/driver"),
        |code| code.contains("\"run.state\"") || code.contains("\"fires\"") || code.contains("\"jobs\""),
    );
    check(
        "topics are named through domain::topic",
        &stray.into_iter().filter(|line| !line.contains("query")).collect::<Vec<_>>(),
    );
}

#[test]
fn the_project_speaks_of_itself_alone() {
    let paths = ["/work/", "/root/"];
    let is_elsewhere = |name: &str| !name.starts_with("tests/tidy/") && !name.contains("crontab");
    check("paths of a machine", &lines_that(is_elsewhere, |code| paths.iter().any(|path| code.contains(path))));
}
