//! A producer that knows only the schemas: Python with `confluent-kafka` and `fastavro` publishes a job as Avro
//! and one as JSON, asks for a run, and reads the answers.

use std::path::Path;
use std::process::Command;

use orloj_tests::installation::Installation;

#[test]
fn a_python_producer_publishes_jobs_and_reads_their_results() {
    let Some(installation) = Installation::new("python") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let data = format!("data.dir={}", folder.path().display());
    let mut orloj = installation.serve("all", &["--listen", "127.0.0.1:0", "--set", &data]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let python = root.join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: `make test` makes it", python.display());
    let output = Command::new(python)
        .arg(root.join("tests/e2e/producer.py"))
        .args([&installation.bootstrap, &installation.prefix])
        .arg(root.join("schemas"))
        .output()
        .expect("python starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n--- orloj said:\n{}", orloj.said());
    orloj.signal(nix::sys::signal::Signal::SIGTERM);
    assert!(orloj.wait_end().success());
}
