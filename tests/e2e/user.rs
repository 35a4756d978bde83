//! As which user attempts run, on `orloj dev` started by root and told nothing about users, with real processes. Where the
//! tests are not root's they say so and pass. Invariant: no attempt runs as root unless somebody asked for it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use orloj_tests::process::{Orloj, PATIENCE, run};
use orloj_tests::wait;

use crate::runs::{Dev, is_gone};

const NOBODY: &str = "65534";

fn is_root(test: &str) -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("{test}: skipped, only root can run attempts as another user");
    }
    is_root
}

/// A Dev as root has it that says nothing about users, behind a program that becomes it; its ledger is for everybody.
fn plain(wrapper: &[&str], jobs: &[(&str, &str)]) -> Dev {
    Dev::with_started(jobs, |data| {
        let folder = Path::new(data).parent().expect("a folder");
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).expect("a mode");
        let ledger = folder.join("ledger");
        fs::write(&ledger, "").expect("a file");
        fs::set_permissions(&ledger, fs::Permissions::from_mode(0o666)).expect("a mode");
        let arguments = ["dev", "--quiet", "--listen", "127.0.0.1:0", "--data", data];
        let mut orloj = Orloj::start_plainly(wrapper, &arguments);
        let url = orloj.url();
        (orloj, url)
    })
}

/// What a run of a job has written, once it has ended.
fn said_by(dev: &Dev, job: &str) -> String {
    let run = dev.trigger(job, &[]);
    wait::until(&format!("the end of {job}"), PATIENCE, || dev.run(&run)["finishedAt"].as_str().map(str::to_owned));
    dev.done(&["logs", &run])
}

#[test]
fn a_command_of_a_root_runner_is_nobodys() {
    if !is_root("a_command_of_a_root_runner_is_nobodys") {
        return;
    }
    let script = "echo id $(id -u) $(id -g) $(id -G); echo told $HOME $USER $LOGNAME; echo own $(stat -c '%u %g %a' .); \
        echo $$ leads $(cut -d' ' -f5,6 /proc/$$/stat); echo mask $(grep -o 'SigIgn.*' /proc/$$/status | tail -c 9) $(umask); \
        echo fds $(ls /proc/self/fd); echo a > file && mkdir -p x/y && echo writes; echo again > /dev/stdout; echo '42 x' >&3; \
        echo odd $(tr '\\\\0' '\\\\n' < /proc/$$/environ | grep -c '^my.name=with '); \
        for path in $DATA/log.sqlite $DATA/log.lock ../sessions /proc/$PPID/environ; do cat $path && echo LEAK $path; done; \
        ls $DATA/work && echo LEAK work; ls /proc/$PPID/fd && echo LEAK fd; kill -0 $PPID && echo LEAK kill; true";
    let dev = plain(
        &[],
        &[(
            "who",
            &format!("{{run: {{shell: {{script: \"{script}\", env: {{DATA: ../../.., my.name: 'with space'}}}}}}}}"),
        )],
    );
    let said = said_by(&dev, "who");
    for expected in [
        format!("id {NOBODY} {NOBODY} {NOBODY}\n"),
        "told /nonexistent nobody nobody\n".to_owned(),
        format!("own {NOBODY} {NOBODY} 700\n"),
        "writes\nagain\n".to_owned(),
        "odd 1\n".to_owned(),
        // The highest of these 32 signals is the C library's own.
        "mask 80000000 0022\n".to_owned(),
    ] {
        assert!(said.contains(&expected), "{expected:?} in {said}");
    }
    assert!(!said.contains("LEAK") && said.matches("Permission denied").count() >= 5, "{said}");
    assert!(said.contains("fds 0 1 2 3 4\n"), "nothing else is left open, and one is the listing itself: {said}");
    let leader = said.lines().find(|line| line.contains(" leads ")).expect("a line");
    let numbers: Vec<&str> = leader.split(' ').filter(|word| *word != "leads").collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "leader of its group and session: {leader}");
    let told = dev.orloj.said();
    assert!(told.contains("`runner.user` is not set: attempts run as user nobody (65534)"), "{told}");
    assert!(told.contains("user   nobody (65534)"), "{told}");
    let work = dev.folder.path().join("data/work");
    let left: Vec<_> =
        fs::read_dir(fs::read_dir(work).expect("a folder").next().expect("a home").expect("a home").path())
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
    assert_eq!(left, ["sessions"], "its directory is removed with all that is in it");
    dev.end();
}

