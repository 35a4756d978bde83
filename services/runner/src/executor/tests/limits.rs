//! What limits do to programs that want more: time, memory, files, processes. Invariant: whatever such a program
//! does, the attempt ends, says which limit it was as far as that is known, and leaves nothing behind.

use orloj_domain::job::ProcessLimits;
use rustix::process::getuid;

use super::*;

fn limited(command: &[&str], limits: ProcessLimits) -> Target {
    let Target::ExecTarget(target) = exec(command) else { unreachable!("as made") };
    Target::ExecTarget(ExecTarget { limits: Some(limits), ..target })
}

fn none() -> ProcessLimits {
    ProcessLimits::default()
}

#[tokio::test]
async fn a_process_that_burns_its_processor_time_is_ended_and_told_so() {
    let bed = Bed::new(130);
    let limits = ProcessLimits { cpu_seconds: Some(1), ..none() };
    let (outcome, _) = bed.run(&limited(&["sh", "-c", "while :; do :; done"], limits), LONG).await;
    assert_eq!((outcome.kind, outcome.signal), (OutcomeKind::Failed, Some(24)), "{outcome:?}");
    assert!(message(&outcome).contains("used up spec.run.exec.limits.cpuSeconds, 1"), "{outcome:?}");
    // A shell that waits for it passes the signal on as its exit code.
    let (outcome, _) = bed.run(&limited(&["sh", "-c", "sh -c 'while :; do :; done'; exit $?"], limits), LONG).await;
    assert_eq!(outcome.exit_code, Some(152), "{outcome:?}");
    assert!(message(&outcome).contains("used up spec.run.exec.limits.cpuSeconds, 1"), "{outcome:?}");
}

#[tokio::test]
async fn a_process_gets_no_more_memory_and_files_than_it_may() {
    let bed = Bed::new(131);
    let hog = ["dd", "if=/dev/zero", "of=/dev/null", "bs=512M", "count=1"];
    let memory = |bytes| ProcessLimits { memory_bytes: Some(bytes), ..none() };
    let (outcome, kept) = bed.run(&limited(&hog, memory(64 << 20)), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Failed, "{outcome:?}");
    assert!(kept.text(OutputStream::Stderr).contains("memory"), "{:?}", kept.text(OutputStream::Stderr));
    let (outcome, _) = bed.run(&limited(&hog, memory(4 << 30)), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "enough is enough: {outcome:?}");
    let files = ProcessLimits { open_files: Some(16), ..none() };
    let (outcome, kept) = bed.run(&limited(&["sh", "-c", "cat 9</dev/null"], files), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    let open_many = "i=0; while [ $i -lt 30 ]; do set -- \"$@\" /dev/null; i=$((i+1)); done; exec paste \"$@\"";
    let (outcome, kept_many) = bed.run(&limited(&["sh", "-c", open_many], files), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Failed, "{outcome:?}");
    assert!(kept_many.text(OutputStream::Stderr).contains("open files"), "{:?} {:?}", kept.chunks, kept_many.chunks);
}

#[tokio::test]
async fn a_variable_that_a_shell_would_drop_is_refused_beside_limits() {
    let bed = Bed::new(132);
    let with = |limits| {
        let Target::ExecTarget(target) = exec(&["sh", "-c", "env | grep '^my.name='"]) else { unreachable!("as made") };
        Target::ExecTarget(ExecTarget { env: BTreeMap::from([("my.name".into(), "x".into())]), limits, ..target })
    };
    let (outcome, _) = bed.run(&with(Some(ProcessLimits { open_files: Some(64), ..none() })), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::NotStarted);
    assert!(message(&outcome).contains("spec.run.exec.env.my.name"), "{outcome:?}");
    assert!(bed.plan(&with(None)).is_ok());
}

/// The kernel does not bound root's processes, so that the script takes another user first: one for each case, as all processes of
/// a user count.
fn as_somebody<'a>(user: &'a str, script: &'a str) -> Option<Vec<&'a str>> {
    if !getuid().is_root() {
        return Some(vec!["sh", "-c", script]);
    }
    let path = std::env::split_paths("/usr/local/bin:/usr/bin:/bin").find(|folder| folder.join("setpriv").exists());
    if path.is_none() {
        eprintln!("skipped: root's processes are not bounded, and there is no `setpriv` to take another user");
    }
    path.map(|_| vec!["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "sh", "-c", script])
}

#[tokio::test]
async fn processes_are_bounded() {
    let bed = Bed::new(133);
    let limits = ProcessLimits { processes: Some(20), ..none() };
    let Some(command) = as_somebody("64999", "n=0; while sleep 1000 & do n=$((n+1)); echo $n; done") else { return };
    let (outcome, kept) = bed.run(&limited(&command, limits), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Failed, "{outcome:?}");
    assert!(kept.text(OutputStream::Stderr).to_lowercase().contains("fork"), "{:?}", kept.text(OutputStream::Stderr));
    let told = kept.text(OutputStream::Runner);
    assert!(told.contains("outlived"), "{told}");
    assert_eq!(told.contains("does not bind processes of root"), getuid().is_root(), "{told}");
}

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_ends() {
    let bed = Bed::new(134);
    let limits = ProcessLimits { processes: Some(20), ..none() };
    let Some(command) = as_somebody("64998", "trap '' TERM; b() { b 2>/dev/null & b 2>/dev/null & wait; }; b") else {
        return;
    };
    let (outcome, kept) = bed.run(&limited(&command, limits), Duration::from_secs(2)).await;
    assert_ne!(outcome.kind, OutcomeKind::NotStarted, "{outcome:?}");
    assert!(!kept.text(OutputStream::Runner).contains("could not be killed"), "{:?}", kept.text(OutputStream::Runner));
}
