//! Runs everything that the fuzz targets have kept: what once broke something, and what reaches every corner.

#[path = "corpus/checks.rs"]
mod checks;

use std::fs;
use std::path::Path;

fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for file in fs::read_dir(&folder).expect("the corpus is kept in the tree").flatten() {
        let bytes = fs::read(file.path()).expect("a readable file");
        // Printed by the test runner if this is the one that fails.
        println!("{}", file.path().display());
        check(&bytes);
        count += 1;
    }
    assert!(count > 20, "only {count} files in {}", folder.display());
}

#[test]
fn cron_expressions() {
    run("cron", checks::cron);
}

#[test]
fn manifests() {
    run("manifest", checks::manifest);
}
