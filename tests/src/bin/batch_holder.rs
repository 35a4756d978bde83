//! A process to be killed: it opens the log it is told to, appends, leaves a batch open, says so, and waits.
//! Not here: the killing. Invariant: what it prints is printed after everything is in the log.

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use orloj_runtime::clock::SystemClock;
use orloj_runtime::embedded::EmbeddedLog;
use orloj_runtime::kafka::{KafkaConfig, KafkaLog};
use orloj_runtime::log::Log;
use orloj_tests::conformance::holder::{READY, hold};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let log: Box<dyn Log> = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["embedded", directory] => match EmbeddedLog::open(Path::new(directory), Arc::new(SystemClock::new())) {
            Ok(log) => Box::new(log),
            Err(error) => return failed(&error),
        },
        ["kafka", bootstrap, prefix] => {
            let properties = [("bootstrap.servers".to_owned(), (*bootstrap).to_owned())].into();
            match KafkaLog::connect(KafkaConfig { properties, prefix: (*prefix).to_owned() }) {
                Ok(log) => Box::new(log),
                Err(error) => return failed(&error),
            }
        }
        _ => return failed(&"usage: batch_holder embedded DIRECTORY | kafka ADDRESS PREFIX"),
    };
    let _open = hold(&*log);
    println!("{READY}");
    if let Err(error) = std::io::stdout().flush() {
        return failed(&error);
    }
    // Until it is killed, or whoever started it is gone.
    let _ = std::io::stdin().read(&mut [0]);
    ExitCode::SUCCESS
}

fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}
