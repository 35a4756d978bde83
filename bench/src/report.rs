//! What is printed: one JSON line for each run as soon as it is there, and at the end a table of them for people.
//! Invariant: a line holds the calibration and the load of its own run.

use serde_json::Value;

use crate::usage::load_average;

/// Lines of one workload, and the columns of its table as paths into them (`a.b`).
pub(crate) struct Report {
    workload: &'static str,
    columns: &'static [&'static str],
    lines: Vec<Value>,
}

impl Report {
    pub(crate) fn new(workload: &'static str, columns: &'static [&'static str]) -> Self {
        Self { workload, columns, lines: Vec::new() }
    }

    /// Prints a line.
    pub(crate) fn add(&mut self, backend: &str, calibration: &Value, mut line: Value) {
        line["workload"] = self.workload.into();
        line["backend"] = backend.into();
        line["load_average"] = load_average().into();
        line["calibration"] = calibration.clone();
        println!("{line}");
        self.lines.push(line);
    }

    /// Prints the table.
    pub(crate) fn finish(self) {
        println!("\n| {} | load |", self.columns.join(" | "));
        println!("|{}", "---|".repeat(self.columns.len() + 1));
        for line in &self.lines {
            let cells: Vec<String> = self.columns.iter().map(|path| cell(line, path)).collect();
            println!("| {} | {} |", cells.join(" | "), line["load_average"]);
        }
        println!();
    }
}

fn cell(line: &Value, path: &str) -> String {
    match path.split('.').fold(line, |value, name| &value[name]) {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other @ (Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_)) => other.to_string(),
    }
}
