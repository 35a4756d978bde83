//! Executions of real processes. Not here: claims and the log (`tests/`). Every wait is for a condition, with
//! a deadline.

mod cgroup;
mod limits;
mod progress;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;
use orloj_domain::attempt::{Outcome, OutcomeKind};
use orloj_domain::job::{ExecTarget, ShellTarget, Target};
use orloj_domain::runner::OutputStream;
use tokio::time::Instant;

use super::environment::inherited;
use super::plan::{Directory, Plan, Program, plan};
use super::process::{Abort, Host, Sink, execute};
use super::template::{AttemptFacts, example};

const LONG: Duration = Duration::from_secs(60);

#[derive(Default)]
struct Kept {
    chunks: Vec<(OutputStream, Vec<u8>)>,
    percents: Vec<i32>,
}

impl Kept {
    fn text(&self, stream: OutputStream) -> String {
        let chunks = self.chunks.iter().filter(|(found, _)| *found == stream);
        String::from_utf8_lossy(&chunks.flat_map(|(_, bytes)| bytes.clone()).collect::<Vec<_>>()).into_owned()
    }
}

impl Sink for Kept {
    fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
        self.chunks.push((stream, bytes.to_vec()));
    }
    fn note(&mut self, text: &str) {
        self.chunks.push((OutputStream::Runner, text.as_bytes().to_vec()));
    }
    fn flush_at(&self) -> Option<Instant> {
        None
    }
    fn flush(&mut self) {}
    fn progress(&mut self, percent: i32) {
        self.percents.push(percent);
    }
}

struct Bed {
    host: Host,
    folder: tempfile::TempDir,
    facts: AttemptFacts,
}

impl Bed {
    /// Each test has an attempt number of its own, so that marks do not meet.
    fn new(attempt: i32) -> Self {
        let facts = AttemptFacts { attempt, ..example() };
        Self { host: Host::start(true, None, None).expect("host"), folder: tempfile::tempdir().expect("folder"), facts }
    }

    fn plan(&self, target: &Target) -> Result<Plan, String> {
        let environment = inherited(std::iter::empty());
        let session = format!("session-{}", std::process::id());
        let program = match target {
            Target::ExecTarget(target) => Program::Exec(target),
            Target::ShellTarget(target) => Program::Shell(target),
            Target::HttpTarget(_) | Target::KafkaTarget(_) | Target::HandlerTarget(_) => panic!("{target:?}"),
        };
        plan(program, &self.facts, &environment, &session, self.folder.path().join("own"))
    }

    async fn run(&self, target: &Target, timeout: Duration) -> (Outcome, Kept) {
        self.run_until(target, timeout, std::future::pending()).await
    }

    async fn run_until(
        &self,
        target: &Target,
        timeout: Duration,
        abort: impl Future<Output = Abort>,
    ) -> (Outcome, Kept) {
        let mut kept = Kept::default();
        let outcome = match self.plan(target) {
            Ok(plan) => {
                let run = execute(&self.host, plan, timeout, abort, |_| {}, &mut kept);
                tokio::time::timeout(LONG, run).await.expect("ends in time")
            }
            Err(problem) => Outcome::new(OutcomeKind::NotStarted, problem),
        };
        (outcome, kept)
    }
}

fn exec(command: &[&str]) -> Target {
    Target::ExecTarget(ExecTarget {
        command: command.iter().map(|&word| word.to_owned()).collect(),
        env: BTreeMap::new(),
        working_dir: None,
        stdin: String::new(),
        limits: None,
    })
}

fn shell_with(script: &str, stdin: &str, working_dir: Option<&Path>) -> Target {
    Target::ShellTarget(ShellTarget {
        script: script.to_owned(),
        env: BTreeMap::new(),
        working_dir: working_dir.map(|path| path.display().to_string()),
        stdin: stdin.to_owned(),
        shell: None,
        limits: None,
    })
}

fn shell(script: &str) -> Target {
    shell_with(script, "", None)
}

fn message(outcome: &Outcome) -> &str {
    outcome.message.as_deref().unwrap_or_default()
}

async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "timed out: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The numbers that a script wrote to a file, one in each line, once there are `count`.
async fn numbers(path: PathBuf, count: usize) -> Vec<Pid> {
    wait_for("process numbers", || {
        let text = std::fs::read_to_string(&path).ok()?;
        let found: Vec<_> = text.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect();
        (text.ends_with('\n') && found.len() == count).then_some(found)
    })
    .await
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    kill(pid, None).is_ok() && !stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" Z"))
}

#[tokio::test]
async fn outcomes_say_how_a_process_ended() {
    let bed = Bed::new(100);
    for (target, kind, exit_code, signal) in [
        (exec(&["true"]), OutcomeKind::Succeeded, Some(0), None),
        (exec(&["/bin/sh", "-c", "exit 3"]), OutcomeKind::Failed, Some(3), None),
        (shell("exit 255"), OutcomeKind::Failed, Some(255), None),
        (shell("kill -9 $$"), OutcomeKind::Failed, None, Some(9)),
    ] {
        let (outcome, _) = bed.run(&target, LONG).await;
        assert_eq!((outcome.kind, outcome.exit_code, outcome.signal), (kind, exit_code, signal), "{target:?}");
    }
}

