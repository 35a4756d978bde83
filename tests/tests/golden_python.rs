//! The golden vectors as a program in another language sees them: `tests/golden/check.py` under Python's
//! fastavro. Not here: what the vectors hold (`crates/runtime/tests/golden.rs`). Invariant: without the virtual
//! environment the test fails and names what makes it; it never passes unseen.

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn python() -> PathBuf {
    let python = std::env::var_os("ORLOJ_TEST_PYTHON").map_or_else(|| root().join(".venv/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "no Python at {}: `make test` creates the virtual environment with tests/golden/requirements.txt; \
         or name another with ORLOJ_TEST_PYTHON",
        python.display()
    );
    python
}

fn run(script: &Path, argument: &Path) -> (bool, String) {
    let output = Command::new(python()).arg(script).arg(argument).output().expect("Python starts");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

#[test]
fn fastavro_reads_the_golden_vectors_and_writes_the_same_bytes() {
    let (is_success, text) = run(&root().join("tests/golden/check.py"), &root().join("schemas"));
    assert!(is_success, "{text}");
    assert!(text.contains(" vectors, 0 failures"), "{text}");
    println!("{text}");
}

/// The check itself must see a difference.
#[test]
fn a_changed_vector_is_noticed() {
    let copy = tempfile::tempdir().expect("directory");
    let golden = copy.path().join("golden");
    std::fs::create_dir(&golden).expect("directory");
    for (from, to) in [("schemas", copy.path()), ("schemas/golden", golden.as_path())] {
        for entry in std::fs::read_dir(root().join(from)).expect("schemas") {
            let path = entry.expect("entry").path();
            if path.is_file() {
                std::fs::copy(&path, to.join(path.file_name().expect("name"))).expect("copy");
            }
        }
    }
    let vector = golden.join("Barrier.bin");
    let mut bytes = std::fs::read(&vector).expect("vector");
    *bytes.last_mut().expect("a byte") ^= 2;
    std::fs::write(&vector, bytes).expect("vector");
    let (is_success, text) = run(&root().join("tests/golden/check.py"), copy.path());
    assert!(!is_success && text.contains("FAILED Barrier.bin"), "{text}");
}