/// The groups that the system's own tool knows of the user `daemon`, first one first.
fn groups(flag: &str) -> String {
    let output = Command::new("id").args([flag, "daemon"]).output().expect("id");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn another_user_is_chosen_and_a_wrong_one_refused() {
    if !is_root("another_user_is_chosen_and_a_wrong_one_refused") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").display().to_string();
    let with = |user: &str, more: &[&str]| {
        let user = format!("runner.user={user}");
        run(&[&["dev", "--listen", "127.0.0.1:0", "--data", &data, "--set", &user], more].concat())
    };
    for (user, words) in [
        ("no-such-user", "`runner.user` is `no-such-user`: this machine has no user `no-such-user`; write"),
        ("daemon:no-such-group", "has no group `no-such-group`"),
        ("64999", "write it too, as in `64999:64999`"),
    ] {
        let output = with(user, &[]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("--set runner.user") && said.contains(words), "{said}");
    }
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
    fs::write(folder.path().join("token"), "hush").expect("a file");
    let secrets = format!("runner.secretsDir={}", folder.path().display());
    let output = with("daemon", &["--set", &secrets]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(
        said.contains("`runner.secretsDir`: attempts run as user daemon (1), who may read") && said.contains("token"),
        "{said}"
    );

    let job = "{run: {exec: {command: [sh, -c, 'echo $(id -u) $(id -g) $(id -G) $USER']}}}";
    for (user, expected) in [
        ("daemon", format!("{} {} {} daemon", groups("-u"), groups("-g"), groups("-G"))),
        ("1:root", "1 0 0 ".to_owned()),
        ("64999:64998", "64999 64998 64998 64999".to_owned()),
        ("root", "0 0 ".to_owned()),
    ] {
        let set = format!("runner.user={user}");
        let dev = Dev::with_started(&[("who", job)], |data| crate::dev::start(data, &["--set", &set]));
        let said = said_by(&dev, "who");
        assert!(said.contains(&expected), "{user}: {expected:?} in {said}");
        dev.end();
    }
}

#[test]
fn what_another_user_may_not_do_is_said_with_field_and_fix() {
    if !is_root("what_another_user_may_not_do_is_said_with_field_and_fix") {
        return;
    }
    let limits = "limits: {processes: 20, memory: 32MiB, openFiles: 32, cpuSeconds: 20}";
    // The least memory there can be, and more variables than a page.
    let tiny = format!(
        "{{run: {{exec: {{command: [/bin/true], env: {{A: {}}}, limits: {{memory: 8MiB}}}}}}}}",
        "x".repeat(100_000)
    );
    let dev = plain(
        &[],
        &[
            ("place", "{run: {exec: {command: [/bin/true], workingDir: LEDGER.closed}}}"),
            ("program", "{run: {exec: {command: [LEDGER.closed/program]}}}"),
            ("text", "{run: {exec: {command: [LEDGER.text]}}}"),
            ("tiny", &tiny),
            (
                "limits",
                &format!(
                    "{{run: {{shell: {{script: 'ulimit -v; ulimit -n; ulimit -t; i=0; while sleep 60 & do i=$((i+1)); done', {limits}}}}}}}"
                ),
            ),
        ],
    );
    let ledger = dev.ledger().display().to_string();
    let closed = format!("{ledger}.closed");
    fs::create_dir(&closed).expect("a folder");
    fs::copy("/bin/true", format!("{closed}/program")).expect("a program");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("a mode");
    fs::write(format!("{ledger}.text"), "echo no script\n").expect("a file");
    fs::set_permissions(format!("{ledger}.text"), fs::Permissions::from_mode(0o755)).expect("a mode");
    for (job, words) in [
        ("place", ["user `nobody` (`runner.user`) may not enter", "workingDir"]),
        ("program", ["user `nobody` (`runner.user`) may not execute", "spec.run.exec.command[0]"]),
        ("text", ["in no format this machine executes", "spec.run.exec.command[0]"]),
    ] {
        let (_, answer) = dev.cli(&["trigger", &format!("test/{job}"), "--wait", "-o", "json"]);
        for word in words {
            assert!(answer.contains(word), "{word} in {answer}");
        }
    }
    let run = dev.trigger("tiny", &[]);
    dev.wait_state(&run, "succeeded");
    let said = said_by(&dev, "limits");
    assert!(said.contains("32768\n32\n20\n"), "{said}");
    assert!(said.to_lowercase().contains("fork"), "{said}");
    assert!(!said.contains("does not bind"), "{said}");
    dev.end();
}

/// Runs a job of many kinds of processes as nobody, kills the runner, and waits for the end of all.
fn no_process_is_left(wrapper: &[&str]) {
    let script = "'setsid sleep 1000 & echo $! >> LEDGER; setsid sh -c \"sleep 1001 & echo \\$! >> LEDGER\"; \
                  env -i sleep 1002 & echo $! >> LEDGER; sleep 1003'";
    let dev =
        plain(wrapper, &[("long", &format!("{{overlap: {{policy: allow}}, run: {{shell: {{script: {script}}}}}}}"))]);
    let user = |pid: &String| fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let cancelled = dev.trigger("long", &[]);
    let first = wait::until("three processes", PATIENCE, || Some(dev.written()).filter(|pids| pids.len() == 3));
    for pid in &first {
        assert!(user(pid).contains(&format!("Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}")), "{}", user(pid));
    }
    dev.done(&["cancel", &cancelled, "--wait"]);
    wait::until("the end of the cancelled", PATIENCE, || first.iter().all(|pid| is_gone(pid)).then_some(()));
    dev.trigger("long", &[]);
    let pids = wait::until("three more", PATIENCE, || Some(dev.written()).filter(|pids| pids.len() == 6));
    dev.orloj.kill();
    wait::until("the end of all of them", PATIENCE, || pids.iter().all(|pid| is_gone(pid)).then_some(()));
}

#[test]
fn no_process_of_another_user_outlives_a_cancel_or_its_runner() {
    if is_root("no_process_of_another_user_outlives_a_cancel_or_its_runner") {
        no_process_is_left(&[]);
    }
}

/// Root of a container has no right to look into processes of others, unless it takes their place.
#[test]
fn nor_where_root_has_only_the_rights_of_a_container() {
    const TEST: &str = "nor_where_root_has_only_the_rights_of_a_container";
    if !is_root(TEST) {
        return;
    }
    let rights = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap";
    let wrapper = ["setpriv", "--inh-caps", "-all", "--bounding-set", rights];
    if !Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("{TEST}: skipped, there is no `setpriv` that takes capabilities away");
        return;
    }
    no_process_is_left(&wrapper);
}

/// Capabilities that a root runner needs, less one.
fn rights_without(missing: &str) -> String {
    let needed = ["chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap"];
    let kept = needed.into_iter().filter(|name| *name != missing).map(|name| format!(",+{name}"));
    format!("-all{}", kept.collect::<String>())
}

#[test]
fn a_runner_that_could_not_end_or_remove_what_it_starts_does_not_start() {
    const TEST: &str = "a_runner_that_could_not_end_or_remove_what_it_starts_does_not_start";
    if !is_root(TEST) {
        return;
    }
    if !Command::new("setpriv").arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("{TEST}: skipped, there is no `setpriv` that takes capabilities away");
        return;
    }
    for (missing, words) in [
        ("chown", "no directory can be given to it: CHOWN ("),
        ("dac_override", "its directories can't be entered: DAC_OVERRIDE ("),
        ("setgid", "no process can become it: SETGID, SETUID ("),
        ("setuid", "no process can become it: SETGID, SETUID ("),
        ("kill", "its processes can't be ended: KILL ("),
        ("fowner", "its directories can't be removed: DAC_OVERRIDE, FOWNER ("),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().join("data").display().to_string();
        let rights = rights_without(missing);
        let wrapper = ["setpriv", "--inh-caps", "-all", "--bounding-set", &rights];
        let mut orloj = Orloj::start_plainly(&wrapper, &["dev", "--quiet", "--listen", "127.0.0.1:0", "--data", &data]);
        let status = orloj.wait_end();
        let expected = format!("attempts can't run as user `nobody` (`runner.user`): {words}");
        wait::until(&expected, PATIENCE, || orloj.said().contains(&expected).then_some(()));
        assert!(!status.success(), "without {missing}: {}", orloj.said());
        assert!(orloj.said().contains("needs the capabilities CHOWN"), "{}", orloj.said());
    }
}