#[tokio::test]
async fn a_target_that_cannot_start_names_field_and_fix() {
    let bed = Bed::new(101);
    let file = bed.folder.path().join("plain");
    std::fs::write(&file, "echo hello\n").expect("file");
    let script = bed.folder.path().join("script");
    std::fs::write(&script, "#!/no/such/interpreter\n").expect("file");
    let noise = bed.folder.path().join("noise");
    std::fs::write(&noise, "no program\n").expect("file");
    for path in [&script, &noise] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    }
    let pipe = bed.folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).expect("pipe");
    let text = |path: &Path| path.display().to_string();
    for (target, words) in [
        (exec(&[&text(&pipe)]), ["spec.run.exec.command[0]", "is no regular file; name a program"]),
        (exec(&["no-such-program"]), ["spec.run.exec.command[0]", "install it"]),
        (exec(&["/no/such/program"]), ["spec.run.exec.command[0]", "no `/no/such/program`"]),
        (exec(&[&text(&file)]), ["spec.run.exec.command[0]", "chmod +x"]),
        (exec(&[&text(&script)]), ["spec.run.exec.command[0]", "interpreter"]),
        (exec(&[&text(&noise)]), ["spec.run.exec.command[0]", "#!"]),
        (exec(&["/usr"]), ["spec.run.exec.command[0]", "is a directory"]),
        (exec(&["echo", "a\0b"]), ["spec.run.exec", "NUL"]),
        (exec(&[]), ["spec.run.exec.command[0]", "no program is named"]),
        (shell_with("true", "", Some(Path::new("/no/such"))), ["spec.run.shell.workingDir", "create it"]),
        (shell_with("true", "", Some(&file)), ["spec.run.shell.workingDir", "no directory"]),
        (shell_with("true", "", Some(Path::new("srv"))), ["spec.run.shell.workingDir", "absolute"]),
        (shell_with("true", "{{nope}}", None), ["spec.run.shell.stdin", "`{{nope}}`"]),
    ] {
        let (outcome, _) = bed.run(&target, LONG).await;
        assert_eq!(outcome.kind, OutcomeKind::NotStarted, "{target:?}");
        for word in words {
            assert!(message(&outcome).contains(word), "{word} in {outcome:?}");
        }
    }
}

