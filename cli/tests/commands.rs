//! The binary as a person or a script meets it, for all that needs no server: what it prints, where, and how it
//! ends. Not here: commands against a running installation (`tests/`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Nothing listens here.
const NO_SERVER: &str = "http://127.0.0.1:9";

struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn orloj(arguments: &[&str]) -> Ended {
    orloj_with(arguments, "")
}

fn orloj_with(arguments: &[&str], input: &str) -> Ended {
    let mut child = Command::new(env!("CARGO_BIN_EXE_orloj"))
        .args(arguments)
        .env("ORLOJ_SERVER", NO_SERVER)
        .env_remove("ORLOJ_NAMESPACE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("input is taken");
    let Output { status, stdout, stderr } = child.wait_with_output().expect("the binary ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { code: status.code().expect("an exit code"), out: text(stdout), err: text(stderr) }
}

fn table(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crontabs").join(name).display().to_string()
}

/// A folder that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("orloj-commands-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed is in the machine's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn next_previews_an_expression() {
    let from = "2026-11-20T00:00:00Z";
    let ended =
        orloj(&["next", "30 2 * * MON-FRI", "--zone", "Europe/Berlin", "-n", "2", "--from", from, "-o", "json"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let preview: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(preview["zone"], "Europe/Berlin");
    let at: Vec<&str> =
        preview["items"].as_array().expect("items").iter().filter_map(|item| item["at"].as_str()).collect();
    assert_eq!(at, ["2026-11-20T01:30:00Z", "2026-11-23T01:30:00Z"]);

    let ended = orloj(&["next", "@daily", "-n", "3", "--from", from]);
    assert_eq!(ended.out.lines().count(), 4, "{}", ended.out);
    assert!(ended.out.starts_with("AT"), "{}", ended.out);
    assert!(ended.err.contains("@daily (UTC): at 00:00 every day, UTC"), "{}", ended.err);
    assert!(ended.err.contains("hint: starts at midnight"), "{}", ended.err);
    assert_eq!(orloj(&["next", "61 * * * *"]).code, 2);
    assert_eq!(orloj(&["next", "* * * * *", "--zone", "Mars/Olympus"]).code, 2);
}

#[test]
fn malformed_manifests_end_with_2_and_nothing_is_sent() {
    let bad = "apiVersion: orloj/v1\nkind: Job\nmetadata: {name: a}\nspec:\n  shedule: {every: 5m}\n  run: {exec: {command: [\"true\"]}}\n";
    let ended = orloj_with(&["apply", "-f", "-"], bad);
    assert_eq!(ended.code, 2);
    assert!(
        ended.err.contains("<stdin>:5:3: spec.shedule: unknown field `shedule`, expected one of schedule"),
        "{}",
        ended.err
    );
    // A good one gets as far as the server, which is not there.
    let ended = orloj_with(&["apply", "-f", "-"], &bad.replace("shedule", "schedule"));
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains("orloj dev") && ended.err.contains(NO_SERVER), "{}", ended.err);
    assert_eq!(orloj(&["apply", "-f", "/nowhere.yaml"]).code, 2);
    assert_eq!(orloj(&["apply"]).code, 2);
    // Without a selector it would remove every job that this one file does not name.
    let ended = orloj(&["apply", "-f", "/nowhere.yaml", "--prune"]);
    assert!(ended.code == 2 && ended.err.contains("--selector"), "{}", ended.err);
}

#[test]
fn a_folder_is_checked_as_a_whole() {
    let folder = Folder::new("apply");
    let manifest = |name: &str| {
        format!(
            "apiVersion: orloj/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec: {{run: {{shell: {{script: date}}}}}}\n"
        )
    };
    folder.write("jobs/b.yaml", &manifest("b"));
    folder.write("jobs/a.yml", &format!("{}---\n{}", manifest("a1"), manifest("a2")));
    folder.write("jobs/notes.txt", "not a manifest");
    let path = folder.0.join("jobs").display().to_string();
    let ended = orloj(&["apply", "-f", &path, "--dry-run", "-n", "team"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let jobs: Vec<&str> = ended.out.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(jobs, ["team/a1", "team/a2", "team/b"]);
    folder.write("jobs/c.yaml", &manifest("Bad_Name"));
    assert_eq!(orloj(&["apply", "-f", &path, "--dry-run"]).code, 2);
}

#[test]
fn limits_and_queues_are_checked_before_anything_is_sent() {
    let good = "apiVersion: orloj/v1\nkind: Limit\nmetadata: {name: database}\nspec: {maxConcurrent: 2}\n---\n\
                apiVersion: orloj/v1\nkind: Queue\nmetadata: {name: default}\nspec: {paused: true}\n";
    let check = ["apply", "-f", "-", "--dry-run"];
    let ended = orloj_with(&check, good);
    assert_eq!(ended.out, "limit database is good (<stdin>:1)\nqueue default is good (<stdin>:6)\n", "{}", ended.err);
    let ended = orloj_with(&[&check[..], &["-o", "json"]].concat(), good);
    let items: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((&items["items"][0]["limit"], &items["items"][1]["queue"]), (&"database".into(), &"default".into()));
    let ended = orloj_with(&["apply", "-f", "-"], &good.replace("maxConcurrent: 2", "maxConcurrent: 0"));
    assert_eq!((ended.code, ended.out.as_str()), (2, ""));
    assert!(ended.err.contains("<stdin>:4:23: spec.maxConcurrent: must be 1 to 1000000"), "{}", ended.err);
    assert!(orloj(&["apply", "--help"]).out.contains("kind: Limit"));
}

#[test]
fn crontabs_become_manifests_that_apply_takes() {
    let ended =
        orloj(&["import", "crontab", &table("user-with-mail.crontab"), "--zone", "Europe/Berlin", "-o", "yaml"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let again = orloj_with(&["apply", "-f", "-", "--dry-run"], &ended.out);
    assert_eq!(again.code, 0, "{}\n{}", again.err, ended.out);
    assert_eq!(again.out.lines().count(), 4);
    assert!(ended.err.contains("MAILTO"), "{}", ended.err);
}

#[test]
fn files_of_holidays_become_calendars_that_apply_takes() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ics/public-holidays.ics").display().to_string();
    let ended = orloj(&["import", "ics", &file, "--until", "2028", "-o", "yaml"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("name: public-holidays") && ended.out.contains("2027-11-25"), "{}", ended.out);
    assert!(ended.err.contains("taken up to 2028-12-31"), "{}", ended.err);
    let again = orloj_with(&["apply", "-f", "-", "--dry-run"], &ended.out);
    assert_eq!(
        (again.code, again.out.as_str()),
        (0, "calendar public-holidays is good (<stdin>:1)\n"),
        "{}",
        again.err
    );
    let text = std::fs::read_to_string(&file).expect("a file").replace("BYDAY=4TH", "BYSETPOS=4");
    let ended = orloj_with(&["import", "ics", "-", "--name", "x"], &text);
    assert_eq!((ended.code, ended.out.as_str()), (2, ""), "{}", ended.err);
    assert!(ended.err.contains("-:25: RRULE part `BYSETPOS=4` can't be taken"), "{}", ended.err);
    assert_eq!(orloj_with(&["import", "ics", "-"], &text.replace(";BYSETPOS=4", "")).code, 2, "it needs a name");
}

#[test]
fn lines_that_cannot_be_taken_are_listed_and_the_rest_is_made() {
    let file = table("nicknames.crontab");
    let ended = orloj(&["import", "crontab", &file, "-o", "yaml"]);
    assert_eq!(ended.code, 1);
    assert!(ended.err.contains(&format!("{file}:8: @reboot means the start of one machine")), "{}", ended.err);
    assert_eq!(ended.out.matches("kind: Job").count(), 7);
}

#[test]
fn system_tables_are_read_with_their_user_column() {
    let folder = Folder::new("cron");
    let table = std::fs::read_to_string(table("debian-system.crontab")).expect("a table");
    for (file, arguments) in [("etc/crontab", &[][..]), ("etc/cron.d/host", &[]), ("copy", &["--user-column"])] {
        let path = folder.write(file, &table);
        let ended = orloj(&[&["import", "crontab", path.as_str(), "-o", "yaml"], arguments].concat());
        assert_eq!(ended.code, 0, "{file}: {}", ended.err);
        assert_eq!(ended.out.matches("orloj/cron-user: root").count(), 4, "{file}: {}", ended.out);
        assert!(ended.err.contains("runner's own user"), "{}", ended.err);
    }
}

#[test]
fn version_schemas_and_completion_ask_nobody() {
    let ended = orloj(&["version", "-o", "json"]);
    let version: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
    assert!(version["schemas"].as_u64().is_some_and(|count| count > 10), "{version}");
    let ended = orloj(&["schemas", "check"]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    for shell in ["bash", "zsh", "fish"] {
        assert!(orloj(&["completion", shell]).out.contains("orloj"), "{shell}");
    }
}

#[test]
fn configurations_are_shown_with_their_origins_and_without_their_secrets() {
    let folder = Folder::new("config");
    let file = folder
        .write("orloj.toml", "shards = 4\n[kafka]\n\"bootstrap.servers\" = \"k:9092\"\nsasl.password = \"hush\"\n");
    let ended = orloj(&["serve", "trigger", "--config", &file, "--set", "runner.slots=3", "--print-config"]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains(&format!("shards = 4    # {file}:1")), "{}", ended.out);
    assert!(ended.out.contains("runner.slots = 3    # --set runner.slots"), "{}", ended.out);
    assert!(!ended.out.contains("hush"), "{}", ended.out);
    let file = folder.write("bad.toml", "\nshard = 4\n");
    let ended = orloj(&["serve", "all", "--config", &file]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains(&format!("{file}:2: `shard` is no key; did you mean `shards`?")), "{}", ended.err);
}

#[test]
fn commands_without_a_server_say_how_to_start_one() {
    for arguments in [
        &["get", "jobs"][..],
        &["runs"],
        &["trigger", "a/b"],
        &["pause", "a/b", "--reason", "x"],
        &["dlq", "ls"],
        &["logs", "ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09"],
        &["delete", "job", "a/b"],
        &["describe", "job", "a/b"],
        &["get", "calendars"],
        &["describe", "calendar", "a"],
        &["delete", "calendar", "a"],
        &["get", "limits"],
        &["get", "queues", "default"],
        &["describe", "limit", "a"],
        &["describe", "queue", "a"],
        &["delete", "limit", "a"],
        &["delete", "queue", "a"],
        &["next", "a/b"],
    ] {
        let ended = orloj(arguments);
        assert_eq!(ended.code, 1, "{arguments:?}: {}", ended.err);
        assert!(ended.out.is_empty() && ended.err.contains("orloj dev"), "{arguments:?}: {}{}", ended.out, ended.err);
    }
    for arguments in [&["get", "limits", "A"][..], &["get", "queues", "a/b"], &["get", "runners", "a"]] {
        assert_eq!(orloj(arguments).code, 2, "{arguments:?}");
    }
    for arguments in [&["get", "jobs", "A/b"][..], &["trigger", "a/b/c"], &["frobnicate"], &["pause", "a/b"]] {
        assert_eq!(orloj(arguments).code, 2, "{arguments:?}");
    }
}
