//! `orloj dev` and the commands beside it, as on a laptop: apply, trigger, look, fail, drain, go on. Not here:
//! crashes and Kafka (`tests/`). Invariant: every process is waited for, and every wait is for a condition.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

/// Longest wait for one line of the process.
const LINE: Duration = Duration::from_secs(60);

const JOBS: &str = r#"
apiVersion: orloj/v1
kind: Job
metadata: {namespace: demo, name: greet}
spec:
  overlap: {policy: allow}
  run: {shell: {script: 'echo "hello $ORLOJ_PARAM_NAME"'}}
---
apiVersion: orloj/v1
kind: Job
metadata: {namespace: demo, name: fail}
spec:
  retry: {maxAttempts: 2, backoff: {initial: 1ms, jitter: 0}}
  run: {exec: {command: [sh, -c, "exit 7"]}}
"#;

/// A process of its own directory; killed and removed at the end.
struct Dev {
    child: Child,
    lines: Receiver<String>,
    server: String,
}

impl Dev {
    fn start(folder: &Folder) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_orloj"))
            .args(["dev", "--listen", "127.0.0.1:0", "--quiet", "--data"])
            .arg(folder.0.join("data"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let lines = read_lines(child.stderr.take().expect("a pipe"));
        let mut dev = Self { child, lines, server: String::new() };
        dev.server = loop {
            let line = dev.lines.recv_timeout(LINE).expect("the welcome names the address");
            if let Some(rest) = line.trim_start().strip_prefix("API") {
                break rest.trim().split("/api").next().unwrap_or_default().to_owned();
            }
        };
        dev
    }

    fn orloj(&self, arguments: &[&str]) -> (i32, String, String) {
        let command =
            Command::new(env!("CARGO_BIN_EXE_orloj")).args(arguments).env("ORLOJ_SERVER", &self.server).output();
        let Output { status, stdout, stderr } = command.expect("the binary ends");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        (status.code().expect("an exit code"), text(stdout), text(stderr))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (code, out, err) = self.orloj(&[arguments, &["-o", "json"]].concat());
        assert_eq!(code, 0, "{arguments:?}: {err}");
        serde_json::from_str(&out).expect("JSON")
    }

    /// Asks it to drain, and says how it ended.
    fn drain(mut self) -> Option<i32> {
        // The shell's own `kill`: a small machine has no other.
        let told = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(told.expect("a shell runs").success());
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        // Gone already if it was drained.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_lines(stderr: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("orloj-dev-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a folder");
        std::fs::write(path.join("jobs.yaml"), JOBS).expect("a file");
        Self(path)
    }

    fn jobs(&self) -> String {
        self.0.join("jobs.yaml").display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What can't be removed is in the machine's temporary folder.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_day_at_the_desk() {
    let folder = Folder::new("desk");
    let dev = Dev::start(&folder);
    let (code, out, err) = dev.orloj(&["apply", "-f", &folder.jobs()]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("job demo/greet accepted (version 1) at job.events/"), "{out}");
    let (_, out, _) = dev.orloj(&["apply", "-f", &folder.jobs()]);
    assert!(out.contains("job demo/greet unchanged (version 1) at job.events/"), "{out}");

    let (code, out, err) = dev.orloj(&["trigger", "demo/greet", "--param", "NAME=Ada", "--wait"]);
    assert!(code == 0 && out.contains("of demo/greet succeeded"), "{out}{err}");
    let runs = dev.json(&["runs", "demo/greet"]);
    let run = runs["items"][0]["id"].as_str().expect("an id");
    let (_, out, err) = dev.orloj(&["logs", run, "-f"]);
    assert_eq!(out, "hello Ada\n", "{err}");

    let (code, out, _) = dev.orloj(&["trigger", "demo/fail", "--wait"]);
    assert!(code == 1 && out.contains("of demo/fail dead (attempt 2, exit code 7)"), "{out}");
    let letters = dev.json(&["dlq", "ls"]);
    assert_eq!(letters["items"][0]["job"], "demo/fail");
    let letter = letters["items"][0]["runId"].as_str().expect("an id");
    assert_eq!(dev.json(&["dlq", "show", letter])["attempt"], 2);

    let (code, out, err) = dev.orloj(&["pause", "demo/greet", "--reason", "lunch"]);
    assert!(code == 0 && out.contains("job demo/greet paused at job.events/"), "{out}{err}");
    let paused = dev.json(&["get", "jobs", "demo/greet"]);
    assert_eq!((&paused["state"], &paused["pause"]["reason"]), (&"paused".into(), &"lunch".into()), "{paused}");
    assert!(paused["pause"]["actor"].as_str().is_some_and(|actor| !actor.is_empty()), "{paused}");
    let (_, out, _) = dev.orloj(&["describe", "job", "demo/greet"]);
    assert!(out.contains("Paused because: lunch"), "{out}");
    assert_eq!(dev.orloj(&["resume", "demo/greet"]).0, 0);

    // Of the jobs with a label, those stay that a file names.
    let labelled = |name: &str| {
        format!(
            "---\napiVersion: orloj/v1\nkind: Job\nmetadata: {{namespace: demo, name: {name}, labels: {{team: x}}}}\n\
             spec: {{run: {{exec: {{command: [/bin/true]}}}}}}\n"
        )
    };
    let file = folder.0.join("team.yaml");
    let path = file.display().to_string();
    std::fs::write(&file, labelled("one") + &labelled("two")).expect("a file");
    assert_eq!(dev.orloj(&["apply", "-f", &path]).0, 0);
    std::fs::write(&file, labelled("two")).expect("a file");
    let pruned = ["apply", "-f", &path, "--prune", "-l", "team=x"];
    let (_, out, err) = dev.orloj(&[&pruned[..], &["--dry-run"]].concat());
    assert!(out.contains("job demo/one would be deleted") && !out.contains("greet"), "{out}{err}");
    assert_eq!(dev.json(&[&pruned[..], &["--dry-run"]].concat())["items"][1]["job"], "demo/one");
    let (code, out, err) = dev.orloj(&pruned);
    assert!(code == 0 && out.contains("job demo/one deleted at job.events/"), "{out}{err}");
    assert_eq!(dev.orloj(&["get", "jobs", "demo/one"]).0, 3);
    assert_eq!(dev.orloj(&["get", "jobs", "demo/two"]).0, 0);

    for (arguments, code) in [
        (&["delete", "job", "demo/fail"][..], 0),
        (&["get", "jobs", "demo/never"], 3),
        (&["trigger", "demo/never"], 3),
        (&["delete", "job", "demo/never"], 3),
        (&["runs", "--state", "asleep"], 2),
    ] {
        let (found, out, err) = dev.orloj(arguments);
        assert_eq!(found, code, "{arguments:?}: {out}{err}");
    }
    assert_eq!(dev.drain(), Some(0));
}

#[test]
fn one_process_per_directory_and_what_was_said_stays() {
    let folder = Folder::new("twice");
    let dev = Dev::start(&folder);
    assert_eq!(dev.orloj(&["apply", "-f", &folder.jobs()]).0, 0);
    let data = folder.0.join("data").display().to_string();
    let (code, _, err) = dev.orloj(&["dev", "--listen", "127.0.0.1:0", "--data", &data]);
    assert!(code == 4 && err.contains(&data) && err.contains("in use"), "{code}: {err}");
    let port = dev.server.rsplit(':').next().expect("a port").to_owned();
    let other = folder.0.join("other").display().to_string();
    let (code, _, err) = dev.orloj(&["dev", "--listen", &format!("127.0.0.1:{port}"), "--data", &other]);
    assert!(code == 4 && err.contains("--listen"), "{code}: {err}");
    assert_eq!(dev.drain(), Some(0));

    let dev = Dev::start(&folder);
    let (code, out, err) = dev.orloj(&["apply", "-f", &folder.jobs()]);
    assert!(code == 0 && out.matches(" unchanged (version 1) ").count() == 2, "{out}{err}");
    let (_, yaml, _) = dev.orloj(&["get", "jobs", "-o", "yaml"]);
    std::fs::write(folder.0.join("jobs.yaml"), yaml).expect("a file");
    let (_, out, err) = dev.orloj(&["apply", "-f", &folder.jobs()]);
    assert_eq!(out.matches(" unchanged ").count(), 2, "{out}{err}");
    assert_eq!(dev.drain(), Some(0));
}
