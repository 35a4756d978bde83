//! The page about the life of a run says what the table says; `ORLOJ_DOCS=write` writes it.

use std::fmt::Write as _;
use std::path::PathBuf;

use orloj_domain::run::RunState;
use orloj_domain::run::lifecycle::STEPS;

fn page() -> String {
    let mut page = String::from(
        "# The life of a run\n\nMade from `crates/domain/src/run/lifecycle.rs`; every step stands on the log as one record of \
         `run.events`, but for two that another record says: a run that is ready as soon as it is asked for (its request in \
         `fires`), and a claim that its end overtakes within a moment (`attempt.events`). `succeeded`, `cancelled` and `expired` are final; a `dead` run can be sent back for 90 days.\n\n\
         | from | to | when |\n|---|---|---|\n",
    );
    for rule in STEPS {
        let from = rule.from.map_or("(asked for)", RunState::as_str);
        let _ = writeln!(page, "| {from} | {} | {} |", rule.to, rule.when);
    }
    page
}

#[test]
#[allow(clippy::disallowed_methods, reason = "a test is told by the environment to write what it would compare")]
fn the_page_is_current() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/run-lifecycle.md");
    if std::env::var("ORLOJ_DOCS").is_ok_and(|word| word == "write") {
        std::fs::write(&path, page()).expect("the page is written");
    }
    let found = std::fs::read_to_string(&path).expect("the page is there");
    assert!(found == page(), "docs/run-lifecycle.md is old: run `ORLOJ_DOCS=write cargo test -p orloj-domain`");
}
