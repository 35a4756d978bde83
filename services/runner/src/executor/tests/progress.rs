//! What a process says about how far it is, by both ways. Invariant: nobody has to read it for the process to go
//! on, and nobody waits for whoever still could say something.

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn both_ways_are_heard_and_lines_stay_in_the_output() {
    let bed = Bed::new(140);
    let script = "echo 'orloj:progress 10 first'; echo 'orloj:progress x'; echo '20 second' >&$ORLOJ_PROGRESS_FD; \
        echo nonsense >&3; printf 'orloj:progress 100'";
    let (outcome, kept) = bed.run(&shell(script), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    let mut percents = kept.percents.clone();
    percents.sort_unstable();
    percents.dedup();
    // Two lines of one pipe may come as one piece, of which the last counts.
    assert!(percents.ends_with(&[100]) && percents.contains(&20), "{percents:?}");
    let text = "orloj:progress 10 first\norloj:progress x\norloj:progress 100";
    assert_eq!(kept.text(OutputStream::Stdout), text);
    let told = kept.text(OutputStream::Runner);
    assert!(told.contains("descriptor 3: `nonsense`"), "{told}");
}

#[tokio::test]
async fn a_full_pipe_of_progress_holds_nobody() {
    let bed = Bed::new(141);
    let script = "yes '42 and a text' | head -n 150000 >&3; yes | head -n 500000; echo '43 end' >&3";
    let (outcome, kept) = bed.run(&shell(script), LONG).await;
    assert_eq!(outcome.kind, OutcomeKind::Succeeded, "{outcome:?}");
    assert!(kept.percents.contains(&42) && kept.percents.ends_with(&[43]), "{:?}", kept.percents.last());
}

#[tokio::test]
async fn nobody_waits_for_a_process_that_only_holds_the_progress() {
    let bed = Bed::new(142);
    let file = bed.folder.path().join("pids");
    let script = format!("echo '5' >&3; sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > {}", file.display());
    let before = Instant::now();
    let (outcome, kept) = bed.run(&shell(&script), LONG).await;
    assert_eq!((outcome.kind, kept.percents), (OutcomeKind::Succeeded, vec![5]));
    assert!(before.elapsed() < LONG / 2);
    let pids = numbers(file, 1).await;
    assert!(!is_alive(pids[0]));
}

#[tokio::test]
async fn a_process_has_no_other_descriptor() {
    let bed = Bed::new(143);
    let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    // Whoever started this test may have left descriptors open, which any child of it has; and one is the listing.
    let plain = std::process::Command::new("ls").arg("/proc/self/fd").output().expect("ls");
    let mut expected = words(String::from_utf8_lossy(&plain.stdout).into_owned());
    expected.extend(["3", "4"].map(str::to_owned));
    for limits in [None, Some(orloj_domain::job::ProcessLimits { open_files: Some(64), ..Default::default() })] {
        let Target::ExecTarget(target) = exec(&["ls", "/proc/self/fd"]) else { unreachable!("as made") };
        let (_, kept) = bed.run(&Target::ExecTarget(ExecTarget { limits, ..target }), LONG).await;
        assert_eq!(words(kept.text(OutputStream::Stdout)), expected, "{limits:?}");
    }
}