#[test]
fn directories_that_the_user_of_attempts_could_swap_are_refused() {
    if !is_root("directories_that_the_user_of_attempts_could_swap_are_refused") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let (above, data) = (folder.path().join("above"), folder.path().join("above/data"));
    fs::create_dir_all(data.join("work")).expect("a directory");
    let give = |uid| std::os::unix::fs::chown(&above, Some(uid), None).expect("an owner");
    give(1);
    let data = data.display().to_string();
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--data", &data, "--set", "runner.user=daemon"];
    let output = run(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    let shown = above.canonicalize().expect("a path").display().to_string();
    for word in ["`data.dir`:", "run as user `daemon`", &format!("who owns `{shown}`"), "chown root"] {
        assert!(said.contains(word), "{word} in {said}");
    }
    give(0);
    let mut orloj = Orloj::start(&arguments);
    orloj.url();
    assert!(orloj.stop().success());
}

/// Nothing was executed: whoever asks must not hear of a success.
#[test]
fn an_order_that_is_not_understood_is_said_on_the_verdict() {
    let folder = tempfile::tempdir().expect("a folder");
    let verdict = folder.path().join("verdict");
    for order in ["", "nowhere / '' /bin/true true", "given / memory:5 /bin/true true"] {
        let script = format!("exec \"$0\" launch 65534:65534:65534 {order} 4< /dev/null 5> \"$1\"");
        let launched =
            Command::new("sh").args(["-c", &script]).arg(orloj_tests::process::binary()).arg(&verdict).output();
        let launched = launched.expect("sh");
        assert!(!launched.status.success(), "{order}");
        let said = fs::read_to_string(&verdict).expect("a verdict");
        assert_eq!(said, format!("order {}\n", nix::errno::Errno::EINVAL as i32), "{order}");
    }
}