#[tokio::test]
async fn it_runs_in_its_own_session_and_directory_with_only_its_environment() {
    let bed = Bed::new(102);
    let script = "pwd; stat -c %a .; cut -d' ' -f5,6 /proc/$$/stat; echo $$; touch left; mkdir -p a/b; env | cut -d= -f1 | sort | tr '\\n' ' '; grep -o 'SigIgn.*' /proc/$$/status";
    let (outcome, kept) = bed.run(&shell(script), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    let text = kept.text(OutputStream::Stdout);
    let lines: Vec<_> = text.lines().collect();
    let own = bed.folder.path().join("own");
    assert_eq!(lines[0], own.display().to_string());
    assert_eq!(lines[1], "700");
    assert_eq!(lines[2], format!("{0} {0}", lines[3]), "leader of its group and session");
    let names = "ORLOJ_ATTEMPT ORLOJ_FENCING_TOKEN ORLOJ_FIRE_TIME ORLOJ_JOB ORLOJ_PARAM_TENANT_ID ORLOJ_PROGRESS_FD ORLOJ_RUN_ID ORLOJ_SESSION PATH PWD ";
    let (found, ignored) = lines[4].split_once("SigIgn:\t").expect("signals");
    assert_eq!(found, names);
    let ignored = u64::from_str_radix(ignored, 16).expect("mask");
    assert_eq!(ignored & 0x7fff_ffff, 0, "no ordinary signal is ignored, SIGPIPE least of all");
    assert!(!own.exists(), "its directory is removed with all that is in it");
}

#[tokio::test]
async fn input_larger_than_any_pipe_is_passed_on_while_output_is_read() {
    let bed = Bed::new(103);
    let input = "0123456789abcdef".repeat(40_000);
    let (outcome, kept) = bed.run(&shell_with("cat", &input, None), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Succeeded);
    assert!(kept.text(OutputStream::Stdout) == input);
    let (outcome, _) = bed.run(&shell_with("exit 4", &input, None), LONG).await;
    assert_eq!(outcome.exit_code, Some(4), "a program that does not read its input is no error");
}

#[tokio::test]
async fn output_keeps_its_order_and_its_bytes() {
    let bed = Bed::new(104);
    // Each line is written once the one before was read: the script waits for the file that the test makes.
    let script = "for i in 1 2 3; do echo out$i; while [ ! -e $0/o$i ]; do :; done; echo err$i >&2; while [ ! -e $0/e$i ]; do :; done; done; printf '\\377\\000\\n'";
    struct Pacer(Kept, PathBuf);
    impl Sink for Pacer {
        fn push(&mut self, stream: OutputStream, bytes: &[u8]) {
            self.0.push(stream, bytes);
            let text = String::from_utf8_lossy(bytes).trim().replace("out", "o").replace("err", "e");
            let _ = std::fs::write(self.1.join(text), "");
        }
        fn note(&mut self, text: &str) {
            self.0.note(text);
        }
        fn flush_at(&self) -> Option<Instant> {
            None
        }
        fn flush(&mut self) {}
        fn progress(&mut self, _: i32) {}
    }
    let folder = bed.folder.path().to_owned();
    let target = exec(&["sh", "-c", script, &folder.display().to_string()]);
    let mut sink = Pacer(Kept::default(), folder);
    let plan = bed.plan(&target).expect("plan");
    let run = execute(&bed.host, plan, LONG, std::future::pending(), |_| {}, &mut sink);
    tokio::time::timeout(LONG, run).await.expect("ends in time");
    let pieces: Vec<_> = sink.0.chunks.iter().map(|(_, bytes)| bytes.clone()).collect();
    let expected: [&[u8]; 7] = [b"out1\n", b"err1\n", b"out2\n", b"err2\n", b"out3\n", b"err3\n", b"\xff\0\n"];
    assert_eq!(pieces, expected);
}

#[tokio::test]
async fn the_whole_tree_ends_whatever_it_does() {
    let bed = Bed::new(105);
    let file = bed.folder.path().join("pids");
    // One in the group, one in a session of its own under a second parent that is gone, all deaf to TERM.
    let script = "trap '' TERM; echo $$ >> $0; \
        sh -c 'trap \"\" TERM; echo $$ >> '$0'; while :; do sleep 1; done' & \
        sh -c 'setsid sh -c \"trap \\\"\\\" TERM; echo \\$\\$ >> '$0'; while :; do sleep 1; done\" >/dev/null 2>&1 & exit 0'; \
        while :; do sleep 1; done";
    let target = exec(&["sh", "-c", script, &file.display().to_string()]);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let abort = async {
        let _ = stopped.await;
        Abort { kind: OutcomeKind::Aborted, reason: "test".into(), grace: Duration::from_millis(50) }
    };
    let both = async {
        let pids = numbers(file.clone(), 3).await;
        assert!(pids.iter().all(|pid| is_alive(*pid)));
        let _ = stop.send(());
        pids
    };
    let ((outcome, _), pids) = tokio::join!(bed.run_until(&target, LONG, abort), both);
    assert_eq!(outcome.kind, OutcomeKind::Aborted);
    assert_eq!(outcome.signal, Some(9));
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "nothing is left of {pids:?}");
}

#[tokio::test]
async fn a_timeout_asks_first() {
    let bed = Bed::new(106);
    let script = "trap 'echo asked; exit 7' TERM; echo ready; while :; do sleep 0.05; done";
    let (outcome, kept) = bed.run(&shell(script), Duration::from_millis(400)).await;
    assert_eq!((outcome.kind, outcome.exit_code), (OutcomeKind::TimedOut, Some(7)), "{outcome:?}");
    assert_eq!(kept.text(OutputStream::Stdout), "ready\nasked\n");
    assert!(message(&outcome).contains("400ms"), "{outcome:?}");
}

#[tokio::test]
async fn what_outlives_a_process_is_ended_and_noted() {
    let bed = Bed::new(107);
    let file = bed.folder.path().join("pids");
    let script =
        "setsid sh -c 'echo $$ >> '$0'; exec sleep 1000' > /dev/null 2>&1 < /dev/null & while [ ! -s $0 ]; do :; done";
    let target = exec(&["sh", "-c", script, &file.display().to_string()]);
    let (outcome, kept) = bed.run(&target, LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Succeeded);
    let pids = numbers(file, 1).await;
    assert!(!is_alive(pids[0]));
    assert!(kept.text(OutputStream::Runner).contains("1 processes outlived"), "{:?}", kept.chunks);
}

#[tokio::test]
async fn output_of_a_helper_that_ends_soon_is_not_cut() {
    let bed = Bed::new(108);
    let file = bed.folder.path().join("go");
    // The helper writes only after its parent is gone.
    let script =
        "p=$$; (while [ -d /proc/$p ] && ! grep -q '^State:.Z' /proc/$p/status; do :; done; echo late) & exit 0";
    let (outcome, kept) = bed.run(&exec(&["sh", "-c", script, &file.display().to_string()]), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Succeeded);
    assert_eq!(kept.text(OutputStream::Stdout), "late\n");
}

#[test]
fn an_attempt_without_a_directory_gets_one_of_its_own() {
    let bed = Bed::new(109);
    let made = bed.plan(&shell("true")).expect("plan");
    assert_eq!(made.directory, Directory::Private(bed.folder.path().join("own")));
    let given = bed.plan(&shell_with("true", "", Some(Path::new("/usr")))).expect("plan");
    assert_eq!(given.directory, Directory::Given("/usr".into()));
}
