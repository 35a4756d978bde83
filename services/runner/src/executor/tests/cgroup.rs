//! Attempts in control groups of their own, where this machine lets the tests make some; else they say so and pass.
//! Invariant: what has left session, group, parents and environment behind is ended all the same.

use super::super::cgroup::Groups;
use super::*;

fn bed(attempt: i32) -> Option<Bed> {
    let groups = Groups::find();
    if groups.is_none() {
        eprintln!("skipped: no control group (cgroup v2) can be made here");
    }
    groups.map(|groups| Bed { host: Host::start(true, Some(groups), None).expect("host"), ..Bed::new(attempt) })
}

#[tokio::test]
async fn what_hides_from_every_search_is_in_the_group() {
    let Some(bed) = bed(150) else { return };
    let file = bed.folder.path().join("pids");
    // Two parents that are gone, a session of its own, an empty environment, deaf to TERM.
    let hidden = "trap '' TERM; echo $$ > $0; while :; do sleep 1; done";
    let script = "env -i PATH=$PATH setsid sh -c '(setsid sh -c \"$1\" $0 >/dev/null 2>&1 </dev/null 3>&- &)' $0 \"$1\"; \
        while [ ! -s $0 ]; do sleep 0.01; done; grep ^0:: /proc/self/cgroup";
    let target = exec(&["sh", "-c", script, &file.display().to_string(), hidden]);
    let plan = bed.plan(&target).expect("plan");
    let (mut isolation, mut kept) = ("", Kept::default());
    let run = execute(&bed.host, plan, LONG, std::future::pending(), |level| isolation = level, &mut kept);
    let outcome = tokio::time::timeout(LONG, run).await.expect("ends in time");
    assert_eq!((outcome.kind, isolation), (OutcomeKind::Succeeded, "cgroup"), "{outcome:?}");
    let name = format!("orloj-{}-150-{}", bed.facts.run_id, bed.facts.token);
    let own = kept.text(OutputStream::Stdout);
    assert!(own.trim().ends_with(&name), "{own}");
    let pids = numbers(file, 1).await;
    assert!(!is_alive(pids[0]), "found in the group");
    let groups = format!("{:?}", Groups::find());
    let folder = groups.split('"').nth(1).expect("folder");
    assert!(!Path::new(folder).join(name).exists(), "the group is removed");
}

#[tokio::test]
async fn a_group_changes_nothing_else() {
    let Some(bed) = bed(151) else { return };
    for (target, kind, exit_code) in [
        (exec(&["true"]), OutcomeKind::Succeeded, Some(0)),
        (shell("exit 3"), OutcomeKind::Failed, Some(3)),
        (shell_with("test $(pwd) = /usr", "", Some(Path::new("/usr"))), OutcomeKind::Succeeded, Some(0)),
        (shell_with("cat; sleep 1000 &", "in", None), OutcomeKind::Succeeded, Some(0)),
        (exec(&["no-such-program"]), OutcomeKind::NotStarted, None),
    ] {
        let (outcome, _) = bed.run(&target, LONG).await;
        assert_eq!((outcome.kind, outcome.exit_code), (kind, exit_code), "{target:?}: {outcome:?}");
    }
    let (outcome, _) = bed.run(&shell("trap '' TERM; while :; do sleep 1; done"), Duration::from_millis(100)).await;
    assert_eq!((outcome.kind, outcome.signal), (OutcomeKind::TimedOut, Some(9)));
}
