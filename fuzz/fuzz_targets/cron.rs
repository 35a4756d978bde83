//! Any text as a cron expression, in either dialect and a zone with wild history. What it checks is in the test that
//! runs the corpus.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/domain/tests/corpus/checks.rs"]
mod checks;

fuzz_target!(|bytes: &[u8]| checks::cron(bytes));
