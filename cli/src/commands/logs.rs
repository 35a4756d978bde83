//! `orloj logs`: what the attempts of a run wrote, in order. Not here: log lines of Orloj's own services.
//! Invariant: standard output of the attempt goes to standard output, the rest to standard error, byte for byte.

use std::io::{BufRead as _, BufReader, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::Value;

use super::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Format, text};

/// Show what a run wrote
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  orloj logs ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09
  orloj logs ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09 --attempt 2
  orloj logs ce5dd4b4-2d64-8a07-a09a-d0f7e3f4ff09 -f     as it comes, until the run has ended

Standard output and standard error are two pipes: each is kept in its own order, and what was written to both within a
moment may be shown one after the other. `2>&1` in a script makes one of them.")]
pub(crate) struct LogsArguments {
    /// Id of the run
    #[arg(value_name = "RUN")]
    run: String,
    /// Only this attempt
    #[arg(long, value_name = "N")]
    attempt: Option<u32>,
    /// Go on showing what comes, until the run has ended
    #[arg(short, long)]
    follow: bool,
}

pub(crate) fn run(context: &Context, arguments: &LogsArguments) -> Outcome {
    let path = format!("/api/v1/runs/{}/output", arguments.run);
    let attempt = arguments.attempt.map(|attempt| attempt.to_string());
    let query: Vec<(&str, &str)> = attempt.as_deref().map(|attempt| ("attempt", attempt)).into_iter().collect();
    let mut shown = Shown { format: context.global.output, attempt: None };
    if arguments.follow {
        follow(context, &path, &query, &mut shown)?;
        return Ok(Code::Ok);
    }
    let items = context.client()?.items(&path, &query, usize::MAX)?;
    if context.global.output == Format::Json {
        output::print(&output::pretty(&serde_json::json!({ "items": items })))?;
        return Ok(Code::Ok);
    }
    for item in &items {
        shown.show(item)?;
    }
    if items.is_empty() {
        output::note("nothing was written");
    }
    Ok(Code::Ok)
}

/// Reads server-sent events until the server ends the stream.
fn follow(context: &Context, path: &str, query: &[(&str, &str)], shown: &mut Shown) -> Result<(), Failure> {
    let mut response = context.client()?.get_response(path, query, "text/event-stream")?;
    let mut data = String::new();
    for line in BufReader::new(response.body_mut().as_reader()).lines() {
        let line = line.map_err(|error| Failure::error(format!("the stream broke off: {error}")))?;
        if let Some(part) = line.strip_prefix("data:") {
            data.push_str(part.strip_prefix(' ').unwrap_or(part));
        } else if line.is_empty() && !data.is_empty() {
            if let Ok(item) = serde_json::from_str::<Value>(&data) {
                shown.show(&item)?;
            }
            data.clear();
        }
    }
    Ok(())
}

struct Shown {
    format: Format,
    /// The attempt whose output was shown last.
    attempt: Option<String>,
}

impl Shown {
    fn show(&mut self, item: &Value) -> Result<(), Failure> {
        match self.format {
            Format::Json | Format::Jsonl => return output::print(&item.to_string()),
            Format::Yaml => return output::print(&format!("---\n{}", output::yaml(std::slice::from_ref(item))?)),
            Format::Table | Format::Wide | Format::Name => {}
        }
        let Some(written) = written(item) else { return Ok(()) };
        let attempt = text(item, "attempt");
        if self.attempt.as_ref().is_some_and(|last| *last != attempt) {
            output::note(&format!("-- attempt {attempt}"));
        }
        self.attempt = Some(attempt);
        if text(item, "stream") == "stdout" {
            write_raw(std::io::stdout().lock(), "standard output", &written)
        } else {
            write_raw(std::io::stderr().lock(), "standard error", &written)
        }
    }
}

/// The bytes of a piece. A piece that is no text as it stands has them in `base64`, since `text` has lost some of them; a
/// character that was cut in two between pieces is whole again.
fn written(item: &Value) -> Option<Vec<u8>> {
    let string = |name: &str| item.get(name).and_then(Value::as_str);
    let exact = string("base64").and_then(|text| STANDARD.decode(text).ok());
    exact.or_else(|| string("text").map(|text| text.as_bytes().to_vec()))
}

/// Pieces of output end where they end, not where lines do.
fn write_raw(mut out: impl Write, name: &str, bytes: &[u8]) -> Result<(), Failure> {
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(|error| Failure::error(format!("{name} can't be written: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn pieces_are_written_as_they_were() {
        assert_eq!(written(&json!({"text": "one\n"})), Some(b"one\n".to_vec()));
        assert_eq!(written(&json!({"text": "\u{fffd}\n", "base64": "/wo="})), Some(vec![0xff, b'\n']));
        assert_eq!(written(&json!({"text": "kept", "base64": "?"})), Some(b"kept".to_vec()));
        assert_eq!(written(&json!({"attempt": 1})), None);
    }
}
