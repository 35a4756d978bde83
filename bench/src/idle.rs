//! `orloj dev` with nothing to do: CPU share and memory of the real binary. Invariant: measured from outside,
//! after it has said that it is ready.

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use serde_json::json;

use crate::usage::{cpu_seconds, resident_mib};

/// Runs the workload and prints its line.
pub(crate) fn run(seconds: u64) -> ExitCode {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some(binary) = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("orloj"))) else {
        eprintln!("idle: can't tell where this program is");
        return ExitCode::FAILURE;
    };
    if !binary.exists() {
        eprintln!("idle: {} is missing; `make bench` builds it", binary.display());
        return ExitCode::FAILURE;
    }
    let mut child = Command::new(binary)
        .args(["dev", "--listen", "127.0.0.1:0", "--data"])
        .arg(directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("orloj starts");
    let said = child.stderr.take().expect("piped above");
    let mut lines = BufReader::new(said).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("API")), "orloj has ended without saying where its API is");
    // Start-up work is over well before; what is wanted is the steady state.
    std::thread::sleep(Duration::from_secs(5));
    let before = cpu_seconds(child.id());
    std::thread::sleep(Duration::from_secs(seconds));
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let share = (cpu_seconds(child.id()) - before) / seconds as f64;
    println!(
        "{}",
        json!({
            "workload": "idle", "backend": "embedded", "seconds": seconds,
            "cpu_percent_of_a_core": share * 100.0, "resident_mib": resident_mib(child.id()),
        })
    );
    let _ = child.kill();
    let _ = child.wait();
    ExitCode::SUCCESS
}
